"""A recorded battle's pictures, beside its replay."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from envs.battle.batch import Outcome
from envs.battle.export import write_film, write_html
from envs.battle.render import headline
from envs.battle.replay import read_replay


class ShownBattle(NamedTuple):
    """What was written, and what can be seen in it."""

    page: Path
    film: Path
    title: str
    ending: str


def show_replay(path: Path, film: str = "battle.gif", sight: int | None = None) -> ShownBattle:
    """Write ``battle.html`` and a film beside a replay.

    Args:
        film: the name of the film's file, a GIF or an MP4 by its ending.
        sight: the team whose sight the film shows; None: all is shown.

    Raises:
        ValueError: there is no such kind of film, or what it needs is not installed.
        ReplayError: the replay is malformed or does not play as recorded.
        OSError: a file cannot be read or written.
    """
    replay = read_replay(path)
    frames = replay.play()
    page, shown = path.with_name("battle.html"), path.with_name(film)
    write_html(frames, page)
    write_film(frames, shown, sight=sight)
    first, second = replay.names
    endings = {
        Outcome.WIN_0: f"{first} wins",
        Outcome.WIN_1: f"{second} wins",
        Outcome.DRAW: "a draw",
        Outcome.TIMEOUT: "time runs out",
    }
    mission = replay.scenario.mission is not None
    ending = headline(frames[-1]) if mission else endings[replay.outcome]
    title = f"{replay.scenario.name}, {first} against {second}"
    return ShownBattle(page, shown, title, f"{ending} after {replay.ending['steps']} steps")
