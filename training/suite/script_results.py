"""What scripts do on a scenario, played once for an engine and then looked up.

A result is looked up by all that it depends on: the engine's sources, the scripts' own, the scenario, how
many battles of which seed, and the control. It lies in ``~/.cache/perceiver-policy/scripts`` (or under
``XDG_CACHE_HOME``), a file a match.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import agents.scripted
import agents.situation
from agents.roster import policy_folder
from envs.battle.compiled import engine_digest
from envs.battle.tactics import is_engine_player
from envs.battle.whole_file import write_whole
from envs.scenarios import load_scenario
from perceiver_policy.export_files import CONFIG_FILE, WEIGHTS_FILE
from training.benchmark.calibration import Match, play

_DEPENDS_ON = (agents.scripted.__file__, agents.situation.__file__)


def cache_folder() -> Path:
    """Where results are kept."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "perceiver-policy" / "scripts"


def script_results(
    matches: Sequence[Match],
    *,
    folder: Path | None = None,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[dict[str, Any]]:
    """The results of scripts' matches, in their order, as :meth:`EvaluationResult.to_dict` gives them.

    Args:
        matches: between scripts and players of the engine; what is not kept yet is played, and then kept.
        folder: where they are kept; default: :func:`cache_folder`.
        processes, progress: as for :func:`training.benchmark.calibration.play`.
    """
    folder = cache_folder() if folder is None else folder
    files = [folder / f"{_key(match)}.json" for match in matches]
    kept = [_read(file) for file in files]
    missing = [index for index, result in enumerate(kept) if result is None]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        played = play([matches[index] for index in missing], processes=processes, progress=progress)
        for index, one in zip(missing, played, strict=True):
            content = one.result.to_dict()
            write_whole(files[index], (json.dumps(content) + "\n").encode())
            kept[index] = content
    return [result for result in kept if result is not None]


def _key(match: Match) -> str:
    """A name for the file: a digest of all that the result depends on."""
    digest = hashlib.sha256(engine_digest().encode())
    for source in _DEPENDS_ON:
        digest.update(Path(source).read_bytes())
    facts = (match.agent, match.opponent, match.games, match.seed, match.swap_sides, match.control)
    digest.update(repr((load_scenario(match.scenario), *facts)).encode())
    learned = None if is_engine_player(match.opponent) else policy_folder(match.opponent)
    if learned is not None:  # its name stays where its weights change
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            digest.update((learned / file).read_bytes())
    return digest.hexdigest()[:32]


def _read(file: Path) -> dict[str, Any] | None:
    """A kept result; None if there is none that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "wins" in content else None
