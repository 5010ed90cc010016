"""A benchmark's row, and how a rate is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

REPEATS = 5
CURVE = "/curve/"
"""In the name of a row that is a point of a curve: the file has it, no table does."""


@dataclass(frozen=True)
class Row:
    """One number, and that of a rival measured in the same run where there is one."""

    name: str
    unit: str
    ours: float
    spread: float
    """Largest minus smallest of the repeats, over their median; where there is a rival, the larger of the two
    sides', so that it says how far the ratio can be trusted."""
    command: str
    rival: float | None = None
    rival_name: str | None = None
    """The rival, its version and its best setting; where it could not be measured, why."""
    ratio: float | None = None
    """How many times better ours is; above 1 is better."""

    def to_dict(self) -> dict[str, Any]:
        """With JSON types and the keys of a benchmark file."""
        return asdict(self)


def rates(work: Callable[[], int], *, seconds: float = 0.5, repeats: int = REPEATS) -> list[float]:
    """Units of work a second, once a repeat, after a warm-up.

    Args:
        work: does some and returns how much.
        seconds: least duration of a repeat.
        repeats: how often.
    """
    return rates_in_turn([work], seconds=seconds, repeats=repeats)[0]


def rates_in_turn(
    works: Sequence[Callable[[], int]],
    *,
    seconds: float = 0.5,
    repeats: int = REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Units of work a second of each, once a repeat, after a warm-up of all.

    They take turns (A, B, C, A, B, ...), so that what else the machine does hits all of them.

    Args:
        works: each does some work and returns how much.
        seconds: least duration of a turn; it is one call at least.
        repeats: turns of each.
        clock: seconds; ``time.thread_time`` counts those that the thread spends on a core, and hardly changes
            with what else the machine does.
    """
    for work in works:
        work()
    measured: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for rates_, work in zip(measured, works, strict=True):
            rates_.append(_rate(work, seconds, clock))
    return measured


def _rate(work: Callable[[], int], seconds: float, clock: Callable[[], float]) -> float:
    began = clock()
    done = work()
    while (elapsed := clock() - began) < seconds:
        done += work()
    return done / elapsed


def row(name: str, unit: str, repeats: Sequence[float], command: str) -> Row:
    """The median of the repeats, with their spread."""
    return Row(name, unit, median(repeats), _spread(repeats), command)


def row_against(
    name: str,
    unit: str,
    repeats: Sequence[float],
    command: str,
    rival_name: str,
    rival: Sequence[float],
    *,
    less_is_better: bool = False,
) -> Row:
    """The medians of both sides' repeats, and how many times better ours is."""
    ours, theirs = median(repeats), median(rival)
    spread = max(_spread(repeats), _spread(rival))
    ratio = theirs / ours if less_is_better else ours / theirs
    return Row(name, unit, ours, spread, command, theirs, rival_name, ratio)


def _spread(repeats: Sequence[float]) -> float:
    return (max(repeats) - min(repeats)) / median(repeats)
