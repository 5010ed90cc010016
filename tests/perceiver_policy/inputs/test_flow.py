"""Image pairs as tokens: against loops, torch's unfold and Hugging Face's adapter on ready patches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PerceiverConfig
from transformers.models.perceiver.modeling_perceiver import PerceiverImagePreprocessor

from perceiver_policy.config import ConfigError
from perceiver_policy.inputs.flow import FlowInput, FlowInputConfig
from perceiver_policy.inputs.grid import FourierPositionConfig


def build(size: tuple[int, int] = (6, 8), patch_size: int = 3) -> FlowInput:
    return FlowInput(FlowInputConfig(3, patch_size, 10, FourierPositionConfig(size, 4)))


@pytest.mark.parametrize("patch_size", [1, 3, 5])
def test_linear_layer_over_patches_of_both_frames(patch_size: int) -> None:
    adapter = build(patch_size=patch_size).double()
    pairs = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    content = adapter(pairs).content.view(2, 4, 5, 10)
    reach = patch_size // 2
    offsets = range(-reach, reach + 1)
    for row in range(4):
        for column in range(5):
            values: list[float] = []
            for frame in range(2):
                for dy in offsets:
                    for dx in offsets:
                        y, x = row + dy, column + dx
                        inside = 0 <= y < 4 and 0 <= x < 5
                        values += pairs[1, frame, :, y, x].tolist() if inside else [0.0] * 3
            expected = adapter.projection.weight @ torch.tensor(values, dtype=torch.float64)
            torch.testing.assert_close(content[1, row, column], expected + adapter.projection.bias)


@pytest.mark.parametrize("size", [(6, 8), (5, 3)])
def test_equals_hugging_faces_adapter_on_patches(size: tuple[int, int]) -> None:
    height, width = size
    fourier = {"num_bands": 4, "max_resolution": (6, 8), "concat_pos": True, "sine_only": False}
    theirs = PerceiverImagePreprocessor(
        PerceiverConfig(),
        prep_type="patches",
        spatial_downsample=1,
        temporal_downsample=2,
        conv_after_patching=True,
        conv_after_patching_in_channels=54,
        out_channels=10,
        position_encoding_type="fourier",
        fourier_position_encoding_kwargs=fourier,
    )
    ours = build()
    ours.projection.load_state_dict(theirs.conv_after_patches.state_dict())
    pairs = torch.randn(2, 2, 3, height, width)
    patches = F.unfold(pairs.flatten(0, 1), 3, padding=1)  # channels first, then rows and columns
    patches = patches.view(2, 2, 3, 9, height, width).transpose(2, 3).flatten(2, 3)
    torch.testing.assert_close(ours(pairs).dense(), theirs(patches)[0], rtol=0, atol=1e-6)
    assert ours.num_channels == theirs.num_channels


def test_published_widths() -> None:
    adapter = FlowInput(FlowInputConfig())
    assert adapter.projection.weight.shape == (64, 54)
    assert adapter.num_channels == 322


@pytest.mark.parametrize(
    "pairs", [torch.zeros(2, 3, 3, 4, 4), torch.zeros(2, 2, 4, 4, 3), torch.zeros(2, 3, 4, 4)]
)
def test_pairs_of_another_shape_are_refused(pairs: Tensor) -> None:
    with pytest.raises(ValueError, match=r"image pairs have shape \(.*\); expected \(B, 2, 3, H, W\)"):
        build()(pairs)


def test_patches_without_a_centre_are_refused() -> None:
    with pytest.raises(ConfigError, match="patch_size is 2; it must be odd"):
        FlowInputConfig(patch_size=2)
