"""What a training job is: one dataclass that holds the defaults, is the command line and documents both.

The defaults are a recipe for two CPU cores: many battles, short rollouts, small minibatches.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from agents.roster import load_opponent
from envs.battle.batch import require_units
from envs.battle.rules import RewardWeights, default_rewards
from envs.battle.tactics import DEFAULT
from envs.scenarios import load_scenario
from perceiver_policy import config_files
from perceiver_policy.config import ConfigError
from perceiver_policy.policy_config import Critic, UnitSetPolicyConfig
from perceiver_policy.rl_module import PerceiverRLModule
from training.rl.learner import OrderPPOLearner
from training.rl.rollout import MODULE_ID, BatchedEnvRunner
from training.rl.seats import BattleSetup, Opponent


@dataclass(frozen=True)
class TrainConfig:
    """A training job. Steps are environment steps of 8 game loops, of one battle."""

    scenario: str = "3m"
    """A shipped scenario's name, or the path of a scenario file."""
    opponent: str = DEFAULT
    """Who plays the other side: inside the engine attack-move, its strengths attack-move-easy, -medium and
    -hard, focus-fire, kite, retreat-regroup or split, or mixed, which draws one of these for each battle;
    scripted:NAME; or a policy's folder. The engine's flank, hit-and-run and ambush, drawn by black-box, are
    meant for evaluation."""
    control: Literal["team", "unit"] = "team"
    """One observer with the team's sight commands all units, or each unit sees and acts for itself."""
    swap_sides: bool | None = None
    """Play half of the battles from the second side. Default: where the scenario is symmetric."""
    rewards: tuple[str, ...] = ()
    """Changes to the scenario's own rewards (a mission's score, SMAC's under its preset), such as win=2
    kill=0.5; of damage, damage_taken, win, loss, kill and score."""
    seed: int = 0
    """Of battles, weights and sampling."""
    run_dir: Path = Path("runs/train")
    """Folder of the run: configuration, TensorBoard events, checkpoints, exported policy."""
    resume: bool = False
    """Go on with the run in run_dir, with its settings; of this call only a budget other than the default
    counts. RLlib's checkpoints are pickles: resume runs of your own, not folders from elsewhere."""

    time_limit_s: float | None = None
    """Budget: seconds this call may train, evaluations included."""
    max_env_steps: int | None = 300_000
    """Budget: environment steps of the whole run; step size and entropy bonus fall towards its end."""
    target_win_rate: float | None = None
    """Stop when two evaluations in a row have a Wilson 95 % lower bound of at least this."""

    model: str = "unit_set_small"
    """A shipped model's name, or the path of a model file."""
    model_overrides: tuple[str, ...] = ()
    """Changes to the model, such as encoder.num_latents=16 or critic=state."""

    num_battles: int = 128
    """Battles stepped together, over all runners."""
    rollout_steps: int = 16
    """Steps of each battle between two updates."""
    minibatch_size: int = 512
    """Steps of a battle in a minibatch."""
    num_epochs: int = 3
    """Passes over a rollout."""
    lr: float = 4e-3
    """Adam's step size at the start."""
    lr_end: float = 2e-4
    """Adam's step size at max_env_steps, approached in a straight line; without that budget lr stays."""
    adam_betas: tuple[float, float] = (0.9, 0.98)
    """Adam's decay rates."""
    adam_eps: float = 1e-5
    """Adam's epsilon."""
    gamma: float = 0.98
    """Discount of a step."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    clip: float = 0.2
    """How far a ratio may leave 1."""
    value_loss_coeff: float = 0.5
    """Weight of the value loss."""
    entropy_coeff: float = 0.01
    """Weight of the entropy bonus at the start."""
    entropy_coeff_end: float = 0.001
    """Weight of the entropy bonus at max_env_steps, as for lr_end."""
    grad_clip: float = 0.5
    """Largest global norm of the gradient."""
    per_unit_ratio: bool = True
    """A PPO ratio for each unit's order, or one for all orders of an observer."""

    num_env_runners: int = 0
    """Processes that sample; 0: this one samples too, the fastest choice on two cores."""
    num_threads: int = 1
    """Threads of the engine in each sampling process."""
    torch_threads: int = 1
    """Threads of torch in this process. 2 are faster by a quarter on two idle cores, and many times slower
    where something else needs one of them."""

    evaluation_interval: int = 20
    """Iterations between evaluations with greedy orders; 0: none."""
    evaluation_games: int = 1000
    """Battles of an evaluation."""
    checkpoint_interval_s: float = 60.0
    """Seconds between checkpoints; one is written at the end in any case."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            _require(self, name, _is_a(getattr(self, name), kind), f"it must be {_spelled(kind)}")
        for name in _AT_LEAST_ONE:
            _require(self, name, getattr(self, name) >= 1, "it must be at least 1")
        for name in _POSITIVE:
            _require(self, name, getattr(self, name) > 0, "it must be above 0")
        for name in _NOT_NEGATIVE:
            _require(self, name, getattr(self, name) >= 0, "it must not be negative")
        for name in ("gamma", "gae_lambda"):
            _require(self, name, 0 <= getattr(self, name) <= 1, "it must be from 0 to 1")
        decays = all(0 <= beta < 1 for beta in self.adam_betas)
        _require(self, "adam_betas", decays, "both must be at least 0 and below 1")
        for name in ("time_limit_s", "max_env_steps", "target_win_rate"):
            value = getattr(self, name)
            _require(self, name, value is None or value > 0, "it must be above 0, or none")
        _require(self, "target_win_rate", (self.target_win_rate or 0) < 1, "it must be below 1, or none")
        runners = max(self.num_env_runners, 1)
        even = self.num_battles % runners == 0
        _require(self, "num_battles", even, f"{runners} env runners must share them evenly")
        sampled = self.num_battles * self.rollout_steps
        _require(
            self,
            "minibatch_size",
            self.minibatch_size <= sampled,
            f"a rollout has num_battles * rollout_steps = {sampled}",
        )

    def load_model(self) -> UnitSetPolicyConfig:
        """The model with its overrides.

        Raises:
            ConfigError: unknown model or key, or a value out of range.
            FileNotFoundError: no such model file.
        """
        if self.model.endswith((".yaml", ".yml")):
            model = config_files.load(self.model, UnitSetPolicyConfig)
        else:
            model = config_files.load_named(self.model, UnitSetPolicyConfig)
        return UnitSetPolicyConfig.from_dict(_override(model.to_dict(), self.model_overrides))

    def load_rewards(self) -> RewardWeights:
        """The scenario's own reward with its changes.

        Raises:
            ScenarioError: unknown or wrong scenario.
            ValueError: a change is no KEY=NUMBER, names no weight, or leaves nothing to learn from.
        """
        scenario = load_scenario(self.scenario)
        own = default_rewards(scenario)
        names = [f.name for f in dataclasses.fields(RewardWeights)]
        given: dict[str, float] = {}
        for change in self.rewards:
            name, _, value = change.partition("=")
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
                raise ValueError(f"rewards: {change!r} names no weight; {hint}")
            if name in given:
                raise ValueError(f"rewards: {name} is given twice")
            try:
                given[name] = float(value)
            except ValueError:
                given[name] = math.nan
            if not math.isfinite(given[name]):
                raise ValueError(f"rewards: {change!r} must be {name}=NUMBER, such as {name}=0.5")
        if given.get("score") and scenario.mission is None:
            raise ValueError(f"rewards: score is paid in missions only, and {scenario.name!r} is none")
        changed = dataclasses.replace(own, **given)
        if not any(dataclasses.astuple(changed)):
            raise ValueError("rewards: every weight is 0, which leaves nothing to learn from")
        return changed

    def to_yaml(self) -> str:
        """All settings, for :meth:`load` to read."""
        plain = dict(vars(self)) | {"run_dir": str(self.run_dir)}
        plain |= {name: list(value) for name, value in plain.items() if isinstance(value, tuple)}
        return yaml.safe_dump(plain, sort_keys=False)

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a file of :meth:`to_yaml`'s.

        Raises:
            ValueError: the file does not hold settings of a run.
        """
        try:
            plain = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
        names = {f.name for f in dataclasses.fields(cls)}
        if (
            not isinstance(plain, dict)
            or not plain.keys() <= names
            or not isinstance(plain.get("run_dir"), str)
        ):
            raise ValueError(f"{path} does not hold the settings of a run")
        lists = {name: tuple(value) for name, value in plain.items() if isinstance(value, list)}
        try:
            return cls(**{**plain, **lists, "run_dir": Path(plain["run_dir"])})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


BUDGET_FIELDS = ("time_limit_s", "max_env_steps", "target_win_rate")
"""What a new call may change of a resumed run; all else stays as it was."""

_AT_LEAST_ONE = (
    "num_battles",
    "rollout_steps",
    "minibatch_size",
    "num_epochs",
    "num_threads",
    "torch_threads",
    "evaluation_games",
)
_POSITIVE = ("lr", "lr_end", "adam_eps", "clip", "grad_clip", "checkpoint_interval_s")
_NOT_NEGATIVE = (
    "seed",
    "num_env_runners",
    "evaluation_interval",
    "entropy_coeff",
    "entropy_coeff_end",
    "value_loss_coeff",
)


def build_ppo_config(config: TrainConfig, *, opponent: Opponent | None = None) -> PPOConfig:
    """RLlib's own config for this job, to build or to change first::

        algorithm = build_ppo_config(TrainConfig(scenario="8m")).training(lr=3e-4).build_algo()

    Args:
        config: the job.
        opponent: an agent, or what makes one, in place of the one that ``config`` names.

    Raises:
        ScenarioError: unknown or wrong scenario.
        ConfigError: unknown or wrong model.
        ValueError: unknown opponent, one without units, sides that cannot be swapped, wrong rewards, or a
            target win rate for a mission.
    """
    model = config.load_model()
    if model.memory:
        raise ConfigError(
            "memory is True, but the batched runner carries no latents between steps; train with RLlib's own "
            "runners (PerceiverRLModule on BattleMultiAgentEnv), or set memory: false"
        )
    if config.target_win_rate is not None and load_scenario(config.scenario).mission is not None:
        raise ValueError(
            f"target_win_rate is {config.target_win_rate}, but {config.scenario} is a mission: it has a "
            "score and no winner; leave it out"
        )
    setup = BattleSetup(
        scenario=config.scenario,
        control=config.control,
        opponent=config.opponent if opponent is None else opponent,
        swap_sides=config.swap_sides,
        with_state=model.critic is Critic.STATE,
        num_threads=config.num_threads,
        rewards=config.load_rewards(),
    )
    setup.sides()  # what is wrong is refused here, not first in a runner
    if not isinstance(load_opponent(config.opponent), str) or opponent is not None:
        require_units(load_scenario(config.scenario), 1)
    observation_space, action_space = setup.spaces()
    spec = RLModuleSpec(
        module_class=PerceiverRLModule,
        observation_space=observation_space,
        action_space=action_space,
        model_config={**model.to_dict(), "per_unit_ratio": config.per_unit_ratio},
    )
    rows = setup.observers()  # rows of a train batch that one step of a battle makes
    return (
        PPOConfig()
        .environment(env_config=dict(vars(setup)), disable_env_checking=True)
        .env_runners(
            env_runner_cls=BatchedEnvRunner,
            num_env_runners=config.num_env_runners,
            num_envs_per_env_runner=config.num_battles // max(config.num_env_runners, 1),
            rollout_fragment_length=config.rollout_steps,
        )
        .multi_agent(
            policies={MODULE_ID: (None, observation_space, action_space, {})},
            policy_mapping_fn=_shared_module,
            count_steps_by="agent_steps",
        )
        .rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs={MODULE_ID: spec}))
        .training(
            lr=_falling(config.lr, config.lr_end, config.max_env_steps),
            gamma=config.gamma,
            lambda_=config.gae_lambda,
            clip_param=config.clip,
            vf_clip_param=float("inf"),
            vf_loss_coeff=config.value_loss_coeff,
            entropy_coeff=_falling(config.entropy_coeff, config.entropy_coeff_end, config.max_env_steps),
            use_kl_loss=False,
            grad_clip=config.grad_clip,
            grad_clip_by="global_norm",
            train_batch_size_per_learner=config.num_battles * config.rollout_steps * rows,
            minibatch_size=config.minibatch_size * rows,
            num_epochs=config.num_epochs,
        )
        .learners(
            num_learners=0,
            learner_class=OrderPPOLearner,
            learner_config_dict={"betas": config.adam_betas, "eps": config.adam_eps, "fused": True},
            add_default_connectors_to_learner_pipeline=False,
        )
        .fault_tolerance(restart_failed_env_runners=True)
        .debugging(seed=config.seed)
    )


def _falling(start: float, end: float, steps: int | None) -> float | list[list[float]]:
    """RLlib's notation for a straight line from ``start`` to ``end`` over ``steps`` environment steps."""
    return start if steps is None else [[0, start], [steps, end]]


def _shared_module(*_: Any, **__: Any) -> str:
    return MODULE_ID


def _override(model: dict[str, Any], changes: tuple[str, ...]) -> dict[str, Any]:
    """``model`` with changes such as ``encoder.num_latents=16``; their values are YAML."""
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"model override {change!r} must be KEY=VALUE, such as encoder.num_latents=16")
        *groups, key = path.split(".")
        place = model
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise ValueError(f"model override {change!r}: {group} has no keys below it")
        try:
            place[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"model override {change!r}: {value!r} is no YAML value") from error
    return model


def _is_a(value: object, kind: Any) -> bool:
    """Whether a value is of a field's type. An int is a float, and a bool is no number."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in arguments
    if origin in (Union, UnionType):
        return any(_is_a(value, argument) for argument in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return len(value) == len(kinds) and all(map(_is_a, value, kinds))
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _spelled(kind: Any) -> str:
    """A type as a person writes it."""
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _require(config: TrainConfig, name: str, condition: bool, rule: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {getattr(config, name)!r}; {rule}")
