"""Cross-attention rewritten: equal in exact arithmetic, cheaper where one side is short or the inputs a grid.

Notation: heads h, queries i, keys m; keys and values are projections of LN(y_m) = γ∘ŷ_m + β; scores are
s_him = (Q_h x_i)·(K_h LN(y_m)) / √d and p is their softmax over m.

- **Few queries.** s_him = q'_hi · ŷ_m + (something that does not depend on m, which softmax drops), where
  q'_hi = γ∘K_hᵀQ_h x_i / √d. Attention gives V_h(γ∘c_hi + β) + v-bias, where c_hi = Σ_m p_him ŷ_m, because
  Σ_m p_him = 1. Keys and values are never projected.
- **Few keys.** s_him = x̂_i · k'_hm + b_hm, where k'_hm = γ∘Q_hᵀk_hm / √d with the queries' γ; the output is
  Σ_hm p_him (O_h v_hm). Queries and outputs are never projected.
- **Over a grid.** As with few queries, where the channels of y_m are its content and features of one axis
  each: :mod:`perceiver_policy.separable`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_policy.position import GridFeatures
from perceiver_policy.separable import grid_attention

if TYPE_CHECKING:
    from perceiver_policy.attention import Attention

OVERHEAD = 5_000_000
"""What folding costs whatever the sizes, in multiplications of a matrix product: some 60 µs of one core."""
GRID_OVERHEAD = 30_000_000
"""The same of :func:`attend_over_grid`."""
CELL_OVERHEAD = 60
"""What a cell costs :func:`attend_over_grid` besides its content, in channels of a matrix product."""

VECTOR = 16
"""float32 numbers that a core works on at once (AVX-512)."""


def attend_with_few_queries(
    attention: Attention, queries: Tensor, norm: nn.LayerNorm, inputs: Tensor, mask: Tensor | None
) -> Tensor:
    """Attention with the keys' and values' projections folded onto the queries.

    Args:
        attention: cross-attention.
        queries: (B, N, Q) or (N, Q) float, normalised.
        norm: the layer norm of the inputs.
        inputs: (B, M, C) float.
        mask: (B, M) bool, True where attention is allowed; None allows all.

    Returns:
        (B, N, Q) float.
    """
    batch = len(inputs)
    normed = F.layer_norm(inputs, norm.normalized_shape, eps=norm.eps)
    key_weight, value_weight = _key_value_weight(attention)
    folded = _fold_queries(attention, queries, key_weight, norm).expand(batch, -1, -1)
    if inputs.device.type == "cpu" and folded.shape[1] <= folded.shape[2]:
        # Scores take no more space than the inputs, and torch's fused kernel takes twice as long backward.
        scores = folded @ normed.transpose(1, 2)
        context = masked_softmax(scores, None if mask is None else mask.unsqueeze(1)) @ normed
    else:
        allowed = None if mask is None else mask[:, None, None, :]
        context = F.scaled_dot_product_attention(
            folded.unsqueeze(1),
            normed.unsqueeze(1),
            normed.unsqueeze(1),
            attn_mask=allowed,
            scale=1.0,  # already in the queries
        ).squeeze(1)
    return _project_context(attention, norm, context, value_weight, mask)


def attend_over_grid(
    attention: Attention, queries: Tensor, norm: nn.LayerNorm, content: Tensor, grid: GridFeatures
) -> Tensor:
    """Attention over a grid's cells, whose features are never put together.

    Args:
        attention: cross-attention.
        queries: (B, N, Q) or (N, Q) float, normalised.
        norm: the layer norm of the cells, content and features.
        content: (B, M, c) float.
        grid: features of the M cells.

    Returns:
        (B, N, Q) float.
    """
    with torch.autocast(content.device.type, enabled=False):
        dtype = torch.promote_types(content.dtype, torch.float32)
        content, tables = content.to(dtype), [table.to(dtype) for table in grid.tables]
        num_channels = content.shape[-1]
        total = num_channels + grid.num_channels
        mean = (content.sum(-1) + _over_cells([table.sum(-1) for table in tables])) / total
        square = (
            content.square().sum(-1) + _over_cells([table.square().sum(-1) for table in tables])
        ) / total
        scale = (square - mean.square() + norm.eps).rsqrt()
        columns = [torch.tensor(c, device=content.device) + num_channels for c in grid.columns]

        key_weight, value_weight = _key_value_weight(attention)
        # Weights may be of 16 bits without autocast, and take no others then.
        folded = _fold_queries(attention, queries.to(key_weight.dtype), key_weight, norm).to(dtype)
        weights = torch.cat((folded[..., :num_channels], -folded.sum(-1, keepdim=True)), dim=-1)
        scores = tuple(folded[..., c] @ table.T for c, table in zip(columns, tables, strict=True))
        sums, marginals = grid_attention(
            weights, torch.cat((content, mean.unsqueeze(-1)), dim=-1), scale, scores
        )
        parts = [sums[..., :-1], *(m @ table for m, table in zip(marginals, tables, strict=True))]
        order = torch.cat((torch.arange(num_channels, device=content.device), *columns)).argsort()
        context = torch.cat(parts, dim=-1)[..., order] - sums[..., -1:]
    return _project_context(attention, norm, context.to(queries.dtype), value_weight, None)


def attend_to_few_keys(
    attention: Attention, norm: nn.LayerNorm, x: Tensor, keys_values: Tensor, mask: Tensor | None
) -> Tensor:
    """Attention with the queries' and outputs' projections folded onto the keys and values.

    Args:
        attention: cross-attention.
        norm: the layer norm of the queries.
        x: (B, K, Q) or (K, Q) float, not normalised.
        keys_values: (B, N, C) float, normalised.
        mask: (B, N) bool, True where attention is allowed; None allows all.

    Returns:
        (B, K, Q) float.
    """
    key, value = attention.key_value(keys_values).split(
        (attention.num_qk_channels, attention.num_v_channels), -1
    )
    key = attention.split_heads(key) * (attention.num_qk_channels // attention.num_heads) ** -0.5
    query_weight = attention.query.weight.unflatten(0, (attention.num_heads, -1))  # (heads, d, Q)
    query_bias = F.linear(norm.bias, attention.query.weight, attention.query.bias)
    folded_keys = (key @ (query_weight * norm.weight)).flatten(1, 2)  # (B, heads * N, Q)
    key_bias = (
        (key @ query_bias.view(attention.num_heads, -1, 1)).flatten(1).unsqueeze(1)
    )  # (B, 1, heads * N)
    output_weight = attention.output.weight.unflatten(1, (attention.num_heads, -1)).movedim(0, -1)
    folded_values = (attention.split_heads(value) @ output_weight).flatten(1, 2)  # (B, heads * N, Q)

    normed = F.layer_norm(x, norm.normalized_shape, eps=norm.eps).expand(len(keys_values), -1, -1)
    scores = torch.baddbmm(key_bias, normed, folded_keys.transpose(1, 2))
    scores = scores.unflatten(-1, (attention.num_heads, -1))  # (B, K, heads, N)
    if mask is None:
        probabilities = masked_softmax(scores, None)
    else:
        probabilities = masked_softmax(scores, mask[:, None, None, :])
        folded_values = folded_values * mask.repeat(1, attention.num_heads).unsqueeze(-1)
    return torch.baddbmm(attention.output.bias, probabilities.flatten(2), folded_values)


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Over the last axis (..., M), zero where ``mask`` forbids; uniform where it forbids everything."""
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if scores.shape[-1] < VECTOR:
        # Along a contiguous axis this short torch takes one number at a time.
        return scores.movedim(-1, 1).softmax(1).movedim(1, -1)
    return scores.softmax(-1)


def _key_value_weight(attention: Attention) -> tuple[Tensor, Tensor]:
    """Weights of the keys (heads, d, C) and of the values (heads, d_v, C)."""
    # Split once: the gradient of each slice would be as large as what it was taken from.
    key, value = attention.key_value.weight.split((attention.num_qk_channels, attention.num_v_channels))
    heads = (attention.num_heads, -1)
    return key.unflatten(0, heads), value.unflatten(0, heads)


def _fold_queries(attention: Attention, queries: Tensor, key_weight: Tensor, norm: nn.LayerNorm) -> Tensor:
    """(B or nothing, heads * N, C) float: what each query multiplies normalised inputs with."""
    query = attention.split_heads(attention.query(queries))
    folded = (query @ key_weight).flatten(-3, -2)
    return folded * (norm.weight * query.shape[-1] ** -0.5)


def _project_context(
    attention: Attention, norm: nn.LayerNorm, context: Tensor, value_weight: Tensor, mask: Tensor | None
) -> Tensor:
    """(B, N, Q) float from the context (B, heads * N, C), normalised inputs averaged by attention.

    Where the mask (B, M) forbids everything, the averages are of no account.
    """
    context = torch.addcmul(norm.bias, context, norm.weight).unflatten(1, (attention.num_heads, -1))
    values = (context @ value_weight.transpose(1, 2)).transpose(1, 2).flatten(2)
    values = values + attention.key_value.bias[attention.num_qk_channels :]
    if mask is not None:
        values = values * mask.any(-1)[:, None, None]
    return attention.output(values)


def _over_cells(axes: list[Tensor]) -> Tensor:
    """(n_1 · … · n_d,): for every cell the sum of its axes' values (n_a,)."""
    total = axes[0]
    for axis in axes[1:]:
        total = total.unsqueeze(-1) + axis
    return total.flatten()
