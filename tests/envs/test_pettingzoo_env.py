"""The PettingZoo front keeps PettingZoo's law and the unit-set contract."""

from __future__ import annotations

import warnings
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from pettingzoo.test import parallel_api_test, parallel_seed_test

from envs.battle.batch import BattleBatch
from envs.battle.pettingzoo_env import BattleParallelEnv
from envs.battle.rules import RewardWeights
from envs.unit_set import Verb, random_orders, validate_observation

SCENARIOS = ("3m", "2s3z", "5m_vs_6m")
CONTROLS = ("unit", "team")


class RandomOpponent:
    """Legal random orders, seeded."""

    def reset(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def act(self, observation):
        return random_orders(observation, self.generator)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("sides", ["first", "second", "both"])
def test_passes_pettingzoos_checkers(control: str, sides: str) -> None:
    make = partial(BattleParallelEnv, "2s3z", control=control, sides=sides, illegal_orders="no_op")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(make(), num_cycles=200)
    parallel_seed_test(make, num_cycles=100)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_observations_are_valid_through_whole_battles(scenario: str, control: str) -> None:
    env = BattleParallelEnv(scenario, control=control, sides="both", with_state=True)
    for seed in range(2):
        observations, _ = env.reset(seed=seed)
        while env.agents:
            observations, *_ = env.step(env.random_orders())
            for agent, observation in observations.items():
                validate_observation(observation, env.observation_space(agent))
                assert env.observation_space(agent).contains(observation)


def test_agents_are_named_after_team_and_unit() -> None:
    assert BattleParallelEnv("5m_vs_6m").possible_agents == [f"team0_{i}" for i in range(5)]
    assert BattleParallelEnv("3m", sides="second", control="team").possible_agents == ["team1"]
    both = BattleParallelEnv("5m_vs_6m", sides="both").possible_agents
    assert both == [f"team0_{i}" for i in range(5)] + [f"team1_{i}" for i in range(6)]


def test_the_dead_leave_with_a_last_observation_and_the_teams_reward() -> None:
    env = BattleParallelEnv("8m", sides="both")
    env.reset(seed=0)
    died = set()
    while env.agents:
        acting = set(env.agents)
        observations, rewards, terminated, truncated, infos = env.step(env.random_orders())
        assert set(observations) == set(rewards) == set(terminated) == set(truncated) == set(infos) == acting
        assert not any(truncated.values())
        for agent in acting:
            assert terminated[agent] == (agent not in env.agents)
            assert rewards[agent] == next(r for other, r in rewards.items() if other[:5] == agent[:5])
            if terminated[agent] and env.agents:
                died.add(agent)
                assert not observations[agent]["unit_mask"].any()
                assert observations[agent]["verb_mask"][0].nonzero()[0].tolist() == [Verb.NO_OP]
    assert died
    assert all(info["outcome"] != "running" for info in infos.values())
    with pytest.raises(gym.error.ResetNeeded):
        env.step({})


def test_units_play_as_in_the_batch() -> None:
    """The front adds and loses nothing: the same seed and orders give the batch's observations."""
    env = BattleParallelEnv("2s3z")
    observations, _ = env.reset(seed=4)
    batch = BattleBatch("2s3z", 1, control="unit", auto_reset="off")
    batch.reset(env._match.batch.seeds)
    while env.agents:
        orders = env.random_orders()
        everyone = np.zeros((1, 5, 2), np.int64)
        for agent, order in orders.items():
            everyone[0, int(agent[-1])] = order
        result = batch.step(everyone)
        observations, rewards, *_ = env.step(orders)
        for agent, observation in observations.items():
            expected = {key: array[0, int(agent[-1])] for key, array in batch.observations[0].items()}
            assert data_equivalence(observation, expected, exact=True)
            assert rewards[agent] == result.rewards[0, 0]


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("sides", ["first", "second", "both"])
def test_every_agent_is_paid_its_own_teams_reward(control: str, sides: str) -> None:
    env = BattleParallelEnv("3m", control=control, sides=sides, rewards=RewardWeights(win=3.0, loss=2.0))
    env.reset(seed=2)
    while env.agents:
        _, rewards, *_ = env.step(env.random_orders())
        for agent, reward in rewards.items():
            side = 0 if agent in [f"team0_{i}" for i in range(3)] + ["team0"] else 1
            assert reward == env._match.batch._result.rewards[0, side]


@pytest.mark.parametrize("control", CONTROLS)
def test_a_seed_gives_the_same_battles_and_battles_differ(control: str) -> None:
    runs = []
    for _ in range(2):
        env = BattleParallelEnv("3m", control=control, opponent=RandomOpponent())
        run = [env.reset(seed=9)]
        while env.agents:
            run.append(env.step(env.random_orders()))
        runs.append([*run, env.reset()])
    assert data_equivalence(runs[0], runs[1], exact=True)
    assert not data_equivalence(runs[0][0][0], runs[0][-1][0])


@pytest.mark.parametrize(("control", "who"), [("unit", "team0_1"), ("team", "team0, unit 1")])
def test_an_illegal_order_is_refused_by_the_agents_name(control: str, who: str) -> None:
    env = BattleParallelEnv("3m", control=control)
    env.reset(seed=0)
    orders = np.array([[Verb.STOP, 0], [Verb.ATTACK, 0], [Verb.STOP, 0]])
    with pytest.raises(ValueError, match=rf"^{who}: ATTACK (is not available now|cannot target row 0)"):
        env.step(
            {"team0": orders} if control == "team" else {f"team0_{i}": orders[i : i + 1] for i in range(3)}
        )


def test_actions_must_come_from_exactly_those_who_act() -> None:
    env = BattleParallelEnv("3m")
    env.reset(seed=0)
    orders = env.random_orders()
    with pytest.raises(ValueError, match=r"missing for \['team0_2'\] and given for \['team1_0'\]"):
        env.step({"team0_0": orders["team0_0"], "team0_1": orders["team0_1"], "team1_0": orders["team0_0"]})
    with pytest.raises(ValueError, match=r"team0_0: its action is \(2,\)"):
        env.step(orders | {"team0_0": np.zeros(2, np.int64)})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sides": "none"}, "first, second, both"),
        ({"sides": "both", "opponent": RandomOpponent()}, "leaves no side"),
        ({"control": "army"}, "team, unit"),
    ],
)
def test_wrong_arguments_are_refused_with_the_way_out(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BattleParallelEnv("3m", **kwargs)


def test_renders_when_asked_to() -> None:
    env = BattleParallelEnv("3m", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture is not None
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert BattleParallelEnv("3m").render() is None
