"""The policies in the box: whole, small, shipped, and still as good as their cards say."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import numpy as np
import pytest

from agents import load_agent, load_opponent
from agents.box import BOX, BOXED, boxed_names, boxed_policy
from agents.learned import LearnedAgent
from agents.roster import policy_folder
from envs.battle.batch import BattleBatch
from envs.scenarios import load_scenario
from perceiver_policy import UnitSetPolicy
from training.evaluate import evaluate
from training.suite.cards import LARGEST, agrees, contract_digest, read_card
from training.trained_as import trained_as

ROOT = Path(__file__).parents[2]
QUICK_UNITS = 16
"""Units of the largest scenarios that the quick tests play on."""


def test_there_is_one() -> None:
    assert "3m" in boxed_names()


@pytest.mark.parametrize("name", boxed_names())
def test_it_is_whole_and_small(name: str) -> None:
    folder, card = boxed_policy(name), read_card(name)
    files = sorted(file.name for file in folder.iterdir())
    assert files == ["card.json", "config.yaml", "model.safetensors"]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LARGEST
    assert card["name"] == name
    assert card["weights"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert card["contract"] == contract_digest(), "trained for other observations: train it again"
    policy = UnitSetPolicy.from_pretrained(folder)
    assert card["parameters"] == sum(weights.numel() for weights in policy.parameters())
    assert card["scenarios"]
    assert all(entry["result"]["games"] >= 1000 for entry in card["scenarios"].values())
    assert trained_as(BOXED + name).control == card["control"]


def test_all_of_it_is_package_data() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["agents"]
    shipped = {path for pattern in patterns for path in (ROOT / "agents").glob(pattern)}
    assert {path for path in BOX.rglob("*") if path.is_file()} <= shipped


def plays_as_its_card_says(name: str, scenario: str, games: int) -> None:
    card, trained = read_card(name), trained_as(BOXED + name)
    expected = card["scenarios"][scenario]["result"]
    result = evaluate(
        load_agent(BOXED + name),
        load_opponent(card["opponent"]),
        scenario,
        games=games,
        seed=1,
        control=trained.control,
        swap_sides=trained.swap_sides(None),
    )
    assert agrees(expected, result.wins, result.games), f"{result.win_rate:.1%} now; on the card {expected}"


PLAYED = [(name, scenario) for name in boxed_names() for scenario in read_card(name)["scenarios"]]
QUICK = [(name, scenario) for name, scenario in PLAYED if load_scenario(scenario).num_units <= QUICK_UNITS]


@pytest.mark.parametrize(("name", "scenario"), QUICK)
def test_it_plays_as_its_card_says(name: str, scenario: str) -> None:
    """Where an engine's change breaks it, it is trained again, or the change is undone."""
    plays_as_its_card_says(name, scenario, games=100)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scenario"), PLAYED)
def test_it_plays_as_its_card_says_everywhere(name: str, scenario: str) -> None:
    plays_as_its_card_says(name, scenario, games=300)


def test_a_card_disagrees_with_another_win_rate() -> None:
    result = read_card("3m")["scenarios"]["3m"]["result"]
    assert agrees(result, wins=199, games=200)
    assert not agrees(result, wins=185, games=200)


def test_one_policy_by_all_its_names() -> None:
    """By name on command lines and in programs, and as the folder that it is."""
    observation = BattleBatch("3m", num_battles=4).observations[0]
    by_spec, by_name = load_agent("policy:3m"), LearnedAgent.from_name("3m")
    assert by_spec.name == by_name.name == "policy:3m"
    assert policy_folder("policy:3m") == boxed_policy("3m")
    agents = [by_spec, by_name, LearnedAgent(boxed_policy("3m")), load_opponent("policy:3m")]
    orders = [agent.act(observation) for agent in agents if not isinstance(agent, str)]
    assert len(orders) == 4
    for other in orders[1:]:
        np.testing.assert_array_equal(other, orders[0])


@pytest.mark.parametrize("load", [load_agent, load_opponent, trained_as])
def test_a_name_that_is_not_in_the_box(load) -> None:
    with pytest.raises(ValueError, match="no policy '3mm' in the box; did you mean policy:3m"):
        load("policy:3mm")
