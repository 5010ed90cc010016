"""Value normalisation: the critic learns returns brought to mean 0 and deviation 1 by running statistics.

PopArt (van Hasselt et al. 2016, arXiv:1602.07714). The statistics live in the critic
(:mod:`perceiver_policy.critics`), so that checkpoints, exports and runners have them; its values stay in the
units of the reward everywhere but in the loss. Here is what moves them, once for each train batch and before
its first minibatch, and what the loss reads.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.typing import EpisodeType
from torch import Tensor

from perceiver_policy.critics import ValueFunction
from training.rl import across_learners

STEP_SIZE = 0.1
"""β: weight of the newest batch in the long run."""
MIN_STD = 0.1
"""Smallest deviation, in units of the reward: returns that hardly vary are not blown up. MAPPO's own
implementation (Yu et al. 2022, arXiv:2103.01955) has the same bound, a variance of 0.01."""


class TrackReturns(ConnectorV2):
    """Brings the statistics of each module with ``normalize_values`` up to date with the value targets of a
    train batch, those that its loss mask holds. Belongs at the end of the learner's pipeline.

    With several learners each sees a part of the batch: they add up their sums, so that all of them, whose
    weights are equal, get equal statistics. Each must have a batch then, as their gradients ask of them, too.
    """

    def __init__(
        self, input_observation_space: gym.Space | None = None, input_action_space: gym.Space | None = None
    ) -> None:
        super().__init__(input_observation_space, input_action_space)

    def __call__(
        self, *, rl_module: MultiRLModule, batch: dict[str, Any], episodes: list[EpisodeType], **kwargs: Any
    ) -> dict[str, Any]:
        """The batch as it came; the modules' statistics have moved."""
        for module_id, columns in batch.items():
            module = rl_module[module_id].unwrapped()
            if getattr(module, "normalize_values", False):
                update_statistics(
                    module.policy.critic,
                    sums(columns[Postprocessing.VALUE_TARGETS], columns.get(Columns.LOSS_MASK)),
                )
        return batch


def sums(returns: Tensor, mask: Tensor | None = None) -> NDArray[np.float64]:
    """(3,): number, sum and sum of squares of the returns, over the entries in ``mask`` and, where several
    learners work together, over all of them."""
    chosen = (returns if mask is None else returns[mask]).double()
    own = [chosen.numel(), chosen.sum().item(), chosen.square().sum().item()]
    return across_learners.total(np.array(own, np.float64), returns.device)


def update_statistics(
    critic: ValueFunction, totals: NDArray[np.float64], *, step_size: float = STEP_SIZE
) -> None:
    """Move a critic's statistics towards those of a batch; its values stay as they were.

    μ ← (1 − βₜ) μ + βₜ E[G],  ν ← (1 − βₜ) ν + βₜ E[G²],  σ = √(ν − μ²) ≥ :data:`MIN_STD`
    βₜ = β / (1 − (1 − β)ᵗ)

    with t the number of the update. β₁ is 1, so nothing is left of the initial statistics.

    Args:
        critic: its statistics and last layer are changed in place.
        totals: what :func:`sums` returns. Without a single return, or with one that is not finite, nothing
            happens: the loss will show the latter.
        step_size: β.
    """
    number, total, total_of_squares = totals.tolist()
    if not number or not math.isfinite(total_of_squares):
        return
    mean, std = critic.mean.item(), critic.std.item()
    weight = step_size / (1 - (1 - step_size) ** (critic.num_updates.item() + 1))
    new_mean = mean + weight * (total / number - mean)
    square = std**2 + mean**2
    new_square = square + weight * (total_of_squares / number - square)
    variance = max(new_square - new_mean**2, MIN_STD**2)
    critic.rescale(critic.mean.new_tensor(new_mean), critic.std.new_tensor(variance**0.5))


def normalized(
    critic: ValueFunction, batch: dict[str, Any], forward_out: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A train batch and what ``forward_train`` made of it, as the loss reads them: value targets and values
    (the embeddings, which ``compute_values`` hands through) less μ, over σ. All else is shared."""
    targets, values = Postprocessing.VALUE_TARGETS, Columns.EMBEDDINGS
    return (
        {**batch, targets: critic.normalize(batch[targets])},
        {**forward_out, values: critic.normalize(forward_out[values])},
    )
