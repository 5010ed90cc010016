"""What holds for every input adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from perceiver_policy.config import Config
from perceiver_policy.inputs.adapter import InputAdapter
from perceiver_policy.inputs.audio import AudioInput, AudioInputConfig, MelInput, MelInputConfig
from perceiver_policy.inputs.flow import FlowInput, FlowInputConfig
from perceiver_policy.inputs.grid import FourierPositionConfig, LearnedPositionConfig
from perceiver_policy.inputs.image import (
    Conv1x1Config,
    ConvStemConfig,
    ImageInput,
    ImageInputConfig,
    PatchesConfig,
    PixelsConfig,
)
from perceiver_policy.inputs.points import PointsInput, PointsInputConfig
from perceiver_policy.inputs.text import TextInput, TextInputConfig
from perceiver_policy.inputs.video import VideoInput, VideoInputConfig


class Case(NamedTuple):
    """An adapter, an input of some size, the shape of its mask, and how many tokens it makes."""

    build: Callable[[Config], InputAdapter]
    config: Config
    shape: tuple[int, ...]
    mask_shape: tuple[int, ...]
    num_tokens: int


LEARNED, FOURIER = LearnedPositionConfig((3, 4), 6, 5), FourierPositionConfig((8, 8), 3)
MEL = MelInputConfig(8000, 64, 20, 6, num_mels_per_patch=3, position=FOURIER)
IMAGE = (2, 3, 5, 7)
CASES = {
    "pixels": Case(ImageInput, ImageInputConfig(3, PixelsConfig(), FOURIER), IMAGE, (2, 35), 35),
    "conv1x1": Case(ImageInput, ImageInputConfig(3, Conv1x1Config(9), LEARNED), IMAGE, (2, 35), 35),
    "conv": Case(ImageInput, ImageInputConfig(3, ConvStemConfig(4), FOURIER), IMAGE, (2, 4), 4),
    "patches": Case(ImageInput, ImageInputConfig(3, PatchesConfig(2), LEARNED), IMAGE, (2, 12), 12),
    "flow": Case(FlowInput, FlowInputConfig(3, 3, 8, LEARNED), (2, 2, 3, 5, 7), (2, 35), 35),
    "video": Case(VideoInput, VideoInputConfig(1, (2, 2, 2)), (2, 3, 1, 5, 7), (2, 24), 24),
    "audio": Case(AudioInput, AudioInputConfig(4), (2, 11), (2, 11), 3),
    "mel": Case(MelInput, MEL, (2, 93), (2, 93), 10),
    "text": Case(TextInput, TextInputConfig(20, 8, 9), (2, 6), (2, 6), 6),
    "points": Case(PointsInput, PointsInputConfig(3, 2, 4), (2, 6, 5), (2, 6), 6),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    """Each of them."""
    return CASES[request.param]


def make_inputs(case: Case, batch: int = 2) -> Tensor:
    torch.manual_seed(0)
    shape = (batch, *case.shape[1:])
    return torch.randint(0, 20, shape) if case.build is TextInput else torch.randn(shape)


def test_the_width_is_the_one_announced(case: Case) -> None:
    adapter = case.build(case.config)
    dense = adapter(make_inputs(case)).dense()
    assert dense.shape == (2, case.num_tokens, adapter.num_channels)
    assert dense.dtype == torch.float32


def test_a_batch_is_its_entries(case: Case) -> None:
    adapter = case.build(case.config).eval()
    inputs = make_inputs(case, 3)
    alone = torch.cat([adapter(entry.unsqueeze(0)).dense() for entry in inputs])
    torch.testing.assert_close(adapter(inputs).dense(), alone, rtol=0, atol=1e-5)


def test_masks_empty_ones_included(case: Case) -> None:
    adapter = case.build(case.config).eval()
    inputs = make_inputs(case)
    mask = torch.zeros(case.mask_shape, dtype=torch.bool)
    mask[0] = True
    tokens = adapter(inputs, mask)
    assert tokens.mask is not None
    assert tokens.mask.shape == (2, case.num_tokens)
    assert tokens.mask.all(-1).tolist() == [True, False]
    assert not tokens.mask[1].any()
    assert tokens.dense().isfinite().all()
    torch.testing.assert_close(tokens.dense()[0], adapter(inputs).dense()[0])
    assert adapter(inputs).mask is None


def test_masks_of_another_shape_or_type_are_refused(case: Case) -> None:
    adapter = case.build(case.config)
    batch, length = case.mask_shape
    for mask in (torch.ones(batch, length + 1, dtype=torch.bool), torch.ones(batch, length)):
        with pytest.raises(ValueError, match=rf"the mask is .*; expected torch\.bool \({batch}, {length}\)"):
            adapter(make_inputs(case), mask)


def test_low_precision(case: Case) -> None:
    adapter = case.build(case.config).eval()
    inputs = make_inputs(case)
    if inputs.is_floating_point():
        inputs = inputs.bfloat16().float()
    expected = adapter(inputs).dense()
    adapter = adapter.bfloat16()
    result = adapter(inputs.bfloat16() if inputs.is_floating_point() else inputs).dense()
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), expected, rtol=0.02, atol=0.04)


def test_gradients_reach_every_parameter_and_the_inputs(case: Case) -> None:
    adapter = case.build(case.config)
    inputs = make_inputs(case).requires_grad_(case.build is not TextInput)
    adapter(inputs).dense().square().sum().backward()
    trained = dict(adapter.named_parameters()) | ({"inputs": inputs} if inputs.requires_grad else {})
    for name, tensor in trained.items():
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().sum() > 0, name


def test_compiles_without_graph_breaks(case: Case) -> None:
    adapter = case.build(case.config).eval()
    inputs = make_inputs(case)
    torch.compiler.reset()
    compiled = torch.compile(lambda x: adapter(x).dense(), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), adapter(inputs).dense())


def test_configurations_survive_a_file(case: Case) -> None:
    assert type(case.config).from_dict(case.config.to_dict()) == case.config
    assert case.config.to_dict()["kind"] == case.config.kind != ""
