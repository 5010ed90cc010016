"""The papers' models have as many weights as the published ones."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers

from perceiver_policy.checkpoints.huggingface_config import read_config
from perceiver_policy.config_files import load_named
from perceiver_policy.model import PerceiverIO
from perceiver_policy.model_config import PerceiverIOConfig

IMAGENET = {
    "num_latents": 512,
    "d_latents": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    "num_cross_attention_heads": 1,
    "num_labels": 1000,
    "image_size": 224,
}
LANGUAGE = {"qk_channels": 256, "v_channels": 1280}
FLOW = {
    "num_latents": 2048,
    "d_latents": 512,
    "num_self_attends_per_block": 24,
    "num_self_attention_heads": 16,
    "num_cross_attention_heads": 1,
}
MULTIMODAL = {
    "num_latents": 784,
    "d_latents": 512,
    "num_self_attends_per_block": 8,
    "num_cross_attention_heads": 1,
    "num_labels": 700,
}
PUBLISHED = [
    ("PerceiverForMaskedLM", LANGUAGE, "perceiver-io-language-bytes", 201_108_230),
    ("PerceiverForSequenceClassification", LANGUAGE, None, 206_098_690),
    ("PerceiverForImageClassificationLearned", IMAGENET, "perceiver-io-imagenet-learned", 62_255_848),
    ("PerceiverForImageClassificationFourier", IMAGENET, "perceiver-io-imagenet-fourier", 48_440_627),
    ("PerceiverForImageClassificationConvProcessing", IMAGENET, "perceiver-io-imagenet-conv", 48_646_522),
    ("PerceiverForOpticalFlow", FLOW, "perceiver-io-flow", 41_057_134),
    ("PerceiverForMultimodalAutoencoding", MULTIMODAL, "perceiver-io-multimodal", 19_858_855),
]


def count(config: PerceiverIOConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in PerceiverIO(config).parameters())


@pytest.mark.parametrize(("architecture", "settings", "name", "expected"), PUBLISHED)
def test_published_models(
    architecture: str, settings: dict[str, int], name: str | None, expected: int
) -> None:
    data = transformers.PerceiverConfig(**settings).to_dict() | {"architectures": [architecture]}
    config = read_config(data)[1]
    assert count(config) == expected
    with torch.device("meta"):
        theirs = getattr(transformers, architecture)(transformers.PerceiverConfig(**settings))
    assert sum(parameter.numel() for parameter in theirs.parameters()) == expected
    if name is not None:
        assert count(load_named(name, PerceiverIOConfig)) == expected


def test_perceiver_for_imagenet() -> None:
    """44.9 M of arXiv:2103.03206, and 42.1 M of arXiv:2107.14795, where the inputs are read once."""
    config = load_named("perceiver-imagenet", PerceiverIOConfig)
    assert count(config) == 44_912_254
    encoder = dataclasses.replace(config.encoder, num_cross_attention_layers=1)
    assert round(count(dataclasses.replace(config, encoder=encoder)) / 1e5) == 421
