"""From rollouts to train batches: the learner's side of :mod:`training.rl.rollout`.

Advantages belong to the team: all units share its reward, so all share its advantage, each with a ratio of
its own.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from perceiver_policy.rl_module import BEGINS, LATENTS, PerceiverRLModule
from training.rl import across_learners
from training.rl.advantages import explained_variance, generalized_advantages, standardize, vtrace
from training.rl.pack import RolloutPack
from training.rl.rollout import MODULE_ID
from training.rl.sizes import SIZE, BattleSize, largest, padded

EXPLAINED_VARIANCE = "explained_variance"
"""Metric: how well the values foresaw the returns of the whole batch (RLlib's own sees one minibatch)."""


class PacksToTrainBatch(ConnectorV2):
    """Turns :class:`RolloutPack` objects into the flat batch that RLlib's PPO loss reads. It is the whole
    pipeline: RLlib's default connectors must be off (``add_default_connectors_to_learner_pipeline=False``).

    A row is one observer at one step; an observer's T steps follow each other. With A units an observer, and
    a ratio for each of them:

    ==================  ==========  ===================================================================
    column              shape       content
    ==================  ==========  ===================================================================
    OBS                 (N, ...)    the observations
    ACTIONS             (N, A, 2)   orders
    ACTION_LOGP         (N, A)      their log-probabilities when sampled
    ACTION_DIST_INPUTS  (N, A, ·)   the logits then, if the loss has a KL term; else empty
    ADVANTAGES          (N, A)      of the team, standardised over living units, each scenario's by themselves
    VALUE_TARGETS       (N, A)      λ-returns of the team
    LOSS_MASK           (N, A)      True for living units: the others teach nothing
    STATE_IN, BEGINS    N / T, N    with memory: the latents before each observer's first step, and where a
                                    battle begins
    ==================  ==========  ===================================================================

    With one ratio for all the orders of an observer the A goes: everything but OBS, ACTIONS and
    ACTION_DIST_INPUTS is (N,).

    Standardised by themselves, a scenario's advantages pull at the policy as hard as they would alone,
    whatever the rewards of the others and however far those are learned.

    Packs of different sizes are padded to the largest, and one more column, :data:`~training.rl.sizes.SIZE`,
    tells each row's own size.

    Args:
        gamma: discount of a step.
        lambda_: of generalised advantage estimation, and of V-trace.
        off_policy: whether an older policy may have sampled. Values and log-probabilities are then the
            present policy's, and advantages and targets V-trace's, by each unit's ratio, or each observer's.
        sizes: the different sizes that packs may have; of a single one, no :data:`~training.rl.sizes.SIZE` is
            told.
        num_scenarios: that packs may be of.
    """

    def __init__(
        self,
        input_observation_space: gym.Space | None = None,
        input_action_space: gym.Space | None = None,
        *,
        gamma: float,
        lambda_: float,
        off_policy: bool = False,
        sizes: Sequence[BattleSize] = (),
        num_scenarios: int = 1,
    ) -> None:
        super().__init__(input_observation_space, input_action_space)
        self.gamma = gamma
        self.lambda_ = lambda_
        self.off_policy = off_policy
        self.sizes = list(sizes)
        self.num_scenarios = num_scenarios

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
        estimates = [self._estimate(module, pack) for pack in episodes]
        if metrics is not None:
            seen, targets = (
                np.concatenate([value.ravel() for value in values])
                for values in zip(*((e.values, e.targets) for e in estimates), strict=True)
            )
            metrics.log_value((MODULE_ID, EXPLAINED_VARIANCE), explained_variance(targets, seen), window=1)
        parts = [
            _columns(*part, per_unit=module.per_unit_ratio) for part in zip(episodes, estimates, strict=True)
        ]
        to = largest(pack.size for pack in episodes)
        pad = functools.partial(padded, to=to, per_unit=module.per_unit_ratio)
        columns = {
            key: np.concatenate(
                [pad(key, part[key], size=pack.size) for part, pack in zip(parts, episodes, strict=True)]
            )
            for key in parts[0]
        }
        if len(self.sizes) > 1:
            sizes = (np.full(pack.orders[..., 0, 0].size, self.sizes.index(pack.size)) for pack in episodes)
            columns[SIZE] = np.concatenate(list(sizes))
        device = next(module.parameters()).device
        columns[Postprocessing.ADVANTAGES] = self._standardized(
            columns[Postprocessing.ADVANTAGES], columns[Columns.LOSS_MASK], episodes, device
        )
        batch[MODULE_ID] = as_tensors(episodes, columns, slice(-1), device)
        return batch

    def _standardized(
        self,
        advantages: NDArray[np.float32],
        mask: NDArray[np.bool_],
        packs: list[RolloutPack],
        device: torch.device,
    ) -> NDArray[np.float32]:
        """Each scenario's rows by themselves, over all learners, which go through the scenarios together."""
        result = np.empty_like(advantages)
        of_rows = np.concatenate(
            [np.repeat(pack.scenarios, pack.num_observers * len(pack.rewards)) for pack in packs]
        )
        for scenario in range(self.num_scenarios):
            rows = of_rows == scenario
            result[rows] = standardize(
                advantages[rows], mask[rows], lambda sums: across_learners.total(sums, device)
            )
        return result

    def _estimate(self, module: PerceiverRLModule, pack: RolloutPack) -> _Estimate:
        """By one policy that sampled and learns, or by V-trace."""
        if not self.off_policy:
            values = team_values(pack, np.concatenate([pack.values, last_values(module, pack)]))
            advantages = generalized_advantages(
                pack.rewards, values, pack.dones, gamma=self.gamma, lambda_=self.lambda_
            )
            return _Estimate(pack.log_probs, values[:-1], advantages, advantages + values[:-1])
        log_probs, own_values = present(module, pack)
        values = team_values(pack, own_values)
        # Of all units of a battle, (..., B, units), each with a ratio of its own but the team's all else.
        ratios = np.exp(log_probs - pack.log_probs).reshape(*pack.rewards.shape, -1)
        errors, advantages = vtrace(
            pack.rewards[..., None],
            values[..., None],
            pack.dones[..., None],
            ratios,
            gamma=self.gamma,
            lambda_=self.lambda_,
        )
        of_units = np.broadcast_to(values[:-1, :, None], ratios.shape)
        return _Estimate(log_probs, of_units, advantages, errors + of_units)


class _Estimate(NamedTuple):
    """What is learned from the steps of a pack."""

    log_probs: NDArray[np.float32]  # (T, B * O[, A]), from which ratios start
    # The rest is (T, B) of the team, or (T, B, ·) for each of its ratios.
    values: NDArray[np.float32]
    advantages: NDArray[np.float32]
    targets: NDArray[np.float32]


def as_tensors(
    packs: list[RolloutPack], columns: dict[str, NDArray[Any]], steps: slice, device: torch.device
) -> dict[str, Any]:
    """A batch for the module: the packs' observations at some of the T + 1 steps, with the latents before
    them where the policy has memory, all padded to the largest size, and columns that are there already."""
    to = largest(pack.size for pack in packs)
    observations = {
        key: np.concatenate(
            [padded(key, pack.sequences(key, steps), size=pack.size, to=to, per_unit=True) for pack in packs]
        )
        for key in packs[0].observations
    }
    batch: dict[str, Any] = {
        Columns.OBS: {key: torch.from_numpy(array).to(device) for key, array in observations.items()},
        **{key: torch.from_numpy(array).to(device) for key, array in columns.items()},
    }
    if packs[0].states is not None:
        states = np.concatenate([pack.states[0] for pack in packs if pack.states is not None])
        begins = np.concatenate([by_observer(pack.begins[steps], pack.num_observers) for pack in packs])
        batch[Columns.STATE_IN] = {LATENTS: torch.from_numpy(states).to(device)}
        batch[BEGINS] = torch.from_numpy(begins).to(device)
    return batch


def by_observer(array: NDArray[Any], num_observers: int) -> NDArray[Any]:
    """(T, B) of battles to (B * O * T,) of their O observers, each one's T steps together."""
    return np.repeat(array.T, num_observers, axis=0).ravel()


def by_sequence(array: NDArray[Any]) -> NDArray[Any]:
    """(T, B * O, ...) to (B * O * T, ...): the T steps of an observer together."""
    return np.ascontiguousarray(np.swapaxes(array, 0, 1)).reshape(-1, *array.shape[2:])


def team_values(pack: RolloutPack, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values (T + 1, B) of the battles from those of the observers (T + 1, B * O).

    Where units observe for themselves, all of them estimate the same team's return, so a battle's value is
    the mean over its living units, and the return goes on behind a unit's death.
    """
    values = values.reshape(len(values), pack.rewards.shape[1], -1)
    living = pack.observations["controlled_mask"].any(-1).reshape(values.shape)
    return (values * living).sum(-1) / np.maximum(living.sum(-1), 1, dtype=np.float32)


def last_values(module: PerceiverRLModule, pack: RolloutPack) -> NDArray[np.float32]:
    """(1, B * O) of the observations after the last step."""
    device = next(module.parameters()).device
    # Copies: the arrays of packs that come from other processes are read-only, which tensors cannot be.
    last = {key: torch.tensor(pack.rows(key, slice(-1, None)), device=device) for key in pack.observations}
    batch: dict[str, Any] = {Columns.OBS: last}
    if pack.states is not None:
        batch[Columns.STATE_IN] = {LATENTS: torch.tensor(pack.states[1], device=device)}
    with torch.no_grad():
        return module.compute_values(batch).cpu().numpy()[None]


def present(module: PerceiverRLModule, pack: RolloutPack) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the module makes of a pack now: log-probabilities of its orders, as in the pack, and the values
    (T + 1, B * O) of all its observations."""
    device = next(module.parameters()).device
    orders = by_sequence(np.concatenate([pack.orders, np.zeros_like(pack.orders[:1])]))
    batch = as_tensors([pack], {Columns.ACTIONS: orders}, slice(None), device)
    with torch.no_grad():
        output = module.forward_train(batch)
        distribution = module.get_train_action_dist_cls().from_logits(output[Columns.ACTION_DIST_INPUTS])
        log_probs = distribution.logp(batch[Columns.ACTIONS])

    def by_step(rows: torch.Tensor) -> NDArray[np.float32]:
        return np.swapaxes(rows.cpu().numpy().reshape(-1, len(pack.rewards) + 1, *rows.shape[1:]), 0, 1)

    return by_step(log_probs)[:-1], by_step(output[Columns.EMBEDDINGS])


def _columns(pack: RolloutPack, estimate: _Estimate, *, per_unit: bool) -> dict[str, NDArray[Any]]:
    """All columns but the observations; what is the team's is handed to every observer and unit."""
    living = pack.sequences("controlled_mask", slice(-1))  # (N, A)
    mask = living if per_unit else np.any(living, axis=-1)

    def hand_out(array: NDArray[np.float32]) -> NDArray[np.float32]:
        of_battles = array.reshape(*pack.rewards.shape, -1)
        shape = *pack.rewards.shape, pack.num_observers, *mask.shape[1:]
        of_units = np.broadcast_to(of_battles, (*shape[:2], int(np.prod(shape[2:])))).reshape(shape)
        return by_sequence(of_units.reshape(*pack.values.shape, *mask.shape[1:]))

    dist_inputs = np.empty((*living.shape, 0), np.float32)
    if pack.dist_inputs is not None:
        dist_inputs = by_sequence(pack.dist_inputs)
    return {
        Columns.ACTIONS: by_sequence(pack.orders),
        Columns.ACTION_LOGP: by_sequence(estimate.log_probs),
        Columns.ACTION_DIST_INPUTS: dist_inputs,
        Postprocessing.ADVANTAGES: hand_out(estimate.advantages),
        Postprocessing.VALUE_TARGETS: hand_out(estimate.targets),
        Columns.LOSS_MASK: mask,
    }
