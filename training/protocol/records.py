"""Evaluations on disk, battle by battle: what every number of a report is made of.

One file an evaluation, an npz of the arrays of :class:`~training.evaluate.EvaluationResult` and a JSON text
with the rest. Nothing in it is pickled, and it appears whole or not at all.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.battle.batch import Control
from envs.battle.whole_file import write_whole
from training.evaluate import EvaluationResult

_ARRAYS = ("outcomes", "side", "battle_seeds", "lengths", "returns", "tactics", "scores")
_TEXT = "text"


class RecordError(ValueError):
    """A file holds no evaluation; the message names it."""


def save_evaluation(path: Path, result: EvaluationResult, **more: Any) -> None:
    """Write an evaluation.

    Args:
        path: an npz file in a folder that exists.
        result: what to write.
        more: anything JSON, to be read back with it.
    """
    text = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(EvaluationResult)
        if field.name not in _ARRAYS
    }
    content = io.BytesIO()
    arrays: dict[str, Any] = {_TEXT: np.array(json.dumps(text | {"more": more}))}
    arrays |= {name: getattr(result, name) for name in _ARRAYS if getattr(result, name) is not None}
    np.savez_compressed(content, **arrays)
    write_whole(path, content.getvalue())


def load_evaluation(path: Path) -> tuple[EvaluationResult, dict[str, Any]]:
    """Read what :func:`save_evaluation` wrote: the evaluation, and what was kept with it.

    Raises:
        RecordError: the file holds no evaluation.
        OSError: there is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            text = json.loads(str(content[_TEXT]))
            arrays = {name: content[name] for name in _ARRAYS if name in content}
        more = text.pop("more")
        result = EvaluationResult(**text | arrays | {"control": Control(text["control"])})
    except (zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{path} holds no evaluation: {error}") from error
    return result, more


@dataclass(frozen=True)
class TrainingPoint:
    """An evaluation in the course of a training run."""

    env_steps: int
    """Environment steps the run had trained on."""
    train_seconds: float
    """Seconds it had trained, without evaluations, saving and start-up."""
    result: EvaluationResult


@dataclass(frozen=True)
class EvaluationLog:
    """All evaluations of a training run, in a folder of its own."""

    folder: Path

    def add(self, result: EvaluationResult, *, env_steps: int, train_seconds: float) -> None:
        """Keep an evaluation; several at the same step are kept in their order."""
        self.folder.mkdir(parents=True, exist_ok=True)
        step = f"step_{env_steps:012d}"
        path = self.folder / f"{step}_{len(list(self.folder.glob(f'{step}_*.npz')))}.npz"
        save_evaluation(path, result, env_steps=env_steps, train_seconds=train_seconds)

    def forget_after(self, env_steps: int) -> None:
        """Remove evaluations of later steps: a run that goes on from here will make them anew."""
        for path in self._files():
            if int(path.stem.split("_")[1]) > env_steps:
                path.unlink()

    def points(self) -> list[TrainingPoint]:
        """In the order in which they were made.

        Raises:
            RecordError: one of the files holds no evaluation.
        """
        points = []
        for path in self._files():
            result, more = load_evaluation(path)
            points.append(TrainingPoint(more["env_steps"], more["train_seconds"], result))
        return points

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step_*_*.npz"))
