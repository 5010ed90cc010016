"""The RLlib front: RLlib's checks pass, its stock runner samples whole battles, seeds hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence

pytest.importorskip("ray.rllib")

from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.pre_checks.env import check_multiagent_environments

from envs.battle.pettingzoo_env import BattleParallelEnv
from envs.battle.rllib_env import BattleMultiAgentEnv
from envs.unit_set import random_orders


@pytest.mark.parametrize("control", ["unit", "team"])
def test_passes_rllibs_check(control: str) -> None:
    env = BattleMultiAgentEnv({"scenario": "3m", "control": control, "illegal_orders": "no_op"})
    check_multiagent_environments(env)


def test_says_what_the_parallel_env_says() -> None:
    config = {"scenario": "2s3z", "sides": "both"}
    ours, theirs = BattleMultiAgentEnv(config), BattleParallelEnv(**config)
    assert data_equivalence(ours.reset(seed=3), theirs.reset(seed=3), exact=True)
    while theirs.agents:
        orders = theirs.random_orders()
        observations, rewards, terminated, truncated, infos = ours.step(orders)
        assert terminated.pop("__all__") == (not ours.agents)
        assert truncated.pop("__all__") is False
        said = (observations, rewards, terminated, truncated, infos)
        assert data_equivalence(said, theirs.step(orders), exact=True)
        assert ours.agents == theirs.agents


def test_workers_with_one_seed_play_different_battles() -> None:
    observed = []
    for worker in (1, 2):
        env = BattleMultiAgentEnv(EnvContext({"scenario": "3m"}, worker_index=worker))
        observed.append(env.reset(seed=5 - worker)[0])  # as RLlib seeds environment 1 of one, 0 of the other
        assert data_equivalence(env.reset(seed=5 - worker)[0], observed[-1], exact=True)
    env = BattleMultiAgentEnv(EnvContext({"scenario": "3m"}, worker_index=2))
    assert not data_equivalence(env.reset(seed=4)[0], observed[0])


@pytest.mark.parametrize(
    ("key", "hint"), [("scenaro", "scenario"), ("opponnent", "opponent"), ("xyzzy", "known")]
)
def test_unknown_keys_are_refused_by_name_with_the_nearest(key: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"unknown key {key!r} in env_config; .*{hint}"):
        BattleMultiAgentEnv({key: "3m"})


class LegalRandomModule(TorchRLModule):
    """Answers observations with random legal orders."""

    def setup(self) -> None:
        self.generator = np.random.default_rng(0)

    def _forward(self, batch, **kwargs):
        masks = {key: batch[Columns.OBS][key].numpy() for key in ("verb_mask", "target_mask")}
        return {Columns.ACTIONS: torch.from_numpy(random_orders(masks, self.generator))}


@pytest.fixture(scope="module")
def episodes() -> Iterator[list[MultiAgentEpisode]]:
    """Whole battles sampled by RLlib's own runner, without starting Ray; an illegal order would raise."""
    config = (
        PPOConfig()
        .environment(BattleMultiAgentEnv, env_config={"scenario": "5m_vs_6m"}, disable_env_checking=True)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .multi_agent(policies={"shared"}, policy_mapping_fn=lambda agent, episode, **kwargs: "shared")
        .rl_module(
            rl_module_spec=MultiRLModuleSpec(rl_module_specs={"shared": RLModuleSpec(LegalRandomModule)})
        )
        .debugging(seed=0)
    )
    runner = MultiAgentEnvRunner(config=config, worker_index=0)
    yield runner.sample(num_episodes=4)
    runner.stop()


def test_rllib_samples_whole_battles(episodes: list[MultiAgentEpisode]) -> None:
    assert len(episodes) >= 4
    for episode in episodes:
        assert episode.is_terminated
        assert set(episode.agent_ids) == {f"team0_{i}" for i in range(5)}


def test_every_agent_has_its_last_observation_and_reward(episodes: list[MultiAgentEpisode]) -> None:
    lengths = set()
    for episode in episodes:
        for agent in episode.agent_episodes.values():
            assert agent.is_terminated
            observations, steps = agent.get_observations()["units"], len(agent)
            assert len(observations) == steps + 1
            assert len(agent.get_rewards()) == len(agent.get_actions()) == steps
            lengths.add(len(agent))
        # The team's reward: agents that act in the same step are paid the same.
        rewards = [agent.get_rewards() for agent in episode.agent_episodes.values()]
        longest = max(rewards, key=len)
        for paid in rewards:
            np.testing.assert_array_equal(paid, longest[: len(paid)])
    assert len(lengths) > 1  # some died before others
