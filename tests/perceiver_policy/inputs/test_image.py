"""Images as tokens: against Hugging Face's preprocessor with equal weights, and against loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PerceiverConfig
from transformers.models.perceiver.modeling_perceiver import PerceiverImagePreprocessor

from perceiver_policy.config import ConfigError
from perceiver_policy.inputs.grid import FourierPositionConfig, LearnedGridPosition, LearnedPositionConfig
from perceiver_policy.inputs.image import (
    Conv1x1Config,
    ConvStemConfig,
    ImageInput,
    ImageInputConfig,
    PatchesConfig,
    PixelsConfig,
    StemPadding,
)

Preprocessing = PixelsConfig | Conv1x1Config | ConvStemConfig | PatchesConfig


def hugging_face(
    num_bands: int, max_resolution: tuple[int, int], **options: Any
) -> PerceiverImagePreprocessor:
    fourier = {
        "num_bands": num_bands,
        "max_resolution": max_resolution,
        "concat_pos": True,
        "sine_only": False,
    }
    return PerceiverImagePreprocessor(
        PerceiverConfig(),
        position_encoding_type="fourier",
        fourier_position_encoding_kwargs=fourier,
        **options,
    )


def build(preprocessing: Preprocessing, num_bands: int = 4) -> ImageInput:
    return ImageInput(ImageInputConfig(3, preprocessing, FourierPositionConfig((20, 24), num_bands)))


def assert_equal(ours: ImageInput, theirs: PerceiverImagePreprocessor, images: Tensor) -> None:
    torch.testing.assert_close(ours(images).dense(), theirs(images)[0], rtol=0, atol=1e-6)
    assert ours.num_channels == theirs.num_channels


@pytest.mark.parametrize("size", [(20, 24), (7, 5)])
def test_pixels(size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    assert_equal(
        build(PixelsConfig()), hugging_face(4, (20, 24), prep_type="pixels", spatial_downsample=1), images
    )


@pytest.mark.parametrize("num_channels", [None, 10])
def test_patches(num_channels: int | None) -> None:
    ours = build(PatchesConfig(2, num_channels))
    layer = {"conv_after_patching": True, "conv_after_patching_in_channels": 12, "out_channels": 10}
    theirs = hugging_face(
        4, (20, 24), prep_type="patches", spatial_downsample=2, **(layer if num_channels else {})
    )
    if num_channels:
        ours.projection.load_state_dict(theirs.conv_after_patches.state_dict())
    images = torch.randn(2, 3, 6, 8)
    # Theirs counts a patch's channels as 3 * 2 * 2 only where a layer follows or time is an axis.
    torch.testing.assert_close(ours(images).dense(), theirs(images)[0], rtol=0, atol=1e-6)


def test_linear_layer_per_pixel_with_learned_positions() -> None:
    theirs = PerceiverImagePreprocessor(
        PerceiverConfig(),
        prep_type="conv1x1",
        spatial_downsample=1,
        out_channels=10,
        project_pos_dim=8,
        position_encoding_type="trainable",
        trainable_position_encoding_kwargs={"num_channels": 10, "index_dims": 30},
    )
    ours = ImageInput(ImageInputConfig(3, Conv1x1Config(10), LearnedPositionConfig((5, 6), 10, 8)))
    assert isinstance(ours.position, LearnedGridPosition)
    weights = theirs.state_dict()
    ours.load_state_dict(
        {
            "projection.weight": weights["convnet_1x1.weight"].flatten(1),
            "projection.bias": weights["convnet_1x1.bias"],
            "position.positions.table": weights["position_embeddings.position_embeddings"],
            "position.projection.weight": weights["positions_projection.weight"],
            "position.projection.bias": weights["positions_projection.bias"],
        }
    )
    assert_equal(ours, theirs, torch.randn(2, 3, 5, 6))


def stem(padding: StemPadding) -> ImageInput:
    """A stem whose batch norm is far from the identity."""
    ours = build(ConvStemConfig(6, padding))
    assert ours.stem is not None
    for tensor in (*ours.stem.norm.parameters(), ours.stem.norm.running_mean, ours.stem.norm.running_var):
        nn.init.uniform_(tensor, 0.3, 1.7)
    return ours.eval()


@pytest.mark.parametrize("size", [(32, 28), (21, 17), (5, 6)])
def test_stem_with_symmetric_padding_is_hugging_faces(size: tuple[int, int]) -> None:
    ours = stem(StemPadding.SYMMETRIC)
    theirs = hugging_face(4, (20, 24), prep_type="conv", out_channels=6, spatial_downsample=4).eval()
    assert ours.stem is not None
    weights = ours.stem.state_dict()
    theirs.convnet.conv.weight.data.copy_(weights.pop("convolution.weight"))
    theirs.convnet.batchnorm.load_state_dict({k.removeprefix("norm."): v for k, v in weights.items()})
    assert_equal(ours, theirs, torch.randn(2, 3, *size))


@pytest.mark.parametrize(
    ("size", "before", "after", "pool_after"),
    [
        # By hand from ⌈n / 2⌉ outputs: total = (⌈n / 2⌉ - 1) * 2 + k - n, the smaller half before.
        (32, 2, 3, 1),  # 16 outputs: 30 + 7 - 32 = 5; then 8 of 16: 14 + 3 - 16 = 1
        (17, 3, 3, None),  # 9 outputs: 16 + 7 - 17 = 6; then 5 of 9: 8 + 3 - 9 = 2, one on each side
        (1, 3, 3, None),  # 1 output: 0 + 7 - 1 = 6; then 1 of 1: 0 + 3 - 1 = 2
    ],
)
def test_stem_with_same_padding(size: int, before: int, after: int, pool_after: int | None) -> None:
    ours = stem(StemPadding.SAME).double()
    assert ours.stem is not None
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    x = F.conv2d(F.pad(images, (before, after, before, after)), ours.stem.convolution.weight, stride=2)
    norm = ours.stem.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    x = (x - norm.running_mean.view(-1, 1, 1)) / (norm.running_var.view(-1, 1, 1) + 1e-5).sqrt()
    x = (x * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)).clamp_min(0)
    around = (0, 1, 0, 1) if pool_after else (1, 1, 1, 1)
    pooled = F.pad(x, around, value=-torch.inf).unfold(2, 3, 2).unfold(3, 3, 2).amax((-1, -2))
    side = -(-size // 4)
    assert pooled.shape[-2:] == (side, side)
    torch.testing.assert_close(ours(images).content, pooled.flatten(2).transpose(1, 2))


def test_stem_at_224_has_deepminds_or_hugging_faces_number_of_tokens() -> None:
    images = torch.zeros(1, 3, 224, 224)
    assert stem(StemPadding.SAME)(images).content.shape[1] == 56 * 56
    assert stem(StemPadding.SYMMETRIC)(images).content.shape[1] == 55 * 55


def test_stem_too_small_for_symmetric_padding() -> None:
    with pytest.raises(ValueError, match=r"images are 4 x 9 pixels; .* needs 5 x 5 or more"):
        stem(StemPadding.SYMMETRIC)(torch.zeros(1, 3, 4, 9))


@pytest.mark.parametrize(
    ("config", "num_channels"),
    [
        (ImageInputConfig(), 261),
        (ImageInputConfig(3, Conv1x1Config(256), LearnedPositionConfig((224, 224), 256, 256)), 512),
        (ImageInputConfig(3, ConvStemConfig(64), FourierPositionConfig((56, 56), 64)), 322),
    ],
)
def test_published_widths(config: ImageInputConfig, num_channels: int) -> None:
    assert ImageInput(config).num_channels == num_channels
    assert ImageInputConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 8, 8, 3), torch.zeros(3, 8, 8), torch.zeros(2, 4, 8, 8), torch.zeros(2, 3, 0, 8)],
)
def test_images_of_another_shape_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"images have shape \(.*\); expected \(B, 3, H, W\)"):
        build(PixelsConfig())(images)


def test_images_of_whole_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images are torch\.uint8; expected floating point"):
        build(PixelsConfig())(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_unknown_preprocessing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"preprocessing\.kind is 'convolution'; did you mean"):
        ImageInputConfig.from_dict({"preprocessing": {"kind": "convolution"}})
