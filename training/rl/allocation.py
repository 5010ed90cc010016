"""How many battles each scenario of a mixture gets, and which runner plays them. Pure functions.

A scenario's weight is its share of the battles, so of the steps, too: the loss counts each step of a battle
the same, whatever the number of units (``training/rl/sizes.py``). What it costs to learn from a step grows
with the units, so that of equal shares the large battles take most of the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def allocate(weights: Sequence[float], num_battles: int, least: Sequence[int]) -> tuple[int, ...]:
    """Battles per scenario: in proportion to the weights, but no fewer than ``least``; all of them handed
    out.

    What is left after whole battles goes to the largest remainders, the first of equal ones (Hamilton's
    method); a scenario held at its least takes no part in the proportion of the others.

    Args:
        weights: of the scenarios, above 0 in sum, none negative.
        num_battles: to hand out.
        least: battles that each scenario must have.

    Raises:
        ValueError: there are fewer battles than the least of all scenarios together.
    """
    if sum(least) > num_battles:
        raise ValueError(
            f"num_battles is {num_battles}; this mixture needs at least {sum(least)}, one for each scenario "
            "and side that is played: give more, or name fewer scenarios"
        )
    weight, floor = np.asarray(weights, float), np.asarray(least)
    held = np.zeros(len(weight), bool)
    while True:
        free = num_battles - floor[held].sum()
        share = np.where(held, 0.0, weight)
        exact = free * share / share.sum() if share.any() else np.zeros(len(weight))
        below = ~held & (exact < floor)
        if not below.any():
            break
        held |= below
    counts = np.where(held, floor, np.floor(exact)).astype(int)
    remainders = np.where(held & share.any(), -1.0, exact - np.floor(exact))
    for index in np.argsort(-remainders, kind="stable")[: num_battles - counts.sum()]:
        counts[index] += 1
    return tuple(counts.tolist())


def deal(counts: Sequence[int], runner: int, num_runners: int) -> list[tuple[int, int]]:
    """What one of several runners plays of each scenario: how many battles, and which of them is its first.

    Battles are dealt in turn, so that every runner has its share of small and of large ones and none waits
    long for another.

    Args:
        counts: battles per scenario; their sum is a multiple of ``num_runners``.
        runner: from 0.
        num_runners: at least 1.
    """
    dealt, before = [], 0
    for count in counts:
        first = (runner - before) % num_runners  # of this scenario's battles, by number
        dealt.append((max(-(-(count - first) // num_runners), 0), first))
        before += count
    return dealt
