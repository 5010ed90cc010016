"""The Gymnasium fronts keep Gymnasium's law and the unit-set contract."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import envs  # noqa: F401  (registers the environments)
from envs.battle.gym_env import BattleEnv, BattleVectorEnv
from envs.unit_set import Verb, random_orders, validate_observation

ENV_ID = "PerceiverPolicy/Battle-v0"
SCENARIOS = ("3m", "2s3z", "5m_vs_6m")


class RandomOpponent:
    """Legal random orders, seeded."""

    name = "random"

    def reset(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def act(self, observation):
        return random_orders(observation, self.generator)


def play(env: BattleEnv, seed: int | None) -> list[tuple]:
    """One battle of random legal orders: all that the environment said."""
    observation, info = env.reset(seed=seed)
    said: list[tuple] = [(observation, info)]
    while info["outcome"] == "running":
        observation, *rest, info = env.step(env.random_orders())
        said.append((observation, *rest, info))
    return said


@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_passes_gymnasiums_checker(scenario: str) -> None:
    env = gym.make(ENV_ID, scenario=scenario, illegal_orders="no_op", render_mode="rgb_array")
    check_env(env.unwrapped)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("side", [0, 1])
def test_observations_are_valid_through_whole_battles(scenario: str, side: int) -> None:
    env = BattleEnv(scenario, side=side, with_state=True)
    for seed in range(3):
        for observation, *_ in play(env, seed):
            validate_observation(observation, env.observation_space)
            assert env.observation_space.contains(observation)


def test_a_seed_gives_the_same_battles_and_battles_differ() -> None:
    first, second = BattleEnv("2s3z", opponent=RandomOpponent()), BattleEnv("2s3z", opponent=RandomOpponent())
    once = [play(first, 5), play(first, None)]
    again = [play(second, 5), play(second, None)]
    assert data_equivalence(once, again, exact=True)
    assert not data_equivalence(once[0][0][0], once[1][0][0])
    assert not data_equivalence(play(first, 6)[0][0], once[0][0][0])


def test_observations_are_the_callers_own() -> None:
    env = BattleEnv("3m")
    observation, _ = env.reset(seed=0)
    kept = {key: array.copy() for key, array in observation.items()}
    env.step(env.random_orders())
    assert data_equivalence(observation, kept, exact=True)


def test_the_end_of_a_battle_is_told_in_words_and_terminates() -> None:
    env = BattleEnv("3m")
    *_, (_, _, terminated, truncated, info) = play(env, 0)
    assert (terminated, truncated, info["outcome"]) == (True, False, "loss")
    assert info["survivors"][0] == 0 < info["survivors"][1]
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(env.random_orders())


def test_a_timeout_terminates_and_is_no_win() -> None:
    env = BattleEnv("3m", opponent=HoldingOpponent())
    env.reset(seed=0)
    for _ in range(60):
        _, _, terminated, truncated, info = env.step(np.zeros((3, 2), np.int64))
    assert (terminated, truncated, info["outcome"], info["length"]) == (True, False, "timeout", 60)


class HoldingOpponent:
    """Orders everybody to go on doing nothing."""

    def act(self, observation):
        return np.zeros((*observation["controlled"].shape, 2), np.int64)


def test_both_sides_agree_on_who_won() -> None:
    for side in (0, 1):
        env = BattleEnv("3m", side=side, opponent=HoldingOpponent())
        observation, info = env.reset(seed=1)
        while info["outcome"] == "running":
            verb = np.where(observation["verb_mask"][:, Verb.ATTACK_MOVE], Verb.ATTACK_MOVE, Verb.NO_OP)
            observation, *_, info = env.step(np.stack([verb, np.zeros_like(verb)], -1))
        assert info["outcome"] == "win"


def test_an_illegal_order_is_refused_by_name_and_nothing_moves() -> None:
    env = BattleEnv("3m")
    before, _ = env.reset(seed=0)
    orders = np.array([[Verb.NO_OP, 0], [Verb.NO_OP, 0], [Verb.ABILITY, 1]])
    with pytest.raises(ValueError, match=r"unit 2: ABILITY is not available now; available: NO_OP, STOP"):
        env.step(orders)
    after = env.step(np.zeros((3, 2), np.int64))[0]
    env.reset(seed=0)
    assert data_equivalence(after, env.step(np.zeros((3, 2), np.int64))[0], exact=True)
    assert not data_equivalence(before, after)


def test_illegal_orders_can_become_no_ops_and_are_counted() -> None:
    env = BattleEnv("3m", illegal_orders="no_op")
    env.reset(seed=0)
    observation, *_, info = env.step(np.array([[Verb.STOP, 0], [99, 0], [Verb.ATTACK, 0]]))
    assert info["illegal_orders"] == 2
    env.reset(seed=0)
    expected, *_, info = env.step(np.array([[Verb.STOP, 0], [Verb.NO_OP, 0], [Verb.NO_OP, 0]]))
    assert info["illegal_orders"] == 0
    assert data_equivalence(observation, expected, exact=True)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"side": 2}, "side is 2"),
        ({"control": "unit"}, "BattleParallelEnv"),
        ({"opponent": "nobody"}, "an object with act.* one of: attack-move, "),
        ({"illegal_orders": "maybe"}, "raise, no_op"),
        ({"render_mode": "ansi"}, "rgb_array"),
        ({"scenario": "3n"}, "3m"),
    ],
)
def test_wrong_arguments_are_refused_with_the_way_out(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BattleEnv(**kwargs)


def vector(mode: AutoresetMode, num_envs: int = 4, **kwargs) -> gym.vector.VectorEnv:
    return gym.make_vec(ENV_ID, num_envs=num_envs, autoreset_mode=mode, **kwargs)


def test_make_vec_batches_spaces_and_observations() -> None:
    env = vector(AutoresetMode.NEXT_STEP, num_envs=64, scenario="8m")
    assert isinstance(env, BattleVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    observations, infos = env.reset(seed=0)
    assert env.observation_space.contains(observations)
    assert env.action_space.shape == (64, 8, 2)
    assert infos["_outcome"].all()
    assert len({units.tobytes() for units in observations["units"]}) == 64


def test_a_vectors_environment_plays_the_battle_of_the_single_one() -> None:
    several, single = vector(AutoresetMode.NEXT_STEP, num_envs=3, scenario="2s3z"), BattleEnv("2s3z")
    observations, _ = several.reset(seed=10)
    orders = several.unwrapped.random_orders()
    stepped = several.step(orders)
    for i in range(3):
        observation, _ = single.reset(seed=10 + i)
        assert data_equivalence(
            observation, {key: array[i] for key, array in observations.items()}, exact=True
        )
        observation, reward, *_ = single.step(orders[i])
        assert data_equivalence(observation, {key: array[i] for key, array in stepped[0].items()}, exact=True)
        assert reward == stepped[1][i]


def test_autoreset_modes_tell_the_same_battles() -> None:
    """SAME_STEP shows in one step what NEXT_STEP shows in two: the last observation and the next first."""
    later, at_once = vector(AutoresetMode.NEXT_STEP, num_envs=1), vector(AutoresetMode.SAME_STEP, num_envs=5)
    later.reset(seed=3)
    observations, _ = at_once.reset(seed=3)
    generator = np.random.default_rng(0)
    ended = 0
    while ended < 2:
        orders = random_orders(observations, generator)
        first = later.step(orders[:1])
        observations, *_, infos = second = at_once.step(orders)
        assert (first[1][0], first[2][0]) == (second[1][0], second[2][0])
        if second[2][0]:
            ended += 1
            assert data_equivalence({k: v[0] for k, v in first[0].items()}, infos["final_obs"][0], exact=True)
            assert infos["_final_info"][0]
            assert infos["_final_obs"][0]
            assert infos["final_info"]["outcome"][0] == first[4]["outcome"][0] != "running"
            assert infos["final_info"]["survivors"][0].tolist() == first[4]["survivors"][0].tolist()
            assert (infos["outcome"][0], infos["length"][0]) == ("running", 0)
            assert infos["survivors"][0].tolist() == [3, 3]
            first = later.step(np.full_like(orders[:1], 99))  # ignored: this step starts the next battle
            assert (first[1][0], first[2][0], first[4]["length"][0]) == (0.0, False, 0)
        for key, array in first[0].items():
            np.testing.assert_array_equal(observations[key][0], array[0])


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_vectors_seed_fixes_everything_that_follows(mode: AutoresetMode) -> None:
    runs = []
    for _ in range(2):
        env = vector(mode, scenario="3m", opponent=RandomOpponent())
        env.reset(seed=7)
        runs.append([env.step(env.unwrapped.random_orders())[:4] for _ in range(100)])
    assert data_equivalence(runs[0], runs[1], exact=True)
    assert any(terminated.any() for _, _, terminated, _ in runs[0])


def test_gymnasiums_episode_statistics_work() -> None:
    env = RecordEpisodeStatistics(vector(AutoresetMode.NEXT_STEP, scenario="3m"))
    env.reset(seed=0)
    for _ in range(60):
        *_, infos = env.step(env.unwrapped.random_orders())
        if "episode" in infos:
            over = infos["_episode"]
            np.testing.assert_array_equal(infos["episode"]["l"][over], infos["length"][over])
            return
    pytest.fail("no episode ended")


def test_vector_observations_are_copies_unless_asked_not_to_be() -> None:
    for copy in (True, False):
        env = vector(AutoresetMode.NEXT_STEP, copy=copy)
        first, _ = env.reset(seed=0)
        units = first["units"].copy()
        env.step(env.unwrapped.random_orders())
        assert np.array_equal(first["units"], units) == copy


def test_vector_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="NextStep, SameStep"):
        vector(AutoresetMode.DISABLED)
    with pytest.raises(ValueError, match="2 seeds for 4 environments"):
        vector(AutoresetMode.NEXT_STEP).reset(seed=[1, 2])


def test_vector_renders_a_picture_a_battle() -> None:
    env = vector(AutoresetMode.NEXT_STEP, num_envs=2, render_mode="rgb_array")
    env.reset(seed=0)
    pictures = env.render()
    assert len(pictures) == 2
    assert not np.array_equal(*pictures)
