"""``perceiver-policy league``: self-play in a league, and a report of who beats whom."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from training.commands.door import door, refuse, require_writable
from training.league import LeagueConfig, run_league
from training.league.folder import LeagueFolder
from training.league.job import open_league, resume_command
from training.league.report import PICTURE, report
from training.rl import TrainConfig
from training.rl.faults import TrainingFaultError
from training.rl.run_folder import RunFolder, RunFolderError


@dataclass(frozen=True)
@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
class Args:
    """Train a league: a main player against itself, scripts, exploiters, and frozen snapshots of all of them.

    Opponents are drawn by prioritised fictitious self-play. Ctrl-C saves and says how to go on.
    `league report FOLDER` prints the payoff matrix and ratings.
    """

    what: tyro.conf.Positional[Literal["train", "report"]] = "train"
    """Train a league, or report on one."""
    folder: tyro.conf.Positional[Path | None] = None
    """The league to report on."""
    league: LeagueConfig = field(default_factory=LeagueConfig)
    job: TrainConfig = field(default_factory=TrainConfig)
    anchor: str | None = None
    """Of the report: who is rated 1000. Default: the first script."""


def run(args: Args) -> int:
    """Train and report, or report. Exit codes as those of ``perceiver-policy train``."""
    if args.what == "report":
        with door():
            folder = LeagueFolder(args.folder or args.job.run_dir)
            _report(folder, args.anchor)
        return 0
    with door():
        if args.folder is not None:
            raise ValueError(f"league train takes no {args.folder}; a league's folder is given by --run-dir")
        folder, league, job = open_league(args.league, args.job)
        require_anchor(args.anchor, league)
        if folder.path.is_dir():
            require_writable(folder.path / PICTURE)
    try:
        result = run_league(args.league, args.job)
    except (RunFolderError, ConnectionError) as error:  # the folder could not be made; no cluster is there
        refuse(str(error))
    except TrainingFaultError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1
    if result.signal is not None:
        return 128 + result.signal
    _report(LeagueFolder(job.run_dir), args.anchor)
    print(result.policy)
    return 0


def require_anchor(anchor: str | None, league: LeagueConfig) -> None:
    """Refuse an anchor that will not be there.

    Raises:
        ValueError: it is neither a script nor a learner.
    """
    known = [*league.scripts, *(name for name, _ in league.learners())]
    if anchor is not None and anchor not in known:
        raise ValueError(f"--anchor is {anchor}; it may be: {', '.join(known)}")


def how_to_go_on(args: Args) -> str:
    """What to do after an interruption."""
    if args.what == "train" and RunFolder(args.job.run_dir).begun:
        return f"go on with: {resume_command(args.job.run_dir)}"
    return "nothing had begun; the same command begins it"


def _report(folder: LeagueFolder, anchor: str | None) -> None:
    state = folder.read()
    if state is None:
        raise ValueError(f"{folder.path} holds no league of which a turn has been played")
    require_writable(folder.path / PICTURE)
    report(folder, state, anchor or state.payoff.names[0], Console())
