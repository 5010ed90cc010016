"""The unit table against the game's own data.

They are not part of the project. These tests look in the folder that the environment variable
PERCEIVER_POLICY_GAME_DATA names, or else in ../shared/data/starcraft beside the repository, for
``unit_table.json``: a row a unit, with ``hp``, ``shield``, ``weapons`` and so on, and under ``micro`` some
fields of the game editor's weapon catalogue, in "Normal" seconds. They skip where there is none.
"""

import json
import os
from pathlib import Path

import pytest

from envs.units import UnitType, Weapon, unit_table

NORMAL = 16.0  # game loops a second in the game's data
ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("PERCEIVER_POLICY_GAME_DATA", ROOT.parent / "shared" / "data" / "starcraft"))
GIVEN = "PERCEIVER_POLICY_GAME_DATA" in os.environ  # then a folder that is not there is an error
ENTRIES = json.loads((FOLDER / "unit_table.json").read_text()) if GIVEN or FOLDER.is_dir() else []
GAME = {entry["id"]: entry for entry in ENTRIES}
needs_game_data = pytest.mark.skipif(
    not GAME, reason=f"no game data in {FOLDER}; set PERCEIVER_POLICY_GAME_DATA"
)

OTHER_NAMES = {
    "hellbat": "HellionTank",
    "thor_high_impact": "ThorAP",
    "swarm_host": "SwarmHostMP",
    "locust": "LocustMP",
    "lurker": "LurkerMP",
    "lurker_burrowed": "LurkerMPBurrowed",
    "liberator_ag": "LiberatorAG",
}
NOT_IN_THE_DATA = {
    "beacon",
    "mineral_shard",
}  # objects of the mini-games; the data describe units that are made
OTHER_WEAPONS = {
    "baneling": "the data show no weapon: it bursts",
    "sentry": "the data show no weapon: its beam is hidden from them",
    "void_ray": "the data show no weapon: its beam is hidden from them",
    "widow_mine_burrowed": "the data show no weapon: its shot is an ability",
    "battlecruiser": "the data fold a weapon against the ground and a weaker one against the air into one",
    "oracle": "the data show its beam twice: as a weapon and as what is displayed",
}
OTHER_CATALOGUE_FIELDS = {
    ("roach", "minimum_range"): "closer than that the game swaps in a melee weapon of the same numbers",
}
LEFT_OUT = {
    "not in current games": [7, 145, 488, 491, 497, 820, 838],  # infested terran, Nova, mothership core, ...
    "changelings: copies that do not fight": [13, 14, 15, 16, 17],
    "units of the first game": [727, 729, 855, 856, 857, 858],
}


def expected_weapons(entry: dict) -> list[dict]:
    planes = {"Any": {"ground", "air"}, "Ground": {"ground"}, "Air": {"air"}}
    return [
        {
            "targets": planes[weapon["type"]],
            "damage": weapon["damage"],
            "bonus": {bonus["attr"].lower(): bonus["bonus"] for bonus in weapon["bonus"]},
            "hits": weapon["attacks"],
            "range": pytest.approx(weapon["range"], rel=1e-5),
            "period": pytest.approx(weapon["cooldown_s_normal"] * NORMAL, rel=1e-5),
        }
        for weapon in entry["weapons"]
    ]


def actual_weapon(weapon: Weapon) -> dict:
    return {
        "targets": set(weapon.targets),
        "damage": weapon.damage,
        "bonus": dict(weapon.bonus),
        "hits": weapon.hits,
        "range": weapon.range,
        "period": weapon.period,
    }


@needs_game_data
@pytest.mark.parametrize("unit", unit_table().values(), ids=list(unit_table()))
def test_a_row_agrees_with_the_game_data(unit: UnitType):
    if unit.name in NOT_IN_THE_DATA:
        assert unit.sc2_id not in GAME
        return
    entry = GAME[unit.sc2_id]
    assert entry["name"].lower() == OTHER_NAMES.get(unit.name, unit.name).replace("_", "").lower()
    assert unit.race == entry["race"].lower()
    assert unit.attributes == {attribute.lower() for attribute in entry["attributes"]}
    assert unit.flying == entry["flying"]
    for field, key in (("health", "hp"), ("shield", "shield"), ("energy", "energy"), ("armor", "armor")):
        assert getattr(unit, field) == entry[key], field
    assert unit.radius == entry["radius"]
    assert unit.sight == entry["sight"]
    assert unit.speed == pytest.approx(entry["speed"] / NORMAL, rel=1e-5)
    weapons = [actual_weapon(weapon) for weapon in unit.weapons]
    agree = len(weapons) == len(entry["weapons"]) and all(w in weapons for w in expected_weapons(entry))
    assert agree == (unit.name not in OTHER_WEAPONS)


@needs_game_data
@pytest.mark.parametrize("name", [name for name, unit in unit_table().items() if unit.weapons])
def test_weapons_agree_with_the_catalogue(name):
    micro = GAME[unit_table()[name].sc2_id]["micro"] or {}
    fields = {"damage_point": NORMAL, "backswing": NORMAL, "min_scan": 1, "range_slop": 1, "minimum_range": 1}
    for field, scale in fields.items():
        if micro.get(field) is not None and (name, field) not in OTHER_CATALOGUE_FIELDS:
            for weapon in unit_table()[name].weapons:
                ours = getattr(weapon, field.replace("minimum", "min"))
                assert ours == pytest.approx(micro[field] * scale, rel=1e-5), field


@needs_game_data
def test_every_armed_unit_of_the_game_is_in_the_table():
    ours = {unit.sc2_id for unit in unit_table().values()}
    left_out = {unit for units in LEFT_OUT.values() for unit in units}
    assert {unit for unit, entry in GAME.items() if entry["weapons"]} - ours == left_out
