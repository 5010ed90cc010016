"""What any value of a scenario must keep to: choices, limits, and the error that says so."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from envs.units import unit_table

MAX_UNITS = 512
"""Units of a battle, neutral ones included: the rows that one battle may hold."""
MIN_MAP_SIZE, MAX_MAP_SIZE = 4, 256
"""Map cells a side."""
UPGRADES = ("stimpack", "blink")
"""Abilities that have to be researched."""
MAX_STEPS = 100_000
"""Environment steps of one battle."""


class Preset(StrEnum):
    """Whose rules of observing and commanding hold."""

    NATIVE = "native"
    """Every unit's own range and sight, eight directions."""
    SMAC = "smac"
    """SMAC's: four directions, shooting range 6 and sight 9 for all, its reward."""


class Placement(StrEnum):
    """Where units of drawn types stand."""

    POINTS = "points"
    """In formation around the spawns of their groups."""
    SURROUND_OR_REFLECT = "surround_or_reflect"
    """Either, by the toss of a coin: the first team in the centre and the second in one to four groups on the
    diagonals; or the first team scattered over the western half and the second mirrored (SMACv2's)."""


class MissionKind(StrEnum):
    """What a mission asks for."""

    BEACON = "beacon"
    """Walk to the beacon; it then appears elsewhere."""
    SHARDS = "shards"
    """Pick the shards up; when all are gone, as many new ones appear."""
    HUNT = "hunt"
    """Find and kill the second team, which is scattered over the region; then it appears anew."""
    WAVES = "waves"
    """Kill the second team; then it appears anew, the first team is reinforced and both stand apart again."""


class ScenarioError(ValueError):
    """A scenario is unknown or wrong; the message names the value, the way out and, of a file, the line."""


class LimitError(ScenarioError):
    """A value breaks a limit. ``where`` are the keys that lead to it from the top of a scenario file."""

    def __init__(self, message: str, *where: str | int) -> None:
        super().__init__(message)
        self.where = where


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number; a bool is none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max  # nor a whole number too large for a float


def is_tuple_of(value: Any, kind: type) -> bool:
    """Whether ``value`` is a tuple with items of ``kind`` only."""
    return isinstance(value, tuple) and all(isinstance(item, kind) for item in value)


def check_whole(value: Any, what: str, low: int, high: int, *where: str | int) -> None:
    """Refuse all but a whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        message = f"{what} is {value!r}; it must be a whole number from {low} to {high}"
        raise LimitError(message, *where)


def check_number(value: Any, what: str, low: float, high: float, *where: str | int) -> None:
    """Refuse all but a number from ``low`` to ``high``."""
    if not (is_number(value) and low <= value <= high):
        raise LimitError(f"{what} is {value!r}; it must be a number from {low:g} to {high:g}", *where)


def check_numbers(value: Any, what: str, count: int, *where: str | int) -> None:
    """Refuse all but a tuple of ``count`` finite numbers."""
    if not isinstance(value, tuple) or len(value) != count or not all(map(is_number, value)):
        shown = [*value] if isinstance(value, tuple) else value
        raise LimitError(f"{what} is {shown!r}; it must be a list of {count} numbers, all finite", *where)


def check_member(value: Any, what: str, kind: type[StrEnum], *where: str | int) -> None:
    """Refuse all but a member of ``kind``."""
    if not isinstance(value, kind):
        shown = value.value if isinstance(value, StrEnum) else value
        raise LimitError(f"{what} is {shown!r}; it must be one of: {', '.join(kind)}", *where)


def check_flag(value: Any, what: str, *where: str | int) -> None:
    """Refuse all but a bool."""
    if not isinstance(value, bool):
        raise LimitError(f"{what} is {value!r}; it must be true or false", *where)


def check_upgrades(value: Any, *where: str | int) -> None:
    """Refuse what is not a tuple of distinct names of :data:`UPGRADES`."""
    good = isinstance(value, tuple) and all(isinstance(name, str) for name in value)
    if not good or not set(value) <= set(UPGRADES) or len(set(value)) != len(value):
        known = ", ".join(UPGRADES)
        shown = [*value] if isinstance(value, tuple) else value
        raise LimitError(f"upgrades is {shown!r}; it must be a list of some of: {known}", *where)


def check_units(units: Any, what: str, *where: str | int) -> None:
    """Refuse all but a tuple of names from the unit table."""
    if not is_tuple_of(units, str):
        raise LimitError(f"{what}: units must be a list of names", *where)
    for name in units:
        if name not in unit_table():
            near = difflib.get_close_matches(name, unit_table(), n=3, cutoff=0.4)
            hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(unit_table())}"
            raise LimitError(f"{what}: unknown unit {name!r}; {hint}", *where, name)


def check_fighters(units: Any, what: str, *where: str | int) -> None:
    """Refuse all but a tuple of names of units that can be on a team."""
    check_units(units, what, *where)
    for name in units:
        if "neutral" in unit_table()[name].attributes:
            message = f"{what}: {name} is on nobody's side; list it under neutral"
            raise LimitError(message, *where, name)


def check_rectangle(
    value: Any, what: str, inside: tuple[float, float, float, float], area: str, *where: str | int
) -> None:
    """Refuse all but a rectangle x0, y0, x1, y1 within ``inside``, which ``area`` names."""
    check_numbers(value, what, 4, *where)
    x0, y0, x1, y1 = value
    if not (inside[0] <= x0 < x1 <= inside[2] and inside[1] <= y0 < y1 <= inside[3]):
        raise LimitError(f"{what} is {[*value]}; it must be x0, y0, x1, y1 within {area}", *where)


def formation_area(units: Iterable[str]) -> float:
    """Map cells that a formation of these units takes, before jitter."""
    table = unit_table()
    return sum(1.5 * (2 * table[name].radius) ** 2 for name in units)


def formation_radius(units: Iterable[str]) -> float:
    """Radius in map cells of the disc that a formation of these units takes, before jitter."""
    return math.sqrt(formation_area(units) / math.pi)
