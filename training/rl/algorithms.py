"""From a job to RLlib's own config: which algorithm, with which runner, module, learner and connectors."""

from __future__ import annotations

import math
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from agents.roster import load_opponent
from envs.battle.batch import require_units
from perceiver_policy.policy_config import Critic
from perceiver_policy.rl_module import PerceiverRLModule
from training.rl.config import TrainConfig
from training.rl.learner import OrderPPOLearner
from training.rl.rollout import MODULE_ID, BatchedEnvRunner
from training.rl.seats import BattleSetup, Opponent
from training.rl.vtrace_learner import OrderVTraceLearner

_SAMPLE_TIMEOUT_S = 600.0
"""For a rollout. The first one on a machine may wait minutes for the simulator's compilation."""
_HEALTH_PROBE_TIMEOUT_S = 0.5
"""For a sign of life of an env runner that was lost. It is asked for before every iteration: where a machine
stays away, this is what each one then takes longer."""


def build_algorithm_config(
    config: TrainConfig,
    *,
    opponent: Opponent | None = None,
    module_class: type[PerceiverRLModule] = PerceiverRLModule,
) -> AlgorithmConfig:
    """RLlib's own config for this job, to build or to change first::

        algorithm = build_algorithm_config(TrainConfig(scenario="8m")).training(lr=3e-4).build_algo()

    Args:
        config: the job.
        opponent: an agent, or what makes one, in place of the one that ``config`` names.
        module_class: of the policy's module.

    Returns:
        A ``PPOConfig``, ``APPOConfig`` or ``IMPALAConfig``.

    Raises:
        ScenarioError: unknown or wrong scenario.
        ConfigError: unknown or wrong model.
        ValueError: unknown opponent, one without units, sides that cannot be swapped, wrong rewards, or a
            target win rate for a mission.
    """
    model = config.load_model()
    scenarios = config.scenarios
    if config.target_win_rate is not None and scenarios[0].mission is not None:
        raise ValueError(
            f"target_win_rate is {config.target_win_rate}, but {config.scenario} is a mission: it has a "
            "score and no winner; leave it out"
        )
    if config.curriculum != "none" and len(scenarios) == 1:
        raise ValueError(
            f"curriculum is {config.curriculum!r}, but {scenarios[0].name} is a single scenario; name "
            "several, or leave it out"
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
    setup.allocation(config.num_battles)  # what is wrong is refused here, not first in a runner
    for scenario in scenarios:
        setup.sides(scenario)
        if not isinstance(load_opponent(config.opponent), str) or opponent is not None:
            require_units(scenario, 1)
    observation_space, action_space = setup.spaces()
    spec = RLModuleSpec(
        module_class=module_class,
        observation_space=observation_space,
        action_space=action_space,
        model_config={
            **model.to_dict(),
            "per_unit_ratio": config.per_unit_ratio,
            "normalize_values": config.normalizes_values,
        },
    )
    algorithm = _ppo(config, setup) if config.algorithm in ("ppo", "mappo") else _asynchronous(config, setup)
    return (
        algorithm.environment(env_config=dict(vars(setup)), disable_env_checking=True)
        .env_runners(
            env_runner_cls=BatchedEnvRunner,
            num_env_runners=config.num_env_runners,
            num_envs_per_env_runner=config.num_battles // max(config.num_env_runners, 1),
            rollout_fragment_length=config.rollout_steps,
            num_cpus_per_env_runner=config.num_cpus_per_env_runner,
            sample_timeout_s=_SAMPLE_TIMEOUT_S,
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
            vf_loss_coeff=config.value_loss_coeff,
            entropy_coeff=_falling(config.entropy_coeff, config.entropy_coeff_end, config.max_env_steps),
            grad_clip=config.grad_clip,
            grad_clip_by="global_norm",
            num_epochs=1 if config.algorithm == "impala" else config.num_epochs,
        )
        .learners(
            num_learners=config.num_learners,
            num_gpus_per_learner=config.num_gpus_per_learner,
            learner_class=_LEARNERS[config.algorithm],
            learner_config_dict={"betas": config.adam_betas, "eps": config.adam_eps, "fused": True},
            add_default_connectors_to_learner_pipeline=False,
        )
        # The critic's statistics are equal on all learners as it is; to hand them out before each forward
        # pass would change them under a gradient that goes through several, as that of several sizes does.
        .framework(torch_ddp_kwargs={"broadcast_buffers": False})
        .fault_tolerance(
            restart_failed_env_runners=True, env_runner_health_probe_timeout_s=_HEALTH_PROBE_TIMEOUT_S
        )
        .debugging(seed=config.seed)
    )


def resources(config: TrainConfig) -> dict[str, float]:
    """CPUs and GPUs that the job's processes ask Ray for, beside the one that calls :func:`train`."""
    # RLlib gives a learner with a GPU no CPU of its own.
    with_gpu = config.num_gpus_per_learner > 0
    return {
        "CPU": config.num_env_runners * config.num_cpus_per_env_runner
        + (0 if with_gpu else config.num_learners),
        "GPU": config.num_learners * config.num_gpus_per_learner,
    }


_LEARNERS = {
    "ppo": OrderPPOLearner,
    "mappo": OrderPPOLearner,
    "appo": OrderVTraceLearner,
    "impala": OrderVTraceLearner,
}


def _ppo(config: TrainConfig, setup: BattleSetup) -> PPOConfig:
    """What only PPO has. The train batch is in rows, of which every observer's step is one."""
    num_learners = max(config.num_learners, 1)
    return PPOConfig().training(
        lambda_=config.gae_lambda,
        clip_param=config.clip,
        vf_clip_param=math.inf,
        use_kl_loss=False,
        train_batch_size_per_learner=config.num_battles
        * config.rollout_steps
        * _least_observers(setup)
        // num_learners,
        minibatch_size=config.minibatch_size // num_learners,
    )


def _asynchronous(config: TrainConfig, setup: BattleSetup) -> IMPALAConfig:
    """What IMPALA and APPO have: rollouts come from runners that do not wait for the learner.

    The train batch is in environment steps. An iteration is over when as many were sampled as in one of PPO.
    """
    sampled = config.num_battles * config.rollout_steps
    algorithm: IMPALAConfig = IMPALAConfig() if config.algorithm == "impala" else APPOConfig()
    algorithm.training(
        train_batch_size_per_learner=sampled,
        # RLlib wants whole rollouts of a battle.
        minibatch_size=max(config.minibatch_size // config.rollout_steps, 1) * config.rollout_steps,
        timeout_s_sampler_manager=_WAIT_S,
    )
    # What the loss is told beyond RLlib's own settings of the two, since it is PPO's.
    clip = config.clip if config.algorithm == "appo" else math.inf
    loss = {"lambda_": config.gae_lambda, "clip_param": clip, "use_kl_loss": False}
    for name, value in (loss | {"use_critic": True, "vf_clip_param": math.inf}).items():
        setattr(algorithm, name, value)
    return algorithm.reporting(
        min_time_s_per_iteration=None, min_sample_timesteps_per_iteration=sampled * _least_observers(setup)
    )


def _least_observers(setup: BattleSetup) -> int:
    """That a step of a battle has, in any of the scenarios. More rows than asked for do no harm; fewer would
    have RLlib sample again."""
    return min(setup.observers(scenario) for scenario in setup.scenarios)


_WAIT_S = 0.05
"""How long the driver of an asynchronous algorithm sleeps for rollouts; RLlib's default asks without a pause,
and takes a core for it."""


def _falling(start: float, end: float, steps: int | None) -> float | list[list[float]]:
    """RLlib's notation for a straight line from ``start`` to ``end`` over ``steps`` environment steps."""
    return start if steps is None else [[0, start], [steps, end]]


def _shared_module(*_: Any, **__: Any) -> str:
    return MODULE_ID
