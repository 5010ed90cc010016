"""Every shipped scenario runs in every front, under both presets: a few steps, and a whole battle where it is
short. What the fronts do beyond that is tested front by front."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from pettingzoo.test import parallel_api_test

import envs  # noqa: F401  (registers the environments)
from envs.battle.batch import BattleBatch, Control, Outcome
from envs.battle.gym_env import BattleEnv, BattleVectorEnv
from envs.battle.pettingzoo_env import BattleParallelEnv
from envs.scenarios import Scenario, load_scenario, scenario_groups, scenario_names
from envs.unit_set import FEATURE_INDEX, Verb, random_orders, validate_observation

NAMES = [name + preset for name in scenario_names() for preset in ("", "@smac")]
UNDER_SMAC = [name for name in NAMES if name.endswith("@smac")]
MISSIONS = scenario_groups()["missions"]
STEPS = 4
UNCHECKED = pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")


def short(name: str, step_limit: int = STEPS) -> Scenario:
    """The scenario with so few steps that it ends."""
    return replace(load_scenario(name), step_limit=step_limit)


def side_by_side(batch: BattleBatch, side: int) -> Iterator[dict[str, NDArray]]:
    """Each observer's observation of a side."""
    observations = batch.observations[side]
    assert observations is not None
    for b in range(batch.num_battles):
        if batch.control is Control.TEAM:
            yield {key: array[b] for key, array in observations.items()}
            continue
        for i in {0, batch.team_sizes[side] // 2, batch.team_sizes[side] - 1}:
            yield {key: array[b, i] for key, array in observations.items()}


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("control", ["team", "unit"])
@pytest.mark.parametrize("name", NAMES)
def test_the_batch(name: str, control: str, with_state: bool) -> None:
    scenario = short(name)
    both = scenario.teams[1].size > 0
    builtin = (None, None if both else "attack-move")
    batches = [
        BattleBatch(scenario, 2, builtin=builtin, control=control, with_state=with_state, auto_reset="off")
        for _ in range(2)
    ]
    generator = np.random.default_rng(0)
    for batch in batches:
        batch.reset(np.array([5, 6]))
    for step in range(STEPS):
        orders = [random_orders(batches[0].masks(side), generator) for side in range(1 + both)]
        results = [batch.step(*orders) for batch in batches]
        assert results[0].done.all() == (step == STEPS - 1)
        for side in range(1 + both):
            first, second = batches[0].observations[side], batches[1].observations[side]
            assert first is not None
            assert second is not None
            assert data_equivalence(first, second, exact=True)
            space = batches[0].observation_space(side)
            for observation in side_by_side(batches[0], side):
                validate_observation(observation, space)
    assert (results[0].outcome == Outcome.TIMEOUT).all()
    if scenario.mission is not None:  # the return of a mission is its score
        scores = batches[0].state.battles["score"]
        np.testing.assert_allclose(results[0].episode_return[:, 0], scores, atol=1e-6)


@UNCHECKED
@pytest.mark.parametrize("name", NAMES)
def test_gymnasium(name: str) -> None:
    env = BattleEnv(short(name), illegal_orders="no_op")
    check_env(env, skip_render_check=True)
    ends = []
    for _ in range(2):
        env.reset(seed=3)
        for _ in range(STEPS):
            observation, _, terminated, truncated, info = env.step(env.random_orders())
            validate_observation(observation, env.observation_space)
        assert (terminated, truncated, info["outcome"], info["length"]) == (True, False, "timeout", STEPS)
        assert ("score" in info) == (name.split("@")[0] in MISSIONS)
        ends.append((observation, info))
    assert data_equivalence(ends[0], ends[1], exact=True)
    assert env.reset()[1]["outcome"] == "running"


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("name", NAMES)
def test_gymnasium_vector(name: str, mode: AutoresetMode) -> None:
    env = BattleVectorEnv(2, short(name), autoreset_mode=mode)
    said = []
    for _ in range(2):
        env.reset(seed=3)
        for step in range(STEPS):
            observations, _, terminated, truncated, infos = env.step(env.random_orders())
            assert terminated.all() == (step == STEPS - 1)
            assert not truncated.any()
        end = infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos
        assert end["outcome"].tolist() == ["timeout"] * 2
        assert ("score" in end) == (name.split("@")[0] in MISSIONS)
        if mode is AutoresetMode.NEXT_STEP:
            observations, _, terminated, _, infos = env.step(env.random_orders())
            assert not terminated.any()
        assert infos["outcome"].tolist() == ["running"] * 2
        assert infos["length"].tolist() == [0] * 2
        for b in range(2):
            one = {key: array[b] for key, array in observations.items()}
            validate_observation(one, env.single_observation_space)
        said.append(observations)
    assert data_equivalence(said[0], said[1], exact=True)


@pytest.mark.parametrize("control", ["team", "unit"])
@pytest.mark.parametrize("name", NAMES)
def test_pettingzoo(name: str, control: str) -> None:
    scenario = short(name)
    sides = "both" if scenario.teams[1].size else "first"
    env = BattleParallelEnv(scenario, control=control, sides=sides)
    seen = []
    for _ in range(2):
        observations, _ = env.reset(seed=3)
        for agent, observation in list(observations.items())[:: max(len(observations) // 4, 1)]:
            validate_observation(observation, env.observation_space(agent))
        while env.agents:
            observations, _, terminated, truncated, infos = env.step(env.random_orders())
        assert all(terminated.values())
        assert not any(truncated.values())
        assert {info["outcome"] for info in infos.values()} == {"timeout"}
        seen.append((observations, infos))
    assert data_equivalence(seen[0], seen[1], exact=True)


@pytest.mark.parametrize("name", [name for name in scenario_names() if load_scenario(name).num_units <= 100])
def test_pettingzoos_own_test(name: str) -> None:
    scenario = short(name)
    for control in ("team", "unit"):
        env = BattleParallelEnv(scenario, control=control, illegal_orders="no_op")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            parallel_api_test(env, num_cycles=STEPS + 1)


@pytest.mark.parametrize("control", ["team", "unit"])
@pytest.mark.parametrize("name", scenario_names())
def test_rllib(name: str, control: str) -> None:
    pytest.importorskip("ray.rllib")
    from envs.battle.rllib_env import BattleMultiAgentEnv

    config = {"scenario": short(name), "control": control, "illegal_orders": "no_op"}
    env = BattleMultiAgentEnv(config)
    observations, _ = env.reset(seed=1)
    over = {"__all__": False}
    generator = np.random.default_rng(0)
    while not over["__all__"]:
        assert set(observations) >= set(env.agents)
        orders = {agent: random_orders(observations[agent], generator) for agent in env.agents}
        observations, rewards, over, truncated, infos = env.step(orders)
        assert set(observations) == set(rewards) == set(infos)
        assert not any(truncated.values())
    assert not env.agents
    assert all(over.values())


@pytest.mark.parametrize("name", UNDER_SMAC)
def test_smacs_preset_offers_smacs_actions(name: str) -> None:
    """Four directions, STOP and ATTACK, no NO_OP for the living; the reward of a battle won whole is 20."""
    batch = BattleBatch(name, 1)
    verbs = batch.masks(0)["verb_mask"][0]
    alive = batch.state.units["alive"][0, : batch.team_sizes[0]]
    assert alive.any()
    other = [Verb.HOLD, Verb.ATTACK_MOVE, *(Verb[f"MOVE_{d}"] for d in ("NORTHEAST", "SOUTHWEST"))]
    assert not verbs[:, other].any()
    np.testing.assert_array_equal(verbs[:, Verb.NO_OP], ~alive)
    assert verbs[alive][:, Verb.STOP].all()
    if batch.scenario.mission is None:
        weights = batch.rewards
        assert weights.damage + weights.kill + weights.win == pytest.approx(20)
        assert (weights.damage_taken, weights.loss, weights.score) == (0, 0, 0)


def test_illegal_orders_become_stop_where_nobody_may_do_nothing() -> None:
    env = BattleEnv("3m@smac", illegal_orders="no_op")
    env.reset(seed=0)
    observation, *_, info = env.step(np.array([[Verb.NO_OP, 0], [99, 0], [Verb.STOP, 0]]))
    assert info["illegal_orders"] == 2
    env.reset(seed=0)
    assert data_equivalence(observation, env.step(np.tile([Verb.STOP, 0], (3, 1)))[0], exact=True)


class Nobody:
    """An opponent that never gets to act."""

    def act(self, observation):
        raise AssertionError


@pytest.mark.parametrize("name", ["move_to_beacon", "collect_mineral_shards"])
def test_a_side_without_units_is_the_engines(name: str) -> None:
    message = (
        rf"scenario '{name}' has no units on side 1.*play side 0 and leave the opponent at 'attack-move'"
    )
    for make in (
        partial(BattleBatch, name, 1, builtin=("attack-move", None)),
        partial(BattleEnv, name, side=1),
        partial(BattleEnv, name, opponent=Nobody()),
        partial(BattleVectorEnv, 2, name, opponent=Nobody()),
        partial(BattleParallelEnv, name, sides="both"),
        partial(BattleParallelEnv, name, sides="second"),
        partial(BattleParallelEnv, name, opponent=Nobody()),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    env = BattleParallelEnv(name)
    assert env.possible_agents == [f"team0_{i}" for i in range(load_scenario(name).teams[0].size)]


def test_a_missions_score_is_told_as_it_grows() -> None:
    """One shard picked up by walking onto it: the reward, the score, and nobody has lost or won."""
    env = BattleEnv("collect_mineral_shards")
    env.reset(seed=0)
    units = env._match.batch.state.units
    units["x"][0, 2], units["y"][0, 2] = units["x"][0, 0] + 1.5, units["y"][0, 0]
    units["x"][0, 3:], units["y"][0, 3:] = 22.6, 20.6  # out of the way
    units["x"][0, 1], units["y"][0, 1] = 43.0, 35.0
    env._match.batch.refresh()
    _, reward, _, _, info = env.step(np.array([[Verb.MOVE_EAST, 0], [Verb.STOP, 0]]))
    assert (reward, info["score"], info["outcome"]) == (1.0, 1.0, "running")
    assert info["survivors"].tolist() == [2, 0]  # a shard is nobody's


def test_agents_of_the_fallen_wait_for_reinforcements() -> None:
    """Rows that are not on the field yet have agents, who have nothing to do and stay until the end."""
    env = BattleParallelEnv("defeat_roaches")
    observations, _ = env.reset(seed=0)
    assert len(env.agents) == 45
    assert observations["team0_44"]["verb_mask"][0].nonzero()[0].tolist() == [Verb.NO_OP]
    batch = env._match.batch
    joined = False
    while env.agents:
        if not joined:
            batch.state.units["health"][0, 45:49] = 0.5
        assert len(env.agents) == 45
        orders = {
            agent: np.array([[verb if observation["verb_mask"][0, verb] else Verb.NO_OP, 0]])
            for agent, observation in observations.items()
            for verb in [Verb.ATTACK_MOVE]
        }
        observations, *_ = env.step(orders)
        joined = joined or bool(observations["team0_9"]["controlled_mask"][0])
    assert joined


def test_scenarios_are_registered_by_name() -> None:
    env = gym.make("PerceiverPolicy/Battle-v0", scenario="3m@smac")
    assert env.reset(seed=0)[1]["outcome"] == "running"


@pytest.mark.parametrize("name", ["defeat_roaches", "defeat_zerglings_and_banelings"])
def test_attack_moves_lead_to_the_enemys_end_wherever_it_is(name: str) -> None:
    """A coin decides at which end each team stands; both walk towards each other, whoever plays."""
    for builtin in (("attack-move", "attack-move"), (None, "attack-move"), (None, None)):
        batch = BattleBatch(name, 16, builtin=builtin, auto_reset="off")
        size = batch.team_sizes[0]

        def gap(batch: BattleBatch = batch, size: int = size) -> NDArray[np.float64]:
            x = np.where(batch.state.units["alive"], batch.state.units["x"], np.nan)
            return np.nanmean(x[:, :size], 1) - np.nanmean(x[:, size:], 1)

        before = gap()
        assert 0 < (before > 0).sum() < 16
        orders: list[NDArray | None] = []
        for side in (0, 1):
            given = None
            if builtin[side] is None:
                allowed = batch.masks(side)["verb_mask"][..., Verb.ATTACK_MOVE]
                given = np.zeros((*allowed.shape, 2), np.int64)
                given[..., 0] = np.where(allowed, Verb.ATTACK_MOVE, Verb.NO_OP)
            orders.append(given)
        batch.step(*orders)
        assert (np.abs(gap()) < np.abs(before) - 1.5).all()
        assert (np.sign(gap()) == np.sign(before)).all()


@pytest.mark.parametrize("control", ["team", "unit"])
@pytest.mark.parametrize("name", MISSIONS)
def test_only_the_hunt_has_fog(name: str, control: str) -> None:
    for preset in ("", "@smac"):
        batch = BattleBatch(name + preset, 8, control=control)
        observation = batch.observations[0]
        assert observation is not None
        shown = observation["unit_mask"].reshape(8, -1, batch.num_units)
        alive = batch.state.units["alive"]
        everything = np.array_equal(shown[:, 0], alive)
        assert everything == (name != "find_and_defeat_zerglings")
        sight = observation["units"].reshape(8, -1, *observation["units"].shape[-2:])[:, 0, 0]
        assert (sight[:, FEATURE_INDEX["sight"]] == np.float32(0.9)).all()  # the marine's own
