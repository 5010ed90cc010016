"""The shipped scenario files, against figures written out here and, where they are there, the maps' data."""

import json
import os
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from envs.scenarios import (
    MissionKind,
    Placement,
    load_scenario,
    scenario_from_json,
    scenario_groups,
    scenario_names,
)
from envs.terrain import parse_terrain
from envs.units import unit_table

SMAC = {  # the first team, the second, step limit: "The StarCraft Multi-Agent Challenge", map registry
    "3m": ({"marine": 3}, {"marine": 3}, 60),
    "8m": ({"marine": 8}, {"marine": 8}, 120),
    "25m": ({"marine": 25}, {"marine": 25}, 150),
    "5m_vs_6m": ({"marine": 5}, {"marine": 6}, 70),
    "8m_vs_9m": ({"marine": 8}, {"marine": 9}, 120),
    "10m_vs_11m": ({"marine": 10}, {"marine": 11}, 150),
    "27m_vs_30m": ({"marine": 27}, {"marine": 30}, 180),
    "MMM": ({"marine": 7, "marauder": 2, "medivac": 1}, {"marine": 7, "marauder": 2, "medivac": 1}, 150),
    "MMM2": ({"marine": 7, "marauder": 2, "medivac": 1}, {"marine": 8, "marauder": 3, "medivac": 1}, 180),
    "2s3z": ({"stalker": 2, "zealot": 3}, {"stalker": 2, "zealot": 3}, 120),
    "3s5z": ({"stalker": 3, "zealot": 5}, {"stalker": 3, "zealot": 5}, 150),
    "3s5z_vs_3s6z": ({"stalker": 3, "zealot": 5}, {"stalker": 3, "zealot": 6}, 170),
    "1c3s5z": (
        {"colossus": 1, "stalker": 3, "zealot": 5},
        {"colossus": 1, "stalker": 3, "zealot": 5},
        180,
    ),
    "3s_vs_3z": ({"stalker": 3}, {"zealot": 3}, 150),
    "3s_vs_4z": ({"stalker": 3}, {"zealot": 4}, 200),
    "3s_vs_5z": ({"stalker": 3}, {"zealot": 5}, 250),
    "2m_vs_1z": ({"marine": 2}, {"zealot": 1}, 150),
    "2s_vs_1sc": ({"stalker": 2}, {"spine_crawler": 1}, 300),
    "6h_vs_8z": ({"hydralisk": 6}, {"zealot": 8}, 150),
    "corridor": ({"zealot": 6}, {"zergling": 24}, 400),
    "so_many_baneling": ({"zealot": 7}, {"baneling": 32}, 100),
    "bane_vs_bane": ({"zergling": 20, "baneling": 4}, {"zergling": 20, "baneling": 4}, 200),
    "2c_vs_64zg": ({"colossus": 2}, {"zergling": 64}, 400),
}
WALKABLE = {"2s_vs_1sc": 232, "6h_vs_8z": 212, "corridor": 468, "so_many_baneling": 428, "bane_vs_bane": 444}
BESIDE = Path(__file__).parents[3] / "shared" / "data" / "starcraft"
DATA = Path(os.environ.get("PERCEIVER_POLICY_GAME_DATA", BESIDE))


@pytest.mark.parametrize("name", SMAC)
def test_smac_s_teams_and_limits(name):
    scenario = load_scenario(name)
    first, second, limit = SMAC[name]
    assert [Counter(team.units) for team in scenario.teams] == [Counter(first), Counter(second)]
    assert scenario.step_limit == limit
    assert scenario.spawn_jitter == 0
    assert not scenario.idle_units_attack


def test_all_of_smac_is_there():
    assert set(scenario_groups()["smac"]) == set(SMAC)


def walkable(scenario) -> np.ndarray:
    """bool (H, W): where a unit on the ground can be, row 0 in the south."""
    x0, y0, x1, y1 = map(int, scenario.playable)
    inside = np.zeros((scenario.height, scenario.width), bool)
    inside[y0:y1, x0:x1] = True
    if scenario.terrain is not None:
        inside &= parse_terrain(scenario.terrain, scenario.width, scenario.height).heights >= 0
    return inside


def test_smac_s_ground():
    for name in SMAC:
        cells = walkable(load_scenario(name))
        if name in WALKABLE:
            assert cells.sum() == WALKABLE[name]
        elif name.startswith("3s_vs"):
            assert cells.all()
    band = load_scenario("3m")
    assert (band.playable, band.terrain) == ((0, 7, 32, 25), None)


def test_the_plateau_of_2c_vs_64zg_has_ramps_and_a_cliff():
    scenario = load_scenario("2c_vs_64zg")
    terrain = parse_terrain(scenario.terrain, 32, 32)
    assert terrain.heights[15, :9].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 4]
    assert terrain.heights[11:15, 16].tolist() == [0, 0, 4, 4]
    assert scenario.teams[1].attack_point is None


@pytest.mark.skipif(not DATA.is_dir(), reason="the maps' data are not here")
@pytest.mark.parametrize("name", SMAC)
def test_smac_s_maps(name):
    """Spawns, attack points and every cell's height, as the map files have them."""
    scenario = load_scenario(name)
    data = json.loads((DATA / "scenarios.json").read_text())[name]
    assert [scenario.width, scenario.height] == data["size"]
    for owner, team in enumerate(scenario.teams, start=1):
        spawned = Counter()
        for spawn in data["spawns"]:
            if spawn["owner"] == owner:
                unit = spawn["unit"].replace("_RL", "").replace("Colosus", "Colossus")
                unit = re.sub("(?<=[a-z])(?=[A-Z])", "_", unit).lower()
                spawned[unit, *spawn["at"]] += spawn["n"]
        ours = Counter((unit, *group.spawn) for group in team.groups for unit in group.units)
        assert ours == spawned
    point = data["enemy_attack_point"]
    assert scenario.teams[1].attack_point == (point and tuple(point))
    heights = np.load(DATA / "map_grids.npz")[f"{name}_cliff"]
    assert np.array_equal(walkable(scenario), heights > 0)
    if scenario.terrain is not None:
        levels = [0, 64, 72, 88, 104, 128]
        ours = parse_terrain(scenario.terrain, 32, 32).heights
        assert np.array_equal(np.searchsorted(levels, heights) - 1, ours)


@pytest.mark.parametrize("race", ["protoss", "terran", "zerg"])
def test_smacv2(race):
    weights = {
        "protoss": {"stalker": 0.45, "zealot": 0.45, "colossus": 0.1},
        "terran": {"marine": 0.45, "marauder": 0.45, "medivac": 0.1},
        "zerg": {"zergling": 0.45, "hydralisk": 0.45, "baneling": 0.1},
    }
    alone = {"protoss": (), "terran": ("medivac",), "zerg": ("baneling",)}
    sizes = {(5, 5), (10, 10), (20, 20), (10, 11), (20, 23)}
    assert {f"smacv2_{race}_{a}v{b}" for a, b in sizes} <= set(scenario_groups()["smacv2"])
    for a, b in sizes:
        scenario = load_scenario(f"smacv2_{race}_{a}v{b}")
        assert (scenario.teams[0].size, scenario.teams[1].size, scenario.step_limit) == (a, b, 200)
        assert dict(zip(scenario.draw.types, scenario.draw.weights, strict=True)) == weights[race]
        assert scenario.draw.never_alone == alone[race]
        assert scenario.draw.placement is Placement.SURROUND_OR_REFLECT
        assert scenario.playable == (0, 0, 32, 32)
        assert not scenario.symmetric


def test_missions():
    """Seconds at "Normal" speed, distances and scores: pysc2's docs/mini_games.md."""
    scenarios = {name: load_scenario(name) for name in scenario_groups()["missions"]}
    assert {name: s.mission.kind for name, s in scenarios.items()} == {
        "move_to_beacon": MissionKind.BEACON,
        "collect_mineral_shards": MissionKind.SHARDS,
        "find_and_defeat_zerglings": MissionKind.HUNT,
        "defeat_roaches": MissionKind.WAVES,
        "defeat_zerglings_and_banelings": MissionKind.WAVES,
    }
    for name, scenario in scenarios.items():
        seconds = 180 if name == "find_and_defeat_zerglings" else 120
        assert scenario.step_limit * 8 == seconds * 16
        assert scenario.idle_units_attack
    assert Counter(scenarios["collect_mineral_shards"].neutral) == {"mineral_shard": 20}
    roaches, banelings = scenarios["defeat_roaches"], scenarios["defeat_zerglings_and_banelings"]
    for scenario in (roaches, banelings):
        assert scenario.teams[0].size - scenario.teams[0].reserve == 9
    assert (roaches.mission.reinforcements, roaches.mission.kill, roaches.mission.loss) == (5, 10, -1)
    assert (banelings.mission.reinforcements, banelings.mission.kill, banelings.mission.loss) == (4, 5, -1)
    assert Counter(roaches.teams[1].units) == {"roach": 4}
    assert Counter(banelings.teams[1].units) == {"zergling": 6, "baneling": 4}
    hunt = scenarios["find_and_defeat_zerglings"]
    assert Counter(hunt.teams[1].units) == {"zergling": 25}
    assert (hunt.mission.apart, hunt.mission.spread, hunt.mission.near_ring) == (9, 5, (7.5, 9.5))
    assert hunt.teams[1].attack_point is None


def test_symmetric_and_large_battles_favour_nobody():
    groups = scenario_groups()
    even = {name for name in scenario_names() if load_scenario(name).symmetric}
    smac = {name for name, (first, second, _) in SMAC.items() if first == second}
    assert even == {*groups["symmetric"], *groups["large"], *smac}


def test_large_battles_are_as_dense_as_small_ones():
    cells = [load_scenario(name).width ** 2 for name in scenario_groups()["large"]]
    units = [load_scenario(name).num_units for name in scenario_groups()["large"]]
    assert units == [50, 100, 200, 400]
    assert np.allclose(np.divide(cells, units), 20.4, atol=0.2)


def test_the_choke_has_a_gap_and_plateaus_with_ramps():
    scenario = load_scenario("choke_8v8")
    terrain = parse_terrain(scenario.terrain, scenario.width, scenario.height)
    assert (terrain.heights[:, 15] >= 0).sum() == 4
    walking, climbing = terrain.regions(climbs=False), terrain.regions(climbs=True)
    assert walking.max() == climbing.max() == 0  # all can be walked to, over the ramps
    assert terrain.heights[17, 7:14].tolist() == [0, 1, 2, 2, 2, 2, 0]


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_survives_json_and_names_known_units(name):
    scenario = load_scenario(name)
    assert scenario_from_json(json.loads(json.dumps(asdict(scenario)))) == scenario
    assert scenario.name == name
    table = unit_table()
    assert all(table[unit.name] is unit for unit in scenario.unit_types)
