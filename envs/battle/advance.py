"""One environment step of many battles, compiled: orders, 8 game loops, reward, outcome, fresh start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.battle.compiled import compiled
from envs.battle.engine import (
    DRAW,
    RUNNING,
    TIMEOUT,
    WIN_0,
    WIN_1,
    Battle,
    State,
    Units,
    game_loop,
    give_order,
    look,
    reset_battle,
)
from envs.battle.rules import Rules
from envs.unit_set import FIRST_TARGET_VERB, LOOPS_PER_STEP

# Auto-reset modes, as AutoReset in batch.py names them.
SAME_STEP, NEXT_STEP, OFF = 0, 1, 2


@compiled
def first_illegal(
    orders: NDArray[np.int64],
    verb_mask: NDArray[np.bool_],
    target_mask: NDArray[np.bool_],
    outcome: NDArray[np.int8],
) -> int:
    """Index of the first running battle with an order that the masks forbid, or -1.

    Args:
        orders: (B, n, 2).
        verb_mask: (B, n, V).
        target_mask: (B, n, V_t, U).
        outcome: (B,); only battles that are running are looked at.
    """
    for b in range(orders.shape[0]):
        if outcome[b] != RUNNING:
            continue
        for a in range(orders.shape[1]):
            verb, target = orders[b, a, 0], orders[b, a, 1]
            if verb < 0 or verb >= verb_mask.shape[2] or not verb_mask[b, a, verb]:
                return b
            if verb >= FIRST_TARGET_VERB:
                if target < 0 or target >= target_mask.shape[3]:
                    return b
                if not target_mask[b, a, verb - FIRST_TARGET_VERB, target]:
                    return b
    return -1


@compiled
def advance_battles(
    rules: Rules,
    state: State,
    orders0: NDArray[np.int64],
    orders1: NDArray[np.int64],
    builtin: NDArray[np.bool_],
    weights: NDArray[np.float64],
    mode: int,
    seeds: NDArray[np.uint64],
    rewards: NDArray[np.float32],
    done: NDArray[np.bool_],
    outcome: NDArray[np.int8],
    length: NDArray[np.int32],
    returns: NDArray[np.float32],
    lo: int,
    hi: int,
) -> None:
    """Step battles ``lo`` to ``hi``.

    Args:
        orders0: (B, n0, 2) legal orders, ignored for a builtin side; ``orders1`` likewise.
        weights: (4,) the fields of RewardWeights.
        seeds: (B,) of the running battles; a fresh start replaces its own.
        rewards ... returns: outputs, see StepResult.
    """
    for b in range(lo, hi):
        battle, units = state.battles[b], state.units[b]
        if battle.outcome != RUNNING and mode != SAME_STEP:
            if mode == NEXT_STEP:
                _start_next(rules, state, b, seeds, builtin)
            rewards[b, :] = 0.0
        else:
            if not builtin[0]:
                _give_orders(rules, units, 0, orders0[b])
            if not builtin[1]:
                _give_orders(rules, units, 1, orders1[b])
            _run(rules, battle, units)
            _score(rules, state, b, weights, rewards)
        outcome[b] = battle.outcome
        done[b] = battle.outcome != RUNNING
        length[b] = battle.steps
        returns[b, 0], returns[b, 1] = state.returns[b, 0], state.returns[b, 1]
        if done[b] and mode == SAME_STEP:
            _start_next(rules, state, b, seeds, builtin)


@compiled
def _give_orders(rules: Rules, units: Units, side: int, orders: NDArray[np.int64]) -> None:
    for a in range(orders.shape[0]):
        me = units[rules.sides[side].first + a]
        if me.alive:
            verb, target = orders[a, 0], orders[a, 1]
            give_order(rules, me, verb, rules.rows[side, target] if verb >= FIRST_TARGET_VERB else -1)


@compiled
def _run(rules: Rules, battle: Battle, units: Units) -> None:
    """Eight game loops, or fewer if a team is gone before."""
    for i in range(units.shape[0]):
        units[i].dealt = 0.0
    battle.steps += 1
    for _ in range(LOOPS_PER_STEP):
        game_loop(rules, battle, units)
        lives0, lives1 = _any_alive(rules, units, 0), _any_alive(rules, units, 1)
        if not (lives0 and lives1):
            battle.outcome = WIN_0 if lives0 else (WIN_1 if lives1 else DRAW)
            break
    if battle.outcome == RUNNING and battle.steps >= rules.world[0].step_limit:
        battle.outcome = TIMEOUT
    look(rules, units)


@compiled
def _any_alive(rules: Rules, units: Units, side: int) -> bool:
    for i in range(rules.sides[side].first, rules.sides[side].last):  # noqa: SIM110 - numba has no any()
        if units[i].alive:
            return True
    return False


@compiled
def _score(
    rules: Rules, state: State, b: int, weights: NDArray[np.float64], rewards: NDArray[np.float32]
) -> None:
    dealt0, dealt1 = 0.0, 0.0
    for i in range(rules.type_of.shape[0]):
        unit = state.units[b, i]
        if unit.side == 0:
            dealt0 += unit.dealt
        else:
            dealt1 += unit.dealt
    share0, share1 = dealt0 / rules.sides[1].vitality, dealt1 / rules.sides[0].vitality
    outcome = state.battles[b].outcome
    end0 = end1 = 0.0
    if outcome != RUNNING:
        end0 = weights[2] if outcome == WIN_0 else -weights[3]
        end1 = weights[2] if outcome == WIN_1 else -weights[3]
    rewards[b, 0] = weights[0] * share0 - weights[1] * share1 + end0
    rewards[b, 1] = weights[0] * share1 - weights[1] * share0 + end1
    state.returns[b, 0] += rewards[b, 0]
    state.returns[b, 1] += rewards[b, 1]


@compiled
def _start_next(
    rules: Rules, state: State, b: int, seeds: NDArray[np.uint64], builtin: NDArray[np.bool_]
) -> None:
    """Start the battle that follows the one that ended: its seed is a mix of the ended one's."""
    z = seeds[b] + np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(32))) * np.uint64(0xDABA0B6EB09322E3)
    z = (z ^ (z >> np.uint64(32))) * np.uint64(0xDABA0B6EB09322E3)
    seeds[b] = z ^ (z >> np.uint64(32))
    _start(rules, state, b, seeds, builtin)


@compiled
def _start(rules: Rules, state: State, b: int, seeds: NDArray[np.uint64], builtin: NDArray[np.bool_]) -> None:
    reset_battle(rules, state.battles[b], state.units[b], seeds[b], builtin)
    state.returns[b, :] = 0.0


@compiled
def reset_battles(
    rules: Rules, state: State, seeds: NDArray[np.uint64], builtin: NDArray[np.bool_], lo: int, hi: int
) -> None:
    """Start battles ``lo`` to ``hi`` from their seeds."""
    for b in range(lo, hi):
        _start(rules, state, b, seeds, builtin)


@compiled
def restart_battles(
    rules: Rules,
    state: State,
    battles: NDArray[np.bool_],
    seeds: NDArray[np.uint64],
    builtin: NDArray[np.bool_],
    lo: int,
    hi: int,
) -> None:
    """Start the marked ones of battles ``lo`` to ``hi`` from the seeds that auto-reset would give them."""
    for b in range(lo, hi):
        if battles[b]:
            _start_next(rules, state, b, seeds, builtin)


@compiled
def look_battles(rules: Rules, state: State, lo: int, hi: int) -> None:
    """Renew what each side sees in battles ``lo`` to ``hi``."""
    for b in range(lo, hi):
        look(rules, state.units[b])
