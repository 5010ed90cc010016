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


def in_sight(batch: BattleBatch, b: int) -> np.ndarray:
    """(N, N) bool: whether the first unit, alive, has the second, alive, within its sight, by the distance
    between their centres. On open ground and without cloaks that is what it sees."""
    units = batch.state.units[b]
    sight = np.array([batch.scenario.unit_types[kind].sight for kind in units["type"]])
    position = np.stack([units["x"], units["y"]], -1)
    near = np.hypot(*(position[:, None] - position[None]).transpose(2, 0, 1)) <= sight[:, None]
    return near & units["alive"][:, None] & units["alive"]


def scramble_unseen(batch: BattleBatch, b: int, watcher: int, generator: np.random.Generator) -> int:
    """Change all that unit ``watcher`` of battle ``b`` does not see: places, health, shields, cooldowns,
    facings, orders and aims, and who lives. Nobody comes into its sight. Returns how many were changed."""
    units, x0, y0, x1, y1 = batch.state.units[b], *batch.scenario.playable
    unseen = np.flatnonzero(units["alive"] & ~in_sight(batch, b)[watcher])
    unseen = unseen[unseen != watcher]
    sight = batch.scenario.unit_types[units["type"][watcher]].sight
    for i in unseen:
        while True:
            place = generator.uniform((x0, y0), (x1, y1))
            if np.hypot(*(place - (units["x"][watcher], units["y"][watcher]))) > sight:
                break
        units["x"][i], units["y"][i] = place
        angle = generator.uniform(0, 2 * np.pi)
        units["facing_x"][i], units["facing_y"][i] = np.cos(angle), np.sin(angle)
        for field in ("health", "shield", "energy"):
            units[field][i] *= generator.uniform(0.1, 0.9)
        units["cooldown"][i] = generator.uniform(0, 20)
        units["order"][i] = generator.integers(0, 5)
        units["engaged"][i] = generator.integers(-1, len(units))
        units["alive"][i] = generator.random() < 0.7
    batch.refresh()
    return len(unseen)
