"""What a training job is: one dataclass that holds the defaults, is the command line and documents both.

The defaults are a recipe for two CPU cores: many battles, short rollouts, small minibatches.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from envs.battle.rules import RewardWeights
from envs.battle.tactics import DEFAULT
from envs.scenarios import Scenario, ScenarioError, load_scenario
from perceiver_policy import config_files
from perceiver_policy.config import ConfigError
from perceiver_policy.policy_config import Critic, UnitSetPolicyConfig
from training.mixture import parse_mixture
from training.rl.curriculum import Kind
from training.rl.reward_changes import change_rewards


@dataclass(frozen=True)
class TrainConfig:
    """A training job. Steps are environment steps of 8 game loops, of one battle."""

    scenario: str | tuple[str, ...] = "3m"
    """A scenario's name, or the path of a scenario file. Several make a mixture: 3m 8m=2 2s3z, smac,
    marine_1-8 or the path of a mixture file; docs/mixtures.md."""
    curriculum: Kind = "none"
    """How the battles follow the win rates of a mixture: contested prefers scenarios that are won half of the
    time, progress those whose win rate moves, ladder opens one after the other; none keeps to the weights."""
    curriculum_interval: int = 20
    """Iterations between two looks of the curriculum; where it moves battles, all begin anew."""
    opponent: str = DEFAULT
    """Who plays the other side: inside the engine attack-move, its strengths attack-move-easy, -medium and
    -hard, focus-fire, kite, retreat-regroup or split, or mixed, which draws one of these for each battle;
    scripted:NAME; policy:NAME; or a policy's folder. The engine's flank, hit-and-run and ambush, drawn by
    black-box, are meant for evaluation."""
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
    """Go on with the run in run_dir, with its settings; of this call only a budget and places to run at other
    than the default count. RLlib's checkpoints are pickles: resume your own, not folders from elsewhere."""

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
    init_from: str | None = None
    """Start with the weights of policy:NAME (perceiver-policy policies lists them), or of the folder of an
    exported policy or of a run, of the same model; not with its optimizer. Default: from chance."""

    algorithm: Literal["ppo", "mappo", "appo", "impala"] = "ppo"
    """ppo: sample, learn, sample; with control unit it is IPPO. mappo: ppo with critic=state and
    normalize_values. appo: PPO's clipped loss on rollouts of env runners that do not wait for the learner,
    corrected by V-trace. impala: the same without the clip, in one pass over each rollout. These two
    need num_env_runners."""
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
    normalize_values: bool = False
    """Take the value loss of returns that running statistics bring to mean 0 and deviation 1 (PopArt)."""
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
    num_learners: int = 0
    """Processes that learn, which share each rollout and average their gradients; 0: this one learns."""
    num_gpus_per_learner: float = 0
    """GPUs of each process that learns; less than 1 to share one. Sampling stays on CPUs."""
    num_cpus_per_env_runner: float = 1
    """CPUs that Ray keeps for each process that samples; give num_threads where those are more than 1."""
    ray_address: str = "local"
    """local: a Ray of this job's own. auto: the running cluster that this machine belongs to. HOST:PORT of a
    cluster's head: that one. Env runners and learners then go to whatever machines have room."""
    num_threads: int = 1
    """Threads of the engine in each sampling process."""
    torch_threads: int = 1
    """Threads of torch in this process. 2 are faster by a quarter on two idle cores, and many times slower
    where something else needs one of them."""

    evaluation_interval: int = 20
    """Iterations between evaluations with greedy orders; 0: none."""
    evaluation_games: int = 1000
    """Battles of an evaluation; of a mixture, shared out evenly among its scenarios."""
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
        self._require_shares()
        sampled = self.num_battles * self.rollout_steps
        _require(
            self,
            "minibatch_size",
            self.minibatch_size <= sampled,
            f"a rollout has num_battles * rollout_steps = {sampled}",
        )

    def _require_shares(self) -> None:
        """Every runner and learner must have as much as the others."""
        runners, learners = max(self.num_env_runners, 1), max(self.num_learners, 1)
        shares = math.lcm(runners, learners)
        even = self.num_battles % shares == 0
        _require(
            self, "num_battles", even, f"{runners} env runners and {learners} learners must share them evenly"
        )
        even = self.minibatch_size % learners == 0
        _require(self, "minibatch_size", even, f"{learners} learners must share it evenly")
        if self.algorithm in ("ppo", "mappo"):
            return
        _require(
            self,
            "num_env_runners",
            self.num_env_runners > 0,
            f"{self.algorithm} samples in other processes: give at least 1, or train with ppo",
        )
        _require(
            self,
            "num_learners",
            self.num_learners <= 1,
            f"{self.algorithm} has one learner, in this process (0) or its own (1), as RLlib drops batches "
            "of a learner that is behind, for which the others would wait for ever; ppo takes any number",
        )

    @property
    def normalizes_values(self) -> bool:
        """Whether the value loss is of normalised returns, as was asked for or as the algorithm wants it."""
        return self.normalize_values or self.algorithm == "mappo"

    def load_model(self) -> UnitSetPolicyConfig:
        """The model with its overrides; under mappo its critic reads the state.

        Raises:
            ConfigError: unknown model or key, a value out of range, or an override that takes the state from
                mappo's critic.
            FileNotFoundError: no such model file.
        """
        if self.model.endswith((".yaml", ".yml")):
            model = config_files.load(self.model, UnitSetPolicyConfig)
        else:
            model = config_files.load_named(self.model, UnitSetPolicyConfig)
        centralised = self.algorithm == "mappo"
        changes = ("critic=state", *self.model_overrides) if centralised else self.model_overrides
        changed = UnitSetPolicyConfig.from_dict(_override(model.to_dict(), changes))
        if centralised and changed.critic is not Critic.STATE:
            raise ConfigError(f"critic is {changed.critic.value!r}; mappo's is 'state', ppo takes any")
        return changed

    @property
    def scenarios(self) -> list[Scenario]:
        """The scenario, or those of the mixture.

        Raises:
            ScenarioError: unknown or wrong, or they make no mixture.
        """
        return [load_scenario(name) for name in parse_mixture(self.scenario)]

    @property
    def only_scenario(self) -> str:
        """The scenario as it was named.

        Raises:
            ScenarioError: there is a mixture, or the scenario is unknown or wrong.
        """
        names = list(parse_mixture(self.scenario))
        if len(names) > 1:
            raise ScenarioError(f"scenario names {len(names)} scenarios; name one of them here")
        return names[0]

    def load_rewards(self) -> dict[str, RewardWeights]:
        """By scenario's name: its own reward with the changes.

        Raises:
            ScenarioError: unknown or wrong scenario.
            ValueError: a change is no KEY=NUMBER, names no weight, or leaves nothing to learn from.
        """
        return {scenario.name: change_rewards(scenario, self.rewards) for scenario in self.scenarios}

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
PLACE_FIELDS = (
    "num_env_runners",
    "num_learners",
    "num_gpus_per_learner",
    "num_cpus_per_env_runner",
    "ray_address",
)
"""How much, and where: what a new call may change of a resumed run. All else stays as it was."""

_AT_LEAST_ONE = (
    "num_battles",
    "rollout_steps",
    "minibatch_size",
    "num_epochs",
    "num_threads",
    "torch_threads",
    "evaluation_games",
    "curriculum_interval",
)
_POSITIVE = (
    "lr",
    "lr_end",
    "adam_eps",
    "clip",
    "grad_clip",
    "checkpoint_interval_s",
    "num_cpus_per_env_runner",
)
_NOT_NEGATIVE = (
    "seed",
    "num_env_runners",
    "num_learners",
    "num_gpus_per_learner",
    "evaluation_interval",
    "entropy_coeff",
    "entropy_coeff_end",
    "value_loss_coeff",
)


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
