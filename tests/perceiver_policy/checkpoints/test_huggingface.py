"""Hugging Face's seven classes: the same outputs from the same weights, there and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from perceiver_policy.checkpoints import export_huggingface, import_checkpoint
from tests.perceiver_policy.checkpoints.conftest import SETTINGS

TOLERANCE = 1e-5
"""Of the largest output, which is below 1 everywhere."""
MULTIMODAL = "PerceiverForMultimodalAutoencoding"
HuggingFaceFolder = Callable[..., tuple[transformers.PreTrainedModel, Path]]


def assert_close(actual: Tensor, expected: Tensor) -> None:
    largest = expected.abs().max().item()
    assert 1e-3 < largest < 1
    torch.testing.assert_close(actual, expected, atol=TOLERANCE * largest, rtol=0)


def frames_with_neighbours(frames: Tensor) -> Tensor:
    """(B, 2, 27, H, W): each pixel's 3 x 3 neighbours, ordered (row, column, channel), zeros beyond the
    edges, from frames (B, 2, 3, H, W)."""
    height, width = frames.shape[-2:]
    padded = F.pad(frames, (1, 1, 1, 1))
    shifts = [padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return torch.cat(shifts, dim=2)


def inputs_of(name: str) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """What Hugging Face's class takes, what ours takes, and what else ours is told."""
    generator = torch.Generator().manual_seed(2)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    match name:
        case "PerceiverForMaskedLM" | "PerceiverForSequenceClassification":
            ids = torch.randint(0, 30, (3, 12), generator=generator)
            mask = torch.ones(3, 12, dtype=torch.bool)
            mask[0, 7:] = False
            mask[2] = False  # nothing but padding
            return {"inputs": ids, "attention_mask": mask.long()}, ids, {"mask": mask}
        case "PerceiverForImageClassificationLearned":
            images = noise(2, 3, 6, 6)
            return {"inputs": images}, images, {}
        case "PerceiverForImageClassificationFourier" | "PerceiverForImageClassificationConvProcessing":
            images = noise(2, 3, 18, 15)
            return {"inputs": images}, images, {}
        case "PerceiverForOpticalFlow":
            frames = noise(2, 2, 3, 6, 5)
            return {"inputs": frames_with_neighbours(frames)}, frames, {}
    video, audio, label = noise(2, 2, 3, 8, 8), noise(2, 16), noise(2, 7)
    points = {"image": torch.tensor([3, 0, 127, 64]), "audio": torch.tensor([0, 3, 1])}
    return (
        {
            "inputs": {"image": video, "audio": audio.unsqueeze(-1), "label": label},
            "subsampled_output_points": points | {"label": None},
        },
        {"image": video, "audio": audio, "label": label},
        {"index": points | {"label": None}},
    )


def outputs(name: str, theirs: transformers.PreTrainedModel, ours: Any) -> list[tuple[Tensor, Tensor]]:
    """Ours and theirs."""
    for_theirs, for_ours, told = inputs_of(name)
    with torch.no_grad():
        expected, actual = theirs(**for_theirs).logits, ours(for_ours, **told)
    if name != MULTIMODAL:
        return [(actual, expected)]
    return [(actual[m].flatten(1), expected[m].flatten(1)) for m in ("audio", "image", "label")]


@pytest.mark.parametrize("name", SETTINGS)
def test_outputs_are_those_of_transformers(name: str, huggingface_folder: HuggingFaceFolder) -> None:
    theirs, folder = huggingface_folder(name)
    ours = import_checkpoint(folder)
    assert not ours.training
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    for actual, expected in outputs(name, theirs, ours):
        assert_close(actual, expected)


@pytest.mark.parametrize("name", SETTINGS)
def test_there_and_back(name: str, huggingface_folder: HuggingFaceFolder, tmp_path: Path) -> None:
    theirs, folder = huggingface_folder(name)
    ours = import_checkpoint(folder)
    export_huggingface(ours, tmp_path / "exported")
    written, read = (load_file(f / "model.safetensors") for f in (tmp_path / "exported", folder))
    assert written.keys() == read.keys()
    for key, tensor in written.items():
        assert torch.equal(tensor, read[key]), key
    again = import_checkpoint(tmp_path / "exported")
    assert again.config == ours.config
    for key, tensor in again.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[key]), key
    loaded = getattr(transformers, name).from_pretrained(tmp_path / "exported").eval()
    for_theirs, _, _ = inputs_of(name)
    with torch.no_grad():
        first, second = theirs(**for_theirs).logits, loaded(**for_theirs).logits
    for x, y in [(first, second)] if name != MULTIMODAL else [(first[m], second[m]) for m in first]:
        assert torch.equal(x, y)
    for actual, expected in outputs(name, loaded, again):
        assert_close(actual, expected)


def test_a_text_shorter_than_the_table(huggingface_folder: HuggingFaceFolder) -> None:
    """Hugging Face answers for all positions there are, ours for those of the text."""
    theirs, folder = huggingface_folder("PerceiverForMaskedLM")
    ids = torch.arange(8).reshape(2, 4)
    with torch.no_grad():
        actual, expected = import_checkpoint(folder)(ids), theirs(ids).logits
    assert actual.shape == (2, 4, 30)
    assert_close(actual, expected[:, :4])


def test_all_points_in_chunks(huggingface_folder: HuggingFaceFolder) -> None:
    """Hugging Face cannot decode all points of a video at once; ours are the same, at once, in chunks, and as
    Hugging Face gives them part by part."""
    theirs, folder = huggingface_folder(MULTIMODAL)
    ours = import_checkpoint(folder)
    for_theirs, for_ours, _ = inputs_of(MULTIMODAL)
    num_points = {"audio": 4, "image": 128}
    with torch.no_grad():
        at_once, in_chunks = ours(for_ours), ours(for_ours, chunk_size=19)
        parts = [
            theirs(
                inputs=for_theirs["inputs"],
                subsampled_output_points={
                    name: torch.arange(n // 2 * i, n // 2 * (i + 1)) for name, n in num_points.items()
                }
                | {"label": None},
            ).logits
            for i in range(2)
        ]
    for name in ("audio", "image"):
        expected = torch.cat([part[name] for part in parts], dim=1).flatten(1)
        assert_close(at_once[name].flatten(1), expected)
        assert_close(in_chunks[name].flatten(1), expected)
    assert_close(at_once["label"], parts[0]["label"])
    assert_close(in_chunks["label"], parts[0]["label"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_width(dtype: torch.dtype, huggingface_folder: HuggingFaceFolder) -> None:
    name = "PerceiverForImageClassificationConvProcessing"
    theirs, folder = huggingface_folder(name)
    theirs.to(dtype).save_pretrained(folder)
    for actual, expected in outputs(name, theirs.float(), import_checkpoint(folder)):
        assert_close(actual, expected)


def test_a_file_of_torch(huggingface_folder: HuggingFaceFolder) -> None:
    name = "PerceiverForMaskedLM"
    theirs, folder = huggingface_folder(name)
    expected = import_checkpoint(folder).state_dict()
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for key, tensor in import_checkpoint(folder).state_dict().items():
        assert torch.equal(tensor, expected[key]), key


def test_settings_left_out_have_their_defaults(huggingface_folder: HuggingFaceFolder) -> None:
    _, folder = huggingface_folder("PerceiverForImageClassificationFourier", num_labels=2)
    settings = json.loads((folder / "config.json").read_text())
    defaults = transformers.PerceiverConfig().to_dict()
    kept = {key: value for key, value in settings.items() if defaults.get(key) != value}
    assert len(kept) < len(settings) - 10
    (folder / "config.json").write_text(json.dumps(kept))
    short = import_checkpoint(folder).config
    (folder / "config.json").write_text(json.dumps(settings))
    assert short == import_checkpoint(folder).config
