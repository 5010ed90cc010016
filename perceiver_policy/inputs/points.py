"""Point clouds as tokens: one per point, its features and the Fourier features of its coordinates.

    token_i = [ features_i, γ(x_i, y_i, z_i) ]

Perceiver, arXiv:2103.03206, for ModelNet40: 64 bands up to a frequency of 1120, ten times that for
ImageNet; coordinates from -1 to 1, see :func:`to_unit_cube`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from perceiver_policy.config import Config
from perceiver_policy.inputs.adapter import InputAdapter, require_mask, require_shape
from perceiver_policy.position import FourierEncoding
from perceiver_policy.tokens import Tokens


@dataclass(frozen=True)
class PointsInputConfig(Config):
    """Point clouds."""

    kind: ClassVar[str] = "points"
    minimum: ClassVar[Mapping[str, float]] = {"num_features": 0}

    num_axes: int = 3
    num_features: int = 0  # what a point has besides coordinates, such as a colour or a normal
    num_bands: int = 64
    max_frequency: float = 1120.0  # half cycles per unit of length


class PointsInput(InputAdapter):
    """Points, as many as there are, to tokens.

    Args:
        config: axes, features and bands.
    """

    def __init__(self, config: PointsInputConfig) -> None:
        super().__init__()
        self.config = config
        self.encoding = FourierEncoding(config.num_bands, [config.max_frequency] * config.num_axes)
        self.num_channels = config.num_features + self.encoding.num_channels

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tokens:
        """Make tokens.

        Args:
            inputs: (B, P, num_axes + num_features) float, coordinates first. Better not bfloat16: the
                highest frequencies tell apart coordinates that it does not.
            mask: (B, P) bool, True where a point is present.

        Raises:
            ValueError: another shape or type.
        """
        num_axes = self.config.num_axes
        require_shape("points", inputs, "B", "P", num_axes + self.config.num_features)
        require_mask(mask, *inputs.shape[:2])
        encoded = self.encoding(inputs[..., :num_axes]).to(inputs.dtype)
        return Tokens(torch.cat((inputs[..., num_axes:], encoded), dim=-1), mask)


def to_unit_cube(coordinates: Tensor, mask: Tensor | None = None) -> Tensor:
    """Centre each cloud on its mean and scale it, all axes alike, to touch the cube from -1 to 1.

        x'_i = (x_i - mean_j x_j) / max_j,a |x_ja - mean_a|

    Args:
        coordinates: (B, P, d) float.
        mask: (B, P) bool, True where a point is present; None when all are. Absent points become 0.

    Returns:
        (B, P, d) float; 0 for a cloud of a single place, or of none.

    Raises:
        ValueError: another shape or type.
    """
    require_shape("coordinates", coordinates, "B", "P", "d")
    require_mask(mask, *coordinates.shape[:2])
    present = torch.ones_like(coordinates[..., :1], dtype=torch.bool) if mask is None else mask.unsqueeze(-1)
    count = present.sum(1, keepdim=True).clamp_min(1)
    # From the lowest corner first, so that points of one place have differences of exactly 0.
    corner = coordinates.masked_fill(~present, math.inf).amin(1, keepdim=True)
    offset = (coordinates - corner).masked_fill(~present, 0.0)
    centred = (offset - offset.sum(1, keepdim=True) / count).masked_fill(~present, 0.0)
    extent = centred.abs().amax((1, 2), keepdim=True)
    return centred / extent.masked_fill(extent == 0, 1.0)
