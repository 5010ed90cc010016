"""An update on battles of several sizes: the network runs once for each size, the gradient is of all of
them."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.policy.sample_batch import SampleBatch

from training.rl import across_learners
from training.rl.rollout import MODULE_ID
from training.rl.seats import BattleSetup
from training.rl.sizes import SIZE, by_size


class LearnsBySize(TorchLearner):
    """Makes any of RLlib's torch learners take minibatches whose rows differ in size
    (``training/rl/sizes.py``).

    A minibatch is a random part of the whole batch, as ever. It is taken apart by size, forward pass and loss
    are each part's own, and what is minimised is Σ wₖ Lₖ, the losses weighted with the parts' shares of the
    battles' steps; then follows one backward pass and one step. A loss is a mean over the units of its part,
    so that a step of a battle counts the same whatever the number of units. A minibatch of one size is
    RLlib's own update.

    Attributes:
        part_weight: wₖ of the part whose loss is being computed; None: of a whole minibatch.
    """

    part_weight: float | None = None

    def _uncompiled_update(self, batch: dict[str, Any], **kwargs: Any) -> tuple[Any, Any, Any]:
        """One update; RLlib calls it for each minibatch."""
        if SIZE not in batch.get(MODULE_ID, ()):
            return super()._uncompiled_update(batch, **kwargs)
        self._compute_off_policyness(batch)
        parts_of = functools.partial(
            by_size,
            per_unit=self.module[MODULE_ID].unwrapped().per_unit_ratio,
            total=lambda sums: across_learners.total(sums, self._device),
        )
        sizes = BattleSetup(**self.config.env_config).sizes
        losses: dict[str, Any] = {}
        for self.part_weight, part in parts_of(batch[MODULE_ID], sizes):
            parts = {MODULE_ID: SampleBatch(part)}
            output = self.module.forward_train(parts)
            for module_id, loss in self.compute_losses(fwd_out=output, batch=parts).items():
                losses[module_id] = losses.get(module_id, 0.0) + self.part_weight * loss
        self.part_weight = None
        gradients = self.compute_gradients(losses)
        with contextlib.ExitStack() as stack:
            if self.config.num_learners > 1:
                for module in self.module.values():
                    stack.enter_context(module.no_sync())
            self.apply_gradients(self.postprocess_gradients(gradients))
        return output, losses, {}
