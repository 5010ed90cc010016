"""How fast the battle engine is: one process, one core.

An environment step runs 8 game loops of one battle with its enemy, scores it, starts it afresh if it is over
and fills the observations and masks. Orders are uniformly random legal ones; drawing them counts, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray

from envs.battle.batch import BattleBatch
from envs.unit_set import FIRST_TARGET_VERB
from training.benchmark.rows import Row, rates, row

SCENARIOS = ("3m", "8m", "2s3z", "27m_vs_30m")
BATCH_SIZES = (32, 128, 512)
_STEPS = 16
_FIRST_CALL = """
import time
began = time.perf_counter()
from envs.battle.batch import BattleBatch
batch = BattleBatch("3m", 1)
batch.step(batch.observations[0]["controlled"][..., None] * [0, 0])
print(time.perf_counter() - began)
"""


def measure(command: str) -> list[Row]:
    """Environment steps a second by scenario, with the best batch size, and how long the first step takes."""
    return [*(_steps_per_second(scenario, command) for scenario in SCENARIOS), *_first_call(command)]


def _steps_per_second(scenario: str, command: str) -> Row:
    measured = {size: rates(_stepping(scenario, size), seconds=0.3) for size in BATCH_SIZES}
    best = max(measured, key=lambda size: float(np.median(measured[size])))
    return row(f"engine/{scenario}/batch_{best}", "env steps/s", measured[best], command)


def _stepping(scenario: str, num_battles: int) -> Callable[[], int]:
    batch = BattleBatch(scenario, num_battles)
    observation = batch.observations[0]
    assert observation is not None
    orders = np.zeros((num_battles, batch.team_sizes[0], 2), np.int64)
    random = np.array([1], np.uint64)

    def work() -> int:
        for _ in range(_STEPS):
            draw_orders(observation["verb_mask"], observation["target_mask"], random, orders)
            batch.step(orders)
        return _STEPS * num_battles

    return work


@numba.njit(cache=True)
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


@numba.njit(cache=True)
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


def _first_call(command: str) -> list[Row]:
    """Seconds from importing the engine to the end of its first step: with nothing compiled, and cached."""
    with tempfile.TemporaryDirectory() as cache:
        seconds = [_first_step(cache) for _ in range(2)]
    return [
        Row("engine/first step, nothing compiled", "s", seconds[0], 0.0, command),
        Row("engine/first step, cached", "s", seconds[1], 0.0, command),
    ]


def _first_step(cache: str) -> float:
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    process = subprocess.run(
        [sys.executable, "-c", _FIRST_CALL], env=environment, capture_output=True, text=True, check=True
    )
    return float(process.stdout)
