"""The folder of a training run, and what in it must survive interruption.

::

    config.yaml     settings of the job           model.yaml   the model, every value spelled out
    checkpoints/    the last two, to go on from   policy/      the exported policy, for use anywhere
    tensorboard/    curves

Checkpoints appear whole or not at all: they are written beside their place and then renamed.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_policy import config as policy_configs
from training.rl.config import BUDGET_FIELDS, TrainConfig

CHECKPOINTS_KEPT = 2
_SETTINGS, _MODEL, _PROGRESS = "config.yaml", "model.yaml", "progress.json"


class RunFolderError(ValueError):
    """The folder cannot be used as asked; the message says what to do instead."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come. Counts are of the whole run, over all calls."""

    iteration: int = 0
    env_steps: int = 0
    train_seconds: float = 0.0
    best_wilson_low: float = 0.0


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run, and its checkpoints."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def policy(self) -> Path:
        """Folder of the exported policy."""
        return self.path / "policy"

    @property
    def tensorboard(self) -> Path:
        """Folder of the event files."""
        return self.path / "tensorboard"

    def write_settings(self, config: TrainConfig) -> None:
        """Begin a run: make the folder and write what it will do."""
        self.checkpoints.mkdir(parents=True)
        policy_configs.save(config.load_model(), self.path / _MODEL)
        config.save(self.path / _SETTINGS)

    def save_checkpoint(self, progress: Progress, save: Callable[[str], object]) -> Path:
        """Write a checkpoint and forget all but the newest :data:`CHECKPOINTS_KEPT`.

        Args:
            progress: kept beside the algorithm's own state.
            save: writes that state into the folder it is given.
        """
        final = self.checkpoints / f"step_{progress.env_steps:012d}"
        if final in self._complete():
            return final
        unfinished = self.checkpoints / f".{final.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        save(str(unfinished.resolve()))
        (unfinished / _PROGRESS).write_text(json.dumps(dataclasses.asdict(progress)), encoding="utf-8")
        unfinished.rename(final)
        for old in self._complete()[:-CHECKPOINTS_KEPT]:
            shutil.rmtree(old)
        return final

    def latest_checkpoint(self) -> tuple[Path, Progress] | None:
        """The newest whole checkpoint; None if there is none."""
        complete = self._complete()
        if not complete:
            return None
        progress = json.loads((complete[-1] / _PROGRESS).read_text(encoding="utf-8"))
        return complete[-1].resolve(), Progress(**progress)

    def _complete(self) -> list[Path]:
        return sorted(path for path in self.checkpoints.glob("step_*") if (path / _PROGRESS).is_file())


def open_run(config: TrainConfig) -> tuple[RunFolder, TrainConfig]:
    """The folder for this job and the settings that hold; nothing is written.

    For a new run these are the ones given; for a resumed one those of the folder, with the budget given.

    Raises:
        RunFolderError: a run is there and ``resume`` is off; or none is there and it is on; or the call asks
            for settings that the run does not have.
    """
    folder = RunFolder(config.run_dir)
    if not config.resume:
        if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
            raise RunFolderError(
                f"{folder.path} exists; go on with the run in it with --resume, or choose another --run-dir"
            )
        return folder, config
    if not (folder.path / _SETTINGS).is_file():
        raise RunFolderError(f"{folder.path} holds no run to resume; leave out --resume to start one")
    stored, default = TrainConfig.load(folder.path / _SETTINGS), TrainConfig()
    for name in vars(config).keys() - {*BUDGET_FIELDS, "run_dir", "resume"}:
        asked, kept = getattr(config, name), getattr(stored, name)
        if asked not in (kept, getattr(default, name)):
            raise RunFolderError(
                f"{name} is {asked!r}, but the run in {folder.path} has {kept!r}: a resumed run keeps its "
                "settings; leave it out, or start a run in another folder"
            )
    budget: dict[str, Any] = {name: getattr(config, name) for name in BUDGET_FIELDS}
    model: dict[str, Any] = {"model": str(folder.path / _MODEL), "model_overrides": ()}
    return folder, dataclasses.replace(stored, **budget, **model, run_dir=config.run_dir, resume=True)
