"""Adaptive depth on parity along a linked list, beside the same model of fixed depth at the same mean cost.

All models have the same block, weights shared by its applications, and the same number of updates on as
many examples: one decides how often to apply it (PonderNet), one always applies it as often as that one did
on average, rounded up; one applies it as often as the first one may at most, at more cost, and one once.
All are tried on the same fresh examples, lists of which most are short: cost is applications of the block,
on average. In training the adaptive model costs as much as the deepest.
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
NUM_ELEMENTS = 8
MOST_STEPS = 8
NUM_EXAMPLES = 10_000
UNSEEN = 1_000_000
"""Added to a training's seed it is that of the examples its model is tried on."""

FIXED = Setting(NUM_ELEMENTS, num_steps=1)
ADAPTIVE = replace(FIXED, num_steps=MOST_STEPS, adaptive=AdaptiveConfig(prior_rate=0.4, kl_weight=0.002))


def measure(command: str) -> list[Row]:
    """Accuracy and steps, over the seeds and by the length of the list. Minutes, one thread of torch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ponder = _scores(ADAPTIVE)
        depth = math.ceil(sum(s.mean_steps for s in ponder) / len(ponder))
        fixed, deepest, once = (
            _scores(replace(FIXED, num_steps=num_steps)) for num_steps in (depth, MOST_STEPS, 1)
        )
    finally:
        torch.set_num_threads(threads)
    rival = f"fixed depth {depth}"
    name = f"ponder/parity_{NUM_ELEMENTS}"
    rows = _accuracy_rows(f"{name}/accuracy", ponder, rival, fixed, command)
    # Lists that the rival cannot follow to their end.
    long = slice(min(depth, NUM_ELEMENTS - 2), NUM_ELEMENTS - 1)
    rows += _accuracy_rows(f"{name}/accuracy/long", _part(ponder, long), rival, _part(fixed, long), command)
    accuracy = [s.accuracy for s in ponder]
    for label, num_steps, theirs in (("most_steps", MOST_STEPS, deepest), ("one_step", 1, once)):
        their_accuracy = [s.accuracy for s in theirs]
        their_name = f"fixed depth {num_steps}"
        rows.append(
            row_against(
                f"{name}/accuracy/{label}", "of examples", accuracy, command, their_name, their_accuracy
            )
        )
    rows.append(row(f"{name}/steps", "steps", [s.mean_steps for s in ponder], command))
    for length in range(1, NUM_ELEMENTS):
        ours, theirs = (_part(scores, slice(length - 1, length)) for scores in (ponder, fixed))
        mine, their_accuracy = ([s.accuracy for s in scores] for scores in (ours, theirs))
        label = f"length_{length}"
        rows.append(
            row_against(f"{name}/accuracy/{label}", "of examples", mine, command, rival, their_accuracy)
        )
        rows.append(row(f"{name}/steps/{label}", "steps", [s.mean_steps for s in ours], command))
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


def _part(scores: Sequence[Score], lengths: slice) -> list[Score]:
    """Of the examples whose lists are of these lengths."""
    return [Score(*(counts[lengths] for counts in whole)) for whole in scores]
