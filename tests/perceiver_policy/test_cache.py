"""Attention over cached keys and values against attention to all of them at once."""

from __future__ import annotations

import pytest
import torch

from perceiver_policy.attention import Attention
from perceiver_policy.cache import KeyValueCache


def test_attention_with_a_cache_equals_attention_to_all_at_once() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 6, num_heads=2)
    queries, inputs = torch.randn(2, 1, 8), torch.randn(2, 5, 6)
    mask = torch.tensor([[False, True, True, True, True], [True] * 5])
    cache = KeyValueCache(6)
    attention(queries, torch.randn(2, 6, 6), cache=cache)
    cache.truncate(0)
    attention(queries, inputs[:, :3], cache=cache)
    result = attention(queries, inputs[:, 3:], mask, cache=cache)
    assert cache.length == 5
    torch.testing.assert_close(result, attention(queries, inputs, mask))
    with pytest.raises(ValueError, match="the cache holds 5 of at most 6 keys and is given 2 more"):
        attention(queries, inputs[:, 3:], cache=cache)
