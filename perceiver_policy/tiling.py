"""Optical flow of images larger than the model was trained on: tile by tile, blended.

Fourier positions tell a pixel where in the picture it is, in parts of the picture: at another size they mean
another distance in pixels. So that every pixel is seen as in training, a large picture is cut into tiles of
the training size that overlap, and where they do, each tile counts the more the farther a pixel is from the
tile's edge. (Perceiver IO, arXiv:2107.14795, appendix H: six tiles of 368 x 496 for Sintel's 436 x 1024.)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

TRAINING_SIZE = (368, 496)
MIN_OVERLAP = 20


def tiled_flow(
    model: Callable[[Tensor], Tensor],
    pairs: Tensor,
    *,
    tile: tuple[int, int] = TRAINING_SIZE,
    min_overlap: int = MIN_OVERLAP,
) -> Tensor:
    """Flow of image pairs of any size.

    Args:
        model: gives the flow (B, h, w, 2) of pairs (B, 2, C, h, w).
        pairs: (B, 2, C, H, W) float.
        tile: h and w of a tile; a picture that is smaller along an axis is one tile of its own size there.
        min_overlap: pixels that neighbouring tiles have in common at least.

    Returns:
        (B, H, W, 2) float.

    Raises:
        ValueError: pairs of another shape, or an overlap that is negative or no smaller than a tile.
    """
    if pairs.dim() != 5 or pairs.shape[1] != 2:
        raise ValueError(f"pairs have shape {tuple(pairs.shape)}; expected (batch, 2, channels, H, W)")
    if not 0 <= min_overlap < min(tile):
        raise ValueError(f"min_overlap is {min_overlap}; allowed for tiles of {tile}: 0 to {min(tile) - 1}")
    size = pairs.shape[-2:]
    height, width = (min(n, t) for n, t in zip(size, tile, strict=True))
    weight = torch.minimum(_edge_distance(height).unsqueeze(1), _edge_distance(width)).to(pairs)
    total = pairs.new_zeros(len(pairs), *size, 2)
    weights = pairs.new_zeros(size)
    for top in tile_starts(size[0], height, min_overlap):
        for left in tile_starts(size[1], width, min_overlap):
            rows, columns = slice(top, top + height), slice(left, left + width)
            flow = model(pairs[..., rows, columns])
            total[:, rows, columns] += weight.unsqueeze(-1) * flow.to(total.dtype)
            weights[rows, columns] += weight
    return total / weights.unsqueeze(-1)


def tile_starts(size: int, tile: int, min_overlap: int) -> list[int]:
    """Where the tiles along an axis of ``size`` begin: as few as have the overlap, evenly spread."""
    if tile >= size:
        return [0]
    count = math.ceil((size - min_overlap) / (tile - min_overlap))
    return [round(i * (size - tile) / (count - 1)) for i in range(count)]


def _edge_distance(size: int) -> Tensor:
    """(size,): pixels to the nearer end, at least 1."""
    places = torch.arange(size)
    return torch.minimum(places, size - 1 - places) + 1
