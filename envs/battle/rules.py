"""A scenario compiled to arrays: what the engine's inner loop looks up instead of asking what a unit is.

Whatever depends on the kinds of attacker and target (damage with bonus, range, threat) is a table over pairs
of the scenario's unit types, so that a new unit is a row of data and never a branch of the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from envs.scenarios import Scenario
from envs.unit_set import MOVE_DIRECTIONS
from envs.units import PLANES, UnitType

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Records: TypeAlias = Any
"""A record array, or one record of it: compiled code reads fields as attributes, unlike type checkers."""

SHIELD_DELAY = 160.0
"""Game loops without damage before shields regenerate (10 Normal seconds; game data)."""
SHIELD_RATE = 0.125
"""Shield points a game loop (2 a Normal second; game data)."""
MIN_DAMAGE = 0.5
"""Least damage of a hit after armour (game data)."""
RANGE_SLOP = 1.0
"""Map cells beyond its range to which a target may step without escaping an attack that has begun (editor's
default)."""
MOVE_DISTANCE = 2.0
"""Map cells a move order leads (SMAC's move amount)."""
HELP_RADIUS = 5.0
"""Map cells within which comrades without a target answer a call for help; our estimate."""
HELP_MEMORY = 16
"""Game loops for which an attacker counts as a threat to everyone; our estimate."""
SCAN_PERIOD = 4
"""Game loops between two looks for a better target; our estimate (a lost target is replaced at once)."""


@dataclass(frozen=True)
class RewardWeights:
    """The team's reward, from one side's point of view; shares are of a team's vitality at the start.

    ``damage`` x share of the enemy's health and shield destroyed, minus ``damage_taken`` x share of one's
    own, plus ``win`` or minus ``loss`` at the end. A draw or a timeout counts as a loss.
    """

    damage: float = 1.0
    damage_taken: float = 1.0
    win: float = 1.0
    loss: float = 0.0


TYPE = np.dtype(
    [
        ("index", "i8"),  # in the unit table
        ("plane", "i8"),  # 0 ground, 1 air: only units of one plane collide
        ("armed", "?"),
        ("health", "f8"),
        ("shield", "f8"),
        ("energy", "f8"),
        ("regeneration", "f8"),  # health a loop
        ("armor", "f8"),
        ("radius", "f8"),
        ("speed", "f8"),  # cells a loop
        ("sight", "f8"),
    ],
    align=True,
)
PAIR = np.dtype(
    [
        ("can_attack", "?"),
        ("threat", "i8"),  # how much the target worries the attacker: 2 can hit back, 1 armed, 0 harmless
        ("hits", "i8"),
        ("damage", "f8"),  # of one hit, bonus included, armour not
        ("range", "f8"),
        ("period", "f8"),
        ("damage_point", "f8"),
        ("scan", "f8"),
    ],
    align=True,
)
SIDE = np.dtype(
    [
        ("first", "i8"),  # index of its first unit
        ("last", "i8"),  # one past its last
        ("spawn_x", "f8"),
        ("spawn_y", "f8"),
        ("attack_x", "f8"),
        ("attack_y", "f8"),
        ("spacing", "f8"),  # of the formation
        ("arrival", "f8"),  # distance at which a unit has arrived at its attack point
        ("vitality", "f8"),  # health and shield of the whole team at the start
    ],
    align=True,
)
WORLD = np.dtype(
    [
        ("x0", "f8"),
        ("y0", "f8"),
        ("x1", "f8"),
        ("y1", "f8"),
        ("jitter", "f8"),
        ("widest", "f8"),  # largest distance at which two units touch
        ("step_limit", "i8"),
        ("idle_units_attack", "?"),
    ],
    align=True,
)


class Rules(NamedTuple):
    """Constants of one scenario as record arrays: N units of both teams, T distinct types."""

    type_of: Ints  # (N,) local type
    rows: Ints  # (2, N) the unit at each row of a side's observations: own team first
    types: Records  # (T,) TYPE
    pairs: Records  # (T, T) PAIR: attacker, target
    sides: Records  # (2,) SIDE
    world: Records  # (1,) WORLD
    directions: Floats  # (8, 2) unit vectors of the move verbs
    features: Floats  # (T, k) constant observation columns, as TYPE_FEATURES


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
    x0, y0, x1, y1 = scenario.playable
    first = 0
    sides = []
    for team in scenario.teams:
        members = [types[local[name]] for name in team.units]
        # Neighbours in a sunflower disc are about 1.6 times its spacing apart.
        spacing = (2 * max(unit.radius for unit in members) + 0.1) / 1.6
        arrival = 0.5 + 0.5 * team.size**0.5
        vitality = sum(unit.health + unit.shield for unit in members)
        sides.append((first, first + team.size, *team.spawn, *team.attack_point, spacing, arrival, vitality))
        first += team.size
    widest = 2 * max(unit.radius for unit in types)
    world = (x0, y0, x1, y1, scenario.spawn_jitter, widest, scenario.step_limit, scenario.idle_units_attack)
    return Rules(
        type_of=np.array([local[name] for team in scenario.teams for name in team.units]),
        rows=np.stack([np.roll(np.arange(first), -side[0]) for side in sides]),
        types=np.array([_type(unit) for unit in types], TYPE),
        pairs=np.array([[_pair(unit, target) for target in types] for unit in types], PAIR),
        sides=np.array(sides, SIDE),
        world=np.array([world], WORLD),
        directions=MOVE_DIRECTIONS,
        features=np.array([_type_features(unit) for unit in types]),
    )


def _type(unit: UnitType) -> tuple[float, ...]:
    return (
        unit.index,
        PLANES.index(unit.plane),
        bool(unit.weapons),
        unit.health,
        unit.shield,
        unit.energy,
        unit.health_regeneration,
        unit.armor,
        unit.radius,
        unit.speed,
        unit.sight,
    )


def _pair(unit: UnitType, target: UnitType) -> tuple[float, ...]:
    threat = _threat(unit, target)
    weapon = unit.weapon_against(target)
    if weapon is None:
        return (False, threat, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
    damage = weapon.damage_against(target)
    return (
        True,
        threat,
        weapon.hits,
        damage,
        weapon.range,
        weapon.period,
        weapon.damage_point,
        weapon.min_scan,
    )


def _threat(attacker: UnitType, target: UnitType) -> int:
    if target.weapon_against(attacker) is not None:
        return 2
    return 1 if target.weapons else 0


def _type_features(unit: UnitType) -> list[float]:
    weapon = unit.weapons[0] if unit.weapons else None
    values = {
        "radius": unit.radius,
        "weapon_range": max((w.range for w in unit.weapons), default=0.0),
        "weapon_period": weapon.period if weapon else 0.0,
        "volley": weapon.damage * weapon.hits if weapon else 0.0,
        "armor": unit.armor,
        "speed": unit.speed * 8,
        "sight": unit.sight,
        "flying": float(unit.flying),
    }
    return [values.get(name, float(name in unit.attributes)) for name in TYPE_FEATURES]
