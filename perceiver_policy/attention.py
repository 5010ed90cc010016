"""Multi-head attention and the Perceiver's pre-norm attention layer.

The layer, with ``q`` the residual stream and ``kv`` what it reads (the same for self-attention)::

    x = q + O(softmax(Q(LN q) K(LN kv)ᵀ / √d) V(LN kv))
    x = x + MLP(LN x)                                     Perceiver IO, arXiv:2107.14795, appendix E

All attention runs on :func:`torch.nn.functional.scaled_dot_product_attention`. Masks are boolean and
True means "may attend". A query that may attend to nothing receives zeros, with zero gradients, from the
attention itself; the output projection's bias is still added.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
"""Activation functions by the name a configuration uses."""


class Attention(nn.Module):
    """Multi-head attention from one sequence to another.

    Args:
        num_query_channels: channels of the queries, and of the output.
        num_key_value_channels: channels of the sequence attended to.
        num_heads: heads; must divide ``num_qk_channels`` and ``num_v_channels``.
        num_qk_channels: total width of the projected queries and keys; ``num_query_channels`` if None.
        num_v_channels: total width of the projected values; ``num_qk_channels`` if None.

    Raises:
        ValueError: the heads do not divide the channels.
    """

    def __init__(
        self,
        num_query_channels: int,
        num_key_value_channels: int,
        num_heads: int,
        *,
        num_qk_channels: int | None = None,
        num_v_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_qk_channels = num_qk_channels or num_query_channels
        self.num_v_channels = num_v_channels or self.num_qk_channels
        for name, channels in (("qk", self.num_qk_channels), ("v", self.num_v_channels)):
            if channels % num_heads:
                raise ValueError(f"num_heads {num_heads} does not divide num_{name}_channels {channels}")
        self.query = nn.Linear(num_query_channels, self.num_qk_channels)
        self.key_value = nn.Linear(num_key_value_channels, self.num_qk_channels + self.num_v_channels)
        self.output = nn.Linear(self.num_v_channels, num_query_channels)

    def forward(self, queries: Tensor, keys_values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            queries: (B, M, num_query_channels), or (M, num_query_channels) when every batch entry asks
                the same.
            keys_values: (B, N, num_key_value_channels).
            mask: (B, N) or (B, M, N) bool, True where attention is allowed; None allows all.

        Returns:
            (B, M, num_query_channels).
        """
        batch = keys_values.shape[0]
        key, value = self.key_value(keys_values).split((self.num_qk_channels, self.num_v_channels), dim=-1)
        query = self._split_heads(self.query(queries)).expand(batch, -1, -1, -1)
        if mask is not None:
            mask = mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]
        attended = F.scaled_dot_product_attention(
            query, self._split_heads(key), self._split_heads(value), attn_mask=mask
        )
        return self.output(attended.transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor) -> Tensor:
        """(..., M, heads * d) to (..., heads, M, d)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)


class MLP(nn.Sequential):
    """Two linear layers with an activation between them.

    Args:
        num_channels: input width.
        num_hidden_channels: hidden width.
        num_output_channels: output width; ``num_channels`` if None.
        activation: a key of :data:`ACTIVATIONS`.
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

    @property
    def last(self) -> nn.Linear:
        """The output layer."""
        return cast(nn.Linear, self[2])


class AttentionLayer(nn.Module):
    """The pre-norm layer of the module docstring: attention, then an MLP.

    Args:
        num_query_channels: width of the residual stream.
        num_key_value_channels: width of what cross-attention reads; None makes a self-attention layer.
        num_heads: attention heads.
        num_qk_channels: projected width of queries and keys; None as in :class:`Attention`.
        num_v_channels: projected width of values; None as in :class:`Attention`.
        widening_factor: the MLP's hidden width over ``num_query_channels``.
        activation: a key of :data:`ACTIVATIONS`.
        attention_residual: whether the queries are added to what attention returns.
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
    ) -> None:
        super().__init__()
        self.attention_residual = attention_residual
        self.query_norm = nn.LayerNorm(num_query_channels)
        self.key_value_norm = None if num_key_value_channels is None else nn.LayerNorm(num_key_value_channels)
        self.attention = Attention(
            num_query_channels,
            num_key_value_channels or num_query_channels,
            num_heads,
            num_qk_channels=num_qk_channels,
            num_v_channels=num_v_channels,
        )
        self.mlp_norm = nn.LayerNorm(num_query_channels)
        self.mlp = MLP(num_query_channels, widening_factor * num_query_channels, activation=activation)

    def forward(self, x: Tensor, keys_values: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Apply the layer.

        Args:
            x: (B, M, num_query_channels); cross-attention also takes (M, num_query_channels).
            keys_values: (B, N, num_key_value_channels), given exactly to a cross-attention layer.
            mask: (B, N) or (B, M, N) bool, True where attention is allowed.

        Returns:
            (B, M, num_query_channels).
        """
        queries = self.query_norm(x)
        if self.key_value_norm is not None and keys_values is not None:
            attended = self.attention(queries, self.key_value_norm(keys_values), mask)
        else:
            attended = self.attention(queries, queries, mask)
        x = x + attended if self.attention_residual else attended
        return x + self.mlp(self.mlp_norm(x))
