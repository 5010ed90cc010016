"""Win rates count every battle once, repeat exactly, and carry intervals that can be checked by hand."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from agents import Observation, Orders, ScriptedAgent
from agents.learned import LearnedAgent
from envs.battle.batch import BattleBatch, Outcome
from envs.battle.tactics import HELD_OUT
from envs.unit_set import Verb
from envs.units import unit_table_hash
from perceiver_policy import UnitSetPolicy, UnitSetPolicyConfig
from training import evaluate as evaluation
from training.evaluate import Measure, evaluate, mean_interval, paired_p_value, wilson
from training.results import result_table

KEYS = {"win_rate", "wilson_low", "wilson_high", "wins", "draws", "timeouts", "losses", "games"}


def test_wilson_interval() -> None:
    """By its formula: (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n)."""
    n, p, z = 1000, 0.97, 1.959963984540054
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [(p + z * z / (2 * n) + sign * half) / (1 + z * z / n) for sign in (-1, 1)]
    assert wilson(970, 1000) == pytest.approx(expected)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0


def test_same_battles_as_playing_them_by_hand() -> None:
    result = evaluate(ScriptedAgent("closest"), None, "3s_vs_5z", games=40, seed=3)
    batch = BattleBatch("3s_vs_5z", 40, auto_reset="off")
    batch.reset(result.battle_seeds)
    agent = ScriptedAgent("closest")
    while not (step := batch.step(agent.act(batch.observations[0]))).done.all():
        pass
    np.testing.assert_array_equal(result.outcomes, step.outcome)
    np.testing.assert_array_equal(result.lengths, step.length)
    np.testing.assert_allclose(result.returns, step.episode_return[:, 0])


def test_every_battle_counts_once_whatever_the_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(ScriptedAgent("focus-fire"), None, "3m", games=51)
    monkeypatch.setattr(evaluation, "UNITS_TOGETHER", 6 * 7)
    waves = evaluate(ScriptedAgent("focus-fire"), None, "3m", games=51)
    np.testing.assert_array_equal(whole.outcomes, waves.outcomes)
    assert whole.games == 51
    assert whole.wins + whole.draws + whole.timeouts + whole.losses == 51
    fewer = evaluate(ScriptedAgent("focus-fire"), None, "3m", games=20, swap_sides=False)
    np.testing.assert_array_equal(fewer.battle_seeds, whole.battle_seeds[:20])


def test_symmetric_scenarios_are_played_from_both_sides() -> None:
    result = evaluate(ScriptedAgent("attack-move"), None, "8m", games=60)
    np.testing.assert_array_equal(result.battle_seeds[:30], result.battle_seeds[30:])
    assert result.side.tolist() == [0] * 30 + [1] * 30
    # The agent gives the enemy's own orders: what one side wins, the other loses.
    assert result.win_rate == 0.5
    assert result.on_side(0)[0] + result.on_side(1)[0] == 30
    assert set(evaluate(ScriptedAgent("hold"), None, "3s_vs_5z", games=4).side) == {0}


def test_agents_against_each_other() -> None:
    result = evaluate(ScriptedAgent("focus-fire"), ScriptedAgent("random"), "3m", games=40)
    assert result.opponent == "scripted:random"
    assert result.win_rate > 0.9
    again = evaluate(ScriptedAgent("focus-fire"), ScriptedAgent("random", seed=9), "3m", games=40)
    np.testing.assert_array_equal(result.lengths, again.lengths)


def test_pools_are_reported_by_tactic() -> None:
    """Wins against a pool are those against each of its tactics together; every battle has its own draw."""
    result = evaluate(ScriptedAgent("focus-fire"), "black-box", "3m", games=60)
    content = result.to_dict()
    assert content["opponent"] == "black-box"
    assert set(content["tactics"]) == {tactic.label for tactic in HELD_OUT}
    for counted in ("wins", "games"):
        assert sum(entry[counted] for entry in content["tactics"].values()) == content[counted]
    alone = evaluate(ScriptedAgent("focus-fire"), "ambush", "3m", games=60)
    assert set(alone.to_dict()["tactics"]) == {"ambush"}
    assert evaluate(ScriptedAgent("hold"), ScriptedAgent("hold"), "3m", games=4).to_dict()["tactics"] == {}
    with pytest.raises(ValueError, match="the engine has no player 'scripted:hold'"):
        evaluate(ScriptedAgent("hold"), "scripted:hold", "3m", games=4)


def test_timeouts_are_no_wins() -> None:
    class Waiting(ScriptedAgent):
        def act(self, observation: Observation) -> Orders:
            """Both teams stay where they are."""
            return np.full((*observation["controlled"].shape, 2), Verb.NO_OP, np.int64)

    result = evaluate(Waiting("hold"), Waiting("hold"), "3m", games=6)
    assert (result.timeouts, result.wins, result.losses) == (6, 0, 0)


def test_each_unit_for_itself() -> None:
    result = evaluate(ScriptedAgent("focus-fire"), ScriptedAgent("random"), "3m", games=20, control="unit")
    assert result.win_rate > 0.8
    assert result.to_dict()["control"] == "unit"


def test_result_file() -> None:
    content = evaluate(ScriptedAgent("random"), None, "3m", games=10, seed=4).to_dict()
    assert content.keys() >= KEYS
    assert content["orders"] == "sampled"
    assert content["backend"] == "embedded"
    assert content["unit_table"] == unit_table_hash()
    assert content["versions"].keys() >= {"python", "numpy", "torch", "perceiver-policy"}
    assert content["sides"]["first"]["games"] == content["sides"]["second"]["games"] == 5
    assert (content["games"], content["seeds"]) == (10, 5)
    assert json.loads(json.dumps(content)) == content
    once = evaluate(ScriptedAgent("random"), None, "3m", games=10, swap_sides=False)
    assert once.to_dict()["seeds"] == 10


def test_paired_test() -> None:
    """The chance of a split of the seeds that tell them apart at least as uneven, with a fair coin."""
    better = evaluate(ScriptedAgent("focus-fire"), None, "3m", games=100)
    worse = evaluate(ScriptedAgent("random"), None, "3m", games=100)
    n = int((better.outcomes == Outcome.WIN_0).reshape(2, 50).any(0).sum())
    assert worse.wins == 0
    assert paired_p_value(better, worse) == pytest.approx(2 * 0.5**n)
    assert paired_p_value(worse, worse) == 1.0
    with pytest.raises(ValueError, match="same scenario"):
        paired_p_value(better, evaluate(ScriptedAgent("random"), None, "3m", games=98))


def test_the_paired_test_goes_by_seeds() -> None:
    """Five seeds from both sides: the games of a seed are one coin, not two."""
    played = evaluate(ScriptedAgent("hold"), None, "3m", games=10)

    def won(*games: str) -> evaluation.EvaluationResult:
        """Per side, a mark a seed: W for a win."""
        outcomes = [Outcome.WIN_0 if game == "W" else Outcome.WIN_1 for side in games for game in side]
        return dataclasses.replace(played, outcomes=np.array(outcomes, np.int8))

    # First wins more of the seeds 0, 1, 2 and 3 (by 2, 1, 1 and 1); of seed 4 each wins one game.
    first, second = won("WWW.W", "W.WW."), won("..W..", "....W")
    assert paired_p_value(first, second) == pytest.approx(2 * 0.5**4)
    assert paired_p_value(won(".....", "WWWWW"), won("WWWWW", ".....")) == 1.0
    assert paired_p_value(won("W....", "W...."), won(".....", "....W")) == 1.0


def test_mean_interval() -> None:
    """Of 1, 2, 3, 4 and 5: s = √2.5, and Student's t at 4 degrees of freedom is 2.7764."""
    half = 2.7764451051977987 * math.sqrt(2.5) / math.sqrt(5)
    assert mean_interval(np.arange(1.0, 6.0)) == pytest.approx((3 - half, 3 + half))
    assert mean_interval(np.array([2.0, 2.0])) == (2.0, 2.0)
    assert mean_interval(np.array([2.0])) == (-math.inf, math.inf)


def test_missions_are_scored() -> None:
    """A script that collects, beside one that stands: what it scores is what the engine counted."""
    result = evaluate(ScriptedAgent("collect"), None, "collect_mineral_shards", games=6)
    batch = BattleBatch("collect_mineral_shards", 6, auto_reset="off")
    batch.reset(result.battle_seeds)
    agent = ScriptedAgent("collect")
    while not batch.step(agent.act(batch.observations[0])).done.all():
        pass
    assert result.scores is not None
    np.testing.assert_array_equal(result.scores, batch.state.battles["score"])
    np.testing.assert_array_equal(result.scores, result.returns)
    assert (result.measure, result.opponent, result.timeouts) == (Measure.SCORE, "nobody", 6)
    assert result.mean == result.scores.mean() > 100
    assert result.interval == mean_interval(result.scores)
    content = result.to_dict()
    assert not {"win_rate", "wins", "sides", "tactics"} & content.keys()
    assert (content["score_mean"], content["losses"], content["games"]) == (result.mean, 0, 6)
    assert (content["score_least"], content["score_most"]) == (result.scores.min(), result.scores.max())
    standing = evaluate(ScriptedAgent("hold"), None, "collect_mineral_shards", games=6)
    assert paired_p_value(result, standing) == pytest.approx(2 * 0.5**6)
    one = evaluate(ScriptedAgent("hold"), None, "collect_mineral_shards", games=1).to_dict()
    assert json.loads(json.dumps(one, allow_nan=False))["score_low"] is None


def test_a_missions_table_shows_scores() -> None:
    result = evaluate(ScriptedAgent("hold"), None, "find_and_defeat_zerglings@smac", games=2)
    assert result.scenario == "find_and_defeat_zerglings@smac"
    columns = [column.header for column in result_table("", {"hold": result}).columns]
    assert columns == ["agent", "score", "95 % interval", "least", "most", "to the end", "cut short", "steps"]


def test_an_agent_without_units_is_refused() -> None:
    with pytest.raises(ValueError, match="'move_to_beacon' has no units on side 1"):
        evaluate(ScriptedAgent("hold"), ScriptedAgent("hold"), "move_to_beacon", games=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"games": 0}, "games is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"scenario": "3n"}, "unknown scenario '3n'"),
        ({"scenario": "3s_vs_5z", "swap_sides": True}, "not symmetric"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(ScriptedAgent("hold"), None, **({"scenario": "3m"} | arguments))


def test_an_agent_that_remembers_sees_every_battle_to_the_end() -> None:
    """Battles end one by one; what it remembers of the others must stay theirs."""
    torch.manual_seed(0)
    policy = UnitSetPolicy(UnitSetPolicyConfig(memory=True))
    with torch.no_grad():
        policy.order_head.verb.last.weight.normal_(std=0.3)
        policy.order_head.verb.last.bias[Verb.ATTACK_MOVE] += 1.0
    result = evaluate(LearnedAgent(policy), None, "3m", games=12, swap_sides=False)
    assert len(set(result.lengths.tolist())) > 1
    batch = BattleBatch("3m", 12, auto_reset="off")
    batch.reset(result.battle_seeds)
    agent = LearnedAgent(policy)
    while not (step := batch.step(agent.act(batch.observations[0]))).done.all():
        pass
    np.testing.assert_array_equal(result.lengths, step.length)
    np.testing.assert_array_equal(result.outcomes, step.outcome)
