"""What Hugging Face's models and DeepMind's do otherwise, each worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional as F

from perceiver_policy.checkpoints import CheckpointError, Compatibility, compatible, import_checkpoint
from perceiver_policy.checkpoints.deepmind import RELEASED
from perceiver_policy.config import EmptyAttention
from perceiver_policy.config_files import load_named
from perceiver_policy.model_config import PerceiverIOConfig

HuggingFaceFolder = Callable[..., tuple[transformers.PreTrainedModel, Path]]


@pytest.fixture
def pair(huggingface_folder: HuggingFaceFolder) -> Callable[..., list[Any]]:
    """The same weights as each of the two."""

    def make(name: str, **changes: Any) -> list[Any]:
        _, folder = huggingface_folder(name, **changes)
        models = [import_checkpoint(folder, compat=compat) for compat in Compatibility]
        for x, y in zip(*(model.state_dict().values() for model in models), strict=True):
            assert torch.equal(x, y)
        return models

    return make


def test_gelu(pair: Callable[..., list[Any]]) -> None:
    models = pair("PerceiverForImageClassificationConvProcessing")
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    exact = x * torch.distributions.Normal(0, 1).cdf(x)
    tanh = x / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    for model, expected in zip(models, (exact, tanh), strict=True):
        layers = [
            model.encoder.cross_attentions[0],
            model.encoder.blocks[0][1],
            model.decoder.cross_attention,
        ]
        for layer in layers:
            torch.testing.assert_close(layer.mlp[1](x), expected, atol=1e-12, rtol=0)


def test_an_activation_of_ones_own_is_kept(pair: Callable[..., list[Any]]) -> None:
    for model in pair("PerceiverForImageClassificationFourier", hidden_act="silu"):
        assert model.config.encoder.activation == model.config.decoder.activation == "silu"


def test_padding_of_the_stem(pair: Callable[..., list[Any]]) -> None:
    hf, deepmind = pair("PerceiverForImageClassificationConvProcessing")
    image = torch.zeros(1, 3, 224, 224)
    assert hf.input(image).content.shape[1] == 55 * 55
    assert deepmind.input(image).content.shape[1] == 56 * 56
    stem = deepmind.input.stem
    image = torch.randn(1, 3, 8, 8)
    x = F.conv2d(F.pad(image, (2, 3, 2, 3)), stem.convolution.weight, stride=2)
    x = F.max_pool2d(F.pad(stem.norm(x).relu(), (0, 1, 0, 1)), 3, 2)
    torch.testing.assert_close(stem(image), x)


def test_the_decoder_of_the_learned_positions_model(pair: Callable[..., list[Any]]) -> None:
    hf, deepmind = pair("PerceiverForImageClassificationLearned", hidden_act="relu")
    latents, query = torch.randn(1, 5, 24), hf.query.query
    for model, residual in ((hf, 1.0), (deepmind, 0.0)):
        layer = model.decoder.cross_attention
        x = residual * query + layer.attention(layer.query_norm(query), layer.key_value_norm(latents))
        torch.testing.assert_close(model.decoder(query, latents), x + layer.mlp(layer.mlp_norm(x)))


def texts() -> tuple[Tensor, Tensor]:
    ids = torch.arange(24).reshape(2, 12)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[0, 5:], mask[1] = False, False
    return ids, mask


def test_a_text_of_nothing_but_padding(pair: Callable[..., list[Any]]) -> None:
    """Hugging Face's latents read the mean of what is not there, DeepMind's read nothing."""
    hf, deepmind = pair("PerceiverForSequenceClassification", hidden_act="relu")
    ids, mask = texts()
    for model in (hf, deepmind):
        layer, tokens = model.encoder.cross_attentions[0], model.input(ids).dense()
        attention, keys_values = layer.attention, layer.key_value_norm(tokens[1])
        value = attention.key_value(keys_values)[:, attention.num_qk_channels :].mean(0)
        attended = attention.output(value if model is hf else torch.zeros_like(value))
        assert not model.config.encoder.cross_attention_residual
        expected = attended + layer.mlp(layer.mlp_norm(attended))
        actual = layer(model.encoder.latents, model.input(ids, mask))[1]
        torch.testing.assert_close(actual, expected.expand_as(actual))
    torch.testing.assert_close(hf(ids, mask)[:1], deepmind(ids, mask)[:1])


def test_answers_at_padding(pair: Callable[..., list[Any]]) -> None:
    """At places that are padding, DeepMind's decoder answers as if it had read nothing."""
    hf, deepmind = pair("PerceiverForMaskedLM", hidden_act="relu")
    ids, mask = texts()
    layer, embedding = deepmind.decoder.cross_attention, deepmind.input.embedding.weight
    nothing = layer.attention.output.bias
    expected = (nothing + layer.mlp(layer.mlp_norm(nothing))) @ embedding.T + deepmind.head.bias
    actual, other = deepmind(ids, mask), hf(ids, mask)
    torch.testing.assert_close(actual[0, 5:], expected.expand(7, -1))
    torch.testing.assert_close(actual[0, :5], other[0, :5])
    assert (other[0, 5:] - expected).abs().max() > 1e-3


def test_units_of_flow(pair: Callable[..., list[Any]]) -> None:
    hf, deepmind = pair("PerceiverForOpticalFlow", hidden_act="relu")
    frames = torch.randn(1, 2, 3, 6, 5)
    torch.testing.assert_close(deepmind(frames), 20 * hf(frames))


@pytest.mark.parametrize("name", RELEASED.values())
def test_the_papers_models_as_either(name: str) -> None:
    config = load_named(name, PerceiverIOConfig)
    hf, deepmind = (compatible(config, compat) for compat in Compatibility)
    assert compatible(deepmind, Compatibility.HF) == hf
    assert compatible(hf, Compatibility.DEEPMIND) == deepmind
    assert hf.encoder.empty_attention is EmptyAttention.MEAN
    assert deepmind.encoder.empty_attention is EmptyAttention.ZEROS
    assert not hf.mask_queries
    assert deepmind.mask_queries is (name == "perceiver-io-language-bytes")


def test_other_models_have_no_two_sides() -> None:
    with pytest.raises(CheckpointError, match="none of the seven"):
        compatible(load_named("perceiver-imagenet", PerceiverIOConfig), Compatibility.HF)


def test_weights_drawn_anew(pair: Callable[..., list[Any]]) -> None:
    hf, deepmind = pair("PerceiverForOpticalFlow")
    assert (hf.config.initialisation, deepmind.config.initialisation) == ("huggingface", "deepmind")
