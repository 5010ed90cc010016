"""Configuration of :class:`~perceiver_policy.autoregressive.PerceiverAR`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from perceiver_policy.config import LARGEST_VOCABULARY, Config


class AbsolutePositions(StrEnum):
    """What is added to a token's embedding to say where it is."""

    NONE = "none"
    SINUSOIDAL = "sinusoidal"  # as strong as the embeddings at first
    LEARNED = "learned"


@dataclass(frozen=True)
class PerceiverARConfig(Config):
    """Perceiver AR, in the paper's names."""

    kind: ClassVar[str] = "perceiver_ar"
    minimum: ClassVar[Mapping[str, float]] = {
        "rotary_share": 0.0,
        "prefix_dropout": 0.0,
        "attention_dropout": 0.0,
        "z_loss": 0.0,
    }
    maximum: ClassVar[Mapping[str, int]] = {
        "vocabulary_size": LARGEST_VOCABULARY,
        "max_context": LARGEST_VOCABULARY,
        "num_self_attention_layers": 256,
    }

    vocabulary_size: int = 256
    max_context: int = 2048  # most tokens in a sequence
    num_latents: int = 256  # N, most positions that predict at a time
    num_channels: int = 256
    num_cross_attention_heads: int = 8
    num_self_attention_heads: int = 8
    num_self_attention_layers: int = 6
    cross_attention_widening_factor: int = 4
    self_attention_widening_factor: int = 4
    activation: str = "squared_relu"
    rotary_share: float = 0.5  # of each head's channels, rounded down to a whole number of pairs
    rotary_base: float = 10_000.0  # also that of sinusoidal positions
    absolute_positions: AbsolutePositions = AbsolutePositions.NONE
    tie_embedding: bool = True  # whether the logits are products with the embeddings
    prefix_dropout: float = 0.0  # share of the positions before the latents left out, drawn anew each step
    attention_dropout: float = 0.0  # probability, while training
    z_loss: float = 0.0  # weight of the squared log of the softmax's normaliser; the paper has 1e-4
    activation_checkpointing: bool = False  # layers run again in the backward pass instead of being kept

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_known_activation()
        for name in ("attention_dropout", "prefix_dropout"):
            self._require(getattr(self, name) < 1, name, "it must be below 1")
        self._require(
            self.num_latents <= self.max_context,
            "num_latents",
            f"latents are positions of the sequence, so it must be at most max_context {self.max_context}",
        )
        self._require(self.rotary_share <= 1, "rotary_share", "it is a share, so it must be at most 1")
        self._require(
            self.absolute_positions is not AbsolutePositions.SINUSOIDAL or self.num_channels % 2 == 0,
            "num_channels",
            "sinusoidal positions are pairs of channels, so it must be even",
        )
        for kind in ("cross", "self"):
            heads = f"num_{kind}_attention_heads"
            self._require_heads_divide(heads, self.num_channels, "num_channels")
            self._require(
                self.rotary_share == 0 or self.num_rotary_channels(getattr(self, heads)) > 0,
                "rotary_share",
                f"of the {self.num_channels // getattr(self, heads)} channels of one of {heads} "
                f"{getattr(self, heads)} that is less than a pair; raise it, have fewer heads, or make it 0",
            )

    def num_rotary_channels(self, num_heads: int) -> int:
        """How many channels of each head are turned; even."""
        return 2 * int(self.rotary_share * (self.num_channels // num_heads) / 2)
