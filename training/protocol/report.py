"""What many runs amount to: the report of the protocol, as JSON and as tables.

Every number comes from battles that :mod:`training.protocol.final` played after training. Of several runs of
an algorithm on a scenario the mean is given with a bootstrap interval over runs, which says what other seeds
might reach; of a single run its Wilson interval over battles, which does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.battle.tactics import DEFAULT
from training.evaluate import EvaluationResult, Measure, paired_p_value, provenance
from training.protocol.aggregates import (
    AGGREGATES,
    Estimate,
    Profile,
    Scores,
    estimate,
    iqm,
    mean,
    performance_profile,
    probability_of_improvement,
)
from training.protocol.final import Plan, Played
from training.protocol.runs import Run

THRESHOLDS = np.linspace(0.0, 1.0, 101)
"""Win rates at which profiles are evaluated."""
CURVE_POINTS = 50
CURVE_RESAMPLES = 1000
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Curve:
    """IQM over runs and scenarios in the course of training."""

    env_steps: NDArray[np.float64]  # (k,)
    estimates: tuple[Estimate, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"env_steps": self.env_steps.tolist(), "iqm": [one.to_dict() for one in self.estimates]}


@dataclass(frozen=True)
class Report:
    """Runs and what they played, with what follows from it."""

    runs: Sequence[Run]
    played: Played
    plan: Plan

    @property
    def algorithms(self) -> list[str]:
        """In the order of the runs."""
        return list(dict.fromkeys(run.algorithm for run in self.runs))

    @property
    def scenarios(self) -> list[str]:
        """All that were trained on."""
        return list(dict.fromkeys(run.scenario for run in self.runs))

    @property
    def tasks(self) -> list[str]:
        """Scenarios that are aggregated: those with a winner that every algorithm has a run of."""
        won = {
            run.scenario
            for i, run in enumerate(self.runs)
            if self.played.absolute[i].measure is Measure.WIN_RATE
        }
        return [
            scenario
            for scenario in self.scenarios
            if scenario in won and all(self.places(name, scenario) for name in self.algorithms)
        ]

    def places(self, algorithm: str, scenario: str) -> list[int]:
        """Of the runs of an algorithm on a scenario."""
        return [
            i for i, run in enumerate(self.runs) if (run.algorithm, run.scenario) == (algorithm, scenario)
        ]

    def scores(self, algorithm: str) -> Scores:
        """Win rates of the best policies: of each task, (runs,)."""
        return [
            np.array([self.played.absolute[i].mean for i in self.places(algorithm, task)])
            for task in self.tasks
        ]

    @cached_property
    def aggregates(self) -> dict[str, dict[str, Estimate]]:
        """By algorithm, every aggregate by name."""
        return {
            algorithm: {
                name: estimate(statistic, self.scores(algorithm)) for name, statistic in AGGREGATES.items()
            }
            for algorithm in self.algorithms
        }

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """By algorithm, the share of runs above each win rate."""
        return {name: performance_profile(self.scores(name), THRESHOLDS) for name in self.algorithms}

    @cached_property
    def improvements(self) -> dict[tuple[str, str], Estimate]:
        """Of each two algorithms, how likely the first does better."""
        pairs = [(x, y) for i, x in enumerate(self.algorithms) for y in self.algorithms[i + 1 :]]
        return {(x, y): probability_of_improvement(self.scores(x), self.scores(y)) for x, y in pairs}

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """By algorithm, where all its runs have evaluations of the same stretch of training."""
        found = {name: self._curve(name) for name in self.algorithms}
        return {name: curve for name, curve in found.items() if curve is not None}

    def _curve(self, algorithm: str) -> Curve | None:
        """On steps that all runs have reached; between two evaluations, the straight line."""
        runs = [[self.runs[i] for i in self.places(algorithm, task)] for task in self.tasks]
        every = [run for task in runs for run in task]
        if not every or not all(run.points for run in every):
            return None
        first = max(run.points[0].env_steps for run in every)
        last = min(run.points[-1].env_steps for run in every)
        steps = np.unique(np.linspace(first, last, CURVE_POINTS).round()) if last > first else np.empty(0)
        if not len(steps):
            return None
        values = [np.stack([_along(run, steps) for run in task]) for task in runs]  # of a task (runs, k)
        estimates = [
            estimate(iqm, [task[:, k] for task in values], resamples=CURVE_RESAMPLES)
            for k in range(len(steps))
        ]
        return Curve(steps, tuple(estimates))

    def best_script(self, place: int) -> tuple[str, EvaluationResult] | None:
        """The script that does best where a run was trained, against its opponent; None if none played."""
        run = self.runs[place]
        return self.best_script_of(run.scenario, run.config.control, run.config.opponent)

    def best_script_of(
        self, scenario: str, control: str, opponent: str = DEFAULT
    ) -> tuple[str, EvaluationResult] | None:
        """The script that does best on a scenario; None if none played."""
        scripts = self.played.scripts.get((scenario, opponent, control), {})
        return max(scripts.items(), key=lambda item: item[1].mean) if scripts else None

    def to_dict(self) -> dict[str, Any]:
        """For a report file."""
        comparable = bool(self.tasks)
        return {
            "plan": vars(self.plan)
            | {"unseen": list(self.plan.unseen), "elsewhere": list(self.plan.elsewhere)},
            "tasks": self.tasks,
            "aggregates": {
                name: {key: value.to_dict() for key, value in values.items()}
                for name, values in (self.aggregates if comparable else {}).items()
            },
            "probability_of_improvement": [
                {"of": x, "over": y} | value.to_dict()
                for (x, y), value in (self.improvements if comparable else {}).items()
            ],
            "performance_profiles": {
                name: profile.to_dict() for name, profile in (self.profiles if comparable else {}).items()
            },
            "sample_efficiency": {name: curve.to_dict() for name, curve in self.curves.items()},
            "runs": [self._run(place) for place in range(len(self.runs))],
            "paired": list(self._paired()),
        } | provenance()

    def _run(self, place: int) -> dict[str, Any]:
        run, played = self.runs[place], self.played
        best, last = self.best_script(place), run.points[-1] if run.points else None
        return {
            "run": str(run.path),
            "algorithm": run.algorithm,
            "scenario": run.scenario,
            "opponent": run.config.opponent,
            "seed": run.config.seed,
            "open_loop": run.open_loop,
            "env_steps": last and last.env_steps,
            "train_seconds": last and last.train_seconds,
            "absolute": played.absolute[place].summary(),
            "compared": played.compared[place].summary(),
            "best_script": best
            and {
                "script": best[0],
                **best[1].summary(),
                "paired_p_value": paired_p_value(played.compared[place], best[1]),
            },
            "unseen": _summaries(played.unseen[place]),
            "elsewhere": _summaries(played.elsewhere[place]),
        }

    def _paired(self) -> Iterable[dict[str, Any]]:
        """Runs of different algorithms on the same scenario, of equal seeds, on the same battles."""
        for i, first in enumerate(self.runs):
            for j, second in enumerate(self.runs):
                ours, theirs = self.played.compared[i], self.played.compared[j]
                same = (first.scenario, first.config.seed) == (second.scenario, second.config.seed)
                if i >= j or not same or ours.opponent != theirs.opponent or ours.control != theirs.control:
                    continue
                if not np.array_equal(ours.side, theirs.side):
                    continue
                yield {
                    "scenario": first.scenario,
                    "seed": first.config.seed,
                    "of": first.algorithm,
                    "over": second.algorithm,
                    "difference": ours.mean - theirs.mean,
                    "p_value": paired_p_value(ours, theirs),
                }


def over_runs(results: Sequence[EvaluationResult]) -> Estimate:
    """The mean of several runs with its interval over runs; of one, its interval over battles.

    Raises:
        ValueError: there is no result.
    """
    if len(results) == 1:
        low, high = results[0].interval
        return Estimate(results[0].mean, float(low), float(high))
    return estimate(mean, [np.array([result.mean for result in results])])


def _along(run: Run, steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """A run's win rate at steps of its training, (k,)."""
    return np.interp(
        steps, [point.env_steps for point in run.points], [point.result.mean for point in run.points]
    )


def _summaries(results: Mapping[str, EvaluationResult]) -> dict[str, Any]:
    return {name: result.summary() for name, result in results.items()}
