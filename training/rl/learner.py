"""RLlib's PPO learner, its loss untouched; around it the optimizer's settings, diagnostics and connectors."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import ALL_MODULES, WEIGHTS_SEQ_NO
from ray.rllib.utils.typing import EpisodeType, ParamDict
from torch import Tensor

from training.rl.learner_connector import PacksToTrainBatch
from training.rl.rollout import BatchedEnvRunner

APPROXIMATE_KL = "approximate_kl"
CLIP_FRACTION = "clip_fraction"
GRADIENT_NORM = "gradient_norm"


class OrderPPOLearner(PPOTorchLearner):
    """PPO for :class:`~perceiver_policy.rl_module.PerceiverRLModule`.

    The keys of ``learner_config_dict`` are those of ``torch.optim.Adam``. Logs two diagnostics of the last
    minibatch of an update, over the entries of the loss mask: :data:`APPROXIMATE_KL`, the estimate
    E[(ρ − 1) − ln ρ] of KL(sampled ‖ current) (Schulman 2020, http://joschu.net/blog/kl-approx.html, k₃), and
    :data:`CLIP_FRACTION`, the share of ratios ρ beyond the clip range.

    It completes its own connector pipeline, as RLlib's PPO does: packs of :class:`BatchedEnvRunner` go
    through :class:`PacksToTrainBatch`; on the stock path of episodes, :class:`SpreadOverUnits` comes last.
    """

    def build(self) -> None:
        """As RLlib's, and the connector that the env runner's output needs."""
        super().build()
        self._last_minibatch: dict[str, tuple[dict[str, Any], Tensor]] = {}
        if self._learner_connector is None:
            return
        runner = self.config.env_runner_cls
        if runner is not None and issubclass(runner, BatchedEnvRunner):
            connector = PacksToTrainBatch(gamma=self.config.gamma, lambda_=self.config.lambda_)
        else:
            connector = SpreadOverUnits()
        self._learner_connector.append(connector)

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        """One Adam over all parameters."""
        config = config or self.config
        parameters = self.get_parameters(self.module[module_id])
        optimizer = torch.optim.Adam(parameters, **self.config.learner_config_dict)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=config.lr
        )

    def postprocess_gradients(self, gradients_dict: ParamDict) -> ParamDict:
        """Clip by global norm over all gradients in one go; other ways of clipping are RLlib's.

        Raises:
            RuntimeError: a gradient is not finite.
        """
        if self.config.grad_clip is None or self.config.grad_clip_by != "global_norm":
            return super().postprocess_gradients(gradients_dict)
        norm = torch.nn.utils.clip_grad_norm_(
            gradients_dict.keys(), self.config.grad_clip, error_if_nonfinite=True, foreach=True
        )
        self.metrics.log_value((ALL_MODULES, GRADIENT_NORM), norm, window=1)
        return gradients_dict

    def apply_gradients(self, gradients_dict: ParamDict) -> None:
        """Step the optimizers. The gradients are in place already, and finite."""
        for optimizer in self._named_optimizers.values():
            optimizer.step()

    def compute_loss_for_module(
        self, *, module_id: str, config: PPOConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """RLlib's loss."""
        self._last_minibatch[module_id] = batch, fwd_out[Columns.ACTION_DIST_INPUTS].detach()
        return super().compute_loss_for_module(
            module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
        )

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """RLlib's schedules, and the diagnostics."""
        super().after_gradient_based_update(timesteps=timesteps)
        for module_id, (batch, logits) in self._last_minibatch.items():
            distribution = self.module[module_id].unwrapped().get_train_action_dist_cls()
            log_prob = distribution.from_logits(logits).logp(batch[Columns.ACTIONS])
            log_ratio = log_prob - batch[Columns.ACTION_LOGP]
            if Columns.LOSS_MASK in batch:
                log_ratio = log_ratio[batch[Columns.LOSS_MASK]]
            ratio = log_ratio.exp()
            diagnostics = {
                APPROXIMATE_KL: (ratio - 1 - log_ratio).mean(),
                CLIP_FRACTION: ((ratio - 1).abs() > self.config.clip_param).float().mean(),
            }
            self.metrics.log_dict(diagnostics, key=module_id, window=1)
        self._last_minibatch.clear()


class SpreadOverUnits(ConnectorV2):
    """Hands what the loss reads of an agent (advantage, value target, mask, number of its weights) to each
    unit it commands, (N,) to (N, A), where the module forms a ratio for each unit. Units that are not alive
    leave the mask. Belongs behind RLlib's advantage estimation.
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
        return batch
