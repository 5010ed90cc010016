"""What tests of the engine read from a battle."""

from __future__ import annotations

import numpy as np

from envs.battle.batch import BattleBatch
from envs.unit_set import Verb
from envs.units import unit_table

STAND = (Verb.NO_OP, 0)


def unit(batch: BattleBatch, i: int, field: str, b: int = 0):
    """A field of unit ``i`` of battle ``b``."""
    return batch.state.units[field][b, i]


def vitality(batch: BattleBatch, b: int = 0) -> list[float]:
    """Health and shield together, by unit."""
    return (batch.state.units["health"] + batch.state.units["shield"])[b].tolist()


def type_name(batch: BattleBatch, i: int, b: int = 0) -> str:
    """The name of the unit's type."""
    return batch.scenario.unit_types[unit(batch, i, "type", b)].name


def gap(batch: BattleBatch, i: int, j: int, b: int = 0) -> float:
    """Edge-to-edge distance, map cells."""
    units = batch.state.units[b]
    centre = np.hypot(units["x"][i] - units["x"][j], units["y"][i] - units["y"][j])
    return centre - sum(unit_table()[type_name(batch, k, b)].radius for k in (i, j))
