"""Images as tokens: one per pixel, per patch or per cell of a small convolution's output.

The ways of Perceiver and Perceiver IO for ImageNet (arXiv:2103.03206; arXiv:2107.14795, tables 5 and 6),
with the widths of the published models' tokens at 224 x 224:

- ``pixels``: 3 channels + Fourier 258 = 261.
- ``conv1x1``: a linear layer per pixel, 256 + learned positions 256 = 512.
- ``conv``: 7 x 7 convolution and max-pooling, 64 at a quarter of the resolution + Fourier 258 = 322.
- ``patches``: space to depth, optionally a linear layer.

Scaling the pixels is the caller's: the published models take images of zero mean and unit variance by
ImageNet's statistics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_policy.config import Config
from perceiver_policy.inputs.adapter import InputAdapter, require_mask, require_shape
from perceiver_policy.inputs.grid import (
    FourierPositionConfig,
    GridPositionConfig,
    build_grid_position,
    space_to_depth,
)
from perceiver_policy.tokens import Tokens

STEM_KERNEL, POOL_KERNEL, STRIDE = 7, 3, 2


class StemPadding(StrEnum):
    """What the convolutional stem adds around an image; 224 x 224 is the example."""

    SAME = "same"  # DeepMind's: outputs ⌈n / 2⌉, so 2 before and 3 after, and pooling is padded: 56 x 56
    SYMMETRIC = "symmetric"  # Hugging Face's: 3 before and after, and pooling is not padded: 55 x 55


@dataclass(frozen=True)
class PixelsConfig(Config):
    """A token per pixel, as it is."""

    kind: ClassVar[str] = "pixels"


@dataclass(frozen=True)
class Conv1x1Config(Config):
    """A token per pixel, through a linear layer."""

    kind: ClassVar[str] = "conv1x1"

    num_channels: int = 256


@dataclass(frozen=True)
class ConvStemConfig(Config):
    """A token for each cell of a convolution's output."""

    kind: ClassVar[str] = "conv"

    num_channels: int = 64
    padding: StemPadding = StemPadding.SAME


@dataclass(frozen=True)
class PatchesConfig(Config):
    """A token per patch."""

    kind: ClassVar[str] = "patches"

    size: int = 4  # pixels along either side
    num_channels: int | None = None  # a linear layer to this width follows; None: none does


@dataclass(frozen=True)
class ImageInputConfig(Config):
    """Images."""

    kind: ClassVar[str] = "image"

    num_pixel_channels: int = 3
    preprocessing: PixelsConfig | Conv1x1Config | ConvStemConfig | PatchesConfig = field(
        default_factory=PixelsConfig
    )
    position: GridPositionConfig = field(default_factory=FourierPositionConfig)  # of tokens, not of pixels


class ConvStem(nn.Module):
    """Convolution 7 x 7 of stride 2, batch norm, ReLU and max-pooling 3 x 3 of stride 2.

    Args:
        num_pixel_channels: C.
        num_channels: of the output.
        padding: which.
    """

    def __init__(self, num_pixel_channels: int, num_channels: int, padding: StemPadding) -> None:
        super().__init__()
        self.padding = padding
        self.convolution = nn.Conv2d(num_pixel_channels, num_channels, STEM_KERNEL, STRIDE, bias=False)
        self.norm = nn.BatchNorm2d(num_channels)  # eps 1e-5, momentum 0.1: DeepMind's decay of 0.9

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float to (B, num_channels, H', W') float, about a quarter of the size.

        Raises:
            ValueError: under symmetric padding, an image of fewer than 5 pixels along a side.
        """
        images = images.contiguous(memory_format=torch.channels_last)  # the faster layout on a CPU
        if self.padding is StemPadding.SAME:
            x = self.norm(self.convolution(_pad_same(images, STEM_KERNEL))).relu()
            # Nothing is below zero after ReLU, so that padding by zeros is padding by minus infinity.
            return F.max_pool2d(_pad_same(x, POOL_KERNEL), POOL_KERNEL, STRIDE)
        if min(images.shape[-2:]) < 5:
            raise ValueError(
                f"images are {images.shape[-2]} x {images.shape[-1]} pixels; under symmetric padding the "
                "stem needs 5 x 5 or more, under padding 'same' any size will do"
            )
        x = self.norm(self.convolution(F.pad(images, [STEM_KERNEL // 2] * 4))).relu()
        return F.max_pool2d(x, POOL_KERNEL, STRIDE)


class ImageInput(InputAdapter):
    """Images of any size to tokens in row-major order.

    Args:
        config: preprocessing and positions.

    Raises:
        ConfigError: positions of another number of axes than two.
    """

    def __init__(self, config: ImageInputConfig) -> None:
        super().__init__()
        self.config = config
        self.stem: ConvStem | None = None
        self.patch_size = 1
        num_content_channels, projected = config.num_pixel_channels, None
        match config.preprocessing:
            case ConvStemConfig(num_channels, padding):
                self.stem = ConvStem(num_content_channels, num_channels, padding)
                num_content_channels = num_channels
            case Conv1x1Config(num_channels):
                projected = num_channels
            case PatchesConfig(size, num_channels):
                self.patch_size, projected = size, num_channels
                num_content_channels *= size**2
        self.projection = nn.Linear(num_content_channels, projected) if projected else nn.Identity()
        num_content_channels = projected or num_content_channels
        self.position = build_grid_position(config.position, num_axes=2)
        self.num_channels = num_content_channels + self.position.num_channels

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tokens:
        """Make tokens.

        Args:
            inputs: (B, C, H, W) float.
            mask: (B, M) bool, True where a token is present, M being H · W pixels, ⌈H / p⌉ · ⌈W / p⌉
                patches, or the cells of the stem's output.

        Raises:
            ValueError: another shape or type.
        """
        require_shape("images", inputs, "B", self.config.num_pixel_channels, "H", "W")
        if self.stem is not None:
            inputs = self.stem(inputs)
        content = space_to_depth(inputs.movedim(1, -1), [self.patch_size] * 2)
        shape = content.shape[1:-1]
        content = content.flatten(1, -2)
        require_mask(mask, *content.shape[:2])
        return cast(Tokens, self.position(self.projection(content), shape, mask))


def _pad_same(x: Tensor, kernel: int) -> Tensor:
    """Zeros around (B, C, H, W), such that a kernel of stride 2 gives ⌈n / 2⌉ outputs; the odd one comes
    after."""
    padding = []
    for n in (x.shape[-1], x.shape[-2]):
        total = max((-(-n // STRIDE) - 1) * STRIDE + kernel - n, 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding)
