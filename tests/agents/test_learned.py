"""An export acts as the policy it was made from, for single and batched observations, without ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.learned import LearnedAgent
from agents.roster import load_agent, load_opponent
from envs.battle.batch import BattleBatch
from envs.unit_set import validate_orders
from envs.units import num_unit_types
from perceiver_policy import UnitSetPolicy, UnitSetPolicyConfig
from perceiver_policy.pretrained import ExportError, save_policy


@pytest.fixture
def policy() -> UnitSetPolicy:
    torch.manual_seed(0)
    policy = UnitSetPolicy(UnitSetPolicyConfig())
    with torch.no_grad():
        for parameter in policy.order_head.parameters():
            parameter.normal_(std=0.4)
    return policy.eval()


@pytest.fixture
def export(policy: UnitSetPolicy, tmp_path: Path) -> Path:
    save_policy(policy, tmp_path / "run" / "policy")
    return tmp_path / "run" / "policy"


def test_acts_as_the_policy_does(policy: UnitSetPolicy, export: Path) -> None:
    observation = BattleBatch("2s3z", 6).observations[0]
    tensors = {key: torch.from_numpy(array) for key, array in observation.items()}
    expected = policy.act(tensors, deterministic=True).orders.numpy()
    np.testing.assert_array_equal(LearnedAgent(export).act(observation), expected)


@pytest.mark.parametrize("control", ["team", "unit"])
def test_any_leading_dimensions(export: Path, control: str) -> None:
    batch = BattleBatch("3m", 5, builtin=(None, None), control=control)
    agent = LearnedAgent(export)
    for observation in batch.observations:
        orders = agent.act(observation)
        validate_orders(orders, observation)
        alone = agent.act({key: array[2] for key, array in observation.items()})
        np.testing.assert_array_equal(alone, orders[2])


def test_many_observations_are_answered_in_parts_alike(export: Path) -> None:
    agent = LearnedAgent(export)
    observation = BattleBatch("27m_vs_30m", 150).observations[0]  # more units than one pass takes
    orders = agent.act(observation)
    last = agent.act({key: array[-10:] for key, array in observation.items()})
    np.testing.assert_array_equal(orders[-10:], last)


def test_plays_any_number_of_units(export: Path) -> None:
    agent = LearnedAgent(export)
    for scenario in ("3m", "8m", "27m_vs_30m"):
        batch = BattleBatch(scenario, 2)
        for _ in range(3):
            batch.step(agent.act(batch.observations[0]))


def test_drawn_orders_repeat_with_their_seed_and_leave_others_alone(export: Path) -> None:
    observation = BattleBatch("8m", 20).observations[0]
    agent = LearnedAgent(export, deterministic=False, seed=7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first, second = agent.act(observation), agent.act(observation)
    assert (first != second).any()
    agent.reset(7)
    np.testing.assert_array_equal(agent.act(observation), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_needs_no_ray(export: Path) -> None:
    code = f"""
import sys
from agents.learned import LearnedAgent
from envs.battle.batch import BattleBatch
battles = BattleBatch("8m", num_battles=4)
battles.step(LearnedAgent({str(export)!r}).act(battles.observations[0]))
sys.exit("ray" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_loaded_by_name(export: Path) -> None:
    assert load_agent(str(export)).name == str(export)
    assert load_agent(str(export.parent)).name == str(export)  # a run's folder
    assert load_agent("scripted:kite").name == "scripted:kite"
    assert load_opponent("builtin") == load_opponent("attack-move") == "attack-move"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scripted:focus", "unknown script 'focus'; nearest: focus-fire"),
        ("kite", "kite plays inside the engine, as an opponent only; scripted:kite plays alike"),
        ("mixed", "as an opponent only$"),
        ("nowhere/policy", "no directory of a policy, no policy:NAME; scripts: scripted:hold"),
        ("builtin", "as an opponent only; scripted:attack-move plays alike"),
    ],
)
def test_unknown_agents_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_agent(name)


def test_opponents_by_name() -> None:
    """A bare name is the engine's, a prefixed one a script, though both know how to kite."""
    assert load_opponent("kite") == "kite"
    assert load_opponent("black-box") == "black-box"
    assert load_opponent("scripted:kite").name == "scripted:kite"
    with pytest.raises(ValueError, match=r"no opponent 'attack-mov': .* did you mean attack-move\?"):
        load_opponent("attack-mov")
    with pytest.raises(ValueError, match=r"it may be: attack-move, .*, black-box, scripted:hold, "):
        load_opponent("nowhere/policy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_unit_features": 40}, "num_unit_features 40, the environments have 32"),
        ({"num_scalars": 5}, "num_scalars 5, the environments have 6"),
        ({"num_verbs": 12}, "num_verbs 12, the environments have 14"),
        ({"num_target_verbs": 1}, "num_target_verbs 1, the environments have 2"),
        ({"num_unit_types": 1}, f"num_unit_types 1, the environments have {num_unit_types()}: at least"),
    ],
)
def test_a_policy_for_other_observations_is_refused(
    changes: dict[str, int], message: str, tmp_path: Path
) -> None:
    policy = UnitSetPolicy(UnitSetPolicyConfig.from_dict(changes))
    save_policy(policy, tmp_path / "policy")
    for source in (policy, tmp_path / "policy"):
        with pytest.raises(ExportError, match=message):
            LearnedAgent(source)


def test_a_folder_without_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not an exported policy"):
        load_agent(str(tmp_path))


class TestMemory:
    """An agent that remembers: each battle by its place, forgotten where one begins."""

    def agent(self) -> LearnedAgent:
        torch.manual_seed(0)
        policy = UnitSetPolicy(UnitSetPolicyConfig(memory=True))
        torch.nn.init.normal_(policy.order_head.verb.last.weight)
        return LearnedAgent(policy)

    def test_battles_are_remembered_and_forgotten_one_by_one(self) -> None:
        battles = BattleBatch("3m", 3)
        agent, states = self.agent(), []
        for _ in range(3):
            battles.step(agent.act(battles.observations[0]))
            states.append(agent._state)
        observation = {key: array.copy() for key, array in battles.observations[0].items()}
        observation["scalars"][1, 0] = 0.0  # the second battle begins
        agent.act(observation)
        alone = self.agent()
        alone.act({key: array[1:2] for key, array in observation.items()})
        torch.testing.assert_close(agent._state[1:2], alone._state)
        assert not torch.allclose(agent._state[0], alone._state[0])
        agent.reset(0)
        assert agent._state is None

    def test_other_battles_than_before_are_refused(self) -> None:
        battles = BattleBatch("3m", 3)
        agent = self.agent()
        battles.step(agent.act(battles.observations[0]))
        with pytest.raises(ValueError, match="a memory of 3 battles, and is shown 2"):
            agent.act({key: array[:2] for key, array in battles.observations[0].items()})
