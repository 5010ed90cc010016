"""Scripted agents: the baselines a learned policy has to beat, and opponents to train against.

Each script is a pure function of an observation of the unit-set contract and a random generator, over any
leading dimensions, for either side, for a team and for a single unit alike. It knows what the observation
tells and nothing else.

    hold          stand, shoot what comes into range
    random        any legal order
    attack-move   towards the scenario's attack point, fighting what is met: the built-in enemy's own order
    closest       attack the closest enemy
    focus-fire    attack the weakest enemy in reach, with no more of us than it takes to kill it
    kite          focus-fire, but keep away from enemies of shorter range while the weapon cools down

The last three attack-move until an enemy is seen and then close in on the closest, together: who is ahead of
comrades of like range waits for them. They do not disturb an attack that has begun.

Kiting's numbers were tuned on 3s_vs_5z and are frozen: a baseline that moves is none.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from agents.base import Observation, Orders
from envs.unit_set import (
    FEATURE_INDEX,
    FIRST_TARGET_VERB,
    LOOPS_PER_STEP,
    MOVE_DIRECTIONS,
    MOVE_VERBS,
    UNIT_FEATURES,
    Verb,
    random_orders,
)

Script: TypeAlias = Callable[[Observation, np.random.Generator], Orders]
Floats: TypeAlias = NDArray[np.float32]
Bools: TypeAlias = NDArray[np.bool_]

REACH = 0.2
"""Steps of walking from which an enemy counts as in reach: there is time to shoot in the same step."""
LINE_DEPTH = 0.7
"""Map cells, times the square root of the team's size, that a unit may be ahead of the last one of like
range: as deep as a formation is."""
LIKE_RANGE = 1.0
"""Map cells by which the ranges of units that wait for each other may differ. Who shoots from afar has always
less far to go: waiting for melee units, it would stand in their way while they jam behind it."""
MIN_DAMAGE = 0.5
"""Least damage of a hit after armour."""

KITE_RANGE_ADVANTAGE = 0.5
"""Map cells by which our range must exceed an enemy's for us to keep away from it."""
KITE_READY = 4.0
"""Game loops of cooldown below which a unit thinks of attacking rather than of getting away."""
KITE_SAFE = 1.25
"""Map cells an enemy must be short of reaching us for a ready unit to stand and shoot."""
KITE_FAR = 4.0
"""Map cells an enemy must be short of reaching us for a unit that is not ready to stay where it is."""
KITE_LOOKAHEAD = 2.0
"""Map cells ahead at which directions are compared: as far as a move order leads."""
KITE_COMRADES = 0.3
"""How much comrades repel, next to enemies: units that flee together get in each other's way."""
KITE_POWER = 3.0
"""Power of the distance with which repulsion falls."""

_DIRECTIONS: Floats = MOVE_DIRECTIONS.astype(np.float32)
_MOVES: NDArray[np.int64] = np.array([int(verb) for verb in MOVE_VERBS])


class Situation:
    """What the scripts want to know of an observation, in map cells, game loops and points.

    Attributes:
        alive: (..., A) bool.
        attackable: (..., A, U) bool.
        offset: (..., A, U, 2) from the unit to the row.
        touch: (..., A, U) distance at which the two touch.
        gap: (..., A, U) distance edge to edge.
        missing: (..., A, U) what is missing for the unit to have the row in range; negative in range.
        in_reach: (..., A, U) bool, attackable and in range or nearly so.
        winding_up: (..., A) bool, an attack has begun and has not hit yet.
        cooldown: (..., A).
    """

    def __init__(self, observation: Observation) -> None:
        self.observation = observation
        self.alive: Bools = observation["controlled_mask"]
        self.attackable: Bools = observation["target_mask"][..., Verb.ATTACK - FIRST_TARGET_VERB, :]
        self.offset: Floats = np.stack([self._to_rows(axis) for axis in ("x", "y")], axis=-1)
        self.touch: Floats = self.own("radius")[..., None] + self.rows("radius")[..., None, :]
        self.gap: Floats = np.hypot(self.offset[..., 0], self.offset[..., 1]) - self.touch
        self.missing: Floats = self.gap - self.own("weapon_range")[..., None]
        self.in_reach: Bools = self.attackable & (self.missing <= REACH * self.own("speed")[..., None])
        self.winding_up: Bools = self.own("winding_up") > 0
        self.cooldown: Floats = self.own("weapon_cooldown")

    def rows(self, feature: str) -> Floats:
        """(..., U) a feature of every row, in its physical unit."""
        index = FEATURE_INDEX[feature]
        return self.observation["units"][..., index] * np.float32(UNIT_FEATURES[index].scale)

    def own(self, feature: str) -> Floats:
        """(..., A) the same of the controlled units."""
        return np.take_along_axis(self.rows(feature), self.observation["controlled"], -1)

    def _to_rows(self, axis: str) -> Floats:
        return self.rows(axis)[..., None, :] - self.own(axis)[..., None]

    @cached_property
    def closest(self) -> NDArray[np.int64]:
        """(..., A) the row of the closest enemy seen, -1 where none can be attacked."""
        row = np.where(self.attackable, self.gap, np.inf).argmin(-1)
        return np.where(self.attackable.any(-1), row, -1)

    @cached_property
    def ahead(self) -> Floats:
        """(..., A) map cells that the last of like range has to go farther to get an enemy in range."""
        missing = np.where(self.attackable, self.missing, np.inf).min(-1)
        counts = self.alive & np.isfinite(missing)
        missing = np.where(counts, missing, 0.0)
        reach = self.own("weapon_range")
        like = np.abs(reach[..., :, None] - reach[..., None, :]) <= LIKE_RANGE
        last = np.where(like & counts[..., None, :], missing[..., None, :], -np.inf).max(-1, initial=-np.inf)
        return np.where(counts, last - missing, 0.0)


def hold(observation: Observation, _: np.random.Generator) -> Orders:
    """Stand, shoot what comes into range."""
    return _everyone(observation, Verb.HOLD)


def attack_move(observation: Observation, _: np.random.Generator) -> Orders:
    """Go where the scenario sends the team, fighting what is met."""
    return _everyone(observation, Verb.ATTACK_MOVE)


def closest(observation: Observation, _: np.random.Generator) -> Orders:
    """Attack the closest enemy."""
    situation = Situation(observation)
    return _attack(situation, situation.closest)


def focus_fire(observation: Observation, _: np.random.Generator) -> Orders:
    """Attack the weakest enemy in reach, with no more of us than it takes."""
    situation = Situation(observation)
    return _attack(situation, _assign_targets(situation))


def kite(observation: Observation, _: np.random.Generator) -> Orders:
    """Focus-fire, but keep away from enemies of shorter range.

    A unit whose weapon is ready shoots if no such enemy could get at it meanwhile; one whose weapon cools
    down keeps its distance. Where nobody has shorter range this is focus-fire.
    """
    situation = Situation(observation)
    targets = _assign_targets(situation)
    reach = situation.rows("weapon_range")[..., None, :]
    chaser = (
        (situation.rows("enemy")[..., None, :] > 0)
        & (situation.rows("speed")[..., None, :] > 0)
        & (reach + KITE_RANGE_ADVANTAGE < situation.own("weapon_range")[..., None])
    )
    if not chaser.any():
        return _attack(situation, targets)
    orders = _attack(situation, targets)
    short_of_us = np.where(chaser, situation.gap - reach, np.inf).min(-1)
    keep = np.where(situation.cooldown <= KITE_READY, KITE_SAFE, KITE_FAR)
    escape = _escape(situation, chaser)
    flees = situation.alive & ~situation.winding_up & (short_of_us < keep) & (escape >= 0)
    orders[..., 0] = np.where(flees, escape, orders[..., 0])
    orders[..., 1] = np.where(flees, 0, orders[..., 1])
    return orders


SCRIPTS: Mapping[str, Script] = MappingProxyType(
    {
        "hold": hold,
        "random": random_orders,
        "attack-move": attack_move,
        "closest": closest,
        "focus-fire": focus_fire,
        "kite": kite,
    }
)


class ScriptedAgent:
    """A script with a name and a random stream.

    Args:
        script: a key of :data:`SCRIPTS`.
        seed: of the draws, for scripts that draw.

    Raises:
        ValueError: no such script; the message lists the nearest.
    """

    def __init__(self, script: str, *, seed: int = 0) -> None:
        if script not in SCRIPTS:
            near = difflib.get_close_matches(script, SCRIPTS, n=2, cutoff=0.4)
            hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(SCRIPTS)}"
            raise ValueError(f"unknown script {script!r}; {hint}")
        self.name = f"scripted:{script}"
        self.deterministic = script != "random"
        self._script = SCRIPTS[script]
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Draw from ``seed`` from now on."""
        self._generator = np.random.default_rng(seed)

    def act(self, observation: Observation) -> Orders:
        """Legal orders (..., A, 2)."""
        return self._script(observation, self._generator)


def _everyone(observation: Observation, verb: Verb) -> Orders:
    """``verb`` for all units that may use it, NO_OP for the others."""
    allowed = observation["verb_mask"][..., verb]
    orders = np.zeros((*allowed.shape, 2), np.int64)
    orders[..., 0] = np.where(allowed, verb, Verb.NO_OP)
    return orders


def _attack(situation: Situation, target: NDArray[np.int64]) -> Orders:
    """Attack the target rows (..., A); attack-move where they are -1; let those too far ahead wait."""
    orders = _everyone(situation.observation, Verb.ATTACK_MOVE)
    attacks = target >= 0
    depth = LINE_DEPTH * np.sqrt(situation.alive.sum(-1, keepdims=True))
    waits = ~situation.in_reach.any(-1) & (situation.ahead > depth)
    verb = np.select(
        [situation.winding_up, waits, attacks], [Verb.NO_OP, Verb.HOLD, Verb.ATTACK], default=orders[..., 0]
    )
    orders[..., 0] = verb
    orders[..., 1] = np.where(verb == Verb.ATTACK, target, 0)
    return orders


def _assign_targets(situation: Situation) -> NDArray[np.int64]:
    """(..., A) target rows: the closest where nothing is in reach, -1 where nothing can be attacked.

    Unit by unit: of the enemies in reach that the volleys assigned so far leave alive, the one with the least
    health and shield for how many of us reach it. Only volleys that can fall within this step count; bonus
    damage is not in the observation, so that now and then one volley too many is assigned.
    """
    left = situation.rows("health") + situation.rows("shield")
    reached_by = np.maximum(situation.in_reach.sum(-2), 1)
    armor = situation.rows("armor")[..., None, :]
    damage = np.maximum(situation.own("volley")[..., None] - armor, MIN_DAMAGE)
    damage = np.where((situation.cooldown < LOOPS_PER_STEP)[..., None], damage, 0.0)
    targets = situation.closest.copy()
    rows = np.arange(left.shape[-1])
    for slot in range(targets.shape[-1]):
        reachable = situation.in_reach[..., slot, :]
        unfinished = reachable & (left > 0)
        candidates = np.where(unfinished.any(-1, keepdims=True), unfinished, reachable)
        weakest = np.where(candidates, left / reached_by, np.inf).argmin(-1)
        shoots: Bools = np.any(reachable, axis=-1, keepdims=True)
        targets[..., slot] = np.where(shoots[..., 0], weakest, targets[..., slot])
        hit: Bools = np.equal(rows, np.expand_dims(weakest, -1)) & shoots
        left = left - np.where(hit, damage[..., slot, :], 0.0)
    return targets


def _escape(situation: Situation, chaser: Bools) -> NDArray[np.int64]:
    """(..., A) the move verb that leads away from ``chaser`` rows (..., A, U); -1 where no direction is open.

    Every open direction is rated by the repulsion Σ w / gapᵖ that rows would exert some cells on: enemies
    with weight 1, comrades with less.
    """
    elsewhere: Bools = np.abs(situation.offset).max(-1) > 0
    comrade: Bools = (situation.rows("own")[..., None, :] > 0) & elsewhere
    weight = np.where(chaser, 1.0, np.where(comrade, KITE_COMRADES, 0.0)).astype(np.float32)[..., None, :]
    offset = situation.offset[..., None, :, :] - KITE_LOOKAHEAD * _DIRECTIONS[:, None, :]  # (..., A, 8, U, 2)
    gap = np.hypot(offset[..., 0], offset[..., 1]) - situation.touch[..., None, :]
    repulsion = (weight / np.maximum(gap, 0.2) ** KITE_POWER).sum(-1)
    is_open = situation.observation["verb_mask"][..., _MOVES]
    best = np.where(is_open, repulsion, np.inf).argmin(-1)
    return np.where(is_open.any(-1), _MOVES[best], -1)
