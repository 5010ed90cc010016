"""Whom the attacks of the last step hit, and the areas they covered: read off the state, for pictures only.

The engine keeps no record of an attack once it is over. What it keeps (when a unit struck, when and where
others were hit) says enough to draw it; where several fit, the one straight ahead of the attacker is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.battle.rules import ACROSS, ALONG, BOUNCE, CONE, NEUTRAL, RINGS, Rules
from envs.unit_set import GAME_LOOPS_PER_SECOND

_CORNERS = 24  # of the polygon that stands for a circle


class Blast(NamedTuple):
    """An area that a volley or a burst has covered."""

    side: int
    """Who did it."""
    seconds: float
    """When, in game time."""
    outline: NDArray[np.float64]
    """(k, 2) corners, map cells."""


def victims(units: NDArray[np.void], since: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Whom each unit has hit since a game loop.

    Args:
        units: (N,) UNIT.

    Returns:
        ``(hit, missile)``, each (N,) of unit indices or -1. ``hit``: the target of an attack
        made since then. ``missile``: the target of a missile that is in the air or has landed since then.
    """
    missile = np.where(units["missile_target"] >= 0, units["missile_target"], -1).astype(np.int64)
    hit = np.full(len(units), -1)
    # A missile leaves in the loop of its strike; whose last strike had none keeps that of an earlier one.
    struck = (units["struck_at"] >= max(since, 0)) & (units["side"] != NEUTRAL)
    shot = (units["missile_from"] == units["struck_at"]) & (units["missile_at"] >= units["struck_at"])
    launched = struck & shot
    landed = (missile < 0) & shot & (units["missile_at"] >= max(since, 0)) & (units["side"] != NEUTRAL)
    for i in np.flatnonzero(landed).tolist():
        missile[i] = _victim(units, i, int(units["missile_at"][i]))
    for i in np.flatnonzero(struck).tolist():
        hit[i] = missile[i] if launched[i] else _victim(units, i, int(units["struck_at"][i]))
    return hit, missile


def _victim(units: NDArray[np.void], i: int, loop: int) -> int:
    """The enemy that unit ``i`` hit in a game loop: its target if that was hit then, or who lies ahead."""
    enemy = 1 - units["side"][i]
    aim = int(units["engaged"][i])
    fallen = not units["alive"][i]
    if aim >= 0 and units["hit_at"][aim] == loop and units["side"][aim] == enemy and not fallen:
        return aim
    found = np.flatnonzero((units["hit_at"] == loop) & (units["side"] == enemy))
    if len(found) == 0:
        return -1
    dx, dy = units["x"][found] - units["x"][i], units["y"][found] - units["y"][i]
    distance = np.maximum(np.hypot(dx, dy), 1e-9)
    ahead = (dx * units["facing_x"][i] + dy * units["facing_y"][i]) / distance
    best = int(np.argmax(ahead))
    return int(found[best]) if ahead[best] > 0.9 else -1


def blasts(rules: Rules, units: NDArray[np.void], hit: NDArray[np.int64], since: int) -> tuple[Blast, ...]:
    """The areas of the attacks on ``hit`` (N,), which fell since a game loop, and of units that blew up."""
    found = []
    explodes = rules.types["explodes"][units["type"]]
    for i in np.flatnonzero(explodes & ~units["alive"] & (units["hit_at"] >= max(since, 0))).tolist():
        areas = rules.pairs["area"][units["type"][i]]
        area = rules.areas[areas.max()]
        found.append(_blast(units, i, int(units["hit_at"][i]), _circle(_place(units, i), area)))
    for i in np.flatnonzero((hit >= 0) & ~explodes).tolist():
        pair = rules.pairs[units["type"][i], units["type"][hit[i]]]
        if pair["area"] >= 0 and pair["missile_speed"] == 0 and rules.areas[pair["area"]]["shape"] != BOUNCE:
            outline = _outline(_place(units, i), _place(units, int(hit[i])), rules.areas[pair["area"]])
            found.append(_blast(units, i, int(units["struck_at"][i]), outline))
    return tuple(found)


def _blast(units: NDArray[np.void], i: int, loop: int, outline: NDArray[np.float64]) -> Blast:
    return Blast(int(units["side"][i]), loop / GAME_LOOPS_PER_SECOND, outline)


def _place(units: NDArray[np.void], i: int) -> NDArray[np.float64]:
    return np.array([units["x"][i], units["y"][i]])


def _outline(start: NDArray[np.float64], end: NDArray[np.float64], area: np.void) -> NDArray[np.float64]:
    """The corners of an area for a shot from ``start`` to ``end``."""
    shape = area["shape"]
    if shape == RINGS:
        return _circle(end, area)
    way = end - start
    ahead = way / max(float(np.hypot(*way)), 1e-9)
    aside = np.array([-ahead[1], ahead[0]])
    if shape == CONE:
        half = float(np.arccos(area["width"]))
        angles = np.linspace(-half, half, _CORNERS // 2)
        rim = np.cos(angles)[:, None] * ahead + np.sin(angles)[:, None] * aside
        return np.concatenate([start[None], start + area["length"] * rim])
    if shape == ACROSS:
        centre, along, across = end, 0.5 * area["width"], 0.5 * area["length"]
    else:
        assert shape == ALONG
        centre, along, across = (
            start + 0.5 * area["length"] * ahead,
            0.5 * area["length"],
            0.5 * area["width"],
        )
    return np.array(
        [centre + u * along * ahead + v * across * aside for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    )


def _circle(centre: NDArray[np.float64], area: np.void) -> NDArray[np.float64]:
    angles = np.arange(_CORNERS) * 2 * np.pi / _CORNERS
    return centre + area["radius"].max() * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
