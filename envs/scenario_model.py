"""What a scenario is: teams in groups, the ground they meet on, what is drawn anew for each battle, missions.

A :class:`Scenario` checks itself when it is made, whatever it is made from: code, a scenario file
(``envs/scenario_files.py``) or a replay. Positions and distances are map cells; y grows to the north.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain

from envs.scenario_ground import check_ground, is_symmetric
from envs.scenario_limits import (
    MAX_MAP_SIZE,
    MAX_STEPS,
    MAX_UNITS,
    MIN_MAP_SIZE,
    LimitError,
    MissionKind,
    Placement,
    Preset,
    check_fighters,
    check_flag,
    check_member,
    check_number,
    check_numbers,
    check_rectangle,
    check_units,
    check_upgrades,
    check_whole,
    formation_radius,
    is_number,
    is_tuple_of,
)
from envs.units import UnitType, unit_table

_MAX_SCORE = 1e6


@dataclass(frozen=True)
class Group:
    """Units that start in one formation."""

    units: tuple[str, ...]
    """Unit names, one entry a unit."""
    spawn: tuple[float, float]
    """Centre of the formation."""


@dataclass(frozen=True)
class Team:
    """One side of a battle. Checked as part of a :class:`Scenario`."""

    groups: tuple[Group, ...]
    """None where nobody is there: the second team of a mission without enemies."""
    attack_point: tuple[float, float] | None
    """Where the builtin opponent attack-moves to; None: it stands on guard."""
    reserve: int = 0
    """The last so many units are not on the field at the start; a mission's reinforcements."""

    @property
    def units(self) -> tuple[str, ...]:
        """Unit names of all groups, one entry a unit, in the order of the observation's rows."""
        return tuple(chain.from_iterable(group.units for group in self.groups))

    @property
    def size(self) -> int:
        """Units, the reserve included."""
        return len(self.units)

    @property
    def spawn(self) -> tuple[float, float]:
        """The first group's. Raises IndexError for a team without groups."""
        return self.groups[0].spawn


@dataclass(frozen=True)
class Draw:
    """Unit types drawn anew for each battle.

    The smaller team's are drawn independently; the larger gets the same ones, then drawn extras. The groups
    of a scenario's teams then say only how many units stand around which point: the types they name are
    stand-ins.
    """

    types: tuple[str, ...]
    weights: tuple[float, ...]
    """Probability of each type; they sum to 1."""
    never_alone: tuple[str, ...] = ()
    """A team, or its extras, all of these types is drawn again."""
    placement: Placement = Placement.POINTS


@dataclass(frozen=True)
class Mission:
    """Something to do other than to win; the episode's return is its score. The battle ends with the step
    limit, or when the first team has no units left."""

    kind: MissionKind
    region: tuple[float, float, float, float]
    """x0, y0, x1, y1: where beacons, shards and hunted units appear."""
    apart: float = 0.0
    """Least distance of what appears from every unit of the first team."""
    spread: float = 0.0
    """Least distance between things that appear."""
    collect: float = 1.0
    """Score for a beacon reached or a shard picked up."""
    kill: float = 0.0
    """Score for each unit of the second team that dies."""
    loss: float = 0.0
    """Score for each unit of the first team that dies; usually negative."""
    reinforcements: int = 0
    """``waves``: units of the first team that join with each new wave, as many as its rows have room for."""
    near: int = 0
    """``hunt``: how many of the second team appear within ``near_ring`` at the start."""
    near_ring: tuple[float, float] = (0.0, 0.0)
    """``hunt``: least and greatest distance of those from the region's centre."""
    far: float = 0.0
    """``hunt``: least distance of all others from the region's centre, at the start only."""


@dataclass(frozen=True)
class Scenario:
    """A battle's set-up; ``envs/scenario_files.py`` explains the fields as keys of a file.

    Raises:
        ScenarioError: a value is not of its type, breaks a limit, or the battle could not be played.
    """

    name: str
    width: int
    height: int
    playable: tuple[float, float, float, float]
    teams: tuple[Team, Team]
    step_limit: int
    spawn_jitter: float = 1.0
    idle_units_attack: bool = False
    terrain: tuple[str, ...] | None = None
    """Rows of ``envs/terrain.py``'s characters, north to south; None: open ground everywhere."""
    neutral: tuple[str, ...] = ()
    """Beacons and shards: units of nobody, the last rows of an observation."""
    draw: Draw | None = None
    mission: Mission | None = None
    preset: Preset = Preset.NATIVE
    upgrades: tuple[str, ...] = ()
    """What both teams have researched, of :data:`~envs.scenario_limits.UPGRADES`: units that have the ability
    may use it. Healing needs no research."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise LimitError(f"name is {self.name!r}; it must be a string", "name")
        for key, side in (("width", self.width), ("height", self.height)):
            check_whole(side, f"map {key}", MIN_MAP_SIZE, MAX_MAP_SIZE, "map", key)
        whole_map = (0, 0, self.width, self.height)
        area = f"the {self.width} x {self.height} map"
        check_rectangle(self.playable, "playable", whole_map, area, "map", "playable")
        jitter = self.spawn_jitter
        if not (is_number(jitter) and 0 <= jitter <= min(self.width, self.height) / 2):
            raise LimitError(
                f"spawn_jitter is {jitter!r}; it must be a number from 0 to half the map", "spawn_jitter"
            )
        check_flag(self.idle_units_attack, "idle_units_attack", "idle_units_attack")
        check_member(self.preset, "preset", Preset, "preset")
        check_upgrades(self.upgrades, "upgrades")
        if self.terrain is not None and not is_tuple_of(self.terrain, str):
            raise LimitError("terrain must be a list of strings; put each row in quotes", "map", "terrain")
        self._check_mission()
        self._check_draw()
        self._check_teams()
        if self.mission is not None:
            self._check_appearing(self.mission)
        check_whole(self.step_limit, "step_limit", 1, MAX_STEPS, "step_limit")
        check_ground(self)

    @property
    def num_units(self) -> int:
        """Units of both teams and neutral ones: the rows U of an observation, in this order."""
        return sum(team.size for team in self.teams) + len(self.neutral)

    @property
    def unit_types(self) -> tuple[UnitType, ...]:
        """The distinct unit types that can be on the field, in table order."""
        names = {*chain.from_iterable(team.units for team in self.teams), *self.neutral}
        if self.draw is not None:
            names |= {*self.draw.types}
        return tuple(unit for unit in unit_table().values() if unit.name in names)

    @property
    def symmetric(self) -> bool:
        """True where neither side has an advantage: the same units, and one reflection or half-turn of the
        playable area that takes the ground to itself and the first team's spawns and attack point to the
        second's. With a draw the sizes of the groups count, and the placement must be at points."""
        return is_symmetric(self)

    def group_name(self, team: int, group: int) -> str:
        """How errors call a group, counting from 1: "team 1", or "team 1, group 2" where there are more."""
        alone = len(self.teams[team].groups) == 1
        return f"team {team + 1}" if alone else f"team {team + 1}, group {group + 1}"

    def field_units(self, team: int, group: int) -> tuple[str, ...]:
        """The units of a group; where types are drawn, the largest type in place of each."""
        units = self.teams[team].groups[group].units
        if self.draw is None:
            return units
        table = unit_table()
        return (max(self.draw.types, key=lambda name: table[name].radius),) * len(units)

    def _check_teams(self) -> None:
        if not is_tuple_of(self.teams, Team) or len(self.teams) != 2:
            raise LimitError("teams must list exactly two teams", "teams")
        for i, team in enumerate(self.teams):
            self._check_groups(i, team)
        check_units(self.neutral, "neutral", "neutral")
        if self.num_units > MAX_UNITS:
            raise LimitError(
                f"{self.num_units} units in one battle need as many rows; at most {MAX_UNITS} are supported, "
                f"take away {self.num_units - MAX_UNITS}",
                "teams",
            )
        for key in ("spawn", "attack_point"):  # an attack point left out is the other team's spawn
            for i, team in enumerate(self.teams):
                if key == "attack_point":
                    if team.attack_point is not None:
                        self._check_point(team.attack_point, f"team {i + 1}: {key}", "teams", i, key)
                    continue
                for j, group in enumerate(team.groups):
                    name = f"{self.group_name(i, j)}: {key}"
                    self._check_point(group.spawn, name, "teams", i, "groups", j, key)
        x0, y0, x1, y1 = self.playable
        for i, team in enumerate(self.teams):
            for j, group in enumerate(team.groups):
                if formation_radius(self.field_units(i, j)) > min(x1 - x0, y1 - y0) / 2:
                    message = (
                        f"{self.group_name(i, j)}: {len(group.units)} units do not fit the playable area"
                    )
                    raise LimitError(message, "teams", i, "groups", j, "units")

    def _check_groups(self, i: int, team: Team) -> None:
        where = ("teams", i)
        if not is_tuple_of(team.groups, Group):
            raise LimitError(f"team {i + 1}: groups must list groups", *where, "groups")
        kind = self.mission.kind if self.mission is not None else None
        peaceful = kind in (MissionKind.BEACON, MissionKind.SHARDS)
        if peaceful and i == 1:
            if team.groups:
                raise LimitError(f"a mission of kind {kind} has no enemies; leave team 2 out", *where)
        elif not team.groups:
            raise LimitError(f"team {i + 1} has no units", *where)
        for j, group in enumerate(team.groups):
            at = (*where, "groups", j, "units")
            check_fighters(group.units, self.group_name(i, j), *at)
            if not group.units:
                raise LimitError(f"{self.group_name(i, j)} has no units", *at)
            drawn = group.units if self.draw is None else self.draw.types
            for name in group.units:
                if name not in drawn:
                    message = f"{name!r} is not among the types drawn: {', '.join(drawn)}"
                    raise LimitError(f"{self.group_name(i, j)}: {message}", *at, name)
        check_whole(team.reserve, f"team {i + 1}: reserve", 0, MAX_UNITS, *where, "reserve")
        if team.reserve and (i == 1 or kind is not MissionKind.WAVES):
            raise LimitError(
                f"team {i + 1}: reserve is {team.reserve}; only a mission of kind waves brings a reserve in, "
                "and only the first team's: leave it out",
                *where,
                "reserve",
            )
        if team.reserve and team.reserve >= team.size:
            raise LimitError(
                f"team {i + 1}: reserve is {team.reserve} of {team.size} units; some must be on the field",
                *where,
                "reserve",
            )

    def _check_point(self, value: object, what: str, *where: str | int) -> None:
        check_numbers(value, what, 2, *where)
        assert isinstance(value, tuple)
        (x, y), (x0, y0, x1, y1) = value, self.playable
        if not (x0 <= x <= x1 and y0 <= y <= y1):
            area = f"the playable area x {x0:g} to {x1:g}, y {y0:g} to {y1:g}"
            raise LimitError(f"{what} {[x, y]} lies outside {area}", *where)

    def _check_draw(self) -> None:
        draw = self.draw
        if draw is None:
            return
        if type(draw) is not Draw:
            raise LimitError("draw must say which types are drawn", "draw")
        check_fighters(draw.types, "draw", "draw", "types")
        if not draw.types or len({*draw.types}) != len(draw.types):
            raise LimitError("draw: types must name at least one type, and each once", "draw", "types")
        check_numbers(draw.weights, "draw: weights", len(draw.types), "draw", "types")
        for name, weight in zip(draw.types, draw.weights, strict=True):
            check_number(weight, f"draw: weight of {name}", 0, 1, "draw", "types", name)
        total = sum(draw.weights)
        if abs(total - 1) > 1e-6:
            raise LimitError(f"draw: the weights sum to {total:g}; they must sum to 1", "draw", "types")
        check_units(draw.never_alone, "draw: never_alone", "draw", "never_alone")
        for name in draw.never_alone:
            if name not in draw.types:
                known = ", ".join(draw.types)
                raise LimitError(
                    f"draw: never_alone names {name!r}, which is not drawn; drawn are: {known}",
                    "draw",
                    "never_alone",
                )
        if not any(w for t, w in zip(draw.types, draw.weights, strict=True) if t not in draw.never_alone):
            raise LimitError("draw: never_alone leaves no type to be with", "draw", "never_alone")
        check_member(draw.placement, "draw: placement", Placement, "draw", "placement")
        if self.mission is not None:
            raise LimitError("draw: a scenario with a mission draws no types; leave one out", "draw")
        if self.terrain is not None and draw.placement is not Placement.POINTS:
            raise LimitError(f"draw: placement {draw.placement} needs a map without terrain", "draw")

    def _check_mission(self) -> None:
        mission = self.mission
        if mission is None:
            if self.neutral:
                raise LimitError("neutral units take part in missions only; leave them out", "neutral")
            return
        if type(mission) is not Mission:
            raise LimitError("mission must say what is to be done", "mission")
        check_member(mission.kind, "mission: kind", MissionKind, "mission", "kind")
        x0, y0, x1, y1 = self.playable
        area = f"the playable area {x0:g}, {y0:g}, {x1:g}, {y1:g}"
        check_rectangle(mission.region, "mission: region", self.playable, area, "mission", "region")
        width, height = mission.region[2] - mission.region[0], mission.region[3] - mission.region[1]
        half = (width**2 + height**2) ** 0.5 / 2  # a unit in the centre is no further than this from anywhere
        for key in ("apart", "spread", "far"):
            check_number(getattr(mission, key), f"mission: {key}", 0, half, "mission", key)
        for key in ("collect", "kill", "loss"):
            check_number(getattr(mission, key), f"mission: {key}", -_MAX_SCORE, _MAX_SCORE, "mission", key)
        check_whole(
            mission.reinforcements, "mission: reinforcements", 0, MAX_UNITS, "mission", "reinforcements"
        )
        check_whole(mission.near, "mission: near", 0, MAX_UNITS, "mission", "near")
        check_numbers(mission.near_ring, "mission: near_ring", 2, "mission", "near_ring")
        if not 0 <= mission.near_ring[0] <= mission.near_ring[1] <= half:
            raise LimitError(
                f"mission: near_ring is {[*mission.near_ring]}; it must be a least and a greatest distance, "
                f"at most {half:g}",
                "mission",
                "near_ring",
            )
        if self.terrain is not None:
            raise LimitError("a mission needs a map without terrain", "map", "terrain")

    def _check_appearing(self, mission: Mission) -> None:
        """What a mission makes appear is of its kind and has room in the region."""
        kind = mission.kind
        wanted = {MissionKind.BEACON: "beacon", MissionKind.SHARDS: "mineral_shard"}.get(kind)
        if wanted is not None and {*self.neutral} != {wanted}:
            at = "neutral" if self.neutral else "mission"
            raise LimitError(f"a mission of kind {kind} needs neutral units, all {wanted}", at)
        if wanted is None and self.neutral:
            raise LimitError(f"a mission of kind {kind} has no neutral units; leave them out", "neutral")
        appearing = len(self.neutral) if wanted is not None else self.teams[1].size
        if mission.near > appearing:
            raise LimitError(
                f"mission: near is {mission.near}; only {appearing} units appear", "mission", "near"
            )
        x0, y0, x1, y1 = mission.region
        # Discs placed at random one after the other stop fitting at 0.547 of an area (Feder 1980).
        disc = math.pi * (mission.spread / 2) ** 2
        if appearing * disc > 0.45 * (x1 - x0) * (y1 - y0):
            raise LimitError(
                f"mission: {appearing} units that are {mission.spread:g} apart do not fit the region; at "
                f"most {int(0.45 * (x1 - x0) * (y1 - y0) / disc)} do",
                "mission",
                "spread",
            )
