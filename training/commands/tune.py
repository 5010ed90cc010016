"""``perceiver-policy tune``: search for the main hyperparameters."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from training.cli import INTERRUPTED
from training.commands.door import door
from training.commands.settings_file import job_from_file
from training.rl import TrainConfig, build_algorithm_config
from training.tune import RESULTS_FILE, Search, SearchResult, SearchSpace, load_search, run_search


@dataclass(frozen=True)
class Args:
    """Search for hyperparameters: trials of training, of which ASHA stops the worse ones early.

    Every trial is a training job with its own folder below --run-dir. The best one's settings become
    best.yaml there, for `perceiver-policy train --config`. Ctrl-C stops, and --resume goes on.
    """

    job: Annotated[TrainConfig, tyro.conf.OmitArgPrefixes] = field(
        default_factory=lambda: TrainConfig(run_dir=Path("runs/search"))
    )
    space: SearchSpace = field(default_factory=SearchSpace)
    config: Path | None = None
    """Settings that all trials share: a file as of `train --config`; options given beside it win."""
    trials: int = 16
    """How many."""
    concurrent: int = 1
    """Trials that train at the same time; each is a process, and its env runners are others."""
    grace_env_steps: int = 30_000
    """Environment steps that every trial gets; max_env_steps is what the best ones get."""
    reduction_factor: int = 3
    """One trial in so many goes on at each of ASHA's looks."""
    evaluation_env_steps: int = 10_000
    """Environment steps between evaluations."""


def defaults(argv: Sequence[str]) -> Args:
    """The options' defaults, from the file of ``--config`` if that is given."""
    return Args(job=job_from_file(argv, TrainConfig(run_dir=Path("runs/search"))))


def run(args: Args) -> int:
    """Search, and show what came out. Exit code 1: no trial got as far as an evaluation."""
    with door():
        if args.job.resume:
            search = load_search(args.job.run_dir.absolute(), args.concurrent)
        else:
            search = Search(
                args.job,
                args.space,
                args.trials,
                args.concurrent,
                args.grace_env_steps,
                args.reduction_factor,
                args.evaluation_env_steps,
            )
        build_algorithm_config(search.job)
        result = run_search(search, resume=args.job.resume)
    Console().print(_table(result))
    if result.interrupted:
        print(f"Interrupted; {how_to_go_on(args)}", file=sys.stderr)
        return INTERRUPTED
    if result.best is None:
        print(f"error: no trial was evaluated; see the logs in {args.job.run_dir}/trials", file=sys.stderr)
        return 1
    print(f"All trials: {args.job.run_dir / RESULTS_FILE}. Train with the best settings:")
    print(f"perceiver-policy train --config {shlex.quote(str(args.job.run_dir / result.best.name))}")
    return 0


def how_to_go_on(args: Args) -> str:
    """What to do after an interruption."""
    return f"go on with: perceiver-policy tune --run-dir {shlex.quote(str(args.job.run_dir))} --resume"


def _table(result: SearchResult) -> Table:
    names = list(result.trials[0].values) if result.trials else []
    table = Table("trial", "state", "env steps", "mean", "95 % interval", *names)
    for trial in result.trials:
        table.add_row(
            trial.name,
            trial.state,
            f"{trial.env_steps:,}",
            f"{trial.mean:.3f}",
            f"{trial.low:.3f} to {trial.high:.3f}",
            *(f"{trial.values[name]:.3g}" for name in names),
        )
    return table
