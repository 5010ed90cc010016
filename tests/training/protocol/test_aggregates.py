"""The statistics, against hand-computed numbers, all resamples enumerated, and rliable's own."""

import itertools

import numpy as np
import pytest

from training.protocol.aggregates import (
    AGGREGATES,
    estimate,
    iqm,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)

X = [
    np.array([0.10, 0.32, 0.05, 0.44]),
    np.array([0.50, 0.61, 0.72, 0.40]),
    np.array([0.91, 0.95, 0.99, 1.0]),
]
Y = [np.array([0.20, 0.30, 0.01]), np.array([0.55, 0.20, 0.72]), np.array([0.85, 0.95, 0.90])]


def test_by_hand():
    tasks = [np.array([0.0, 0.2, 0.4, 3.0]), np.array([0.5, 0.6, 0.7, 0.8])]
    # Sorted: 0 .2 .4 .5 .6 .7 .8 3; the middle half is .4 .5 .6 .7.
    assert iqm(*tasks) == pytest.approx(0.55)
    assert mean(*tasks) == pytest.approx((0.9 + 0.65) / 2)
    assert median(*tasks, np.array([0.0])) == pytest.approx(0.65)
    # 3 counts as 1: misses are 1 .8 .6 0 .5 .4 .3 .2.
    assert optimality_gap(*tasks) == pytest.approx(3.8 / 8)


@pytest.mark.parametrize(
    ("name", "value", "low", "high"),
    [  # rliable 1.2.0, 50,000 resamples
        ("iqm", 0.5966667, 0.505, 0.673333),
        ("mean", 0.5825, 0.5175, 0.649167),
        ("median", 0.5575, 0.45, 0.665),
        ("optimality_gap", 0.4175, 0.350833, 0.481667),
    ],
)
def test_as_rliable(name, value, low, high):
    ours = estimate(AGGREGATES[name], X)
    assert ours.value == pytest.approx(value)
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.006)


def test_probability_of_improvement_as_rliable():
    ours = probability_of_improvement(X, Y)
    assert ours.value == pytest.approx(0.6944444)
    assert (ours.low, ours.high) == pytest.approx((0.444444, 0.916667), abs=0.03)
    assert probability_of_improvement(Y, X).value == pytest.approx(1 - ours.value)
    assert probability_of_improvement(X, X).value == 0.5


def test_profile_as_rliable():
    profile = performance_profile(X, [0, 0.1, 0.3, 0.5, 0.9, 0.95, 1.0], resamples=10_000)
    assert profile.share == pytest.approx([1, 10 / 12, 10 / 12, 0.5, 1 / 3, 1 / 6, 0])
    assert profile.low == pytest.approx([1, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 0, 0])
    assert profile.high == pytest.approx([1, 1, 1, 2 / 3, 1 / 3, 1 / 3, 0])


def test_the_interval_is_that_of_all_resamples():
    """Runs are drawn within tasks: every one of the 27 x 27 resamples counts the same."""
    tasks = [np.array([0.1, 0.1, 0.1]), np.array([0.2, 0.3, 0.8])]  # drawn from together they would spread
    every = [
        np.mean([np.mean(first), np.mean(second)])
        for first in itertools.product(tasks[0], repeat=3)
        for second in itertools.product(tasks[1], repeat=3)
    ]
    exact = np.percentile(every, [2.5, 97.5])
    ours = estimate(mean, tasks, resamples=50_000)
    assert (ours.low, ours.high) == pytest.approx(tuple(exact), abs=0.01)


def test_the_same_scores_give_the_same_interval():
    assert estimate(iqm, X) == estimate(iqm, X)


def test_one_run_has_no_interval():
    single = estimate(iqm, [*X, np.array([0.5])])
    assert (single.low, single.high) == (None, None)
    assert performance_profile([np.array([0.5])], [0.2, 0.7]).low is None
    assert single.to_dict()["low"] is None


def test_tasks_may_have_different_numbers_of_runs():
    tasks = [np.array([0.2, 0.4]), np.array([0.9, 0.9, 0.6])]
    assert mean(*tasks) == pytest.approx((0.3 + 0.8) / 2)
    result = estimate(mean, tasks)
    assert result.low <= result.value <= result.high


def test_scores_of_the_wrong_shape_are_refused():
    for scores in ([], [np.zeros((2, 2))], [np.zeros(0)]):
        with pytest.raises(ValueError, match=r"at least one task of \(runs,\)"):
            estimate(iqm, scores)
    with pytest.raises(ValueError, match="3 tasks of the one and 2"):
        probability_of_improvement(X, Y[:2])
