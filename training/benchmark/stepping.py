"""Our side of the engine's contest: random legal orders in many battles at once.

Run as a program it serves :mod:`training.benchmark.contest`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numpy.typing import NDArray

from envs.battle.batch import BattleBatch
from envs.unit_set import FIRST_TARGET_VERB
from training.benchmark.contest import Setting, Way, serve

_STEPS = 16
_WARM_UP = 4
"""Pieces of work before the clock starts: battles are at all stages then, not all at their start."""


def prepare(setting: Setting, num_cores: int) -> Callable[[], int]:
    """What steps the battles of ``setting`` on ``num_cores`` cores; returns how many steps it did."""
    if setting.way is Way.TOGETHER:
        work = stepping(setting.scenario, num_cores * setting.battles, num_threads=num_cores)
    else:
        work = _side_by_side(
            [stepping(setting.scenario, setting.battles, seed=i + 1) for i in range(num_cores)]
        )
    for _ in range(_WARM_UP):
        work()
    return work


def stepping(scenario: str, num_battles: int, *, num_threads: int = 1, seed: int = 1) -> Callable[[], int]:
    """What gives random legal orders and steps, some times over; returns how many environment steps it did.

    Args:
        scenario: what to play, against the built-in enemy.
        num_battles: B.
        num_threads: threads the battles are spread over.
        seed: of battles and orders, not 0.
    """
    batch = BattleBatch(scenario, num_battles, num_threads=num_threads, seed=seed)
    observation = batch.observations[0]
    assert observation is not None
    orders = np.zeros((num_battles, batch.team_sizes[0], 2), np.int64)
    random = np.array([seed], np.uint64)

    def work() -> int:
        for _ in range(_STEPS):
            draw_orders(observation["verb_mask"], observation["target_mask"], random, orders)
            batch.step(orders)
        return _STEPS * num_battles

    return work


def _side_by_side(works: list[Callable[[], int]]) -> Callable[[], int]:
    """All of them at once, each in a thread. The engine holds no interpreter lock while it computes."""
    pool = ThreadPoolExecutor(len(works))
    return lambda: sum(pool.map(lambda work: work(), works))


@numba.njit(cache=True, nogil=True)
def draw_orders(
    verb_mask: NDArray[np.bool_],
    target_mask: NDArray[np.bool_],
    random: NDArray[np.uint64],
    orders: NDArray[np.int64],
) -> None:
    """Fill ``orders`` (B, A, 2) with random legal ones, cheaply, so that the engine is what is measured.

    Args:
        verb_mask: (B, A, V).
        target_mask: (B, A, V_t, U).
        random: (1,) state of the generator, not 0; advanced in place.
        orders: output.
    """
    for b in range(orders.shape[0]):
        for a in range(orders.shape[1]):
            verb = _draw(verb_mask[b, a], random)
            target = 0
            if verb >= FIRST_TARGET_VERB:
                target = _draw(target_mask[b, a, verb - FIRST_TARGET_VERB], random)
            orders[b, a, 0] = verb
            orders[b, a, 1] = target


@numba.njit(cache=True, nogil=True)
def _draw(allowed: NDArray[np.bool_], random: NDArray[np.uint64]) -> int:
    """An index at which ``allowed`` is True, each equally likely: of k seen so far, the k-th replaces the
    one chosen with probability 1/k. The generator is xorshift64 (Marsaglia 2003)."""
    chosen, seen = 0, 0
    state = random[0]
    for i in range(allowed.shape[0]):
        if allowed[i]:
            seen += 1
            state ^= state << np.uint64(13)
            state ^= state >> np.uint64(7)
            state ^= state << np.uint64(17)
            if (state >> np.uint64(33)) % np.uint64(seen) == 0:
                chosen = i
    random[0] = state
    return chosen


if __name__ == "__main__":
    serve(prepare)
