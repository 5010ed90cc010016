"""What a side, or a single unit, is shown of a battle: the unit-set contract filled from the engine's state.

Rows are the observer's own team first, in unit order, then the enemies: row ``r`` of the first side is unit
``r``; of the second side, own units follow at ``r + n0``. Rows that are not seen are zero, so their place
tells nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.battle.combat import ability_ready, ability_target
from envs.battle.compiled import compiled
from envs.battle.engine import attackable, direction_open, notices, visible
from envs.battle.records import Records
from envs.battle.rules import (
    HEAL,
    NEUTRAL,
    NO_ABILITY,
    STIMPACK,
    TYPE_FEATURES,
    Rules,
)
from envs.battle.state import ATTACK, ATTACK_MOVE, HOLD, MOVE, Battle, State, Unit, Units
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
_ATTACK_MOVE, _ATTACK, _ABILITY = int(Verb.ATTACK_MOVE), int(Verb.ATTACK), int(Verb.ABILITY)
_FIRST_MOVE = int(Verb.MOVE_NORTH)
_ATTACK_TARGETS = _ATTACK - FIRST_TARGET_VERB
_ABILITY_TARGETS = _ABILITY - FIRST_TARGET_VERB


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
        units = state.units[b]
        mask = view.unit_mask[b, 0]
        for row in range(mask.shape[0]):
            it = units[rules.rows[side, row]]
            mask[row] = visible(it, side)
            _write_row(rules, it, side, mask[row], False, view.units[b, 0, row], view.unit_type[b, 0], row)
        _count_engagements(rules, units, side, view.units[b, 0], mask)
        _write_scalars(rules, state.battles[b], own, view, b, 0)
        for slot in range(own):
            _write_slot(rules, state.battles[b], units, side, slot, view, b, 0, slot)
        if full.units.shape[0] > 0:
            _write_state(rules, units, side, full, b)


@compiled
def observe_units(
    rules: Rules, state: State, side: int, view: View, full: StateView, lo: int, hi: int
) -> None:
    """Fill each unit's own view (n = team size, A = 1): only what lies within that unit's sight."""
    own = rules.sides[side].last - rules.sides[side].first
    for b in range(lo, hi):
        units = state.units[b]
        for me in range(own):
            eye = units[rules.sides[side].first + me]
            mask = view.unit_mask[b, me]
            for row in range(mask.shape[0]):
                it = units[rules.rows[side, row]]
                # A comrade is shown wherever a plain unit there would be.
                mask[row] = visible(it, side) and eye.alive and (row == me or notices(rules, eye, it))
                _write_row(
                    rules, it, side, mask[row], False, view.units[b, me, row], view.unit_type[b, me], row
                )
            _count_engagements(rules, units, side, view.units[b, me], mask)
            _write_scalars(rules, state.battles[b], own, view, b, me)
            _write_slot(rules, state.battles[b], units, side, me, view, b, me, 0)
        if full.units.shape[0] > 0:
            _write_state(rules, units, side, full, b)


@compiled
def _write_row(
    rules: Rules,
    it: Unit,
    side: int,
    shown: bool,
    privileged: bool,
    features: NDArray[np.float32],
    unit_type: NDArray[np.int64],
    row: int,
) -> None:
    if not shown:
        unit_type[row] = 0
        features[:] = 0.0
        return
    kind = rules.types[it.type]
    scale = _INVERSE_SCALE
    unit_type[row] = kind.index
    own = it.side == side
    for k in range(_TYPE_COLUMNS.shape[0]):
        column = _TYPE_COLUMNS[k]
        features[column] = rules.features[it.type, k] * scale[column]
    features[_X], features[_Y] = it.x, it.y
    features[_OWN] = 1.0 if own else 0.0
    features[_ENEMY] = 1.0 if it.side == 1 - side else 0.0
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
    units: Units,
    side: int,
    features: NDArray[np.float32],
    mask: NDArray[np.bool_],
) -> None:
    """Add up, on each shown row, the shown own units that aim at it."""
    own = rules.sides[side].last - rules.sides[side].first
    for row in range(own):
        j = units[rules.sides[side].first + row].engaged
        if mask[row] and j >= 0:
            mine = units[j].side == side
            aimed = j - rules.sides[side].first if mine else j - rules.sides[1 - side].first + own
            if mask[aimed]:
                features[aimed, _ENGAGED_BY] += _INVERSE_SCALE[_ENGAGED_BY]


@compiled
def _write_scalars(rules: Rules, battle: Battle, own: int, view: View, b: int, o: int) -> None:
    """Totals over the rows shown, so that a unit's scalars tell no more than its rows."""
    own_count = enemy_count = own_vitality = enemy_vitality = 0.0
    both = rules.sides[NEUTRAL].first
    for row in range(both):
        if view.unit_mask[b, o, row]:
            health = view.units[b, o, row, _HEALTH] + view.units[b, o, row, _SHIELD]
            if row < own:
                own_count += 1.0
                own_vitality += health
            else:
                enemy_count += 1.0
                enemy_vitality += health
    scalars = view.scalars[b, o]
    scalars[0] = battle.steps * LOOPS_PER_STEP / _MINUTE
    scalars[1] = 1.0 - battle.steps / rules.world[0].step_limit
    scalars[2] = np.log1p(own_count) * _SCALAR_SCALE[2]
    scalars[3] = np.log1p(enemy_count) * _SCALAR_SCALE[3]
    scalars[4] = np.log1p(own_vitality) * _SCALAR_SCALE[4]
    scalars[5] = np.log1p(enemy_vitality) * _SCALAR_SCALE[5]


@compiled
def _write_slot(
    rules: Rules, battle: Battle, units: Units, side: int, own_row: int, view: View, b: int, o: int, slot: int
) -> None:
    """Which verbs and targets the unit at ``own_row`` may use."""
    i = rules.sides[side].first + own_row
    me = units[i]
    kind, world = rules.types[me.type], rules.world[0]
    alive = me.alive
    view.controlled_mask[b, o, slot] = alive
    view.controlled[b, o, slot] = own_row if alive else 0
    verbs = view.verb_mask[b, o, slot]
    targets = view.target_mask[b, o, slot]
    shown = view.unit_mask[b, o]
    verbs[:] = False
    targets[:, :] = False
    # SMAC's units have four directions and may do nothing only once they are dead.
    verbs[_NO_OP] = not (world.smac and alive)
    if not alive:
        return
    verbs[_STOP] = True
    verbs[_HOLD] = not world.smac
    verbs[_ATTACK_MOVE] = (kind.armed or kind.ability == HEAL) and not world.smac
    for d in range(0, rules.directions.shape[0], 2 if world.smac else 1):
        verbs[_FIRST_MOVE + d] = direction_open(rules, me, d)
    own = rules.sides[side].last - rules.sides[side].first
    both = rules.sides[NEUTRAL].first
    if kind.armed:
        for row in range(own, both):
            it = units[rules.rows[side, row]]
            if shown[row] and attackable(rules.pairs[me.type, it.type], me, it) and _within_aim(kind, me, it):
                targets[_ATTACK_TARGETS, row] = True
                verbs[_ATTACK] = True
    if kind.ability != NO_ABILITY and ability_ready(kind, battle, me):
        first, last = (0, own) if kind.ability == HEAL else (0, both)
        if kind.ability == STIMPACK:
            first, last = own_row, own_row + 1
        for row in range(first, last):
            j = rules.rows[side, row]
            fits = shown[row] and ability_target(rules, i, me, j, units[j])
            if fits and _within_aim(kind, me, units[j]):
                targets[_ABILITY_TARGETS, row] = True
                verbs[_ABILITY] = True


@compiled
def _within_aim(kind: Records, me: Unit, it: Unit) -> bool:
    """Whether the preset lets ``me`` aim at ``it``: SMAC only from near, ours from anywhere."""
    dx, dy = it.x - me.x, it.y - me.y
    return dx * dx + dy * dy <= kind.aim2


@compiled
def _write_state(rules: Rules, units: Units, side: int, full: StateView, b: int) -> None:
    """Every living unit, enemies' orders and cooldowns included, rows as ``side`` sees them."""
    mask = full.unit_mask[b, 0]
    for row in range(mask.shape[0]):
        it = units[rules.rows[side, row]]
        mask[row] = it.alive
        _write_row(rules, it, side, it.alive, True, full.units[b, 0, row], full.unit_type[b, 0], row)
    _count_engagements(rules, units, side, full.units[b, 0], mask)
