"""Scenario files: YAML as a person writes it, read into a :class:`envs.scenario_model.Scenario`.

::

    map:
      width: 32
      height: 32
      playable: [0, 7, 32, 25]         # x0, y0, x1, y1 in map cells; left out: the whole map
      terrain: ["####", ...]           # rows of envs/terrain.py's characters, north to south; left out: open
    teams:                             # exactly two; the first is the learner's
      - units: {marine: 5}
        spawn: [9, 16]                 # centre of the formation
      - groups:                        # instead of units and spawn: several formations
          - {units: {zealot: 2}, spawn: [23, 16]}
          - {units: {stalker: 3}, spawn: [27, 16]}
        attack_point: [9, 16]          # of attack-move; left out: the other team's spawn; none: on guard
        reserve: 0                     # the last so many units join only when a mission brings them in
    step_limit: 70                     # environment steps of 8 game loops
    spawn_jitter: 1.0                  # cells by which formations and units scatter
    idle_units_attack: false           # true: idle units fight, as on the ladder; false: only on orders
    preset: native                     # or smac
    upgrades: [stimpack, blink]        # abilities that have been researched; left out: none
    draw:                              # types drawn anew for each battle; the teams' units are stand-ins
      types: {marine: 0.45, marauder: 0.45, medivac: 0.1}
      never_alone: [medivac]
      placement: points                # or surround_or_reflect
    neutral: {beacon: 1}               # of missions; the second team is left out where there is no enemy
    mission: {kind: beacon, region: [22, 20, 44, 36], apart: 5, collect: 1}

Only ``map`` with its ``width`` and ``height``, ``teams`` and ``step_limit`` must be there. Keys are plain
strings and no key stands twice; anchors may not be referred to (no aliases, no merge keys). The limits on
values are the model's own, whatever a scenario is made from; :func:`scenario_from_json` reads what
``dataclasses.asdict`` made of one.
"""

from __future__ import annotations

from dataclasses import fields
from enum import StrEnum
from typing import Any

from envs.marked_yaml import Marked, Reader
from envs.scenario_limits import (
    MAX_UNITS,
    LimitError,
    MissionKind,
    Placement,
    Preset,
    ScenarioError,
    check_whole,
    is_number,
)
from envs.scenario_model import Draw, Group, Mission, Scenario, Team

_OF_THE_MAP = ("width", "height", "playable", "terrain")


def parse_scenario(data: bytes, file: str, name: str) -> Scenario:
    """The scenario called ``name`` that the bytes of ``file`` hold.

    Raises:
        ScenarioError: the file breaks a rule; the message names file and line.
    """
    read = Reader(file)
    known = tuple(field.name for field in fields(Scenario) if field.name not in ("name", *_OF_THE_MAP))
    root = read.mapping(read.document(data), 1, "a scenario", ("map", *known))
    area = read.mapping(*read.get(root, "map", "the scenario"), "map", _OF_THE_MAP)
    width, height = (read.get(area, side, "map")[0] for side in ("width", "height"))
    values = {key: root[key] for key in known if key in root and key != "teams"}
    values["step_limit"] = read.get(root, "step_limit", "the scenario")[0]
    if "neutral" in root:
        values["neutral"] = _units(read, root, "neutral", "the scenario")
    if "upgrades" in root:
        values["upgrades"] = _tuple(root["upgrades"])
    if "preset" in root:
        values["preset"] = _member(Preset, root["preset"])
    try:
        return Scenario(
            name=name,
            width=width,
            height=height,
            playable=_floats(area.get("playable", [0, 0, width, height])),
            terrain=_tuple(area.get("terrain")),
            teams=_teams(read, root),
            **values | {key: _part(read, root, key) for key in ("draw", "mission") if key in root},
        )
    except LimitError as error:
        read.fail(read.line_of(root, error.where), str(error))


def _teams(read: Reader, root: Marked) -> tuple[Team, Team]:
    listed, line = read.get(root, "teams", "the scenario")
    fewest = 1 if "mission" in root else 2
    if not isinstance(listed, list) or not fewest <= len(listed) <= 2:
        read.fail(line, "teams must list exactly two teams; only a mission without enemies has one")
    teams = []
    for i, value in enumerate(listed):
        what = f"team {i + 1}"
        team = read.mapping(value, line, what, ("units", "spawn", "groups", "attack_point", "reserve"))
        teams.append((team, _groups(read, team, what)))
    spawns = [groups[0].spawn if groups else None for _, groups in teams] + [None]
    made = [
        Team(groups, _attack_point(team, spawns[1 - i]), team.get("reserve", 0))
        for i, (team, groups) in enumerate(teams)
    ] + [Team((), None)]
    return made[0], made[1]


def _groups(read: Reader, team: Marked, what: str) -> tuple[Group, ...]:
    if "groups" not in team:
        return (_group(read, team, what),)
    for key in ("units", "spawn"):
        if key in team:
            read.fail(team.lines[key], f"{what} has groups; {key} belongs into each of them")
    listed, line = team["groups"], team.lines["groups"]
    if not isinstance(listed, list):
        read.fail(line, f"{what}: groups must be a list")
    groups = []
    for j, value in enumerate(listed):
        name = f"{what}, group {j + 1}"
        groups.append(_group(read, read.mapping(value, line, name, ("units", "spawn")), name))
    return tuple(groups)


def _group(read: Reader, mapping: Marked, what: str) -> Group:
    units = _units(read, mapping, "units", what)
    return Group(units, _floats(read.get(mapping, "spawn", what)[0]))


def _attack_point(team: Marked, default: Any) -> Any:
    value = team.get("attack_point", default)
    return None if value == "none" else _floats(value)


def _units(read: Reader, mapping: Marked, key: str, what: str) -> tuple[str, ...]:
    value, line = read.get(mapping, key, what)
    counts = read.mapping(value, line, f"{what}: {key}", None)
    units: list[str] = []
    for name, count in counts.items():
        try:
            check_whole(count, f"{what}: number of {name}", 0, MAX_UNITS)
        except LimitError as error:
            read.fail(counts.lines[name], str(error))
        units += [name] * count
    return tuple(units)


def _part(read: Reader, root: Marked, key: str) -> Draw | Mission | None:
    """The draw or the mission of a file."""
    if key == "draw":
        value = read.mapping(root[key], root.lines[key], key, ("types", "never_alone", "placement"))
        weights, line = read.get(value, "types", key)
        types = read.mapping(weights, line, "draw: types", None)
        return Draw(
            types=tuple(types),
            weights=tuple(types.values()),
            never_alone=_tuple(value.get("never_alone", [])),
            placement=_member(Placement, value.get("placement", Placement.POINTS)),
        )
    known = tuple(field.name for field in fields(Mission))
    value = read.mapping(root[key], root.lines[key], key, known)
    for required in ("kind", "region"):
        read.get(value, required, key)
    changes = {"kind": _member(MissionKind, value["kind"]), "region": _floats(value["region"])}
    if "near_ring" in value:
        changes["near_ring"] = _floats(value["near_ring"])
    return Mission(**{**value, **changes})


def scenario_from_json(data: Any) -> Scenario:
    """The scenario that ``dataclasses.asdict`` and JSON made ``data`` of.

    Raises:
        ScenarioError: keys are missing or unknown, or a value breaks a limit.
    """
    values = _keys(data, Scenario, "the scenario")
    teams = values["teams"]
    if not isinstance(teams, list) or not all(isinstance(team, dict) for team in teams):
        raise ScenarioError("teams must be a list of objects")
    values["teams"] = tuple(_team_from_json(team) for team in teams)
    for key in ("playable", "terrain", "neutral", "upgrades"):
        values[key] = _tuple(values[key])
    values["preset"] = _member(Preset, values["preset"])
    for key, kind, convert in (("draw", Draw, _draw_values), ("mission", Mission, _mission_values)):
        if values[key] is not None:
            values[key] = kind(**convert(_keys(values[key], kind, f"the {key}")))
    return Scenario(**values)


def _team_from_json(data: Any) -> Team:
    values = _keys(data, Team, "a team")
    groups = values["groups"]
    if not isinstance(groups, list):
        raise ScenarioError("a team's groups must be a list")
    values["groups"] = tuple(
        Group(**{key: _tuple(value) for key, value in _keys(group, Group, "a group").items()})
        for group in groups
    )
    values["attack_point"] = _tuple(values["attack_point"])
    return Team(**values)


def _draw_values(values: dict[str, Any]) -> dict[str, Any]:
    lists = {key: _tuple(values[key]) for key in ("types", "weights", "never_alone")}
    return lists | {"placement": _member(Placement, values["placement"])}


def _mission_values(values: dict[str, Any]) -> dict[str, Any]:
    lists = {key: _tuple(values[key]) for key in ("region", "near_ring")}
    return values | lists | {"kind": _member(MissionKind, values["kind"])}


def _keys(data: Any, kind: type, what: str) -> dict[str, Any]:
    """A copy of ``data``, which must be a mapping with exactly the fields of the dataclass ``kind``."""
    if not isinstance(data, dict):
        raise ScenarioError(f"{what} must be an object")
    expected = {field.name for field in fields(kind)}
    missing, extra = sorted(expected - set(data)), sorted(set(data) - expected)
    if missing or extra:
        raise ScenarioError(f"{what}: missing keys {missing}, unknown keys {extra}")
    return dict(data)


# Values of the wrong type pass these as they are, for the model to refuse.


def _tuple(value: Any) -> Any:
    """A list as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _floats(value: Any) -> Any:
    """A list of numbers as a tuple of floats."""
    if not isinstance(value, list):
        return value
    return tuple(float(item) if is_number(item) else item for item in value)


def _member(kind: type[StrEnum], value: Any) -> Any:
    """The name of a member of ``kind`` as that member."""
    return kind(value) if isinstance(value, str) and value in {*kind} else value
