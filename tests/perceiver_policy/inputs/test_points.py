"""Point clouds as tokens: against the formula in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from perceiver_policy.inputs.points import PointsInput, PointsInputConfig, to_unit_cube


def test_features_then_fourier_features_of_the_coordinates() -> None:
    adapter = PointsInput(PointsInputConfig(num_axes=2, num_features=1, num_bands=3, max_frequency=9.0))
    points = torch.rand(2, 4, 3) * 2 - 1
    tokens = adapter(points)
    assert tokens.grid is None
    for row, (x, y, feature) in zip(
        tokens.content.view(8, -1).tolist(), points.view(8, 3).tolist(), strict=True
    ):
        angles = [math.pi * f * p for p in (x, y) for f in (1.0, 5.0, 9.0)]
        expected = [feature, x, y, *map(math.sin, angles), *map(math.cos, angles)]
        assert row == pytest.approx(expected, abs=5e-6)


def test_published_width() -> None:
    adapter = PointsInput(PointsInputConfig())
    assert adapter.num_channels == 3 * (2 * 64 + 1)
    assert adapter.encoding.frequencies[:, -1].tolist() == [1120.0] * 3


def test_unit_cube() -> None:
    cloud = torch.tensor([[[0.0, 0.0], [4.0, 0.0], [2.0, 6.0], [90.0, -90.0]]])
    mask = torch.tensor([[True, True, True, False]])
    # Mean (2, 2); the largest of the offsets (-2, -2), (2, -2), (0, 4) is 4.
    expected = [[-0.5, -0.5], [0.5, -0.5], [0.0, 1.0], [0.0, 0.0]]
    torch.testing.assert_close(to_unit_cube(cloud, mask)[0], torch.tensor(expected))


def test_unit_cube_of_many_clouds() -> None:
    clouds = torch.randn(3, 50, 3, dtype=torch.float64) * torch.tensor([0.01, 1.0, 300.0]).view(3, 1, 1) + 7.0
    result = to_unit_cube(clouds)
    for cloud, scaled in zip(clouds, result, strict=True):
        centred = cloud - cloud.mean(0)
        torch.testing.assert_close(scaled, centred / centred.abs().max())


def test_unit_cube_of_one_place_and_of_none() -> None:
    clouds = torch.full((2, 7, 3), 0.1)
    mask = torch.tensor([[True] * 7, [False] * 7])
    assert torch.equal(to_unit_cube(clouds, mask), torch.zeros(2, 7, 3))


@pytest.mark.parametrize("points", [torch.zeros(2, 5, 2), torch.zeros(5, 3), torch.zeros(2, 0, 3)])
def test_points_of_another_shape_are_refused(points: Tensor) -> None:
    with pytest.raises(ValueError, match=r"points have shape \(.*\); expected \(B, P, 3\)"):
        PointsInput(PointsInputConfig())(points)
