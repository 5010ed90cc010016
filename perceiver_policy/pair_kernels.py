"""Compiled kernels of :class:`~perceiver_policy.pairs.Pairs`: embeddings made and used in registers.

Kept, (B, A, U, P) numbers would be written once and read four times, which takes many times longer than the
arithmetic; so the backward passes make them anew, too. Gradients go to rows, weights and queries, not to the
geometry. A maximum that several rows attain hands its gradient to each of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

NUM_FEATURES = 10
"""G: the kernels are written out for so many."""


def available(rows: Tensor, geometry: Tensor, weight: Tensor) -> bool:
    """Whether the kernels take these: float32 on a CPU, of :data:`NUM_FEATURES`, not being traced."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or len(geometry) != NUM_FEATURES:
        return False
    return all(x.dtype is torch.float32 and x.device.type == "cpu" for x in (rows, geometry, weight))


def pool(rows: Tensor, geometry: Tensor, weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum and sum of the embeddings over the rows that hold a unit; 0 over none.

    Args:
        rows: (B, U, P) float32, r.
        geometry: (G, B, A, U) float32, f.
        weight: (G, P) float32, w.
        mask: (B, U) bool, True where a row holds a unit.

    Returns:
        (B, A, P) and (B, A, P) float32.
    """
    return _Pool.apply(rows, geometry, weight, mask)


def score(rows: Tensor, geometry: Tensor, weight: Tensor, mask: Tensor, query: Tensor) -> Tensor:
    """Σ_p query_p e_p for every pair, 0 where a row holds no unit.

    Args:
        rows, geometry, weight, mask: as for :func:`pool`.
        query: (B, A, P) float32.

    Returns:
        (B, A, U) float32.
    """
    return _Score.apply(rows, geometry, weight, mask, query)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, rows: Tensor, geometry: Tensor, weight: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        context: Any = ctx
        inputs = [x.detach().contiguous() for x in (rows, geometry, weight, mask)]
        shape = (*geometry.shape[1:3], rows.shape[-1])
        maximum, total = rows.new_empty(shape), rows.new_empty(shape)
        _kernels(inputs[0].shape[-1]).pool(*(x.numpy() for x in (*inputs, maximum, total)))
        context.save_for_backward(*inputs, maximum)
        return maximum, total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_maximum: Tensor, d_total: Tensor) -> tuple[Tensor | None, ...]:
        context: Any = ctx
        *inputs, maximum = context.saved_tensors
        d_rows, d_weight = torch.zeros_like(inputs[0]), torch.zeros_like(inputs[2])
        given = (maximum, d_maximum.contiguous(), d_total.contiguous())
        _kernels(inputs[0].shape[-1]).pool_backward(*(x.numpy() for x in (*inputs, *given, d_rows, d_weight)))
        return d_rows, None, d_weight, None


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, rows: Tensor, geometry: Tensor, weight: Tensor, mask: Tensor, query: Tensor
    ) -> Tensor:
        context: Any = ctx
        inputs = [x.detach().contiguous() for x in (rows, geometry, weight, mask, query)]
        scores = rows.new_empty(geometry.shape[1:])
        _kernels(inputs[0].shape[-1]).score(*(x.numpy() for x in (*inputs, scores)))
        context.save_for_backward(*inputs)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_scores: Tensor) -> tuple[Tensor | None, ...]:
        context: Any = ctx
        inputs = context.saved_tensors
        d_rows, d_weight, d_query = (torch.zeros_like(inputs[i]) for i in (0, 2, 4))
        _kernels(inputs[0].shape[-1]).score_backward(
            *(x.numpy() for x in (*inputs, d_scores.contiguous(), d_rows, d_weight, d_query))
        )
        return d_rows, None, d_weight, None, d_query


_FAST = {"contract", "reassoc", "nsz"}
_compiled = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
_inlined = numba.njit(forceinline=True, nogil=True, error_model="numpy", fastmath=_FAST)
# Never fused or reordered, so that every kernel gets the same bits.
_exact = numba.njit(forceinline=True, nogil=True, error_model="numpy", fastmath={"nsz"})


@_inlined
def _features(geometry, b, a, u):  # type: ignore[no-untyped-def]
    """The features of a pair. Written out, here and below: loops over them would not be vectorised."""
    return (
        *(geometry[0, b, a, u], geometry[1, b, a, u], geometry[2, b, a, u], geometry[3, b, a, u]),
        *(geometry[4, b, a, u], geometry[5, b, a, u], geometry[6, b, a, u], geometry[7, b, a, u]),
        *(geometry[8, b, a, u], geometry[9, b, a, u]),
    )


@_exact
def _embed(row, w, f, p):  # type: ignore[no-untyped-def]
    """e_p of a pair."""
    near = f[0] * w[0, p] + f[1] * w[1, p] + f[2] * w[2, p] + f[3] * w[3, p] + f[4] * w[4, p]
    far = f[5] * w[5, p] + f[6] * w[6, p] + f[7] * w[7, p] + f[8] * w[8, p] + f[9] * w[9, p]
    return max(row[p] + near + far, np.float32(0.0))


@_inlined
def _learn(d_row, d_w, f, p, d):  # type: ignore[no-untyped-def]
    """Hand the gradient d of e_p before the ReLU on to the row and the weights."""
    d_row[p] += d
    d_w[0, p] += f[0] * d
    d_w[1, p] += f[1] * d
    d_w[2, p] += f[2] * d
    d_w[3, p] += f[3] * d
    d_w[4, p] += f[4] * d
    d_w[5, p] += f[5] * d
    d_w[6, p] += f[6] * d
    d_w[7, p] += f[7] * d
    d_w[8, p] += f[8] * d
    d_w[9, p] += f[9] * d


class _Kernels(NamedTuple):
    """The four, for one P: only of constant widths does the compiler make vectors."""

    pool: Callable[..., None]
    pool_backward: Callable[..., None]
    score: Callable[..., None]
    score_backward: Callable[..., None]


@functools.cache
def _kernels(num_channels: int) -> _Kernels:
    @_compiled
    def pool(rows, geometry, weight, mask, maximum, total):  # type: ignore[no-untyped-def]
        num_batch, num_controlled, _ = maximum.shape
        w = weight.copy()
        m, t = np.empty(num_channels, np.float32), np.empty(num_channels, np.float32)
        for b in range(num_batch):
            for a in range(num_controlled):
                m[:] = 0.0
                t[:] = 0.0
                for u in range(mask.shape[1]):
                    if mask[b, u]:
                        row, f = rows[b, u], _features(geometry, b, a, u)
                        for p in range(num_channels):
                            e = _embed(row, w, f, p)
                            m[p] = max(m[p], e)
                            t[p] += e
                maximum[b, a] = m
                total[b, a] = t

    @_compiled
    def pool_backward(  # type: ignore[no-untyped-def]
        rows, geometry, weight, mask, maximum, d_maximum, d_total, d_rows, d_weight
    ):
        num_batch, num_controlled, _ = maximum.shape
        zero = np.float32(0.0)
        w, d_w = weight.copy(), np.zeros((NUM_FEATURES, num_channels), np.float32)
        for b in range(num_batch):
            for a in range(num_controlled):
                m, d_m, d_t = maximum[b, a], d_maximum[b, a], d_total[b, a]
                for u in range(mask.shape[1]):
                    if mask[b, u]:
                        row, d_row, f = rows[b, u], d_rows[b, u], _features(geometry, b, a, u)
                        for p in range(num_channels):
                            e = _embed(row, w, f, p)
                            d = d_t[p] + (d_m[p] if e == m[p] else zero)
                            _learn(d_row, d_w, f, p, d if e > zero else zero)
        d_weight[:] = d_w

    @_compiled
    def score(rows, geometry, weight, mask, query, scores):  # type: ignore[no-untyped-def]
        num_batch, num_controlled, _ = query.shape
        w = weight.copy()
        for b in range(num_batch):
            for a in range(num_controlled):
                q = query[b, a]
                for u in range(mask.shape[1]):
                    scored = np.float32(0.0)
                    if mask[b, u]:
                        row, f = rows[b, u], _features(geometry, b, a, u)
                        for p in range(num_channels):
                            scored += q[p] * _embed(row, w, f, p)
                    scores[b, a, u] = scored

    @_compiled
    def score_backward(  # type: ignore[no-untyped-def]
        rows, geometry, weight, mask, query, d_scores, d_rows, d_weight, d_query
    ):
        num_batch, num_controlled, _ = query.shape
        zero = np.float32(0.0)
        w, d_w, d_q = (
            weight.copy(),
            np.zeros((NUM_FEATURES, num_channels), np.float32),
            np.empty(num_channels, np.float32),
        )
        for b in range(num_batch):
            for a in range(num_controlled):
                q = query[b, a]
                d_q[:] = 0.0
                for u in range(mask.shape[1]):
                    d_score = d_scores[b, a, u]
                    if mask[b, u] and d_score != zero:  # rows that the verb could not point at have none
                        row, d_row, f = rows[b, u], d_rows[b, u], _features(geometry, b, a, u)
                        for p in range(num_channels):
                            e = _embed(row, w, f, p)
                            d_q[p] += d_score * e
                            _learn(d_row, d_w, f, p, d_score * q[p] if e > zero else zero)
                d_query[b, a] = d_q
        d_weight[:] = d_w

    return _Kernels(pool, pool_backward, score, score_backward)
