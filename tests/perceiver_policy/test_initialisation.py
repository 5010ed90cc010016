"""Weights as drawn, by their moments."""

from __future__ import annotations

import math

import pytest
import torch

from perceiver_policy.config_files import load_named
from perceiver_policy.initialisation import STD, TRUNCATED_STD, Initialisation
from perceiver_policy.model import PerceiverIO
from perceiver_policy.model_config import PerceiverIOConfig


def build(scheme: Initialisation) -> PerceiverIO:
    torch.manual_seed(0)
    config = load_named("perceiver-io-language-bytes-small", PerceiverIOConfig).to_dict()
    return PerceiverIO(PerceiverIOConfig.from_dict(config | {"initialisation": scheme}))


def test_standard_deviation_of_a_truncated_normal() -> None:
    """1 - 2 a φ(a) / (2 Φ(a) - 1), truncated at a = 2."""
    density = math.exp(-2.0) / math.sqrt(2 * math.pi)
    assert math.sqrt(1 - 4 * density / math.erf(math.sqrt(2))) == pytest.approx(TRUNCATED_STD)


@pytest.mark.parametrize("scheme", list(Initialisation))
def test_latents_positions_and_queries(scheme: Initialisation) -> None:
    model = build(scheme)
    assert model.query is not None
    tables = {
        "latents": model.encoder.latents,
        "positions": model.input.positions.table,
        "query": model.query.query,
    }
    truncated = scheme is Initialisation.DEEPMIND
    for name, table in tables.items():
        expected = STD * (TRUNCATED_STD if truncated else 1)
        assert table.std().item() == pytest.approx(expected, rel=0.05), name
        assert (table.abs().max() <= 2 * STD) == truncated, name


def test_linear_layers() -> None:
    layer = {scheme: build(scheme).encoder.cross_attentions[0].mlp.last for scheme in Initialisation}
    fan_in = 64
    stds = {scheme: linear.weight.std().item() for scheme, linear in layer.items()}
    assert stds[Initialisation.DEEPMIND] == pytest.approx(1 / math.sqrt(fan_in), rel=0.05)
    assert stds[Initialisation.HUGGINGFACE] == pytest.approx(0.02, rel=0.05)
    assert stds[Initialisation.PAPER] == pytest.approx(1 / math.sqrt(3 * fan_in), rel=0.05)  # PyTorch's
    for scheme in (Initialisation.DEEPMIND, Initialisation.HUGGINGFACE):
        assert not layer[scheme].bias.any()


@pytest.mark.parametrize(("scheme", "expected"), [("deepmind", TRUNCATED_STD * STD), ("huggingface", STD)])
def test_embeddings(scheme: str, expected: float) -> None:
    weight = build(Initialisation(scheme)).input.embedding.weight
    assert weight.std().item() == pytest.approx(expected, rel=0.05)


def test_convolutions_count_all_that_a_kernel_sees() -> None:
    config = load_named("perceiver-io-imagenet-conv-small", PerceiverIOConfig).to_dict()
    torch.manual_seed(0)
    model = PerceiverIO(PerceiverIOConfig.from_dict(config | {"initialisation": "deepmind"}))
    kernel = model.input.stem.convolution.weight
    assert kernel.std().item() == pytest.approx(1 / math.sqrt(3 * 7 * 7), rel=0.05)


def test_what_a_head_made_zero_stays_zero() -> None:
    config = load_named("perceiver-io-flow-small", PerceiverIOConfig).to_dict()
    config["head"]["zero_init"] = True
    for scheme in Initialisation:
        model = PerceiverIO(PerceiverIOConfig.from_dict(config | {"initialisation": scheme}))
        assert model.head is not None
        assert not model.head.linear.weight.any()
