"""Rotary positions against multiplication by complex numbers."""

from __future__ import annotations

import cmath

import pytest
import torch

from perceiver_policy.attention import Attention, AttentionLayer
from perceiver_policy.rotary import rotation
from perceiver_policy.tokens import Tokens


def test_pairs_turn_as_complex_numbers_do() -> None:
    torch.manual_seed(0)
    positions = torch.tensor([[0, 1, 2], [5, 700, 131_071]])
    x = torch.randn(2, 3, 3, 10, dtype=torch.float64)
    turned = rotation(positions, 6, base=500.0).apply(x)
    for b in range(2):
        for n in range(3):
            for head in range(3):
                for k in range(3):
                    z = complex(x[b, head, n, 2 * k], x[b, head, n, 2 * k + 1])
                    angle = positions[b, n].item() * 500.0 ** (-2 * k / 6)
                    expected = z * cmath.exp(1j * angle)
                    result = complex(*turned[b, head, n, 2 * k : 2 * k + 2])
                    assert abs(result - expected) < abs(z) * max(angle, 1.0) * 2**-22
    assert torch.equal(turned[..., 6:], x[..., 6:])


def test_scores_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(1, 2, 4, 8), torch.randn(1, 2, 6, 8)
    queries_at, keys_at = torch.tensor([[2, 3, 4, 9]]), torch.arange(6).unsqueeze(0)

    def scores(shift: int) -> torch.Tensor:
        turned = rotation(queries_at + shift, 8).apply(query)
        return turned @ rotation(keys_at + shift, 8).apply(key).transpose(-1, -2)

    torch.testing.assert_close(scores(0), scores(1000), rtol=0, atol=1e-3)
    unshifted = rotation(queries_at, 8).apply(query) @ rotation(keys_at + 1, 8).apply(key).transpose(-1, -2)
    assert not torch.allclose(unshifted, scores(0), atol=0.1)


@pytest.mark.parametrize("num_channels", [0, -2, 3])
def test_channels_turn_in_pairs(num_channels: int) -> None:
    with pytest.raises(ValueError, match=f"num_channels is {num_channels}; .* 2, 4, 6"):
        rotation(torch.zeros(1, 1, dtype=torch.int64), num_channels)


def test_keeps_the_type_of_what_it_turns() -> None:
    angles = rotation(torch.tensor([[3]]), 4)
    assert angles.apply(torch.ones(1, 1, 1, 4, dtype=torch.bfloat16)).dtype is torch.bfloat16


def test_attention_turns_queries_and_keys_but_not_values() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 6, num_heads=2).double()
    queries, inputs = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 6).double()
    rotations = rotation(torch.tensor([[2, 3, 4]]), 2), rotation(torch.arange(5).unsqueeze(0), 2)
    query, key, value = attention.project(queries, inputs)
    scores = rotations[0].apply(query) @ rotations[1].apply(key).transpose(-1, -2) / 2.0  # √4
    expected = attention.output((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(queries, inputs, rotations=rotations), expected)


def test_a_layer_with_rotations_attends_to_tokens_as_its_probabilities_say() -> None:
    """Few queries of wide inputs: without rotations the layer would not project the keys at all."""
    torch.manual_seed(0)
    layer = AttentionLayer(8, 64, num_heads=1)
    x, inputs = torch.randn(1, 2, 8), torch.randn(1, 9, 64)
    mask = torch.arange(9).unsqueeze(0) < 7
    rotations = rotation(torch.tensor([[7, 8]]), 8), rotation(torch.arange(9).unsqueeze(0), 8)
    probabilities = layer.probabilities(x, inputs, mask, rotations=rotations)
    assert layer.key_value_norm is not None
    _, _, value = layer.attention.project(x, layer.key_value_norm(inputs))
    expected = x + layer.attention.output((probabilities @ value).squeeze(1))
    expected = expected + layer.mlp(layer.mlp_norm(expected))
    torch.testing.assert_close(layer(x, Tokens(inputs, mask), rotations=rotations), expected)
    assert not torch.allclose(layer(x, Tokens(inputs, mask)), expected, atol=1e-3)
