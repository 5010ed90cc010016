"""Whether a scenario can be played: all stand on ground, apart, with room, and the first team can win."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from envs.scenario_limits import LimitError, MissionKind, Placement, formation_area, formation_radius
from envs.terrain import MAX_GROUND, WALL, Terrain, parse_terrain
from envs.units import UnitType, unit_table

if TYPE_CHECKING:
    from envs.scenario_model import Draw, Scenario

Point = tuple[float, float]


def check_ground(scenario: Scenario) -> None:
    """Refuse a scenario whose values are each in order, but which could not be played.

    Raises:
        LimitError: terrain that is none, a spawn or attack point on a wall, no room for a formation, teams
            that overlap, a team with nobody armed, a first team that can hurt no more than some of the
            second, or no path between them.
    """
    ground = _Ground.of(scenario)
    _check_points(scenario, ground)
    _check_room(scenario, ground)
    if scenario.teams[1].groups:
        _check_apart(scenario)
        _check_winnable(scenario)
        _check_paths(scenario, ground)
    _check_armed(scenario)


def playable_terrain(scenario: Scenario) -> Terrain:
    """A scenario's terrain, with walls for the cells that lie wholly outside its playable area.

    Raises:
        LimitError: the rows are no terrain of this map.
    """
    rows = scenario.terrain
    if rows is None:
        rows = ("." * scenario.width,) * scenario.height
    try:
        parse_terrain(rows, scenario.width, scenario.height)
    except ValueError as error:
        raise LimitError(str(error), "map", "terrain") from None
    x0, y0, x1, y1 = _cells(scenario)
    margin = "#" * x0, "#" * (scenario.width - x1)
    outside = "#" * scenario.width
    from_north = range(scenario.height - 1, -1, -1)
    inside = (
        margin[0] + row[x0:x1] + margin[1] if y0 <= y < y1 else outside
        for y, row in zip(from_north, rows, strict=True)
    )
    return parse_terrain(tuple(inside), scenario.width, scenario.height)


@dataclass(frozen=True)
class _Ground:
    """Which cells are connected: int32 (H, W) labels, -1 where nobody on the ground can be."""

    walking: NDArray[np.int32]
    climbing: NDArray[np.int32]
    scenario: Scenario

    @staticmethod
    def of(scenario: Scenario) -> _Ground:
        if scenario.terrain is None:
            x0, y0, x1, y1 = _cells(scenario)
            open_ground = np.full((scenario.height, scenario.width), -1, np.int32)
            open_ground[y0:y1, x0:x1] = 0
            return _Ground(open_ground, open_ground, scenario)
        terrain = playable_terrain(scenario)
        cells = int((terrain.heights != WALL).sum())
        if cells > MAX_GROUND:
            raise LimitError(
                f"terrain with {cells} cells of ground in the playable area; at most {MAX_GROUND} are "
                "supported: wall off what nobody needs, or leave the terrain away",
                *("map", "terrain"),
            )
        return _Ground(terrain.regions(climbs=False), terrain.regions(climbs=True), scenario)

    def label(self, point: Point, climbs: bool) -> int:
        """The region that a point lies in; -1 on a wall."""
        _, _, x1, y1 = _cells(self.scenario)
        labels = self.climbing if climbs else self.walking
        return int(labels[min(int(point[1]), y1 - 1), min(int(point[0]), x1 - 1)])

    def joined(self, unit: UnitType, a: Point, b: Point) -> bool:
        """Whether ``unit`` gets from ``a`` to ``b``."""
        if unit.speed == 0:
            return False
        return unit.flying or self.label(a, unit.climbs) == self.label(b, unit.climbs)


def _cells(scenario: Scenario) -> tuple[int, int, int, int]:
    """The cells that lie at least partly in the playable area: x from, y from, x to, y to (exclusive)."""
    x0, y0, x1, y1 = scenario.playable
    return math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)


def _types(names: tuple[str, ...]) -> list[UnitType]:
    """The distinct types among ``names``, in the order they first stand in."""
    return [unit_table()[name] for name in dict.fromkeys(names)]


def _members(scenario: Scenario, team: int, group: int) -> list[UnitType]:
    """The types that may be in a group."""
    if scenario.draw is not None:
        return _types(scenario.draw.types)
    return _types(scenario.teams[team].groups[group].units)


def _check_points(scenario: Scenario, ground: _Ground) -> None:
    for i, team in enumerate(scenario.teams):
        walkers = False
        for j, group in enumerate(team.groups):
            if all(unit.flying for unit in _members(scenario, i, j)):
                continue
            walkers = True
            if ground.label(group.spawn, climbs=False) == WALL:
                message = f"{scenario.group_name(i, j)}: spawn {[*group.spawn]} lies on a wall"
                raise LimitError(message, "teams", i, "groups", j, "spawn")
        target = team.attack_point
        if walkers and target is not None and ground.label(target, climbs=False) == WALL:
            message = f"team {i + 1}: attack_point {[*target]} lies on a wall"
            raise LimitError(message, "teams", i, "attack_point")


def _check_room(scenario: Scenario, ground: _Ground) -> None:
    """The walkers of all groups that start in one region have room in it."""
    taken: dict[int, float] = defaultdict(float)
    for i, team in enumerate(scenario.teams):
        for j, group in enumerate(team.groups):
            walkers = [name for name in scenario.field_units(i, j) if not unit_table()[name].flying]
            if not walkers:
                continue
            region = ground.label(group.spawn, climbs=False)
            taken[region] += formation_area(walkers)
            cells = int(np.count_nonzero(ground.walking == region))
            if taken[region] > cells:
                raise LimitError(
                    f"{scenario.group_name(i, j)}: {len(group.units)} units do not fit: the formations that "
                    f"start on the ground around {[*group.spawn]} take {math.ceil(taken[region])} cells, it "
                    f"has {cells}",
                    *("teams", i, "groups", j, "units"),
                )


def _check_apart(scenario: Scenario) -> None:
    """The formations of different teams do not overlap, unless they are not where the units will stand."""
    scattered = scenario.mission is not None and scenario.mission.kind is MissionKind.HUNT
    if scattered or (scenario.draw is not None and scenario.draw.placement is not Placement.POINTS):
        return
    first, second = scenario.teams
    for i, ours in enumerate(first.groups):
        for j, theirs in enumerate(second.groups):
            apart = math.dist(ours.spawn, theirs.spawn)
            radii = [formation_radius(scenario.field_units(*at)) for at in ((0, i), (1, j))]
            if apart < sum(radii):
                names = scenario.group_name(0, i), scenario.group_name(1, j)
                raise LimitError(
                    f"{names[0]}'s spawn {[*ours.spawn]} and {names[1]}'s spawn {[*theirs.spawn]} overlap: "
                    f"their formations have radii {radii[0]:.1f} and {radii[1]:.1f} cells, and the spawns "
                    f"are {apart:.1f} apart; move them at least {math.ceil(sum(radii) * 10) / 10:g} apart",
                    *("teams", 1, "groups", j, "spawn"),
                )


def _check_armed(scenario: Scenario) -> None:
    """Every team has somebody armed on the field: without, its battle is over as soon as it begins."""
    if scenario.draw is not None:
        return  # see _check_draw_winnable
    for i, team in enumerate(scenario.teams):
        starting = team.units[: team.size - team.reserve]
        if starting and not any(unit.weapons for unit in _types(starting)):
            names = ", ".join(dict.fromkeys(starting))
            raise LimitError(
                f"team {i + 1} has nobody armed on the field ({names}), so that the battle would be over at "
                "once; add a unit with a weapon",
                *("teams", i),
            )


def _check_winnable(scenario: Scenario) -> None:
    """Every unit of the second team can be hurt by someone of the first."""
    if scenario.draw is not None:
        _check_draw_winnable(scenario.draw, scenario.teams[1].size > scenario.teams[0].size)
        return
    ours = _types(scenario.teams[0].units)
    for j in range(len(scenario.teams[1].groups)):
        for target in _members(scenario, 1, j):
            if not any(unit.weapon_against(target) for unit in ours):
                names = ", ".join(unit.name for unit in ours)
                raise LimitError(
                    f"team 1 cannot win: none of its units ({names}) has a weapon against team 2's "
                    f"{target.name} ({target.plane})",
                    *("teams", 1, "groups", j, "units", target.name),
                )
            if target.cloaked and not any(unit.detection for unit in ours):
                raise LimitError(
                    f"team 1 cannot win: team 2's {target.name} is cloaked and team 1 has no detector",
                    *("teams", 1, "groups", j, "units", target.name),
                )


def _check_draw_winnable(draw: Draw, extras: bool) -> None:
    """Whatever is drawn, the first team can hurt every armed unit of the second.

    The first team may be all of one type, unless that is never alone. The second then has the same type, and
    with extras any other. Unarmed units need not be hurt: a team with no others has lost.
    """
    types = _types(draw.types)
    for unit in types:
        if unit.weapons and unit.cloaked:
            message = f"draw: {unit.name} is cloaked, and the team it meets may have no detector"
            raise LimitError(message, "draw", "types", unit.name)
        if unit.name in draw.never_alone:
            continue
        if not unit.weapons:
            message = f"draw: a team of {unit.name} alone has no weapon; name it in never_alone"
            raise LimitError(message, "draw", "types", unit.name)
        for target in types:
            met = extras or target.name == unit.name or target.name in draw.never_alone
            if met and target.weapons and not unit.weapon_against(target):
                raise LimitError(
                    f"draw: a team of {unit.name} alone may meet {target.name} ({target.plane}), and has no "
                    f"weapon against it; draw other types, or name {unit.name} in never_alone",
                    *("draw", "types", unit.name),
                )


def _check_paths(scenario: Scenario, ground: _Ground) -> None:
    """Every group of the second team can be reached by someone who can hurt it, or can come itself."""
    first, second = scenario.teams
    for j, theirs in enumerate(second.groups):
        targets = _members(scenario, 1, j)
        there = any(
            ground.joined(unit, ours.spawn, theirs.spawn)
            for i, ours in enumerate(first.groups)
            for unit in _members(scenario, 0, i)
            if any(unit.weapon_against(target) for target in targets)
        )
        here = any(ground.joined(unit, theirs.spawn, ours.spawn) for ours in first.groups for unit in targets)
        if not there and not here:
            raise LimitError(
                f"no path between team 1's spawn {[*first.spawn]} and {scenario.group_name(1, j)}'s spawn "
                f"{[*theirs.spawn]}: nobody who could fight there gets across; open the walls, make cliffs "
                "ramps (neighbouring heights that differ by 1), or field units that fly or climb",
                *("teams", 1, "groups", j, "spawn"),
            )


def is_symmetric(scenario: Scenario) -> bool:
    """See :attr:`envs.scenario_model.Scenario.symmetric`."""
    draw, (ours, theirs) = scenario.draw, scenario.teams
    if scenario.mission is not None or (draw is not None and draw.placement is not Placement.POINTS):
        return False
    if (ours.attack_point is None) != (theirs.attack_point is None):
        return False
    return any(_maps(scenario, mirror_x, mirror_y) for mirror_x, mirror_y in ((1, 0), (1, 1), (0, 1)))


def _maps(scenario: Scenario, mirror_x: int, mirror_y: int) -> bool:
    """Whether mirroring the playable area in x, in y or in both takes the first team to the second."""
    ours, theirs = scenario.teams
    x0, y0, x1, y1 = scenario.playable

    def image(point: Point) -> Point:
        return x0 + x1 - point[0] if mirror_x else point[0], y0 + y1 - point[1] if mirror_y else point[1]

    left = [(group.spawn, _content(scenario, group.units)) for group in theirs.groups]
    for group in ours.groups:
        wanted, content = image(group.spawn), _content(scenario, group.units)
        match = next((k for k, (at, has) in enumerate(left) if _close(at, wanted) and has == content), None)
        if match is None:
            return False
        left.pop(match)
    if left:
        return False
    targets = ours.attack_point, theirs.attack_point
    if targets[0] is not None and targets[1] is not None and not _close(image(targets[0]), targets[1]):
        return False
    return scenario.terrain is None or _maps_terrain(scenario, mirror_x, mirror_y)


def _maps_terrain(scenario: Scenario, mirror_x: int, mirror_y: int) -> bool:
    x0, y0, x1, y1 = scenario.playable
    if (mirror_x and not float(x0 + x1).is_integer()) or (mirror_y and not float(y0 + y1).is_integer()):
        return False  # cells would not fall on cells
    terrain = playable_terrain(scenario)
    west, south, east, north = _cells(scenario)
    step_x, step_y = -1 if mirror_x else 1, -1 if mirror_y else 1
    for grid in (terrain.heights, terrain.smoke):
        part = grid[south:north, west:east]
        if not np.array_equal(part, part[::step_y, ::step_x]):
            return False
    return True


def _content(scenario: Scenario, units: tuple[str, ...]) -> Counter[str] | int:
    """What a group consists of; how many, where the types are drawn."""
    return len(units) if scenario.draw is not None else Counter(units)


def _close(a: Point, b: Point) -> bool:
    return all(math.isclose(p, q, abs_tol=1e-9) for p, q in zip(a, b, strict=True))
