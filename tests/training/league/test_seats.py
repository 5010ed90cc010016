"""Battles against several opponents at once: who plays where, and that every game is counted rightly."""

import dataclasses
from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ray import cloudpickle

from agents.learned import LearnedAgent
from perceiver_policy import UnitSetPolicy
from training.league.payoff import Result
from training.league.runner import LeagueEnvRunner
from training.league.seats import Match, MatchSeat, MatchSetup, Record, finished_games
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.rollout import MODULE_ID

SMALL = TrainConfig(
    num_battles=12,
    rollout_steps=8,
    minibatch_size=24,
    model_overrides=("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8"),
)


def make_runner(**changes) -> LeagueEnvRunner:
    config = build_algorithm_config(dataclasses.replace(SMALL, **changes))
    return LeagueEnvRunner(config=config.env_runners(env_runner_cls=LeagueEnvRunner), worker_index=0)


def policy(seed: int) -> UnitSetPolicy:
    torch.manual_seed(seed)
    return UnitSetPolicy(SMALL.load_model())


def test_opponents_share_the_battles_by_weight():
    setup = MatchSetup("3m", matches=(Match("a", "kite", 1), Match("b", "hold", 2), Match("c", "kite", 1)))
    assert setup.shares(12) == [3, 6, 3]
    assert setup.shares(10) == [2, 6, 2]
    assert sum(setup.shares(7)) == 7


@pytest.mark.parametrize("control", ["team", "unit"])
def test_every_opponent_has_its_battles_on_both_sides(control):
    frozen = policy(1)
    matches = (
        Match("engine", "attack-move"),
        Match("script", "scripted:hold"),
        Match("main.1", partial(LearnedAgent, frozen, deterministic=False, name="main.1")),
        Match("main", None),
    )
    runner = make_runner(control=control)
    runner.play_against(matches, env_steps=0, seed=0)
    (pack,) = runner.sample()
    rows = np.concatenate([np.arange(12)[seat.rows] for seat in runner.env])
    np.testing.assert_array_equal(rows, np.arange(12))
    played = Counter((seat.match, seat.side) for seat in runner.env)
    assert played == Counter({(match.name, side): 1 for match in matches for side in (0, 1)})
    by_name = {seat.match: seat for seat in runner.env}
    assert by_name["engine"].opponent is None
    assert by_name["main.1"].opponent.policy is frozen, "one copy of the weights serves all seats"
    assert by_name["main"].opponent.policy is runner.module[MODULE_ID].policy, "it is always as it is now"
    assert not by_name["main"].opponent.deterministic
    assert np.isfinite(pack.rewards).all()
    assert len(pack) == 12 * 8


def test_games_are_those_of_the_pack():
    """Counted from rewards: losing, and nothing else, costs something here; and a timeout is one for both."""
    runner = make_runner(rewards=("win=0", "loss=1", "damage=0", "damage_taken=0", "kill=0"))
    matches = (Match("easy", "scripted:hold"), Match("hard", "focus-fire"))
    runner.play_against(matches, env_steps=0, seed=0)
    packs = [runner.sample()[0] for _ in range(16)]
    rewards, dones = (np.concatenate([getattr(pack, key) for pack in packs]) for key in ("rewards", "dones"))
    limit = runner.env[0].battles.scenario.step_limit
    expected: Counter = Counter()
    for seat in runner.env:
        for battle in range(seat.rows.start, seat.rows.stop):
            began = 0
            for end in np.flatnonzero(dones[:, battle]):
                if began + limit <= len(dones):
                    expected[seat.match, rewards[end, battle] < 0] += 1
                began = end + 1
    games = runner.games()
    assert Counter((game.opponent, game.result is not Result.WIN) for game in games) == expected
    assert {game.result for game in games if game.opponent == "hard"} == {Result.LOSS}
    assert Result.DRAW in {game.result for game in games if game.opponent == "easy"}, "time ran out"
    assert sum(expected.values()) < dones.sum(), "some began too late to count"


def test_opponents_are_replaced_between_rollouts():
    runner = make_runner()
    runner.play_against([Match("a", "attack-move")], env_steps=0, seed=0)
    seeds = [seat.battles.seeds.copy() for seat in runner.env or ()]
    runner.sample()
    first = [seat.battles.seeds.copy() for seat in runner.env]
    runner.play_against([Match("b", "scripted:hold")], env_steps=96, seed=0)
    assert runner.games() == []
    runner.sample()
    assert {seat.match for seat in runner.env} == {"b"}
    assert seeds == []
    assert not set(np.concatenate(first)) & set(np.concatenate([seat.battles.seeds for seat in runner.env]))


def test_the_same_call_plays_the_same_games():
    """What a resumed league relies on."""

    def play() -> np.ndarray:
        runner = make_runner()
        runner.module[MODULE_ID].policy.load_state_dict(policy(2).state_dict())
        frozen = partial(LearnedAgent, policy(1), deterministic=False, name="main.1")
        torch.manual_seed(np.random.default_rng().integers(1000))
        runner.play_against([Match("main.1", frozen), Match("main", None)], env_steps=960, seed=7)
        return np.concatenate([runner.sample()[0].orders for _ in range(2)])

    np.testing.assert_array_equal(play(), play())


def test_opponents_travel_to_remote_runners():
    frozen = policy(1)
    match = Match("main.1", partial(LearnedAgent, frozen, deterministic=True, name="main.1"))
    there = cloudpickle.loads(cloudpickle.dumps(match))
    agent = there.opponent()
    for one, other in zip(agent.policy.parameters(), frozen.parameters(), strict=True):
        assert torch.equal(one, other)


def test_only_games_that_were_sure_to_end_count():
    """Wins take 5 steps and losses 20, each as likely: those that end within 50 steps are mostly wins."""
    rng = np.random.default_rng(0)
    counted, ended = [], []
    for _ in range(2000):
        steps, record = 50, Record(steps=50)
        began = 0
        while True:
            won = rng.random() < 0.5
            end = began + (5 if won else 20)
            if end > steps:
                break
            record.ended.append((began, end, Result.WIN if won else Result.LOSS))
            began = end
        battles = SimpleNamespace(scenario=SimpleNamespace(step_limit=20))
        seat = MatchSeat(battles, 0, None, slice(0, 1), match="a", record=record)
        counted += [game.result is Result.WIN for game in finished_games([seat])]
        ended += [result is Result.WIN for _, _, result in record.ended]
    assert np.mean(ended) > 0.56
    assert np.mean(counted) == pytest.approx(0.5, abs=0.02)
