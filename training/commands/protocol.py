"""``perceiver-policy protocol``: many runs as one table with intervals."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from envs.battle.whole_file import write_whole
from training.commands.door import door, refuse, require_writable
from training.protocol.final import UNSEEN, Plan, prepare
from training.protocol.marl_eval import marl_eval_json, require_curves
from training.protocol.report import Report
from training.protocol.runs import read_runs
from training.protocol.tables import print_report


@dataclass(frozen=True)
class Args:
    """Evaluate finished runs by the protocol of Gorsane et al. (2022) and report them with intervals.

    Runs are grouped by algorithm, scenario and seed. Battles played once are kept in the run folders, so that
    the same command goes on where it was interrupted, and another table costs no battles.
    """

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Run folders, or folders of such (as `sweep` makes them); NAME=FOLDER names the algorithm, which
    otherwise is named by the settings in which the runs differ."""
    games: int = 1000
    """Battles of each policy and script for the comparisons, all on the same seeds."""
    absolute_games: int | None = None
    """Battles of each best policy for the absolute metrics. Default: ten times those of an evaluation in
    training."""
    seed: int = 1
    """From which the battles' seeds derive."""
    unseen: tuple[str, ...] = UNSEEN
    """Opponents to meet beside the one trained against; default: those held out of training."""
    elsewhere: tuple[str, ...] = ()
    """Scenarios to play untrained, against attack-move, such as other unit counts."""
    scripts: bool = True
    """Play every scripted agent on the same battles."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where to write the report; the file appears whole or not at all."""
    marl_eval: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where to write all evaluations, battle by battle, in marl-eval's layout."""
    plots: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for the pictures of sample efficiency, performance profiles and aggregates; needs matplotlib."""


def run(args: Args) -> int:
    """Play what is missing, print, write."""
    with door():
        require_writable(args.json)
        require_writable(args.marl_eval)
        if not args.runs:
            raise ValueError("no run is given; name run folders, such as runs/3m")
        runs = read_runs(args.runs)
        if args.marl_eval is not None:
            require_curves(runs)
        plan = Plan(args.absolute_games, args.games, args.seed, args.unseen, args.elsewhere, args.scripts)
        evaluations = prepare(runs, plan)
    if args.plots is not None:
        try:
            from training.protocol.plots import write_plots
        except ModuleNotFoundError as error:
            refuse(f"--plots needs {error.name}; install it with: pip install 'perceiver-policy[pictures]'")
    report = Report(runs, evaluations.work(Console(stderr=True)), plan)
    console = Console()
    print_report(console, report)
    if args.json is not None:
        content = report.to_dict() | {"command": " ".join(["perceiver-policy", *sys.argv[1:]])}
        write_whole(args.json, (json.dumps(content, indent=2) + "\n").encode())
    if args.marl_eval is not None:
        content = marl_eval_json(runs, report.played.absolute)
        write_whole(args.marl_eval, (json.dumps(content) + "\n").encode())
    if args.plots is not None:
        for path in write_plots(report, args.plots):
            console.print(str(path), highlight=False, markup=False, soft_wrap=True)
    return 0


def how_to_go_on(args: Args) -> str:
    """What to do after an interruption."""
    return "the same command goes on: battles that were played are kept in the run folders"
