"""Video as tokens: against Hugging Face's preprocessor and loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import PerceiverConfig
from transformers.models.perceiver.modeling_perceiver import PerceiverImagePreprocessor

from perceiver_policy.config import ConfigError
from perceiver_policy.inputs.grid import FourierPositionConfig
from perceiver_policy.inputs.video import VideoInput, VideoInputConfig


def build(patch_shape: tuple[int, ...], num_channels: int | None = None) -> VideoInput:
    return VideoInput(VideoInputConfig(3, patch_shape, num_channels, FourierPositionConfig((4, 8, 6), 5)))


@pytest.mark.parametrize(("frames", "size"), [(1, 4), (2, 2)])
def test_equals_hugging_faces_preprocessor(frames: int, size: int) -> None:
    fourier = {"num_bands": 5, "max_resolution": (4, 8, 6), "concat_pos": True, "sine_only": False}
    theirs = PerceiverImagePreprocessor(
        PerceiverConfig(),
        prep_type="patches",
        spatial_downsample=size,
        temporal_downsample=frames,
        position_encoding_type="fourier",
        fourier_position_encoding_kwargs=fourier,
    )
    ours = build((frames, size, size))
    videos = torch.randn(2, 4, 3, 8, 12)
    torch.testing.assert_close(ours(videos).dense(), theirs(videos)[0], rtol=0, atol=1e-6)
    assert ours.num_channels == theirs.num_channels


def test_sizes_that_do_not_fill_a_patch_and_a_layer_after_it() -> None:
    adapter = build((2, 2, 3), 7)
    videos = torch.randn(1, 3, 3, 5, 4)
    filled = torch.zeros(1, 4, 3, 6, 6)
    filled[:, :3, :, :5, :4] = videos
    content = adapter(videos).content
    assert content.shape == (1, 2 * 3 * 2, 7)
    assert adapter.num_channels == 7 + 3 * 11
    torch.testing.assert_close(content, adapter(filled).content)
    last = filled[0, 2:, :, 4:, 3:].permute(0, 2, 3, 1).flatten()  # frames, rows, columns, channels
    torch.testing.assert_close(content[0, -1], adapter.projection(last))


def test_published_widths() -> None:
    assert VideoInput(VideoInputConfig()).num_channels == 48 + 195


@pytest.mark.parametrize("videos", [torch.zeros(2, 4, 8, 8, 3), torch.zeros(4, 3, 8, 8)])
def test_videos_of_another_shape_are_refused(videos: Tensor) -> None:
    with pytest.raises(ValueError, match=r"videos have shape \(.*\); expected \(B, T, 3, H, W\)"):
        build((1, 2, 2))(videos)


def test_patches_without_time_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"patch_shape is \(4, 4\); give frames, rows and columns"):
        VideoInputConfig(patch_shape=(4, 4))
