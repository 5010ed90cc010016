import contextlib
import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envs.scenarios import (
    Draw,
    Group,
    Mission,
    MissionKind,
    Placement,
    Preset,
    ScenarioError,
    Team,
    load_scenario,
    scenario_from_json,
    scenario_groups,
    scenario_names,
)

GOOD = """\
map: {width: 32, height: 32, playable: [0, 7, 32, 25]}
teams:
  - units: {marine: 5, marauder: 1}
    spawn: [9, 16]
  - units: {zealot: 4}
    spawn: [23, 16]
step_limit: 70
"""
FULL = """\
map:
  width: 8
  height: 4
  terrain: ["#..11..#", "...22...", "~..22...", "#..11..#"]
teams:
  - groups:
      - {units: {marine: 1}, spawn: [1, 2]}
      - {units: {reaper: 1}, spawn: [2, 1]}
    attack_point: none
  - {units: {zealot: 1}, spawn: [7, 2]}
step_limit: 9
spawn_jitter: 0.5
idle_units_attack: true
preset: smac
"""
WAVES = """\
map: {width: 32, height: 32}
teams:
  - {units: {marine: 9}, spawn: [9, 16], reserve: 4}
  - {units: {roach: 4}, spawn: [23, 16]}
mission: {kind: waves, region: [0, 0, 32, 32], kill: 10, loss: -1, reinforcements: 5}
step_limit: 240
"""
HUNT = """\
map: {width: 32, height: 32}
teams:
  - {units: {marine: 3}, spawn: [16, 16]}
  - {units: {zergling: 6}, spawn: [16, 16], attack_point: none}
mission:
  {kind: hunt, region: [4, 4, 28, 28], apart: 9, spread: 5, kill: 1, near: 2, near_ring: [7, 9], far: 10}
step_limit: 240
"""
BEACON = """\
map: {width: 32, height: 32}
teams:
  - {units: {marine: 1}, spawn: [16, 16]}
neutral: {beacon: 1}
mission: {kind: beacon, region: [4, 4, 28, 28], apart: 5}
step_limit: 240
"""
DRAW = """\
map: {width: 32, height: 32}
teams:
  - {units: {marine: 5}, spawn: [8, 16]}
  - {units: {marine: 6}, spawn: [24, 16]}
draw:
  types: {marine: 0.5, marauder: 0.4, medivac: 0.1}
  never_alone: [medivac]
  placement: surround_or_reflect
step_limit: 200
"""


@pytest.fixture
def load(tmp_path: Path):
    def write_and_load(text: str):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return load_scenario(path)

    return write_and_load


class TestFilesOfOnesOwn:
    def test_the_short_form(self, load):
        scenario = load(GOOD)
        assert scenario.name == "mine"
        assert scenario.teams[0] == Team((Group(("marine",) * 5 + ("marauder",), (9, 16)),), (23, 16))
        assert scenario.teams[0].units == ("marine",) * 5 + ("marauder",)
        assert (scenario.terrain, scenario.draw, scenario.mission) == (None, None, None)
        assert scenario.preset is Preset.NATIVE
        assert not scenario.idle_units_attack

    def test_groups_terrain_and_preset(self, load):
        scenario = load(FULL)
        first, second = scenario.teams
        assert first.groups == (Group(("marine",), (1, 2)), Group(("reaper",), (2, 1)))
        assert (first.units, first.spawn) == (("marine", "reaper"), (1, 2))
        assert (first.attack_point, second.attack_point) == (None, (1, 2))
        assert scenario.terrain == ("#..11..#", "...22...", "~..22...", "#..11..#")
        assert scenario.preset is Preset.SMAC
        assert scenario.name == "mine@smac"
        assert [unit.name for unit in scenario.unit_types] == ["marine", "reaper", "zealot"]

    def test_missions(self, load):
        waves, beacon = load(WAVES), load(BEACON)
        assert waves.teams[0].reserve == 4
        assert waves.mission == Mission(MissionKind.WAVES, (0, 0, 32, 32), kill=10, loss=-1, reinforcements=5)
        assert beacon.teams[1] == Team((), None)
        assert beacon.teams[0].attack_point is None
        assert (beacon.num_units, beacon.teams[1].size, beacon.neutral) == (2, 0, ("beacon",))
        assert [unit.name for unit in beacon.unit_types] == ["marine", "beacon"]
        assert load(HUNT).mission.near_ring == (7, 9)

    def test_draws(self, load):
        scenario = load(DRAW)
        assert scenario.draw == Draw(
            ("marine", "marauder", "medivac"),
            (0.5, 0.4, 0.1),
            ("medivac",),
            Placement.SURROUND_OR_REFLECT,
        )
        assert [unit.name for unit in scenario.unit_types] == ["marine", "marauder", "medivac"]

    def test_draws_are_symmetric_at_points_of_equal_groups(self, load):
        surround = load(DRAW)
        assert not surround.symmetric
        points = replace(surround, draw=replace(surround.draw, placement=Placement.POINTS))
        assert not points.symmetric  # 5 against 6
        even = load(
            DRAW.replace("marine: 6", "marine: 4, marauder: 1").replace("surround_or_reflect", "points")
        )
        assert even.symmetric  # the types named are stand-ins

    def test_missions_are_not_symmetric(self, load):
        even = WAVES.replace("{roach: 4}", "{marine: 9}").replace(
            "{marine: 9}, spawn: [9, 16], reserve: 4}", "{marine: 9}, spawn: [9, 16]}"
        )
        assert not load(even).symmetric
        assert replace(load(even), mission=None).symmetric

    @pytest.mark.parametrize("text", [GOOD, FULL, WAVES, HUNT, BEACON, DRAW])
    def test_a_scenario_survives_json(self, load, text):
        scenario = load(text)
        assert scenario_from_json(json.loads(json.dumps(asdict(scenario)))) == scenario

    def test_a_scenario_travels_to_other_processes(self, load):
        scenario = load(FULL)
        assert (len(scenario.unit_types), scenario.symmetric) == (3, False)
        # As multiprocessing and Ray send it; nothing here unpickles a file.
        assert pickle.loads(pickle.dumps(scenario)) == scenario


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("zealot: 4", "zealot: -1"), 5, ["zealot", "-1", "whole number"]),
        (("zealot: 4", "zealot: 1.5"), 5, ["1.5"]),
        (("zealot: 4", "zelot: 4"), 5, ["zelot", "zealot"]),
        (("zealot: 4", "zealot: 600"), 5, ["512"]),
        (("zealot: 4", "zealot: 512"), 2, ["518 units", "512", "take away 6"]),
        (("zealot: 4", "zealot: 400"), 5, ["do not fit"]),
        (("zealot: 4", "zealot: 0"), 5, ["no units"]),
        (("zealot: 4", "beacon: 4"), 5, ["beacon", "neutral"]),
        (("[23, 16]", "[23, 30]"), 6, ["30", "outside"]),
        (("[23, 16]", "[.nan, 16]"), 6, ["finite"]),
        (("[23, 16]", "centre"), 6, ["centre", "2 numbers"]),
        (("step_limit: 70", "step_limit: 0"), 7, ["step_limit", "0"]),
        (("step_limit: 70", "step_limt: 70"), 7, ["step_limt", "step_limit"]),
        (("step_limit: 70", "step_limit: 70\nspawn_jitter: -1"), 8, ["spawn_jitter"]),
        (("step_limit: 70", "step_limit: 70\nstep_limit: 71"), 8, ["twice"]),
        (("step_limit: 70", "step_limit: 70\npreset: smax"), 8, ["preset", "smax", "native, smac"]),
        (("step_limit: 70", "step_limit: 70\nname: x"), 8, ["unknown key 'name'"]),
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
        (("[23, 16]", "[23, 16]\n    attack_point: nowhere"), 7, ["attack_point", "nowhere"]),
        (("[23, 16]", "[23, 1" + "0" * 240 + "]"), 6, ["outside"]),
        (("[23, 16]", "[23, 1" + "0" * 400 + "]"), 6, ["at most"]),
        (("[23, 16]", "[23, 16]\n    reserve: 2"), 7, ["reserve", "waves"]),
        (("[23, 16]", "[23, 16]\n    groups: []"), 5, ["has groups", "units"]),
        (("step_limit: 70", "step_limit: 70\nneutral: {beacon: 1}"), 8, ["neutral", "missions"]),
        (("25]}", "25], terrain: [...]}"), 1, ["1 rows", "32"]),
        (("25]}", "25], terrain: ...}"), 1, ["terrain", "quotes"]),
        (("25]}", "25], terrain: [0, 0]}"), 1, ["terrain", "quotes"]),
        # Battles that could not be played.
        (
            ("[23, 16]", "[11, 16]"),
            6,
            ["team 1's spawn [9.0, 16.0]", "team 2's spawn [11.0, 16.0]", "overlap"],
        ),
        (("zealot: 4", "dark_templar: 4"), 5, ["cloaked", "detector"]),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(load, change, line, words):
    with pytest.raises(ScenarioError) as refusal:
        load(GOOD.replace(*change))
    message = str(refusal.value)
    assert f"mine.yaml:{line}:" in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "change", "line", "words"),
    [
        (FULL, ("~..22...", "~..22.."), 4, ["row 3", "7 characters"]),
        (FULL, ("~..22...", "~..2x..."), 4, ["row 3", "'x'"]),
        (FULL, ("[7, 2]", "[7.5, 0.5]"), 10, ["team 2: spawn", "wall"]),
        (FULL, ("attack_point: none", "attack_point: [7.5, 3.5]"), 9, ["team 1: attack_point", "wall"]),
        (FULL, ("[2, 1]", "[2, 9]"), 8, ["team 1, group 2: spawn", "outside"]),
        (FULL, ("[2, 1]", "[0.2, 0.2]"), 8, ["team 1, group 2: spawn", "wall"]),
        (FULL, ("{reaper: 1}", "{reaper: 0}"), 8, ["team 1, group 2 has no units"]),
        (FULL, ("{reaper: 1}", "{reeper: 1}"), 8, ["team 1, group 2", "reeper", "reaper"]),
        (FULL, ("{units: {reaper: 1}", "{unit: {reaper: 1}"), 8, ["team 1, group 2", "unit", "units"]),
        (FULL, ("{units: {reaper: 1}, spawn: [2, 1]}", "reaper"), 6, ["team 1, group 2", "mapping"]),
        (WAVES, ("reserve: 4", "reserve: 9"), 3, ["reserve is 9 of 9"]),
        (WAVES, ("reserve: 4", "reserve: x"), 3, ["reserve", "'x'"]),
        (WAVES, ("kind: waves", "kind: wave"), 5, ["'wave'", "beacon, shards, hunt, waves"]),
        (WAVES, ("kind: waves, ", ""), 5, ["no 'kind'"]),
        (WAVES, ("32, 32], kill", "32, 33], kill"), 5, ["region", "33", "within the playable area"]),
        (WAVES, ("loss: -1", "losses: -1"), 5, ["losses", "'loss'"]),
        (WAVES, ("reinforcements: 5", "reinforcements: -5"), 5, ["reinforcements", "-5"]),
        (WAVES, ("kill: 10", "kill: .inf"), 5, ["kill", "inf"]),
        (WAVES, ("kill: 10", "near: 5"), 5, ["near is 5", "4 units"]),
        (WAVES, ("  - {units: {roach: 4}, spawn: [23, 16]}\n", ""), 2, ["team 2 has no units"]),
        (WAVES, ("step_limit", "neutral: {beacon: 1}\nstep_limit"), 6, ["waves", "no neutral"]),
        (HUNT, ("spread: 5", "spread: 9"), 6, ["6 units that are 9 apart", "at most 4"]),
        (HUNT, ("apart: 9", "apart: 17"), 6, ["apart is 17", "16.9"]),
        (HUNT, ("[7, 9]", "[9, 7]"), 6, ["near_ring", "[9.0, 7.0]"]),
        (HUNT, ("[7, 9]", "7"), 6, ["near_ring", "2 numbers"]),
        (BEACON, ("neutral: {beacon: 1}\n", ""), 4, ["needs neutral units, all beacon"]),
        (BEACON, ("{beacon: 1}", "{mineral_shard: 1}"), 4, ["all beacon"]),
        (BEACON, ("neutral", "  - {units: {zergling: 1}, spawn: [9, 9]}\nneutral"), 4, ["no enemies"]),
        (BEACON, ("height: 32", f"height: 32, terrain: {['.' * 32] * 32}"), 1, ["without terrain"]),
        (DRAW, ("medivac: 0.1", "medivac: 0.2"), 6, ["sum to 1.1"]),
        (DRAW, ("medivac: 0.1", "medivac: -0.1"), 6, ["weight of medivac", "-0.1"]),
        (DRAW, ("medivac: 0.1", "medivak: 0.1"), 6, ["medivak", "medivac"]),
        (DRAW, ("[medivac]", "[colossus]"), 7, ["never_alone", "colossus"]),
        (DRAW, ("[medivac]", "[medivac, marine, marauder]"), 7, ["leaves no type"]),
        (DRAW, ("[medivac]", "[]"), 6, ["medivac alone has no weapon", "never_alone"]),
        (DRAW, ("medivac", "viking_fighter"), 6, ["team of marauder alone", "viking_fighter (air)"]),
        (DRAW, ("medivac", "dark_templar"), 6, ["dark_templar is cloaked"]),
        (DRAW, ("surround_or_reflect", "circle"), 8, ["'circle'", "points, surround_or_reflect"]),
        (DRAW, ("marine: 6", "zealot: 6"), 4, ["zealot", "not among the types drawn"]),
        (DRAW, ("marine: 6", "marine: 600"), 4, ["512"]),
    ],
)
def test_wrong_values_deeper_down_are_refused_with_their_line(load, text, change, line, words):
    with pytest.raises(ScenarioError) as refusal:
        load(text.replace(*change))
    message = str(refusal.value)
    assert f"mine.yaml:{line}:" in message
    for word in words:
        assert word in message


class TestNames:
    def test_unknown_names_suggest_the_nearest(self):
        with pytest.raises(ScenarioError, match="2s3z"):
            load_scenario("2s3y")
        with pytest.raises(ScenarioError, match="no such file"):
            load_scenario("nowhere.yaml")
        with pytest.raises(ScenarioError, match="unknown scenario"):
            load_scenario("../units")

    def test_presets_by_name(self, load, tmp_path):
        plain, smac = load_scenario("3m"), load_scenario("3m@smac")
        assert smac == replace(plain, name="3m@smac", preset=Preset.SMAC)
        assert load_scenario("3m@native") == plain
        assert load_scenario(smac.name) == smac
        load(GOOD)
        assert load_scenario(f"{tmp_path}/mine.yaml@smac").name == "mine@smac"
        with pytest.raises(ScenarioError, match="unknown preset 'smax'; known: native, smac"):
            load_scenario("3m@smax")
        with pytest.raises(ScenarioError, match="unknown scenario '3n'"):
            load_scenario("3n@smac")

    def test_a_path_may_hold_the_sign_of_a_preset(self, tmp_path):
        (tmp_path / "a@b").mkdir()
        path = tmp_path / "a@b" / "me@home.yaml"
        path.write_text(GOOD)
        assert load_scenario(path).name == "me@home"

    def test_small_scenarios_come_first_in_names_and_groups(self):
        sizes = [load_scenario(name).num_units for name in scenario_names()]
        assert sizes == sorted(sizes)
        groups = scenario_groups()
        assert sorted(sum(groups.values(), ())) == sorted(scenario_names())
        assert list(groups["large"]) == [f"battle_{n}v{n}" for n in (25, 50, 100, 200)]


def test_a_file_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"# caf\xc3\xa9\nmap: \xff\xfe")
    with pytest.raises(ScenarioError, match=r"mine\.yaml:2: not UTF-8"):
        load_scenario(path)


def test_scenarios_built_in_code_are_bounded_too():
    scenario = load_scenario("3m")
    for changes, message in [
        ({"step_limit": 2**70}, "step_limit"),
        ({"width": -5}, "map width is -5"),
        ({"teams": scenario.teams[:1]}, "two teams"),
        ({"teams": [*scenario.teams]}, "two teams"),
        ({"teams": (scenario.teams[0], Team((), None))}, "team 2 has no units"),
        ({"preset": "smac"}, "preset is 'smac'; it must be one of: native, smac"),
        ({"terrain": [".." * 16] * 32}, "terrain must be"),
        ({"mission": "waves"}, "mission must say"),
        ({"draw": {}}, "draw must say"),
    ]:
        with pytest.raises(ScenarioError, match=message):
            replace(scenario, **changes)


def test_json_with_missing_or_unknown_keys_is_refused():
    def data():
        return json.loads(json.dumps(asdict(load_scenario("defeat_roaches"))))

    for change, message in [
        (lambda d: d.pop("draw"), r"the scenario: missing keys \['draw'\]"),
        (lambda d: d["mission"].update(x=1), r"the mission: .*unknown keys \['x'\]"),
        (lambda d: d["mission"].update(kind="flee"), "mission: kind is 'flee'"),
        (lambda d: d["teams"][0].pop("reserve"), r"a team: missing keys \['reserve'\]"),
        (lambda d: d["teams"][0]["groups"][0].update(at=[1, 2]), r"a group: .*unknown keys \['at'\]"),
        (lambda d: d["teams"][0].update(groups={}), "groups must be a list"),
        (lambda d: d["teams"][0].update(groups=[3]), "a group must be an object"),
        (lambda d: d.update(teams=None), "teams must be a list of objects"),
        (lambda d: d.update(mission=[]), "the mission must be an object"),
        (lambda d: d.update(draw={}), "the draw: missing keys"),
        (lambda d: d.update(preset=3), "preset is 3"),
    ]:
        changed = data()
        change(changed)
        with pytest.raises(ScenarioError, match=message):
            scenario_from_json(changed)
    with pytest.raises(ScenarioError, match="the scenario must be an object"):
        scenario_from_json([])


def test_yaml_tags_are_not_executed(load):
    with pytest.raises(ScenarioError):
        load(GOOD.replace("step_limit: 70", "step_limit: !!python/object/apply:os.getcwd []"))


def test_aliases_cannot_blow_a_file_up(load):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]" for i in range(12)]
    with pytest.raises(ScenarioError, match=r"mine\.yaml:2: .*aliases"):
        load("\n".join(lines))


WRONG = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def places(value, at=()):
    """All places in nested data, as the keys that lead there."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


@pytest.mark.parametrize("text", [GOOD, FULL, WAVES, HUNT, BEACON, DRAW])
@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_value_in_any_place_loads_or_is_refused_with_a_line(load, text, data):
    """No other error, whatever stands where."""
    document = yaml.safe_load(text)
    at = data.draw(st.sampled_from([*places(document)][1:]))
    inner = document
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = data.draw(WRONG)
    refusal = None
    try:
        load(yaml.safe_dump(document, allow_unicode=True))
    except ScenarioError as error:
        refusal = str(error)
    assert refusal is None or "mine.yaml:" in refusal


@pytest.mark.parametrize("text", [FULL, WAVES, DRAW])
@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_value_in_any_place_of_json_loads_or_is_refused(load, text, data):
    document = json.loads(json.dumps(asdict(load(text))))
    at = data.draw(st.sampled_from([*places(document)][1:]))
    inner = document
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = data.draw(WRONG)
    with contextlib.suppress(ScenarioError):
        scenario_from_json(document)


def test_a_file_too_large_for_a_scenario_is_refused(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ScenarioError, match="1048577 bytes; a scenario file has at most 1048576"):
        load_scenario(path)
