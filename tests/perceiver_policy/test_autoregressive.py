"""Perceiver AR against the model written out position by position in float64."""

from __future__ import annotations

import cmath
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perceiver_policy.attention import AttentionLayer
from perceiver_policy.autoregressive import PerceiverAR
from perceiver_policy.autoregressive_config import AbsolutePositions, PerceiverARConfig
from perceiver_policy.cache import SequenceCaches
from perceiver_policy.config import Config, ConfigError
from perceiver_policy.heads.token import TiedEmbeddingHead

SMALL = PerceiverARConfig(
    vocabulary_size=11,
    max_context=40,
    num_latents=5,
    num_channels=8,
    num_cross_attention_heads=1,
    num_self_attention_heads=2,
    num_self_attention_layers=2,
    cross_attention_widening_factor=2,
    self_attention_widening_factor=3,
    rotary_base=100.0,
)


def perturbed(config: PerceiverARConfig, seed: int = 0) -> PerceiverAR:
    """A model none of whose weights is special: no zero biases, no unit gains, no tiny embeddings."""
    torch.manual_seed(seed)
    model = PerceiverAR(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * layer.weight + layer.bias


def turn(x: Tensor, position: int, num_channels: int, base: float) -> Tensor:
    result = x.clone()
    for k in range(num_channels // 2):
        angle = position * base ** (-2 * k / num_channels)
        z = complex(x[2 * k], x[2 * k + 1]) * cmath.exp(1j * angle)
        result[2 * k], result[2 * k + 1] = z.real, z.imag
    return result


def layer_by_hand(
    layer: AttentionLayer,
    queries: list[tuple[int, Tensor]],
    keys: list[tuple[int, Tensor]],
    num_turned: int,
    base: float,
) -> list[tuple[int, Tensor]]:
    """The layer's output at each (position, vector) of ``queries``, which attends to ``keys`` up to there."""
    attention = layer.attention
    heads, width = attention.num_heads, attention.num_qk_channels
    if attention.is_self_attention:
        weights, biases = attention.query_key_value.weight, attention.query_key_value.bias
        key_norm = layer.query_norm
    else:
        weights = torch.cat((attention.query.weight, attention.key_value.weight))
        biases = torch.cat((attention.query.bias, attention.key_value.bias))
        assert layer.key_value_norm is not None
        key_norm = layer.key_value_norm
    w_q, w_k, w_v = weights.split(width)
    b_q, b_k, b_v = biases.split(width)
    d = width // heads
    outputs = []
    for position, x in queries:
        attended = torch.zeros(width, dtype=torch.float64)
        for h in range(heads):
            part = slice(h * d, (h + 1) * d)
            query = turn(w_q[part] @ norm(x, layer.query_norm) + b_q[part], position, num_turned, base)
            total = 0.0
            for at, y in keys:
                if at <= position:
                    normed = norm(y, key_norm)
                    key = turn(w_k[part] @ normed + b_k[part], at, num_turned, base)
                    weight = math.exp(query @ key / math.sqrt(d))
                    total += weight
                    attended[part] += weight * (w_v[part] @ normed + b_v[part])
            attended[part] /= total
        x = x + attention.output.weight @ attended + attention.output.bias
        hidden = (layer.mlp[0].weight @ norm(x, layer.mlp_norm) + layer.mlp[0].bias).clamp(min=0) ** 2
        outputs.append((position, x + layer.mlp[2].weight @ hidden + layer.mlp[2].bias))
    return outputs


def place_by_hand(model: PerceiverAR, position: int) -> Tensor:
    """(num_channels,) float64: what is added to the embedding of a token at a position."""
    config = model.config
    match config.absolute_positions:
        case AbsolutePositions.NONE:
            return torch.zeros(config.num_channels, dtype=torch.float64)
        case AbsolutePositions.LEARNED:
            return model.positions.table[position]
        case AbsolutePositions.SINUSOIDAL:
            width = config.num_channels
            angles = [position * config.rotary_base ** (-2 * k / width) for k in range(width // 2)]
            features = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            # Sines have a mean square of 1/2, the embeddings at first one of 0.02².
            return 0.02 * math.sqrt(2) * torch.tensor(features, dtype=torch.float64)


def logits_by_hand(
    model: PerceiverAR, tokens: list[int], num_latents: int, dropped: tuple[int, ...] = ()
) -> Tensor:
    """(num_latents, V) float64, without the positions ``dropped``."""
    config = model.config
    double = PerceiverAR(config).double()
    double.load_state_dict(model.state_dict())
    model = double.requires_grad_(False)
    inputs = [
        (at, model.embedding.weight[token] + place_by_hand(model, at))
        for at, token in enumerate(tokens)
        if at not in dropped
    ]
    x = inputs[len(inputs) - num_latents :]
    base = config.rotary_base
    turned = config.num_rotary_channels(config.num_cross_attention_heads)
    x = layer_by_hand(model.cross_attention, x, inputs, turned, base)
    turned = config.num_rotary_channels(config.num_self_attention_heads)
    for layer in model.self_attentions:
        assert isinstance(layer, AttentionLayer)
        x = layer_by_hand(layer, x, x, turned, base)
    tied = isinstance(model.head, TiedEmbeddingHead)
    weight, bias = (model.embedding.weight, model.head.bias) if tied else model.head.linear.parameters()
    return torch.stack([weight @ norm(y, model.output_norm) + bias for _, y in x])


@pytest.mark.parametrize(
    ("tied", "places"), [(True, "none"), (False, "none"), (True, "sinusoidal"), (True, "learned")]
)
@pytest.mark.parametrize(("length", "num_latents"), [(9, 4), (9, 1), (5, 5), (1, 1)])
def test_logits_are_those_of_the_definition(length: int, num_latents: int, tied: bool, places: str) -> None:
    model = perturbed(
        dataclasses.replace(SMALL, tie_embedding=tied, absolute_positions=AbsolutePositions(places))
    )
    tokens = torch.randint(11, (2, length))
    logits = model(tokens, num_latents=num_latents)
    for row, result in zip(tokens.tolist(), logits, strict=True):
        expected = logits_by_hand(model, row, num_latents)
        torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_with_no_prefix_it_is_a_causal_transformer(share: float) -> None:
    """N = L: the same weights, run as layers that all attend with an explicit mask."""
    config = dataclasses.replace(SMALL, num_latents=12, rotary_share=share)
    model, hand = perturbed(config), logits_by_hand
    tokens = torch.randint(11, (1, 12))
    torch.testing.assert_close(
        model(tokens)[0].double(), hand(model, tokens[0].tolist(), 12), rtol=1e-4, atol=1e-5
    )
    if share == 0:  # nothing but the mask tells positions apart, so torch's own attention can do it too
        mask = torch.ones(12, 12, dtype=torch.bool).tril()
        x = model.embedding(tokens)
        for layer in (model.cross_attention, *model.self_attentions):
            assert isinstance(layer, AttentionLayer)
            keys = x if layer.key_value_norm is not None else None
            x = layer(x, keys, mask.unsqueeze(0))
        torch.testing.assert_close(model(tokens), model.head(model.output_norm(x), model.embedding.weight))


def test_the_future_changes_nothing() -> None:
    model = perturbed(SMALL)
    tokens = torch.randint(11, (1, 12))
    logits = model(tokens)
    for changed in range(12):
        other = tokens.clone()
        other[0, changed] = (other[0, changed] + 1) % 11
        differs = (model(other) != logits).any(-1)[0]
        first = max(changed - 7, 0)  # latents stand at positions 7 to 11
        assert not differs[:first].any()
        assert differs[first:].all()


def test_positions_are_relative() -> None:
    """A context that says nothing moves the rest along, and the logits stay; without it they would not."""
    model = perturbed(SMALL)
    tokens = torch.randint(11, (1, 6))
    for shift in (1, 30):
        padded = torch.cat((torch.zeros(1, shift, dtype=torch.int64), tokens), dim=1)
        mask = torch.arange(shift + 6).unsqueeze(0) >= shift
        torch.testing.assert_close(model(padded, mask), model(tokens), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model(padded), model(tokens), atol=1e-2)


@pytest.mark.parametrize("places", AbsolutePositions)
def test_padding_at_the_left_of_latents(places: AbsolutePositions) -> None:
    model = perturbed(dataclasses.replace(SMALL, absolute_positions=places))
    tokens = torch.randint(11, (2, 6))
    mask = torch.tensor([[True] * 6, [False] * 3 + [True] * 3])
    logits = model(tokens, mask)
    torch.testing.assert_close(logits[:1], model(tokens[:1]))
    torch.testing.assert_close(logits[1:, -3:], model(tokens[1:, 3:]), rtol=1e-4, atol=1e-5)
    assert logits.isfinite().all()


def test_caches_carry_a_sequence_on() -> None:
    model = perturbed(SMALL)
    tokens = torch.randint(11, (2, 12))
    mask = torch.arange(12) >= torch.tensor([[0], [2]])
    expected = model(tokens, mask, num_latents=5)
    with torch.no_grad():
        caches = SequenceCaches(12, 5, 2)
        parts = [model(tokens[:, :9], mask[:, :9], num_latents=2, caches=caches)]
        parts.append(model(tokens[:, 9:11], mask[:, :11], caches=caches))
        parts.append(model(tokens[:, 11:], mask, caches=caches))
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="num_latents is 1 for 2 tokens that follow 12 others"):
        model(tokens[:, :2], torch.ones(2, 14, dtype=torch.bool), num_latents=1, caches=caches)


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_loss_is_the_formula(z_loss: float) -> None:
    model = perturbed(dataclasses.replace(SMALL, z_loss=z_loss))
    tokens = torch.randint(11, (2, 8))
    mask = torch.tensor([[True] * 8, [False] * 5 + [True] * 3])
    logits = model(tokens[:, :-1], mask[:, :-1], num_latents=4).double()
    counted = []
    for b, t in [(0, 4), (0, 5), (0, 6), (0, 7), (1, 6), (1, 7)]:
        z = sum(math.exp(logit) for logit in logits[b, t - 4].tolist())
        nll = math.log(z) - logits[b, t - 4, tokens[b, t]].item()
        counted.append(nll + z_loss * math.log(z) ** 2)
    loss = model.loss(tokens, mask, num_latents=4)
    assert loss.item() == pytest.approx(sum(counted) / 6, rel=1e-5)
    whole = model.loss(tokens, num_latents=4)
    assert whole.item() == pytest.approx(
        model.loss(tokens, torch.ones_like(mask), num_latents=4).item(), rel=1e-5
    )


def test_gradients_reach_every_weight_and_ignore_what_is_absent() -> None:
    model = perturbed(dataclasses.replace(SMALL, tie_embedding=False))
    tokens = torch.tensor([[9, 9, 1, 2, 3, 4, 5, 6]])
    model.loss(tokens, torch.arange(8).unsqueeze(0) >= 2).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert model.embedding.weight.grad is not None
    assert (model.embedding.weight.grad[9] == 0).all()
    assert (model.embedding.weight.grad[2] != 0).any()


def test_prefix_dropout_leaves_out_its_share_of_the_prefix_while_training() -> None:
    """Read off the gradient: the embeddings of dropped positions have none."""
    config = dataclasses.replace(SMALL, vocabulary_size=40, tie_embedding=False, prefix_dropout=0.3)
    model = perturbed(config)
    tokens = torch.arange(15).expand(64, -1) + 1
    torch.testing.assert_close(
        model(tokens), perturbed(dataclasses.replace(config, prefix_dropout=0.0))(tokens)
    )
    model.train()
    read = torch.zeros(15)
    for row in tokens:
        model.zero_grad()
        model(row.unsqueeze(0)).sum().backward()
        assert model.embedding.weight.grad is not None
        survives = model.embedding.weight.grad[1:16].abs().sum(-1) > 0
        assert survives[10:].all()
        read += survives
    assert (read[:10].sum() / 64).item() == 7  # of the ten, always seven
    assert (read[:10] > 64 * 0.5).all(), "each position should be dropped in about three rows of ten"
    assert (read[:10] < 64 * 0.9).all()


def test_with_prefix_dropout_the_others_keep_their_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    model = perturbed(dataclasses.replace(SMALL, prefix_dropout=0.5)).train()
    tokens = torch.randint(11, (1, 9))
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.tensor([[0.1, 0.9, 0.2, 0.8]]))
    expected = logits_by_hand(model, tokens[0].tolist(), 5, dropped=(0, 2))
    torch.testing.assert_close(model(tokens)[0].double(), expected, rtol=1e-4, atol=1e-5)


def test_compiles_whole() -> None:
    model = perturbed(SMALL)
    tokens = torch.randint(11, (2, 9))
    mask = torch.arange(9) >= torch.tensor([[0], [2]])
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens), model(tokens), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(compiled(tokens, mask), model(tokens, mask), rtol=1e-5, atol=1e-5)


def test_activation_checkpointing_changes_neither_loss_nor_gradients() -> None:
    plain = perturbed(SMALL)
    again = perturbed(dataclasses.replace(SMALL, activation_checkpointing=True))
    tokens = torch.randint(11, (2, 9))
    losses = [model.loss(tokens) for model in (plain, again)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[0], losses[1])
    for (name, one), (_, other) in zip(plain.named_parameters(), again.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_config_is_kept_by_a_dict() -> None:
    config = dataclasses.replace(SMALL, prefix_dropout=0.25, z_loss=1e-4)
    assert config.to_dict()["kind"] == "perceiver_ar"
    assert PerceiverARConfig.from_dict(config.to_dict()) == config
    assert issubclass(PerceiverARConfig, Config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_channels": 9}, "num_self_attention_heads is 2; it must divide num_channels 9: one of"),
        ({"num_latents": 41}, "num_latents is 41; .* at most max_context 40"),
        (
            {"num_channels": 9, "num_self_attention_heads": 1, "absolute_positions": "sinusoidal"},
            "num_channels is 9; sinusoidal positions .* even",
        ),
        ({"prefix_dropout": 1.0}, "prefix_dropout is 1.0; it must be below 1"),
        ({"rotary_share": 1.5}, "rotary_share is 1.5; it is a share"),
        (
            {"rotary_share": 0.4},
            "rotary_share is 0.4; of the 4 channels .* num_self_attention_heads 2 .*",
        ),
        ({"activation": "swish"}, "activation is 'swish'; allowed: .*squared_relu"),
        ({"num_self_attention_layers": 0}, "num_self_attention_layers is 0; it must be at least 1"),
    ],
)
def test_wrong_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_wrong_inputs() -> None:
    model = perturbed(SMALL)
    tokens = torch.randint(11, (2, 9))
    for wrong in (tokens[0], tokens[:, :0], tokens.float()):
        with pytest.raises(ValueError, match=r"they must be \(B, L\) whole numbers"):
            model(wrong)
    with pytest.raises(ValueError, match="has 45 tokens, but max_context is 40"):
        model(tokens.repeat(1, 5))
    for num_latents in (0, 6):
        with pytest.raises(ValueError, match=rf"num_latents is {num_latents}, .* 1 and 5 for 9 tokens"):
            model(tokens, num_latents=num_latents)
    with pytest.raises(ValueError, match=r"num_latents is 4, .* between 1 and 3 for 3 tokens"):
        model(tokens[:, :3], num_latents=4)
    for mask in (torch.ones(2, 8, dtype=torch.bool), torch.ones(2, 9)):
        with pytest.raises(ValueError, match=r"it must be \(2, 9\) bool"):
            model(tokens, mask)
        with pytest.raises(ValueError, match=r"it must be \(2, 9\) bool"):
            model.loss(tokens, mask)
    with pytest.raises(ValueError, match="something to predict from"):
        model.loss(tokens[:, :1])
