"""The same job on RLlib's own path: :class:`BattleMultiAgentEnv`, its episodes and its connectors."""

from __future__ import annotations

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner

from envs.battle.rllib_env import BattleMultiAgentEnv
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.seats import BattleSetup


def stock_config(config: TrainConfig, num_envs: int) -> AlgorithmConfig:
    """What :func:`build_algorithm_config` makes, with the module and all its settings, on RLlib's own
    environments, runner and connectors. A rollout has as many environment steps as the job's, from fewer
    environments over more steps.

    Args:
        config: the job: of one scenario, from the first side, with an opponent inside the engine.
        num_envs: environments of the one runner.

    Raises:
        ValueError: they cannot share a rollout evenly.
    """
    sampled = config.num_battles * config.rollout_steps
    if sampled % num_envs:
        raise ValueError(
            f"num_envs is {num_envs}; a rollout of {sampled} steps must be shared evenly among them"
        )
    algorithm = build_algorithm_config(config)
    setup = BattleSetup(**algorithm.env_config)
    observers = setup.observers(setup.scenarios[0])
    (rewards,) = config.load_rewards().values()
    algorithm.env_config = {}  # environment() would add to what is there
    return (
        algorithm.environment(
            BattleMultiAgentEnv,
            env_config={
                "scenario": config.only_scenario,
                "control": config.control,
                "opponent": config.opponent,
                "rewards": rewards,
                "with_state": setup.with_state,
            },
        )
        .env_runners(
            env_runner_cls=MultiAgentEnvRunner,
            num_envs_per_env_runner=num_envs,
            rollout_fragment_length=sampled * observers // num_envs,  # in steps of agents, as is all else
        )
        .training(minibatch_size=config.minibatch_size * observers)
        .learners(add_default_connectors_to_learner_pipeline=True)
    )
