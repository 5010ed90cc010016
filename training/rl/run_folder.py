"""The folder of a training run, and what in it must survive interruption.

::

    config.yaml     settings of the job           model.yaml   the model, every value spelled out
    checkpoints/    the last two, to go on from   policy/      the exported policy, for use anywhere
    tensorboard/    curves                       evaluations/  every evaluation, battle by battle
    failures/       what a gradient that was not finite came from; only if there was one

Checkpoints appear whole or not at all: they are written beside their place, brought to disk and then renamed;
what a process that was killed left of one goes with the next. ``config.yaml``
is the last file that begins a run, and appears whole, too: a folder without it that holds nothing else of
worth is one in which a run was cut off as it began, and may be begun anew.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.battle.whole_file import sync_tree, write_whole
from perceiver_policy import config_files
from training.checkpoint_policy import CHECKPOINTS, POLICY, PROGRESS, whole_checkpoints
from training.protocol.records import EvaluationLog
from training.rl.config import BUDGET_FIELDS, PLACE_FIELDS, TrainConfig

CHECKPOINTS_KEPT = 2
_SETTINGS, _MODEL = "config.yaml", "model.yaml"
_UNFINISHED = ".unfinished"


class RunFolderError(ValueError):
    """The folder cannot be used as asked; the message says what to do instead."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come. Counts are of the whole run, over all calls."""

    iteration: int = 0
    env_steps: int = 0
    train_seconds: float = 0.0
    """Sampling and learning, without start-up, evaluations and saving."""
    evaluation_seconds: float = 0.0
    best_low: float | None = None
    """Lower end of the interval of the best evaluation, whose policy is the exported one; None before the
    first."""
    target_met: float | None = None
    """The highest target win rate met so far."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run, and its checkpoints."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def policy(self) -> Path:
        """Folder of the exported policy."""
        return self.path / POLICY

    @property
    def tensorboard(self) -> Path:
        """Folder of the event files."""
        return self.path / "tensorboard"

    @property
    def evaluations(self) -> EvaluationLog:
        """The evaluations made in training."""
        return EvaluationLog(self.path / "evaluations")

    @property
    def failures(self) -> Path:
        """Folder of what gradients came from that were not finite (:mod:`training.rl.post_mortem`)."""
        return self.path / "failures"

    @property
    def begun(self) -> bool:
        """Whether there is a run to go on with."""
        return (self.path / _SETTINGS).is_file()

    @property
    def free(self) -> bool:
        """Whether a run may begin here: nothing is there, or no more than one cut off as it began leaves."""
        if not self.path.exists():
            return True
        if not self.path.is_dir() or self.begun:
            return False
        files = (path for path in self.path.rglob("*") if not path.is_dir() or path.is_symlink())
        return all(
            file.parent == self.path and (file.name == _MODEL or file.name.startswith(f".{_SETTINGS}."))
            for file in files
        )

    def write_settings(self, config: TrainConfig) -> None:
        """Begin a run: make the folder and write what it will do.

        Raises:
            RunFolderError: the folder cannot be made or written to.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            config_files.save(config.load_model(), self.path / _MODEL)
            write_whole(self.path / _SETTINGS, config.to_yaml().encode())
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot hold a run: {error.strerror or error}") from error

    def save_checkpoint(self, progress: Progress, save: Callable[[str], object]) -> Path:
        """Write a checkpoint and forget all but the newest :data:`CHECKPOINTS_KEPT`.

        Args:
            progress: kept beside the algorithm's own state.
            save: writes that state into the folder it is given.

        Raises:
            OSError: it cannot be written; the checkpoints are as before then.
        """
        final = self.checkpoints / f"step_{progress.env_steps:012d}"
        if final in whole_checkpoints(self.path):
            return final
        self.sweep()
        unfinished = self.checkpoints / f".{final.name}{_UNFINISHED}"
        try:
            unfinished.mkdir(parents=True)
            save(str(unfinished.resolve()))
            (unfinished / PROGRESS).write_text(json.dumps(dataclasses.asdict(progress)), encoding="utf-8")
            sync_tree(unfinished)
            unfinished.rename(final)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        for old in whole_checkpoints(self.path)[:-CHECKPOINTS_KEPT]:
            removed = old.with_name(f".{old.name}{_UNFINISHED}")
            old.rename(removed)  # in one go: half of a checkpoint must not look like one
            shutil.rmtree(removed, ignore_errors=True)
        return final

    def sweep(self) -> None:
        """Remove what a process that was killed left half-written.

        An export that it was about to put into its place gets there: it is whole as soon as the old one has
        been moved away (:func:`perceiver_policy.export_files.replaced_whole`).
        """
        for unfinished in self.checkpoints.glob(f".*{_UNFINISHED}"):
            shutil.rmtree(unfinished, ignore_errors=True)
        for workspace in self.path.glob(f".{POLICY}.*"):
            if (workspace / "old").is_dir() and not self.policy.exists():
                (workspace / "new").rename(self.policy)
            shutil.rmtree(workspace, ignore_errors=True)

    def latest_checkpoint(self) -> tuple[Path, Progress] | None:
        """The newest whole checkpoint; None if there is none.

        Raises:
            RunFolderError: its progress cannot be read.
        """
        complete = whole_checkpoints(self.path)
        if not complete:
            return None
        file = complete[-1] / PROGRESS
        try:
            progress = Progress(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise RunFolderError(f"{file} does not tell how far a run has come: {error}") from error
        return complete[-1].resolve(), progress


def open_run(config: TrainConfig) -> tuple[RunFolder, TrainConfig]:
    """The folder for this job and the settings that hold; nothing is written.

    For a new run these are the ones given. For a resumed one they are those of the folder, but the budget and
    the places to run at (processes, GPUs, cluster) may be changed: what the call gives, if it is not the
    default, holds. A call cannot say the default, then: to go on to 300,000 steps where the run has another
    budget, give 300,001, and to go on without env runners where it had some, give 1. Where a run was cut
    off before it began, ``resume`` begins it with the settings given; those returned have ``resume`` off.

    Raises:
        RunFolderError: a run is there and ``resume`` is off; or none is there and it is on; or the call asks
            for settings that the run does not have; or those of the run cannot be read.
    """
    folder = RunFolder(config.run_dir)
    if not config.resume:
        if not folder.free:
            if folder.begun:
                way_out = "go on with the run in it with --resume, or choose another --run-dir"
            else:
                way_out = "it is no run's, so choose another --run-dir"
            raise RunFolderError(f"{folder.path} exists; {way_out}")
        return folder, config
    if not folder.begun:
        if folder.path.is_dir() and folder.free:
            return folder, dataclasses.replace(config, resume=False)
        raise RunFolderError(f"{folder.path} holds no run to resume; leave out --resume to start one")
    try:
        stored = TrainConfig.load(folder.path / _SETTINGS)
    except ValueError as error:
        raise RunFolderError(str(error)) from error
    default, budget = TrainConfig(), {}
    for name in vars(config).keys() - {"run_dir", "resume"}:
        asked, kept = getattr(config, name), getattr(stored, name)
        if asked in (kept, getattr(default, name)):
            continue
        if name not in BUDGET_FIELDS + PLACE_FIELDS:
            raise RunFolderError(
                f"{name} is {asked!r}, but the run in {folder.path} has {kept!r}: a resumed run keeps its "
                "settings; leave it out, or start a run in another folder"
            )
        budget[name] = asked
    model: dict[str, Any] = {"model": str(folder.path / _MODEL), "model_overrides": ()}
    return folder, dataclasses.replace(stored, **budget, **model, run_dir=config.run_dir, resume=True)
