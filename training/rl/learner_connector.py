"""From rollouts to train batches: the learner's side of :mod:`training.rl.rollout`.

Advantages belong to the team: all units share its reward, so all share its advantage, each with a ratio of
its own.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from perceiver_policy.rl_module import PerceiverRLModule
from training.rl.advantages import explained_variance, generalized_advantages, standardize
from training.rl.rollout import MODULE_ID, RolloutPack

EXPLAINED_VARIANCE = "explained_variance"
"""Metric: how well the values foresaw the returns of the whole batch (RLlib's own sees one minibatch)."""


class PacksToTrainBatch(ConnectorV2):
    """Turns :class:`RolloutPack` objects into the flat batch that RLlib's PPO loss reads. It is the whole
    pipeline: RLlib's default connectors must be off (``add_default_connectors_to_learner_pipeline=False``).

    A row is one observer at one step. Rows come in random order: RLlib shuffles after an epoch, not before
    the first. With A units an observer, and a ratio for each of them:

    ==================  ==========  ===================================================================
    column              shape       content
    ==================  ==========  ===================================================================
    OBS                 (N, ...)    the observations
    ACTIONS             (N, A, 2)   orders
    ACTION_LOGP         (N, A)      their log-probabilities when sampled
    ACTION_DIST_INPUTS  (N, A, ·)   the logits then, if the loss has a KL term; else empty
    ADVANTAGES          (N, A)      of the team, standardised over living units
    VALUE_TARGETS       (N, A)      λ-returns of the team
    LOSS_MASK           (N, A)      True for living units: the others teach nothing
    ==================  ==========  ===================================================================

    With one ratio for all the orders of an observer the A goes: everything but OBS, ACTIONS and
    ACTION_DIST_INPUTS is (N,).

    Args:
        gamma: discount of a step.
        lambda_: of generalised advantage estimation.
    """

    def __init__(
        self,
        input_observation_space: gym.Space | None = None,
        input_action_space: gym.Space | None = None,
        *,
        gamma: float,
        lambda_: float,
    ) -> None:
        super().__init__(input_observation_space, input_action_space)
        self.gamma = gamma
        self.lambda_ = lambda_

    def __call__(
        self,
        *,
        rl_module: MultiRLModule,
        batch: dict[str, Any],
        episodes: list[RolloutPack],
        metrics: MetricsLogger | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The batch under the module's id; ``batch`` comes in empty."""
        module = rl_module[MODULE_ID].unwrapped()
        values = [team_values(module, pack) for pack in episodes]
        advantages = [
            generalized_advantages(pack.rewards, v, pack.dones, gamma=self.gamma, lambda_=self.lambda_)
            for pack, v in zip(episodes, values, strict=True)
        ]
        targets = [a + v[:-1] for a, v in zip(advantages, values, strict=True)]
        if metrics is not None:
            seen = np.concatenate([v[:-1].ravel() for v in values])
            fit = explained_variance(np.concatenate([t.ravel() for t in targets]), seen)
            metrics.log_value((MODULE_ID, EXPLAINED_VARIANCE), fit, window=1)
        parts = [
            _columns(*part, per_unit=module.per_unit_ratio)
            for part in zip(episodes, advantages, targets, strict=True)
        ]
        columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        mask = columns[Columns.LOSS_MASK]
        columns[Postprocessing.ADVANTAGES] = standardize(columns[Postprocessing.ADVANTAGES], mask)
        observations = {
            key: np.concatenate([pack.rows(key, slice(-1)) for pack in episodes])
            for key in episodes[0].observations
        }
        device, order = next(module.parameters()).device, torch.randperm(len(mask))

        def tensor(array: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(array)[order].to(device)

        batch[MODULE_ID] = {
            Columns.OBS: {key: tensor(array) for key, array in observations.items()},
            **{key: tensor(array) for key, array in columns.items()},
        }
        return batch


def team_values(module: PerceiverRLModule, pack: RolloutPack) -> NDArray[np.float32]:
    """Values (T + 1, B) of the battles: as noted in sampling, and the module's of the last observations.

    Where units observe for themselves, all of them estimate the same team's return, so a battle's value is
    the mean over its living units, and the return goes on behind a unit's death.
    """
    device = next(module.parameters()).device
    # Copies: the arrays of packs that come from other processes are read-only, which tensors cannot be.
    last = {key: torch.tensor(pack.rows(key, slice(-1, None)), device=device) for key in pack.observations}
    with torch.no_grad():
        last_values = module.compute_values({Columns.OBS: last}).cpu().numpy()
    num_steps, num_battles = pack.rewards.shape
    values = np.concatenate([pack.values, last_values[None]]).reshape(num_steps + 1, num_battles, -1)
    living = pack.observations["controlled_mask"].any(-1).reshape(values.shape)
    return (values * living).sum(-1) / np.maximum(living.sum(-1), 1, dtype=np.float32)


def _columns(
    pack: RolloutPack, advantages: NDArray[np.float32], targets: NDArray[np.float32], *, per_unit: bool
) -> dict[str, NDArray[Any]]:
    """All columns but the observations; every observer and unit gets the advantages and targets (T, B)."""
    living = pack.rows("controlled_mask", slice(-1))  # (N, A)
    mask = living if per_unit else np.any(living, axis=-1)

    def hand_out(of_battles: NDArray[np.float32]) -> NDArray[np.float32]:
        of_observers = np.repeat(of_battles.ravel(), len(living) // of_battles.size)
        return np.broadcast_to(of_observers[:, None], living.shape) if per_unit else of_observers

    dist_inputs = np.empty((*living.shape, 0), np.float32) if pack.dist_inputs is None else pack.dist_inputs
    return {
        Columns.ACTIONS: pack.orders.reshape(*living.shape, 2),
        Columns.ACTION_LOGP: pack.log_probs.reshape(mask.shape),
        Columns.ACTION_DIST_INPUTS: dist_inputs.reshape(*living.shape, dist_inputs.shape[-1]),
        Postprocessing.ADVANTAGES: hand_out(advantages),
        Postprocessing.VALUE_TARGETS: hand_out(targets),
        Columns.LOSS_MASK: mask,
    }
