"""PPO in a plain loop of PyTorch, without RLlib: what the job of :mod:`training.rl` is measured against.

The same policy network, battles, advantages, minibatches and settings; nothing else. No schedules, metrics,
checkpoints, memory, mixtures, agents as opponents or processes beside this one. Step size and entropy bonus
stay where they start, which costs as much as having them fall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from envs.battle.batch import BattleBatch
from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.policy_config import Critic
from training.rl.advantages import generalized_advantages, standardize
from training.rl.config import TrainConfig


@dataclass
class Rollout:
    """T steps of B battles of A commanded units."""

    observations: dict[str, Tensor]  # (T + 1, B, ...)
    orders: Tensor  # (T, B, A, 2) int64
    log_probs: Tensor  # (T, B, A) float32
    values: Tensor  # (T + 1, B) float32
    rewards: Tensor  # (T, B) float32
    dones: Tensor  # (T, B) bool

    @property
    def env_steps(self) -> int:
        """T * B."""
        return self.rewards.numel()


class RawPPO:
    """Samples from battles of the first side against the player inside the engine, under team control, and
    learns with a ratio for each unit.

    Args:
        config: the job.
        policy: to train; None: one with fresh weights.

    Raises:
        ValueError: the job needs more than this loop has.
    """

    def __init__(self, config: TrainConfig, policy: UnitSetPolicy | None = None) -> None:
        model = config.load_model()
        for name, plain in (
            ("algorithm", config.algorithm == "ppo"),
            ("control", config.control == "team"),
            ("swap_sides", config.swap_sides is False),
            ("per_unit_ratio", config.per_unit_ratio),
            ("normalize_values", not config.normalize_values),
            ("model_overrides", not model.memory and model.critic is Critic.OBSERVATION),
        ):
            if not plain:
                raise ValueError(
                    f"{name} is {getattr(config, name)!r}; the raw loop has PPO under team control, from the "
                    "first side, with a ratio for each unit and a critic of the observation, and no more"
                )
        self.config = config
        self.policy = UnitSetPolicy(model) if policy is None else policy
        self.optimizer = torch.optim.Adam(
            self.policy.parameters(),
            lr=config.lr,
            betas=config.adam_betas,
            eps=config.adam_eps,
            fused=True,
        )
        scenario = config.only_scenario
        (rewards,) = config.load_rewards().values()
        self._battles = BattleBatch(
            scenario,
            config.num_battles,
            builtin=(None, config.opponent),
            rewards=rewards,
            num_threads=config.num_threads,
            seed=config.seed,
        )
        self._rollout = self._empty()

    def sample(self) -> Rollout:
        """Go on playing. The arrays are those of the rollout before, written over."""
        rollout, battles = self._rollout, self._battles
        seen = {key: tensor.numpy() for key, tensor in rollout.observations.items()}
        current = battles.observations[0]
        assert current is not None
        for key, array in seen.items():
            array[0] = current[key]
        with torch.inference_mode():
            for t in range(len(rollout.rewards)):
                output = self.policy({key: tensor[t] for key, tensor in rollout.observations.items()})
                chosen = output.choose(deterministic=False)
                rollout.orders[t] = chosen.orders
                rollout.log_probs[t] = chosen.log_prob
                rollout.values[t] = output.value
                out = {key: array[t + 1] for key, array in seen.items()}
                result = battles.step(chosen.orders.numpy(), out=(out, None))
                rollout.rewards[t] = torch.from_numpy(result.rewards[:, 0])
                rollout.dones[t] = torch.from_numpy(result.done)
            last = {key: tensor[-1] for key, tensor in rollout.observations.items()}
            rollout.values[-1] = self.policy.value(last)
        return rollout

    def learn(self, rollout: Rollout) -> None:
        """Some epochs of minibatches (Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9)."""
        config = self.config
        advantages = generalized_advantages(
            rollout.rewards.numpy(),
            rollout.values.numpy(),
            rollout.dones.numpy(),
            gamma=config.gamma,
            lambda_=config.gae_lambda,
        )
        targets = (torch.from_numpy(advantages) + rollout.values[:-1]).flatten()
        observations = {key: tensor[:-1].flatten(0, 1) for key, tensor in rollout.observations.items()}
        living = observations["controlled_mask"]
        of_units = np.broadcast_to(advantages.reshape(-1, 1), living.shape)
        standardized = torch.from_numpy(standardize(of_units, living.numpy()))
        orders, log_probs = rollout.orders.flatten(0, 1), rollout.log_probs.flatten(0, 1)
        for _ in range(config.num_epochs):
            for rows in torch.randperm(len(targets)).split(config.minibatch_size):
                given = self.policy.evaluate_orders(
                    {key: tensor[rows] for key, tensor in observations.items()}, orders[rows]
                )
                advantage, ratio = standardized[rows], (given.log_prob - log_probs[rows]).exp()
                surrogate = torch.min(
                    advantage * ratio, advantage * ratio.clamp(1 - config.clip, 1 + config.clip)
                )
                error = (given.value - targets[rows]).square().unsqueeze(-1)
                loss = config.value_loss_coeff * error - surrogate - config.entropy_coeff * given.entropy
                self.optimizer.zero_grad()
                loss[living[rows]].mean().backward()
                torch.nn.utils.clip_grad_norm_(self.policy.parameters(), config.grad_clip, foreach=True)
                self.optimizer.step()

    def _empty(self) -> Rollout:
        steps, battles = self.config.rollout_steps, self.config.num_battles
        current = self._battles.observations[0]
        assert current is not None
        units = current["controlled_mask"].shape[1]
        return Rollout(
            {
                key: torch.from_numpy(np.empty((steps + 1, *array.shape), array.dtype))
                for key, array in current.items()
            },
            orders=torch.empty(steps, battles, units, 2, dtype=torch.int64),
            log_probs=torch.empty(steps, battles, units),
            values=torch.empty(steps + 1, battles),
            rewards=torch.empty(steps, battles),
            dones=torch.empty(steps, battles, dtype=torch.bool),
        )
