"""Multi-head attention and the Perceiver's pre-norm attention layer.

The layer, with ``q`` the residual stream and ``kv`` what it reads (the same for self-attention)::

    x = q + O(softmax(Q(LN q) K(LN kv)ᵀ / √d) V(LN kv))
    x = x + MLP(LN x)                                     Perceiver IO, arXiv:2107.14795, appendix E

Masks are boolean and True means "may attend". A query that may attend to nothing, or that is masked itself,
receives zeros, with zero gradients, from the attention; the output projection's bias is still added.

Cross-attention has cheaper forms that are equal in exact arithmetic, :mod:`perceiver_policy.rewrites`; a
layer takes the cheapest for the sizes it meets, by :func:`choose_path`.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_policy import rewrites
from perceiver_policy.activation import ACTIVATIONS
from perceiver_policy.cache import KeyValueCache
from perceiver_policy.config import EmptyAttention
from perceiver_policy.rotary import Rotation
from perceiver_policy.tokens import Tokens


class Attention(nn.Module):
    """Multi-head attention from one sequence to another, or to itself.

    Args:
        num_query_channels: channels of the queries, and of the output.
        num_key_value_channels: channels of the sequence attended to; None makes self-attention.
        num_heads: heads; must divide ``num_qk_channels`` and ``num_v_channels``.
        num_qk_channels: total width of the projected queries and keys; ``num_query_channels`` if None.
        num_v_channels: total width of the projected values; ``num_qk_channels`` if None.
        dropout: probability of dropping an attention weight while training.
        empty: what a query receives that may attend to nothing.

    Raises:
        ValueError: the heads do not divide the channels.
    """

    def __init__(
        self,
        num_query_channels: int,
        num_key_value_channels: int | None,
        num_heads: int,
        *,
        num_qk_channels: int | None = None,
        num_v_channels: int | None = None,
        dropout: float = 0.0,
        empty: EmptyAttention = EmptyAttention.ZEROS,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_qk_channels = num_qk_channels or num_query_channels
        self.num_v_channels = num_v_channels or self.num_qk_channels
        for name, channels in (("qk", self.num_qk_channels), ("v", self.num_v_channels)):
            if channels % num_heads:
                raise ValueError(f"num_heads {num_heads} does not divide num_{name}_channels {channels}")
        self.dropout = dropout
        self.empty = empty
        # One matrix product instead of two or three; the keys' and values' part apart where inputs differ.
        key_value_width = self.num_qk_channels + self.num_v_channels
        if num_key_value_channels is None:
            self.query_key_value = nn.Linear(num_query_channels, self.num_qk_channels + key_value_width)
        else:
            self.query = nn.Linear(num_query_channels, self.num_qk_channels)
            self.key_value = nn.Linear(num_key_value_channels, key_value_width)
        self.is_self_attention = num_key_value_channels is None
        self.output = nn.Linear(self.num_v_channels, num_query_channels)

    def forward(
        self,
        queries: Tensor,
        keys_values: Tensor | None = None,
        mask: Tensor | None = None,
        query_mask: Tensor | None = None,
        *,
        rotations: tuple[Rotation, Rotation] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            queries: (B, M, num_query_channels), or (M, num_query_channels) when every batch entry asks
                the same.
            keys_values: (B, N, num_key_value_channels); None for self-attention.
            mask: (B, N) or (B, M, N) bool, True where attention is allowed; None allows all.
            query_mask: (B, M) bool, True where a query is present; None when all are.
            rotations: rotary positions of the queries and of the keys; None for none.
            cache: keys and values from before, attended to as well; those of ``keys_values`` are added to
                it. ``mask`` then speaks of all of them, the cached first.

        Returns:
            (B, M, num_query_channels).
        """
        query, key, value = self.project(queries, keys_values)
        if rotations is not None:
            query, key = rotations[0].apply(query), rotations[1].apply(key)
        if cache is not None:
            key, value = cache.append(key, value)
        query = query.expand(len(key), -1, -1, -1)
        attended = self.attend(query, key, value, _pairs(mask)).transpose(1, 2).flatten(2)
        if query_mask is not None:
            attended = attended * query_mask.unsqueeze(-1)
        return self.output(attended)

    def project(self, queries: Tensor, keys_values: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B or nothing, heads, M, d), keys (B, heads, N, d) and values (B, heads, N, d_v)."""
        widths = (self.num_qk_channels, self.num_v_channels)
        if self.is_self_attention:
            query, key, value = self.query_key_value(queries).split((widths[0], *widths), dim=-1)
        else:
            query = self.query(queries)
            key, value = self.key_value(keys_values).split(widths, dim=-1)
        return self.split_heads(query), self.split_heads(key), self.split_heads(value)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of projected heads.

        Args:
            query: (B, heads, M, d).
            key: (B, heads, N, d).
            value: (B, heads, N, d_v).
            mask: broadcastable to (B, heads, M, N) bool, or None.

        Returns:
            (B, heads, M, d_v).
        """
        dropout = self.dropout if self.training else 0.0
        # On the CPU torch has no fused kernel for unequal widths, and its fallback copies more than this.
        unfused = query.shape[-1] != value.shape[-1] and query.device.type == "cpu"
        if unfused or (mask is not None and self.empty is EmptyAttention.MEAN):
            return F.dropout(self.probabilities(query, key, mask), dropout, dropout > 0) @ value
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)

    def probabilities(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        """(B, heads, M, N) float: what each query attends to. Arguments as for :meth:`attend`."""
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        probabilities = rewrites.masked_softmax(scores, mask)
        if mask is None or self.empty is EmptyAttention.MEAN:
            return probabilities
        return probabilities.masked_fill(~mask, 0.0)

    def split_heads(self, x: Tensor) -> Tensor:
        """(..., M, heads * d) to (..., heads, M, d)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)


class MLP(nn.Sequential):
    """Two linear layers with an activation between them.

    Args:
        num_channels: input width.
        num_hidden_channels: hidden width.
        num_output_channels: output width; ``num_channels`` if None.
        activation: a key of :data:`~perceiver_policy.activation.ACTIVATIONS`.
    """

    def __init__(
        self,
        num_channels: int,
        num_hidden_channels: int,
        num_output_channels: int | None = None,
        *,
        activation: str = "gelu",
    ) -> None:
        last = nn.Linear(num_hidden_channels, num_output_channels or num_channels)
        super().__init__(nn.Linear(num_channels, num_hidden_channels), ACTIVATIONS[activation](), last)

    def forward(self, x: Tensor) -> Tensor:
        """(..., num_channels) to (..., num_output_channels) float."""
        first, activation, last = self
        hidden = first(x)
        if isinstance(activation, nn.ReLU) and not torch.is_grad_enabled():
            hidden = hidden.relu_()  # no second tensor of this size, the largest of the layer's
        else:
            hidden = activation(hidden)
        return cast(Tensor, last(hidden))

    @property
    def last(self) -> nn.Linear:
        """The output layer."""
        return cast(nn.Linear, self[2])


class Path(Enum):
    """How a layer computes its attention; all are equal in exact arithmetic."""

    PLAIN = auto()  # project queries, keys and values, attend
    FEW_QUERIES = auto()  # the keys' and values' projections folded onto the queries
    FEW_KEYS = auto()  # the queries' and outputs' projections folded onto the keys and values
    GRID = auto()  # as FEW_QUERIES, and over a grid's axes instead of its cells


class AttentionLayer(nn.Module):
    """The pre-norm layer of the module docstring: attention, then an MLP.

    Args:
        num_query_channels: width of the residual stream.
        num_key_value_channels: width of what cross-attention reads; None makes a self-attention layer.
        num_heads: attention heads.
        num_qk_channels: projected width of queries and keys; None as in :class:`Attention`.
        num_v_channels: projected width of values; None as in :class:`Attention`.
        widening_factor: the MLP's hidden width over ``num_query_channels``.
        activation: a key of :data:`~perceiver_policy.activation.ACTIVATIONS`.
        attention_residual: whether the queries are added to what attention returns.
        dropout: as in :class:`Attention`.
        empty: as in :class:`Attention`.
    """

    def __init__(
        self,
        num_query_channels: int,
        num_key_value_channels: int | None = None,
        *,
        num_heads: int,
        num_qk_channels: int | None = None,
        num_v_channels: int | None = None,
        widening_factor: int = 1,
        activation: str = "gelu",
        attention_residual: bool = True,
        dropout: float = 0.0,
        empty: EmptyAttention = EmptyAttention.ZEROS,
    ) -> None:
        super().__init__()
        self.attention_residual = attention_residual
        self.query_norm = nn.LayerNorm(num_query_channels)
        self.key_value_norm = None if num_key_value_channels is None else nn.LayerNorm(num_key_value_channels)
        self.attention = Attention(
            num_query_channels,
            num_key_value_channels,
            num_heads,
            num_qk_channels=num_qk_channels,
            num_v_channels=num_v_channels,
            dropout=dropout,
            empty=empty,
        )
        self.mlp_norm = nn.LayerNorm(num_query_channels)
        self.mlp = MLP(num_query_channels, widening_factor * num_query_channels, activation=activation)

    def forward(
        self,
        x: Tensor,
        keys_values: Tensor | Tokens | None = None,
        mask: Tensor | None = None,
        query_mask: Tensor | None = None,
        *,
        rotations: tuple[Rotation, Rotation] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Apply the layer.

        Args:
            x: (B, M, num_query_channels); cross-attention also takes (M, num_query_channels).
            keys_values: (B, N, num_key_value_channels) or tokens of that width, given exactly to a
                cross-attention layer.
            mask: (B, N) or (B, M, N) bool, True where attention is allowed. Tokens bring their own.
            query_mask: (B, M) bool, True where a query is present.
            rotations: as for :class:`Attention`.
            cache: as for :class:`Attention`.

        Returns:
            (B, M, num_query_channels).
        """
        if self.key_value_norm is None or keys_values is None:
            attended = self.attention(
                self.query_norm(x), None, mask, query_mask, rotations=rotations, cache=cache
            )
        else:
            tokens = keys_values if isinstance(keys_values, Tokens) else Tokens(keys_values, mask)
            if rotations is None and cache is None:
                attended = self._cross_attend(x, tokens, query_mask)
            else:  # the keys must be there to be turned or kept; the rewrites never project them
                normed = self.key_value_norm(tokens.dense())
                attended = self.attention(
                    self.query_norm(x), normed, tokens.mask, query_mask, rotations=rotations, cache=cache
                )
        x = x + attended if self.attention_residual else attended
        return x + self.mlp(self.mlp_norm(x))

    def probabilities(
        self,
        x: Tensor,
        keys_values: Tensor | Tokens | None = None,
        mask: Tensor | None = None,
        *,
        rotations: tuple[Rotation, Rotation] | None = None,
    ) -> Tensor:
        """(B, heads, M, N) float: what the layer attends to. Arguments as for :meth:`forward`."""
        attended = None
        if self.key_value_norm is not None and keys_values is not None:
            tokens = keys_values if isinstance(keys_values, Tokens) else Tokens(keys_values, mask)
            attended, mask = self.key_value_norm(tokens.dense()), tokens.mask
        query, key, _ = self.attention.project(self.query_norm(x), attended)
        if rotations is not None:
            query, key = rotations[0].apply(query), rotations[1].apply(key)
        return self.attention.probabilities(query.expand(len(key), -1, -1, -1), key, _pairs(mask))

    def _cross_attend(self, x: Tensor, tokens: Tokens, query_mask: Tensor | None) -> Tensor:
        assert self.key_value_norm is not None
        attention, mask = self.attention, tokens.mask
        match choose_path(attention, x, tokens):
            case Path.GRID:
                assert tokens.grid is not None
                attended = rewrites.attend_over_grid(
                    attention, self.query_norm(x), self.key_value_norm, tokens.content, tokens.grid
                )
            case Path.FEW_QUERIES:
                attended = rewrites.attend_with_few_queries(
                    attention, self.query_norm(x), self.key_value_norm, tokens.dense(), mask
                )
            case Path.FEW_KEYS:
                attended = rewrites.attend_to_few_keys(
                    attention, self.query_norm, x, self.key_value_norm(tokens.dense()), mask
                )
            case Path.PLAIN:
                keys_values = self.key_value_norm(tokens.dense())
                return attention(self.query_norm(x), keys_values, mask, query_mask)
        if query_mask is not None:  # as if attention had given zeros: the output's bias remains
            attended = torch.where(query_mask.unsqueeze(-1), attended, attention.output.bias)
        return attended


def choose_path(attention: Attention, x: Tensor, tokens: Tokens) -> Path:
    """The cheapest way to attend from x (..., M, Q) to ``tokens``, by counting multiplications.

    What the rewrites cost besides was fitted to times of all paths, forward and with backward, at 152 sizes
    from 4 queries of 32 channels to 512 of 512 (one AVX-512 core): the path chosen took 3 % longer than the
    fastest in the mean, and at nine sizes of ten less than 10 % longer.

    Weights of attention that are dropped, or that differ from pair to pair by a mask, need the plain path.
    """
    special = attention.training and attention.dropout > 0
    if tokens.mask is not None:
        special = special or tokens.mask.dim() == 3 or attention.empty is EmptyAttention.MEAN
    if special:
        return Path.PLAIN
    batch, num_keys = tokens.content.shape[:2]
    num_queries, num_query_channels = x.shape[-2:]
    num_channels = tokens.num_channels
    qk, v = attention.num_qk_channels, attention.num_v_channels
    query_batch = 1 if x.dim() == 2 else batch  # queries that all entries share are projected once
    pairs = batch * num_queries * num_keys
    # Of FEW_QUERIES and GRID, but for the attention itself.
    folding = num_queries * (num_query_channels + num_channels) * (query_batch * qk + batch * v)
    costs = {
        Path.PLAIN: batch * num_keys * num_channels * (qk + v)
        + num_queries * num_query_channels * (query_batch * qk + batch * v)
        + pairs * (qk + v),
        Path.FEW_QUERIES: rewrites.OVERHEAD + folding + 2 * attention.num_heads * pairs * num_channels,
        Path.FEW_KEYS: rewrites.OVERHEAD
        + batch * num_keys * (num_query_channels + num_channels) * (qk + v)
        + 2 * attention.num_heads * pairs * num_query_channels,
    }
    if tokens.grid is not None and tokens.mask is None and x.device.type == "cpu":
        narrow = tokens.content.shape[-1] + rewrites.CELL_OVERHEAD
        costs[Path.GRID] = rewrites.GRID_OVERHEAD + folding + 2 * attention.num_heads * pairs * narrow
    cheapest = Path.PLAIN
    for path, cost in costs.items():  # not min(): under torch.compile costs may be symbols
        if cost < costs[cheapest]:
            cheapest = path
    return cheapest


def _pairs(mask: Tensor | None) -> Tensor | None:
    """A mask of keys (B, N) or of pairs (B, M, N), for (B, heads, M, N)."""
    if mask is None:
        return None
    return mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]
