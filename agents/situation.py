"""What the scripts want to know of an observation, and the orders they are made of.

Everything here is a function of one observation of the unit-set contract, over any leading dimensions (...),
for A controlled units and U rows.
"""

from __future__ import annotations

from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from agents.base import Observation, Orders
from envs.unit_set import (
    FEATURE_INDEX,
    FIRST_TARGET_VERB,
    MOVE_DIRECTIONS,
    MOVE_VERBS,
    UNIT_FEATURES,
    Verb,
)

Floats: TypeAlias = NDArray[np.float32]
Bools: TypeAlias = NDArray[np.bool_]
Indices: TypeAlias = NDArray[np.int64]

REACH = 0.2
"""Steps of walking from which an enemy counts as in reach: there is time to shoot in the same step."""
LIKE_RANGE = 1.0
"""Map cells by which the ranges of units that wait for each other may differ. Who shoots from afar has always
less far to go: waiting for melee units, it would stand in their way while they jam behind it."""
RIGHT_TURN = 0.1
"""How much a unit that cannot go on straight ahead prefers the right to the left."""

DIRECTIONS: Floats = MOVE_DIRECTIONS.astype(np.float32)
MOVES: Indices = np.array([int(verb) for verb in MOVE_VERBS])


class Situation:
    """An observation in map cells, game loops and points.

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
        armed: (..., A) bool.
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
        self.armed: Bools = self.own("volley") > 0

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
    def enemy(self) -> Bools:
        """(..., U)"""
        return self.rows("enemy") > 0

    @cached_property
    def neutral(self) -> Bools:
        """(..., U) beacons and shards."""
        return self.observation["unit_mask"] & ~self.enemy & (self.rows("own") == 0)

    @cached_property
    def myself(self) -> Bools:
        """(..., A, U)"""
        return np.arange(self.touch.shape[-1]) == self.observation["controlled"][..., None]

    @cached_property
    def closest(self) -> Indices:
        """(..., A) the row of the closest enemy that can be attacked, -1 where there is none."""
        return nearest(self.attackable, self.gap)

    @cached_property
    def marches(self) -> Bools:
        """(..., A) living units that may attack-move."""
        return self.observation["verb_mask"][..., Verb.ATTACK_MOVE]

    @cached_property
    def ahead(self) -> Floats:
        """(..., A) map cells that the last of like range has to go farther to get an enemy in range."""
        # Under SMAC's preset only near enemies can be attacked, but those farther off are walked to.
        walked_to = (self.armed & ~self.marches)[..., None] & self.enemy[..., None, :]
        missing = np.where(self.attackable | walked_to, self.missing, np.inf).min(-1)
        counts = self.alive & np.isfinite(missing)
        missing = np.where(counts, missing, 0.0)
        reach = self.own("weapon_range")
        like = np.abs(reach[..., :, None] - reach[..., None, :]) <= LIKE_RANGE
        comes = counts & (self.own("speed") > 0)
        last = np.where(like & comes[..., None, :], missing[..., None, :], -np.inf).max(-1, initial=-np.inf)
        return np.where(counts, np.maximum(last - missing, 0.0), 0.0)

    def first_allowed(self, *verbs: Verb) -> Indices:
        """(..., A) the first of these verbs, none of which has a target, that a unit may use; else NO_OP."""
        allowed = self.observation["verb_mask"]
        return np.select([allowed[..., verb] for verb in verbs], [int(verb) for verb in verbs], Verb.NO_OP)

    def towards(self, offset: Floats) -> Indices:
        """(..., A) the open move that leads nearest to ``offset`` (..., A, 2); -1 where none is open."""
        step = self.own("speed")[..., None, None] * DIRECTIONS
        left = offset[..., None, :] - step
        return self._best_move(-np.hypot(left[..., 0], left[..., 1]))

    def onwards(self) -> Indices:
        """(..., A) the open move that leads on where the unit faces, or, at a wall, along it to the right."""
        cos, sin = self.own("facing_cos")[..., None], self.own("facing_sin")[..., None]
        ahead = cos * DIRECTIONS[:, 0] + sin * DIRECTIONS[:, 1]
        right = sin * DIRECTIONS[:, 0] - cos * DIRECTIONS[:, 1]
        return self._best_move(ahead + RIGHT_TURN * right)

    def _best_move(self, worth: NDArray[np.floating]) -> Indices:
        """(..., A) of the eight moves, worth (..., A, 8) each, the best open one; -1 where none is open."""
        is_open = self.observation["verb_mask"][..., MOVES]
        best = np.where(is_open, worth, -np.inf).argmax(-1)
        return np.where(is_open.any(-1), MOVES[best], -1)

    def offset_to(self, row: Indices) -> Floats:
        """(..., A, 2) to the rows (..., A)."""
        return np.take_along_axis(self.offset, np.maximum(row, 0)[..., None, None], -2)[..., 0, :]


def nearest(candidates: Bools, distance: Floats) -> Indices:
    """(..., A) the candidate row with the least distance, both (..., A, U); -1 where there is none."""
    row = np.where(candidates, distance, np.inf).argmin(-1)
    return np.where(candidates.any(-1), row, -1)


def as_orders(verb: Indices, target: Indices | int = 0) -> Orders:
    """(..., A, 2) from verbs (..., A) and rows, which verbs without a target do without."""
    return np.stack([verb, np.where(verb >= FIRST_TARGET_VERB, target, 0)], axis=-1).astype(np.int64)
