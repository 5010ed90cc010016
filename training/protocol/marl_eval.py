"""marl-eval's JSON (Gorsane et al., 2022): what its tools, and those of Mava and BenchMARL, read.

::

    environment / task / algorithm / run / step_1 ... step_k / {step_count, metric: [one an episode]}
                                         / absolute_metrics / {metric: [one an episode]}

Tasks are scenarios, runs are seeds, ``absolute_metrics`` are the best policy's over ten times the episodes.
Metrics: ``win_rate`` (1 won, 0 not), ``return``, ``episode_length`` in steps; of missions, an environment of
their own, ``score`` in place of ``win_rate``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.battle.batch import Outcome
from training.evaluate import EvaluationResult, Measure
from training.protocol.runs import Run

BATTLES, MISSIONS = "perceiver_policy", "perceiver_policy_missions"
ABSOLUTE_METRICS = "absolute_metrics"


def marl_eval_json(runs: Sequence[Run], absolute: Mapping[int, EvaluationResult]) -> dict[str, Any]:
    """All runs in marl-eval's layout.

    Its tools want as many steps of every run. Where a run stopped earlier than others of its environment, its
    last evaluation is repeated: it had reached what it was to reach.

    Args:
        runs: with evaluations in training.
        absolute: of each run, by its place, the best policy's evaluation.

    Raises:
        ValueError: a run made no evaluation in training.
    """
    require_curves(runs)
    environments = [MISSIONS if absolute[i].measure is Measure.SCORE else BATTLES for i in range(len(runs))]
    content: dict[str, Any] = {}
    for place, (run, environment) in enumerate(zip(runs, environments, strict=True)):
        alike = [other for other, its in zip(runs, environments, strict=True) if its == environment]
        longest = max(alike, key=lambda other: len(other.points)).points
        steps: dict[str, dict[str, Any]] = {}
        for index, at in enumerate(longest):
            point = run.points[min(index, len(run.points) - 1)]
            count = point.env_steps if index < len(run.points) else max(at.env_steps, point.env_steps)
            steps[f"step_{index + 1}"] = {"step_count": count} | _metrics(point.result)
        steps[ABSOLUTE_METRICS] = _metrics(absolute[place])
        task = content.setdefault(environment, {}).setdefault(run.scenario, {})
        task.setdefault(run.algorithm, {})[f"run_{run.config.seed}"] = steps
    return content


def require_curves(runs: Sequence[Run]) -> None:
    """Raise ValueError if a run made no evaluation in training."""
    for run in runs:
        if not run.points:
            raise ValueError(
                f"{run.path} holds no evaluations made in training, so it has no curve; train it with "
                "--evaluation-interval above 0"
            )


def _metrics(result: EvaluationResult) -> dict[str, Any]:
    if result.scores is not None:
        judged = {"score": result.scores.tolist()}
    else:
        judged = {"win_rate": (result.outcomes == Outcome.WIN_0).astype(float).tolist()}
    return judged | {"return": result.returns.tolist(), "episode_length": result.lengths.tolist()}
