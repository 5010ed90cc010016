"""A training job in a queue: its name, what it waits for, and roughly how long it takes.

The queue's folder holds a run folder for each job under the job's name, ``logs/NAME.log`` with what the job
said, and ``jobs/NAME.yaml`` with the settings it was started with. A job is finished when its run folder has
a ``result.json``: how training ended, and, if games were asked for, the greedy policy's battles.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from training.report import RESULT_FILE
from training.rl.config import TrainConfig
from training.rl.run_folder import RunFolder, RunFolderError

LOGS, SETTINGS = "logs", "jobs"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]*")
_SECONDS_A_STEP = (142e-6, 2e-6, 0.94e-6)
"""Of training on one core, by units U: the first and U times the second and U² times the third, fitted to
3m, 8m and 27m_vs_30m. Only the order of the jobs and the time left depend on it."""
_RECIPE_EPOCHS = 3
_START_UP_S = 15.0
"""Seconds in which a process imports, starts Ray, and in the end plays its battles."""


@dataclass(frozen=True)
class Job:
    """One training run of a queue."""

    name: str
    """Its run folder in the queue's; letters, digits and _ . @ + - only."""
    config: TrainConfig
    """What to train. ``run_dir`` and ``resume`` are the queue's business."""
    after: tuple[str, ...] = ()
    """Names of jobs that must have finished before, as this one reads what they leave."""
    games: int = 0
    """Battles that the trained policy then plays with greedy orders against the opponent it was trained
    against; 0: none."""
    seed: int = 0
    """Of those battles."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in (LOGS, SETTINGS):
            raise ValueError(
                f"{self.name!r} cannot be a job's name: it is a folder beside {LOGS} and {SETTINGS}; use "
                "letters, digits and _ . @ + -"
            )
        for name in ("games", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} of job {self.name} is {getattr(self, name)}; it must be at least 0")

    @property
    def seconds(self) -> float:
        """How long the job may take on one core, roughly."""
        return estimated_seconds(self.config)


def estimated_seconds(config: TrainConfig) -> float:
    """How long a job takes on one core, roughly; without any budget, a day."""
    limits = [86_400.0]
    if config.time_limit_s is not None:
        limits.append(config.time_limit_s)
    if config.max_env_steps is not None:
        sizes = [scenario.num_units for scenario in config.scenarios]
        steps = [sum(share * units**power for power, share in enumerate(_SECONDS_A_STEP)) for units in sizes]
        step = sum(steps) / len(steps)
        limits.append(config.max_env_steps * step * (1 + config.num_epochs) / (1 + _RECIPE_EPOCHS))
    return _START_UP_S + min(limits)


def check_jobs(jobs: Sequence[Job]) -> None:
    """Refuse a queue that cannot be worked off.

    Raises:
        ValueError: two jobs of one name, a job that waits for one that is not there, or jobs that wait for
            each other.
    """
    names = [job.name for job in jobs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two jobs are called {twice[0]}; each needs a name of its own")
    for job in jobs:
        for other in job.after:
            if other not in names:
                raise ValueError(f"job {job.name} waits for {other}, which is not in the queue; add it")
    left = {job.name: set(job.after) for job in jobs}
    while ready := {name for name, waits in left.items() if not waits}:
        left = {name: waits - ready for name, waits in left.items() if name not in ready}
    if left:
        raise ValueError(f"jobs wait for each other: {', '.join(sorted(left))}")


def longest_first(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, first those that hold up most: by their own time and that of the chain waiting for them.

    Taken in this order by whoever is free, few are left to wait for in the end (list scheduling by critical
    path, Graham 1969, SIAM J. Appl. Math. 17).
    """
    tails: dict[str, float] = {}

    def tail(job: Job) -> float:
        if job.name not in tails:
            waiting = [tail(other) for other in jobs if job.name in other.after]
            tails[job.name] = job.seconds + max(waiting, default=0.0)
        return tails[job.name]

    return sorted(jobs, key=lambda job: -tail(job))


def is_finished(run_dir: Path) -> bool:
    """Whether a queue's job has ended in this run folder."""
    return (run_dir / RESULT_FILE).is_file()


def fraction_done(config: TrainConfig, run_dir: Path) -> float:
    """How much of its budget a job had spent when it was last saved, 0 to 1."""
    if is_finished(run_dir):
        return 1.0
    try:
        checkpoint = RunFolder(run_dir).latest_checkpoint()
    except (RunFolderError, OSError):  # swept away while we looked
        return 0.0
    if checkpoint is None:
        return 0.0
    progress, shares = checkpoint[1], [0.0]
    if config.time_limit_s is not None:
        shares.append(progress.train_seconds / config.time_limit_s)
    if config.max_env_steps is not None:
        shares.append(progress.env_steps / config.max_env_steps)
    return min(max(shares), 1.0)


def train_command(config: TrainConfig) -> str:
    """What to type to train the same."""
    words, default, kinds = ["perceiver-policy", "train"], TrainConfig(), get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        value, flag = getattr(config, field.name), field.name.replace("_", "-")
        if field.name == "resume" or value == getattr(default, field.name):
            continue
        if kinds[field.name] is bool:
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):
            words += [f"--{flag}", *map(str, value)]
        else:
            words += [f"--{flag}", str(value)]
    return shlex.join(words)
