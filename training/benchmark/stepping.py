"""Our side of the engine's contest: random legal orders in many battles at once.

Run as a program it serves :mod:`training.benchmark.contest`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from envs.battle.batch import BattleBatch
from envs.battle.random_play import draw_orders
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
    random = np.random.SeedSequence(seed).generate_state(num_battles, np.uint64) | np.uint64(1)

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


if __name__ == "__main__":
    serve(prepare)
