"""Weights laid over an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from perceiver_policy.pictures.canvas import (
    LARGE,
    NORMAL,
    add_color_bar,
    checked_weights,
    new_figure,
    require_pictures,
    save,
)

HEAT = "inferno"
"""Colours of weights, dark to bright."""
STRENGTH = 0.6
"""Share of the weights' colour in the picture; the rest is the image, in grey."""


def draw_image_attention(
    image: Tensor,
    weights: Tensor,
    path: str | Path,
    *,
    grid: tuple[int, int] | None = None,
    title: str = "What is attended to",
) -> None:
    """Draw an image, and beside it the same dimmed, brighter where it is attended to.

    Args:
        image: (C, H, W) or (H, W, C), C being 1 or 3; uint8, or float that is shown from its smallest
            value, black, to its largest, so that normalised images need no way back.
        weights: (h * w,) float, at least 0: of the image's cells, row by row.
        path: the file to write.
        grid: (h, w); None: the grid of h * w equal squares, or else of the image's shape, that there is.
        title: above the picture.

    Raises:
        MissingExtra: matplotlib is not installed.
        ValueError: sizes do not fit.
    """
    require_pictures(path)
    pixels = _pixels(image)
    values = checked_weights(weights, 1)
    rows, columns = grid or _grid(len(values), *pixels.shape[:2])
    if rows * columns != len(values):
        raise ValueError(
            f"grid is {rows} x {columns}, {rows * columns} cells, but there are {len(values)} weights"
        )
    heat = values.reshape(rows, columns)
    height, width = pixels.shape[:2]
    tall = min(max(4.2 * height / width, 1.6), 9.0)
    figure = new_figure(9.6, tall + 0.6)
    plain, over = figure.subplots(1, 2)
    plain.imshow(pixels)
    shown = over.imshow(overlay(pixels, heat))
    shown.set(cmap=HEAT, clim=(0.0, float(heat.max()) or 1.0))  # of the colour bar: the picture has colours
    for axes, text in ((plain, "image"), (over, f"attention, {rows} x {columns} cells")):
        axes.set_axis_off()
        axes.set_title(text, fontsize=NORMAL)
    add_color_bar(figure, shown, over, "share of the attention")
    figure.suptitle(title, fontsize=LARGE, parse_math=False)
    save(figure, path)


def overlay(pixels: NDArray[np.floating], heat: NDArray[np.floating]) -> NDArray[np.float64]:
    """An image in grey with weights laid over it, from black for 0 to a bright colour for the largest.

    Args:
        pixels: (H, W, 3) from 0 to 1.
        heat: (h, w), at least 0.

    Returns:
        (H, W, 3) from 0 to 1.
    """
    from matplotlib import colormaps

    rows = np.arange(pixels.shape[0]) * heat.shape[0] // pixels.shape[0]
    columns = np.arange(pixels.shape[1]) * heat.shape[1] // pixels.shape[1]
    share = (heat / (heat.max() or 1.0))[rows][:, columns]
    grey = np.broadcast_to(pixels.mean(-1, keepdims=True), pixels.shape)
    return (1 - STRENGTH) * grey + STRENGTH * colormaps[HEAT](share)[..., :3]


def _pixels(image: Tensor) -> NDArray[np.float64]:
    """(H, W, 3) from 0 to 1."""
    array = image.detach().cpu().numpy()
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape or not np.isfinite(array).all():
        raise ValueError(
            f"the image is {tuple(image.shape)}; expected finite (C, H, W) or (H, W, C), C 1 or 3"
        )
    if array.dtype == np.uint8:
        pixels = array / 255.0
    else:
        low, high = float(array.min()), float(array.max())
        pixels = (array.astype(np.float64) - low) / (high - low or 1.0)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _grid(cells: int, height: int, width: int) -> tuple[int, int]:
    """(h, w) with h * w cells and the image's shape, cells being squares."""
    rows = round((cells * height / width) ** 0.5)
    if rows == 0 or cells % rows or rows * width != cells // rows * height:
        raise ValueError(
            f"{cells} weights make no grid of equal squares over an image of {height} x {width}; name it, "
            "as grid=(rows, columns)"
        )
    return rows, cells // rows
