"""Advantages against numbers worked out by hand and against the definition, episode by episode."""

import numpy as np
import pytest

from training.rl.advantages import explained_variance, generalized_advantages, standardize


def test_golden_numbers():
    # γ = 1/2, λ = 1/2; one battle ends at step 1, the next goes on beyond the rollout.
    rewards = np.array([[1.0], [2.0], [4.0]], np.float32)
    values = np.array([[2.0], [4.0], [8.0], [16.0]], np.float32)
    dones = np.array([[False], [True], [False]])
    # δ = 1 + ½·4 − 2 = 1;  2 − 4 = −2;  4 + ½·16 − 8 = 4.   Â₀ = 1 + ¼·(−2) = ½
    expected = [[0.5], [-2.0], [4.0]]
    np.testing.assert_allclose(
        generalized_advantages(rewards, values, dones, gamma=0.5, lambda_=0.5), expected, rtol=1e-6
    )


def test_equals_the_definition_episode_by_episode():
    rng = np.random.default_rng(0)
    num_steps, num_battles, gamma, lambda_ = 40, 7, 0.97, 0.9
    rewards = rng.normal(size=(num_steps, num_battles)).astype(np.float32)
    values = rng.normal(size=(num_steps + 1, num_battles)).astype(np.float32)
    dones = rng.random((num_steps, num_battles)) < 0.15
    expected = np.zeros_like(rewards)
    for b in range(num_battles):
        for t in range(num_steps):
            weight, last = 1.0, False
            for k in range(t, num_steps):  # Σ (γλ)ᵏ⁻ᵗ δₖ up to the end of the episode
                last = bool(dones[k, b])
                following = 0.0 if last else values[k + 1, b]
                expected[t, b] += weight * (rewards[k, b] + gamma * following - values[k, b])
                weight *= gamma * lambda_
                if last:
                    break
    np.testing.assert_allclose(
        generalized_advantages(rewards, values, dones, gamma=gamma, lambda_=lambda_), expected, atol=1e-4
    )


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="expected"):
        generalized_advantages(
            np.zeros((3, 2), np.float32),
            np.zeros((3, 2), np.float32),
            np.zeros((3, 2), bool),
            gamma=1.0,
            lambda_=1.0,
        )


def test_standardize_looks_at_the_mask_alone():
    values = np.array([1.0, 3.0, 100.0], np.float32)
    np.testing.assert_allclose(standardize(values, np.array([True, True, False])), [-1.0, 1.0, 0.0])
    np.testing.assert_array_equal(standardize(values, np.zeros(3, bool)), np.zeros(3))
    np.testing.assert_array_equal(standardize(np.ones(3, np.float32), np.ones(3, bool)), np.zeros(3))


def test_explained_variance():
    targets = np.array([1.0, 2.0, 3.0], np.float32)
    assert explained_variance(targets, targets + 5) == 1.0
    assert explained_variance(targets, np.zeros(3, np.float32)) == 0.0
    assert np.isnan(explained_variance(np.ones(3, np.float32), targets))
