"""Embeddings of pairs: the kernels and torch's operators against the formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perceiver_policy import pair_kernels
from perceiver_policy.pairs import Pairs

Factors = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _draw(*, dtype: torch.dtype, num_channels: int = 16, share_present: float = 0.7) -> Factors:
    """rows (5, 7, P), geometry (10, 5, 3, 7), weight (10, P), mask (5, 7), query (5, 3, P)."""
    generator = torch.Generator().manual_seed(num_channels)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(torch.float32).to(dtype)

    mask = torch.rand((5, 7), generator=generator) < share_present
    mask[0] = False
    rows, weight, query = normal(5, 7, num_channels), normal(10, num_channels), normal(5, 3, num_channels)
    geometry = normal(pair_kernels.NUM_FEATURES, 5, 3, 7)
    return rows.requires_grad_(), geometry, weight.requires_grad_(), mask, query.requires_grad_()


def _by_formula(factors: Factors) -> tuple[Tensor, Tensor]:
    """What pool() and score() give, pair by pair."""
    rows, geometry, weight, mask, query = factors
    pooled, scores = [], []
    for b in range(rows.shape[0]):
        for a in range(query.shape[1]):
            embedded = [
                (rows[b, u] + geometry[:, b, a, u] @ weight).clamp_min(0) for u in range(mask.shape[1])
            ]
            present = [e for e, is_there in zip(embedded, mask[b], strict=True) if is_there]
            nothing = torch.zeros_like(query[b, a])
            stacked = torch.stack(present) if present else nothing.unsqueeze(0)
            pooled.append(torch.cat((stacked.max(0).values, stacked.mean(0))))
            scores += [
                query[b, a] @ e if is_there else nothing.sum()
                for e, is_there in zip(embedded, mask[b], strict=True)
            ]
    return torch.stack(pooled).unflatten(0, (5, 3)), torch.stack(scores).reshape(5, 3, -1)


def _gradients(factors: Factors, pooled: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
    wanted = [factor for factor in factors if factor.requires_grad]
    loss = (pooled * pooled.detach().cos()).sum() + (scores * scores.detach().sin()).sum()
    return torch.autograd.grad(loss, wanted)


@pytest.mark.parametrize("num_channels", [1, 5, 16, 24])
@pytest.mark.parametrize("compiled", [True, False])
def test_both_ways_equal_the_formula(
    compiled: bool, num_channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_kernels, "available", lambda *_: compiled)
    exact = _draw(dtype=torch.float64, num_channels=num_channels)
    factors = _draw(dtype=torch.float32, num_channels=num_channels)
    pairs = Pairs(*factors[:4])
    results, expected = (pairs.pool(), pairs.score(factors[4])), _by_formula(exact)
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result.double(), value, rtol=1e-5, atol=1e-5)
    for gradient, value in zip(_gradients(factors, *results), _gradients(exact, *expected), strict=True):
        torch.testing.assert_close(gradient.double(), value, rtol=1e-4, atol=1e-4)


def test_kernels_are_taken_for_float32_on_a_cpu_only() -> None:
    assert Pairs(*_draw(dtype=torch.float32)[:4]).embedded is None
    assert Pairs(*_draw(dtype=torch.float64)[:4]).embedded is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert Pairs(*_draw(dtype=torch.float32)[:4]).embedded is not None


def test_geometry_has_a_gradient_where_it_is_wanted() -> None:
    rows, geometry, weight, mask, query = _draw(dtype=torch.float32)
    geometry.requires_grad_()
    pairs = Pairs(rows, geometry, weight, mask)
    (gradient,) = torch.autograd.grad(pairs.score(query).sum() + pairs.pool().sum(), geometry)
    assert gradient.abs().sum() > 0
    assert (gradient.movedim(0, -1)[~mask.unsqueeze(1).expand(-1, 3, -1)] == 0).all()


def test_no_row_no_gradient() -> None:
    rows, geometry, weight, mask, query = _draw(dtype=torch.float32)
    mask[:] = False
    pairs = Pairs(rows, geometry, weight, mask)
    pooled, scores = pairs.pool(), pairs.score(query)
    assert (pooled == 0).all()
    assert (scores == 0).all()
    for gradient in torch.autograd.grad(pooled.sum() + scores.sum(), (rows, weight, query)):
        assert (gradient == 0).all()
