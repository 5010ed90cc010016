"""What a policy's weights have cost before its own run: the runs that it started from, first to last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from agents.box import BOXED, CARD_FILE, boxed_policy
from training.report import RESULT_FILE
from training.rl.config import TrainConfig

_SETTINGS = "config.yaml"


class Ancestor(NamedTuple):
    """A run that later ones started from."""

    name: str
    env_steps: int
    train_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return self._asdict()


def lineage(init_from: str | None) -> list[Ancestor]:
    """The runs behind ``init_from``, the earliest first; of an export without its run nothing is known.

    Raises:
        ValueError: a run's files cannot be read, or the box has no such policy.
    """
    if init_from is None:
        return []
    if init_from.startswith(BOXED):
        card = _read(boxed_policy(init_from.removeprefix(BOXED)) / CARD_FILE)
        return [Ancestor(**one) for one in card["started_from"]] + [_ancestor(card["name"], card)]
    run = Path(init_from)
    if run.name == "policy" and (run.parent / _SETTINGS).is_file():
        run = run.parent
    if not (run / RESULT_FILE).is_file():
        return []
    config = TrainConfig.load(run / _SETTINGS)
    return [*lineage(config.init_from), _ancestor(run.name, _read(run / RESULT_FILE))]


def _ancestor(name: str, content: dict[str, Any]) -> Ancestor:
    training = content["training"]
    return Ancestor(name, training["env_steps"], training["train_seconds"])


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    return content
