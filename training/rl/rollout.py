"""Sampling many battles at once: an EnvRunner that works in arrays, for use with any RLlib algorithm config.

One forward pass a step serves all battles, and the engine writes observations straight into the rollout that
the learner reads: no work is done per battle or per unit in Python. The packs it returns need
:class:`~training.rl.learner_connector.PacksToTrainBatch` on the learner's side;
:func:`training.rl.config.build_ppo_config` shows the settings that belong together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.columns import Columns
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import (
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    NUM_AGENT_STEPS_SAMPLED,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    NUM_MODULE_STEPS_SAMPLED,
    NUM_MODULE_STEPS_SAMPLED_LIFETIME,
    SAMPLE_TIMER,
    WEIGHTS_SEQ_NO,
)
from ray.rllib.utils.typing import StateDict

from envs.battle.batch import Outcome, StepResult
from envs.unit_set import illegal_orders
from training.rl.seats import BattleSetup, Seat

MODULE_ID = "policy"
"""The one module that all units share."""

# Metrics of the battles that ended in an iteration, beside RLlib's own.
NUM_WINS, NUM_DRAWS, NUM_LOSSES, NUM_TIMEOUTS = "num_wins", "num_draws", "num_losses", "num_timeouts"
WIN_RATE = "win_rate"
NUM_ILLEGAL_ORDERS = "num_illegal_orders"


@dataclass(frozen=True)
class RolloutPack:
    """T steps of B battles as arrays; RLlib passes it on untouched as if it were an episode.

    O observers a battle command A units each: one commands all (team control), or each unit itself (A = 1).
    """

    observations: dict[str, NDArray]  # (T + 1, B[, O], ...): before each step, and after the last
    orders: NDArray[np.int64]  # (T, B * O, A, 2)
    log_probs: NDArray[np.float32]  # (T, B * O, A), or (T, B * O) without per-unit ratio
    dist_inputs: NDArray[np.float32] | None  # (T, B * O, A, V + U), only if the loss has a KL term
    values: NDArray[np.float32]  # (T, B * O) of the observations before each step, by the sampling weights
    rewards: NDArray[np.float32]  # (T, B) of the team
    dones: NDArray[np.bool_]  # (T, B) True where the step ended a battle; the next observation is a new one's

    def __len__(self) -> int:
        """Environment steps, T * B."""
        return self.rewards.size

    def rows(self, key: str, steps: slice) -> NDArray[Any]:
        """Observations of some of the T + 1 steps as rows: (steps * B * O, ...), a view."""
        array = self.observations[key][steps]
        return array.reshape(-1, *array.shape[self.observations["controlled_mask"].ndim - 1 :])


class BatchedEnvRunner(EnvRunner, Checkpointable):
    """Steps ``num_envs_per_env_runner`` battles together for ``rollout_fragment_length`` steps a call.

    ``env_config`` holds the fields of :class:`BattleSetup`. Battles differ between runners, and after a
    restart: their seeds derive from the config's seed, the runner's index and the steps sampled so far.
    """

    def __init__(self, config: AlgorithmConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.setup = BattleSetup(**self.config.env_config)
        self.env: Any = None  # a list of seats, from the first sample on
        self.module: Any = None
        self._weights_seq_no = 0
        self._env_runner_state_server: Any = None  # IMPALA and APPO set it
        self.make_module()

    def get_spaces(self) -> dict[str, tuple[gym.Space, gym.Space]]:
        """The spaces of the module, which are those of one observer."""
        spaces = self.setup.spaces()
        return {INPUT_ENV_SPACES: spaces, INPUT_ENV_SINGLE_SPACES: spaces, MODULE_ID: spaces}

    def make_module(self) -> None:
        """Build the module for acting."""
        spec = self.config.get_multi_rl_module_spec(spaces=self.get_spaces(), inference_only=True)
        self.module = spec.build()
        self.module[MODULE_ID].eval()

    def make_env(self) -> None:
        """Start the battles (afresh)."""
        entropy = None if self._seed is None else (self._seed, self.num_env_steps_sampled_lifetime)
        self.env = self.setup.seats(self.config.num_envs_per_env_runner, entropy)

    def assert_healthy(self) -> None:
        """Raises AssertionError unless the module is there; the battles start with the first sample."""
        assert self.module is not None

    def sample(self, **kwargs: Any) -> list[RolloutPack]:
        """Play ``rollout_fragment_length`` steps in every battle, exploring: one pack.

        Raises:
            ValueError: an amount is asked for in another way, which this runner does not know; or greedy
                orders, which have none of the log-probabilities that a rollout is learned from.
        """
        explore = kwargs.pop("explore", None)
        if not (self.config.explore if explore is None else explore):
            raise ValueError(
                f"{type(self).__name__} always explores; explore=False is for training.evaluate.evaluate()"
            )
        asked = {key: value for key, value in kwargs.items() if value}
        if asked:
            raise ValueError(f"{type(self).__name__} samples whole rollouts; it cannot sample by {asked}")
        self._pull_state()
        self.metrics.log_value(WEIGHTS_SEQ_NO, self._weights_seq_no, window=1)
        with self.metrics.log_time(SAMPLE_TIMER):
            if self.env is None:
                self.make_env()
            return [self._rollout(self.env)]

    def get_metrics(self) -> Any:
        """What was logged since the last call."""
        return self.metrics.reduce()

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> StateDict:
        """Weights with their sequence number, and the steps sampled. Battles under way are not kept."""
        state: StateDict = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime}
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            state[COMPONENT_RL_MODULE] = self.module.get_state(
                components=self._get_subcomponents(COMPONENT_RL_MODULE, components),
                not_components=self._get_subcomponents(COMPONENT_RL_MODULE, not_components),
                **kwargs,
            )
            state[WEIGHTS_SEQ_NO] = self._weights_seq_no
        return state

    def set_state(self, state: StateDict) -> None:
        """Take over weights (values or an object reference) unless they are older than the present ones."""
        if COMPONENT_RL_MODULE in state:
            weights_seq_no = state.get(WEIGHTS_SEQ_NO, 0)  # without a number they are taken in any case
            if weights_seq_no == 0 or weights_seq_no > self._weights_seq_no:
                weights = state[COMPONENT_RL_MODULE]
                self.module.set_state(ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights)
            self._weights_seq_no = weights_seq_no or self._weights_seq_no
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self.num_env_steps_sampled_lifetime = int(state[NUM_ENV_STEPS_SAMPLED_LIFETIME])

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[()], dict[str, Any]]:
        """What makes an equal runner."""
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Checkpointable]]:
        """The module."""
        return [(COMPONENT_RL_MODULE, self.module)]

    def stop(self) -> None:
        """Let go of the battles."""
        self.env = None

    def _pull_state(self) -> None:
        """Fetch newer weights where the algorithm (IMPALA, APPO) serves them instead of pushing."""
        if self._env_runner_state_server is None:
            return
        state = ray.get(self._env_runner_state_server.pull_if_newer.remote(self._weights_seq_no))
        if state is not None:
            self.set_state(state)

    def _rollout(self, seats: list[Seat]) -> RolloutPack:
        module = self.module[MODULE_ID]
        num_steps = self.config.get_rollout_fragment_length(self.worker_index)
        num_battles = self.config.num_envs_per_env_runner
        observations = {
            key: np.empty((num_steps + 1, num_battles, *array.shape[1:]), array.dtype)
            for key, array in seats[0].observation.items()
        }
        for seat in seats:
            _copy(seat.observation, _at(observations, 0, seat))
        tensors = {key: torch.from_numpy(array) for key, array in observations.items()}
        observer_dims = observations["controlled_mask"].ndim - 2  # battles, and units that see for themselves
        # The engine fills the rollout itself, except where all units of a battle share one state.
        engine_writes = not (self.setup.with_state and observer_dims == 2)
        rewards = np.empty((num_steps, num_battles), np.float32)
        dones = np.empty((num_steps, num_battles), np.bool_)
        outputs: list[Mapping[str, torch.Tensor]] = []
        ended = _EndedBattles()
        for t in range(num_steps):
            rows = {key: tensor[t].flatten(0, observer_dims - 1) for key, tensor in tensors.items()}
            outputs.append(module.forward_exploration({Columns.OBS: rows}))
            orders = outputs[-1][Columns.ACTIONS].numpy().reshape(num_battles, -1, 2)
            for seat in seats:
                following = _at(observations, t + 1, seat)
                result = seat.step(orders[seat.rows], out=following if engine_writes else None)
                if not engine_writes:
                    _copy(seat.observation, following)
                rewards[t, seat.rows], dones[t, seat.rows] = result.rewards[:, seat.side], result.done
                ended.add(result, seat)
        keep_dist_inputs = getattr(self.config, "use_kl_loss", False)
        pack = RolloutPack(
            observations,
            orders=_stack(outputs, Columns.ACTIONS),
            log_probs=_stack(outputs, Columns.ACTION_LOGP),
            dist_inputs=_stack(outputs, Columns.ACTION_DIST_INPUTS) if keep_dist_inputs else None,
            values=_stack(outputs, Columns.VF_PREDS),
            rewards=rewards,
            dones=dones,
        )
        self._log(pack, ended)
        return pack

    def _log(self, pack: RolloutPack, ended: _EndedBattles) -> None:
        env_steps, agent_steps = len(pack), pack.values.size
        self.num_env_steps_sampled_lifetime += env_steps
        log = self.metrics.log_value
        log(NUM_ENV_STEPS_SAMPLED, env_steps, reduce="sum")
        log(NUM_ENV_STEPS_SAMPLED_LIFETIME, env_steps, reduce="lifetime_sum", with_throughput=True)
        for key, lifetime_key in (
            (NUM_AGENT_STEPS_SAMPLED, NUM_AGENT_STEPS_SAMPLED_LIFETIME),
            (NUM_MODULE_STEPS_SAMPLED, NUM_MODULE_STEPS_SAMPLED_LIFETIME),
        ):
            log((key, MODULE_ID), agent_steps, reduce="sum")
            log((lifetime_key, MODULE_ID), agent_steps, reduce="lifetime_sum")
        masks = (pack.rows(key, slice(-1)) for key in ("verb_mask", "target_mask"))
        illegal = illegal_orders(pack.orders.reshape(-1, *pack.orders.shape[2:]), *masks)
        log(NUM_ILLEGAL_ORDERS, int(illegal.sum()), reduce="sum")
        log(NUM_EPISODES, len(ended.returns), reduce="sum")
        log(NUM_EPISODES_LIFETIME, len(ended.returns), reduce="lifetime_sum")
        for key in (NUM_WINS, NUM_DRAWS, NUM_LOSSES, NUM_TIMEOUTS):
            log(key, ended.outcomes[key], reduce="sum")
        if ended.returns:
            log(EPISODE_RETURN_MEAN, float(np.mean(ended.returns)), window=1)
            log(EPISODE_LEN_MEAN, float(np.mean(ended.lengths)), window=1)
            log(WIN_RATE, ended.outcomes[NUM_WINS] / len(ended.returns), window=1)


class _EndedBattles:
    """Return, length and outcome of the battles that ended in a rollout, for the policy's side."""

    def __init__(self) -> None:
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.outcomes: Counter[str] = Counter()

    def add(self, result: StepResult, seat: Seat) -> None:
        """Note the battles that ended in this step."""
        ended = np.flatnonzero(result.done)
        if not len(ended):
            return
        self.returns += result.episode_return[ended, seat.side].tolist()
        self.lengths += result.length[ended].tolist()
        names = {
            seat.victory: NUM_WINS,
            seat.defeat: NUM_LOSSES,
            Outcome.DRAW: NUM_DRAWS,
            Outcome.TIMEOUT: NUM_TIMEOUTS,
        }
        self.outcomes.update(names[Outcome(outcome)] for outcome in result.outcome[ended])


def _at(rollout: Mapping[str, NDArray[Any]], t: int, seat: Seat) -> dict[str, NDArray[Any]]:
    """The place of a seat's observation at step t, as views."""
    return {key: array[t, seat.rows] for key, array in rollout.items()}


def _copy(observation: Mapping[str, NDArray[Any]], to: Mapping[str, NDArray[Any]]) -> None:
    for key, array in observation.items():
        to[key][...] = array


def _stack(outputs: list[Mapping[str, torch.Tensor]], column: str) -> NDArray[Any]:
    return torch.stack([output[column] for output in outputs]).numpy()
