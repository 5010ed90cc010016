"""Attention over a grid whose key channels are [content | f₁(axis 1) | f₂(axis 2) …], exactly and in chunks.

An image with Fourier features is such a grid: 3 channels differ from cell to cell, 258 depend on the row or
the column alone. Its scores and its context then follow from per-axis tables, and neither the (M, C) inputs
nor the (R, M) scores exist as a whole. With r_m = 1/σ_m of the inputs' LayerNorm and i_a(m) the index of cell
m along axis a::

    t_im = weights_i · content_m + Σ_a axis_scores_a[i, i_a(m)]
    p_im = softmax_m(r_m t_im),    w_im = p_im r_m
    content_sums_i = Σ_m w_im content_m,    axis_sums_a[i, j] = Σ_{m: i_a(m) = j} w_im

In other words, row i is [weights_i | axis_scores_1i | …], cell m is [content_m | one-hot of i_1(m) | …], and
this is attention of rows to cells times r_m, with the cells as keys and values, that never writes the
one-hots down. The softmax runs over slabs of the first axis with a running maximum, and the backward pass
recomputes it from the saved log-sum-exp (Rabe & Staats, arXiv:2112.05682; Dao et al., arXiv:2205.14135)::

    g_im = ∂content_sums_i · content_m + Σ_a ∂axis_sums_a[i, i_a(m)],    δ_i = Σ_m w_im g_im
    ds_im = p_im (r_m g_im - δ_i),    dt_im = r_m ds_im
    ∂weights_i = Σ_m dt_im content_m,    ∂axis_scores_a[i, j] = Σ_{m: i_a(m) = j} dt_im
    ∂content_m = Σ_i (dt_im weights_i + w_im ∂content_sums_i),    ∂scale_m = Σ_i (ds_im t_im + p_im g_im)

so both passes are the same two steps: fill a chunk with r_m (row · cell) plus a constant of the row, and sum
the chunk's weights times the cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_BYTES_PER_CORE = 2**20
"""Size of a chunk's scores on a CPU, for each thread of torch: half of a 2 MB level-2 cache."""

CHUNK_BYTES_ELSEWHERE = 2**27
"""The same on an accelerator, where what counts is that a chunk fills the device."""

ROWS_PER_CHUNK = 64
"""Rows a chunk holds at least, if one index of the first axis leaves space for them: matrix products with
fewer rows run far below peak."""


def grid_attention(
    weights: Tensor, content: Tensor, scale: Tensor, axis_scores: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Attend from R rows to the M = n_1 · … · n_d cells of a grid; the equations stand in the module's head.

    Computes in float32, under autocast too, or in float64 if any argument is float64. Differentiable once
    with respect to every argument; double backward is not supported. Gradients to ``content`` and ``scale``
    are computed only where needed. Memory beyond arguments, results and gradients: a few chunks.

    Args:
        weights: (B, R, K) or (R, K) float, R = heads · queries, times 1/√(head channels) already.
        content: (B, M, K) float, cells in row-major order of the axes (``indexing="ij"``).
        scale: (B, M) float, r_m, what LayerNorm multiplies cell m with.
        axis_scores: one (B, R, n_a) or (R, n_a) float tensor for each axis, times 1/√(head channels) already.

    Returns:
        content_sums (B, R, K) and a tuple of axis_sums (B, R, n_a), float32 or float64.

    Raises:
        ValueError: shapes that do not fit together.
    """
    _check_shapes(weights, content, scale, axis_scores)
    dtype = torch.float32
    for tensor in (weights, content, scale, *axis_scores):
        dtype = torch.promote_types(dtype, tensor.dtype)
    parts = [tensor.to(dtype) for tensor in (weights, *axis_scores)]
    if any(part.dim() == 3 for part in parts):
        parts = [part.expand(content.shape[0], -1, -1) for part in parts]
        rows = torch.cat(parts, dim=-1)
    else:
        rows = torch.cat(parts, dim=-1).unsqueeze(0)
    sizes = [part.shape[-1] for part in axis_scores]
    sums, _ = _attend(rows, content.to(dtype), scale.to(dtype), sizes)
    content_sums, *axis_sums = sums.split([content.shape[-1], *sizes], dim=-1)
    return content_sums, tuple(axis_sums)


def _check_shapes(weights: Tensor, content: Tensor, scale: Tensor, axis_scores: Sequence[Tensor]) -> None:
    if content.dim() != 3:
        raise ValueError(f"content has shape {tuple(content.shape)}; it must be (batch, cells, channels)")
    batch, num_cells, num_channels = content.shape
    if scale.shape != (batch, num_cells):
        raise ValueError(
            f"scale has shape {tuple(scale.shape)}; content {tuple(content.shape)} needs {(batch, num_cells)}"
        )
    if not axis_scores:
        raise ValueError("axis_scores is empty; it must hold a tensor for each axis of the grid")
    rows = weights.shape[-2] if weights.dim() > 1 else 0
    leading = ((rows,), (batch, rows))
    if rows == 0 or weights.shape[:-1] not in leading or weights.shape[-1] != num_channels:
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}; content {tuple(content.shape)} needs "
            f"(rows, {num_channels}) or ({batch}, rows, {num_channels}), with at least 1 row"
        )
    for axis, scores in enumerate(axis_scores):
        if scores.shape[:-1] not in leading:
            raise ValueError(
                f"axis_scores[{axis}] has shape {tuple(scores.shape)}; weights {tuple(weights.shape)} and "
                f"content {tuple(content.shape)} need ({rows}, n) or ({batch}, {rows}, n)"
            )
    sizes = [scores.shape[-1] for scores in axis_scores]
    if math.prod(sizes) != num_cells or num_cells == 0:
        raise ValueError(
            f"axis_scores are for a grid of {' x '.join(map(str, sizes))}, content has {num_cells} cells; "
            "the axes' sizes must multiply to the number of cells, at least 1"
        )


class _Slab(NamedTuple):
    """Some indices of the first axis, all of the others, for some batch entries: b entries of t cells."""

    batch: slice
    first: slice  # indices along the first axis
    cells: slice  # the same in content
    scale: Tensor  # (b, 1, h, n_2, …)
    scaled_content: Tensor  # (b, K + 1, t): r_m content_m, then ones


class _Chunks:
    """How (batch, rows, cells) is cut up, and buffers for one chunk's scores.

    A chunk takes slabs of the first axis that leave space for ROWS_PER_CHUNK rows, then as many rows as fit,
    and several batch entries only if it holds all rows and cells of each.
    """

    def __init__(self, content: Tensor, num_rows: int, sizes: Sequence[int], num_buffers: int) -> None:
        batch = content.shape[0]
        on_cpu = content.device.type == "cpu"
        size = CHUNK_BYTES_PER_CORE * torch.get_num_threads() if on_cpu else CHUNK_BYTES_ELSEWHERE
        size //= content.element_size()
        plane = math.prod(sizes[1:])
        self.sizes = sizes
        self.num_rows = num_rows
        self.height = max(1, min(sizes[0], size // (min(num_rows, ROWS_PER_CHUNK) * plane)))
        self.rows = max(1, min(num_rows, size // (self.height * plane)))
        whole = self.rows == num_rows and self.height == sizes[0]
        self.batch = max(1, min(batch, size // (num_rows * content.shape[1]))) if whole else 1
        largest = self.batch * self.rows * self.height * plane
        self._buffers = [content.new_empty(largest) for _ in range(num_buffers)]

    def slabs(self, content: Tensor, scale: Tensor) -> Iterator[_Slab]:
        plane = math.prod(self.sizes[1:])
        for batch in _slices(content.shape[0], self.batch):
            for first in _slices(self.sizes[0], self.height):
                cells = slice(first.start * plane, first.stop * plane)
                part, r = content[batch, cells], scale[batch, cells]
                scaled = content.new_ones(part.shape[0], part.shape[2] + 1, part.shape[1])
                torch.mul(part.transpose(1, 2), r.unsqueeze(1), out=scaled[:, :-1])
                grid = r.reshape(r.shape[0], 1, first.stop - first.start, *self.sizes[1:])
                yield _Slab(batch, first, cells, grid, scaled)

    def row_slices(self) -> Iterator[slice]:
        return _slices(self.num_rows, self.rows)

    def buffers(self, slab: _Slab, rows: slice) -> list[Tensor]:
        """Buffers of (b, c, h, n_2, …) for these rows and this slab, contents undefined."""
        shape = (slab.scale.shape[0], rows.stop - rows.start, *slab.scale.shape[2:])
        return [buffer[: math.prod(shape)].view(shape) for buffer in self._buffers]


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def _fill_axis_scores(out: Tensor, rows: Tensor, slab: _Slab, sizes: Sequence[int]) -> None:
    """out (b, c, h, n_2, …) ← Σ_a axis_scores_a of ``rows`` (b, c, K + Σ n_a)."""
    _, *tables = rows.split([rows.shape[-1] - sum(sizes), *sizes], dim=-1)
    table = tables[0][..., slab.first]
    if len(sizes) == 1:
        out.copy_(table)
        return
    for other in tables[1:-1]:
        table = table.unsqueeze(-1) + _align(other, table.dim() + 1)
    torch.add(table.unsqueeze(-1), _align(tables[-1], out.dim()), out=out)


def _align(table: Tensor, dim: int) -> Tensor:
    """(b, c, n) to (b, c, 1, …, 1, n) of ``dim`` dimensions."""
    return table.reshape(*table.shape[:2], *(1,) * (dim - 3), table.shape[-1])


def _fill_scores(
    out: Tensor, rows: Tensor, slab: _Slab, sizes: Sequence[int], shift: Tensor | None = None
) -> None:
    """out (b, c, h, n_2, …) ← r_m (row · cell) + shift, ``shift`` (b, c)."""
    _fill_axis_scores(out, rows, slab, sizes)
    out.mul_(slab.scale)
    weights = rows[..., : rows.shape[-1] - sum(sizes)]
    cells = slab.scaled_content
    if shift is None:
        cells = cells[:, :-1]
    else:
        weights = torch.cat((weights, shift.unsqueeze(-1)), dim=-1)
    out.flatten(2).baddbmm_(weights, cells)


def _add_sums(sums: Tensor, p: Tensor, slab: _Slab, sizes: Sequence[int]) -> Tensor:
    """sums (b or 1, c, K + Σ n_a) += Σ_m p_im r_m cell_m; returns Σ_m p_im (b, c). Overwrites ``p``."""
    num_channels = sums.shape[-1] - sum(sizes)
    # Of the ways to order this product, cells times pᵀ is by far the fastest in MKL when K is small.
    product = torch.bmm(slab.scaled_content, p.flatten(2).transpose(1, 2)).transpose(1, 2)
    _add(sums[..., :num_channels], product[..., :-1])
    w, end = p.mul_(slab.scale), sums.shape[-1]
    for size in reversed(sizes[1:]):
        _add(sums[..., end - size : end], w.flatten(2, -2).sum(2))
        w, end = w.sum(-1), end - size
    _add(sums[..., num_channels:end][..., slab.first], w)
    return product[..., -1]


def _add(total: Tensor, part: Tensor) -> None:
    """Add in place, summing over the batch first where every entry shares one total."""
    total.add_(part.sum_to_size(total.shape))


@torch.library.custom_op(
    "perceiver_policy::grid_attention",
    mutates_args=(),
    schema="(Tensor rows, Tensor content, Tensor scale, SymInt[] sizes) -> (Tensor, Tensor)",
)
def _attend(rows: Tensor, content: Tensor, scale: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Sums (B, R, K + Σ n_a) and log-sum-exp (B, R), for ``rows`` (B or 1, R, K + Σ n_a)."""
    batch, num_rows = content.shape[0], rows.shape[1]
    rows = rows.expand(batch, -1, -1)
    sums = content.new_zeros(rows.shape)
    peak = content.new_full((batch, num_rows), -math.inf)
    mass = content.new_zeros(batch, num_rows)
    chunks = _Chunks(content, num_rows, sizes, num_buffers=1)
    with torch.autocast(content.device.type, enabled=False):
        for slab in chunks.slabs(content, scale):
            for part in chunks.row_slices():
                at = slab.batch, part
                (p,) = chunks.buffers(slab, part)
                _fill_scores(p, rows[at], slab, sizes)
                new_peak = torch.maximum(peak[at], p.flatten(2).amax(-1))
                p.flatten(2).sub_(new_peak.unsqueeze(-1)).exp_()
                shrink = (peak[at] - new_peak).exp_()
                sums[at].mul_(shrink.unsqueeze(-1))
                mass[at].mul_(shrink).add_(_add_sums(sums[at], p, slab, sizes))
                peak[at] = new_peak
    return sums.div_(mass.unsqueeze(-1)), peak.add_(mass.log_())


@_attend.register_fake
def _(rows: Tensor, content: Tensor, scale: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    batch, (_, num_rows, num_features) = content.shape[0], rows.shape
    return content.new_empty(batch, num_rows, num_features), content.new_empty(batch, num_rows)


@torch.library.custom_op(
    "perceiver_policy::grid_attention_backward",
    mutates_args=(),
    schema="(Tensor d_sums, Tensor sums, Tensor log_sum_exp, Tensor rows, Tensor content, Tensor scale, "
    "SymInt[] sizes, bool needs_content, bool needs_scale) -> (Tensor, Tensor, Tensor)",
)
def _attend_backward(
    d_sums: Tensor,
    sums: Tensor,
    log_sum_exp: Tensor,
    rows: Tensor,
    content: Tensor,
    scale: Tensor,
    sizes: Sequence[int],
    needs_content: bool,
    needs_scale: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of rows, content and scale, each shaped like it; of those not needed, empty (0,) tensors."""
    batch, _, num_channels = content.shape
    d_rows = torch.zeros_like(rows, memory_format=torch.contiguous_format)
    d_content = torch.empty_like(content) if needs_content else content.new_empty(0)
    d_scale = torch.empty_like(scale) if needs_scale else scale.new_empty(0)
    shared_rows = rows.shape[0] == 1
    rows = rows.expand(batch, -1, -1)
    log_mass, delta = log_sum_exp.neg(), (d_sums * sums).sum(-1).neg_()
    chunks = _Chunks(content, rows.shape[1], sizes, num_buffers=3 if needs_scale else 2)
    with torch.autocast(content.device.type, enabled=False):
        for slab in chunks.slabs(content, scale):
            cells = slab.batch, slab.cells
            d_cells = torch.zeros_like(slab.scaled_content[:, :-1])  # Σ_i (ds weights + p ∂content_sums)
            d_scale_axes = torch.zeros_like(slab.scale[:, 0])
            for part in chunks.row_slices():
                at = slab.batch, part
                p, ds, *spare = chunks.buffers(slab, part)
                _fill_scores(p, rows[at], slab, sizes, log_mass[at])
                p.exp_()
                _fill_scores(ds, d_sums[at], slab, sizes, delta[at])
                ds.mul_(p)
                for factor, row in ((ds, rows[at]), (p, d_sums[at])):
                    if needs_content or needs_scale:
                        d_cells.baddbmm_(row[..., :num_channels].transpose(1, 2), factor.flatten(2))
                    if needs_scale:
                        _fill_axis_scores(spare[0], row, slab, sizes)
                        d_scale_axes.add_(spare[0].mul_(factor).sum(1))
                _add_sums(d_rows[(slice(None), part) if shared_rows else at], ds, slab, sizes)
            if needs_content:
                torch.mul(d_cells.transpose(1, 2), scale[cells].unsqueeze(-1), out=d_content[cells])
            if needs_scale:
                d_scale[cells] = d_scale_axes.flatten(1)
                d_scale[cells] += torch.linalg.vecdot(d_cells.transpose(1, 2), content[cells])
    return d_rows, d_content, d_scale


@_attend_backward.register_fake
def _(
    d_sums: Tensor,
    sums: Tensor,
    log_sum_exp: Tensor,
    rows: Tensor,
    content: Tensor,
    scale: Tensor,
    sizes: Sequence[int],
    needs_content: bool,
    needs_scale: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(rows, memory_format=torch.contiguous_format),
        torch.empty_like(content) if needs_content else content.new_empty(0),
        torch.empty_like(scale) if needs_scale else scale.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    rows, content, scale, ctx.sizes = inputs
    ctx.save_for_backward(rows, content, scale, *output)


def _backward(
    ctx: Any, d_sums: Tensor, _: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
    rows, content, scale, sums, log_sum_exp = ctx.saved_tensors
    _, needs_content, needs_scale, _ = ctx.needs_input_grad
    d_rows, d_content, d_scale = _attend_backward(
        d_sums, sums, log_sum_exp, rows, content, scale, ctx.sizes, needs_content, needs_scale
    )
    return d_rows, d_content if needs_content else None, d_scale if needs_scale else None, None


_attend.register_autograd(_backward, setup_context=_save)
