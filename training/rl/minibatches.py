"""Minibatches of whole sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor

from training.rl import across_learners


class SequenceMinibatches:
    """Goes through a batch several times, each time in another random order, in minibatches of nearly equal
    size.

    The rows of the batch are sequences of equal length, one after the other, and no minibatch cuts one.
    States (``Columns.STATE_IN``) are one for each sequence, all else is one for each row.

    Args:
        batch: of one module; see :class:`~training.rl.learner_connector.PacksToTrainBatch`.
        module_id: that module.
        env_steps: what the batch holds.
        sequence_length: rows of a sequence.
        minibatch_size: environment steps of a minibatch, about; None: all.
        num_epochs: how often to go through the batch.
    """

    def __init__(
        self,
        batch: Mapping[str, Any],
        *,
        module_id: str,
        env_steps: int,
        sequence_length: int,
        minibatch_size: int | None,
        num_epochs: int,
    ) -> None:
        self._batch = batch
        self._module_id = module_id
        self._env_steps = env_steps
        self._length = sequence_length
        self._num_epochs = num_epochs
        device = batch[Columns.ACTIONS].device
        self._num_sequences = len(batch[Columns.ACTIONS]) // sequence_length
        # As many on every learner, since each step of the optimizer waits for all of them.
        steps = (
            across_learners.total(np.array(env_steps, np.float64), device) / across_learners.num_learners()
        )
        wanted = round(float(steps) / minibatch_size) if minibatch_size else 1
        self.num_minibatches = min(max(wanted, 1), self._num_sequences)

    def __iter__(self) -> Iterator[MultiAgentBatch]:
        for _ in range(self._num_epochs):
            order = torch.randperm(self._num_sequences)
            for chosen in order.tensor_split(self.num_minibatches):
                steps = round(self._env_steps * len(chosen) / self._num_sequences)
                yield MultiAgentBatch({self._module_id: SampleBatch(self._take(chosen))}, steps)

    def _take(self, chosen: Tensor) -> dict[str, Any]:
        """The columns of some sequences."""
        device = self._batch[Columns.ACTIONS].device
        sequences = chosen.to(device)
        steps = torch.arange(self._length, device=device)
        rows = (sequences[:, None] * self._length + steps).flatten()

        def take(column: Any, index: Tensor) -> Any:
            if isinstance(column, Mapping):
                return {key: take(value, index) for key, value in column.items()}
            return column[index]

        return {
            key: take(column, sequences if key == Columns.STATE_IN else rows)
            for key, column in self._batch.items()
        }
