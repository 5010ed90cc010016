"""The Perceiver core: an encoder into latents, and a decoder that answers queries from them.

    encoder   latents ← learned, or carried over;  then num_blocks times a block of latent self-attention
              layers, reading the inputs by cross-attention before the first block, or before some
    decoder   the queries cross-attend to the latents once

Perceiver, arXiv:2103.03206 (several cross-attentions); Perceiver IO, arXiv:2107.14795, section 3 (one, and
the decoder). Neither part knows what the inputs or the queries are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perceiver_policy.attention import AttentionLayer
from perceiver_policy.config import DecoderConfig, EncoderConfig, Placement, Sharing
from perceiver_policy.tokens import Tokens

LATENT_INIT_STD = 0.02


class PerceiverEncoder(nn.Module):
    """Read a set or sequence of inputs into a fixed number of latents.

    Args:
        config: sizes.
        num_input_channels: C, width of the inputs.
    """

    def __init__(self, config: EncoderConfig, num_input_channels: int) -> None:
        super().__init__()
        self.config = config
        self.latents = nn.Parameter(torch.empty(config.num_latents, config.num_latent_channels))
        nn.init.trunc_normal_(self.latents, std=LATENT_INIT_STD)
        num_cross, sharing = config.num_cross_attention_layers, config.cross_attention_sharing
        distinct = {
            Sharing.NONE: num_cross,
            Sharing.ALL_BUT_FIRST: min(num_cross, 2),
            Sharing.ALL: 1,
        }[sharing]
        self.cross_attentions = nn.ModuleList(
            AttentionLayer(
                config.num_latent_channels,
                num_input_channels,
                num_heads=config.num_cross_attention_heads,
                num_qk_channels=config.num_cross_attention_qk_channels,
                num_v_channels=config.num_cross_attention_v_channels,
                widening_factor=config.cross_attention_widening_factor,
                activation=config.activation,
                attention_residual=config.cross_attention_residual,
                dropout=config.attention_dropout,
                empty=config.empty_attention,
            )
            for _ in range(distinct)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                AttentionLayer(
                    config.num_latent_channels,
                    num_heads=config.num_self_attention_heads,
                    num_qk_channels=config.num_self_attention_qk_channels,
                    num_v_channels=config.num_self_attention_v_channels,
                    widening_factor=config.self_attention_widening_factor,
                    activation=config.activation,
                    dropout=config.attention_dropout,
                )
                for _ in range(config.num_self_attention_layers_per_block)
            )
            for _ in range(1 if config.share_blocks else config.num_blocks)
        )

    def forward(
        self, inputs: Tensor | Tokens, mask: Tensor | None = None, latents: Tensor | None = None
    ) -> Tensor:
        """Encode.

        Args:
            inputs: (B, M, C) float, or tokens of that width.
            mask: (B, M) bool, True where an input is present; None when all are. Tokens bring their own.
            latents: (B, N, D) float to start from, such as those of the time step before; None: the learned.

        Returns:
            Latents, (B, N, D) float.

        Raises:
            ValueError: latents of another shape.
        """
        for x in self.stages(inputs, mask, latents):
            latents = x
        assert latents is not None
        return latents

    def stages(
        self, inputs: Tensor | Tokens, mask: Tensor | None = None, latents: Tensor | None = None
    ) -> Iterator[Tensor]:
        """The latents (B, N, D) after each block. Arguments as for :meth:`forward`."""
        tokens = inputs if isinstance(inputs, Tokens) else Tokens(inputs, mask)
        expected = (len(tokens.content), *self.latents.shape)
        if latents is not None and latents.shape != expected:
            raise ValueError(f"latents have shape {tuple(latents.shape)}; expected {expected}")
        x = self.latents if latents is None else latents
        for block in range(self.config.num_blocks):
            x = self.apply_block(block, x, tokens)
            yield x

    def apply_block(self, block: int, latents: Tensor, tokens: Tokens) -> Tensor:
        """One block, after the cross-attention layers that stand before it.

        Args:
            block: which one, from 0.
            latents: (B, N, D) float, from the block before; of the first block also (N, D).
            tokens: the inputs.

        Returns:
            Latents, (B, N, D) float.
        """
        config = self.config
        interleaved = config.cross_attention_placement is Placement.INTERLEAVED
        every = config.num_blocks // config.num_cross_attention_layers if interleaved else 0
        if interleaved:
            reads = [block // every] if block % every == 0 else []
        else:
            reads = list(range(config.num_cross_attention_layers)) if block == 0 else []
        for read in reads:
            last = len(self.cross_attentions) - 1
            latents = self._run(self.cross_attentions[min(read, last)], latents, tokens)
        for layer in cast(nn.ModuleList, self.blocks[0 if config.share_blocks else block]):
            latents = self._run(layer, latents)
        return latents

    def _run(self, layer: nn.Module, *inputs: Tensor | Tokens) -> Tensor:
        if self.config.activation_checkpointing and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(layer, *inputs, use_reentrant=False))
        return cast(Tensor, layer(*inputs))


class PerceiverDecoder(nn.Module):
    """Answer queries from latents.

    Args:
        config: sizes.
        num_query_channels: Q, width of the queries and of the answers.
        num_latent_channels: D, width of the latents.
    """

    def __init__(self, config: DecoderConfig, num_query_channels: int, num_latent_channels: int) -> None:
        super().__init__()
        self.config = config
        self.cross_attention = AttentionLayer(
            num_query_channels,
            num_latent_channels,
            num_heads=config.num_cross_attention_heads,
            num_qk_channels=config.num_cross_attention_qk_channels,
            num_v_channels=config.num_cross_attention_v_channels,
            widening_factor=config.widening_factor,
            activation=config.activation,
            attention_residual=config.query_residual,
            dropout=config.attention_dropout,
        )

    def forward(self, queries: Tensor, latents: Tensor, query_mask: Tensor | None = None) -> Tensor:
        """Answer; each query is answered on its own, so that any part of them may be asked at a time.

        Args:
            queries: (B, K, Q) float, or (K, Q) when every batch entry asks the same.
            latents: (B, N, D) float.
            query_mask: (B, K) bool; a query that is not present gets nothing from the latents.

        Returns:
            (B, K, Q) float.
        """
        return cast(Tensor, self.cross_attention(queries, latents, None, query_mask))
