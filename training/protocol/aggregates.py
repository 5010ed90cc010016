"""Many runs on many scenarios as one number with an interval: the statistics of Agarwal et al. (2021).

Scores of an algorithm are a sequence of arrays, one a task (a scenario), each ``(runs,)`` float: what the
runs reached on the task, such as win rates. Tasks may have different numbers of runs. (Agarwal et al., "Deep
reinforcement learning at the edge of the statistical precipice", NeurIPS 2021; with the same number of runs
everywhere the numbers are those of the authors' ``rliable``.)

Intervals are percentiles of a stratified bootstrap: runs are drawn with replacement within each task, tasks
are kept. They say what other seeds would have given on these tasks, and nothing of other tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap, trim_mean

CONFIDENCE = 0.95
RESAMPLES = 10_000
_SEED = 0x62  # of the resampling: the same runs give the same interval

Scores: TypeAlias = Sequence[NDArray[np.float64]]
Statistic: TypeAlias = Callable[..., Any]
"""Of tasks (..., runs) each: (...) or (k, ...), by an ``axis`` that is always -1."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval, which is None where a task has only one run."""

    value: float
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def iqm(*tasks: NDArray[np.float64], axis: int = -1) -> Any:
    """Interquartile mean: the mean of the middle half of all runs of all tasks."""
    return trim_mean(np.concatenate(tasks, axis=axis), 0.25, axis=axis)


def mean(*tasks: NDArray[np.float64], axis: int = -1) -> Any:
    """Mean over tasks of the mean over runs."""
    return np.mean(_task_means(tasks, axis), axis=0)


def median(*tasks: NDArray[np.float64], axis: int = -1) -> Any:
    """Median over tasks of the mean over runs."""
    return np.median(_task_means(tasks, axis), axis=0)


def optimality_gap(*tasks: NDArray[np.float64], axis: int = -1) -> Any:
    """By how much all runs of all tasks miss 1 on average: 1 - mean(min(score, 1))."""
    return 1.0 - np.mean(np.minimum(np.concatenate(tasks, axis=axis), 1.0), axis=axis)


AGGREGATES: dict[str, Statistic] = {
    "iqm": iqm,
    "mean": mean,
    "median": median,
    "optimality_gap": optimality_gap,
}


def estimate(statistic: Statistic, scores: Scores, *, resamples: int = RESAMPLES) -> Estimate:
    """A statistic of an algorithm's scores.

    Args:
        statistic: one of :data:`AGGREGATES`.
        scores: (runs,) float of each task.
        resamples: of the bootstrap.

    Raises:
        ValueError: there is no task, or a task without a run.
    """
    tasks = _checked(scores)
    low, high = _interval(statistic, tasks, resamples)
    if low is None or high is None:
        return Estimate(float(statistic(*tasks)), None, None)
    return Estimate(float(statistic(*tasks)), float(low), float(high))


def probability_of_improvement(x: Scores, y: Scores, *, resamples: int = RESAMPLES) -> Estimate:
    """How likely a run of X does better than one of Y on a task drawn at random: the mean over tasks of
    P(X_m > Y_m) + P(X_m = Y_m) / 2, a Mann-Whitney U over its largest value.

    Args:
        x, y: (runs,) float of each task; the tasks are the same, in the same order.
        resamples: of the bootstrap, which draws the runs of both.

    Raises:
        ValueError: the two have different numbers of tasks, none, or a task without a run.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} tasks of the one and {len(y)} of the other cannot be compared")
    both = [*_checked(x), *_checked(y)]

    def improvement(*tasks: NDArray[np.float64], axis: int = -1) -> Any:
        pairs = zip(tasks[: len(x)], tasks[len(x) :], strict=True)
        return np.mean([_superiority(ours, theirs) for ours, theirs in pairs], axis=0)

    return estimate(improvement, both, resamples=resamples)


@dataclass(frozen=True)
class Profile:
    """A performance profile: of each threshold, the share of all runs of all tasks that score above it."""

    thresholds: NDArray[np.float64]  # (k,)
    share: NDArray[np.float64]  # (k,)
    low: NDArray[np.float64] | None  # (k,), pointwise; None where a task has only one run
    high: NDArray[np.float64] | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: None if array is None else array.tolist() for name, array in vars(self).items()}


def performance_profile(scores: Scores, thresholds: ArrayLike, *, resamples: int = 2000) -> Profile:
    """The profile of an algorithm's scores over thresholds (k,).

    Raises:
        ValueError: there is no task, or a task without a run.
    """
    taus = np.asarray(thresholds, np.float64)

    def share_above(*tasks: NDArray[np.float64], axis: int = -1) -> Any:
        runs = np.concatenate(tasks, axis=axis)
        return np.mean(runs > taus.reshape(-1, *(1,) * runs.ndim), axis=-1)

    tasks = _checked(scores)
    return Profile(taus, share_above(*tasks), *_interval(share_above, tasks, resamples))


def _interval(statistic: Statistic, tasks: Scores, resamples: int) -> tuple[Any, Any]:
    """Percentile interval; (None, None) where a task has one run, of which nothing can be drawn anew."""
    if min(len(task) for task in tasks) < 2:
        return None, None
    interval = bootstrap(
        tuple(tasks),
        statistic,
        n_resamples=resamples,
        batch=500,
        vectorized=True,
        axis=-1,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return interval.low, interval.high


def _checked(scores: Scores) -> list[NDArray[np.float64]]:
    tasks = [np.asarray(task, np.float64) for task in scores]
    if not tasks or any(task.ndim != 1 or not len(task) for task in tasks):
        shapes = [task.shape for task in tasks]
        raise ValueError(f"scores of tasks have the shapes {shapes}; at least one task of (runs,) is needed")
    return tasks


def _task_means(tasks: Scores, axis: int) -> NDArray[np.float64]:
    return np.stack([task.mean(axis) for task in tasks])


def _superiority(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(...) P(X > Y) + P(X = Y) / 2 of runs x (..., n) and y (..., m)."""
    difference = np.sign(x[..., :, None] - y[..., None, :])
    return (1 + difference.mean((-2, -1))) / 2
