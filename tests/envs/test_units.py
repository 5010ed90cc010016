"""The unit table against figures worked out by hand, and its form. See also test_units_game_data.py."""

import math
import re
from importlib import resources

import pytest

from envs.units import (
    Area,
    Shape,
    UnitTableError,
    hash_units,
    num_unit_types,
    read_units,
    unit_table,
    unit_table_hash,
)

FASTER = 22.4  # game loops a second at the speed the game is played and its figures are published
NORMAL = 16.0  # game loops a second in the game's data
SOURCE = resources.files("envs").joinpath("data/units.yaml").read_text(encoding="utf-8")

# --- By hand ---


@pytest.mark.parametrize(
    ("name", "cells_per_second", "dps"),
    # Published movement speed and damage per second, at "Faster"; the weapon against the ground.
    [
        ("marine", 3.15, 9.8),
        ("marauder", 3.15, 9.3),
        ("reaper", 5.25, 10.1),
        ("zealot", 3.15, 18.6),
        ("stalker", 4.13, 9.7),
        ("adept", 3.5, 6.2),
        ("immortal", 3.15, 19.3),
        ("zergling", 4.13, 10.0),
        ("roach", 3.15, 11.2),
        ("hydralisk", 3.15, 20.4),
        ("colossus", 3.15, 18.7),
        ("ghost", 3.94, 9.3),
        ("hellion", 5.95, 4.5),
        ("hellbat", 3.15, 12.6),
        ("siege_tank", 3.15, 20.2),
        ("siege_tank_sieged", 0, 18.7),
        ("thor", 2.62, 65.6),
        ("banshee", 3.85, 26.9),
        ("battlecruiser", 2.62, 49.8),
        ("dark_templar", 3.94, 37.2),
        ("archon", 3.94, 20.0),
        ("void_ray", 3.85, 16.8),
        ("queen", 1.31, 11.2),
        ("ravager", 3.85, 14.0),
        ("lurker_burrowed", 0, 14.0),
        ("mutalisk", 5.6, 8.3),
        ("ultralisk", 4.13, 57.0),
        ("brood_lord", 2.24, 11.2),
        ("spine_crawler", 0, 18.9),
        ("photon_cannon", 0, 22.4),
        ("planetary_fortress", 0, 28.0),
    ],
)
def test_speed_and_damage_per_second_match_published_figures(name, cells_per_second, dps):
    unit = unit_table()[name]
    weapon = unit.weapons[0]
    assert unit.speed * FASTER == pytest.approx(cells_per_second, abs=0.01)
    assert weapon.damage * weapon.hits / weapon.period * FASTER == pytest.approx(dps, abs=0.1)


@pytest.mark.parametrize(
    ("name", "per_loop"),
    [
        ("marine", 6 / 13.77344),
        ("zealot", 2 * 8 / 19.1992),
        ("stalker", 13 / 29.92192),
        ("zergling", 5 / 11.13664),
        ("roach", 16 / 32),
        ("colossus", 2 * 10 / 24),
        ("siege_tank_sieged", 40 / 48),
    ],
)
def test_damage_per_loop(name, per_loop):
    weapon = unit_table()[name].weapons[0]
    assert weapon.damage * weapon.hits / weapon.period == pytest.approx(per_loop, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("marine", 1.125),
        ("zergling", 1.47656),
        ("stalker", 1.47656),
        ("medivac", 1.25),
        ("baneling", 1.25),
        ("colossus", 1.125),
        ("hellion", 2.125),
        ("mutalisk", 2.0),
        ("phoenix", 2.125),
        ("overlord", 0.322265),
        ("spine_crawler", 0.0),
    ],
)
def test_displacement_in_a_step_of_eight_loops(name, cells):
    assert 8 * unit_table()[name].speed == pytest.approx(cells, abs=1e-5)


def volleys_to_kill(attacker: str, victim: str) -> int:
    """By the game's rule: shields first, without armour; then health less armour, at least 0.5 a hit."""
    it = unit_table()[victim]
    weapon = unit_table()[attacker].weapon_against(it)
    shield, health, volleys = it.shield, it.health, 0
    while health > 0:
        volleys += 1
        for _ in range(weapon.hits):
            damage = weapon.damage_against(it)
            absorbed = min(shield, damage)
            shield -= absorbed
            if damage > absorbed:
                health -= max(damage - absorbed - it.armor, 0.5)
    return volleys


@pytest.mark.parametrize(
    ("attacker", "victim", "volleys", "loops"),
    [
        ("marine", "zergling", 6, 68.87),  # 35 / 6
        ("zergling", "marine", 9, 89.09),  # 45 / 5
        ("marine", "zealot", 29, 385.66),  # 50 of shield take 8 1/3 shots; the 9th does 3, then 97 / 5
        ("zealot", "marine", 3, 38.40),  # 45 / 8 is 6 hits, two a volley
        ("zealot", "marauder", 9, 153.59),  # 125 / 7 is 18 hits
        ("stalker", "marauder", 8, 209.45),  # 13 + 5 - 1: 125 / 17
        ("marauder", "stalker", 9, 192.0),  # 20 a shot: 4 for the shield, 80 / 19 for the rest
        ("immortal", "roach", 3, 46.40),  # 50 - 1: 145 / 49
        ("hydralisk", "marauder", 12, 145.19),  # 125 / 11
        ("roach", "marine", 3, 64.0),  # 45 / 16
        ("colossus", "zergling", 2, 24.0),  # 2 x 15
        ("baneling", "zergling", 1, 0.0),  # 16 + 19
        ("baneling", "marine", 2, 13.33),  # 45 / 35
        ("baneling", "zealot", 5, 53.31),  # 35 and 15 of shield, the 2nd does 19 more, then 81 / 34
        ("baneling", "roach", 10, 119.95),  # 145 / 15
        ("siege_tank_sieged", "roach", 3, 96.0),  # 145 / 69
        ("dark_templar", "marine", 1, 0.0),
        ("thor", "ultralisk", 9, 163.84),  # 500 / (2 x 28)
        ("spine_crawler", "stalker", 6, 148.01),  # 30, 30 and 20 of shield, the 3rd does 9 more; 71 / 29
    ],
)
def test_time_to_kill(attacker, victim, volleys, loops):
    """Volleys, and loops from the first volley to the last, before jitter."""
    table = unit_table()
    assert volleys_to_kill(attacker, victim) == volleys
    period = table[attacker].weapon_against(table[victim]).period
    assert (volleys - 1) * period == pytest.approx(loops, abs=0.01)


def test_bonus_damage_counts_each_matching_attribute():
    table = unit_table()
    assert table["stalker"].weapons[0].damage_against(table["marine"]) == 13
    assert table["stalker"].weapons[0].damage_against(table["roach"]) == 18
    assert table["marauder"].weapons[0].damage_against(table["stalker"]) == 20


def test_weapons_reach_their_planes_and_tall_units_both():
    table = unit_table()
    zealot, viking, marine = table["zealot"], table["viking_fighter"], table["marine"]
    assert zealot.weapon_against(marine) is zealot.weapons[0]
    assert zealot.weapon_against(table["mutalisk"]) is None
    assert viking.weapon_against(marine) is None
    assert viking.weapon_against(table["colossus"]) is viking.weapons[0]
    assert zealot.weapon_against(table["colossus"]) is zealot.weapons[0]
    assert table["thor"].weapon_against(table["mutalisk"]).damage == 6
    assert table["thor"].weapon_against(marine).damage == 30


def missile_weapons() -> list:
    return [
        pytest.param(weapon, id=f"{unit.name}-{'-'.join(weapon.targets)}")
        for unit in unit_table().values()
        for weapon in unit.weapons
        if weapon.missile_speed > 0
    ]


@pytest.mark.parametrize("weapon", missile_weapons())
def test_a_missile_lands_before_the_next_one_flies(weapon):
    """The simulator keeps one missile in flight a unit; jitter shortens a period by one loop at most."""
    assert math.ceil((weapon.range + weapon.range_slop) / weapon.missile_speed) < weapon.period - 1


def test_what_sets_units_apart_besides_numbers():
    table = unit_table()

    def named(has) -> set[str]:
        return {name for name, unit in table.items() if has(unit)}

    detectors = {"raven", "missile_turret", "observer", "photon_cannon", "overseer", "spore_crawler"}
    assert named(lambda unit: unit.detection) == detectors
    assert {table[name].detection for name in detectors} == {11}
    hidden = {"dark_templar", "observer", "lurker_burrowed", "widow_mine_burrowed"}
    assert named(lambda unit: unit.cloaked) == hidden
    assert named(lambda unit: unit.climbs) == {"reaper", "colossus"}
    assert named(lambda unit: unit.tall) == {"colossus"}
    assert named(lambda unit: any(weapon.suicide for weapon in unit.weapons)) == {"baneling"}
    assert named(lambda unit: any(weapon.min_range for weapon in unit.weapons)) == {"siege_tank_sieged"}
    assert {name: unit.ability for name, unit in table.items() if unit.ability} == {
        "marine": "stimpack",
        "marauder": "stimpack",
        "stalker": "blink",
        "medivac": "heal",
    }


def test_what_grows_back():
    """In Normal seconds: zerg 0.2734 health, mutalisks 1; energy 0.5625, of which most start with 50."""
    for name, unit in unit_table().items():
        health = 1 if name == "mutalisk" else 0.2734 if unit.race == "zerg" else 0
        assert unit.health_regeneration * NORMAL == pytest.approx(health), name
        assert unit.energy_regeneration * NORMAL == (0.5625 if unit.energy else 0), name
        start = {"queen": 25, "ghost": 75, "infestor": 75}.get(name, 50)
        assert unit.energy_start == (start if unit.energy else 0), name


@pytest.mark.parametrize(
    ("name", "targets", "area"),
    [
        ("baneling", "ground", Area(Shape.RINGS, (2.2,), (1,))),
        (
            "siege_tank_sieged",
            "ground",
            Area(Shape.RINGS, (0.4687, 0.7812, 1.25), (1, 0.5, 0.25), friendly=True),
        ),
        ("planetary_fortress", "ground", Area(Shape.RINGS, (0.5, 0.8, 1.25), (1, 0.75, 0.375))),
        ("archon", "ground", Area(Shape.RINGS, (0.25, 0.5, 1), (1, 0.5, 0.25))),
        ("thor", "air", Area(Shape.RINGS, (0.5,), (1,))),
        ("liberator", "air", Area(Shape.RINGS, (1.5,), (1,))),
        ("widow_mine_burrowed", "ground", Area(Shape.RINGS, (1.75,), (40 / 125,), friendly=True)),
        ("colossus", "ground", Area(Shape.ACROSS, length=2 * (1.25 + 0.15), width=2 * 0.15)),
        ("hellion", "ground", Area(Shape.ALONG, length=6 + 0.15, width=2 * 0.15)),
        ("lurker_burrowed", "ground", Area(Shape.ALONG, length=9, width=2 * 0.5)),
        ("hellbat", "ground", Area(Shape.CONE, length=2 + 0.625, width=45)),
        ("ultralisk", "ground", Area(Shape.CONE, fractions=(0.33,), length=2, width=180)),
    ],
)
def test_splash(name, targets, area):
    (weapon,) = (weapon for weapon in unit_table()[name].weapons if targets in weapon.targets)
    assert weapon.area == area


def test_only_these_weapons_splash_and_the_glaive_does_nine_three_and_one():
    splash = {name for name, unit in unit_table().items() if any(weapon.area for weapon in unit.weapons)}
    assert len(splash) == 13
    (glaive,) = unit_table()["mutalisk"].weapons
    assert (glaive.area.shape, glaive.area.radii) == (Shape.BOUNCE, (3,))
    assert [glaive.damage * share for share in glaive.area.fractions] == pytest.approx([3, 1], abs=1e-4)


@pytest.mark.parametrize(
    ("name", "cells_per_second"),
    # The editor's missiles, in Normal seconds; the last two speed up, so theirs are means.
    [
        ("stalker", 18.75),
        ("adept", 18.75),
        ("roach", 18.75),
        ("mutalisk", 18.75),
        ("high_templar", 18.75),
        ("marauder", 20),
        ("hydralisk", 40),
        ("queen", 40),
        ("photon_cannon", 18),
        ("spine_crawler", 31.2),
        ("banshee", 15.04),
    ],
)
def test_missile_speeds(name, cells_per_second):
    assert unit_table()[name].weapons[0].missile_speed * NORMAL == pytest.approx(cells_per_second)


@pytest.mark.parametrize(
    "name", ["marine", "reaper", "zealot", "zergling", "colossus", "siege_tank", "sentry"]
)
def test_weapons_without_missiles_hit_at_their_damage_point(name):
    assert unit_table()[name].weapons[0].missile_speed == 0


@pytest.mark.parametrize(
    ("name", "separation"),
    # SMAC's unit data; 0.5 is the editor's default where these leave it out.
    [
        ("marine", 0.375),
        ("marauder", 0.5),
        ("medivac", 0.75),
        ("zealot", 0.375),
        ("stalker", 0.625),
        ("colossus", 0.75),
        ("zergling", 0.375),
        ("baneling", 0.375),
        ("hydralisk", 0.5),
        ("beacon", 0.0),
        ("mineral_shard", 0.0),
    ],
)
def test_separation_radius(name, separation):
    assert unit_table()[name].separation_radius == separation


# --- Form ---


def test_every_row_is_indexed_in_order_and_says_where_its_numbers_are_from():
    assert [unit.index for unit in unit_table().values()] == list(range(1, num_unit_types()))
    assert len(unit_table()) == len(re.findall(r"^  \w+:$", SOURCE, re.MULTILINE))  # no name twice
    assert len({unit.sc2_id for unit in unit_table().values()}) == len(unit_table())
    for unit in unit_table().values():
        assert re.search(r"\[data( \w+)?\]", unit.citation), unit.name


def test_the_vocabulary_is_append_only():
    """Trained weights depend on these places."""
    names = [
        "marine",
        "marauder",
        "reaper",
        "zealot",
        "stalker",
        "adept",
        "immortal",
        "zergling",
        "roach",
        "hydralisk",
    ]
    assert list(unit_table())[: len(names)] == names


def test_the_hash_follows_the_numbers_and_not_the_layout():
    assert len(unit_table_hash()) == 64
    assert unit_table_hash() == hash_units(SOURCE)
    assert hash_units(SOURCE + "\n# a remark\n") == hash_units(SOURCE)
    assert SOURCE.count("missile_speed: 1.95") == 1
    assert hash_units(SOURCE.replace("missile_speed: 1.95", "missile_speed: 1.96")) != hash_units(SOURCE)


TABLE = """
units:
  gunner:
    sc2_id: 1
    race: terran
    attributes: [light]
    health: 40
    shield: 0
    armor: 0
    radius: 0.5
    speed: 0.1
    sight: 9
    weapons:
      - {targets: [ground], damage: 6, bonus: {light: 2}, hits: 1, range: 5, period: 16, damage_point: 1,
         min_scan: 5.5, area: {shape: rings, radii: [1, 2], fractions: [1, 0.5]}}
    citation: by hand
"""


def test_what_a_row_leaves_out_follows_from_the_rest():
    unit = read_units(TABLE)["gunner"]
    assert unit.separation_radius == 0.5
    assert (unit.energy, unit.energy_start, unit.ability) == (0, 0, None)
    assert (unit.weapons[0].backswing, unit.weapons[0].range_slop, unit.weapons[0].missile_speed) == (8, 1, 0)
    charged = read_units(TABLE.replace("sight: 9", "sight: 9\n    energy: 80"))["gunner"]
    assert charged.energy_start == 80


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("units:", "rows:", "rows under 'units'"),
        ("gunner:", "Big Gunner:", "unit 'Big Gunner': names are snake_case"),
        ("    sight: 9\n", "", "unit 'gunner': sight is missing"),
        ("sight:", "sigt:", "unit 'gunner': field 'sigt' is unknown; did you mean 'sight'"),
        ("race: terran", "race: human", "unit 'gunner': race 'human' is unknown"),
        ("[light]", "[ligth]", "unit 'gunner': attributes 'ligth' is unknown; did you mean 'light'"),
        ("[light]", "[light, light]", "unit 'gunner': attributes: .* names one twice"),
        ("health: 40", "health: -40", "unit 'gunner': health is -40; expected a number, 0 or more"),
        ("health: 40", "health: 0", "unit 'gunner': health is 0; it must be above 0"),
        ("health: 40", "health: forty", "unit 'gunner': health is 'forty'"),
        ("radius: 0.5", "radius: .nan", "unit 'gunner': radius is nan"),
        ("sc2_id: 1", "sc2_id: 1.5", "unit 'gunner': sc2_id is 1.5; expected a whole number"),
        ("sight: 9", "sight: 9\n    flying: 1", "unit 'gunner': flying is 1; expected true or false"),
        ("sight: 9", "sight: 9\n    ability: fly", "unit 'gunner': ability 'fly' is unknown; known: heal"),
        ("sight: 9", "sight: 9\n    energy_start: 5", "unit 'gunner': energy_start is 5, more than"),
        ("citation: by hand", "citation: ''", "unit 'gunner': citation is ''"),
        ("[ground]", "[sea]", r"weapons\[0\]: targets 'sea' is unknown; known: ground, air"),
        ("[ground]", "[]", r"weapons\[0\]: targets is empty"),
        ("light: 2", "heavy: 2", r"weapons\[0\]: bonus 'heavy' is unknown"),
        ("light: 2", "light: -2", r"weapons\[0\]: bonus light is -2"),
        ("period: 16", "period: 0", r"weapons\[0\]: period is 0; it must be above 0"),
        ("damage_point: 1,", "damage_point: 16,", r"weapons\[0\]: damage_point is 16, not below its period"),
        (
            "min_scan: 5.5",
            "min_scan: 5.5, min_range: 5",
            r"weapons\[0\]: min_range is 5, not below its range",
        ),
        ("min_scan: 5.5", "min_scan: 5.5, reach: 5", r"weapons\[0\]: field 'reach' is unknown"),
        ("shape: rings", "shape: ring", r"weapons\[0\]: area: shape 'ring' is unknown; did you mean 'rings'"),
        ("radii: [1, 2]", "radii: [1]", "area: 1 radii, 2 fractions; rings take one of each"),
        ("radii: [1, 2]", "radii: [2, 1]", r"area: radii are \[2, 1\]; they must grow"),
        ("radii: [1, 2]", "radii: 2", "area: radii is 2; expected a list"),
        ("fractions: [1, 0.5]", "fractions: [1, 1.5]", r"area: fractions are \[1, 1.5\]; each must be"),
        ("radii: [1, 2]", "length: 3, width: 1", "area: rings take radii, no length or width"),
        ("shape: rings", "shape: cone", "area: length is 0.0; it must be above 0"),
        ("shape: rings", "shape: bounce", r"area: radii are \[1, 2\]; a bounce has one"),
        ("shape: rings", "shape: along, length: 3, width: 1", "area: along takes a length, a width and one"),
    ],
)
def test_malformed_rows_are_refused_by_unit_and_field(old, new, message):
    assert TABLE.count(old) == 1
    with pytest.raises(UnitTableError, match=message):
        read_units(TABLE.replace(old, new))
