"""``perceiver-policy sweep``: the training runs of an experiment."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from training.cli import INTERRUPTED
from training.commands.door import door, refuse
from training.protocol.experiment import experiment_jobs, note_algorithms
from training.suite.jobs import Job
from training.suite.recipes import GROUPS, group_recipe, load_recipe
from training.suite.runner import QueueError, check_queue, run_queue


@dataclass(frozen=True)
class Args:
    """Train every algorithm on every scenario with every seed, some at a time, each in a process.

    The same command goes on where it was stopped, and skips what is done; with more seeds, scenarios or
    algorithms it adds them. `protocol` reports on the folder.
    """

    scenarios: tuple[str, ...] = ("3m",)
    """Names, or scenario files."""
    seeds: int = 5
    """Runs of each, with the seeds 0, 1, ..."""
    algorithms: tuple[str, ...] = ("ppo",)
    """Each NAME, or NAME:KEY=VALUE;KEY=VALUE with options of train, such as
    open-loop:model_overrides=[sight=time] or central:model_overrides=[critic=state];gamma=0.99."""
    changes: tuple[str, ...] = ()
    """Options of train that hold for all, such as max_env_steps=100000 evaluation_games=200."""
    recipe: str | None = None
    """Options by scenario: smac or smacv2, as `suite` trains them, or a YAML file of that form."""
    run_dir: Path = Path("runs/sweep")
    """The folder of all runs."""
    processes: int | None = None
    """Runs at a time. Default: one a core."""


def run(args: Args) -> int:
    """Train what is not done."""
    with door():
        if args.processes is not None and args.processes < 1:
            raise ValueError(f"--processes is {args.processes}; it must be at least 1")
        recipe = None
        if args.recipe is not None:
            known = args.recipe in GROUPS
            recipe = group_recipe(args.recipe) if known else load_recipe(Path(args.recipe))
        by_algorithm = experiment_jobs(
            args.algorithms, args.scenarios, args.seeds, recipe=recipe, changes=args.changes
        )
        jobs: list[Job] = [job for its in by_algorithm.values() for job in its]
        check_queue(jobs, args.run_dir)
        note_algorithms(args.run_dir, by_algorithm)
    try:
        outcome = run_queue(jobs, args.run_dir, processes=args.processes)
    except QueueError as error:
        refuse(str(error))
    if outcome.stopped:
        print(f"Interrupted; {how_to_go_on(args)}", file=sys.stderr)
        return INTERRUPTED
    for name, reason in outcome.failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    print(f"perceiver-policy protocol {shlex.quote(str(args.run_dir))}   reports on them")
    return 1 if outcome.failed else 0


def how_to_go_on(args: Args) -> str:
    """What to do after an interruption."""
    return f"the same command goes on with what is in {args.run_dir}"
