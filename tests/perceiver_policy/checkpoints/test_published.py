"""The real checkpoints, where they are given.

``PERCEIVER_CHECKPOINTS`` is a folder with subfolders named like the repositories of the Hub, such as
``language-perceiver``. Images need ``image.jpg`` there, number 000000039769 of COCO's validation images of
2017; optical flow needs ``frame.png``, the first of the dataset hf-internal-testing/fixtures_sintel.

The values are those of transformers' own integration tests.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from perceiver_policy.checkpoints import import_checkpoint
from perceiver_policy.inputs.text import ByteTokenizer, SpecialToken

TOLERANCE = 1e-4
TEXT = "This is an incomplete sentence where some words are missing."
MISSING = [38, 115, 111, 121, 121, 111, 116, 109, 52]
"""`` missing.``, in ids."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGES = {
    "vision-perceiver-learned": [-1.1652, -0.1992, -0.7520],
    "vision-perceiver-fourier": [-1.1295, -0.2832, 0.3226],
    "vision-perceiver-conv": [-1.1186, 0.0554, 0.0897],
}
TEXTS = {  # whether CLS and SEP are added: the corner of the logits
    True: [[-10.8609, -10.7651, -10.9187], [-12.1689, -11.9389, -12.1479], [-12.1518, -11.9707, -12.2073]],
    False: [[-11.8336, -11.6850, -11.8483], [-12.8149, -12.5863, -12.7904], [-12.8440, -12.6410, -12.8646]],
}

FLOW = [
    [[0.0025, -0.0050], [0.0025, -0.0049], [0.0025, -0.0048]],
    [[0.0026, -0.0049], [0.0026, -0.0048], [0.0026, -0.0047]],
    [[0.0026, -0.0049], [0.0026, -0.0048], [0.0026, -0.0046]],
]


def given(name: str) -> Path:
    folder = os.environ.get("PERCEIVER_CHECKPOINTS")
    if not folder:
        pytest.skip("PERCEIVER_CHECKPOINTS names no folder with the published checkpoints")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"PERCEIVER_CHECKPOINTS has no {name}")
    return path


def photograph(path: Path) -> Tensor:
    """(1, 3, 224, 224), as the published models were evaluated: the centre, of 224 / 256 of the shorter side,
    resized bicubically, then ImageNet's statistics."""
    with Image.open(path) as image:
        side = int(224 / 256 * min(image.size))
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").crop((left, top, left + side, top + side))
        pixels = np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC), np.float32) / 255
    return torch.from_numpy((pixels - np.float32(MEAN)) / np.float32(STD)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("special_tokens", TEXTS)
def test_language(special_tokens: bool) -> None:
    model, tokenizer = import_checkpoint(given("language-perceiver")), ByteTokenizer()
    ids, mask = tokenizer.pad([tokenizer.encode(TEXT, special_tokens=special_tokens)], 2048)
    start = 51 + special_tokens
    ids[0, start : start + 9] = SpecialToken.MASK
    with torch.no_grad():
        logits = model(ids, mask)
    assert logits.shape == (1, 2048, 262)
    expected = torch.tensor(TEXTS[special_tokens])
    torch.testing.assert_close(logits[0, :3, :3], expected, atol=TOLERANCE, rtol=TOLERANCE)
    if special_tokens:
        assert logits[0, 52:61].argmax(-1).tolist() == MISSING


@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str) -> None:
    model, image = import_checkpoint(given(name)), photograph(given("image.jpg"))
    with torch.no_grad():
        logits = model(image)
    assert logits.shape == (1, 1000)
    torch.testing.assert_close(logits[0, :3], torch.tensor(IMAGES[name]), atol=TOLERANCE, rtol=TOLERANCE)


def test_flow() -> None:
    """The frame is both of the pair, as in transformers' test."""
    model = import_checkpoint(given("optical-flow-perceiver"))
    with Image.open(given("frame.png")) as image:
        pixels = np.asarray(image.convert("RGB"))[:368, :496]
    frame = (torch.tensor(pixels, dtype=torch.float64) / 255 * 2 - 1).permute(2, 0, 1).float()
    with torch.no_grad():
        flow = model(torch.stack((frame, frame))[None])
    assert flow.shape == (1, 368, 496, 2)
    torch.testing.assert_close(flow[0, :3, :3], torch.tensor(FLOW), atol=TOLERANCE, rtol=TOLERANCE)


def test_video_with_sound() -> None:
    """No values were published; the shapes of a 128th of the points were."""
    model = import_checkpoint(given("multimodal-perceiver"))
    inputs = {
        "image": torch.zeros(1, 16, 3, 224, 224),
        "audio": torch.zeros(1, 30720),
        "label": torch.zeros(1, 700),
    }
    points = {"image": torch.arange(6272), "audio": torch.arange(15), "label": None}
    with torch.no_grad():
        outputs = model(inputs, index=points)
    assert outputs["audio"].shape == (1, 15, 16)
    assert outputs["image"].shape == (1, 6272, 3)
    assert outputs["label"].shape == (1, 700)
