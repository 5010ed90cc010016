"""``perceiver-policy scenarios``: what can be played, and a look at one of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from envs.scenarios import MissionKind, Placement, Preset, Scenario, Team, load_scenario, scenario_groups
from envs.unit_set import GAME_LOOPS_PER_SECOND, LOOPS_PER_STEP
from training.commands.door import door

_GROUPS = {
    "smac": "The maps of the StarCraft Multi-Agent Challenge",
    "smacv2": "SMACv2: unit types and places are drawn for each battle",
    "missions": "Mini-games: a score instead of a victory",
    "symmetric": "Even battles",
    "large": "Large battles",
}
_TASKS = {
    MissionKind.BEACON: "walk to the beacon",
    MissionKind.SHARDS: "pick up the shards",
    MissionKind.HUNT: "find and kill the second team",
    MissionKind.WAVES: "kill wave after wave",
}
_FEW_TYPES = 4
"""Types drawn that the list names one by one."""
_MAP_COLUMNS = 100
"""Characters across; wider maps are shown every second cell, third cell, ..."""


@dataclass(frozen=True)
class Args:
    """List the shipped scenarios, look at one, or check a scenario file of your own.

    NAME@smac, wherever a scenario is named, plays it under SMAC's rules: four directions, shooting from 6
    cells on, sight 9, SMAC's reward.
    """

    scenario: tyro.conf.Positional[str | None] = None
    """A scenario to show, with its map: a name, or the path of a scenario file."""
    check: Annotated[Path | None, tyro.conf.arg(metavar="FILE.yaml")] = None
    """A scenario file to check; an error names file and line."""


def run(args: Args) -> int:
    """Print the table, or the map."""
    with door():
        if args.scenario is not None and args.check is not None:
            raise ValueError(f"give {args.scenario} or --check {args.check}, not both")
        one = args.check if args.check is not None else args.scenario
        scenario = None if one is None else load_scenario(one)
    if scenario is None:
        for group, names in scenario_groups().items():
            _print_table([load_scenario(name) for name in names], _GROUPS[group])
        print("scenarios NAME shows a map; NAME@smac plays any of them under SMAC's rules")
        return 0
    _print_table([scenario])
    if args.check:
        print(f"{args.check} is a good scenario; use the path wherever a scenario's name is asked for")
    else:
        print("\n".join([*map_rows(scenario), "", *_facts(scenario)]))
    return 0


def map_rows(scenario: Scenario) -> list[str]:
    """The playable area in characters, north to south, a cell each or, of wide maps, every so many.

    Terrain as in a scenario file; A and B are where groups of the first and the second team start, a and b
    where their attack-moves lead, * where both do.
    """
    x0, y0, x1, y1 = scenario.playable
    left, bottom, right, top = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
    stride = max(math.ceil((right - left) / _MAP_COLUMNS), 1)
    terrain = scenario.terrain or ("." * scenario.width,) * scenario.height
    cells = [
        [terrain[scenario.height - 1 - y][x] for x in range(left, right, stride)]
        for y in range(bottom, top, stride)
    ]

    def mark(point: tuple[float, float], letter: str) -> None:
        row = min(int((point[1] - bottom) / stride), len(cells) - 1)
        column = min(int((point[0] - left) / stride), len(cells[0]) - 1)
        cells[row][column] = "*" if letter.islower() and cells[row][column] == "a" else letter

    for team, letter in zip(scenario.teams, "ab", strict=True):
        if team.groups and team.attack_point is not None:
            mark(team.attack_point, letter)
    for team, letter in zip(scenario.teams, "AB", strict=True):
        for group in team.groups:
            mark(group.spawn, letter)
    return ["".join(row) for row in reversed(cells)]


def _facts(scenario: Scenario) -> list[str]:
    """What the map does not show, a line each."""
    names = {"A": scenario.teams[0], "B": scenario.teams[1]}
    lines = []
    for letter, team in names.items():
        for group in team.groups:
            units = _counted(group.units) if scenario.draw is None else f"{len(group.units)} drawn"
            lines.append(f"{letter} at {_point(group.spawn)}: {units}")
        if team.groups and team.attack_point is not None:
            lines.append(f"{letter.lower()} at {_point(team.attack_point)}: where {letter} attacks")
        elif team.groups:
            lines.append(f"{letter} attacks nowhere by itself: it stands on guard")
        if team.reserve:
            lines.append(f"{team.reserve} of {letter} are reinforcements")
    if scenario.draw is not None:
        types = zip(scenario.draw.types, scenario.draw.weights, strict=True)
        lines.append("drawn: " + ", ".join(f"{name} {100 * weight:g} %" for name, weight in types))
        if scenario.draw.placement is Placement.SURROUND_OR_REFLECT:
            lines.append("places are drawn, too: B surrounds A, or both stand mirrored")
    if scenario.mission is not None:
        mission = scenario.mission
        x0, y0, x1, y1 = mission.region
        lines.append(f"things appear within x {x0:g} to {x1:g}, y {y0:g} to {y1:g}")
        points = {"beacon or shard": mission.collect, "kill": mission.kill, "loss": mission.loss}
        wanted = ("beacon or shard",) if scenario.neutral else ("kill", "loss")
        lines.append("score: " + ", ".join(f"{points[name]:g} a {name}" for name in wanted))
    if scenario.upgrades:
        lines.append(f"researched: {', '.join(scenario.upgrades)}")
    return lines


def _print_table(scenarios: Iterable[Scenario], title: str | None = None) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("scenario", no_wrap=True)
    for column in ("first team", "second team", "step limit", "map", "notes"):
        table.add_column(column, overflow="fold")
    for scenario in scenarios:
        table.add_row(*map(escape, _cells(scenario)))
    Console().print(table)


def _cells(scenario: Scenario) -> tuple[str, ...]:
    seconds = scenario.step_limit * LOOPS_PER_STEP / GAME_LOOPS_PER_SECOND
    x0, y0, x1, y1 = scenario.playable
    return (
        scenario.name,
        *(_units(scenario, team) for team in scenario.teams),
        f"{scenario.step_limit} ({seconds:.0f} s)",
        f"{x1 - x0:g} x {y1 - y0:g}",
        ", ".join(_notes(scenario)),
    )


def _notes(scenario: Scenario) -> list[str]:
    notes = []
    if scenario.mission is not None:
        notes.append(f"{scenario.mission.kind}: {_TASKS[scenario.mission.kind]}")
    if scenario.neutral:
        notes.append(_counted(scenario.neutral))
    if scenario.symmetric:
        notes.append("symmetric")
    if scenario.terrain is not None:
        notes.append("terrain")
    if scenario.preset is Preset.SMAC:
        notes.append("SMAC's rules")
    return notes


def _units(scenario: Scenario, team: Team) -> str:
    if not team.groups:
        return "nobody"
    if scenario.draw is not None:
        types = scenario.draw.types
        few = len(types) <= _FEW_TYPES
        return f"{team.size} of {', '.join(types) if few else f'{len(types)} types'}"
    return _counted(team.units) + (f" ({team.reserve} later)" if team.reserve else "")


def _counted(units: Iterable[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(units).items())


def _point(point: tuple[float, float]) -> str:
    return f"{point[0]:g}, {point[1]:g}"
