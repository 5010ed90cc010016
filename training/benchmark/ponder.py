"""Adaptive depth on parity, beside the same model of fixed depth at the same cost.

Three models with the same block, weights shared by its applications, and the same number of updates on as
many examples: one that decides how often to apply it (PonderNet), one that always applies it as often as
that one did on average, rounded up, and one that applies it once, which says what depth is worth here.
All are tried on the same fresh examples.

Attention over the elements counts the ones in one read, so that depth is not what this task lacks here: no
model has to fail for the numbers to be sound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from perceiver_policy.adaptive import AdaptiveConfig
from training.benchmark.rows import Row, row, row_against
from training.evaluate import wilson
from training.tasks.parity import Score, Setting, score, train

SEEDS = (0, 1, 2)
LENGTH = 12
MOST_STEPS = 10
NUM_GROUPS = 4
"""Parts of the numbers of elements that are not 0 that are reported apart."""
NUM_EXAMPLES = 10_000
UNSEEN = 1_000_000
"""Added to a training's seed it is that of the examples its model is tried on."""

FIXED = Setting(LENGTH, num_steps=1, num_updates=1000, learning_rate=3e-3)
ADAPTIVE = replace(FIXED, num_steps=MOST_STEPS, adaptive=AdaptiveConfig(prior_rate=0.2, kl_weight=0.01))


def measure(command: str) -> list[Row]:
    """Accuracy and steps, over the seeds and by how many elements are not 0. Minutes, one thread of torch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ponder = _scores(ADAPTIVE)
        depth = math.ceil(sum(s.mean_steps for s in ponder) / len(ponder))
        fixed, once = (_scores(replace(FIXED, num_steps=num_steps)) for num_steps in (depth, 1))
    finally:
        torch.set_num_threads(threads)
    rival = f"fixed depth {depth}"
    name = f"ponder/parity_{LENGTH}"
    rows = _accuracy_rows(f"{name}/accuracy", ponder, rival, fixed, command)
    rows.append(
        row_against(
            f"{name}/accuracy/one_step",
            "of examples",
            [s.accuracy for s in ponder],
            command,
            "fixed depth 1",
            [s.accuracy for s in once],
        )
    )
    rows.append(row(f"{name}/steps", "steps", [s.mean_steps for s in ponder], command))
    for first in range(0, LENGTH, LENGTH // NUM_GROUPS):
        group = slice(first, first + LENGTH // NUM_GROUPS)
        label = f"nonzero_{first + 1}_{group.stop}"
        part = [_part(s, group) for s in ponder]
        theirs = [_part(s, group).accuracy for s in fixed]
        accuracy = [s.accuracy for s in part]
        rows.append(row_against(f"{name}/accuracy/{label}", "of examples", accuracy, command, rival, theirs))
        rows.append(row(f"{name}/steps/{label}", "steps", [s.mean_steps for s in part], command))
    return rows


def _scores(setting: Setting) -> list[Score]:
    return [score(train(setting, seed), NUM_EXAMPLES, UNSEEN + seed) for seed in SEEDS]


def _accuracy_rows(
    name: str, ours: Sequence[Score], rival_name: str, rival: Sequence[Score], command: str
) -> list[Row]:
    """The median over seeds, and the ends of Wilson's interval of all seeds' examples together."""
    rows = [
        row_against(
            name, "of examples", [s.accuracy for s in ours], command, rival_name, [s.accuracy for s in rival]
        )
    ]
    sides = [
        wilson(sum(int(s.correct.sum()) for s in side), sum(int(s.examples.sum()) for s in side))
        for side in (ours, rival)
    ]
    for end, (mine, theirs) in zip(("low", "high"), zip(*sides, strict=True), strict=True):
        rows.append(row_against(f"{name}/{end}", "of examples", [mine], command, rival_name, [theirs]))
    return rows


def _part(whole: Score, group: slice) -> Score:
    """Of the examples with so many elements that are not 0."""
    return Score(*(counts[group] for counts in whole))
