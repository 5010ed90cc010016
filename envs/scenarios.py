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

Keys are plain strings and no key stands twice; anchors may not be referred to (no aliases, no merge keys).
The limits on values are :class:`Scenario`'s own, whatever a scenario is made from.

The scenarios named by :func:`scenario_names` are such files, shipped with the package.
"""

from __future__ import annotations

import difflib
import math
import sys
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
"""Map cells a side."""
MAX_STEPS = 100_000
"""Environment steps of one battle."""
_MAX_SCALAR = 100
"""Characters of one key or value in a file."""


class ScenarioError(ValueError):
    """A scenario is unknown or wrong; the message names the value, the way out and, of a file, the line."""


class _LimitError(ScenarioError):
    """A value breaks a limit. ``where`` are the keys that lead to it from the top of a scenario file."""

    def __init__(self, message: str, *where: str | int) -> None:
        super().__init__(message)
        self.where = where


@dataclass(frozen=True)
class Team:
    """One side of a battle. Positions are map cells. Checked as part of a :class:`Scenario`."""

    units: tuple[str, ...]
    """Unit names, one entry a unit."""
    spawn: tuple[float, float]
    attack_point: tuple[float, float]

    @property
    def size(self) -> int:
        return len(self.units)


@dataclass(frozen=True)
class Scenario:
    """A battle's set-up; see the module docstring for the fields.

    Raises:
        ScenarioError: a value is not of its type or breaks a limit.
    """

    name: str
    width: int
    height: int
    playable: tuple[float, float, float, float]
    teams: tuple[Team, Team]
    step_limit: int
    spawn_jitter: float = 1.0
    idle_units_attack: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise _LimitError(f"name is {self.name!r}; it must be a string", "name")
        for key, side in (("width", self.width), ("height", self.height)):
            _check_whole(side, f"map {key}", MIN_MAP_SIZE, MAX_MAP_SIZE, "map", key)
        _check_numbers(self.playable, "playable", 4, "map", "playable")
        x0, y0, x1, y1 = self.playable
        if not (0 <= x0 < x1 <= self.width and 0 <= y0 < y1 <= self.height):
            area = f"within the {self.width} x {self.height} map"
            raise _LimitError(
                f"playable is {[*self.playable]}; it must be x0, y0, x1, y1 {area}", "map", "playable"
            )
        jitter = self.spawn_jitter
        if not (_is_number(jitter) and 0 <= jitter <= min(self.width, self.height) / 2):
            raise _LimitError(
                f"spawn_jitter is {jitter!r}; it must be a number from 0 to half the map", "spawn_jitter"
            )
        if not isinstance(self.idle_units_attack, bool):
            raise _LimitError(
                f"idle_units_attack is {self.idle_units_attack!r}; it must be true or false",
                "idle_units_attack",
            )
        if [type(team) for team in self.teams] != [Team, Team]:
            raise _LimitError("teams must list exactly two teams", "teams")
        for i, team in enumerate(self.teams):
            _check_units(team.units, f"team {i + 1}", "teams", i, "units")
        if self.num_units > MAX_UNITS:
            raise _LimitError(
                f"{self.num_units} units in one battle; at most {MAX_UNITS} are supported", "teams"
            )
        for key in ("spawn", "attack_point"):  # an attack point left out is the other team's spawn
            for i, team in enumerate(self.teams):
                self._check_point(getattr(team, key), f"team {i + 1}: {key}", "teams", i, key)
        for i, team in enumerate(self.teams):
            if formation_radius(team.units) > min(x1 - x0, y1 - y0) / 2:
                message = f"team {i + 1}: {team.size} units do not fit the playable area"
                raise _LimitError(message, "teams", i, "units")
        _check_whole(self.step_limit, "step_limit", 1, MAX_STEPS, "step_limit")

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
        """True where neither side has an advantage: the same units, and one reflection or half-turn of the
        playable area that takes both the first team's spawn and its attack point to the second's."""
        ours, theirs = self.teams
        x0, y0, x1, y1 = self.playable

        def mirrored(a: tuple[float, float], b: tuple[float, float], turned: bool) -> bool:
            y = y0 + y1 - a[1] if turned else a[1]
            return math.isclose(a[0] + b[0], x0 + x1) and math.isclose(y, b[1], abs_tol=1e-9)

        return sorted(ours.units) == sorted(theirs.units) and any(
            mirrored(ours.spawn, theirs.spawn, turned)
            and mirrored(ours.attack_point, theirs.attack_point, turned)
            for turned in (False, True)
        )

    def _check_point(self, value: Any, what: str, *where: str | int) -> None:
        _check_numbers(value, what, 2, *where)
        (x, y), (x0, y0, x1, y1) = value, self.playable
        if not (x0 <= x <= x1 and y0 <= y <= y1):
            area = f"the playable area x {x0:g} to {x1:g}, y {y0:g} to {y1:g}"
            raise _LimitError(f"{what} {[x, y]} lies outside {area}", *where)


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
        return _parse(path.read_bytes(), str(path), path.stem)
    source = _folder().joinpath(f"{text}.yaml")
    if not text or "/" in text or not source.is_file():
        known = [path.name.removesuffix(".yaml") for path in _folder().iterdir()]
        near = difflib.get_close_matches(text, known, n=3, cutoff=0.3)
        hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(sorted(known))}"
        raise ScenarioError(f"unknown scenario {text!r}; {hint}; a path to a .yaml file works too")
    return _parse(source.read_bytes(), f"{text}.yaml", text)


def _folder() -> Traversable:
    return resources.files("envs").joinpath("scenarios")


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max  # nor a whole number too large for a float


def _check_whole(value: Any, what: str, low: int, high: int, *where: str | int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        message = f"{what} is {value!r}; it must be a whole number from {low} to {high}"
        raise _LimitError(message, *where)


def _check_numbers(value: Any, what: str, count: int, *where: str | int) -> None:
    if not isinstance(value, tuple) or len(value) != count or not all(map(_is_number, value)):
        shown = [*value] if isinstance(value, tuple) else value
        raise _LimitError(f"{what} is {shown!r}; it must be a list of {count} numbers, all finite", *where)


def _check_units(units: Any, what: str, *where: str | int) -> None:
    if not isinstance(units, tuple) or not all(isinstance(name, str) for name in units):
        raise _LimitError(f"{what}: units must be a list of names", *where)
    if not units:
        raise _LimitError(f"{what} has no units", *where)
    for name in units:
        if name not in unit_table():
            near = difflib.get_close_matches(name, unit_table(), n=3, cutoff=0.4)
            hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(unit_table())}"
            raise _LimitError(f"{what}: unknown unit {name!r}; {hint}", *where, name)


class _Marked(dict[str, Any]):
    """A YAML mapping that remembers the line of each key."""

    def __init__(self, items: Mapping[Any, Any], lines: Mapping[str, int], line: int) -> None:
        super().__init__(items)
        self.lines, self.line = lines, line


def _refusal(message: str, mark: yaml.Mark) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, message, mark)


class _MarkedLoader(yaml.SafeLoader):
    """Plain data with the lines of keys. Refuses what could make a small file a large or endless one."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise _refusal(
                f"alias *{event.anchor}: write the value out, aliases are refused", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and len(node.value) > _MAX_SCALAR:
            raise _refusal(f"a value of {len(node.value)} characters; at most {_MAX_SCALAR}", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError):  # what PyYAML lets through of a misfit like !!int x
            raise _refusal(f"{node.value!r} does not fit its type {node.tag}", node.start_mark) from None


def _construct(loader: _MarkedLoader, node: yaml.MappingNode) -> _Marked:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag != yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG:
            what = repr(key.value[:_MAX_SCALAR]) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise _refusal(f"{what} cannot be a key; keys are names", key.start_mark)
        if key.value in lines:
            raise _refusal(f"key {key.value[:_MAX_SCALAR]!r} stands twice", key.start_mark)
        lines[key.value] = key.start_mark.line + 1
    return _Marked(loader.construct_mapping(node, deep=True), lines, node.start_mark.line + 1)


_MarkedLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct)


@dataclass
class _Reader:
    """Takes a scenario out of marked mappings; every refusal names file and line."""

    file: str

    def fail(self, line: int, message: str) -> NoReturn:
        raise ScenarioError(f"{self.file}:{line}: {message}")

    def document(self, data: bytes) -> Any:
        """The file as plain data, mappings marked."""
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            self.fail(data.count(b"\n", 0, error.start) + 1, f"not UTF-8: {error.reason}")
        try:
            return yaml.load(text, _MarkedLoader)  # a SafeLoader: plain data only
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            self.fail(line, f"not valid YAML: {error.problem}")
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self.fail(line, f"not valid YAML: character {chr(error.character)!r} is not allowed")
        except (yaml.YAMLError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            self.fail(1, f"not valid YAML: {reason}")

    def mapping(self, value: Any, line: int, what: str, known: tuple[str, ...] | None) -> _Marked:
        if not isinstance(value, _Marked):
            self.fail(line, f"{what} must be a mapping, not {value!r}")
        for key in value if known is not None else ():
            if key not in (known or ()):
                near = difflib.get_close_matches(key, known or (), n=1, cutoff=0.4)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known or ())}"
                self.fail(value.lines[key], f"unknown key {key!r} in {what}; {hint}")
        return value

    def get(self, mapping: _Marked, key: str, what: str) -> tuple[Any, int]:
        if key not in mapping:
            self.fail(mapping.line, f"{what} has no {key!r}")
        return mapping[key], mapping.lines[key]

    def line_of(self, root: _Marked, where: tuple[str | int, ...]) -> int:
        """The line of the value that the keys ``where`` lead to, or of the last one on the way there."""
        value: Any = root
        line = root.line
        for key in where:
            if isinstance(value, _Marked) and key in value:
                value, line = value[str(key)], value.lines[str(key)]
            elif isinstance(value, list) and isinstance(key, int):
                value = value[key]
                line = value.line if isinstance(value, _Marked) else line
        return line


def _parse(data: bytes, file: str, name: str) -> Scenario:
    read = _Reader(file)
    known = ("map", "teams", "step_limit", "spawn_jitter", "idle_units_attack")
    root = read.mapping(read.document(data), 1, "a scenario", known)
    area = read.mapping(*read.get(root, "map", "the scenario"), "map", ("width", "height", "playable"))
    width, height = (read.get(area, side, "map")[0] for side in ("width", "height"))
    teams, line = read.get(root, "teams", "the scenario")
    if not isinstance(teams, list) or len(teams) != 2:
        read.fail(line, "teams must list exactly two teams")
    teams = [
        read.mapping(team, line, f"team {i + 1}", ("units", "spawn", "attack_point"))
        for i, team in enumerate(teams)
    ]
    spawns = [_floats(read.get(team, "spawn", f"team {i + 1}")[0]) for i, team in enumerate(teams)]
    targets = [_floats(team.get("attack_point", spawns[1 - i])) for i, team in enumerate(teams)]
    units = [_units(read, team, f"team {i + 1}") for i, team in enumerate(teams)]
    try:
        return Scenario(
            name=name,
            width=width,
            height=height,
            playable=_floats(area.get("playable", [0, 0, width, height])),
            teams=(Team(units[0], spawns[0], targets[0]), Team(units[1], spawns[1], targets[1])),
            step_limit=read.get(root, "step_limit", "the scenario")[0],
            spawn_jitter=root.get("spawn_jitter", Scenario.spawn_jitter),
            idle_units_attack=root.get("idle_units_attack", Scenario.idle_units_attack),
        )
    except _LimitError as error:
        read.fail(read.line_of(root, error.where), str(error))


def _floats(value: Any) -> Any:
    """A list of numbers as a tuple of floats; anything else as it is, for :class:`Scenario` to refuse."""
    if not isinstance(value, list):
        return value
    return tuple(float(item) if _is_number(item) else item for item in value)


def _units(read: _Reader, team: _Marked, what: str) -> tuple[str, ...]:
    value, line = read.get(team, "units", what)
    counts = read.mapping(value, line, f"{what}: units", None)
    units: list[str] = []
    for name, count in counts.items():
        try:
            _check_whole(count, f"{what}: number of {name}", 0, MAX_UNITS)
        except _LimitError as error:
            read.fail(counts.lines[name], str(error))
        units += [name] * count
    return tuple(units)
