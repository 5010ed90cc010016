"""The Perceiver IO core: an encoder into latents, and a decoder that answers queries from them.

    encoder   latents ← learned;  cross-attend to the inputs once;  then num_blocks times the same
              num_self_attention_layers_per_block layers of latent self-attention
    decoder   the queries cross-attend to the latents once

Perceiver IO, arXiv:2107.14795, section 3. Neither part knows what the inputs or the queries are.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from perceiver_policy.attention import AttentionLayer
from perceiver_policy.config import DecoderConfig, EncoderConfig

LATENT_INIT_STD = 0.02


class PerceiverEncoder(nn.Module):
    """Read a set or sequence of inputs into a fixed number of latents.

    Args:
        config: sizes.
        num_input_channels: C, width of the inputs.
    """

    def __init__(self, config: EncoderConfig, num_input_channels: int) -> None:
        super().__init__()
        self.num_blocks = config.num_blocks
        self.latents = nn.Parameter(torch.empty(config.num_latents, config.num_latent_channels))
        nn.init.trunc_normal_(self.latents, std=LATENT_INIT_STD)
        self.cross_attention = AttentionLayer(
            config.num_latent_channels,
            num_input_channels,
            num_heads=config.num_cross_attention_heads,
            num_qk_channels=config.num_cross_attention_qk_channels,
            num_v_channels=config.num_cross_attention_v_channels,
            widening_factor=config.cross_attention_widening_factor,
            activation=config.activation,
            attention_residual=config.cross_attention_residual,
        )
        self.self_attention_block = nn.ModuleList(
            AttentionLayer(
                config.num_latent_channels,
                num_heads=config.num_self_attention_heads,
                num_qk_channels=config.num_self_attention_qk_channels,
                num_v_channels=config.num_self_attention_v_channels,
                widening_factor=config.self_attention_widening_factor,
                activation=config.activation,
            )
            for _ in range(config.num_self_attention_layers_per_block)
        )

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode.

        Args:
            inputs: (B, M, C) float.
            mask: (B, M) bool, True where an input is present; None when all are.

        Returns:
            Latents, (B, N, D) float.
        """
        x = cast(Tensor, self.cross_attention(self.latents, inputs, mask))
        for _ in range(self.num_blocks):
            for layer in self.self_attention_block:
                x = layer(x)
        return x


class PerceiverDecoder(nn.Module):
    """Answer queries from latents.

    Args:
        config: sizes.
        num_query_channels: Q, width of the queries and of the answers.
        num_latent_channels: D, width of the latents.
    """

    def __init__(self, config: DecoderConfig, num_query_channels: int, num_latent_channels: int) -> None:
        super().__init__()
        self.cross_attention = AttentionLayer(
            num_query_channels,
            num_latent_channels,
            num_heads=config.num_cross_attention_heads,
            num_qk_channels=config.num_cross_attention_qk_channels,
            num_v_channels=config.num_cross_attention_v_channels,
            widening_factor=config.widening_factor,
            activation=config.activation,
            attention_residual=config.query_residual,
        )

    def forward(self, queries: Tensor, latents: Tensor) -> Tensor:
        """(B, K, Q) queries and (B, N, D) latents to (B, K, Q) answers."""
        return cast(Tensor, self.cross_attention(queries, latents))
