"""Video as tokens: one per patch of space and time.

The published multimodal autoencoder (Perceiver IO, arXiv:2107.14795) takes 16 frames of
224 x 224 in patches of 1 x 4 x 4: 48 numbers, with 195 Fourier features over time, height and width 243.
Perceiver's AudioSet model takes patches of 2 x 8 x 8.

Scaling the pixels is the caller's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, cast

from torch import Tensor, nn

from perceiver_policy.config import Config
from perceiver_policy.inputs.adapter import InputAdapter, require_mask, require_shape
from perceiver_policy.inputs.grid import (
    FourierPositionConfig,
    GridPositionConfig,
    build_grid_position,
    space_to_depth,
)
from perceiver_policy.tokens import Tokens

NUM_AXES = 3


@dataclass(frozen=True)
class VideoInputConfig(Config):
    """Videos."""

    kind: ClassVar[str] = "video"

    num_pixel_channels: int = 3
    patch_shape: tuple[int, ...] = (1, 4, 4)  # frames, rows, columns
    num_channels: int | None = None  # a linear layer to this width follows the patches; None: none does
    position: GridPositionConfig = field(
        default_factory=lambda: FourierPositionConfig(max_resolution=(16, 56, 56), num_bands=32)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(len(self.patch_shape) == NUM_AXES, "patch_shape", "give frames, rows and columns")


class VideoInput(InputAdapter):
    """Videos of any size and length to tokens, patch by patch: over columns first, then rows, then time.

    Frames, rows and columns that do not fill a patch are filled up with zeros.

    Args:
        config: patches and positions.

    Raises:
        ConfigError: positions of another number of axes than three.
    """

    def __init__(self, config: VideoInputConfig) -> None:
        super().__init__()
        self.config = config
        num_content_channels = math.prod(config.patch_shape) * config.num_pixel_channels
        self.projection: nn.Module = nn.Identity()
        if config.num_channels:
            self.projection = nn.Linear(num_content_channels, config.num_channels)
            num_content_channels = config.num_channels
        self.position = build_grid_position(config.position, NUM_AXES)
        self.num_channels = num_content_channels + self.position.num_channels

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tokens:
        """Make tokens.

        Args:
            inputs: (B, T, C, H, W) float.
            mask: (B, M) bool, True where a patch is present.

        Raises:
            ValueError: another shape or type.
        """
        require_shape("videos", inputs, "B", "T", self.config.num_pixel_channels, "H", "W")
        content = space_to_depth(inputs.movedim(2, -1), self.config.patch_shape)
        shape = content.shape[1:-1]
        content = content.flatten(1, -2)
        require_mask(mask, *content.shape[:2])
        return cast(Tokens, self.position(self.projection(content), shape, mask))
