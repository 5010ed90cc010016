"""The copy task of Perceiver AR: read random symbols, then say them again from the last to the first.

A sequence of 32 tokens is a start, 15 random symbols of 256, the same in reverse, and an end, as in the task
that DeepMind's code (arXiv:2202.07765) calls ``random_mirrored_32``. The latents stand on the last 16
positions that predict, so that the symbols can only be read by the cross-attention. Which of them comes next
is decided by the place, as its mirror image, not by a distance: hence absolute positions, as in DeepMind's
configuration.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from perceiver_policy.autoregressive import PerceiverAR
from perceiver_policy.autoregressive_config import AbsolutePositions, PerceiverARConfig
from perceiver_policy.generation import GREEDY, generate

START, END, FIRST_SYMBOL = 0, 1, 2


@dataclass(frozen=True)
class CopyTask:
    """How to draw sequences.

    Attributes:
        num_symbols: how many different ones.
        length: n, how many are to be copied; a sequence has 2 n + 2 tokens.
    """

    num_symbols: int = 256
    length: int = 15

    @property
    def vocabulary_size(self) -> int:
        """Symbols, start and end."""
        return self.num_symbols + FIRST_SYMBOL

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """(batch, 2 n + 2) int64."""
        symbols = torch.randint(FIRST_SYMBOL, self.vocabulary_size, (batch, self.length), generator=generator)
        edge = torch.ones(batch, 1, dtype=torch.int64)
        return torch.cat((START * edge, symbols, symbols.flip(1), END * edge), dim=1)


def small_model(task: CopyTask) -> PerceiverARConfig:
    """A model for the task that trains on a CPU: one self-attention layer, as DeepMind's, of 64 channels."""
    return PerceiverARConfig(
        vocabulary_size=task.vocabulary_size,
        max_context=2 * task.length + 2,
        num_latents=task.length + 1,
        num_channels=64,
        num_cross_attention_heads=2,
        num_self_attention_heads=4,
        num_self_attention_layers=1,
        rotary_base=100.0,
        absolute_positions=AbsolutePositions.SINUSOIDAL,
        z_loss=1e-4,
    )


@dataclass(frozen=True)
class Training:
    """Adam, with a learning rate that rises linearly and then falls by a cosine to zero."""

    num_steps: int = 800
    batch: int = 128
    learning_rate: float = 3e-3
    num_warmup_steps: int = 100
    max_gradient_norm: float = 1.0
    evaluate_every: int = 100
    num_fresh: int = 1000
    """Sequences of an evaluation, drawn anew each time."""


class Progress(NamedTuple):
    """An evaluation during training."""

    step: int
    seconds: float  # of training alone
    loss: float  # nats a token, the z-loss included, of the last batch
    accuracy: float  # share of fresh sequences copied without a mistake


class Trained(NamedTuple):
    """What came of training."""

    model: PerceiverAR
    progress: list[Progress]

    @property
    def num_steps_to_perfect(self) -> int | None:
        """Steps until an evaluation without a single mistake; None if there was none."""
        return next((p.step for p in self.progress if p.accuracy == 1.0), None)


def train(
    task: CopyTask,
    seed: int,
    training: Training | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train a small model.

    Args:
        task: what to copy.
        seed: of the weights and of the sequences.
        training: how.
        report: called at each evaluation.
    """
    training = training or Training()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PerceiverAR(small_model(task))
    progress: list[Progress] = []
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    seconds = 0.0
    for step in range(1, training.num_steps + 1):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * _schedule(step, training)
        loss = model.loss(task.draw(training.batch, generator))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), training.max_gradient_norm)
        optimizer.step()
        seconds += time.perf_counter() - began
        if step % training.evaluate_every == 0 or step == training.num_steps:
            accuracy = share_copied(model, task, training.num_fresh, generator)
            progress.append(Progress(step, seconds, loss.item(), accuracy))
            if report is not None:
                report(progress[-1])
    return Trained(model, progress)


def share_copied(model: PerceiverAR, task: CopyTask, num_sequences: int, generator: torch.Generator) -> float:
    """Share of fresh sequences of which greedy generation draws the second half and the end, all correct."""
    sequences = task.draw(num_sequences, generator)
    prompt, expected = sequences.split((task.length + 1, task.length + 1), dim=1)
    drawn = generate(model, prompt, task.length + 1, sampling=GREEDY)
    return (drawn == expected).all(1).float().mean().item()


def _schedule(step: int, training: Training) -> float:
    falling = 0.5 + 0.5 * math.cos(math.pi * step / training.num_steps)
    return min(step / training.num_warmup_steps, falling)
