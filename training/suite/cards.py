"""Model cards of the policies in the box: made from what a run has left behind, nothing typed by hand.

A card is JSON: ``name``, ``opponent`` and ``control``; ``command``, ``seed``, ``training`` (steps, seconds,
why it stopped) and ``started_from`` (the same of the runs it started from); by name the ``scenarios`` that it
was trained on, each with ``result``, the greedy policy's battles, and ``scripts``, those of every script on
the same ones; ``parameters`` and the SHA-256 of the ``weights``; ``engine``, ``unit_table``, ``contract`` and
``versions``, under which that was measured.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from agents.box import BOX, CARD_FILE, boxed_names, boxed_policy
from envs import unit_set
from envs.battle.compiled import engine_digest
from perceiver_policy.export_files import CONFIG_FILE, WEIGHTS_FILE, replaced_whole
from perceiver_policy.pretrained import load_policy
from training.checkpoint_policy import POLICY
from training.evaluate import wilson
from training.report import RESULT_FILE
from training.rl.config import TrainConfig
from training.suite.jobs import train_command
from training.suite.lineage import lineage

LARGEST = 2_000_000
"""Bytes of a boxed policy's files together, at most."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_SUMMARY = ("win_rate", "wilson_low", "wilson_high", "wins", "timeouts", "losses", "draws", "games")
_MEASURED_UNDER = ("engine", "unit_table", "versions")


class CardError(ValueError):
    """A run that cannot go into the box; the message says why, and what to do."""


def contract_digest() -> str:
    """The unit-set contract by a digest: what each column, scalar and verb is, and in which order."""
    facts = (unit_set.UNIT_FEATURES, unit_set.SCALARS, [verb.name for verb in unit_set.Verb])
    return hashlib.sha256(repr((*facts, unit_set.TARGET_VERBS)).encode()).hexdigest()[:16]


def make_card(run_dir: Path, name: str) -> dict[str, Any]:
    """The card of a finished run's policy.

    Raises:
        CardError: the run has no result, or one without scripts, of a mission, or of another engine.
    """
    config, result, played = _finished(run_dir)
    weights = run_dir / POLICY / WEIGHTS_FILE
    start = config.init_from
    placed = dataclasses.replace(
        config,
        run_dir=Path("runs") / name,
        init_from=str(Path("runs") / Path(start).name) if start and Path(start).exists() else start,
    )
    return {
        "name": name,
        "opponent": config.opponent,
        "control": config.control,
        "command": train_command(placed),
        "seed": config.seed,
        "training": result["training"],
        "started_from": [ancestor.to_dict() for ancestor in lineage(start)],
        "parameters": sum(tensor.numel() for tensor in load_policy(run_dir / POLICY).parameters()),
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "scenarios": {name: _entry(one) for name, one in played.items()},
        "contract": contract_digest(),
    } | {key: next(iter(played.values()))[key] for key in _MEASURED_UNDER}


def add_to_box(run_dir: Path, name: str, box: Path = BOX) -> Path:
    """Put a finished run's policy into the box, in place of one of that name; the folder appears whole.

    Raises:
        CardError: see :func:`make_card`; or the name does not do, or the files are too large.
        OSError: the box cannot be written to.
    """
    if not _NAME.fullmatch(name):
        raise CardError(f"{name!r} cannot name a policy; use letters, digits and _ . + -")
    card = json.dumps(make_card(run_dir, name), indent=2) + "\n"
    files = [run_dir / POLICY / file for file in (CONFIG_FILE, WEIGHTS_FILE)]
    size = sum(file.stat().st_size for file in files) + len(card.encode())
    if size > LARGEST:
        raise CardError(f"{run_dir} would take {size:,} bytes in the box, where {LARGEST:,} are allowed")
    with replaced_whole(box.absolute() / name) as folder:
        for file in files:
            shutil.copyfile(file, folder / file.name)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return box / name


def read_card(name: str) -> dict[str, Any]:
    """The card of a policy in the box.

    Raises:
        ValueError: there is no such policy.
    """
    card: dict[str, Any] = json.loads((boxed_policy(name) / CARD_FILE).read_text(encoding="utf-8"))
    return card


def all_cards() -> list[dict[str, Any]]:
    """The cards of all policies in the box, by name."""
    return [read_card(name) for name in boxed_names()]


def agrees(result: dict[str, Any], wins: int, games: int) -> bool:
    """Whether battles played now may be of a card's win rate: the two Wilson intervals meet.

    Args:
        result: of one of the card's scenarios.
        wins, games: of the battles played now.
    """
    low, high = wilson(wins, games)
    return low <= result["wilson_high"] and high >= result["wilson_low"]


def _entry(played: dict[str, Any]) -> dict[str, Any]:
    """A scenario on a card."""
    return {
        "result": {key: played[key] for key in (*_SUMMARY, "seed", "orders", "mean_length_steps")},
        "scripts": {
            script: {key: summary[key] for key in _SUMMARY} for script, summary in played["scripts"].items()
        },
    }


def _finished(run_dir: Path) -> tuple[TrainConfig, dict[str, Any], dict[str, dict[str, Any]]]:
    """Of a run that may go into the box: settings, result, and what was played by scenario."""
    file = run_dir / RESULT_FILE
    if not file.is_file():
        raise CardError(f"{run_dir} has no {RESULT_FILE}: it is no finished run")
    try:
        config = TrainConfig.load(run_dir / "config.yaml")
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CardError(f"{run_dir} cannot be read: {error}") from error
    played = result["scenarios"] if "scenarios" in result else {result.get("scenario"): result}
    if not all("win_rate" in one and one.get("scripts") for one in played.values()):
        raise CardError(
            f"{file} lacks the battles of the policy or of the scripts; a run of perceiver-policy train has "
            "them, and one of a suite after perceiver-policy suite --report"
        )
    if any(one["engine"] != engine_digest() for one in played.values()):
        raise CardError(
            f"{file} was measured on another engine; play again with suite --report, or train again"
        )
    return config, result, played
