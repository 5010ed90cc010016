"""Attention against a softmax written out by hand in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from perceiver_policy.attention import MLP, Attention, AttentionLayer
from perceiver_policy.config import EmptyAttention


def attend_by_hand(attention: Attention, queries: Tensor, keys_values: Tensor, allowed: Tensor) -> Tensor:
    """One query, one head at a time, in float64; ``allowed`` (B, M, N) bool."""
    double = {name: tensor.double() for name, tensor in attention.state_dict().items()}
    q = queries.double() @ double["query.weight"].T + double["query.bias"]
    kv = keys_values.double() @ double["key_value.weight"].T + double["key_value.bias"]
    k, v = kv[..., : attention.num_qk_channels], kv[..., attention.num_qk_channels :]
    d_qk = attention.num_qk_channels // attention.num_heads
    d_v = attention.num_v_channels // attention.num_heads
    attended = torch.zeros(*queries.shape[:2], attention.num_v_channels, dtype=torch.float64)
    for b in range(queries.shape[0]):
        for m in range(queries.shape[1]):
            rows = allowed[b, m].nonzero().flatten().tolist()
            for h in range(attention.num_heads):
                qk, vs = slice(h * d_qk, (h + 1) * d_qk), slice(h * d_v, (h + 1) * d_v)
                weights = [math.exp(q[b, m, qk] @ k[b, n, qk] / math.sqrt(d_qk)) for n in rows]
                for n, weight in zip(rows, weights, strict=True):
                    attended[b, m, vs] += weight / sum(weights) * v[b, n, vs]
    return attended @ double["output.weight"].T + double["output.bias"]


@pytest.mark.parametrize("mask_kind", ["none", "keys", "pairs"])
@pytest.mark.parametrize(("qk", "v"), [(None, None), (4, 12)])
def test_attention_is_the_softmax_of_its_definition(mask_kind: str, qk: int | None, v: int | None) -> None:
    torch.manual_seed(1)
    attention = Attention(8, 6, num_heads=2, num_qk_channels=qk, num_v_channels=v)
    queries, keys_values = torch.randn(3, 4, 8), torch.randn(3, 5, 6)
    mask = {"none": None, "keys": torch.rand(3, 5) < 0.6, "pairs": torch.rand(3, 4, 5) < 0.6}[mask_kind]
    allowed = torch.ones(3, 4, 5, dtype=torch.bool)
    if mask is not None:
        allowed = mask if mask.dim() == 3 else mask.unsqueeze(1).expand(3, 4, 5)
        assert allowed.any(-1).all(), "the empty case has a test of its own"
        assert not allowed.all()
    result = attention(queries, keys_values, mask)
    torch.testing.assert_close(
        result.double(), attend_by_hand(attention, queries, keys_values, allowed), rtol=1e-5, atol=1e-5
    )


def test_shared_queries_equal_repeated_ones() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 6, num_heads=2)
    queries, keys_values = torch.randn(4, 8), torch.randn(3, 5, 6)
    torch.testing.assert_close(
        attention(queries, keys_values), attention(queries.expand(3, -1, -1), keys_values)
    )


def test_a_query_that_may_attend_to_nothing_receives_zeros() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 6, num_heads=2)
    torch.nn.init.zeros_(attention.output.bias)
    keys_values = torch.randn(2, 5, 6, requires_grad=True)
    mask = torch.tensor([[False] * 5, [True] * 5])
    result = attention(torch.randn(2, 4, 8), keys_values, mask)
    assert (result[0] == 0).all()
    assert (result[1] != 0).any()
    result.square().sum().backward()
    assert keys_values.grad is not None
    assert (keys_values.grad[0] == 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attention.parameters())


def test_heads_must_divide_channels() -> None:
    with pytest.raises(ValueError, match="num_heads 3 does not divide num_qk_channels 8"):
        Attention(8, 8, num_heads=3)


@pytest.mark.parametrize("residual", [True, False])
def test_layer_is_attention_then_mlp_both_pre_norm(residual: bool) -> None:
    torch.manual_seed(0)
    layer = AttentionLayer(8, 6, num_heads=2, widening_factor=2, attention_residual=residual)
    x, keys_values = torch.randn(2, 3, 8), torch.randn(2, 5, 6)

    def norm(y: Tensor) -> Tensor:  # as initialised: no gain, no shift
        return (y - y.mean(-1, keepdim=True)) / (y.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    expected = layer.attention(norm(x), norm(keys_values)) + (x if residual else 0.0)
    expected = expected + layer.mlp(norm(expected))
    torch.testing.assert_close(layer(x, keys_values), expected, rtol=1e-4, atol=1e-5)


def test_mean_of_all_values_where_nothing_may_be_attended_to() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 6, num_heads=2, empty=EmptyAttention.MEAN)
    queries, keys_values = torch.randn(2, 4, 8), torch.randn(2, 5, 6)
    mask = torch.tensor([[False] * 5, [True, True, False, True, True]])
    result = attention(queries, keys_values, mask)
    value = attention.key_value(keys_values)[..., 8:]
    torch.testing.assert_close(result[0], attention.output(value[0].mean(0)).expand(4, -1))
    zeros = Attention(8, 6, num_heads=2)
    zeros.load_state_dict(attention.state_dict())
    torch.testing.assert_close(result[1], zeros(queries, keys_values, mask)[1])


def test_dropout_is_for_training_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    for v in (None, 12):  # with equal widths torch's own kernel, else ours
        attention = Attention(8, 6, num_heads=2, num_v_channels=v, dropout=0.5)
        queries, keys_values = torch.randn(1, 4, 8), torch.randn(1, 5, 6)
        draws = torch.stack([attention(queries, keys_values) for _ in range(4000)])
        attention.eval()
        expected = attention(queries, keys_values)
        assert (draws.std(0) > 0.02).all()
        torch.testing.assert_close(draws.mean(0), expected, rtol=0, atol=0.04)
        assert torch.equal(expected, attention(queries, keys_values))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_an_mlp_is_the_same_with_and_without_gradients(activation: str) -> None:
    torch.manual_seed(0)
    mlp = MLP(4, 8, 3, activation=activation)
    x = torch.randn(2, 5, 4)
    kept = x.clone()
    by_hand = torch.relu if activation == "relu" else torch.nn.functional.gelu
    expected = by_hand(x @ mlp[0].weight.T + mlp[0].bias) @ mlp.last.weight.T + mlp.last.bias
    torch.testing.assert_close(mlp(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), expected)
    assert torch.equal(x, kept)
