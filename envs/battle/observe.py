"""What a side, or a single unit, is shown of a battle: the unit-set contract filled from the engine's state.

Rows are the observer's own team first, in unit order, then the enemies: row ``r`` of the first side is unit
``r``; of the second side, own units follow at ``r + n0``. Rows that are not seen are zero, so their place
tells nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.battle.compiled import compiled
from envs.battle.engine import ATTACK, ATTACK_MOVE, HOLD, MOVE, State, Unit
from envs.battle.rules import TYPE_FEATURES, Rules
from envs.unit_set import (
    FEATURE_INDEX,
    FIRST_TARGET_VERB,
    GAME_LOOPS_PER_SECOND,
    LOOPS_PER_STEP,
    NUM_SCALARS,
    NUM_TARGET_VERBS,
    NUM_UNIT_FEATURES,
    NUM_VERBS,
    SCALARS,
    UNIT_FEATURES,
    Verb,
)

_INVERSE_SCALE = np.array([1.0 / feature.scale for feature in UNIT_FEATURES])
_TYPE_COLUMNS = np.array([FEATURE_INDEX[name] for name in TYPE_FEATURES])
_SCALAR_SCALE = np.array([1.0 / feature.scale for feature in SCALARS])
_MINUTE = 60.0 * GAME_LOOPS_PER_SECOND

_X, _Y = FEATURE_INDEX["x"], FEATURE_INDEX["y"]
_OWN, _ENEMY = FEATURE_INDEX["own"], FEATURE_INDEX["enemy"]
_HEALTH, _SHIELD, _ENERGY = (FEATURE_INDEX[name] for name in ("health", "shield", "energy"))
_HEALTH_RATIO, _SHIELD_RATIO, _ENERGY_RATIO = (
    FEATURE_INDEX[name] for name in ("health_ratio", "shield_ratio", "energy_ratio")
)
_FACING_COS, _FACING_SIN = FEATURE_INDEX["facing_cos"], FEATURE_INDEX["facing_sin"]
_COOLDOWN, _WINDING = FEATURE_INDEX["weapon_cooldown"], FEATURE_INDEX["winding_up"]
_ORDER_HOLD, _ORDER_MOVE, _ORDER_ATTACK, _ORDER_ATTACK_MOVE = (
    FEATURE_INDEX[f"order_{name}"] for name in ("hold", "move", "attack", "attack_move")
)
_ENGAGED_BY = FEATURE_INDEX["engaged_by"]
_NO_OP, _STOP, _HOLD = int(Verb.NO_OP), int(Verb.STOP), int(Verb.HOLD)
_ATTACK_MOVE, _ATTACK = int(Verb.ATTACK_MOVE), int(Verb.ATTACK)
_FIRST_MOVE = int(Verb.MOVE_NORTH)
_ATTACK_TARGETS = int(Verb.ATTACK) - FIRST_TARGET_VERB


class View(NamedTuple):
    """Arrays of one side's observations: B battles, n observers each (1 for a team), A slots an observer."""

    units: NDArray[np.float32]  # (B, n, U, F)
    unit_type: NDArray[np.int64]  # (B, n, U)
    unit_mask: NDArray[np.bool_]  # (B, n, U)
    controlled: NDArray[np.int64]  # (B, n, A)
    controlled_mask: NDArray[np.bool_]  # (B, n, A)
    verb_mask: NDArray[np.bool_]  # (B, n, A, V)
    target_mask: NDArray[np.bool_]  # (B, n, A, V_t, U)
    scalars: NDArray[np.float32]  # (B, n, S)


class StateView(NamedTuple):
    """The full unit set for a centralised critic, one a battle; zero-sized where nobody asked for it."""

    units: NDArray[np.float32]  # (B, 1, U, F)
    unit_type: NDArray[np.int64]  # (B, 1, U)
    unit_mask: NDArray[np.bool_]  # (B, 1, U)


def new_view(num_battles: int, observers: int, num_units: int, slots: int) -> View:
    """Zeroed observation arrays."""
    b, n, u, a = num_battles, observers, num_units, slots
    return View(
        np.zeros((b, n, u, NUM_UNIT_FEATURES), np.float32),
        np.zeros((b, n, u), np.int64),
        np.zeros((b, n, u), np.bool_),
        np.zeros((b, n, a), np.int64),
        np.zeros((b, n, a), np.bool_),
        np.zeros((b, n, a, NUM_VERBS), np.bool_),
        np.zeros((b, n, a, NUM_TARGET_VERBS, u), np.bool_),
        np.zeros((b, n, NUM_SCALARS), np.float32),
    )


def new_state_view(num_battles: int, num_units: int) -> StateView:
    """Zeroed state arrays."""
    b, u = num_battles, num_units
    return StateView(
        np.zeros((b, 1, u, NUM_UNIT_FEATURES), np.float32),
        np.zeros((b, 1, u), np.int64),
        np.zeros((b, 1, u), np.bool_),
    )


@compiled
def observe_team(
    rules: Rules, state: State, side: int, view: View, full: StateView, lo: int, hi: int
) -> None:
    """Fill the team's view (n = 1, A = team size) of battles ``lo`` to ``hi``, and the state if asked for."""
    own = rules.sides[side].last - rules.sides[side].first
    for b in range(lo, hi):
        for row in range(rules.type_of.shape[0]):
            i = rules.rows[side, row]
            _write_row(
                rules,
                state.units[b, i],
                b,
                side,
                state.units[b, i].seen >> side & 1 == 1,
                False,
                view.units,
                view.unit_type,
                view.unit_mask,
                0,
                row,
            )
        _count_engagements(rules, state, b, side, view.units, view.unit_mask, 0)
        _write_scalars(rules, state, b, own, view, 0)
        for slot in range(own):
            _write_slot(rules, state, b, side, slot, view, 0, slot)
        if full.units.shape[0] > 0:
            _write_state(rules, state, b, side, full)


@compiled
def observe_units(
    rules: Rules, state: State, side: int, view: View, full: StateView, lo: int, hi: int
) -> None:
    """Fill each unit's own view (n = team size, A = 1): only what lies within that unit's sight."""
    own = rules.sides[side].last - rules.sides[side].first
    for b in range(lo, hi):
        for me in range(own):
            eye = state.units[b, rules.sides[side].first + me]
            sight = rules.types[eye.type].sight
            for row in range(rules.type_of.shape[0]):
                it = state.units[b, rules.rows[side, row]]
                dx, dy = it.x - eye.x, it.y - eye.y
                near = eye.alive and it.alive and dx * dx + dy * dy <= sight * sight
                _write_row(
                    rules, it, b, side, near, False, view.units, view.unit_type, view.unit_mask, me, row
                )
            _count_engagements(rules, state, b, side, view.units, view.unit_mask, me)
            _write_scalars(rules, state, b, own, view, me)
            _write_slot(rules, state, b, side, me, view, me, 0)
        if full.units.shape[0] > 0:
            _write_state(rules, state, b, side, full)


@compiled
def _write_row(
    rules: Rules,
    it: Unit,
    b: int,
    side: int,
    shown: bool,
    privileged: bool,
    units: NDArray[np.float32],
    unit_type: NDArray[np.int64],
    unit_mask: NDArray[np.bool_],
    o: int,
    row: int,
) -> None:
    unit_mask[b, o, row] = shown
    features = units[b, o, row]
    if not shown:
        unit_type[b, o, row] = 0
        features[:] = 0.0
        return
    kind = rules.types[it.type]
    scale = _INVERSE_SCALE
    unit_type[b, o, row] = kind.index
    own = it.side == side
    for k in range(_TYPE_COLUMNS.shape[0]):
        column = _TYPE_COLUMNS[k]
        features[column] = rules.features[it.type, k] * scale[column]
    features[_X], features[_Y] = it.x, it.y
    features[_OWN] = 1.0 if own else 0.0
    features[_ENEMY] = 0.0 if own else 1.0
    features[_HEALTH] = it.health * scale[_HEALTH]
    features[_SHIELD] = it.shield * scale[_SHIELD]
    features[_ENERGY] = it.energy * scale[_ENERGY]
    features[_HEALTH_RATIO] = it.health / kind.health
    features[_SHIELD_RATIO] = it.shield / kind.shield if kind.shield > 0.0 else 0.0
    features[_ENERGY_RATIO] = it.energy / kind.energy if kind.energy > 0.0 else 0.0
    features[_FACING_COS], features[_FACING_SIN] = it.facing_x, it.facing_y
    told = own or privileged
    features[_COOLDOWN] = max(it.cooldown, 0.0) * scale[_COOLDOWN] if told else 0.0
    features[_WINDING] = 1.0 if told and it.windup >= 0.0 else 0.0
    features[_ORDER_HOLD] = 1.0 if told and it.order == HOLD else 0.0
    features[_ORDER_MOVE] = 1.0 if told and it.order == MOVE else 0.0
    features[_ORDER_ATTACK] = 1.0 if told and it.order == ATTACK else 0.0
    features[_ORDER_ATTACK_MOVE] = 1.0 if told and it.order == ATTACK_MOVE else 0.0
    features[_ENGAGED_BY] = 0.0


@compiled
def _count_engagements(
    rules: Rules,
    state: State,
    b: int,
    side: int,
    units: NDArray[np.float32],
    unit_mask: NDArray[np.bool_],
    o: int,
) -> None:
    """Add up, on each shown row, the shown own units that aim at it."""
    own = rules.sides[side].last - rules.sides[side].first
    for row in range(own):
        j = state.units[b, rules.sides[side].first + row].engaged
        if unit_mask[b, o, row] and j >= 0:
            mine = state.units[b, j].side == side
            aimed = j - rules.sides[side].first if mine else j - rules.sides[1 - side].first + own
            if unit_mask[b, o, aimed]:
                units[b, o, aimed, _ENGAGED_BY] += _INVERSE_SCALE[_ENGAGED_BY]


@compiled
def _write_scalars(rules: Rules, state: State, b: int, own: int, view: View, o: int) -> None:
    """Totals over the rows shown, so that a unit's scalars tell no more than its rows."""
    counts = (0.0, 0.0)
    vitality = (0.0, 0.0)
    for row in range(rules.type_of.shape[0]):
        if view.unit_mask[b, o, row]:
            health = view.units[b, o, row, _HEALTH] + view.units[b, o, row, _SHIELD]
            if row < own:
                counts = (counts[0] + 1.0, counts[1])
                vitality = (vitality[0] + health, vitality[1])
            else:
                counts = (counts[0], counts[1] + 1.0)
                vitality = (vitality[0], vitality[1] + health)
    scalars = view.scalars[b, o]
    scalars[0] = state.battles[b].steps * LOOPS_PER_STEP / _MINUTE
    scalars[1] = 1.0 - state.battles[b].steps / rules.world[0].step_limit
    scalars[2] = np.log1p(counts[0]) * _SCALAR_SCALE[2]
    scalars[3] = np.log1p(counts[1]) * _SCALAR_SCALE[3]
    scalars[4] = np.log1p(vitality[0]) * _SCALAR_SCALE[4]
    scalars[5] = np.log1p(vitality[1]) * _SCALAR_SCALE[5]


@compiled
def _write_slot(
    rules: Rules, state: State, b: int, side: int, own_row: int, view: View, o: int, slot: int
) -> None:
    """Which verbs and targets the unit at ``own_row`` may use."""
    me = state.units[b, rules.sides[side].first + own_row]
    kind, world = rules.types[me.type], rules.world[0]
    alive = me.alive
    view.controlled_mask[b, o, slot] = alive
    view.controlled[b, o, slot] = own_row if alive else 0
    verbs = view.verb_mask[b, o, slot]
    targets = view.target_mask[b, o, slot]
    verbs[:] = False
    targets[:, :] = False
    verbs[_NO_OP] = True
    if not alive:
        return
    verbs[_STOP] = True
    verbs[_HOLD] = True
    # A direction is open if half a step that way stays inside.
    half = 0.5 * LOOPS_PER_STEP * kind.speed
    r = kind.radius
    for d in range(rules.directions.shape[0]):
        x, y = me.x + half * rules.directions[d, 0], me.y + half * rules.directions[d, 1]
        verbs[_FIRST_MOVE + d] = (
            half > 0.0 and world.x0 + r <= x <= world.x1 - r and world.y0 + r <= y <= world.y1 - r
        )
    own = rules.sides[side].last - rules.sides[side].first
    for j in range(rules.sides[1 - side].first, rules.sides[1 - side].last):
        row = j - rules.sides[1 - side].first + own
        if view.unit_mask[b, o, row] and rules.pairs[me.type, state.units[b, j].type].can_attack:
            targets[_ATTACK_TARGETS, row] = True
            verbs[_ATTACK] = True
    verbs[_ATTACK_MOVE] = kind.armed


@compiled
def _write_state(rules: Rules, state: State, b: int, side: int, full: StateView) -> None:
    """Every living unit, enemies' orders and cooldowns included, rows as ``side`` sees them."""
    for row in range(rules.type_of.shape[0]):
        i = rules.rows[side, row]
        _write_row(
            rules,
            state.units[b, i],
            b,
            side,
            state.units[b, i].alive,
            True,
            full.units,
            full.unit_type,
            full.unit_mask,
            0,
            row,
        )
    _count_engagements(rules, state, b, side, full.units, full.unit_mask, 0)
