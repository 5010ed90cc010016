"""What a rollout of many battles of one size is: arrays, which RLlib passes on as if they were an episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.rl.sizes import BattleSize

Steps: TypeAlias = slice
"""From and to which step."""


@dataclass(frozen=True)
class RolloutPack:
    """T steps of B battles of one size.

    O observers a battle command A units each: one commands all (team control), or each unit itself (A = 1).
    """

    observations: dict[str, NDArray]
    """Before each step and after the last: (T + 1, B, ...), or (T + 1, B, O, ...) where units see for
    themselves. They share their battle's state, ``state_*``, which is (T + 1, B, 1, ...) then."""
    orders: NDArray[np.int64]  # (T, B * O, A, 2)
    log_probs: NDArray[np.float32]  # (T, B * O, A), or (T, B * O) without per-unit ratio
    dist_inputs: NDArray[np.float32] | None  # (T, B * O, A, V + U), only if the loss has a KL term
    values: NDArray[np.float32]  # (T, B * O) of the observations before each step, by the sampling weights
    rewards: NDArray[np.float32]  # (T, B) of the team
    dones: NDArray[np.bool_]  # (T, B) True where the step ended a battle; the next observation is a new one's
    scenarios: NDArray[np.int64]  # (B,) which of the mixture each battle is of
    states: NDArray[np.float32] | None = None
    """Of a policy with memory (2, B * O, N, D), before the first step and after the last; 0 where a battle
    begins."""

    def __len__(self) -> int:
        """Environment steps, T * B."""
        return self.rewards.size

    @property
    def num_observers(self) -> int:
        """O."""
        return self.values.shape[1] // self.rewards.shape[1]

    @property
    def size(self) -> BattleSize:
        """Of the battles."""
        return BattleSize.of({key: array[0] for key, array in self.observations.items()})

    @property
    def begins(self) -> NDArray[np.bool_]:
        """(T + 1, B) True where the step before ended a battle, so that the observation is a new one's."""
        return np.concatenate([np.zeros_like(self.dones[:1]), self.dones])

    def rows(self, key: str, steps: Steps) -> NDArray[Any]:
        """Observations of some of the T + 1 steps as rows: (steps * B * O, ...), a view, if not of a state
        that observers share."""
        array = self._of_observers(key)[steps]
        return array.reshape(-1, *array.shape[self._leading :])

    def sequences(self, key: str, steps: Steps) -> NDArray[Any]:
        """As :meth:`rows`, in another order, and copied: all the steps of an observer follow each other."""
        array = self._of_observers(key)[steps]
        per_step = array.reshape(len(array), self.values.shape[1], -1)
        return np.swapaxes(per_step, 0, 1).reshape(-1, *array.shape[self._leading :])

    def _of_observers(self, key: str) -> NDArray[Any]:
        """Observations, a view, in which each observer has what it shares with others."""
        array = self.observations[key]
        if self._leading == 2 or array.shape[2] == self.num_observers:
            return array
        return np.broadcast_to(array, (*array.shape[:2], self.num_observers, *array.shape[3:]))

    @property
    def _leading(self) -> int:
        """Dimensions of an observation before its own: steps, battles, and observers if there are several."""
        return self.observations["controlled_mask"].ndim - 1

    def __getitem__(self, steps: Steps) -> RolloutPack:
        """See :meth:`slice`, which RLlib calls in this way, too."""
        return self.slice(steps)

    def slice(self, steps: Steps, len_lookback_buffer: int | None = None) -> RolloutPack:
        """Whole battles, T steps each, as a pack of views: how RLlib shares packs among learners.

        Args:
            steps: from and to which environment step, both multiples of T.
            len_lookback_buffer: of no use here.

        Raises:
            ValueError: a battle would be cut.
        """
        num_steps, num_battles = self.rewards.shape
        start, stop, stride = steps.indices(len(self))
        if start % num_steps or stop % num_steps or stride != 1:
            raise ValueError(
                f"steps {start} to {stop} of {num_battles} battles of {num_steps} steps would cut a battle: "
                "learners must have equal shares, so give a number of battles that they divide"
            )
        battles = slice(start // num_steps, stop // num_steps)
        rows = slice(battles.start * self.num_observers, battles.stop * self.num_observers)
        return RolloutPack(
            {key: array[:, battles] for key, array in self.observations.items()},
            orders=self.orders[:, rows],
            log_probs=self.log_probs[:, rows],
            dist_inputs=None if self.dist_inputs is None else self.dist_inputs[:, rows],
            values=self.values[:, rows],
            rewards=self.rewards[:, battles],
            dones=self.dones[:, battles],
            scenarios=self.scenarios[battles],
            states=None if self.states is None else self.states[:, rows],
        )
