"""The unit table: StarCraft II's units in game loops and map cells, each with its citation.

The numbers live in ``data/units.yaml``; this module reads, checks and names them. The table's hash goes into
every result, since win rates on a scenario are a property of these numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

import yaml

ATTRIBUTES = ("light", "armored", "biological", "mechanical", "massive", "psionic", "structure")
PLANES = ("ground", "air")


@dataclass(frozen=True)
class Weapon:
    """One weapon. Ranges are edge to edge in map cells, times are game loops."""

    targets: tuple[str, ...]
    """Planes it hits: ``ground``, ``air``."""
    damage: float
    """Per hit, before bonus and armour."""
    bonus: Mapping[str, float]
    """Damage added per hit against an attribute."""
    hits: int
    """Hits in one volley; armour counts against each."""
    range: float
    period: float
    """From one attack's start to the next, before jitter."""
    damage_point: float
    """From an attack's start to its damage; the unit stands still and an interrupted attack is lost."""
    min_scan: float
    """Edge-to-edge distance within which the unit looks for targets of its own accord."""

    def damage_against(self, target: UnitType) -> float:
        """Damage of one hit on ``target``, bonus included, armour not."""
        return self.damage + sum(
            extra for attribute, extra in self.bonus.items() if attribute in target.attributes
        )


@dataclass(frozen=True)
class UnitType:
    """One row of the unit table. Distances are map cells, times game loops, speed cells per loop."""

    name: str
    index: int
    """Place in the type vocabulary; 0 is the unknown type."""
    sc2_id: int
    race: str
    attributes: frozenset[str]
    health: float
    shield: float
    armor: float
    radius: float
    speed: float
    sight: float
    citation: str
    weapons: tuple[Weapon, ...] = ()
    energy: float = 0.0
    flying: bool = False
    health_regeneration: float = 0.0
    """Health per game loop."""

    @property
    def plane(self) -> str:
        return "air" if self.flying else "ground"

    def weapon_against(self, target: UnitType) -> Weapon | None:
        """The weapon that hits ``target``'s plane, or None."""
        return next((weapon for weapon in self.weapons if target.plane in weapon.targets), None)


def _source() -> str:
    return resources.files("envs").joinpath("data/units.yaml").read_text(encoding="utf-8")


@cache
def unit_table() -> Mapping[str, UnitType]:
    """All units by name, in vocabulary order."""
    table = {}
    for index, (name, row) in enumerate(yaml.safe_load(_source())["units"].items(), start=1):
        weapons = tuple(
            Weapon(
                **(weapon | {"targets": tuple(weapon["targets"]), "bonus": MappingProxyType(weapon["bonus"])})
            )
            for weapon in row.pop("weapons", ())
        )
        unknown = set(row["attributes"]) - set(ATTRIBUTES)
        if unknown:
            raise ValueError(f"unit {name!r} has unknown attributes {sorted(unknown)}; known: {ATTRIBUTES}")
        attributes = frozenset(row.pop("attributes"))
        table[name] = UnitType(name=name, index=index, attributes=attributes, weapons=weapons, **row)
    return MappingProxyType(table)


def num_unit_types() -> int:
    """Size of the type vocabulary, the unknown type included."""
    return len(unit_table()) + 1


@cache
def unit_table_hash() -> str:
    """SHA-256 of the table's data, independent of comments and layout."""
    return hashlib.sha256(repr(yaml.safe_load(_source())).encode()).hexdigest()
