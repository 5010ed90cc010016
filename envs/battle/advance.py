"""One environment step of many battles, compiled: orders, 8 game loops, reward, outcome, fresh start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.battle.compiled import compiled, compiled_within
from envs.battle.engine import game_loop, give_order, look
from envs.battle.missions import after_loop
from envs.battle.movement import fill_bins
from envs.battle.rules import NO_MISSION, Rules
from envs.battle.spawn import reset_battle
from envs.battle.state import (
    DRAW,
    RUNNING,
    TIMEOUT,
    WIN_0,
    WIN_1,
    Battle,
    Bins,
    State,
    Units,
    shuffle,
    wake,
)
from envs.battle.tactics import NO_TACTIC
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
    players: NDArray[np.int64],
    weights: NDArray[np.float64],
    mode: int,
    seeds: NDArray[np.uint64],
    rewards: NDArray[np.float32],
    done: NDArray[np.bool_],
    outcome: NDArray[np.int8],
    length: NDArray[np.int32],
    returns: NDArray[np.float32],
    bins: Bins,
    lo: int,
    hi: int,
) -> None:
    """Step battles ``lo`` to ``hi``. Sides that the engine plays have their orders already.

    Args:
        orders0: (B, n0, 2) legal orders, ignored for a side the engine plays; ``orders1`` likewise.
        players: (2, 2) who plays each side, as of tactics.choices.
        weights: (6,) the fields of RewardWeights.
        seeds: (B,) of the running battles; a fresh start replaces its own.
        rewards ... returns: outputs, see StepResult.
    """
    for b in range(lo, hi):
        battle, units = state.battles[b], state.units[b]
        if battle.outcome != RUNNING and mode != SAME_STEP:
            if mode == NEXT_STEP:
                _start_next(rules, state, bins, b, seeds, players)
            rewards[b, :] = 0.0
        else:
            for side in range(2):
                if battle.tactic[side] == NO_TACTIC:
                    _give_orders(rules, battle, units, side, orders0[b] if side == 0 else orders1[b])
            _run(rules, battle, units, bins)
            _score(rules, state, b, weights, rewards)
        outcome[b] = battle.outcome
        done[b] = battle.outcome != RUNNING
        length[b] = battle.steps
        returns[b, 0], returns[b, 1] = state.returns[b, 0], state.returns[b, 1]
        if done[b] and mode == SAME_STEP:
            _start_next(rules, state, bins, b, seeds, players)


@compiled
def _give_orders(rules: Rules, battle: Battle, units: Units, side: int, orders: NDArray[np.int64]) -> None:
    for a in range(orders.shape[0]):
        i = rules.sides[side].first + a
        if units[i].alive:
            verb, target = orders[a, 0], orders[a, 1]
            unit = rules.rows[side, target] if verb >= FIRST_TARGET_VERB else -1
            give_order(rules, battle, units, i, verb, unit)


@compiled_within
def _run(rules: Rules, battle: Battle, units: Units, bins: Bins) -> None:
    """Eight game loops, or fewer if a team is gone before."""
    mission, smac = rules.mission[0].kind != NO_MISSION, rules.world[0].smac
    before_0 = before_1 = 0.0
    if smac:
        before_0, before_1 = _vitality(rules, units, 0), _vitality(rules, units, 1)
    battle.steps += 1
    battle.points = 0.0
    battle.acting = 0
    for i in range(units.shape[0]):
        if units[i].alive:
            units[battle.acting].shuffle = i
            battle.acting += 1
    shuffle(battle, units, 0, battle.acting)
    fill_bins(rules, units, bins)
    # A single bin stays right for the step: who walks is kept track of, and who falls is passed over.
    refill = mission or rules.world[0].bins_x * rules.world[0].bins_y > 1
    for _ in range(LOOPS_PER_STEP):
        game_loop(rules, battle, units, bins)
        if mission:
            after_loop(rules, battle, units)
        if refill:
            fill_bins(rules, units, bins)
        if battle.fighters[0] == 0 or (battle.fighters[1] == 0 and not mission):
            battle.outcome = WIN_0 if battle.fighters[0] > 0 else (WIN_1 if battle.fighters[1] > 0 else DRAW)
            break
    if battle.outcome == RUNNING and battle.steps >= rules.world[0].step_limit:
        battle.outcome = TIMEOUT
    if smac:
        # SMAC compares health and shields before and after the step: what was healed is taken off.
        battle.lost[0] = before_0 - _vitality(rules, units, 0)
        battle.lost[1] = before_1 - _vitality(rules, units, 1)
    look(rules, units)


@compiled
def _vitality(rules: Rules, units: Units, s: int) -> float:
    """Health and shields of a side."""
    side = rules.sides[s]
    total = 0.0
    for i in range(side.first, side.last):
        total += units[i].health + units[i].shield
    return total


@compiled
def _score(
    rules: Rules, state: State, b: int, weights: NDArray[np.float64], rewards: NDArray[np.float32]
) -> None:
    battle = state.battles[b]
    mission = rules.mission[0]
    battle.points += mission.kill * battle.killed[1] + mission.loss * battle.killed[0]
    battle.score += battle.points
    for side in range(2):
        enemies = rules.sides[1 - side]
        dealt = weights[0] * battle.lost[1 - side] / max(battle.vitality[1 - side], 1.0)
        dealt += weights[4] * battle.killed[1 - side] / max(enemies.last - enemies.first, 1)
        # SMAC's reward is only positive: the absolute value, where more was healed than destroyed.
        reward = abs(dealt) if rules.world[0].smac else dealt
        reward -= weights[1] * battle.lost[side] / max(battle.vitality[side], 1.0)
        if battle.outcome != RUNNING:
            won = battle.outcome == (WIN_0 if side == 0 else WIN_1)
            reward += weights[2] if won else -weights[3]
        reward += weights[5] * (battle.points if side == 0 else -battle.points)
        rewards[b, side] = reward
        state.returns[b, side] += reward
    for side in range(2):
        # Here, not before the next step's loops: a stimpack costs health when it is ordered.
        battle.killed[side] = 0
        battle.lost[side] = 0.0


@compiled
def _start_next(
    rules: Rules, state: State, bins: Bins, b: int, seeds: NDArray[np.uint64], players: NDArray[np.int64]
) -> None:
    """Start the battle that follows the one that ended: its seed is a mix of the ended one's."""
    z = seeds[b] + np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(32))) * np.uint64(0xDABA0B6EB09322E3)
    z = (z ^ (z >> np.uint64(32))) * np.uint64(0xDABA0B6EB09322E3)
    seeds[b] = z ^ (z >> np.uint64(32))
    _start(rules, state, bins, b, seeds, players)


@compiled
def _start(
    rules: Rules, state: State, bins: Bins, b: int, seeds: NDArray[np.uint64], players: NDArray[np.int64]
) -> None:
    reset_battle(rules, state.battles[b], state.units[b], bins, seeds[b], players)
    state.returns[b, :] = 0.0


@compiled
def reset_battles(
    rules: Rules,
    state: State,
    seeds: NDArray[np.uint64],
    players: NDArray[np.int64],
    bins: Bins,
    lo: int,
    hi: int,
) -> None:
    """Start battles ``lo`` to ``hi`` from their seeds."""
    for b in range(lo, hi):
        _start(rules, state, bins, b, seeds, players)


@compiled
def restart_battles(
    rules: Rules,
    state: State,
    battles: NDArray[np.bool_],
    seeds: NDArray[np.uint64],
    players: NDArray[np.int64],
    bins: Bins,
    lo: int,
    hi: int,
) -> None:
    """Start the marked ones of battles ``lo`` to ``hi`` from the seeds that auto-reset would give them."""
    for b in range(lo, hi):
        if battles[b]:
            _start_next(rules, state, bins, b, seeds, players)


@compiled
def look_battles(rules: Rules, state: State, lo: int, hi: int) -> None:
    """Renew what each side sees in battles ``lo`` to ``hi``, whatever has been changed by hand."""
    for b in range(lo, hi):
        state.battles[b].any_crowded = True
        wake(state.units[b])
        look(rules, state.units[b])
