"""The unit table: StarCraft II's units in game loops and map cells, each with its citation.

The numbers live in ``data/units.yaml`` (``docs/units.md`` says what they are and how they are checked); this
module reads, checks and names them. A row that breaks a rule is refused by name when the table is loaded. The
table's hash goes into every result, since win rates on a scenario are a property of these numbers.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

import yaml

ATTRIBUTES = (
    "light",
    "armored",
    "biological",
    "mechanical",
    "massive",
    "psionic",
    "structure",
    "heroic",
    "neutral",
)
PLANES = ("ground", "air")
RACES = ("terran", "protoss", "zerg", "neutral")
MAX_RINGS = 3
_FILLED_IN = ("separation_radius", "energy", "energy_start")  # from other fields, where a row leaves them out


class Ability(StrEnum):
    """What a unit can do besides moving and attacking."""

    HEAL = "heal"
    """Medivac: restores biological ground units from its energy."""
    STIMPACK = "stimpack"
    """Marine, marauder: health for speed."""
    BLINK = "blink"
    """Stalker: a jump of up to 8 cells."""


class Shape(StrEnum):
    """Where a weapon hurts others than its target."""

    RINGS = "rings"
    """Discs around the target's centre, ``radii`` and ``fractions`` from the inside out."""
    ACROSS = "across"
    """A strip through the target's centre, at right angles to the shot: ``length`` by ``width``."""
    ALONG = "along"
    """A strip from the shooter's centre through the target: ``length`` by ``width``."""
    CONE = "cone"
    """A sector around the shot: ``length`` is its reach from the shooter's centre, ``width`` its degrees."""
    BOUNCE = "bounce"
    """From target to target: ``radii`` is the reach of a bounce, ``fractions`` the shares of the next."""


@dataclass(frozen=True)
class Area:
    """Splash: the target takes the full damage, others a fraction, each with its own bonus and armour."""

    shape: Shape
    radii: tuple[float, ...] = ()
    """Map cells."""
    fractions: tuple[float, ...] = (1.0,)
    """Share of the damage: one a ring or bounce; one for the whole strip or cone."""
    length: float = 0.0
    width: float = 0.0
    friendly: bool = False
    """Hits the shooter's own side too."""


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
    """Edge-to-edge distance within which the unit looks for targets by itself; its range if that is more."""
    backswing: float = 8.0
    """After the damage, time in which the unit does not walk on of its own accord; an order cuts it short."""
    missile_speed: float = 0.0
    """Cells per loop; 0: the damage falls at the damage point."""
    range_slop: float = 1.0
    """How far beyond ``range`` a begun attack still lands."""
    min_range: float = 0.0
    """Edge-to-edge distance within which it cannot shoot."""
    suicide: bool = False
    """The unit dies of its own attack, and goes off when it is killed."""
    area: Area | None = None

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
    separation_radius: float
    """With which units push each other apart; ``radius`` where the row leaves it out."""
    speed: float
    sight: float
    citation: str
    energy: float
    """The maximum; 0: none."""
    energy_start: float
    """At the start of a battle; the maximum where the row leaves it out."""
    weapons: tuple[Weapon, ...] = ()
    energy_regeneration: float = 0.0
    """Per game loop."""
    flying: bool = False
    health_regeneration: float = 0.0
    """Health per game loop."""
    detection: float = 0.0
    """Distance within which it reveals cloaked enemies; 0: it does not."""
    cloaked: bool = False
    """Always: seen by enemies only under detection."""
    climbs: bool = False
    """Walks up and down cliffs."""
    tall: bool = False
    """Walks on the ground, and weapons that only reach the air hit it too."""
    ability: Ability | None = None

    @property
    def plane(self) -> str:
        return "air" if self.flying else "ground"

    def weapon_against(self, target: UnitType) -> Weapon | None:
        """The first weapon that reaches ``target``, or None."""
        planes = PLANES if target.tall else (target.plane,)
        return next((weapon for weapon in self.weapons if any(p in weapon.targets for p in planes)), None)


class UnitTableError(ValueError):
    """A row of the table that breaks a rule; the message names the unit and the field."""


def read_units(text: str) -> Mapping[str, UnitType]:
    """The units of a table in YAML, by name, in order.

    Raises:
        UnitTableError: a name, key, type or number that the schema does not allow.
    """
    document = yaml.safe_load(text)
    rows = document.get("units") if isinstance(document, dict) else None
    if not isinstance(rows, dict) or not rows:
        raise UnitTableError("the unit table must be a mapping with rows under 'units'")
    units = (_unit(name, index, row) for index, (name, row) in enumerate(rows.items(), start=1))
    return MappingProxyType({unit.name: unit for unit in units})


@cache
def unit_table() -> Mapping[str, UnitType]:
    """All units by name, in vocabulary order."""
    return read_units(_source())


def num_unit_types() -> int:
    """Size of the type vocabulary, the unknown type included."""
    return len(unit_table()) + 1


def hash_units(text: str) -> str:
    """SHA-256 of the data of a table in YAML, independent of comments and layout."""
    return hashlib.sha256(repr(yaml.safe_load(text)).encode()).hexdigest()


@cache
def unit_table_hash() -> str:
    """:func:`hash_units` of the table that the simulator plays with."""
    return hash_units(_source())


def _source() -> str:
    return resources.files("envs").joinpath("data/units.yaml").read_text(encoding="utf-8")


def _unit(name: Any, index: int, row: Any) -> UnitType:
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UnitTableError(f"unit {name!r}: names are snake_case, such as siege_tank")
    what = f"unit {name!r}"
    row = _checked(row, what, UnitType, _FILLED_IN, skip=("name", "index"))
    _known(row["race"], RACES, f"{what}: race")
    _known_all(row["attributes"], ATTRIBUTES, f"{what}: attributes")
    if "ability" in row:
        row["ability"] = Ability(_known(row["ability"], tuple(Ability), f"{what}: ability"))
    if not isinstance(row["citation"], str) or not row["citation"].strip():
        raise UnitTableError(f"{what}: citation is {row['citation']!r}; say where its numbers are from")
    _sequence(row.get("weapons", []), f"{what}: weapons")
    row["weapons"] = tuple(
        _weapon(weapon, f"{what}: weapons[{i}]") for i, weapon in enumerate(row.get("weapons", ()))
    )
    row["attributes"] = frozenset(row["attributes"])
    row = {"separation_radius": row["radius"], "energy": 0.0, **row}
    unit = UnitType(**({"name": name, "index": index, "energy_start": row["energy"], **row}))
    _positive(unit, what, ("health", "radius"))
    if unit.energy_start > unit.energy:
        raise UnitTableError(
            f"{what}: energy_start is {unit.energy_start}, more than its energy, {unit.energy}"
        )
    return unit


def _weapon(row: Any, what: str) -> Weapon:
    row = _checked(row, what, Weapon)
    _known_all(row["targets"], PLANES, f"{what}: targets")
    if not row["targets"]:
        raise UnitTableError(f"{what}: targets is empty; name the planes it hits: {', '.join(PLANES)}")
    if not isinstance(row["bonus"], dict):
        raise UnitTableError(
            f"{what}: bonus is {row['bonus']!r}; expected a mapping from attribute to damage"
        )
    for attribute, extra in row["bonus"].items():
        _known(attribute, ATTRIBUTES, f"{what}: bonus")
        _number(extra, f"{what}: bonus {attribute}")
    if "area" in row:
        row["area"] = _area(row["area"], f"{what}: area")
    weapon = Weapon(
        **(row | {"targets": tuple(row["targets"]), "bonus": MappingProxyType(dict(row["bonus"]))})
    )
    _positive(weapon, what, ("damage", "hits", "period"))
    if weapon.min_range >= weapon.range > 0:
        raise UnitTableError(f"{what}: min_range is {weapon.min_range}, not below its range, {weapon.range}")
    if weapon.damage_point >= weapon.period:
        raise UnitTableError(
            f"{what}: damage_point is {weapon.damage_point}, not below its period, {weapon.period}"
        )
    return weapon


def _area(row: Any, what: str) -> Area:
    row = _checked(row, what, Area)
    row["shape"] = Shape(_known(row["shape"], tuple(Shape), f"{what}: shape"))
    for name in ("radii", "fractions"):
        if name in row:
            _sequence(row[name], f"{what}: {name}")
            row[name] = tuple(_number(value, f"{what}: {name}") for value in row[name])
    area = Area(**row)
    if not all(0 < fraction <= 1 for fraction in area.fractions):
        raise UnitTableError(f"{what}: fractions are {[*area.fractions]}; each must be above 0 and at most 1")
    if area.shape in (Shape.RINGS, Shape.BOUNCE):
        if area.length or area.width:
            raise UnitTableError(f"{what}: {area.shape} take radii, no length or width")
        if area.shape is Shape.BOUNCE and len(area.radii) != 1:
            raise UnitTableError(f"{what}: radii are {[*area.radii]}; a bounce has one, its reach")
        if area.shape is Shape.RINGS and len(area.radii) != len(area.fractions):
            raise UnitTableError(
                f"{what}: {len(area.radii)} radii, {len(area.fractions)} fractions; rings take one of each"
            )
        if not 1 <= len(area.fractions) <= MAX_RINGS:
            raise UnitTableError(f"{what}: {len(area.fractions)} fractions; 1 to {MAX_RINGS} are possible")
        if area.radii[0] <= 0 or any(b <= a for a, b in zip(area.radii, area.radii[1:], strict=False)):
            raise UnitTableError(f"{what}: radii are {[*area.radii]}; they must grow from above 0")
    else:
        _positive(area, what, ("length", "width"))
        if area.radii or len(area.fractions) != 1:
            raise UnitTableError(f"{what}: {area.shape} takes a length, a width and one fraction, no radii")
    return area


def _checked(
    row: Any, what: str, schema: type, optional: Collection[str] = (), skip: Collection[str] = ()
) -> dict[str, Any]:
    """A copy of ``row`` if it has the fields of the dataclass ``schema``, numbers and flags valid."""
    if not isinstance(row, dict):
        raise UnitTableError(f"{what}: {row!r} is not a mapping from field to value")
    known = {field.name: field for field in fields(schema) if field.name not in skip}
    for key in row:
        _known(key, tuple(known), f"{what}: field")
    for name, field in known.items():
        if name not in row:
            if field.default is MISSING and name not in optional:
                raise UnitTableError(f"{what}: {name} is missing")
        elif field.type == "bool":
            if not isinstance(row[name], bool):
                raise UnitTableError(f"{what}: {name} is {row[name]!r}; expected true or false")
        elif field.type in ("int", "float"):
            _number(row[name], f"{what}: {name}")
            if field.type == "int" and not isinstance(row[name], int):
                raise UnitTableError(f"{what}: {name} is {row[name]!r}; expected a whole number")
    return dict(row)


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise UnitTableError(f"{what} is {value!r}; expected a number, 0 or more")
    return value


def _positive(value: object, what: str, names: Collection[str]) -> None:
    for name in names:
        if getattr(value, name) <= 0:
            raise UnitTableError(f"{what}: {name} is {getattr(value, name)}; it must be above 0")


def _sequence(value: Any, what: str) -> None:
    if not isinstance(value, list):
        raise UnitTableError(f"{what} is {value!r}; expected a list")


def _known(value: Any, allowed: Collection[str], what: str) -> str:
    if not isinstance(value, str) or value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"did you mean '{near[0]}'? known: " if near else "known: "
        raise UnitTableError(f"{what} {value!r} is unknown; {hint}{', '.join(allowed)}")
    return value


def _known_all(values: Any, allowed: Collection[str], what: str) -> None:
    _sequence(values, what)
    for value in values:
        _known(value, allowed, what)
    if len(set(values)) < len(values):
        raise UnitTableError(f"{what}: {values} names one twice")
