"""A search for the main hyperparameters: many short training jobs, of which the better ones run longer.

Each trial is :func:`training.rl.train` with values drawn from a :class:`SearchSpace`. ASHA (Li et al. 2018,
arXiv:1810.05934) looks at each trial's evaluation when it has trained for ``grace_env_steps``, then at
``reduction_factor`` times as many steps, and so on, and each time stops those that are not among the best
``1 / reduction_factor`` of all that came as far. The folder of a search:

::

    config.yaml, search.yaml   what is searched         best.yaml      for `perceiver-policy train --config`
    trials/NNNNN/              run folders, with logs   results.json   every trial
    tune/                      Ray Tune's own, to go on from; pickles: go on with searches of your own only
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator
from rich.console import Console

from envs.battle.whole_file import write_whole
from training.rl.config import TrainConfig
from training.rl.job import train
from training.rl.local_ray import local_ray
from training.rl.monitor import Verdict
from training.rl.run_folder import Progress, RunFolder

BEST_FILE, RESULTS_FILE = "best.yaml", "results.json"
_CONFIG, _SEARCH, _TRIALS, _TUNE = "config.yaml", "search.yaml", "trials", "tune"
_STEPS, _SCORE = "env_steps", "mean"


@dataclass(frozen=True)
class SearchSpace:
    """What is drawn for each trial: a range as LOW HIGH, or choices. Two equal ends or one choice fix it."""

    lr: tuple[float, float] = (1e-3, 1e-2)
    """Adam's step size at the start; drawn evenly on a logarithmic scale. lr_end keeps its ratio to it."""
    entropy_coeff: tuple[float, float] = (1e-3, 3e-2)
    """Weight of the entropy bonus at the start; likewise, with entropy_coeff_end."""
    gamma: tuple[float, float] = (0.95, 0.995)
    """Discount of a step; what it lacks of 1 is drawn evenly on a logarithmic scale."""
    gae_lambda: tuple[float, float] = (0.9, 0.99)
    """Lambda of generalised advantage estimation."""
    clip: tuple[float, float] = (0.1, 0.3)
    """How far a ratio may leave 1."""
    num_epochs: tuple[int, ...] = (2, 3, 4)
    """Passes over a rollout."""
    minibatch_size: tuple[int, ...] = (256, 512, 1024)
    """Steps of a battle in a minibatch."""
    rollout_steps: tuple[int, ...] = (8, 16, 32)
    """Steps of each battle between two updates."""

    def __post_init__(self) -> None:
        for name in ("lr", "entropy_coeff", "gamma", "gae_lambda", "clip"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} is {low:g} to {high:g}; it must be LOW HIGH, above 0")
        if self.gamma[1] >= 1:
            raise ValueError(f"gamma is up to {self.gamma[1]:g}; it must be below 1")
        for name in ("num_epochs", "minibatch_size", "rollout_steps"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one choice")

    def samplers(self) -> dict[str, Any]:
        """For Ray Tune; :func:`drawn` makes settings of what comes out."""
        return {
            "lr": tune.loguniform(*self.lr),
            "entropy_coeff": tune.loguniform(*self.entropy_coeff),
            "discount_gap": tune.loguniform(1 - self.gamma[1], 1 - self.gamma[0]),
            "gae_lambda": tune.uniform(*self.gae_lambda),
            "clip": tune.uniform(*self.clip),
            "num_epochs": tune.choice(list(self.num_epochs)),
            "minibatch_size": tune.choice(list(self.minibatch_size)),
            "rollout_steps": tune.choice(list(self.rollout_steps)),
        }


@dataclass(frozen=True)
class Search:
    """A search. Its folder is ``job.run_dir``."""

    job: TrainConfig
    """What all trials share."""
    space: SearchSpace = field(default_factory=SearchSpace)
    """What they differ in."""
    trials: int = 16
    """How many."""
    concurrent: int = 1
    """Trials that train at the same time."""
    grace_env_steps: int = 30_000
    """Environment steps that every trial gets."""
    reduction_factor: int = 3
    """One trial in so many goes on at each of ASHA's looks."""
    evaluation_env_steps: int = 10_000
    """Environment steps between evaluations."""

    def __post_init__(self) -> None:
        for name, least in (
            ("trials", 1),
            ("concurrent", 1),
            ("grace_env_steps", 1),
            ("reduction_factor", 2),
            ("evaluation_env_steps", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.job.max_env_steps is None:
            raise ValueError("max_env_steps is none; a search needs the steps after which a trial is done")
        if self.grace_env_steps > self.job.max_env_steps:
            raise ValueError(
                f"grace_env_steps is {self.grace_env_steps}; a trial ends at max_env_steps, "
                f"{self.job.max_env_steps}"
            )
        for rollout_steps in self.space.rollout_steps:
            for minibatch_size in self.space.minibatch_size:
                dataclasses.replace(
                    self.job, rollout_steps=rollout_steps, minibatch_size=minibatch_size
                )  # those that do not go together are refused here

    def settings(self, values: Mapping[str, Any], run_dir: Path) -> TrainConfig:
        """A trial's job, of the values drawn for it."""
        job, values = self.job, dict(values)
        values["gamma"] = 1 - values.pop("discount_gap")
        if job.lr:
            values["lr_end"] = values["lr"] * job.lr_end / job.lr
        if job.entropy_coeff:
            values["entropy_coeff_end"] = values["entropy_coeff"] * job.entropy_coeff_end / job.entropy_coeff
        iteration = job.num_battles * values["rollout_steps"]
        return dataclasses.replace(
            job,
            **values,
            run_dir=run_dir,
            resume=RunFolder(run_dir).begun,
            evaluation_interval=max(1, round(self.evaluation_env_steps / iteration)),
        )


@dataclass(frozen=True)
class Trial:
    """How far a trial came."""

    name: str
    values: dict[str, Any]
    env_steps: int
    train_seconds: float
    mean: float
    """Win rate, or a mission's score, at the last evaluation."""
    low: float
    high: float
    state: str
    """done: it came to the end or ASHA stopped it; failed; or unfinished."""


@dataclass(frozen=True)
class SearchResult:
    """How a call of :func:`run_search` ended."""

    trials: tuple[Trial, ...]  # best first
    best: Path | None  # settings of the best one; None before any was evaluated
    interrupted: bool


def run_search(search: Search, *, resume: bool = False) -> SearchResult:
    """Search until every trial is done or was stopped, or until Ctrl-C; every trial keeps its run folder.

    What happens is told on standard error.

    Args:
        search: what to search; where ``resume`` is on, only ``job.run_dir`` and ``concurrent`` count.
        resume: go on with the search in the folder: trials that were cut off go on from their checkpoints.

    Raises:
        ValueError: the folder holds something, or nothing to go on with.
        OSError: it cannot be written to.
    """
    folder = search.job.run_dir.absolute()
    search = load_search(folder, search.concurrent) if resume else _begin(search, folder)
    # One cluster for all; what Tune's own loggers write is in the trials' run folders already.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    bundles = _bundles(search.job)
    trainable = tune.with_resources(_trainable(search, folder), tune.PlacementGroupFactory(bundles))
    num_cpus = 1 + search.concurrent * sum(bundle.get("CPU", 0) for bundle in bundles)
    with local_ray(num_cpus=num_cpus, address=search.job.ray_address):
        results = _tuner(search, folder, trainable, resume=resume).fit()
    # One without an evaluation comes last, whatever NaN compares to.
    trials = tuple(
        sorted(map(_trial, results), key=lambda trial: (not math.isnan(trial.mean), trial.mean), reverse=True)
    )
    best = _write_best(search, folder, trials)
    content = [dataclasses.asdict(trial) for trial in trials]
    write_whole(folder / RESULTS_FILE, (json.dumps(content, indent=2) + "\n").encode())
    ended = sum(trial.state != "unfinished" for trial in trials)
    return SearchResult(trials, best, interrupted=ended < search.trials)


def load_search(folder: Path, concurrent: int) -> Search:
    """The search that a folder holds.

    Raises:
        ValueError: it holds none.
    """
    try:
        plain = yaml.safe_load((folder / _SEARCH).read_text(encoding="utf-8"))
        space = {name: tuple(value) for name, value in plain.pop("space").items()}
        job = dataclasses.replace(TrainConfig.load(folder / _CONFIG), run_dir=folder)
        return Search(job, SearchSpace(**space), **plain | {"concurrent": concurrent})
    except OSError as error:
        raise ValueError(
            f"{folder} holds no search to go on with; leave out --resume to start one"
        ) from error


def _begin(search: Search, folder: Path) -> Search:
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds something; go on with --resume, or choose another --run-dir")
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: value for name, value in vars(search).items() if name not in ("job", "space")}
    plain["space"] = {name: list(value) for name, value in vars(search.space).items()}
    write_whole(folder / _CONFIG, search.job.to_yaml().encode())
    write_whole(folder / _SEARCH, yaml.safe_dump(plain, sort_keys=False).encode())
    return search


def _bundles(job: TrainConfig) -> list[dict[str, float]]:
    """What Ray keeps for a trial, a bundle a process: the job's own, which learns where no other does, env
    runners, and learners. A process without a bundle would be waited for without end."""
    gpus = {"GPU": job.num_gpus_per_learner} if job.num_gpus_per_learner else {}
    # RLlib gives a learner with a GPU no CPU of its own.
    learner = gpus or {"CPU": 1.0}
    own = {"CPU": 1.0} if job.num_learners else {"CPU": 1.0} | gpus
    runner = {"CPU": job.num_cpus_per_env_runner}
    return [own, *[runner] * job.num_env_runners, *[learner] * job.num_learners]


def _tuner(search: Search, folder: Path, trainable: Any, *, resume: bool) -> tune.Tuner:
    space = search.space.samplers()
    if resume:
        return tune.Tuner.restore(str(folder / _TUNE), trainable, resume_errored=True, param_space=space)
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=_SCORE,
            mode="max",
            num_samples=search.trials,
            search_alg=BasicVariantGenerator(max_concurrent=search.concurrent, random_state=search.job.seed),
            scheduler=ASHAScheduler(
                time_attr=_STEPS,
                max_t=search.job.max_env_steps,
                grace_period=search.grace_env_steps,
                reduction_factor=search.reduction_factor,
            ),
        ),
        run_config=tune.RunConfig(
            name=_TUNE,
            storage_path=str(folder),
            callbacks=[_Telling()],
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    )


def _trainable(search: Search, folder: Path) -> Callable[[dict[str, Any]], None]:
    """What Tune runs in a process of its own: a training job that reports its evaluations."""

    def trial(values: dict[str, Any]) -> None:
        run_dir = folder / _TRIALS / _name(tune.get_context().get_trial_id())
        config = search.settings(values, run_dir)
        run_dir.parent.mkdir(exist_ok=True)

        def report(progress: Progress, verdict: Verdict) -> None:
            low, high = verdict.interval
            tune.report(
                {
                    _STEPS: progress.env_steps,
                    "train_seconds": progress.train_seconds,
                    _SCORE: verdict.mean,
                    "low": low,
                    "high": high,
                }
            )

        with run_dir.with_suffix(".log").open("a", encoding="utf-8") as log:
            train(config, console=Console(file=log, width=120), on_evaluation=report)

    return trial


class _Telling(tune.Callback):
    """Prints a line of each evaluation, and of each trial that ends. Without a state: Tune pickles it."""

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Mapping[str, Any], **_: Any
    ) -> None:
        """One line."""
        name, values = _name(trial.trial_id), _spelled(trial.config)
        score = f"{result[_SCORE]:.3f} [{result['low']:.3f}, {result['high']:.3f}]"
        _say(f"trial {name}  {result[_STEPS]:>9,} steps  {score}  {values}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """One line."""
        _say(f"trial {_name(trial.trial_id)} failed; the others go on")


def _trial(result: Any) -> Trial:
    """Of Tune's result."""
    metrics = result.metrics or {}
    state = "failed" if result.error is not None else "done" if metrics.get("done") else "unfinished"
    return Trial(
        name=_name(metrics.get("trial_id", "")),
        values=dict(result.config or {}),
        env_steps=int(metrics.get(_STEPS, 0)),
        train_seconds=float(metrics.get("train_seconds", 0.0)),
        mean=float(metrics.get(_SCORE, math.nan)),
        low=float(metrics.get("low", math.nan)),
        high=float(metrics.get("high", math.nan)),
        state=state,
    )


def _name(trial_id: str) -> str:
    """A trial's number within its search: Tune's ids are SEARCH_NUMBER."""
    return trial_id.rpartition("_")[2]


def _spelled(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value:.3g}" for name, value in values.items())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write_best(search: Search, folder: Path, trials: Sequence[Trial]) -> Path | None:
    """The settings of the best trial, as a new run begins with them."""
    evaluated = [trial for trial in trials if not math.isnan(trial.mean)]
    if not evaluated:
        return None
    best = search.settings(evaluated[0].values, folder / _TRIALS / evaluated[0].name)
    own = search.job
    config = dataclasses.replace(
        best, run_dir=TrainConfig.run_dir, resume=False, evaluation_interval=own.evaluation_interval
    )
    write_whole(folder / BEST_FILE, config.to_yaml().encode())
    return folder / BEST_FILE
