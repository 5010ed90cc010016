"""Position queries: what is at this place of the output? One query for each cell of a grid of one to three
axes, such as the patches of a recording, the pixels of an image or the voxels of a video.

A part of the grid costs what the part costs: the 803,297 queries of the paper's video with sound would
fill 3.3 GB, and are never together in memory when decoded in chunks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from perceiver_policy.config import Config
from perceiver_policy.inputs.grid import (
    LARGEST_RESOLUTION,
    FourierGridPosition,
    FourierPositionConfig,
    GridPositionConfig,
    LearnedGridPosition,
    build_grid_position,
)
from perceiver_policy.position import grid_axes
from perceiver_policy.queries.provider import QueryProvider
from perceiver_policy.tokens import Tokens


@dataclass(frozen=True)
class PositionQueryConfig(Config):
    """The grid, and how its positions are encoded.

    The same weights answer for a grid of any size: none depends on ``shape``.
    """

    kind: ClassVar[str] = "position"
    maximum: ClassVar[Mapping[str, int]] = {"shape": LARGEST_RESOLUTION}

    shape: tuple[int, ...] = (224, 224)  # cells of each axis, of which there are one to three
    position: GridPositionConfig = field(default_factory=FourierPositionConfig)
    inclusive: bool = True  # Fourier positions: -1 to 1; False: -1 + 2 i / n, the released video model's

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(1 <= len(self.shape) <= 3, "shape", "it must have one to three axes")


class PositionQuery(QueryProvider):
    """A query for each cell of a grid, numbered in row-major order.

    Args:
        config: the grid and its encoding.

    Raises:
        ConfigError: an encoding of other axes than the grid's.
    """

    def __init__(self, config: PositionQueryConfig) -> None:
        super().__init__()
        self.shape = config.shape
        self.inclusive = config.inclusive
        self.position = build_grid_position(config.position, len(config.shape))
        self.num_channels = self.position.num_channels

    def num_queries(self, tokens: Tokens) -> int:
        """Cells of the grid, whatever the tokens."""
        return math.prod(self.shape)

    def forward(self, tokens: Tokens, index: Tensor | None = None) -> Tensor:
        """(k, Q) float; Fourier features have the dtype of the tokens."""
        if isinstance(self.position, FourierGridPosition):
            axes = grid_axes(self.shape, inclusive=self.inclusive, device=tokens.content.device)
            return self.position.encoding.on_grid(axes).dense(index).to(tokens.content.dtype)
        assert isinstance(self.position, LearnedGridPosition)
        table = self.position.resampled(self.shape)
        return self.position.projection(table if index is None else table[index])
