"""What inputs on a grid share: positions of its cells, and patches of cells made into channels.

Positions come after the content in a token's channels, [content, position], as in DeepMind's published
checkpoints. Two kinds:

- ``fourier``: as in :mod:`perceiver_policy.position`, on a grid from -1 to 1 along each axis whatever its
  size. Kept as one table per axis, which attention makes use of.
- ``learned``: a table with a row for each cell of the training grid, optionally projected. On a grid of
  another size the table is resampled.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_policy.config import Config, ConfigError
from perceiver_policy.position import FourierEncoding, LearnedPositions, grid_axes
from perceiver_policy.tokens import Tokens

LARGEST_RESOLUTION = 2**24
"""Samples of audio make axes this long; no learned table has more rows."""
INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class FourierPositionConfig(Config):
    """Fourier features of a cell's position."""

    kind: ClassVar[str] = "fourier"
    minimum: ClassVar[Mapping[str, float]] = {"max_resolution": 2}
    maximum: ClassVar[Mapping[str, int]] = {"max_resolution": LARGEST_RESOLUTION}

    max_resolution: tuple[int, ...] = (224, 224)  # cells of each axis; the highest frequency is half of it
    num_bands: int = 64
    concat_position: bool = True  # whether the positions themselves come before their sines and cosines


@dataclass(frozen=True)
class LearnedPositionConfig(Config):
    """A trainable vector for each cell."""

    kind: ClassVar[str] = "learned"
    maximum: ClassVar[Mapping[str, int]] = {"shape": LARGEST_RESOLUTION}

    shape: tuple[int, ...] = (224, 224)  # cells of each axis of the training grid
    num_channels: int = 256
    num_projected_channels: int | None = None  # a linear layer to this width follows; None: none does

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = f"learned positions are for 1 to {len(INTERPOLATION)} axes and {LARGEST_RESOLUTION} cells"
        self._require(
            len(self.shape) in INTERPOLATION and math.prod(self.shape) <= LARGEST_RESOLUTION, "shape", rule
        )


GridPositionConfig = FourierPositionConfig | LearnedPositionConfig


class GridPosition(nn.Module, ABC):
    """Adds positions to what lies on a grid.

    Attributes:
        num_channels: P, channels the positions add.
    """

    num_channels: int

    @abstractmethod
    def forward(self, content: Tensor, shape: Sequence[int], mask: Tensor | None = None) -> Tokens:
        """Add positions.

        Args:
            content: (B, M, c) float, cells in row-major order.
            shape: of the grid, M cells in all.
            mask: (B, M) bool, True where a cell is present; None when all are.

        Returns:
            Tokens of c + P channels.
        """


class FourierGridPosition(GridPosition):
    """Fourier positions, computed in float32 whatever the type of the content.

    Args:
        config: bands and resolution.
    """

    def __init__(self, config: FourierPositionConfig) -> None:
        super().__init__()
        self.encoding = FourierEncoding(
            config.num_bands,
            [resolution / 2 for resolution in config.max_resolution],
            concat_position=config.concat_position,
        )
        self.num_channels = self.encoding.num_channels

    def forward(self, content: Tensor, shape: Sequence[int], mask: Tensor | None = None) -> Tokens:
        """The positions stay apart from the content, axis by axis."""
        grid = self.encoding.on_grid(grid_axes(shape, device=content.device))
        return Tokens(content, mask, grid, shape=tuple(shape))


class LearnedGridPosition(GridPosition):
    """Learned positions.

    On the training grid a cell has its own row of the table. On any other the table is resampled linearly
    along each axis (bilinearly on a plane), corner cells keeping their rows: a cell's vector depends on
    where between -1 and 1 it lies, as with Fourier features. That is an extrapolation of what was trained;
    the published models were never run on another grid.

    Args:
        config: shape and widths.
    """

    def __init__(self, config: LearnedPositionConfig) -> None:
        super().__init__()
        self.shape = tuple(config.shape)
        self.positions = LearnedPositions(math.prod(self.shape), config.num_channels)
        projected = config.num_projected_channels
        self.projection = nn.Linear(config.num_channels, projected) if projected else nn.Identity()
        self.num_channels = projected or config.num_channels

    def forward(self, content: Tensor, shape: Sequence[int], mask: Tensor | None = None) -> Tokens:
        """The positions become part of the content."""
        positions = self.projection(self.resampled(shape)).to(content.dtype)
        content = torch.cat((content, positions.expand(len(content), -1, -1)), dim=-1)
        return Tokens(content, mask, shape=tuple(shape))

    def resampled(self, shape: Sequence[int]) -> Tensor:
        """(M, num_channels) float: the table for a grid of this shape, before projection."""
        table: Tensor = self.positions.table
        if tuple(shape) == self.shape:
            return table
        planes = table.unflatten(0, self.shape).movedim(-1, 0).unsqueeze(0)
        mode = INTERPOLATION[len(self.shape)]
        return F.interpolate(planes, size=tuple(shape), mode=mode, align_corners=True)[0].flatten(1).T


def build_grid_position(config: GridPositionConfig, num_axes: int) -> GridPosition:
    """The module for a configuration.

    Args:
        config: of either kind.
        num_axes: of the grid it is for.

    Raises:
        ConfigError: the configuration is for another number of axes.
    """
    if isinstance(config, FourierPositionConfig):
        name, sizes = "max_resolution", config.max_resolution
    else:
        name, sizes = "shape", config.shape
    if len(sizes) != num_axes:
        raise ConfigError(
            f"{type(config).__name__}.{name} is {sizes}; this input has {num_axes} axes, one number for each"
        )
    if isinstance(config, FourierPositionConfig):
        return FourierGridPosition(config)
    return LearnedGridPosition(config)


def space_to_depth(cells: Tensor, patch: Sequence[int]) -> Tensor:
    """Patches of cells, each made into one row of channels.

    The channels are ordered by place in the patch first, then by channel: (dt, dh, dw, c), the order of
    DeepMind's checkpoints. Sizes that are no multiple of the patch are filled up with zeros at the far end.

    Args:
        cells: (B, n_1, …, n_d, C) float, channels last.
        patch: p_1, …, p_d, cells of a patch along each axis.

    Returns:
        (B, ⌈n_1 / p_1⌉, …, ⌈n_d / p_d⌉, p_1 · … · p_d · C) float.
    """
    num_axes = len(patch)
    missing = [-n % p for n, p in zip(cells.shape[1:-1], patch, strict=True)]
    if any(missing):
        cells = F.pad(cells, (0, 0, *(side for n in reversed(missing) for side in (0, n))))
    for axis in reversed(range(num_axes)):
        cells = cells.unflatten(1 + axis, (-1, patch[axis]))
    places = range(2, 2 * num_axes + 1, 2)
    return cells.permute(0, *range(1, 2 * num_axes, 2), *places, -1).flatten(num_axes + 1)
