"""Scenarios: who fights whom, where and for how long. Named ones, and YAML files of one's own.

A scenario file::

    map: {width: 32, height: 32, playable: [0, 7, 32, 25]}   # map cells; x0, y0, x1, y1
    teams:                                                   # exactly two; the first is the learner's
      - units: {marine: 5}
        spawn: [9, 16]                                       # centre of the formation
      - units: {marine: 6}
        spawn: [23, 16]
        attack_point: [9, 16]                                # of attack-move; default: the other spawn
    step_limit: 70                                           # environment steps of 8 game loops
    spawn_jitter: 1.0                                        # cells by which formations and units scatter
    idle_units_attack: false                                 # True: idle units fight, as on the ladder;
                                                             # False: as SMAC's, only on orders

The scenarios named by :func:`scenario_names` are such files, shipped with the package.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from envs.units import UnitType, unit_table

MAX_UNITS = 512
"""Units of both teams together that one battle may hold."""
MIN_MAP_SIZE, MAX_MAP_SIZE = 4, 256
MAX_STEP_LIMIT = 100_000
MAX_NUMBER = 1e6
"""No coordinate or distance in a scenario is larger."""


class ScenarioError(ValueError):
    """A scenario is unknown or its file is wrong; the message names the file, the line and the way out."""


@dataclass(frozen=True)
class Team:
    """One side of a battle. Positions are map cells."""

    units: tuple[str, ...]
    """Unit names, one entry a unit."""
    spawn: tuple[float, float]
    attack_point: tuple[float, float]

    @property
    def size(self) -> int:
        return len(self.units)


@dataclass(frozen=True)
class Scenario:
    """A battle's set-up; see the module docstring for the fields."""

    name: str
    width: int
    height: int
    playable: tuple[float, float, float, float]
    teams: tuple[Team, Team]
    step_limit: int
    spawn_jitter: float = 1.0
    idle_units_attack: bool = False

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.playable
        points = [point for team in self.teams for point in (team.spawn, team.attack_point)]
        sizes, jitter_limit = (self.width, self.height), min(self.width, self.height) / 2
        for kept, rule in (
            (
                all(MIN_MAP_SIZE <= size <= MAX_MAP_SIZE for size in sizes),
                f"the map is {self.width} x {self.height}; sides must be {MIN_MAP_SIZE} to {MAX_MAP_SIZE}",
            ),
            (
                0 <= x0 < x1 <= self.width and 0 <= y0 < y1 <= self.height,
                f"playable is {list(self.playable)}; it must be x0, y0, x1, y1 within the map",
            ),
            (
                1 <= self.step_limit <= MAX_STEP_LIMIT,
                f"step_limit is {self.step_limit}; it must be 1 to {MAX_STEP_LIMIT}",
            ),
            (
                0 <= self.spawn_jitter <= jitter_limit,
                f"spawn_jitter is {self.spawn_jitter}; it must be 0 to half the map, {jitter_limit:g}",
            ),
            (all(team.size for team in self.teams), "a team has no units"),
            (
                self.num_units <= MAX_UNITS,
                f"{self.num_units} units in one battle; at most {MAX_UNITS} are supported",
            ),
            (
                all(x0 <= x <= x1 and y0 <= y <= y1 for x, y in points),
                f"a spawn or attack point lies outside the playable area: {points}",
            ),
        ):
            if not kept:
                raise ScenarioError(f"scenario {self.name!r}: {rule}")

    @property
    def num_units(self) -> int:
        """Units of both teams: the rows U of an observation."""
        return sum(team.size for team in self.teams)

    @property
    def unit_types(self) -> tuple[UnitType, ...]:
        """The distinct unit types of both teams, in table order."""
        names = {name for team in self.teams for name in team.units}
        return tuple(unit for unit in unit_table().values() if unit.name in names)

    @property
    def symmetric(self) -> bool:
        """True where neither side has an advantage: same units, spawns mirrored in the playable area."""
        ours, theirs = self.teams
        x0, y0, x1, y1 = self.playable

        pairs = ((ours.spawn, theirs.spawn), (ours.attack_point, theirs.attack_point))
        across = all(math.isclose(a[0] + b[0], x0 + x1) for a, b in pairs)
        reflected = all(math.isclose(a[1], b[1]) for a, b in pairs)
        rotated = all(math.isclose(a[1] + b[1], y0 + y1) for a, b in pairs)
        return sorted(ours.units) == sorted(theirs.units) and across and (reflected or rotated)


def formation_radius(units: Iterable[str]) -> float:
    """Radius in map cells of the disc a formation of these units takes before jitter."""
    table = unit_table()
    return math.sqrt(sum(1.5 * (2 * table[name].radius) ** 2 for name in units) / math.pi)


def scenario_names() -> list[str]:
    """Names of the shipped scenarios, small ones first."""
    names = [path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml")]
    return sorted(names, key=lambda name: (load_scenario(name).num_units, name))


def load_scenario(name_or_path: str | Path) -> Scenario:
    """A shipped scenario by name, or one of your own from a path ending in ``.yaml`` or ``.yml``.

    Raises:
        ScenarioError: unknown name (with the nearest ones), or a file that breaks a rule (with its line).
    """
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.is_file():
            raise ScenarioError(f"{path}: no such file")
        try:
            return _parse(path.read_text(encoding="utf-8"), str(path), path.stem)
        except UnicodeDecodeError as error:
            raise ScenarioError(f"{path}: not UTF-8 text: {error}") from None
    source = _folder().joinpath(f"{text}.yaml")
    if not text or "/" in text or not source.is_file():
        known = [path.name.removesuffix(".yaml") for path in _folder().iterdir()]
        near = difflib.get_close_matches(text, known, n=3, cutoff=0.3)
        hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(sorted(known))}"
        raise ScenarioError(f"unknown scenario {text!r}; {hint}; a path to a .yaml file works too")
    return _parse(source.read_text(encoding="utf-8"), f"{text}.yaml", text)


def _folder() -> Traversable:
    return resources.files("envs").joinpath("scenarios")


class _Marked(dict[str, Any]):
    """A YAML mapping that remembers the line of each key."""

    def __init__(self, items: Mapping[Any, Any], lines: Mapping[str, int], line: int) -> None:
        super().__init__(items)
        self.lines, self.line = lines, line


class _MarkedLoader(yaml.SafeLoader):
    """Plain data only: no tags, no aliases (which may blow up), no merged mappings, only strings as keys."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            _refuse_yaml("aliases (*) are not supported", self.peek_event().start_mark)
        return super().compose_node(parent, index)


def _refuse_yaml(problem: str, mark: Any) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, mark)


def _construct(loader: _MarkedLoader, node: yaml.MappingNode) -> _Marked:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            _refuse_yaml(f"keys must be names, not {shown}", key.start_mark)
        if key.value in lines:
            _refuse_yaml(f"key {key.value!r} stands twice", key.start_mark)
        lines[key.value] = key.start_mark.line + 1
    return _Marked(loader.construct_mapping(node, deep=True), lines, node.start_mark.line + 1)


_MarkedLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct)


@dataclass
class _Reader:
    """Takes typed values out of marked mappings; every refusal names file and line."""

    file: str

    def fail(self, line: int, message: str) -> NoReturn:
        raise ScenarioError(f"{self.file}:{line}: {message}")

    def mapping(self, value: Any, line: int, what: str, known: tuple[str, ...] | None) -> _Marked:
        if not isinstance(value, _Marked):
            self.fail(line, f"{what} must be a mapping, not {value!r}")
        for key in value if known is not None else ():
            if key not in (known or ()):
                near = difflib.get_close_matches(str(key), known or (), n=1, cutoff=0.4)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known or ())}"
                self.fail(value.lines[key], f"unknown key {key!r} in {what}; {hint}")
        return value

    def get(self, mapping: _Marked, key: str, what: str) -> tuple[Any, int]:
        if key not in mapping:
            self.fail(mapping.line, f"{what} has no {key!r}")
        return mapping[key], mapping.lines[key]

    def whole(self, value: Any, line: int, what: str, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fail(line, f"{what} is {value!r}; it must be a whole number from {low} to {high}")
        return value

    def numbers(self, value: Any, line: int, what: str, count: int) -> tuple[float, ...]:
        good = isinstance(value, list) and len(value) == count
        if not good or any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
            self.fail(line, f"{what} is {value!r}; it must be a list of {count} numbers")
        if not all(abs(v) <= MAX_NUMBER for v in value):
            self.fail(line, f"{what} is {value!r}; its numbers must be finite, and at most {MAX_NUMBER:g}")
        return tuple(float(v) for v in value)


def _parse(text: str, file: str, name: str) -> Scenario:
    read = _Reader(file)
    try:
        document = yaml.load(text, _MarkedLoader)  # a SafeLoader: plain data only
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        read.fail(line, f"not valid YAML: {error.problem}")
    except (yaml.YAMLError, RecursionError) as error:  # a character that YAML forbids, or too deep a nesting
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        read.fail(1, f"not valid YAML: {reason}")
    known = ("map", "teams", "step_limit", "spawn_jitter", "idle_units_attack")
    root = read.mapping(document, 1, "a scenario", known)
    area = read.mapping(*read.get(root, "map", "the scenario"), "map", ("width", "height", "playable"))
    width, height = (
        read.whole(*read.get(area, side, "map"), f"map {side}", MIN_MAP_SIZE, MAX_MAP_SIZE)
        for side in ("width", "height")
    )
    playable = _playable(read, area, width, height)
    jitter_line = root.lines.get("spawn_jitter", root.line)
    (jitter,) = read.numbers([root.get("spawn_jitter", 1.0)], jitter_line, "spawn_jitter", 1)
    if not 0 <= jitter <= min(width, height) / 2:
        read.fail(jitter_line, f"spawn_jitter is {jitter}; it must be from 0 to half the map")
    idle = root.get("idle_units_attack", False)
    if not isinstance(idle, bool):
        read.fail(root.lines["idle_units_attack"], f"idle_units_attack is {idle!r}; it must be true or false")

    teams, line = read.get(root, "teams", "the scenario")
    if not isinstance(teams, list) or len(teams) != 2:
        read.fail(line, "teams must list exactly two teams")
    teams = [
        read.mapping(team, line, f"team {i + 1}", ("units", "spawn", "attack_point"))
        for i, team in enumerate(teams)
    ]
    spawns = [_point(read, team, "spawn", f"team {i + 1}", playable) for i, team in enumerate(teams)]
    built = []
    for i, team in enumerate(teams):
        units = _units(read, team, f"team {i + 1}")
        x0, y0, x1, y1 = playable
        if formation_radius(units) > min(x1 - x0, y1 - y0) / 2:
            read.fail(team.lines["units"], f"team {i + 1}: {len(units)} units do not fit the playable area")
        target = (
            _point(read, team, "attack_point", f"team {i + 1}", playable)
            if "attack_point" in team
            else spawns[1 - i]
        )
        built.append(Team(units, spawns[i], target))
    total = sum(team.size for team in built)
    if total > MAX_UNITS:
        read.fail(line, f"{total} units in one battle; at most {MAX_UNITS} are supported")
    limit = read.whole(*read.get(root, "step_limit", "the scenario"), "step_limit", 1, MAX_STEP_LIMIT)
    return Scenario(name, width, height, playable, (built[0], built[1]), limit, jitter, idle)


def _playable(read: _Reader, area: _Marked, width: int, height: int) -> tuple[float, float, float, float]:
    if "playable" not in area:
        return 0.0, 0.0, float(width), float(height)
    x0, y0, x1, y1 = read.numbers(area["playable"], area.lines["playable"], "playable", 4)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        read.fail(
            area.lines["playable"],
            f"playable is {[x0, y0, x1, y1]}; it must be x0, y0, x1, y1 within the {width} x {height} map",
        )
    return x0, y0, x1, y1


def _point(
    read: _Reader, team: _Marked, key: str, what: str, playable: tuple[float, float, float, float]
) -> tuple[float, float]:
    value, line = read.get(team, key, what)
    x, y = read.numbers(value, line, f"{what}: {key}", 2)
    x0, y0, x1, y1 = playable
    if not (x0 <= x <= x1 and y0 <= y <= y1):
        read.fail(
            line,
            f"{what}: {key} {[x, y]} lies outside the playable area x {x0:g} to {x1:g}, y {y0:g} to {y1:g}",
        )
    return x, y


def _units(read: _Reader, team: _Marked, what: str) -> tuple[str, ...]:
    value, line = read.get(team, "units", what)
    counts = read.mapping(value, line, f"{what}: units", None)
    units: list[str] = []
    for name, count in counts.items():
        at = counts.lines[name]
        if name not in unit_table():
            near = difflib.get_close_matches(str(name), unit_table(), n=3, cutoff=0.4)
            hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(unit_table())}"
            read.fail(at, f"{what}: unknown unit {name!r}; {hint}")
        units += [name] * read.whole(count, at, f"{what}: number of {name}", 0, MAX_UNITS)
    if not units:
        read.fail(line, f"{what} has no units")
    return tuple(units)
