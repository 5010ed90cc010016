"""What tests of the engine read from a battle, and random legal orders drawn fast."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from envs.battle.batch import BattleBatch
from envs.unit_set import FIRST_TARGET_VERB, Verb
from envs.units import unit_table

STAND = (Verb.NO_OP, 0)


def unit(batch: BattleBatch, i: int, field: str, b: int = 0):
    """A field of unit ``i`` of battle ``b``."""
    return batch.state.units[field][b, i]


def vitality(batch: BattleBatch, b: int = 0) -> list[float]:
    """Health and shield together, by unit."""
    return (batch.state.units["health"] + batch.state.units["shield"])[b].tolist()


def type_name(batch: BattleBatch, i: int, b: int = 0) -> str:
    """The name of the unit's type."""
    return batch.scenario.unit_types[unit(batch, i, "type", b)].name


def gap(batch: BattleBatch, i: int, j: int, b: int = 0) -> float:
    """Edge-to-edge distance, map cells."""
    units = batch.state.units[b]
    centre = np.hypot(units["x"][i] - units["x"][j], units["y"][i] - units["y"][j])
    return centre - sum(unit_table()[type_name(batch, k, b)].radius for k in (i, j))


@numba.njit
def draw_orders(
    verb_mask: NDArray[np.bool_],
    target_mask: NDArray[np.bool_],
    random: NDArray[np.uint64],
    orders: NDArray[np.int64],
) -> None:
    """Fill ``orders`` (B, n, 2) with random legal ones, battle by battle from its own stream.

    Args:
        verb_mask: (B, n, V).
        target_mask: (B, n, V_t, U).
        random: (B,) states of xorshift64 generators (Marsaglia 2003), none 0; advanced in place.
        orders: output.
    """
    for b in range(orders.shape[0]):
        for a in range(orders.shape[1]):
            verb = _draw(verb_mask[b, a], random, b)
            orders[b, a, 0] = verb
            orders[b, a, 1] = 0
            if verb >= FIRST_TARGET_VERB:
                orders[b, a, 1] = _draw(target_mask[b, a, verb - FIRST_TARGET_VERB], random, b)


@numba.njit
def _draw(allowed: NDArray[np.bool_], random: NDArray[np.uint64], b: int) -> int:
    """An index at which ``allowed`` is True: of k seen so far, the k-th is taken with probability 1/k."""
    chosen, seen = -1, 0
    state = random[b]
    for i in range(allowed.shape[0]):
        if allowed[i]:
            seen += 1
            state ^= state << np.uint64(13)
            state ^= state >> np.uint64(7)
            state ^= state << np.uint64(17)
            if (state >> np.uint64(33)) % np.uint64(seen) == 0:
                chosen = i
    random[b] = state
    return chosen
