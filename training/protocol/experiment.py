"""An experiment: every algorithm on every scenario with every seed, as jobs of a queue.

The folder that the queue makes gets ``experiment.json``, which run is of which algorithm, for
:func:`training.protocol.runs.read_runs` to read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envs.battle.whole_file import write_whole
from envs.scenarios import load_scenario
from training.rl.config import TrainConfig
from training.suite.jobs import Job
from training.suite.recipes import SUITE, Recipe, parse_changes

FILE = "experiment.json"
_RUNS = "runs"


def experiment_jobs(
    algorithms: Sequence[str],
    scenarios: Sequence[str],
    seeds: int,
    *,
    recipe: Recipe | None = None,
    changes: Sequence[str] = (),
) -> dict[str, list[Job]]:
    """A job for each algorithm, scenario and seed 0 to ``seeds`` - 1, by algorithm.

    Args:
        algorithms: each NAME, or NAME:KEY=VALUE;KEY=VALUE with fields of
            :class:`~training.rl.config.TrainConfig` in which it differs.
        scenarios: names or files.
        seeds: how many.
        recipe: settings by scenario; default: those of TrainConfig. Weights to begin with are not taken over,
            as every run is to be one of its own.
        changes: KEY=VALUE that hold for all.

    Raises:
        ScenarioError: an unknown scenario.
        ValueError: none or one twice of algorithms or scenarios, no seeds, or settings that TrainConfig
            refuses.
    """
    for name, given in (("algorithms", algorithms), ("scenarios", scenarios)):
        if len(set(given)) < max(len(given), 1):
            raise ValueError(f"{name} are {' '.join(given)!r}; give one or more, each once")
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; it must be at least 1")
    jobs: dict[str, list[Job]] = {}
    for algorithm in algorithms:
        name, _, own = algorithm.partition(":")
        if name in jobs or not name or "," in name:
            raise ValueError(f"{name!r} cannot name an algorithm: give each a name of its own, no commas")
        settings = parse_changes([*changes, *(change for change in own.split(";") if change)])
        jobs[name] = [
            Job(_slug(f"{name}_{load_scenario(scenario).name}_seed{seed}"), config)
            for scenario in scenarios
            for seed in range(seeds)
            for config in [_config(scenario, seed, recipe, settings)]
        ]
    return jobs


def _config(scenario: str, seed: int, recipe: Recipe | None, given: dict[str, Any]) -> TrainConfig:
    """Settings of a run."""
    settings = given if recipe is None else recipe.settings(scenario, given)
    start = settings.get("init_from")
    if isinstance(start, str) and start.startswith(SUITE):
        settings = settings | {"init_from": None}
    try:
        return TrainConfig(scenario=scenario, **settings | {"seed": seed})
    except ValueError as error:
        raise ValueError(f"{scenario}: {error}") from error


def note_algorithms(folder: Path, jobs: dict[str, list[Job]]) -> None:
    """Write which run is of which algorithm, beside what is noted already.

    Raises:
        ValueError: the file there is no such note.
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = noted_algorithms(folder) | {job.name: name for name, its in jobs.items() for job in its}
    write_whole(folder / FILE, (json.dumps({_RUNS: runs}, indent=2) + "\n").encode())


def noted_algorithms(folder: Path) -> dict[str, str]:
    """The algorithm of each run folder in a folder; empty if nothing is noted.

    Raises:
        ValueError: the file there is no such note.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))[_RUNS]
        return {str(run): str(algorithm) for run, algorithm in runs.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not tell the algorithms of runs: {error!r}") from error


def _slug(name: str) -> str:
    """As a folder's name."""
    return re.sub(r"[^A-Za-z0-9_.@+-]", "-", name)
