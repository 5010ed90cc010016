"""Prioritised fictitious self-play: opponents drawn by how well a player does against each.

Vinyals et al. 2019, "Grandmaster level in StarCraft II using multi-agent reinforcement learning", Nature 575,
Methods, "Prioritized fictitious self-play": an opponent B from a set C is drawn with probability

    f(P[A beats B]) / Σ over C of f(P[A beats C])
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Weighting(StrEnum):
    """f, of the probability p of winning."""

    HARD = "hard"
    """(1 − p)^x: those that are hardest to beat; none that is always beaten."""
    VARIANCE = "variance"
    """p (1 − p): those of one's own strength."""
    EVEN = "even"
    """1: everybody, which is fictitious self-play."""


def pfsp(
    win_rates: ArrayLike, weighting: Weighting | str = Weighting.HARD, exponent: float = 2.0
) -> NDArray[np.float64]:
    """Probabilities (n,) of opponents from the win rates (n,) against them.

    Where every weight is 0 (everybody is always beaten), all are drawn alike.

    Args:
        win_rates: 0 to 1.
        weighting: f.
        exponent: x of ``hard``.

    Raises:
        ValueError: a win rate is out of range, the exponent is not above 0, or there is no such weighting.
    """
    p = np.asarray(win_rates, np.float64)
    if p.ndim != 1 or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"win rates are {win_rates!r}; one or more from 0 to 1 are needed")
    if exponent <= 0:
        raise ValueError(f"the exponent of hard is {exponent}; it must be above 0")
    match Weighting(weighting):
        case Weighting.HARD:
            weights = (1 - p) ** exponent
        case Weighting.VARIANCE:
            weights = p * (1 - p)
        case Weighting.EVEN:
            weights = np.ones_like(p)
    total = weights.sum()
    return weights / total if total > 0 else np.full_like(p, 1 / len(p))
