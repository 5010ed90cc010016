"""Positions on grids of any size, and patches, against loops and by hand."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import nn

from perceiver_policy.config import ConfigError
from perceiver_policy.inputs.grid import (
    FourierPositionConfig,
    LearnedGridPosition,
    LearnedPositionConfig,
    build_grid_position,
    space_to_depth,
)


def fourier_row(position: list[float], resolution: list[int], num_bands: int) -> list[float]:
    """The paper's features of one position, in double precision."""
    angles = [
        math.pi * p * (1.0 + k * (r / 2 - 1.0) / (num_bands - 1))
        for p, r in zip(position, resolution, strict=True)
        for k in range(num_bands)
    ]
    return [*position, *map(math.sin, angles), *map(math.cos, angles)]


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4), (1, 6)])
def test_fourier_positions_run_from_corner_to_corner_whatever_the_size(shape: tuple[int, ...]) -> None:
    resolution = [8, 20, 6][: len(shape)]
    position = build_grid_position(FourierPositionConfig(tuple(resolution), 3), len(shape))
    cells = list(product(*map(range, shape)))
    content = torch.arange(2.0 * len(cells)).view(1, -1, 2)
    tokens = position(content, shape)
    assert tokens.grid is not None
    assert tokens.content is content
    for row, cell in zip(tokens.dense()[0].tolist(), cells, strict=True):
        place = [-1.0 + 2.0 * i / (n - 1) if n > 1 else -1.0 for i, n in zip(cell, shape, strict=True)]
        assert row[2:] == pytest.approx(fourier_row(place, resolution, 3), abs=2e-6)


def test_fourier_positions_keep_their_precision_in_a_model_of_low_precision() -> None:
    exact = build_grid_position(FourierPositionConfig((224, 224), 64), 2)
    coarse = build_grid_position(FourierPositionConfig((224, 224), 64), 2).bfloat16()
    content = torch.zeros(1, 20 * 30, 3)
    expected = exact(content, (20, 30)).dense().bfloat16()
    assert torch.equal(coarse(content.bfloat16(), (20, 30)).dense(), expected)


def test_learned_positions_on_the_training_grid_are_the_table_projected() -> None:
    position = build_grid_position(LearnedPositionConfig((3, 4), 5, 2), 2)
    assert isinstance(position, LearnedGridPosition)
    assert isinstance(position.projection, nn.Linear)
    content = torch.randn(2, 12, 6)
    tokens = position(content, (3, 4))
    weight, bias = position.projection.weight.double(), position.projection.bias.double()
    expected = position.positions.table.double() @ weight.T + bias
    assert tokens.grid is None
    assert position.num_channels == 2
    for row in tokens.content.double():
        torch.testing.assert_close(row[:, 6:], expected, rtol=0, atol=1e-6)
    assert torch.equal(tokens.content[..., :6], content)


@pytest.mark.parametrize(
    ("trained", "shape"),
    [((4,), (7,)), ((3, 4), (5, 2)), ((3, 4), (1, 9)), ((1, 4), (3, 4)), ((2, 3, 2), (3, 5, 4))],
)
def test_learned_positions_on_another_grid_are_interpolated(
    trained: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    position = build_grid_position(LearnedPositionConfig(trained, 3), len(trained))
    assert isinstance(position, LearnedGridPosition)
    table = position.positions.table.detach().double().unflatten(0, trained)
    result = position.resampled(shape).detach().double()
    for row, cell in zip(result, product(*map(range, shape)), strict=True):
        expected = torch.zeros(3, dtype=torch.float64)
        places = [
            i * (m - 1) / (n - 1) if n > 1 else 0.0 for i, m, n in zip(cell, trained, shape, strict=True)
        ]
        for corner in product(*((math.floor(p), math.floor(p) + 1) for p in places)):
            weight = math.prod(1.0 - abs(p - c) for p, c in zip(places, corner, strict=True))
            if weight > 0:
                index = tuple(min(c, m - 1) for c, m in zip(corner, trained, strict=True))
                expected += weight * table[index]
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-7)


def test_learned_positions_can_be_trained_at_another_size() -> None:
    position = build_grid_position(LearnedPositionConfig((2, 2), 3), 2)
    position(torch.zeros(1, 9, 1), (3, 3)).dense().sum().backward()
    (table,) = position.parameters()
    assert table.grad is not None
    # Nine cells share out nine units of weight: a quarter of them to each corner.
    torch.testing.assert_close(table.grad, torch.full((4, 3), 2.25))


@pytest.mark.parametrize("shape", [(6,), (4, 6), (4, 6, 2), (5, 7, 3)])
def test_patches_are_ordered_by_place_and_then_by_channel(shape: tuple[int, ...]) -> None:
    patch = (2, 3, 2)[: len(shape)]
    cells = torch.randn(2, *shape, 3)
    patches = space_to_depth(cells, patch)
    grid = [math.ceil(n / p) for n, p in zip(shape, patch, strict=True)]
    assert patches.shape == (2, *grid, math.prod(patch) * 3)
    for index in product(*map(range, grid)):
        expected: list[float] = []
        for place in product(*map(range, patch)):
            cell = [i * p + d for i, p, d in zip(index, patch, place, strict=True)]
            inside = all(c < n for c, n in zip(cell, shape, strict=True))
            expected += cells[(1, *cell)].tolist() if inside else [0.0] * 3
        assert patches[(1, *index)].tolist() == expected


@pytest.mark.parametrize("config", [FourierPositionConfig((4, 4)), LearnedPositionConfig((4, 4))])
def test_positions_for_another_number_of_axes_are_refused(
    config: FourierPositionConfig | LearnedPositionConfig,
) -> None:
    with pytest.raises(ConfigError, match=r"is \(4, 4\); this input has 3 axes"):
        build_grid_position(config, 3)


@pytest.mark.parametrize("shape", [(), (2, 2, 2, 2), (65536, 65536)])
def test_tables_of_no_shape_that_can_be_resampled_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="1 to 3 axes and 16777216 cells"):
        LearnedPositionConfig(shape)
