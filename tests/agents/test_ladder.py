"""Ratings against other ways to the same numbers, and what has no rating."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy.optimize import minimize

from agents.ladder import ELO, Standing, elo, rate


def logistic_regression(points: np.ndarray, anchor: int) -> np.ndarray:
    """The same likelihood, written as a regression on the difference of two players, and climbed by BFGS."""
    n = len(points)
    pairs = [(i, j) for i, j in itertools.permutations(range(n), 2) if points[i, j]]
    design = np.zeros((len(pairs), n))
    for row, (i, j) in enumerate(pairs):
        design[row, i], design[row, j] = 1, -1
    weights = np.array([points[pair] for pair in pairs])
    free = [i for i in range(n) if i != anchor]

    def loss(theta):
        odds = design[:, free] @ theta
        slope = -weights / (1 + np.exp(odds))
        return (weights * np.logaddexp(0, -odds)).sum(), slope @ design[:, free]

    found = minimize(loss, np.zeros(n - 1), jac=True, method="BFGS", options={"gtol": 1e-8})
    return 1000 + ELO * np.insert(found.x, anchor, 0.0)


def random_games(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(wins, draws) of players of different strength, with some pairs that never met."""
    strength = rng.normal(0, 1, n)
    wins, draws = np.zeros((n, n)), np.zeros((n, n))
    for i, j in itertools.combinations(range(n), 2):
        if j > i + 1 and rng.random() < 0.3:
            continue
        p = 1 / (1 + math.exp(strength[j] - strength[i]))
        wins[i, j], draws[i, j], wins[j, i] = rng.multinomial(60, [0.9 * p, 0.1, 0.9 * (1 - p)])
    return wins, draws + draws.T


def names(n: int) -> list[str]:
    return [f"player {i}" for i in range(n)]


@pytest.mark.parametrize("seed", range(5))
def test_as_a_logistic_regression_finds_them(seed):
    rng = np.random.default_rng(seed)
    wins, draws = random_games(rng, 6)
    ladder = rate(names(6), wins=wins, draws=draws, anchor="player 2", resamples=0)
    expected = logistic_regression(wins + draws / 2, 2)
    np.testing.assert_allclose([rating.rating for rating in ladder.ratings], expected, atol=0.01)
    assert ladder.ratings[2].rating == 1000
    np.testing.assert_allclose(
        [rating.games for rating in ladder.ratings], wins.sum(0) + wins.sum(1) + draws.sum(0)
    )


def test_two_players_in_closed_form():
    """R = 1000 + 400 log₁₀(points / points against): 65 to 35 are 107.5, and ten to one are 400."""
    ladder = rate(("a", "b"), wins=[[0, 60], [30, 0]], draws=[[0, 10], [10, 0]], anchor="b", resamples=0)
    assert ladder.ratings[0].rating == pytest.approx(1000 + 400 * math.log10(65 / 35))
    assert elo(np.array([[0.0, 1.0], [10.0, 0.0]]), 0)[1] == pytest.approx(1400)


def test_a_circle_is_a_tie():
    """Rock, paper, scissors: one number for each cannot tell them apart."""
    ladder = rate("rps", wins=[[0, 9, 1], [1, 0, 9], [9, 1, 0]], draws=np.zeros((3, 3)), anchor="p")
    np.testing.assert_allclose([rating.rating for rating in ladder.ratings], 1000, atol=1e-6)


def test_what_cannot_be_compared_is_said_and_not_numbered():
    """b and c split their games; a beat b only, d lost to c only, e and f met nobody of these."""
    a, b, c, d, e, f = range(6)
    wins = np.zeros((6, 6))
    wins[a, b] = 5
    wins[b, c], wins[c, b] = 30, 10
    wins[c, d] = 7
    wins[e, f], wins[f, e] = 2, 3
    ladder = rate("abcdef", wins=wins, draws=np.zeros((6, 6)), anchor="c", resamples=20)
    by_name = {rating.name: rating for rating in ladder.ratings}
    assert {name: rating.standing for name, rating in by_name.items()} == {
        "a": Standing.ABOVE,
        "b": Standing.RATED,
        "c": Standing.RATED,
        "d": Standing.BELOW,
        "e": Standing.APART,
        "f": Standing.APART,
    }
    assert by_name["b"].rating == pytest.approx(1000 + 400 * math.log10(3)), "the others say nothing of it"
    assert [rating.name for rating in ladder.ranked()] == ["a", "b", "c", "d", "e", "f"]
    written = json.loads(json.dumps(ladder.to_dict(), allow_nan=False))["ratings"]
    assert written[0] == {"name": "a", "rating": None, "low": None, "high": None, "games": 5} | {
        "standing": "above"
    }
    assert "above all numbers" in by_name["a"].standing


def test_two_who_both_beat_the_anchor_and_never_met_are_each_above():
    ratings = elo(np.array([[0.0, 0.0, 4.0], [0.0, 0.0, 4.0], [0.0, 0.0, 0.0]]), 2)
    np.testing.assert_array_equal(ratings, [np.inf, np.inf, 1000])
    ratings = elo(np.array([[0.0, 0.0, 4.0], [0.0, 0.0, 4.0], [0.0, 0.0, 0.0]]), 0)
    np.testing.assert_array_equal(ratings, [1000, np.nan, -np.inf])


def test_intervals_cover():
    """Of 60 leagues of known strengths, about 95 % of the intervals hold the truth."""
    rng = np.random.default_rng(0)
    truth = np.array([0.0, 0.4, -0.6])
    p = 1 / (1 + np.exp(truth[None] - truth[:, None]))
    hits = []
    for trial in range(60):
        wins = np.zeros((3, 3))
        for i, j in itertools.combinations(range(3), 2):
            wins[i, j] = rng.binomial(80, p[i, j])
            wins[j, i] = 80 - wins[i, j]
        ladder = rate("abc", wins=wins, draws=np.zeros((3, 3)), anchor="a", resamples=100, seed=trial)
        hits += [
            rating.low <= 1000 + ELO * strength <= rating.high
            for rating, strength in zip(ladder.ratings[1:], truth[1:], strict=True)
        ]
    assert 0.89 <= np.mean(hits) <= 0.99


def test_seeds_are_resampled_whole():
    """Where the two games of every seed are split, the score cannot vary, and neither does the rating."""
    points = np.zeros((50, 2, 2))
    points[:, 0, 1] = points[:, 1, 0] = 1
    total = points.sum(0)
    games = rate("ab", wins=total, draws=np.zeros((2, 2)), anchor="a")
    seeds = rate("ab", wins=total, draws=np.zeros((2, 2)), anchor="a", by_seed=points)
    assert games.ratings[1].low < 960
    assert games.ratings[1].high > 1040
    assert (seeds.ratings[1].low, seeds.ratings[1].high) == pytest.approx((1000, 1000))


def test_an_interval_is_open_where_resamples_have_no_number():
    """One loss in 20 games is missing from a third of the resamples: there is no upper end."""
    ladder = rate("ab", wins=[[0, 1], [19, 0]], draws=np.zeros((2, 2)), anchor="a")
    assert ladder.ratings[1].high == math.inf
    assert math.isfinite(ladder.ratings[1].low)
    assert math.isfinite(ladder.ratings[1].rating)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("a", "a")}, "named once"),
        ({"anchor": "c"}, "none of the players"),
        ({"wins": [[0, 1]]}, "shape"),
        ({"wins": [[0, -1], [1, 0]]}, "counts"),
        ({"wins": [[1, 1], [1, 0]]}, "itself"),
        ({"draws": [[0, 1], [2, 0]]}, "symmetric"),
        ({"by_seed": np.zeros((3, 4, 4))}, "by_seed"),
    ],
)
def test_what_are_no_games_is_refused(changes, message):
    given = {
        "names": ("a", "b"),
        "wins": [[0, 1], [1, 0]],
        "draws": np.zeros((2, 2)),
        "anchor": "a",
    } | changes
    with pytest.raises(ValueError, match=message):
        rate(given.pop("names"), **given)
