from dataclasses import replace
from pathlib import Path

import pytest

from envs.scenarios import Scenario, ScenarioError, Team, load_scenario, scenario_names

GOOD = """\
map: {width: 32, height: 32, playable: [0, 7, 32, 25]}
teams:
  - units: {marine: 5, marauder: 1}
    spawn: [9, 16]
  - units: {zealot: 4}
    spawn: [23, 16]
step_limit: 70
"""


@pytest.fixture
def load(tmp_path: Path):
    def write_and_load(text: str):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return load_scenario(path)

    return write_and_load


def test_shipped_scenarios_hold_smac_s_units_and_limits():
    expected = {
        "3m": (3, 3, 60),
        "8m": (8, 8, 120),
        "25m": (25, 25, 150),
        "2s3z": (5, 5, 120),
        "3s5z": (8, 8, 150),
        "5m_vs_6m": (5, 6, 70),
        "3s_vs_5z": (3, 5, 250),
        "27m_vs_30m": (27, 30, 180),
    }
    assert set(expected) <= set(scenario_names())
    for name, (ours, theirs, limit) in expected.items():
        scenario = load_scenario(name)
        assert (scenario.teams[0].size, scenario.teams[1].size, scenario.step_limit) == (ours, theirs, limit)


def test_symmetry_is_recognised():
    assert {name for name in scenario_names() if load_scenario(name).symmetric} == {
        "3m",
        "8m",
        "25m",
        "2s3z",
        "3s5z",
    }


def test_a_file_of_one_s_own(load):
    scenario = load(GOOD)
    assert scenario.name == "mine"
    assert scenario.teams[0].units == ("marine",) * 5 + ("marauder",)
    assert scenario.teams[0].attack_point == (23, 16)
    assert not scenario.idle_units_attack


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("zealot: 4", "zealot: -1"), 5, ["zealot", "-1", "whole number"]),
        (("zealot: 4", "zealot: 1.5"), 5, ["1.5"]),
        (("zealot: 4", "zelot: 4"), 5, ["zelot", "zealot"]),
        (("zealot: 4", "zealot: 600"), 5, ["512"]),
        (("zealot: 4", "zealot: 400"), 5, ["do not fit"]),
        (("zealot: 4", "zealot: 0"), 5, ["no units"]),
        (("[23, 16]", "[23, 30]"), 6, ["30", "outside"]),
        (("[23, 16]", "[.nan, 16]"), 6, ["finite"]),
        (("[23, 16]", "centre"), 6, ["centre", "2 numbers"]),
        (("step_limit: 70", "step_limit: 0"), 7, ["step_limit", "0"]),
        (("step_limit: 70", "step_limt: 70"), 7, ["step_limt", "step_limit"]),
        (("step_limit: 70", "step_limit: 70\nspawn_jitter: -1"), 8, ["spawn_jitter"]),
        (("step_limit: 70", "step_limit: 70\nstep_limit: 71"), 8, ["twice"]),
        (("[0, 7, 32, 25]", "[0, 7, 40, 25]"), 1, ["playable"]),
        (("  - units: {zealot: 4}\n    spawn: [23, 16]\n", ""), 2, ["two teams"]),
        (("step_limit: 70", "step_limit: }"), 7, ["YAML"]),
        (("step_limit: 70", "1: foo"), 7, ["names", "'1'"]),
        (("zealot: 4", "5: 4"), 5, ["names", "'5'"]),
        (("step_limit: 70", "? [a, b]\n: 1"), 7, ["names"]),
        (("zealot: 4", "<<: {zealot: 4}"), 5, ["names", "<<"]),
        (("{zealot: 4}", "*team"), 5, ["aliases"]),
        (("step_limit: 70", "step_limit: \0"), 7, ["YAML", "x00"]),
        (("step_limit: 70", "step_limit: " + "[" * 5000), 1, ["too deeply"]),
        (("step_limit: 70", "step_limit: !!bool maybe"), 7, ["maybe", "bool"]),
        (("step_limit: 70", "step_limit: 2001-13-45"), 7, ["2001-13-45"]),
        (("step_limit: 70", "step_limit: 0x" + "f" * 5000), 7, ["5002 characters"]),
        (("step_limit: 70", "step_limit: yes"), 7, ["step_limit", "True"]),
        (("width: 32", "width: wide"), 1, ["width", "wide"]),
        (
            ("step_limit: 70", "step_limit: 70\nidle_units_attack: 1"),
            8,
            ["idle_units_attack", "true or false"],
        ),
        (("[23, 16]", "[23, 16]\n    attack_point: [9, 30]"), 7, ["attack_point", "outside"]),
        (("[23, 16]", "[23, 1" + "0" * 400 + "]"), 6, ["at most"]),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(load, change, line, words):
    with pytest.raises(ScenarioError) as refusal:
        load(GOOD.replace(*change))
    message = str(refusal.value)
    assert f"mine.yaml:{line}:" in message
    for word in words:
        assert word in message


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ScenarioError, match="2s3z"):
        load_scenario("2s3y")
    with pytest.raises(ScenarioError, match="no such file"):
        load_scenario("nowhere.yaml")
    with pytest.raises(ScenarioError, match="unknown scenario"):
        load_scenario("../units")


def test_a_file_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"# caf\xc3\xa9\nmap: \xff\xfe")
    with pytest.raises(ScenarioError, match=r"mine\.yaml:2: not UTF-8"):
        load_scenario(path)


@pytest.mark.parametrize(
    ("points", "symmetric"),
    [
        ([(5, 10), (27, 20), (27, 10), (5, 20)], True),  # reflected
        ([(5, 10), (27, 22), (27, 22), (5, 10)], True),  # rotated about (16, 16)
        ([(5, 10), (27, 20), (27, 10), (5, 12)], False),  # spawns reflected, attack points rotated
    ],
)
def test_one_symmetry_must_hold_for_all_points(points, symmetric):
    spawn0, attack0, spawn1, attack1 = points
    teams = (Team(("marine",), spawn0, attack0), Team(("marine",), spawn1, attack1))
    assert Scenario("s", 32, 32, (0, 0, 32, 32), teams, 60).symmetric == symmetric


def test_scenarios_built_in_code_are_bounded_too():
    with pytest.raises(ScenarioError, match="step_limit"):
        replace(load_scenario("3m"), step_limit=2**70)
    with pytest.raises(ScenarioError, match="map width is -5"):
        replace(load_scenario("3m"), width=-5)


def test_yaml_tags_are_not_executed(load):
    with pytest.raises(ScenarioError):
        load(GOOD.replace("step_limit: 70", "step_limit: !!python/object/apply:os.getcwd []"))


def test_aliases_cannot_blow_a_file_up(load):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]" for i in range(12)]
    with pytest.raises(ScenarioError, match=r"mine\.yaml:2: .*aliases"):
        load("\n".join(lines))
