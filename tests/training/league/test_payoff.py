"""The payoff matrix: counting, forgetting, and what is drawn from it."""

import json

import numpy as np
import pytest

from training.league.payoff import Game, Payoff, Result
from training.league.pfsp import Weighting, pfsp

WIN, DRAW, LOSS = Result.WIN, Result.DRAW, Result.LOSS


def payoff(decay: float = 0.5, min_games: float = 0.0) -> Payoff:
    made = Payoff(decay, min_games)
    for name in "abc":
        made.add_member(name)
    return made


def test_games_count_for_both_and_older_ones_less():
    """With decay 1/2, a win, a loss and a draw weigh 1/4, 1/2 and 1."""
    table = payoff()
    table.record("a", [Game("b", WIN), Game("c", WIN), Game("b", LOSS), Game("b", DRAW)])
    np.testing.assert_array_equal(table.counts[0, 1], [1, 1, 1])
    np.testing.assert_array_equal(table.decayed[0, 1], [0.25, 1, 0.5])
    np.testing.assert_array_equal(table.decayed[1, 0], [0.5, 1, 0.25])
    np.testing.assert_array_equal(table.counts[2, 0], [0, 0, 1])
    assert table.win_rates("a", ["b", "c"]) == pytest.approx([(0.25 + 0.5) / 1.75, 1])
    assert table.win_rates("b", ["a"]) == pytest.approx([(0.5 + 0.5) / 1.75])
    assert table.recent_games("a", ["b", "c"]) == pytest.approx([1.75, 1])
    table.record("b", [Game("a", WIN)])
    np.testing.assert_array_equal(table.decayed[0, 1], [0.125, 0.5, 1.25])


def test_decay_forgets_at_its_rate():
    """After 3,000 wins, 1,000 losses at 0.999: 0.999^1000 = 36.8 % of the weight is still of the wins."""
    table = payoff(decay=0.999)
    table.record("a", [Game("b", WIN)] * 3000 + [Game("b", LOSS)] * 1000)
    kept = 0.999**1000 * (1 - 0.999**3000)
    assert table.win_rates("a", ["b"]) == pytest.approx([kept / (1 - 0.999**4000)])
    assert table.counts[0, 1].tolist() == [3000, 0, 1000]


def test_itself_is_no_opponent_and_few_games_say_nothing():
    table = payoff(decay=1.0, min_games=3)
    table.record("a", [Game("a", WIN), Game("b", WIN), Game("b", WIN)])
    assert table.counts[0, 0].sum() == 0
    assert table.win_rates("a", ["a", "b", "c"]).tolist() == [0.5, 0.5, 0.5]
    table.record("a", [Game("b", WIN)])
    assert table.win_rates("a", ["b"]).tolist() == [1.0]


def test_who_begins_anew_has_no_recent_games():
    table = payoff()
    table.record("a", [Game("b", WIN)])
    table.record("b", [Game("c", WIN)])
    table.forget("a")
    assert table.recent_games("b", ["a", "c"]).tolist() == [0, 1]
    assert table.counts[0, 1].sum() == 1
    assert table.win_rates("a", ["b"]).tolist() == [0.5]


def test_it_survives_json():
    table = payoff(decay=0.9, min_games=2)
    table.record("a", [Game("b", WIN), Game("b", DRAW), Game("c", LOSS)])
    plain = json.loads(json.dumps(table.to_dict()))
    assert plain["wins"] == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert plain["games"][0] == [0, 2, 1]
    assert plain["draws"][1] == [1, 0, 0]
    again = Payoff.from_dict(plain)
    np.testing.assert_array_equal(again.counts, table.counts)
    np.testing.assert_array_equal(again.decayed, table.decayed)
    assert (again.names, again.decay, again.min_games) == (["a", "b", "c"], 0.9, 2)
    for broken in ({}, plain | {"names": ["a"]}, plain | {"wins": [1]}, plain | {"decay": 0}):
        with pytest.raises(ValueError, match=r"payoff|wins"):
            Payoff.from_dict(broken)


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="'a' already"):
        payoff().add_member("a")


# Prioritised fictitious self-play


def test_weightings_by_hand():
    rates = [0.5, 0.9, 0.0]
    np.testing.assert_allclose(pfsp(rates, "hard", 2), np.array([0.25, 0.01, 1]) / 1.26)
    np.testing.assert_allclose(pfsp(rates, "hard", 1), np.array([0.5, 0.1, 1]) / 1.6)
    np.testing.assert_allclose(pfsp(rates, "variance"), np.array([0.25, 0.09, 0]) / 0.34)
    np.testing.assert_allclose(pfsp(rates, "even"), 1 / 3)


@pytest.mark.parametrize("weighting", Weighting)
def test_where_everybody_is_beaten_all_are_drawn(weighting):
    np.testing.assert_array_equal(pfsp([1.0, 1.0], weighting), [0.5, 0.5])


def test_what_are_no_win_rates_is_refused():
    for wrong in ([], [1.1], [np.nan], [[0.5]]):
        with pytest.raises(ValueError, match="win rates"):
            pfsp(wrong)
    with pytest.raises(ValueError, match="exponent"):
        pfsp([0.5], exponent=0)
    with pytest.raises(ValueError, match="'soft'"):
        pfsp([0.5], "soft")
