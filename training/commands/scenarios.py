"""``perceiver-policy scenarios``: what can be played."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from envs.scenarios import Scenario, Team, load_scenario, scenario_names
from envs.unit_set import GAME_LOOPS_PER_SECOND, LOOPS_PER_STEP
from training.commands.door import door


@dataclass(frozen=True)
class Args:
    """List the shipped scenarios, or check a scenario file of your own."""

    check: Annotated[Path | None, tyro.conf.arg(metavar="FILE.yaml")] = None
    """A scenario file to check; an error names file and line."""


def run(args: Args) -> int:
    """Print the table."""
    with door():
        scenarios = [load_scenario(name) for name in ([args.check] if args.check else scenario_names())]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("scenario", "first team", "second team", "step limit", "map", "sides"):
        table.add_column(column)
    for scenario in scenarios:
        table.add_row(*map(escape, _cells(scenario)))
    Console().print(table)
    if args.check:
        print(f"{args.check} is a good scenario; use the path wherever a scenario's name is asked for")
    return 0


def _cells(scenario: Scenario) -> tuple[str, ...]:
    seconds = scenario.step_limit * LOOPS_PER_STEP / GAME_LOOPS_PER_SECOND
    x0, y0, x1, y1 = scenario.playable
    return (
        scenario.name,
        *(_units(team) for team in scenario.teams),
        f"{scenario.step_limit} ({seconds:.0f} s)",
        f"{x1 - x0:g} x {y1 - y0:g}",
        "symmetric" if scenario.symmetric else "different",
    )


def _units(team: Team) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(team.units).items())
