"""A scenario compiled to arrays: what the engine's inner loop looks up instead of asking what a unit is.

Whatever depends on the kinds of attacker and target (damage with bonus, range, threat) is a table over pairs
of the scenario's unit types, so that a new unit is a row of data and never a branch of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.battle.path_tables import CLEARANCE
from envs.battle.paths import Paths, compile_paths
from envs.battle.records import AREA, CHOICE, GROUP, MAX_RINGS, MISSION, PAIR, SIDE, TYPE, WORLD, Records
from envs.scenario_ground import playable_terrain
from envs.scenarios import MAX_MAP_SIZE, Draw, Mission, MissionKind, Preset, Scenario, Team
from envs.unit_set import LOOPS_PER_STEP, MOVE_DIRECTIONS
from envs.units import PLANES, Area, UnitType, Weapon, unit_table

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHIELD_DELAY = 160
"""Game loops without damage before shields regenerate (10 Normal seconds; game data)."""
SHIELD_RATE = 0.125
"""Shield points a game loop (2 a Normal second; game data)."""
MIN_DAMAGE = 0.5
"""Least damage of a hit after armour (game data)."""
MOVE_DISTANCE = 2.0
"""Map cells a move order leads (SMAC's move amount)."""
HELP_RADIUS = 5.0
"""Map cells within which comrades without a target answer a call for help; our estimate."""
HELP_MEMORY = 16
"""Game loops for which an attacker counts as a threat to everyone; our estimate."""
SCAN_PERIOD = 4
"""Game loops between two looks for a better target, a power of two; our estimate (a lost target is replaced
at once)."""
HEAL_RANGE = 4.0
"""Map cells, edge to edge, from which a medivac heals (editor)."""
HEAL_SCAN = 7.0
"""Map cells, edge to edge, within which a healer that chooses for itself looks for the hurt; our estimate."""
HEAL_RATE = 0.5625
"""Health a game loop (9 a Normal second; editor)."""
HEAL_COST = 1.0 / 3.0
"""Energy per point of health (editor)."""
STIM_LOOPS = 246
"""Game loops a stimpack works (11 s)."""
STIM_BOOST = 1.5
"""Factor of speed and rate of fire under a stimpack."""
STIM_HEALTH: Mapping[str, float] = {"marine": 10.0, "marauder": 20.0}
"""Health a stimpack costs."""
BLINK_RANGE = 8.0
"""Map cells a blink leads at most."""
BLINK_COOLDOWN = 157
"""Game loops between two blinks (7 s)."""
SMAC_SHOOT_RANGE, SMAC_SIGHT = 6.0, 9.0
"""Map cells, centre to centre: within which SMAC lets every unit attack, and see."""
SMACV2_LEAST_RANGE = 2.0
"""Map cells: SMACv2 has every unit's own range instead, but at least this, and its own sight."""

# Abilities (TYPE.ability) and shapes of areas (AREA.shape).
NO_ABILITY, HEAL, STIMPACK, BLINK = 0, 1, 2, 3
RINGS, ACROSS, ALONG, CONE, BOUNCE = 0, 1, 2, 3, 4
# Missions (MISSION.kind) and placements (WORLD.placement).
NO_MISSION, BEACON, SHARDS, HUNT, WAVES = 0, 1, 2, 3, 4
AT_POINTS, SURROUND_OR_REFLECT = 0, 1
NEUTRAL = 2
"""The side of what nobody owns."""

_ABILITIES = {"heal": HEAL, "stimpack": STIMPACK, "blink": BLINK}
_SHAPES = {"rings": RINGS, "across": ACROSS, "along": ALONG, "cone": CONE, "bounce": BOUNCE}
_MISSIONS = {
    MissionKind.BEACON: BEACON,
    MissionKind.SHARDS: SHARDS,
    MissionKind.HUNT: HUNT,
    MissionKind.WAVES: WAVES,
}


@dataclass(frozen=True)
class RewardWeights:
    """The team's reward, from one side's point of view; shares are of what a team has at the start.

    ``damage`` x share of the enemy's health and shield destroyed, plus ``kill`` x share of its units killed,
    minus ``damage_taken`` x share of one's own health and shield lost, plus ``win`` or minus ``loss`` at the
    end. A draw or a timeout counts as a loss. Of a mission, ``score`` x the points scored.
    """

    damage: float = 1.0
    damage_taken: float = 1.0
    win: float = 1.0
    loss: float = 0.0
    kill: float = 0.0
    score: float = 0.0


def default_rewards(scenario: Scenario) -> RewardWeights:
    """A mission's own score, SMAC's reward under its preset, else our default.

    SMAC pays damage dealt, 10 a kill and 200 for the win, scaled so that all of it together is 20.
    """
    if scenario.mission is not None:
        return RewardWeights(damage=0.0, damage_taken=0.0, win=0.0, loss=0.0, score=1.0)
    if scenario.preset is Preset.SMAC:
        enemies = [unit_table()[name] for name in scenario.teams[1].units]
        vitality = sum(unit.health + unit.shield for unit in enemies)
        kills = 10.0 * len(enemies)
        scale = 20.0 / (vitality + kills + 200.0)
        return RewardWeights(
            damage=vitality * scale, damage_taken=0.0, win=200.0 * scale, loss=0.0, kill=kills * scale
        )
    return RewardWeights()


class Rules(NamedTuple):
    """Constants of one scenario as record arrays: N units (both teams', then neutral), T distinct types."""

    type_of: Ints  # (N,) local type; with draws, a stand-in
    rows: Ints  # (2, N) the unit at each row of a side's observations: own team, enemies, neutral
    types: Records  # (T,) TYPE
    pairs: Records  # (T, T) PAIR: attacker, target
    areas: Records  # (A,) AREA
    sides: Records  # (3,) SIDE; the third is neutral
    groups: Records  # (G,) GROUP
    world: Records  # (1,) WORLD
    mission: Records  # (1,) MISSION
    choices: Records  # (k,) CHOICE: what a unit's type is drawn from
    directions: Floats  # (8, 2) unit vectors of the move verbs
    features: NDArray[np.float32]  # (T, k) constant observation columns, as TYPE_FEATURES
    paths: Paths


# Observation columns that depend on the type alone; observe.py writes the others.
TYPE_FEATURES = (
    "radius",
    "weapon_range",
    "weapon_period",
    "volley",
    "armor",
    "speed",
    "sight",
    "light",
    "armored",
    "biological",
    "mechanical",
    "massive",
    "flying",
)


def compile_rules(scenario: Scenario) -> Rules:
    """The arrays of ``scenario``."""
    types = scenario.unit_types
    local = {unit.name: i for i, unit in enumerate(types)}
    names = [name for team in scenario.teams for name in team.units] + list(scenario.neutral)
    areas = list(dict.fromkeys(w.area for unit in types for w in unit.weapons if w.area is not None))
    sizes = [scenario.teams[0].size, scenario.teams[1].size, len(scenario.neutral)]
    paths = compile_paths(
        playable_terrain(scenario) if scenario.terrain is not None else None,
        scenario.width,
        scenario.height,
    )
    sides, groups = _sides_and_groups(scenario)
    return Rules(
        type_of=np.array([local[name] for name in names]),
        rows=np.stack([np.arange(len(names)), _seen_by_second(*sizes)]),
        types=np.array([_type(unit, types, scenario) for unit in types], TYPE),
        pairs=np.array([[_pair(unit, target, areas) for target in types] for unit in types], PAIR),
        areas=np.array([_area(area) for area in areas], AREA),
        sides=np.array(sides, SIDE),
        groups=np.array(groups, GROUP),
        world=np.array([_world(scenario, types)], WORLD),
        mission=np.array([_mission(scenario.mission)], MISSION),
        choices=np.array(_choices(scenario.draw, local), CHOICE),
        directions=MOVE_DIRECTIONS,
        features=np.array([_type_features(unit, scenario) for unit in types], np.float32),
        paths=paths,
    )


def _seen_by_second(first: int, second: int, neutral: int) -> Ints:
    """Unit indices in the row order of the second side: its own team, the first, neutral."""
    n = first + second
    return np.concatenate([np.arange(first, n), np.arange(first), np.arange(n, n + neutral)])


def _sides_and_groups(scenario: Scenario) -> tuple[list[tuple], list[tuple]]:
    sides: list[tuple] = []
    groups: list[tuple] = []
    first = 0
    drawn = scenario.draw.types if scenario.draw is not None else ()
    for team in scenario.teams:
        first_group, i = len(groups), first
        for group in team.groups:
            members = [unit_table()[name] for name in (*group.units, *drawn)]
            # Neighbours in a sunflower disc are about 1.6 times its spacing apart.
            spacing = (2 * max((unit.radius for unit in members), default=0.0) + 0.1) / 1.6
            groups.append((i, i + len(group.units), *group.spawn, spacing))
            i += len(group.units)
        home = _centre(team)
        point = team.attack_point or home
        arrival = 0.5 + 0.5 * team.size**0.5
        start = first + team.size - team.reserve
        sides.append(
            (
                *(first, first + team.size, start, first_group, len(groups)),
                *(*home, team.attack_point is not None, *point, arrival),
            )
        )
        first += team.size
    last = first + len(scenario.neutral)
    sides.append((first, last, last, len(groups), len(groups), 0.0, 0.0, False, 0.0, 0.0, 0.0))
    return sides, groups


def _centre(team: Team) -> tuple[float, float]:
    """Where a team starts: the mean of its units' spawn points."""
    points = np.array([group.spawn for group in team.groups for _ in group.units] or [(0.0, 0.0)])
    return float(points[:, 0].mean()), float(points[:, 1].mean())


def _world(scenario: Scenario, types: tuple[UnitType, ...]) -> tuple[float, ...]:
    x0, y0, x1, y1 = scenario.playable
    fastest = (STIM_BOOST if "stimpack" in scenario.upgrades else 1.0) * max(unit.speed for unit in types)
    widest = max(2 * max(unit.separation_radius for unit in types), fastest)
    reach = widest + 2 * fastest
    # Few units are looked through fastest in one go; of many, crowds are met by bins as small as they may be
    # for a look to need four at most.
    bin_size = max(x1 - x0, y1 - y0) + 1.0
    if scenario.num_units >= 64:
        bin_size = max(2.0 * reach, ((x1 - x0) * (y1 - y0) * 2 / scenario.num_units) ** 0.5)
    terrain = scenario.terrain is not None
    cloaked = any(unit.cloaked for unit in types)
    surrounds = scenario.draw is not None and scenario.draw.placement == "surround_or_reflect"
    placement = SURROUND_OR_REFLECT if surrounds else AT_POINTS
    return (
        *(x0, y0, x1, y1, scenario.spawn_jitter, reach, widest * widest, fastest, 1.0 / bin_size),
        *(int((x1 - x0) / bin_size) + 1, int((y1 - y0) / bin_size) + 1, scenario.step_limit),
        *(scenario.idle_units_attack, terrain, terrain or cloaked, scenario.preset is Preset.SMAC),
        *(scenario.draw is not None, placement),
    )


def _mission(mission: Mission | None) -> tuple[float, ...]:
    if mission is None:
        return (NO_MISSION, *[0.0] * (len(MISSION.names or ()) - 1))
    m = mission
    return (
        *(_MISSIONS[m.kind], *m.region, m.apart, m.spread, m.collect, m.kill, m.loss, m.reinforcements),
        *(m.near, *m.near_ring, m.far),
    )


def _choices(draw: Draw | None, local: Mapping[str, int]) -> list[tuple]:
    if draw is None:
        return []
    up_to = np.cumsum(draw.weights) / np.sum(draw.weights)
    return [
        (local[name], edge, name in draw.never_alone) for name, edge in zip(draw.types, up_to, strict=True)
    ]


def _sight(unit: UnitType, scenario: Scenario) -> float:
    smac = scenario.preset is Preset.SMAC and scenario.draw is None
    return SMAC_SIGHT if smac else unit.sight


def _has_fog(scenario: Scenario) -> bool:
    """Whether a side sees only what is near: not in the mini-games, but for the hunt (pysc2)."""
    return scenario.mission is None or scenario.mission.kind is MissionKind.HUNT


def _aim(unit: UnitType, scenario: Scenario) -> float:
    """How near a target must be, centre to centre, for the preset to let the unit aim at it."""
    if scenario.preset is not Preset.SMAC:
        return float("inf")
    if scenario.draw is None:
        return SMAC_SHOOT_RANGE
    reach = HEAL_RANGE if unit.ability == "heal" else max((w.range for w in unit.weapons), default=0.0)
    return max(reach, SMACV2_LEAST_RANGE)


def _type(unit: UnitType, others: tuple[UnitType, ...], scenario: Scenario) -> tuple:
    ability = NO_ABILITY
    if unit.ability is not None and (unit.ability == "heal" or unit.ability in scenario.upgrades):
        ability = _ABILITIES[unit.ability]
    return (
        unit.index,
        PLANES.index(unit.plane),
        bool(unit.weapons),
        unit.health_regeneration > 0 or unit.energy_regeneration > 0,
        unit.cloaked,
        unit.climbs,
        unit.tall,
        any(weapon.suicide for weapon in unit.weapons),
        ability,
        STIM_HEALTH.get(unit.name, 0.0) if ability == STIMPACK else 0.0,
        unit.health,
        unit.shield,
        unit.energy,
        unit.energy_start,
        unit.health_regeneration,
        unit.energy_regeneration,
        unit.armor,
        unit.radius,
        unit.separation_radius,
        min(unit.radius, CLEARANCE),
        unit.speed,
        _sight(unit, scenario) if _has_fog(scenario) else 2.0 * MAX_MAP_SIZE,
        max((max(w.min_scan, w.range) for w in unit.weapons), default=0.0)
        + unit.radius
        + max(other.radius for other in others)
        + 1e-3,
        unit.detection,
        _aim(unit, scenario) ** 2,
    )


def _pair(unit: UnitType, target: UnitType, areas: list[Area]) -> tuple:
    collide = _collide(unit, target) and unit.separation_radius > 0 and target.separation_radius > 0
    apart = unit.separation_radius + target.separation_radius if collide else 0.0
    contact = unit.radius + target.radius
    heals = unit.ability == "heal" and "biological" in target.attributes and not target.flying
    weapon: Weapon | None = unit.weapon_against(target)
    if weapon is None:
        range_, scan = (HEAL_RANGE, HEAL_SCAN) if heals else (0.0, 0.0)
        return (
            *(apart, False, heals, _threat(unit, target)),
            *(_square(range_ + contact), _square(range_ + contact), _square(scan + contact), 0.0),
            *(range_ + contact, 0, 0.0, 0.0, 0.0, 0.0, 0.0, -1, contact),
        )
    return (
        *(apart, True, heals, _threat(unit, target)),
        _square(weapon.range + contact),
        _square(weapon.range + weapon.range_slop + contact),
        _square(max(weapon.min_scan, weapon.range) + contact),
        _square(weapon.min_range + contact) if weapon.min_range > 0 else 0.0,
        *(weapon.range + contact, weapon.hits, weapon.damage_against(target), weapon.period),
        *(weapon.damage_point, weapon.backswing, weapon.missile_speed),
        *(areas.index(weapon.area) if weapon.area is not None else -1, contact),
    )


def _collide(unit: UnitType, other: UnitType) -> bool:
    """Units of one plane do, but tall ones (colossi) stride over all that are not tall or structures."""
    level = unit.tall == other.tall or "structure" in unit.attributes | other.attributes
    return unit.plane == other.plane and level


def _square(distance: float) -> float:
    """The square, a hair larger, so that a unit that has walked exactly into range is in range."""
    return distance * distance + 1e-6


def _area(area: Area) -> tuple:
    pad = [0.0] * (MAX_RINGS - len(area.fractions))
    radii = [*area.radii, *[0.0] * (MAX_RINGS - len(area.radii))]
    width = float(np.cos(np.radians(area.width / 2))) if area.shape == "cone" else area.width
    return (
        *(_SHAPES[area.shape], len(area.fractions), radii, [*area.fractions, *pad]),
        *(area.length, width, area.friendly),
    )


def _threat(attacker: UnitType, target: UnitType) -> int:
    if target.weapon_against(attacker) is not None:
        return 2
    return 1 if target.weapons else 0


def _type_features(unit: UnitType, scenario: Scenario) -> list[float]:
    weapon = unit.weapons[0] if unit.weapons else None
    values = {
        "radius": unit.radius,
        "weapon_range": max((w.range for w in unit.weapons), default=0.0),
        "weapon_period": weapon.period if weapon else 0.0,
        "volley": weapon.damage * weapon.hits if weapon else 0.0,
        "armor": unit.armor,
        "speed": unit.speed * LOOPS_PER_STEP,
        "sight": _sight(unit, scenario),
        "flying": float(unit.flying),
    }
    return [values.get(name, float(name in unit.attributes)) for name in TYPE_FEATURES]
