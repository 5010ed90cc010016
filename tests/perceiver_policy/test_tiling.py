"""Tiles cover, overlap and blend."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from perceiver_policy.tiling import tile_starts, tiled_flow


def difference(pairs: Tensor) -> Tensor:
    """A model that tells each pixel by itself: (second - first) of the first two channels."""
    return (pairs[:, 1, :2] - pairs[:, 0, :2]).movedim(1, -1)


@pytest.mark.parametrize("size", [(20, 31), (12, 31), (9, 40), (5, 6)])
def test_a_model_that_looks_at_single_pixels_is_not_changed(size: tuple[int, int]) -> None:
    pairs = torch.randn(2, 2, 3, *size)
    flow = tiled_flow(difference, pairs, tile=(9, 12), min_overlap=3)
    torch.testing.assert_close(flow, difference(pairs))


def test_sintel_is_six_tiles_and_a_small_picture_one() -> None:
    seen = []

    def model(pairs: Tensor) -> Tensor:
        seen.append(tuple(pairs.shape[-2:]))
        return difference(pairs)

    tiled_flow(model, torch.zeros(1, 2, 3, 436, 1024))
    assert seen == [(368, 496)] * 6
    seen.clear()
    tiled_flow(model, torch.zeros(1, 2, 3, 100, 496))
    assert seen == [(100, 496)]


def test_tiles_overlap_enough_and_reach_both_ends() -> None:
    for size in range(1, 60):
        starts = tile_starts(size, 9, 3)
        assert starts[0] == 0
        assert starts[-1] == max(size - 9, 0)
        assert all(0 < b - a <= 6 for a, b in itertools.pairwise(starts))


def test_blending_weighs_by_distance_from_the_edge() -> None:
    """Two tiles of width 4 over 6 columns: one says 1, the other says 2."""
    said = iter([1.0, 2.0])

    def model(pairs: Tensor) -> Tensor:
        return torch.full((1, 9, 4, 2), next(said))

    flow = tiled_flow(model, torch.zeros(1, 2, 3, 9, 6), tile=(9, 4), min_overlap=2)
    # In the middle row the columns' distances count: 1 2 2 1 for either tile.
    expected = torch.tensor([1.0, 1.0, (2 * 1 + 1 * 2) / 3, (1 * 1 + 2 * 2) / 3, 2.0, 2.0])
    torch.testing.assert_close(flow[0, 4, :, 0], expected)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 3, 9, 9\); expected"):
        tiled_flow(difference, torch.zeros(1, 3, 3, 9, 9))
    with pytest.raises(ValueError, match=r"min_overlap is 9; allowed .* 0 to 8"):
        tiled_flow(difference, torch.zeros(1, 2, 3, 9, 9), tile=(9, 12), min_overlap=9)
