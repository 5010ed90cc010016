"""Looking inside: recorded attention is what layers compute, recording changes nothing, rollout by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from perceiver_policy.attention import AttentionLayer
from perceiver_policy.autoregressive import PerceiverAR, PerceiverARConfig
from perceiver_policy.config import DecoderConfig, EncoderConfig
from perceiver_policy.core import PerceiverDecoder, PerceiverEncoder
from perceiver_policy.generation import generate
from perceiver_policy.looking import (
    LayerAttention,
    Recording,
    input_attention,
    modality_shares,
    principal_plane,
    record,
)
from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.position import FourierEncoding, grid_axes
from perceiver_policy.tokens import Tokens


class Model(nn.Module):
    """An encoder that reads twice, with a block of two layers shared over four blocks, and a decoder."""

    def __init__(self, **encoder: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = {
            "num_latents": 3,
            "num_latent_channels": 8,
            "num_cross_attention_layers": 2,
            "num_self_attention_layers_per_block": 2,
            "num_blocks": 4,
        }
        self.encoder = PerceiverEncoder(EncoderConfig.from_dict(sizes | encoder), 6)
        self.decoder = PerceiverDecoder(DecoderConfig(), 4, 8)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(std=0.5)

    def forward(self, inputs: Tensor | Tokens, queries: Tensor, **kwargs: Tensor) -> Tensor:
        query_mask = kwargs.pop("query_mask", None)
        return self.decoder(queries, self.encoder(inputs, **kwargs), query_mask)


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def queries() -> Tensor:
    return torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(2))


def by_hand(layer: AttentionLayer, x: Tensor, keys_values: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(QKᵀ / √d), one head at a time, in float64."""

    def norm(values: Tensor, weights: nn.LayerNorm) -> Tensor:
        values = values.double()
        variance, mean = torch.var_mean(values, -1, correction=0, keepdim=True)
        return (values - mean) / (variance + weights.eps).sqrt() * weights.weight + weights.bias

    attention, width = layer.attention, layer.attention.num_qk_channels
    assert layer.key_value_norm is not None
    query = norm(x, layer.query_norm) @ attention.query.weight.T.double() + attention.query.bias
    keys = norm(keys_values, layer.key_value_norm) @ attention.key_value.weight[:width].T.double()
    keys = keys + attention.key_value.bias[:width]
    size, heads = width // attention.num_heads, []
    for head in range(attention.num_heads):
        part = slice(head * size, (head + 1) * size)
        weights = (query[..., part] @ keys[..., part].transpose(-1, -2) / math.sqrt(size)).exp()
        if mask is not None:
            weights = weights * mask[:, None]
        heads.append(weights / weights.sum(-1, keepdim=True))
    return torch.stack(heads, 1)


def test_recorded_attention_is_the_layers(inputs: Tensor, queries: Tensor) -> None:
    model = Model()
    mask = torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0]]).bool()
    with record(model) as recording:
        model(inputs, queries, mask=mask)
    read = recording.of("encoder.cross_attentions.0")
    expected = by_hand(model.encoder.cross_attentions[0], model.encoder.latents, inputs, mask)
    torch.testing.assert_close(read.double(), expected, atol=1e-6, rtol=0)
    assert (read[~mask[:, None, None].expand_as(read)] == 0).all()
    answered = recording.of("decoder.cross_attention")
    latents = recording.latents["encoder"][-1]
    expected = by_hand(model.decoder.cross_attention, queries, latents)
    torch.testing.assert_close(answered.double(), expected, atol=1e-6, rtol=0)
    assert not read.requires_grad


def test_calls_come_in_order_and_are_counted(inputs: Tensor, queries: Tensor) -> None:
    model = Model()
    with record(model) as recording:
        model(inputs, queries)
    reads = ["encoder.cross_attentions.0", "encoder.cross_attentions.1"]
    block = ["encoder.blocks.0.0", "encoder.blocks.0.1"]
    order = [reads[0], *block, *block, reads[1], *block, *block, "decoder.cross_attention"]
    assert [entry.name for entry in recording.attention] == order
    assert [e.call for e in recording.attention if e.name == block[0]] == [0, 1, 2, 3]
    assert [e.is_cross for e in recording.attention] == ["cross" in name for name in order]
    assert not torch.equal(recording.of(block[0], 0), recording.of(block[0], 3))


def test_latents_are_those_after_each_block(inputs: Tensor, queries: Tensor) -> None:
    model = Model()
    with record(model, layers="decoder.*") as recording:
        model(inputs, queries)
    expected = list(model.encoder.stages(inputs))
    assert [e.name for e in recording.attention] == ["decoder.cross_attention"]
    assert len(recording.latents["encoder"]) == len(expected) == 4
    assert all(map(torch.equal, recording.latents["encoder"], expected))


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_outputs_are_the_same_bit_for_bit(context: Callable, inputs: Tensor, queries: Tensor) -> None:
    """With dropout, too: recording draws no random numbers."""
    model = Model(attention_dropout=0.3)
    for train in (False, True):
        model.train(train)
        with context():
            torch.manual_seed(3)
            expected = model(inputs, queries)
            torch.manual_seed(3)
            with record(model) as recording:
                found = model(inputs, queries)
        assert torch.equal(found, expected)
        assert found.requires_grad is expected.requires_grad
        assert len(recording.attention) == 11
        if found.requires_grad:
            gradients = [torch.autograd.grad(y.sum(), model.encoder.latents)[0] for y in (found, expected)]
            assert torch.equal(*gradients)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def test_hooks_go_even_after_errors(inputs: Tensor, queries: Tensor) -> None:
    model = Model()
    with record(model) as recording:
        assert hooks(model) == 5 + 1
    assert hooks(model) == 0
    model(inputs, queries)
    assert recording.attention == []
    with pytest.raises(RuntimeError), record(model):
        model(inputs[..., :5], queries)
    assert hooks(model) == 0
    with pytest.raises(ValueError, match="max_entries"), record(model, max_entries=10):
        model(inputs, queries)
    assert hooks(model) == 0


def test_too_many_entries_are_refused_before_they_are_computed(inputs: Tensor, queries: Tensor) -> None:
    model = Model()
    first = 2 * 2 * 3 * 5
    with record(model, max_entries=first) as recording:
        with pytest.raises(ValueError, match="max_entries") as error:
            model(inputs, queries)
    assert [entry.name for entry in recording.attention] == ["encoder.cross_attentions.0"]
    for part in ("encoder.blocks.0.0", "2 x 2 x 3 x 3", "36 weights beside 60", "max_entries is 60"):
        assert part in str(error.value)


def test_layers_are_chosen_by_name_or_pattern(inputs: Tensor, queries: Tensor) -> None:
    model = Model()
    with record(model, layers=("encoder.cross_*", "decoder.cross_attention")) as recording:
        model(inputs, queries)
    names = ("encoder.cross_attentions.0", "encoder.cross_attentions.1", "decoder.cross_attention")
    assert recording.layers == names
    assert tuple(entry.name for entry in recording.attention) == names
    with pytest.raises(ValueError, match=r"'encoder.cross_attention.0', which no layer fits; did you mean"):
        with record(model, layers="encoder.cross_attention.0"):
            pass
    with pytest.raises(ValueError, match="Linear has no AttentionLayer"), record(nn.Linear(1, 1)):
        pass
    with pytest.raises(ValueError, match=r"no layer 'decoder'.*decoder\.cross_attention"):
        recording.of("decoder")
    with pytest.raises(ValueError, match=r"call is 1, but decoder.cross_attention was called 1 times"):
        recording.of("decoder.cross_attention", 1)


def test_tokens_over_a_grid(queries: Tensor) -> None:
    """Tokens bring their mask; features of a grid are put beside the content."""
    features = FourierEncoding(1, [1, 1]).on_grid(grid_axes((2, 3)))  # 6 channels
    mask = torch.tensor([[1, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]).bool()
    model = Model()
    model.encoder = PerceiverEncoder(EncoderConfig(num_latents=3, num_latent_channels=8), 2 + 6)
    tokens = Tokens(torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(5)), mask, features)
    with record(model) as recording:
        model(tokens, queries)
    expected = by_hand(model.encoder.cross_attentions[0], model.encoder.latents, tokens.dense(), mask)
    found = recording.of("encoder.cross_attentions.0").double()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_masked_queries_attend_to_nothing(inputs: Tensor, queries: Tensor) -> None:
    model = Model()
    query_mask = torch.ones(2, 7, dtype=torch.bool)
    query_mask[1, 4] = False
    with record(model) as recording:
        model(inputs, queries, query_mask=query_mask)
    answered = recording.of("decoder.cross_attention").sum(-1)
    torch.testing.assert_close(answered, query_mask[:, None].expand(-1, 2, -1).float())
    assert (input_attention(recording)[1, 4] == 0).all()


def entry(name: str, weights: list, *, is_cross: bool = True, residual: bool = True) -> LayerAttention:
    probabilities = torch.tensor(weights, dtype=torch.float64)
    return LayerAttention(
        name, 0, probabilities.reshape(1, -1, *probabilities.shape[-2:]), is_cross, residual
    )


def test_rollout_by_hand() -> None:
    """Two latents read three inputs, mix, read again, mix; one output asks them."""
    model = nn.Module()
    model.encoder = PerceiverEncoder(
        EncoderConfig(num_latents=2, num_latent_channels=2, num_cross_attention_layers=2, num_blocks=2), 2
    )
    model.decoder = PerceiverDecoder(DecoderConfig(), 2, 2)
    names = tuple(n for n, m in model.named_modules() if isinstance(m, AttentionLayer))
    read_0 = entry("encoder.cross_attentions.0", [[[1, 0, 0], [0, 1, 0]], [[0, 1, 0], [0, 0, 1]]])
    mix_0 = entry("encoder.blocks.0.0", [[0.5, 0.5], [0, 1]], is_cross=False)
    read_1 = entry("encoder.cross_attentions.1", [[0, 0, 1], [1, 0, 0]])
    mix_1 = entry("encoder.blocks.0.0", [[0, 1], [1, 0]], is_cross=False)
    ask = entry("decoder.cross_attention", [[[0.25, 0.75]], [[0.75, 0.25]]], residual=False)
    recording = Recording(model, names, [read_0, mix_0, read_1, mix_1, ask])
    # Heads averaged, latent 0 holds halves of inputs 0 and 1, latent 1 of inputs 1 and 2. In mixing, half
    # residual, latent 0 keeps three quarters and takes one: 0.375, 0.5, 0.125. Reading again, half each,
    # makes it 0.1875, 0.25, 0.5625, and latent 1 0.5, 0.25, 0.25. At last both become the mean of the two.
    mixed = [(0.1875 + 0.5) / 2, 0.25, (0.5625 + 0.25) / 2]
    torch.testing.assert_close(input_attention(recording), torch.tensor([[mixed]], dtype=torch.float64))
    latents = input_attention(Recording(model, names, [read_0, mix_0, read_1]))
    expected = torch.tensor([[[0.1875, 0.25, 0.5625], [0.5, 0.25, 0.25]]], dtype=torch.float64)
    torch.testing.assert_close(latents, expected)
    # Without residual connections the second reading is all there is.
    bare = input_attention(Recording(model, names, [read_0, mix_0, read_1]), residual=0.0)
    torch.testing.assert_close(bare, read_1.probabilities[0])
    no_residual = entry("encoder.cross_attentions.1", [[0, 0, 1], [1, 0, 0]], residual=False)
    bare = input_attention(Recording(model, names, [read_0, mix_0, no_residual]))
    torch.testing.assert_close(bare, read_1.probabilities[0])
    # Of two answers the first is given before the latents read again.
    both = input_attention(Recording(model, names, [read_0, mix_0, ask, read_1, mix_1, ask]))
    torch.testing.assert_close(both[0, 1], torch.tensor(mixed, dtype=torch.float64))
    torch.testing.assert_close(both[0, 0], torch.tensor([0.1875, 0.5, 0.3125], dtype=torch.float64))


def test_rollout_sums_to_one_and_spares_what_is_masked(inputs: Tensor, queries: Tensor) -> None:
    model = Model()
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0]]).bool()
    with record(model) as recording:
        model(inputs, queries, mask=mask)
    weights = input_attention(recording)
    assert weights.shape == (2, 7, 5)
    torch.testing.assert_close(weights[0].sum(-1), torch.ones(7))
    assert (weights[:, :, ~mask[0]] == 0).all()
    assert (weights[0][:, mask[0]] > 0).all()
    assert (weights[1] == 0).all()  # nothing to read, and no NaN


def test_rollout_refuses_what_it_cannot_read(inputs: Tensor, queries: Tensor) -> None:
    model = Model()
    with record(model) as recording:
        with pytest.raises(ValueError, match="no layer of an encoder was recorded"):
            input_attention(recording)
        model(inputs, queries)
        input_attention(recording)
        model(inputs, queries)
        with pytest.raises(ValueError, match=r"several passes: 4 calls .*cross-attention, .* makes 2"):
            input_attention(recording)
        recording.clear()
        model(inputs, queries)
        input_attention(recording)
    with pytest.raises(ValueError, match="residual is 1"):
        input_attention(recording, residual=1)
    with pytest.raises(ValueError, match="nothing was recorded in 'encodr'"):
        input_attention(recording, encoder="encodr")
    with record(model, layers="*.cross_*") as recording:
        model(inputs, queries)
    with pytest.raises(ValueError, match=r"encoder.blocks.0.0, encoder.blocks.0.1 of 'encoder'"):
        input_attention(recording)
    pair = nn.ModuleList([Model(), Model()])
    with record(pair) as recording:
        pair[0](inputs, queries)
        pair[1](inputs, queries)
    with pytest.raises(ValueError, match=r"several were called: 0.encoder, 1.encoder; name one, as encoder="):
        input_attention(recording)
    second = input_attention(recording, encoder="1.encoder", decoder="1.decoder")
    with record(pair[1]) as alone:
        pair[1](inputs, queries)
    assert torch.equal(second, input_attention(alone))


def test_a_policy(make_policy: Callable[..., UnitSetPolicy], make_observation: Callable) -> None:
    """``act`` calls no module's ``forward`` by the front door; rows absent receive nothing."""
    policy, observation = make_policy(), make_observation(3, 6, 2)
    with record(policy) as recording:
        policy.act(observation, deterministic=True)
    weights = input_attention(recording)
    assert weights.shape == (3, 2 + 1, 6 + 1)  # slots and the value; rows and the scalars
    assert (weights[..., :6].movedim(1, -1)[~observation["unit_mask"]] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 3))


def test_modality_shares() -> None:
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1, 0, 0, 0]])
    shares = modality_shares(weights, {"label": (3, 4), "audio": (0, 2)})
    assert list(shares) == ["label", "audio"]
    torch.testing.assert_close(shares["label"], torch.tensor([0.4, 0.0]))
    torch.testing.assert_close(shares["audio"], torch.tensor([0.3, 1.0]))
    with pytest.raises(ValueError, match=r"'audio' is 2 to 5; weights \(2, 4\) allow"):
        modality_shares(weights, {"audio": (2, 5)})
    with pytest.raises(ValueError, match="'audio' is 2 to 2"):
        modality_shares(weights, {"audio": (2, 2)})
    with pytest.raises(ValueError, match="'audio', 1 to 3, overlaps one that ends at 2"):
        modality_shares(weights, {"audio": (1, 3), "video": (0, 2)})


def test_principal_plane() -> None:
    """Points on a known plane in four dimensions come back, up to the rotation that the variances decide."""
    generator = torch.Generator().manual_seed(0)
    first = torch.tensor([0.6, -0.8, 0, 0], dtype=torch.float64)
    second = torch.tensor([0, 0, 1.0, 0], dtype=torch.float64)
    a = torch.randn(3, 50, dtype=torch.float64, generator=generator)
    b = torch.randn(3, 50, dtype=torch.float64, generator=generator)
    a, b = a - a.mean(), b - b.mean()
    b = b - (a * b).sum() / (a * a).sum() * a  # uncorrelated, so that the two directions are the principal
    vectors = 5.0 + 3 * a[..., None] * first + b[..., None] * second
    points, shares = principal_plane(vectors)
    torch.testing.assert_close(points, torch.stack((-3 * a, b), -1))  # -0.8 is the largest entry: turned
    spread = torch.stack((9 * (a * a).sum(), (b * b).sum()))
    torch.testing.assert_close(shares, spread / spread.sum())
    line, shares = principal_plane(torch.tensor([[1.0], [3.0]]))
    assert line.tolist() == [[-1, 0], [1, 0]]
    assert shares.tolist() == [1, 0]
    still, shares = principal_plane(torch.ones(4, 3))
    assert (still == 0).all()
    assert (shares == 0).all()


def test_attention_with_turned_queries_and_keys() -> None:
    torch.manual_seed(0)
    config = PerceiverARConfig(vocabulary_size=7, max_context=12, num_latents=4, num_channels=32)
    model = PerceiverAR(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    tokens, layer, attended = torch.randint(0, 7, (2, 9)), model.cross_attention, []
    assert layer.key_value_norm is not None
    handle = layer.attention.output.register_forward_pre_hook(lambda _, args: attended.append(args[0]))
    with record(model) as recording, torch.no_grad():
        model(tokens)
        embedded = model.embedding(tokens)
        _, _, values = layer.attention.project(layer.query_norm(embedded), layer.key_value_norm(embedded))
    handle.remove()
    found = recording.of("cross_attention")
    assert torch.allclose((found @ values).transpose(1, 2).flatten(2), attended[0], atol=1e-5)
    assert (found.triu(6) == 0).all(), "no latent sees what comes after it"
    assert len(recording.attention) == 1 + config.num_self_attention_layers
    with record(model), pytest.raises(ValueError, match="cached keys, which cannot be recorded"):
        generate(model, tokens, 2)
    with record(model) as recording:
        generate(model, tokens, 2, use_cache=False)
    assert recording.of("cross_attention", 1).shape == (2, 8, 3, 10)
