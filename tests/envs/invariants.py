"""What must hold of every battle after every step, checked fast; and random play under that check."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from envs.battle.batch import BattleBatch
from envs.battle.random_play import draw_orders
from envs.battle.records import Records
from envs.battle.rules import Rules
from envs.unit_set import FIRST_TARGET_VERB, NUM_VERBS, Verb, validate_observation

RULES = (
    "",
    "is not finite",
    "is out of bounds",
    "is in a wall",
    "has health that its type cannot have",
    "has shields that its type cannot have",
    "has energy that its type cannot have",
    "is alive without health, or dead with some",
    "has come back to life",
    "aims at nobody who can be aimed at",
    "is counted wrongly",
)


@numba.njit(nogil=True)
def first_broken(
    rules: Rules,
    units: Records,
    battles: Records,
    seeds: NDArray[np.uint64],
    alive: NDArray[np.bool_],
    waves: NDArray[np.int64],
    started: NDArray[np.uint64],
) -> tuple[int, int, int]:
    """The first broken rule (index of RULES, or 0) with its battle and unit.

    Args:
        alive: (B, N) who was alive at the last check; renewed.
        waves: (B,) waves at the last check; renewed.
        started: (B,) seeds at the last check; renewed.
    """
    world = rules.world[0]
    slack = 1e-9
    for b in range(units.shape[0]):
        same = seeds[b] == started[b] and battles[b].waves == waves[b]
        fighters = 0
        for i in range(units.shape[1]):
            me = units[b, i]
            kind = rules.types[me.type]
            total = me.x + me.y + me.health + me.shield + me.energy + me.cooldown + me.facing_x + me.facing_y
            if not np.isfinite(total + me.goal_x + me.goal_y + me.busy_until + me.windup):
                return 1, b, i
            r = kind.clearance - slack
            inside = world.x0 + r <= me.x <= world.x1 - r and world.y0 + r <= me.y <= world.y1 - r
            if me.alive and not inside:
                return 2, b, i
            if me.alive and world.terrain and kind.plane == 0 and rules.paths.cell[int(me.y), int(me.x)] < 0:
                return 3, b, i
            if not 0.0 <= me.health <= kind.health:
                return 4, b, i
            if not 0.0 <= me.shield <= kind.shield:
                return 5, b, i
            if not 0.0 <= me.energy <= kind.energy:
                return 6, b, i
            if me.alive != (me.health > 0.0):
                return 7, b, i
            if me.alive and same and not alive[b, i]:
                return 8, b, i
            if me.alive and me.engaged >= 0:
                pair = rules.pairs[me.type, units[b, me.engaged].type]
                side = units[b, me.engaged].side
                if not (pair.can_attack if side == 1 - me.side else side == me.side and pair.can_heal):
                    return 9, b, i
            if me.alive and me.side < 2 and kind.armed:
                fighters += 1
            alive[b, i] = me.alive
        if fighters != battles[b].fighters[0] + battles[b].fighters[1]:
            return 10, b, 0
        waves[b] = battles[b].waves
        started[b] = seeds[b]
    return 0, 0, 0


@numba.njit(nogil=True)
def all_finite(values: NDArray[np.float32]) -> bool:
    """Whether no value is NaN or infinite."""
    total = np.float32(0.0)
    for value in values.ravel():
        total += value * np.float32(0.0)
    return total == 0.0


def play_checked(batch: BattleBatch, steps: int, seed: int = 1) -> None:
    """Random legal orders for every side that takes some; every rule is checked after every step.

    Every eighth step one battle's observations are checked against the whole contract, all for being finite,
    and an illegal order must be refused and change nothing.

    Raises:
        AssertionError: naming the rule, scenario, battle, its seed, unit and step.
    """
    size = batch.num_battles
    # What xorshift draws from small states is not random at first.
    streams = np.random.SeedSequence(seed).generate_state(size, np.uint64) | np.uint64(1)
    orders = [
        np.zeros((size, team, 2), np.int64) if player is None else None
        for player, team in zip(batch.builtin, batch.team_sizes, strict=True)
    ]
    state = batch.state
    alive = state.units["alive"].copy()
    waves = state.battles["waves"].astype(np.int64)
    started = batch.seeds.copy()
    for step in range(steps):
        for side, given in enumerate(orders):
            if given is not None:
                masks = batch.masks(side)
                draw_orders(masks["verb_mask"], masks["target_mask"], streams, given)
        result = batch.step(*orders)
        rule, b, i = first_broken(batch.rules, state.units, state.battles, batch.seeds, alive, waves, started)
        where = f"{batch.scenario.name}, step {step}, battle {b} (seed {batch.seeds[b]}), unit {i}"
        assert rule == 0, f"{where} {RULES[rule]}: {state.units[b, i]}"
        assert np.isfinite(result.rewards).all(), batch.scenario.name
        if step % 8 == 0:
            _check_observations(batch, step)
            _check_refusal(batch, orders, step)


def _check_observations(batch: BattleBatch, step: int) -> None:
    for side, observation in enumerate(batch.observations):
        if observation is not None:
            assert all_finite(observation["units"])
            assert all_finite(observation["scalars"])
            b = step // 8 % batch.num_battles
            who = (b,) if observation["units"].ndim == 3 else (b, step // 8 % batch.team_sizes[side])
            validate_observation(
                {key: value[who] for key, value in observation.items()}, batch.observation_space(side)
            )


def _check_refusal(batch: BattleBatch, orders: list[NDArray[np.int64] | None], step: int) -> None:
    """Turn one unit's order into one that its masks forbid, if there is one; the step must refuse it."""
    sides = [side for side, given in enumerate(orders) if given is not None]
    side = sides[step // 8 % len(sides)]
    masks, given = batch.masks(side), orders[side]
    assert given is not None
    for other in sides:
        orders[other][:] = 0  # type: ignore[index]
        orders[other][..., 0] = batch.masks(other)["verb_mask"].argmax(-1)  # type: ignore[index]
    b, a = step % batch.num_battles, step % given.shape[1]
    attack = int(Verb.ATTACK) - FIRST_TARGET_VERB
    wrong = [(verb, 0) for verb in np.flatnonzero(~masks["verb_mask"][b, a])] + [(-1, 0), (NUM_VERBS, 0)]
    if masks["verb_mask"][b, a, Verb.ATTACK]:
        wrong += [(Verb.ATTACK, row) for row in np.flatnonzero(~masks["target_mask"][b, a, attack])]
        wrong += [(Verb.ATTACK, -1), (Verb.ATTACK, batch.num_units)]
    given[b, a] = wrong[step // 8 % len(wrong)]
    before = batch.state.units[b].copy()
    try:
        batch.step(*orders)
    except ValueError:
        assert np.array_equal(before, batch.state.units[b])
        return
    raise AssertionError(f"{batch.scenario.name}: an illegal order was accepted: {given[b, a]}")
