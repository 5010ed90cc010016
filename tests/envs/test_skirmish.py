"""Fights of any size by name."""

import dataclasses

import pytest

from envs.scenarios import ScenarioError, load_scenario
from envs.skirmish import skirmish_range


@pytest.mark.parametrize(("fight", "shipped"), [("marine_3v3", "3m"), ("marine_8v8", "8m")])
def test_smacs_marine_fights_are_among_them(fight: str, shipped: str) -> None:
    assert dataclasses.replace(load_scenario(fight), name=shipped) == load_scenario(shipped)


def test_units_sizes_and_preset() -> None:
    fight = load_scenario("zealot_4v7@smac")
    assert [team.units for team in fight.teams] == [("zealot",) * 4, ("zealot",) * 7]
    assert (fight.name, fight.step_limit, fight.symmetric) == ("zealot_4v7@smac", 105, False)
    assert load_scenario("marine_1v1").symmetric
    assert [load_scenario(f"marine_{n}v{n}").step_limit for n in (1, 4, 5, 12, 30)] == [60, 60, 75, 180, 180]


def test_what_is_no_fight_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"unknown scenario 'ghoul_3v3'.*UNIT_NvM, such as marine_5v6"):
        load_scenario("ghoul_3v3")
    with pytest.raises(ScenarioError, match="has no units"):
        load_scenario("marine_0v3")
    with pytest.raises(ScenarioError, match="beacon"):
        load_scenario("beacon_1v1")
    with pytest.raises(ScenarioError):
        load_scenario(f"marine_{10**30}v1")


def test_ranges() -> None:
    assert skirmish_range("marine_2-4") == ("marine_2v2", "marine_3v3", "marine_4v4")
    assert skirmish_range("zergling_7-8v+2") == ("zergling_7v9", "zergling_8v10")
    assert skirmish_range("3m") == skirmish_range("ghoul_2-4") == ()
    for empty in ("marine_0-3", "marine_4-3", f"marine_1-{10**9}"):
        with pytest.raises(ScenarioError, match="a range goes from"):
            skirmish_range(empty)
