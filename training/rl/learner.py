"""RLlib's PPO learner, its loss untouched; around it the optimizer's settings, diagnostics and connectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from ray.rllib.utils.typing import EpisodeType, ParamDict
from torch import Tensor

from training.rl import across_learners
from training.rl.advantages import standardize
from training.rl.finite_gradients import FiniteGradients
from training.rl.learner_connector import PacksToTrainBatch
from training.rl.minibatches import SequenceMinibatches
from training.rl.rollout import MODULE_ID, BatchedEnvRunner
from training.rl.seats import BattleSetup
from training.rl.sized_update import LearnsBySize
from training.rl.value_normalisation import TrackReturns, normalized

APPROXIMATE_KL = "approximate_kl"
CLIP_FRACTION = "clip_fraction"


class OrderPPOLearner(FiniteGradients, LearnsBySize, PPOTorchLearner):
    """PPO for :class:`~perceiver_policy.rl_module.PerceiverRLModule`.

    The keys of ``learner_config_dict`` are those of ``torch.optim.Adam``. Several learners together take the
    step that one would take with all their data. Logs two diagnostics of the last minibatch of an update,
    over the entries of the loss mask, sizes weighted as in the loss: :data:`APPROXIMATE_KL`, the estimate
    E[(ρ − 1) − ln ρ] of KL(sampled ‖ current) (Schulman 2020, http://joschu.net/blog/kl-approx.html, k₃), and
    :data:`CLIP_FRACTION`, the share of ratios ρ beyond the clip range.

    It completes its own connector pipeline, as RLlib's PPO does: packs of :class:`BatchedEnvRunner` go
    through :class:`PacksToTrainBatch`, and are learned from in :class:`SequenceMinibatches`; episodes of the
    stock path go last through :class:`SpreadOverUnits`. :class:`TrackReturns` follows either.
    """

    def build(self) -> None:
        """As RLlib's, and the connector that the env runner's output needs."""
        super().build()
        self._last_minibatch: dict[str, list[tuple[float, dict[str, Any], Tensor]]] = {}
        runner = self.config.env_runner_cls
        self._batched = runner is not None and issubclass(runner, BatchedEnvRunner)
        if self._learner_connector is not None:
            self._learner_connector.append(self.make_connector())
            self._learner_connector.append(TrackReturns())

    def make_connector(self) -> ConnectorV2:
        """The last piece of the connector pipeline; for packs, the only one."""
        if self._batched:
            return PacksToTrainBatch(**self.connector_settings)
        return SpreadOverUnits()

    @property
    def connector_settings(self) -> dict[str, Any]:
        """Of :class:`PacksToTrainBatch`."""
        setup = BattleSetup(**self.config.env_config)
        return {
            "gamma": self.config.gamma,
            "lambda_": self.config.lambda_,
            "sizes": setup.sizes,
            "num_scenarios": len(setup.scenarios),
        }

    @property
    def sequence_length(self) -> int:
        """Rows of a train batch that belong together: 1, unless the policy has memory."""
        stateful = self.module[MODULE_ID].unwrapped().is_stateful()
        return self.config.get_rollout_fragment_length() if stateful else 1

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        """One Adam over all parameters."""
        config = config or self.config
        parameters = self.get_parameters(self.module[module_id])
        optimizer = torch.optim.Adam(parameters, **self.config.learner_config_dict)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=config.lr
        )

    def apply_gradients(self, gradients_dict: ParamDict) -> None:
        """Step the optimizers. The gradients are in place already, and finite."""
        for optimizer in self._named_optimizers.values():
            optimizer.step()

    def compute_loss_for_module(
        self, *, module_id: str, config: PPOConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """RLlib's loss, weighted so that the learners' average is the mean over all their entries, and of
        normalised values where the module says so."""
        module = self.module[module_id].unwrapped()
        if getattr(module, "normalize_values", False):
            batch, fwd_out = normalized(module.policy.critic, batch, fwd_out)
        part = self.part_weight or 1.0, batch, fwd_out[Columns.ACTION_DIST_INPUTS].detach()
        self._last_minibatch.setdefault(module_id, []).append(part)
        loss = super().compute_loss_for_module(
            module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
        )
        mask = batch.get(Columns.LOSS_MASK)
        if mask is None or self.part_weight is not None:
            return loss
        return loss * across_learners.weight_of_mean(mask)

    def _uncompiled_update(self, batch: dict[str, Any], **kwargs: Any) -> tuple[Any, Any, Any]:
        self._last_minibatch.clear()
        return super()._uncompiled_update(batch, **kwargs)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """RLlib's schedules, and the diagnostics."""
        super().after_gradient_based_update(timesteps=timesteps)
        for module_id, parts in self._last_minibatch.items():
            whole = sum(weight for weight, _, _ in parts)
            totals: dict[str, Tensor] = {}
            for weight, batch, logits in parts:
                for name, value in self._diagnostics(module_id, batch, logits).items():
                    totals[name] = totals.get(name, torch.zeros_like(value)) + weight / whole * value
            self.metrics.log_dict(totals, key=module_id, window=1)
        self._last_minibatch.clear()

    def _diagnostics(self, module_id: str, batch: dict[str, Any], logits: Tensor) -> dict[str, Tensor]:
        distribution = self.module[module_id].unwrapped().get_train_action_dist_cls().from_logits(logits)
        log_ratio = distribution.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]
        entropy = distribution.entropy()
        if Columns.LOSS_MASK in batch:
            log_ratio, entropy = (values[batch[Columns.LOSS_MASK]] for values in (log_ratio, entropy))
        ratio = log_ratio.exp()
        return {
            APPROXIMATE_KL: (ratio - 1 - log_ratio).mean(),
            CLIP_FRACTION: ((ratio - 1).abs() > self.config.clip_param).float().mean(),
            ENTROPY_KEY: entropy.mean(),
        }

    def _create_iterator_if_necessary(
        self,
        *,
        training_data: TrainingData,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        **kwargs: Any,
    ) -> Iterable[Any]:
        """Of packs, :class:`SequenceMinibatches`; of RLlib's episodes, its own minibatches."""
        if not self._batched:
            return super()._create_iterator_if_necessary(
                training_data=training_data, num_epochs=num_epochs, minibatch_size=minibatch_size, **kwargs
            )
        batch = self._make_batch_if_necessary(training_data=training_data)
        return SequenceMinibatches(
            batch[MODULE_ID],
            module_id=MODULE_ID,
            env_steps=batch.env_steps(),
            sequence_length=self.sequence_length,
            minibatch_size=minibatch_size,
            num_epochs=num_epochs,
        )


class SpreadOverUnits(ConnectorV2):
    """Hands what the loss reads of an agent (advantage, value target, mask, number of its weights) to each
    unit it commands, (N,) to (N, A), where the module forms a ratio for each unit. Units that are not alive
    leave the mask. Belongs behind RLlib's advantage estimation, which standardises over the rows that it adds
    and over the dead, too: here it is done again, over the mask alone, as in :class:`PacksToTrainBatch`.
    """

    def __init__(
        self, input_observation_space: gym.Space | None = None, input_action_space: gym.Space | None = None
    ) -> None:
        super().__init__(input_observation_space, input_action_space)

    def __call__(
        self, *, rl_module: MultiRLModule, batch: dict[str, Any], episodes: list[EpisodeType], **kwargs: Any
    ) -> dict[str, Any]:
        """The batch with the columns replaced."""
        for module_id, columns in batch.items():
            if getattr(rl_module[module_id].unwrapped(), "per_unit_ratio", False):
                living = columns[Columns.OBS]["controlled_mask"]
                for key in (Postprocessing.ADVANTAGES, Postprocessing.VALUE_TARGETS, WEIGHTS_SEQ_NO):
                    columns[key] = columns[key][:, None].expand(living.shape)
                mask = columns.get(Columns.LOSS_MASK)
                columns[Columns.LOSS_MASK] = living if mask is None else living & mask[:, None]
            if Columns.LOSS_MASK in columns:
                advantages, mask = columns[Postprocessing.ADVANTAGES], columns[Columns.LOSS_MASK]
                again = standardize(
                    advantages.cpu().numpy(),
                    mask.cpu().numpy(),
                    lambda sums: across_learners.total(sums, advantages.device),  # noqa: B023 (called at once)
                )
                columns[Postprocessing.ADVANTAGES] = torch.from_numpy(again).to(advantages.device)
        return batch
