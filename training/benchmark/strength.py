"""How long training takes until a policy is strong: seconds until it wins 1,000 greedy games so often that
the Wilson 95 % lower bound is at least 0.95, which 1,000 fresh games then confirm.

Seconds are those of sampling and learning. Start-up (Ray, the algorithm), evaluations and saving are left
out; start-up and evaluations have rows of their own. The simulator is compiled before. Seeds train one after
another in this process. One that is not there when its budget is spent counts as slower than all that are:
where that is half of them there is no median, and no row of it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from rich.console import Console

from agents.scripted import ScriptedAgent
from envs.battle.tactics import DEFAULT
from envs.scenarios import load_scenario
from training.benchmark.rows import Row, row
from training.evaluate import evaluate
from training.rl import TrainConfig, TrainResult, build_algorithm_config, train
from training.rl.job import StoppedBy
from training.suite.recipes import group_recipe, parse_changes

TARGET = 0.95
GAMES = 1000
INTERVAL = 4
"""Iterations between evaluations: as many at most are trained after the policy is there."""
_NEVER_S = 1e9
"""Seconds between checkpoints: nothing is resumed here."""

Train = Callable[[TrainConfig], TrainResult]


@dataclass(frozen=True)
class Attempt:
    """How one seed fared."""

    seed: int
    reached: bool
    train_seconds: float
    startup_seconds: float
    evaluation_seconds: float
    env_steps: int

    def __str__(self) -> str:
        told = "there after" if self.reached else "not there after"
        return (
            f"seed {self.seed}: {told} {self.train_seconds:.1f} s of training, {self.env_steps:,} steps "
            f"(start-up {self.startup_seconds:.1f} s, evaluations {self.evaluation_seconds:.1f} s)"
        )


def strength_configs(scenario: str, seeds: int, changes: Sequence[str] = ()) -> list[TrainConfig]:
    """The jobs: the suite's recipe for the scenario from chance, seeds 0, 1, ...

    Args:
        scenario: a name or a file.
        seeds: how many.
        changes: KEY=VALUE of :class:`~training.rl.config.TrainConfig`.

    Raises:
        ScenarioError: an unknown scenario.
        ValueError: no seeds, a mission, which nobody wins, or settings that TrainConfig refuses.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; it must be at least 1")
    settings = {
        "target_win_rate": TARGET,
        "evaluation_games": GAMES,
        "evaluation_interval": INTERVAL,
        "checkpoint_interval_s": _NEVER_S,
        "init_from": None,
    }
    recipe = group_recipe("smac").settings(scenario, settings | parse_changes(changes))
    configs = [TrainConfig(scenario=scenario, **recipe | {"seed": seed}) for seed in range(seeds)]
    build_algorithm_config(configs[0])
    return configs


def measure(
    command: str,
    *,
    configs: Sequence[TrainConfig],
    train_one: Train | None = None,
    console: Console | None = None,
) -> Iterator[Row]:
    """Train, and give the rows of a scenario when its seeds are through.

    Args:
        command: what made them.
        configs: of :func:`strength_configs`, of one scenario or of several.
        train_one: trains; default: :func:`training.rl.train`.
        console: where to report each seed; default: standard error.
    """
    console = console or Console(stderr=True)
    for scenario in dict.fromkeys(config.only_scenario for config in configs):
        if train_one is None:
            _compile(scenario)
        attempts = []
        for config in configs:
            if config.only_scenario == scenario:
                attempts.append(_attempt(config, train_one or train))
                console.print(f"{scenario}, {attempts[-1]}", highlight=False, markup=False)
        yield from rows(load_scenario(scenario).name, attempts, command)


def rows(scenario: str, attempts: Sequence[Attempt], command: str) -> list[Row]:
    """What the seeds amount to: medians in which a seed that failed counts as infinitely slow."""
    there = [attempt for attempt in attempts if attempt.reached]
    name = f"strength/{scenario}"
    made = [Row(f"{name}/seeds", f"of {len(attempts)} got there", len(there), 0.0, command)]
    for what, unit, values in (
        ("training", "s", [attempt.train_seconds for attempt in there]),
        ("steps", "env steps", [attempt.env_steps for attempt in there]),
    ):
        middle = median([*values, *[math.inf] * (len(attempts) - len(there))])
        if math.isfinite(middle):
            spread = (max(values) - min(values)) / middle
            made.append(Row(f"{name}/{what}", unit, middle, spread, command))
    made += [
        row(f"{name}/start-up", "s", [attempt.startup_seconds for attempt in attempts], command),
        row(f"{name}/evaluations", "s", [attempt.evaluation_seconds for attempt in attempts], command),
    ]
    return made


def _attempt(config: TrainConfig, train_one: Train) -> Attempt:
    """Train in a folder that does not stay."""
    with tempfile.TemporaryDirectory(prefix="strength-") as folder:
        result = train_one(replace(config, run_dir=Path(folder) / "run"))
    progress = result.progress
    return Attempt(
        config.seed,
        result.stopped_by is StoppedBy.TARGET,
        progress.train_seconds,
        result.startup_seconds,
        progress.evaluation_seconds,
        progress.env_steps,
    )


def _compile(scenario: str) -> None:
    """Play a little: what the simulator compiles is no training."""
    evaluate(ScriptedAgent("attack-move"), DEFAULT, scenario, games=2)
