"""Sampling many battles at once: an EnvRunner that works in arrays, for use with any RLlib algorithm config.

One forward pass a step serves all battles, and the engine writes observations straight into the rollout that
the learner reads: no work is done per battle or per unit in Python. The packs it returns need
:class:`~training.rl.learner_connector.PacksToTrainBatch` on the learner's side;
:func:`training.rl.algorithms.build_algorithm_config` shows the settings that belong together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
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
from perceiver_policy.rl_module import LATENTS
from training.rl.pack import RolloutPack
from training.rl.seats import BattleSetup, Seat
from training.rl.sizes import BattleSize

MODULE_ID = "policy"
"""The one module that all units share."""

# Metrics of the battles that ended in an iteration, beside RLlib's own.
NUM_WINS, NUM_DRAWS, NUM_LOSSES, NUM_TIMEOUTS = "num_wins", "num_draws", "num_losses", "num_timeouts"
WIN_RATE = "win_rate"
SCENARIOS = "scenarios"
"""Under it, of a mixture, the same counts by scenario's name, with these sums."""
RETURN_SUM, LENGTH_SUM = "return_sum", "length_sum"

MIXTURE_WEIGHTS = "mixture_weights"
"""In a runner's state: the weights of the mixture's scenarios, where they are no longer its own."""
NUM_ILLEGAL_ORDERS = "num_illegal_orders"


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
        self._mixture_weights: tuple[float, ...] | None = None  # None: the mixture's own
        self._states: dict[
            BattleSize, torch.Tensor | None
        ] = {}  # by size, of each observer; of no memory, None
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
        # Not RLlib's own sum of seed and index: runs of neighbouring seeds would share battles.
        seed, sampled = self.config.seed, self.num_env_steps_sampled_lifetime
        entropy = None if seed is None else (seed, sampled, self.worker_index)
        self.env = self.setup.seats(
            self.config.num_envs_per_env_runner,
            entropy,
            weights=self._mixture_weights,
            runner=max(self.worker_index - 1, 0),
            num_runners=max(self.config.num_env_runners, 1),
        )
        policy = self.module[MODULE_ID].policy
        rows = Counter[BattleSize]()
        for seat in self.env:
            rows[seat.size] += seat.battles.num_battles * seat.size.observers
        self._states = {size: policy.initial_state(number) for size, number in rows.items()}

    @property
    def allocation(self) -> tuple[int, ...]:
        """Battles of each scenario of the mixture, over all runners."""
        num_battles = self.config.num_envs_per_env_runner * max(self.config.num_env_runners, 1)
        return self.setup.allocation(num_battles, self._mixture_weights)

    def assert_healthy(self) -> None:
        """Raises AssertionError unless the module is there; the battles start with the first sample."""
        assert self.module is not None

    def sample(self, **kwargs: Any) -> list[RolloutPack]:
        """Play ``rollout_fragment_length`` steps in every battle, exploring: a pack for each size of battles.

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
            together: dict[BattleSize, list[Seat]] = {}
            for seat in self.env:
                together.setdefault(seat.size, []).append(seat)
            ended = _EndedBattles()
            packs = [self._rollout(seats, ended) for seats in together.values()]
            self._log(packs, ended)
            return packs

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
        """Weights with their sequence number, the steps sampled, and the mixture's weights. Battles under way
        are not kept."""
        state: StateDict = {
            NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime,
            MIXTURE_WEIGHTS: self._mixture_weights,
        }
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            state[COMPONENT_RL_MODULE] = self.module.get_state(
                components=self._get_subcomponents(COMPONENT_RL_MODULE, components),
                not_components=self._get_subcomponents(COMPONENT_RL_MODULE, not_components),
                **kwargs,
            )
            state[WEIGHTS_SEQ_NO] = self._weights_seq_no
        return state

    def set_state(self, state: StateDict) -> None:
        """Take over weights (values or an object reference) unless they are older than the present ones.
        Where the mixture's weights change, all battles begin anew."""
        if COMPONENT_RL_MODULE in state:
            weights_seq_no = state.get(WEIGHTS_SEQ_NO, 0)  # without a number they are taken in any case
            if weights_seq_no == 0 or weights_seq_no > self._weights_seq_no:
                weights = state[COMPONENT_RL_MODULE]
                self.module.set_state(ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights)
            self._weights_seq_no = weights_seq_no or self._weights_seq_no
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self.num_env_steps_sampled_lifetime = int(state[NUM_ENV_STEPS_SAMPLED_LIFETIME])
        if MIXTURE_WEIGHTS in state and state[MIXTURE_WEIGHTS] != self._mixture_weights:
            before = self.allocation
            self._mixture_weights = state[MIXTURE_WEIGHTS]
            if self.allocation != before:
                self.env = None

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

    def _rollout(self, seats: list[Seat], ended: _EndedBattles) -> RolloutPack:
        """Of seats of one size."""
        module = self.module[MODULE_ID]
        num_steps = self.config.get_rollout_fragment_length(self.worker_index)
        num_battles = sum(seat.battles.num_battles for seat in seats)
        observations = {
            key: np.empty((num_steps + 1, num_battles, *array.shape[1:]), array.dtype)
            for key, array in seats[0].stored().items()
        }
        for seat in seats:
            _copy(seat.stored(), _at(observations, 0, seat))
        tensors = {key: torch.from_numpy(array) for key, array in observations.items()}
        observer_dims = observations["controlled_mask"].ndim - 2  # battles, and units that see for themselves
        rewards = np.empty((num_steps, num_battles), np.float32)
        dones = np.empty((num_steps, num_battles), np.bool_)
        outputs: list[Mapping[str, Any]] = []
        size = seats[0].size
        state_before = state = self._states[size]
        for t in range(num_steps):
            shown = {key: tensor[t] for key, tensor in tensors.items()}
            if observer_dims == 2:  # the units of a battle share its state
                shape = shown["controlled_mask"].shape[:2]
                shown = {key: tensor.expand(*shape, *tensor.shape[2:]) for key, tensor in shown.items()}
            rows = {key: tensor.flatten(0, observer_dims - 1) for key, tensor in shown.items()}
            batch: dict[str, Any] = {Columns.OBS: rows, Columns.STATE_IN: {LATENTS: state}}
            outputs.append(module.forward_exploration(batch))
            orders = outputs[-1][Columns.ACTIONS].numpy().reshape(num_battles, -1, 2)
            for seat in seats:
                result = seat.step(orders[seat.rows], out=_at(observations, t + 1, seat))
                rewards[t, seat.rows], dones[t, seat.rows] = result.rewards[:, seat.side], result.done
                ended.add(result, seat)
            if state is not None:
                begins = torch.from_numpy(dones[t]).repeat_interleave(size.observers)
                after = outputs[-1][Columns.STATE_OUT][LATENTS]
                state = after.masked_fill(begins[:, None, None], 0)
        self._states[size] = state
        keep_dist_inputs = getattr(self.config, "use_kl_loss", False)
        return RolloutPack(
            observations,
            orders=_stack(outputs, Columns.ACTIONS),
            log_probs=_stack(outputs, Columns.ACTION_LOGP),
            dist_inputs=_stack(outputs, Columns.ACTION_DIST_INPUTS) if keep_dist_inputs else None,
            values=_stack(outputs, Columns.VF_PREDS),
            rewards=rewards,
            dones=dones,
            scenarios=np.repeat(
                [seat.scenario for seat in seats], [seat.battles.num_battles for seat in seats]
            ),
            states=_both(state_before, state),
        )

    def _log(self, packs: list[RolloutPack], ended: _EndedBattles) -> None:
        env_steps, agent_steps = sum(map(len, packs)), sum(pack.values.size for pack in packs)
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
        log(NUM_ILLEGAL_ORDERS, sum(map(_count_illegal, packs)), reduce="sum")
        log(NUM_EPISODES, len(ended.returns), reduce="sum")
        log(NUM_EPISODES_LIFETIME, len(ended.returns), reduce="lifetime_sum")
        for key in (NUM_WINS, NUM_DRAWS, NUM_LOSSES, NUM_TIMEOUTS):
            log(key, ended.outcomes[key], reduce="sum")
        if ended.returns:
            log(EPISODE_RETURN_MEAN, float(np.mean(ended.returns)), window=1)
            log(EPISODE_LEN_MEAN, float(np.mean(ended.lengths)), window=1)
            log(WIN_RATE, ended.outcomes[NUM_WINS] / len(ended.returns), window=1)
        scenarios = self.setup.scenarios
        for index, scenario in enumerate(scenarios if len(scenarios) > 1 else ()):
            for key in (
                NUM_EPISODES,
                NUM_WINS,
                RETURN_SUM,
                LENGTH_SUM,
            ):  # zeros, too: RLlib makes NaN of none
                log((SCENARIOS, scenario.name, key), ended.of_scenarios[index][key], reduce="sum")


class _EndedBattles:
    """Return, length and outcome of the battles that ended in a rollout, for the policy's side."""

    def __init__(self) -> None:
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.outcomes: Counter[str] = Counter()
        self.of_scenarios: defaultdict[int, Counter[str]] = defaultdict(Counter)

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
        outcomes = Counter(names[Outcome(outcome)] for outcome in result.outcome[ended])
        self.outcomes += outcomes
        sums = {
            NUM_EPISODES: len(ended),
            RETURN_SUM: float(result.episode_return[ended, seat.side].sum()),
            LENGTH_SUM: int(result.length[ended].sum()),
        }
        self.of_scenarios[seat.scenario].update(outcomes | sums)


def _count_illegal(pack: RolloutPack) -> int:
    masks = (pack.rows(key, slice(-1)) for key in ("verb_mask", "target_mask"))
    return int(illegal_orders(pack.orders.reshape(-1, *pack.orders.shape[2:]), *masks).sum())


def _at(rollout: Mapping[str, NDArray[Any]], t: int, seat: Seat) -> dict[str, NDArray[Any]]:
    """The place of a seat's observation at step t, as views."""
    return {key: array[t, seat.rows] for key, array in rollout.items()}


def _copy(observation: Mapping[str, NDArray[Any]], to: Mapping[str, NDArray[Any]]) -> None:
    for key, array in observation.items():
        to[key][...] = array


def _stack(outputs: list[Mapping[str, Any]], column: str) -> NDArray[Any]:
    return torch.stack([output[column] for output in outputs]).numpy()


def _both(before: torch.Tensor | None, after: torch.Tensor | None) -> NDArray[np.float32] | None:
    return None if before is None or after is None else torch.stack((before, after)).numpy()
