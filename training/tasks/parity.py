"""Parity of a set, PonderNet's first task (Banino et al., arXiv:2107.05407, section 4.1).

A vector has elements -1, 0 and 1. How many are not 0 is drawn uniformly from 1 … length, and which, and
their signs, at random. The label says whether the number of ones is odd.

A Perceiver reads the elements as tokens, value and learned position, and classifies the mean of its latents.
Its one block is applied a fixed number of times, or as often as it decides itself, with the same weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_policy.adaptive import AdaptiveConfig, AdaptiveEncoder, Halted, ponder_loss
from perceiver_policy.config import EncoderConfig
from perceiver_policy.core import PerceiverEncoder
from perceiver_policy.position import LearnedPositions

NUM_VALUES = 3
MAX_GRADIENT_NORM = 1.0
WARM_UP = 0.05
"""Part of the updates over which the step size rises; it falls to 0 over the others, as a cosine."""


class Parity(NamedTuple):
    """A batch of the task."""

    values: Tensor  # (B, M) int64, -1, 0 or 1
    odd: Tensor  # (B,) bool, whether the ones are odd in number

    @property
    def num_nonzero(self) -> Tensor:
        """(B,) int64."""
        return (self.values != 0).sum(-1)


def draw(batch_size: int, length: int, generator: torch.Generator) -> Parity:
    """Draw examples.

    Args:
        batch_size: B.
        length: M.
        generator: what they are drawn from.
    """
    num_nonzero = torch.randint(1, length + 1, (batch_size, 1), generator=generator)
    rank = torch.rand(batch_size, length, generator=generator).argsort(-1)
    signs = 2 * torch.randint(2, (batch_size, length), generator=generator) - 1
    values = torch.where(rank < num_nonzero, signs, 0)
    return Parity(values, (values == 1).sum(-1) % 2 == 1)


@dataclass(frozen=True)
class Setting:
    """A model and its training."""

    length: int
    """M, elements of a vector."""
    num_steps: int
    """How often the block is applied; where the model decides, at most."""
    adaptive: AdaptiveConfig | None = None
    """How the model decides; None for a fixed number of steps."""
    num_latents: int = 4
    num_channels: int = 32
    """Of a latent."""
    num_position_channels: int = 16
    num_updates: int = 3000
    batch_size: int = 128
    learning_rate: float = 1e-3


class ParityModel(nn.Module):
    """Tokens, encoder, classifier.

    Args:
        setting: sizes.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.positions = LearnedPositions(setting.length, setting.num_position_channels)
        core = EncoderConfig(
            num_latents=setting.num_latents,
            num_latent_channels=setting.num_channels,
            num_blocks=setting.num_steps,
        )
        encoder = PerceiverEncoder(core, NUM_VALUES + setting.num_position_channels)
        self.encoder = encoder if setting.adaptive is None else AdaptiveEncoder(setting.adaptive, encoder)
        self.norm = nn.LayerNorm(setting.num_channels)
        self.classifier = nn.Linear(setting.num_channels, 1)

    def loss(self, batch: Parity) -> Tensor:
        """() float: cross-entropy in nats, expected over the steps and with its prior where they vary."""
        tokens = self.tokens(batch.values)
        if isinstance(self.encoder, PerceiverEncoder):
            return F.binary_cross_entropy_with_logits(self.logits(self.encoder(tokens)), batch.odd.float())
        pondering = self.encoder(tokens)
        logits = self.logits(pondering.latents)
        odd = batch.odd.float().expand_as(logits)
        losses = F.binary_cross_entropy_with_logits(logits, odd, reduction="none")
        config = self.encoder.config
        return ponder_loss(losses, pondering.log_probs, config.prior_rate, config.kl_weight).total

    def forward(self, values: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Classify (B, M) int64 values: (B,) bool whether odd, and (B,) int64 steps taken."""
        tokens = self.tokens(values)
        if isinstance(self.encoder, PerceiverEncoder):
            steps = torch.full((len(values),), self.encoder.config.num_blocks, device=values.device)
            halted = Halted(self.encoder(tokens), steps)
        else:
            halted = self.encoder.halt(tokens, generator=generator)
        return self.logits(halted.latents) > 0, halted.steps

    def tokens(self, values: Tensor) -> Tensor:
        """(B, M) int64 values to (B, M, C) float."""
        positions = self.positions(values.shape[-1]).expand(len(values), -1, -1)
        return torch.cat((F.one_hot(values + 1, NUM_VALUES).to(positions.dtype), positions), dim=-1)

    def logits(self, latents: Tensor) -> Tensor:
        """(..., L, D) float latents to (...) float."""
        logits: Tensor = self.classifier(self.norm(latents).mean(-2)).squeeze(-1)
        return logits


def train(setting: Setting, seed: int) -> ParityModel:
    """Train a model on examples that are new in every update.

    Args:
        setting: what and how.
        seed: of the weights and the examples; torch's own generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ParityModel(setting)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: _pace((n + 1) / setting.num_updates))
    for _ in range(setting.num_updates):
        optimizer.zero_grad()
        model.loss(draw(setting.batch_size, setting.length, generator)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
    return model


class Score(NamedTuple):
    """How a model did on fresh examples, by the number of elements that are not 0: row k - 1 for k."""

    correct: Tensor  # (M,) int64
    examples: Tensor  # (M,) int64
    steps: Tensor  # (M,) int64, added up over the examples

    @property
    def accuracy(self) -> float:
        """Of all examples."""
        return float(self.correct.sum() / self.examples.sum())

    @property
    def mean_steps(self) -> float:
        """Of all examples."""
        return float(self.steps.sum() / self.examples.sum())


@torch.no_grad()
def score(model: ParityModel, num_examples: int, seed: int) -> Score:
    """Try a model.

    Args:
        model: a trained one.
        num_examples: how many are drawn.
        seed: of the examples and of drawn halting; give one that no training had.
    """
    generator = torch.Generator().manual_seed(seed)
    batch = draw(num_examples, len(model.positions.table), generator)
    odd, steps = model(batch.values, generator)
    row, length = batch.num_nonzero - 1, batch.values.shape[-1]
    zeros = torch.zeros(length, dtype=torch.int64)
    correct = zeros.index_add(0, row, (odd == batch.odd).long())
    return Score(correct, row.bincount(minlength=length), zeros.index_add(0, row, steps))


def _pace(done: float) -> float:
    """Step size over its largest after that part of the updates, in (0, 1]."""
    return min(done / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * done))
