"""An open loop knows the time, its number and what is legal, and nothing else."""

from __future__ import annotations

import pytest
import torch

from perceiver_policy import UnitSetPolicy
from perceiver_policy.config import ConfigError
from perceiver_policy.inputs.open_loop import time_only
from perceiver_policy.policy_config import Critic, Sight, UnitSetPolicyConfig

SEEN = ("controlled", "controlled_mask", "verb_mask", "target_mask")


def as_long_running(first, second):
    """The second observation with the legal orders and the time of the first: a different battle, as old."""
    other = dict(second) | {key: first[key] for key in SEEN}
    other["scalars"] = second["scalars"].clone()
    other["scalars"][:, :2] = first["scalars"][:, :2]
    return other


@pytest.fixture
def blind(make_policy) -> UnitSetPolicy:
    return make_policy(sight=Sight.TIME)


def test_what_happens_does_not_reach_the_actor(blind, make_policy, make_observation):
    first, second = make_observation(16, 7, 4), make_observation(16, 7, 4, seed=1)
    other = as_long_running(first, second)
    assert not torch.equal(first["units"], other["units"])
    with torch.no_grad():
        ours, theirs = blind(first), blind(other)
    torch.testing.assert_close(ours.verb_logits, theirs.verb_logits, rtol=0, atol=0)
    verbs = torch.full(first["controlled"].shape, blind.config.num_verbs - 1)
    torch.testing.assert_close(ours.target_logits(verbs), theirs.target_logits(verbs), rtol=0, atol=0)
    torch.testing.assert_close(ours.value, theirs.value, rtol=0, atol=0)
    torch.testing.assert_close(blind.value(first), blind.value(other), rtol=0, atol=0)
    torch.testing.assert_close(blind.value(first), ours.value)
    seeing = make_policy()
    with torch.no_grad():
        assert not torch.allclose(seeing(first).verb_logits, seeing(other).verb_logits), "others do see"


def test_the_time_and_the_number_do(blind, make_observation):
    observation = make_observation(1, 7, 4)
    observation["controlled_mask"][:] = True
    observation["controlled"][:] = torch.arange(4)
    observation["verb_mask"][:] = True
    with torch.no_grad():
        logits = blind(observation).verb_logits
        later = dict(observation) | {"scalars": observation["scalars"] + 1}
        assert not torch.allclose(blind(later).verb_logits, logits)
    assert len({tuple(row) for row in logits[0].tolist()}) == 4
    verbs = torch.full((1, 4), blind.config.num_verbs - 1)
    everywhere = dict(observation) | {"target_mask": torch.ones_like(observation["target_mask"])}
    with torch.no_grad():
        targets = blind(everywhere).target_logits(verbs)
    assert len(set(targets[0, 0].tolist())) == 7, "rows can be told from each other"


def test_padding_changes_nothing(blind, make_observation):
    observation = make_observation(4, 6, 3)
    padded = dict(observation)
    for key in ("units", "unit_type", "unit_mask"):
        array = observation[key]
        padded[key] = torch.cat((array, array.new_zeros(4, 2, *array.shape[2:])), dim=1)
    mask = observation["target_mask"]
    padded["target_mask"] = torch.cat((mask, mask.new_zeros(*mask.shape[:-1], 2)), dim=-1)
    with torch.no_grad():
        torch.testing.assert_close(blind(padded).verb_logits, blind(observation).verb_logits)
        torch.testing.assert_close(blind(padded).value, blind(observation).value)


def test_a_state_critic_keeps_the_state(make_policy, make_observation):
    policy = make_policy(sight=Sight.TIME, critic=Critic.STATE)
    first, second = make_observation(8, 7, 4), make_observation(8, 7, 4, seed=1)
    other = as_long_running(first, second)
    with torch.no_grad():
        torch.testing.assert_close(policy(first).verb_logits, policy(other).verb_logits, rtol=0, atol=0)
        assert not torch.allclose(policy.value(first), policy.value(other))


def test_the_observation_given_stays_as_it_was(make_observation):
    observation = make_observation(2, 5, 3)
    before = {key: value.clone() for key, value in observation.items()}
    time_only(observation, (0, 1), 256)
    for key, value in observation.items():
        assert torch.equal(value, before[key]), key


def test_rows_past_the_types_are_numbered_again(make_observation):
    rows = time_only(make_observation(2, 5, 3), (0,), 3)["unit_type"]
    assert rows.tolist() == [[0, 1, 2, 0, 1]] * 2


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"time_columns\[1\] is 6; num_scalars 6 allows 0 to 5"):
        UnitSetPolicyConfig(time_columns=(0, 6))
    with pytest.raises(ConfigError, match="time_columns"):
        UnitSetPolicyConfig(time_columns=(-1,))
