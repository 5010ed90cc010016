"""The unit table against published figures, not against itself."""

import pytest

from envs.units import num_unit_types, unit_table, unit_table_hash


@pytest.mark.parametrize(
    ("name", "cells_per_second", "dps"),
    # At "Faster" (1.4 Normal seconds a second): published movement speed and damage per second.
    [
        ("marine", 3.15, 9.8),
        ("marauder", 3.15, 9.3),
        ("zealot", 3.15, 18.6),
        ("stalker", 4.13, 9.7),
        ("zergling", 4.13, 10.0),
        ("roach", 3.15, 11.2),
        ("hydralisk", 3.15, 20.4),
    ],
)
def test_speed_and_damage_per_second_match_published_figures(name, cells_per_second, dps):
    unit = unit_table()[name]
    weapon = unit.weapons[0]
    assert unit.speed * 22.4 == pytest.approx(cells_per_second, abs=0.01)
    assert weapon.damage * weapon.hits / weapon.period * 22.4 == pytest.approx(dps, abs=0.1)


def test_bonus_damage_counts_each_matching_attribute():
    table = unit_table()
    assert table["stalker"].weapons[0].damage_against(table["marine"]) == 13
    assert table["stalker"].weapons[0].damage_against(table["roach"]) == 18
    assert table["marauder"].weapons[0].damage_against(table["stalker"]) == 20


def test_ground_weapons_do_not_reach_the_air():
    table = unit_table()
    assert table["zealot"].weapon_against(table["marine"]) is not None
    assert all("air" not in weapon.targets for weapon in table["zealot"].weapons)


def test_every_row_is_cited_and_indexed_in_order():
    assert [unit.index for unit in unit_table().values()] == list(range(1, num_unit_types()))
    assert all(unit.citation for unit in unit_table().values())


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


def test_the_hash_is_a_sha256_and_stable():
    assert len(unit_table_hash()) == 64
    assert unit_table_hash() == unit_table_hash()
