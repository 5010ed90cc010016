"""Perceiver AR: a Perceiver that predicts the next token (arXiv:2202.07765).

    tokens (B, L) → embeddings;  latents ← the embeddings of the last N positions
    latents ← cross-attention to all L embeddings, each latent up to its own position
    latents ← causal self-attention among the latents, layer by layer
    logits  ← latents · embeddings, or a matrix of their own

The latent of a position predicts the token that comes after it. The long context is read once, by the
cross-attention; the depth works on N positions only, so that cost grows with L · N, not with L².

Positions enter through rotations of queries and keys (:mod:`perceiver_policy.rotary`), which tell distances;
what depends on the place itself, as in an image or a mirrored sequence, wants absolute positions besides.
Sequences of unequal length are padded at the left; positions count from the first token that is present.

Unlike DeepMind's code there is no linear map from the embeddings to the latents, and a layer norm comes
before the logits. :mod:`perceiver_policy.generation` draws tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perceiver_policy.attention import AttentionLayer
from perceiver_policy.autoregressive_config import AbsolutePositions, PerceiverARConfig
from perceiver_policy.cache import KeyValueCache, SequenceCaches
from perceiver_policy.config import Config
from perceiver_policy.heads.token import (
    TiedEmbeddingHead,
    TiedEmbeddingHeadConfig,
    TokenClassificationHead,
    TokenClassificationHeadConfig,
)
from perceiver_policy.hub import HubModel
from perceiver_policy.position import LearnedPositions
from perceiver_policy.rotary import Rotation, rotation, sinusoids

EMBEDDING_INIT_STD = 0.02


class PerceiverAR(nn.Module, HubModel):
    """An autoregressive model of token sequences.

    Args:
        config: sizes.
    """

    config_class: ClassVar[type[Config]] = PerceiverARConfig

    def __init__(self, config: PerceiverARConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.num_channels
        self.embedding = nn.Embedding(config.vocabulary_size, channels)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_INIT_STD)
        if config.absolute_positions is AbsolutePositions.LEARNED:
            self.positions = LearnedPositions(config.max_context, channels)
        self.cross_attention = AttentionLayer(
            channels,
            channels,
            num_heads=config.num_cross_attention_heads,
            widening_factor=config.cross_attention_widening_factor,
            activation=config.activation,
            dropout=config.attention_dropout,
        )
        self.self_attentions = nn.ModuleList(
            AttentionLayer(
                channels,
                num_heads=config.num_self_attention_heads,
                widening_factor=config.self_attention_widening_factor,
                activation=config.activation,
                dropout=config.attention_dropout,
            )
            for _ in range(config.num_self_attention_layers)
        )
        self.output_norm = nn.LayerNorm(channels)
        self.head: TiedEmbeddingHead | TokenClassificationHead
        if config.tie_embedding:
            tied = TiedEmbeddingHeadConfig(config.vocabulary_size)
            self.head = TiedEmbeddingHead(tied, num_query_channels=channels)
        else:
            own = TokenClassificationHeadConfig(config.vocabulary_size)
            self.head = TokenClassificationHead(own, num_query_channels=channels)
            nn.init.normal_(self.head.linear.weight, std=EMBEDDING_INIT_STD)
            nn.init.zeros_(self.head.linear.bias)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        *,
        num_latents: int | None = None,
        caches: SequenceCaches | None = None,
    ) -> Tensor:
        """Predict what follows each of the last positions.

        Args:
            tokens: (B, L) int64, below ``vocabulary_size``. With caches, those after the ones already seen.
            mask: (B, L) bool, True where a token is present, padding at the left; None when all are. With
                caches, (B, tokens seen + L).
            num_latents: M, how many positions predict; ``config.num_latents``, or L if that is less, if None.
            caches: what is known of the sequence's start; this call adds to it. The tokens given must then
                all be latents if any were seen before.

        Returns:
            Logits (B, M, vocabulary_size) float; [:, i] are of the token after position L - M + i. Those of
            a position that is absent mean nothing.

        Raises:
            ValueError: a shape, a length or a number of latents that the model does not take.
        """
        seen, past_latents = (0, 0) if caches is None else (caches.num_tokens, caches.num_latents)
        num_latents = self._check(tokens, mask, num_latents, seen)
        prefix_length = tokens.shape[1] - num_latents
        if mask is None:
            positions = torch.arange(seen, seen + tokens.shape[1], device=tokens.device).unsqueeze(0)
        else:
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, seen:]
        embedded = self._embed(tokens, positions)
        x, latent_positions = embedded[:, prefix_length:], positions[:, prefix_length:]
        latent_mask = None if mask is None else mask[:, -(past_latents + num_latents) :]
        if self.training and self.config.prefix_dropout > 0 and prefix_length > 0 and caches is None:
            kept = self._surviving_positions(len(tokens), prefix_length, num_latents, tokens.device)
            embedded = embedded.gather(1, kept.unsqueeze(-1).expand(-1, -1, embedded.shape[-1]))
            positions = positions.expand(len(tokens), -1).gather(1, kept)
            mask = None if mask is None else mask.gather(1, kept)

        turned = self._rotation(latent_positions, self.config.num_cross_attention_heads)
        turned_keys = self._rotation(positions, self.config.num_cross_attention_heads)
        rotations = None if turned is None or turned_keys is None else (turned, turned_keys)
        num_keys = seen + embedded.shape[1]
        allowed = _causal_mask(num_latents, num_keys, mask, tokens.device)
        cache = None if caches is None else caches.cross
        x = self._run(self.cross_attention, x, embedded, allowed, rotations, cache)

        turned = self._rotation(latent_positions, self.config.num_self_attention_heads)
        rotations = None if turned is None else (turned, turned)
        allowed = _causal_mask(num_latents, past_latents + num_latents, latent_mask, tokens.device)
        for i, layer in enumerate(self.self_attentions):
            cache = None if caches is None else caches.layers[i]
            x = self._run(layer, x, None, allowed, rotations, cache)
        x = self.output_norm(x)
        if isinstance(self.head, TiedEmbeddingHead):
            return self.head(x, self.embedding.weight)
        return self.head(x)

    def loss(self, tokens: Tensor, mask: Tensor | None = None, *, num_latents: int | None = None) -> Tensor:
        """Mean cross-entropy of the last tokens given those before them, in nats, with the z-loss if any.

            mean over t of  log Z_t − logit_t[token_t] + z_loss (log Z_t)²,   Z_t = Σ_v exp logit_t[v]

        Args:
            tokens: (B, L + 1) int64; the last M are predicted from the L before the last.
            mask: (B, L + 1) bool, True where a token is present. A token counts if it and the one before it
                are present.
            num_latents: M, as in :meth:`forward`.

        Returns:
            () float; NaN if no token counts.

        Raises:
            ValueError: as in :meth:`forward`.
        """
        if tokens.dim() != 2 or tokens.shape[1] < 2:
            raise ValueError(
                f"tokens have shape {tuple(tokens.shape)}; a loss needs (B, L + 1) with L at least 1, "
                "something to predict from and something to predict"
            )
        if mask is not None:
            _check_mask(mask, tokens.shape)
        logits = self(tokens[:, :-1], None if mask is None else mask[:, :-1], num_latents=num_latents)
        targets = tokens[:, -logits.shape[1] :]
        log_z = logits.logsumexp(-1)
        losses = log_z - logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        if self.config.z_loss > 0:
            losses = losses + self.config.z_loss * log_z.square()
        if mask is None:
            return losses.mean()
        counts = (mask[:, 1:] & mask[:, :-1])[:, -logits.shape[1] :]
        return losses.masked_fill(~counts, 0.0).sum() / counts.sum()

    def _check(self, tokens: Tensor, mask: Tensor | None, num_latents: int | None, seen: int) -> int:
        """The number of latents, once it and the shapes are known to be right."""
        if tokens.dim() != 2 or tokens.shape[1] < 1 or tokens.is_floating_point():
            raise ValueError(
                f"tokens have shape {tuple(tokens.shape)} and type {tokens.dtype}; they must be (B, L) whole "
                "numbers with L at least 1"
            )
        batch, length = tokens.shape
        config = self.config
        if seen + length > config.max_context:
            raise ValueError(
                f"the sequence has {seen + length} tokens, but max_context is {config.max_context}; leave "
                "out the first ones or configure a longer context"
            )
        if mask is not None:
            _check_mask(mask, (batch, seen + length))
        most = min(config.num_latents, length)
        if num_latents is None:
            num_latents = most
        if not 1 <= num_latents <= most:
            raise ValueError(
                f"num_latents is {num_latents}, but latents are the last positions of the sequence: between "
                f"1 and {most} for {length} tokens and the configured {config.num_latents}"
            )
        if seen > 0 and num_latents < length:
            raise ValueError(
                f"num_latents is {num_latents} for {length} tokens that follow {seen} others; all of them "
                "must be latents"
            )
        return num_latents

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """(B, L, num_channels) float."""
        embedded = cast(Tensor, self.embedding(tokens))
        match self.config.absolute_positions:
            case AbsolutePositions.NONE:
                return embedded
            case AbsolutePositions.LEARNED:
                return embedded + self.positions.table[positions]
            case AbsolutePositions.SINUSOIDAL:
                places = sinusoids(positions, self.config.num_channels, self.config.rotary_base)
                return embedded + (math.sqrt(2) * EMBEDDING_INIT_STD * places).to(embedded.dtype)

    def _surviving_positions(
        self, batch: int, prefix_length: int, num_latents: int, device: torch.device
    ) -> Tensor:
        """(B, K) int64: positions that prefix dropout leaves, in order; all latents are among them."""
        num_kept = prefix_length - int(self.config.prefix_dropout * prefix_length)
        kept = torch.rand(batch, prefix_length, device=device).topk(num_kept).indices.sort().values
        latents = torch.arange(prefix_length, prefix_length + num_latents, device=device)
        return torch.cat((kept, latents.expand(batch, -1)), dim=1)

    def _rotation(self, positions: Tensor, num_heads: int) -> Rotation | None:
        num_channels = self.config.num_rotary_channels(num_heads)
        return rotation(positions, num_channels, self.config.rotary_base) if num_channels else None

    def _run(
        self,
        layer: nn.Module,
        x: Tensor,
        keys_values: Tensor | None,
        mask: Tensor | None,
        rotations: tuple[Rotation, Rotation] | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        run: Callable[..., Any] = layer
        if self.config.activation_checkpointing and torch.is_grad_enabled():
            run = partial(checkpoint, layer, use_reentrant=False)
        return cast(Tensor, run(x, keys_values, mask, rotations=rotations, cache=cache))


def _causal_mask(
    num_queries: int, num_keys: int, present: Tensor | None, device: torch.device
) -> Tensor | None:
    """(B or 1, num_queries, num_keys) bool: which keys each query may attend to, or None if all.

    The last query stands where the last key does, and each attends to the keys up to where it stands itself.

    Args:
        num_queries: M.
        num_keys: K, at least M.
        present: (B, K) bool, or None when all keys are present.
        device: where the mask goes.
    """
    if num_queries == 1:
        return None if present is None else present.unsqueeze(1)
    earlier = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(num_keys - num_queries)
    return earlier.unsqueeze(0) if present is None else earlier & present.unsqueeze(1)


def _check_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    if mask.shape != shape or mask.dtype is not torch.bool:
        raise ValueError(
            f"the mask has shape {tuple(mask.shape)} and type {mask.dtype}; it must be {tuple(shape)} bool"
        )
