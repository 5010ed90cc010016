"""A recorded battle's pictures, beside its replay."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from envs.battle.batch import Outcome
from envs.battle.export import write_gif, write_html
from envs.battle.replay import read_replay


class ShownBattle(NamedTuple):
    """What was written, and what can be seen in it."""

    page: Path
    gif: Path
    title: str
    ending: str


def show_replay(path: Path) -> ShownBattle:
    """Write ``battle.html`` and ``battle.gif`` beside a replay.

    Raises:
        ReplayError: the replay is malformed or does not play as recorded.
        OSError: a file cannot be read or written.
    """
    replay = read_replay(path)
    frames = replay.play()
    page, gif = path.with_name("battle.html"), path.with_name("battle.gif")
    write_html(frames, page)
    write_gif(frames, gif)
    first, second = replay.names
    endings = {
        Outcome.WIN_0: f"{first} wins",
        Outcome.WIN_1: f"{second} wins",
        Outcome.DRAW: "a draw",
        Outcome.TIMEOUT: "time runs out",
    }
    title = f"{replay.scenario.name}, {first} against {second}"
    return ShownBattle(page, gif, title, f"{endings[replay.outcome]} after {replay.ending['steps']} steps")
