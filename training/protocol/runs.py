"""Run folders as the data of an experiment: which algorithm, on which scenario, with which seed.

An algorithm is what the settings say but for the scenario, the seed, the budget and the machine. Its name
says how it differs from the others read with it (``ppo``, ``ppo sight=time``), unless the user or the
experiment that made the run gives one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from envs.scenarios import load_scenario
from perceiver_policy import config_files
from perceiver_policy.policy_config import Sight, UnitSetPolicyConfig
from training.protocol.experiment import noted_algorithms
from training.protocol.records import TrainingPoint
from training.rl.config import BUDGET_FIELDS, PLACE_FIELDS, TrainConfig
from training.rl.run_folder import RunFolder

_OF_THE_RUN = {
    *BUDGET_FIELDS,
    *PLACE_FIELDS,
    *("scenario", "seed", "run_dir", "resume", "num_threads", "torch_threads"),
    *("evaluation_interval", "evaluation_games", "checkpoint_interval_s"),
}


class RunsError(ValueError):
    """The folders make no experiment; the message says why."""


@dataclass(frozen=True)
class Run:
    """A training run with an exported policy."""

    path: Path
    config: TrainConfig
    algorithm: str
    open_loop: bool
    """Whether its policy sees the time alone."""
    points: tuple[TrainingPoint, ...]
    """Its evaluations in training, one a step of the curve: where a target was to be confirmed, the first."""

    @property
    def scenario(self) -> str:
        """What it was trained on, as evaluations call it."""
        return load_scenario(self.config.only_scenario).name

    @property
    def policy(self) -> Path:
        """The exported policy: the best one evaluated in training."""
        return RunFolder(self.path).policy

    @property
    def name(self) -> str:
        """As a person would tell it from the others."""
        return f"{self.algorithm} on {self.scenario}, seed {self.config.seed}"


def read_runs(specs: Sequence[str]) -> list[Run]:
    """The runs that are meant.

    Args:
        specs: run folders, or folders of run folders, each with ``NAME=`` before it to name the algorithm.

    Raises:
        RunsError: a folder holds no run, a run has no policy yet or is on a mixture, or two are of the same
            algorithm, scenario and seed.
        ScenarioError: a run's scenario cannot be found.
        RecordError: an evaluation of a run cannot be read.
    """
    found: dict[Path, str] = {}
    for spec in specs:
        name, _, place = spec.rpartition("=") if not Path(spec).is_dir() else ("", "", spec)
        if "," in name:
            raise RunsError(f"{name!r} cannot name an algorithm: marl-eval allows no commas")
        found |= {run: name or _noted(run) for run in _folders(Path(place))}
    configs = {path: TrainConfig.load(path / "config.yaml") for path in found}
    for path, config in configs.items():
        if (several := len(config.scenarios)) > 1:
            raise RunsError(
                f"{path} was trained on {several} scenarios, and a report has a scenario for each run; "
                "leave it out, and see its result.json, or play it with perceiver-policy evaluate"
            )
    labels = _labels([configs[path] for path, name in found.items() if not name])
    runs: dict[tuple[str, str, int], Run] = {}
    for path, name in found.items():
        folder, config = RunFolder(path), configs[path]
        if not folder.policy.is_dir():
            raise RunsError(f"{path} holds no policy yet; train it to its end, or leave it out")
        curve = {point.env_steps: point for point in reversed(folder.evaluations.points())}
        model = config_files.load(path / "model.yaml", UnitSetPolicyConfig)
        run = Run(
            path,
            config,
            name or labels[_settings(config)],
            model.sight is Sight.TIME,
            tuple(curve[step] for step in sorted(curve)),
        )
        same = runs.setdefault((run.algorithm, run.scenario, config.seed), run)
        if same is not run:
            raise RunsError(
                f"{same.path} and {path} are both {run.name}; leave one out, or name their algorithms: "
                f"NAME={path}"
            )
    return list(runs.values())


def _folders(folder: Path) -> list[Path]:
    """The folder if it is a run's, else those in it that are."""
    if RunFolder(folder).begun:
        return [folder]
    inside = sorted(path for path in folder.glob("*") if RunFolder(path).begun) if folder.is_dir() else []
    if not inside:
        raise RunsError(f"{folder} holds no run; give the --run-dir of one, or a folder of such")
    return inside


def _noted(run: Path) -> str:
    """The algorithm that an experiment says the run is of; "" if none says."""
    return noted_algorithms(run.absolute().parent).get(run.absolute().name, "")


def _settings(config: TrainConfig) -> tuple[tuple[str, Any], ...]:
    """What makes the algorithm."""
    names = (field.name for field in fields(config) if field.name not in _OF_THE_RUN)
    return tuple((name, getattr(config, name)) for name in names)


def _labels(configs: Iterable[TrainConfig]) -> dict[tuple[tuple[str, Any], ...], str]:
    """A name for each way of training: what is not the default and not common to all."""
    ways = list(dict.fromkeys(_settings(config) for config in configs))
    common = set.intersection(*(set(way) for way in ways)) if ways else set()
    default = set(_settings(TrainConfig()))
    return {
        way: " ".join([dict(way)["algorithm"], *_words(set(way) - common - default, way)]) for way in ways
    }


def _words(different: set[tuple[str, Any]], way: Sequence[tuple[str, Any]]) -> list[str]:
    words: list[str] = []
    for name, value in way:
        if (name, value) not in different or name == "algorithm":
            continue
        words += value if name == "model_overrides" else [f"{name}={value}"]
    return [word.replace(",", ";") for word in words]
