"""Random legal orders drawn in compiled code: where what is measured or checked is the engine itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.battle.compiled import compiled
from envs.unit_set import FIRST_TARGET_VERB


@compiled
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


@compiled
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
