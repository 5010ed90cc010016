"""How a policy has lately fared on each scenario of a mixture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ray.rllib.utils.metrics import NUM_EPISODES

from training.rl.rollout import LENGTH_SUM, NUM_WINS, RETURN_SUM

HALF_LIFE = 100
"""Battles after which an older one counts half."""


@dataclass(frozen=True)
class Tally:
    """Sums over the battles of a scenario that have ended, older ones counting less. NaN is the mean of
    none."""

    battles: float = 0.0
    wins: float = 0.0
    returns: float = 0.0
    lengths: float = 0.0

    @property
    def win_rate(self) -> float:
        """Won of those that ended."""
        return self.wins / self.battles if self.battles else math.nan

    @property
    def episode_return(self) -> float:
        """Their mean sum of rewards."""
        return self.returns / self.battles if self.battles else math.nan

    @property
    def episode_length(self) -> float:
        """Their mean number of steps."""
        return self.lengths / self.battles if self.battles else math.nan

    def after(self, sums: Mapping[str, float], half_life: float = HALF_LIFE) -> Tally:
        """With the battles that ended in an iteration, as the runners have logged them."""
        kept = 0.5 ** (sums[NUM_EPISODES] / half_life)
        return Tally(
            kept * self.battles + sums[NUM_EPISODES],
            kept * self.wins + sums[NUM_WINS],
            kept * self.returns + sums[RETURN_SUM],
            kept * self.lengths + sums[LENGTH_SUM],
        )
