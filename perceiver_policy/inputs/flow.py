"""Pairs of images as tokens, for optical flow: one per pixel, holding what both frames show around it.

    token_hw = [ W (patch of frame 1 at hw, patch of frame 2 at hw) + b,  γ(h, w) ]

Perceiver IO, arXiv:2107.14795, tables 5 and 6, frames concatenated: 3 x 3 patches of 3 channels are 27
numbers a frame and 54 a pixel. The published model makes 64 of these, with 258 Fourier features 322 in all.

Scaling the pixels is the caller's: the published model takes values from -1 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_policy.config import Config
from perceiver_policy.inputs.adapter import InputAdapter, require_mask, require_shape
from perceiver_policy.inputs.grid import FourierPositionConfig, GridPositionConfig, build_grid_position
from perceiver_policy.tokens import Tokens

NUM_FRAMES = 2


@dataclass(frozen=True)
class FlowInputConfig(Config):
    """Pairs of images."""

    kind: ClassVar[str] = "flow"

    num_pixel_channels: int = 3
    patch_size: int = 3  # pixels along either side, centred on the token's own: an odd number
    num_channels: int = 64  # of the linear layer over both frames' patches
    position: GridPositionConfig = field(
        default_factory=lambda: FourierPositionConfig(max_resolution=(368, 496))
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.patch_size % 2 == 1, "patch_size", "it must be odd, to have a centre")


class FlowInput(InputAdapter):
    """Pairs of images of any size to tokens, a pixel each, in row-major order.

    Args:
        config: patches and positions.

    Raises:
        ConfigError: positions of another number of axes than two.
    """

    def __init__(self, config: FlowInputConfig) -> None:
        super().__init__()
        self.config = config
        num_patch_channels = config.patch_size**2 * config.num_pixel_channels
        self.projection = nn.Linear(NUM_FRAMES * num_patch_channels, config.num_channels)
        self.position = build_grid_position(config.position, num_axes=2)
        self.num_channels = config.num_channels + self.position.num_channels

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tokens:
        """Make tokens.

        Args:
            inputs: (B, 2, C, H, W) float, the earlier frame first. Beyond the edges there are zeros.
            mask: (B, H · W) bool, True where a pixel is present.

        Raises:
            ValueError: another shape or type.
        """
        require_shape("image pairs", inputs, "B", NUM_FRAMES, self.config.num_pixel_channels, "H", "W")
        height, width = inputs.shape[-2:]
        require_mask(mask, len(inputs), height * width)
        # The linear layer's inputs are ordered (frame, row, column, channel). Patches through it are one
        # convolution, which is faster and never holds the patches.
        size = self.config.patch_size
        weight = (
            self.projection.weight.unflatten(1, (NUM_FRAMES, size, size, -1)).movedim(-1, 2).flatten(1, 2)
        )
        planes = inputs.flatten(1, 2).contiguous(memory_format=torch.channels_last)
        content = F.conv2d(planes, weight, self.projection.bias, padding=size // 2)
        content = content.flatten(2).transpose(1, 2)
        return cast(Tokens, self.position(content, (height, width), mask))
