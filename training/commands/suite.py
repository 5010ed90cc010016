"""``perceiver-policy suite``: a policy for each scenario of a suite, and how it stands beside the scripts."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.status import Status

from envs.battle.whole_file import write_whole
from envs.scenarios import load_scenario, scenario_groups
from training.cli import INTERRUPTED
from training.commands.door import door, refuse
from training.evaluate import provenance
from training.mixture import parse_mixture
from training.suite.jobs import LOGS, Job
from training.suite.page import console_table, markdown, summary
from training.suite.recipes import group_recipe, load_recipe, parse_changes, suite_jobs
from training.suite.runner import QueueError, QueueOutcome, check_queue, place, run_queue
from training.suite.standings import Standing, collect

_JSON, _PAGE, _QUEUE = "suite.json", "suite.md", "queue.json"


@dataclass(frozen=True)
class Args:
    """Train a policy for each scenario, some at a time, evaluate them beside every script, and write a table.

    The same command goes on where it was stopped, and skips what is done. The folder gets a run folder for
    each scenario, logs/, suite.json and suite.md.
    """

    group: Literal["smac", "smacv2"] = "smac"
    """Which suite."""
    scenarios: tuple[str, ...] = ()
    """These scenarios only, from anywhere, a policy each; groups and ranges such as marine_2-8 stand for
    theirs. The recipe's defaults hold for those it does not name."""
    recipe: Path | None = None
    """How each is trained: a YAML file like training/suite/smac.yaml. Default: the group's."""
    changes: tuple[str, ...] = ()
    """Settings that hold for all whatever the recipe says, such as seed=1 max_env_steps=20000."""
    run_dir: Path = Path("runs/suite")
    """The suite's folder."""
    processes: int | None = None
    """Jobs at a time. Default: one a core."""
    games: int = 1000
    """Battles of each evaluation."""
    seed: int = 0
    """From which their seeds derive."""
    report: bool = False
    """Train nothing: evaluate and show what has finished."""


def run(args: Args) -> int:
    """Train what is not done, then report on what is."""
    with door():
        jobs = _jobs(args)
        if not args.report:
            check_queue(jobs, args.run_dir)
    outcome, began = QueueOutcome(), time.monotonic()
    if not args.report:
        try:
            outcome = run_queue(jobs, args.run_dir, processes=args.processes)
        except QueueError as error:
            refuse(str(error))
        if outcome.stopped:
            _note_seconds(args.run_dir, time.monotonic() - began)
            print(f"Interrupted; {how_to_go_on(args)}", file=sys.stderr)
            return INTERRUPTED
    with door():
        standings = _collect([place(job, args.run_dir) for job in jobs], args.processes)
        if not standings:
            _tell_failures(outcome)
            raise ValueError(f"nothing has finished in {args.run_dir}; {LOGS}/ there tells why")
    seconds = _note_seconds(args.run_dir, 0.0 if args.report else time.monotonic() - began)
    _write(args, standings, seconds)
    _tell_failures(outcome)
    return 1 if outcome.failed else 0


def how_to_go_on(args: Args) -> str:
    """What to do after an interruption."""
    return f"the same command goes on with what is in {args.run_dir}"


def _jobs(args: Args) -> list[Job]:
    for name, least in (("games", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name} is {getattr(args, name)}; it must be at least {least}")
    if args.processes is not None and args.processes < 1:
        raise ValueError(f"--processes is {args.processes}; it must be at least 1")
    recipe = group_recipe(args.group) if args.recipe is None else load_recipe(args.recipe)
    own = recipe.scenarios if args.recipe else scenario_groups()[args.group]
    scenarios = list(parse_mixture(args.scenarios)) if args.scenarios else list(own)
    for scenario in scenarios:
        if load_scenario(scenario).mission is not None:
            raise ValueError(
                f"{scenario} is a mission, which has a score and no winner, and a suite counts wins; leave "
                "it out, and train on it with perceiver-policy train"
            )
    return suite_jobs(
        recipe,
        scenarios,
        args.run_dir,
        changes=parse_changes(args.changes),
        games=args.games,
        seed=args.seed,
    )


def _collect(jobs: list[Job], processes: int | None) -> list[Standing]:
    with Status("playing what was not played yet", console=Console(stderr=True)) as status:
        return collect(
            jobs,
            processes=processes,
            progress=lambda done, of: status.update(f"{done} of {of} matches of scripts played"),
        )


def _tell_failures(outcome: QueueOutcome) -> None:
    for name, reason in outcome.failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    if outcome.left:
        print(f"not begun, as what they wait for failed: {', '.join(outcome.left)}", file=sys.stderr)


def _note_seconds(run_dir: Path, seconds: float) -> float | None:
    """Wall time of all calls on this folder, this one's added; None if no call has trained in it."""
    file = run_dir / _QUEUE
    before = json.loads(file.read_text(encoding="utf-8"))["seconds"] if file.is_file() else 0.0
    if seconds:
        write_whole(file, json.dumps({"seconds": before + seconds}).encode())
    return before + seconds or None


def _write(args: Args, standings: list[Standing], seconds: float | None) -> None:
    processes = args.processes or len(os.sched_getaffinity(0))
    command = shlex.join(["perceiver-policy", *(word for word in sys.argv[1:] if word != "--report")])
    whole: dict[str, Any] = {
        "command": command,
        "processes": processes,
        "wall_seconds": seconds,
        "summary": summary(standings),
        "scenarios": [one.to_dict() for one in standings],
    } | provenance()
    page = markdown(standings, command=command, processes=processes, seconds=seconds)
    write_whole(args.run_dir / _JSON, (json.dumps(whole, indent=2) + "\n").encode())
    write_whole(args.run_dir / _PAGE, page.encode())
    games = standings[0].policy.games
    title = f"{games} battles each against the enemy trained against, on the embedded simulator"
    console = Console()
    console.print(console_table(title, standings))
    console.print(summary(standings), highlight=False, soft_wrap=True)
    console.print(f"{args.run_dir / _JSON}  {args.run_dir / _PAGE}", highlight=False, soft_wrap=True)
