"""Parity along a linked list: a task that takes as many steps as the list is long.

Of M elements each bears a bit and names its successor, or none. The list that begins at the first element
is of a length drawn from 1 … M - 1, a longer one less often; all other elements form a second list, which
does not count. The label says whether the ones on the first list are odd in number. An answer before the
last link has been followed is worth no more than chance: a bit that was not read may be either.

PonderNet's own parity (Banino et al., arXiv:2107.05407, section 4.1) is that of a whole vector. Attention
counts it in one read, whatever the depth.

A Perceiver with a single latent reads the elements before each application of its block, so that a step
follows one link. The block is applied a fixed number of times, or as often as the model decides itself,
with the same weights. In training it is told, after each step, where on the list it should be and the
parity up to there, whichever way its depth is decided: to find out about all links at once from the answer
alone takes more luck than data. Such hints are usual for learning algorithms (CLRS, arXiv:2205.15659).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_policy.adaptive import AdaptiveConfig, AdaptiveEncoder, Halted, ponder_loss
from perceiver_policy.config import EncoderConfig, Sharing
from perceiver_policy.core import PerceiverEncoder

RARER = 0.5
"""How often a list is met beside one shorter by one element."""
RARER_IN_TRAINING = 0.75
"""The same of a training's examples, of which more are long."""
ADAM_BETAS = (0.9, 0.99)
MAX_GRADIENT_NORM = 1.0
WARM_UP = 0.05
"""Part of the updates over which the step size rises; it falls to 0 over the others, as a cosine."""


class Parity(NamedTuple):
    """A batch of the task."""

    bits: Tensor  # (B, M) int64, 0 or 1
    order: Tensor  # (B, M) int64, elements of the first list and then of the other, as they follow
    successors: Tensor  # (B, M) int64, an element's index; M at the end of a list
    length: Tensor  # (B,) int64, 1 … M - 1, of the list that begins at element 0
    odd: Tensor  # (B,) bool, whether that list's ones are odd in number


def draw(
    batch_size: int,
    num_elements: int,
    generator: torch.Generator,
    *,
    rarer: float = RARER,
) -> Parity:
    """Draw examples.

    Args:
        batch_size: B.
        num_elements: M.
        generator: what they are drawn from.
        rarer: how often a length is drawn beside the one below.
    """
    weights = rarer ** torch.arange(num_elements - 1, dtype=torch.float64)
    length = 1 + torch.multinomial(weights, batch_size, replacement=True, generator=generator)
    # Both lists' elements in order, the first list's first.
    rank = torch.rand(batch_size, num_elements, generator=generator)
    rank[:, 0] = -1
    order = rank.argsort(-1)
    following = torch.cat((order[:, 1:], torch.full((batch_size, 1), num_elements)), dim=-1)
    following = following.scatter(1, length.unsqueeze(-1) - 1, num_elements)
    successors = torch.zeros_like(order).scatter(1, order, following)
    bits = torch.randint(2, (batch_size, num_elements), generator=generator)
    counts = torch.arange(num_elements) < length.unsqueeze(-1)
    odd = (bits.gather(1, order) * counts).sum(-1) % 2 == 1
    return Parity(bits, order, successors, length, odd)


def hints(batch: Parity, num_steps: int) -> tuple[Tensor, Tensor]:
    """Where a step should lead, for steps 1 … N: the element reached, the last of the list after its end,
    and the parity of the bits up to there, (N, B) int64 each."""
    steps = torch.arange(num_steps).unsqueeze(-1)
    place = torch.minimum(steps, batch.length - 1)
    element = batch.order.gather(1, place.T).T
    running = (batch.bits.gather(1, batch.order).cumsum(-1) % 2).gather(1, place.T).T
    return element, running


@dataclass(frozen=True)
class Setting:
    """A model and its training."""

    num_elements: int
    """M."""
    num_steps: int
    """How often the block is applied; where the model decides, at most."""
    adaptive: AdaptiveConfig | None = None
    """How the model decides; None for a fixed number of steps."""
    num_channels: int = 32
    """Of the latent."""
    num_updates: int = 2000
    batch_size: int = 128
    learning_rate: float = 5e-3


class ParityModel(nn.Module):
    """Tokens, encoder, classifier.

    Args:
        setting: sizes.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.num_elements = setting.num_elements
        core = EncoderConfig(
            num_latents=1,
            num_latent_channels=setting.num_channels,
            num_cross_attention_layers=setting.num_steps,
            cross_attention_sharing=Sharing.ALL,
            num_cross_attention_heads=1,
            num_blocks=setting.num_steps,
        )
        encoder = PerceiverEncoder(core, 2 * setting.num_elements + 2)
        self.encoder = encoder if setting.adaptive is None else AdaptiveEncoder(setting.adaptive, encoder)
        self.norm = nn.LayerNorm(setting.num_channels)
        self.classifier = nn.Linear(setting.num_channels, 1)
        self.hint = nn.Linear(setting.num_channels, setting.num_elements + 1)  # in training only

    def loss(self, batch: Parity) -> Tensor:
        """() float: cross-entropy in nats, of the answer, expected over the steps and with its prior where
        they vary, and of the hints."""
        tokens = self.tokens(batch)
        if isinstance(self.encoder, PerceiverEncoder):
            latents = torch.stack(list(self.encoder.stages(tokens)))
            answer = F.binary_cross_entropy_with_logits(self.logits(latents[-1]), batch.odd.float())
            return answer + self._hint_loss(latents, batch)
        pondering = self.encoder(tokens)
        logits = self.logits(pondering.latents)
        odd = batch.odd.float().expand_as(logits)
        losses = F.binary_cross_entropy_with_logits(logits, odd, reduction="none")
        config = self.encoder.config
        answer = ponder_loss(losses, pondering.log_probs, config.prior_rate, config.kl_weight).total
        return answer + self._hint_loss(pondering.latents, batch)

    def forward(self, batch: Parity, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Classify a batch, whatever its labels: (B,) bool whether odd, and (B,) int64 steps taken."""
        tokens = self.tokens(batch)
        if isinstance(self.encoder, PerceiverEncoder):
            steps = torch.full_like(batch.length, self.encoder.config.num_blocks)
            halted = Halted(self.encoder(tokens), steps)
        else:
            halted = self.encoder.halt(tokens, generator=generator)
        return self.logits(halted.latents) > 0, halted.steps

    def _hint_loss(self, latents: Tensor, batch: Parity) -> Tensor:
        """() float, the mean over steps; latents (N, B, L, D)."""
        element, running = hints(batch, len(latents))
        told = self.hint(self.norm(latents).mean(-2))
        reached = F.cross_entropy(told[..., :-1].flatten(0, 1), element.flatten())
        return reached + F.binary_cross_entropy_with_logits(told[..., -1], running.float())

    def tokens(self, batch: Parity) -> Tensor:
        """(B, M, 2 M + 2) float: of each element its index, its successor's, and its bit as -1 or 1."""
        size = self.num_elements
        own = torch.eye(size, device=batch.bits.device).expand(len(batch.bits), -1, -1)
        successor = F.one_hot(batch.successors, size + 1).to(own.dtype)
        return torch.cat((own, successor, (2 * batch.bits - 1).unsqueeze(-1).to(own.dtype)), dim=-1)

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
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.learning_rate, betas=ADAM_BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: _pace((n + 1) / setting.num_updates))
    for _ in range(setting.num_updates):
        optimizer.zero_grad()
        batch = draw(setting.batch_size, setting.num_elements, generator, rarer=RARER_IN_TRAINING)
        model.loss(batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
    return model


class Score(NamedTuple):
    """How a model did on fresh examples, by the length of the list: row k - 1 for k."""

    correct: Tensor  # (M - 1,) int64
    examples: Tensor  # (M - 1,) int64
    steps: Tensor  # (M - 1,) int64, added up over the examples

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
    batch = draw(num_examples, model.num_elements, generator)
    odd, steps = model(batch, generator)
    row, size = batch.length - 1, model.num_elements - 1
    zeros = torch.zeros(size, dtype=torch.int64)
    correct = zeros.index_add(0, row, (odd == batch.odd).long())
    return Score(correct, row.bincount(minlength=size), zeros.index_add(0, row, steps))


def _pace(done: float) -> float:
    """Step size over its largest after that part of the updates, in (0, 1]."""
    return min(done / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * done))
