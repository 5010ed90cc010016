"""Walls, cliffs and lines of sight for units on the ground: tables of one map, and what the engine asks them.

Ways are shortest ways between the centres of cells, any angle, for a unit that keeps ``CLEARANCE`` from walls
and cliffs (StarCraft II likewise plans for few sizes of unit; a bigger one squeezes through what a marine
passes). Units walk as ``heading`` says, step by step, and ``settle`` holds every step to the ground: other
units may push one aside, it finds its way from wherever it is.

Who sees what, by cells, for eyes on the ground and targets on the ground (flyers see and are seen over
everything, and so is a colossus seen):

- High ground: a cell two or more higher than the eye hides itself and what is behind it on the straight line
  between the cells' centres. From above one sees down.
- Smoke hides what is in it and behind it. It does not hide things from an eye inside it, up to where the
  smoke ends and other smoke begins, nor from an eye two or more higher.
- Walls hide nothing: those of SMAC's maps are chasms.
- Cells that the line touches in a corner only, hide if those on both sides do.

(Blizzard's game guide, "Map Elements"; Liquipedia, "Sight Blockers" and "High ground".)
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.battle.compiled import compiled, compiled_apart
from envs.battle.path_tables import (
    CLEARANCE,
    EAST,
    NO_WAY,
    NORTH,
    NORTHEAST,
    NORTHWEST,
    SOUTH,
    WEST,
    find_edges,
    find_nearest,
    find_sights,
    find_stand_ins,
    find_turning_cells,
    find_waypoints,
    is_clear,
)
from envs.terrain import MAX_GROUND, WALL, Terrain

MAX_STEP = 0.9
"""Longest step, map cells, that ``settle`` lets a unit take."""
MAX_SETTLED = 0.45
"""Largest clearance that ``settle`` keeps: below half a cell, so that no cell is ever too narrow."""
_GRAZE = CLEARANCE - 0.005  # units that settle at the clearance exactly are still on a clear way
_AHEAD = 1  # how far a unit looks, in edges crossed: what stops it farther ahead it sees from there


class Paths(NamedTuple):
    """Tables of a map of H x W cells, C of them ground, numbered row by row from the south-west.

    Where a first axis has length 2, entry 0 is for units that walk, entry 1 for those that climb.
    """

    cell: NDArray[np.int32]  # (H, W) the ground cell's number, -1 for walls
    nearest: NDArray[np.int32]  # (H, W) the number of the nearest ground cell: its own, but for walls
    edges: NDArray[np.uint8]  # (2, H, W) where one may not step, as find_edges
    centers: NDArray[np.float64]  # (C, 2) x and y
    waypoint: NDArray[np.uint16]  # (2, C, C) cell to head for in a, to get to b: b, a turn, or NO_WAY
    region: NDArray[np.int64]  # (2, C) a number for all cells that are joined
    instead: NDArray[np.uint16]  # (2, regions, C) the cell of a region that is nearest to one outside it
    sees: NDArray[np.bool_]  # (C, C) whether from a one sees b
    straight: NDArray[np.bool_]  # (2,) whether all ways are straight: the ground is rectangles


@lru_cache(maxsize=16)
def compile_paths(terrain: Terrain | None, width: int, height: int) -> Paths:
    """The tables of a map; of one without terrain, arrays without entries, which the kernels must not see.

    Raises ValueError for a terrain of another size, or one without ground or with more than
    :data:`~envs.terrain.MAX_GROUND` cells of it. The result is kept and shared: nobody may write to it.
    """
    if terrain is None:
        return Paths(
            np.empty((0, 0), np.int32),
            np.empty((0, 0), np.int32),
            np.empty((2, 0, 0), np.uint8),
            np.empty((0, 2), np.float64),
            np.empty((2, 0, 0), np.uint16),
            np.empty((2, 0), np.int64),
            np.empty((2, 0, 0), np.uint16),
            np.empty((0, 0), np.bool_),
            np.zeros(2, np.bool_),
        )
    if (terrain.width, terrain.height) != (width, height):
        raise ValueError(
            f"terrain of {terrain.width} x {terrain.height} cells on a map of {width} x {height}: "
            "draw every cell of the map"
        )
    is_ground = terrain.heights != WALL
    count = int(is_ground.sum())
    if not 0 < count <= MAX_GROUND:
        raise ValueError(
            f"terrain with {count} cells of ground; it must have 1 to {MAX_GROUND}: wall off what nobody "
            "needs, or leave the terrain away"
        )
    cell = np.full((height, width), -1, np.int32)
    cell[is_ground] = np.arange(count)
    cells = np.ascontiguousarray(np.argwhere(is_ground)[:, ::-1])
    edges = np.stack([find_edges(terrain, climbs) for climbs in (False, True)])
    walker = find_waypoints(cells, edges[0])
    climber = walker if np.array_equal(edges[0], edges[1]) else find_waypoints(cells, edges[1])
    return Paths(
        cell,
        find_nearest(terrain, cell),
        edges,
        cells.astype(np.float64) + 0.5,
        np.stack([walker, climber]),
        *find_stand_ins(cells, walker, climber),
        find_sights(terrain, cells),
        np.array([not find_turning_cells(edges[climbs]).any() for climbs in (0, 1)]),
    )


@compiled
def _ground(paths: Paths, x: float, y: float) -> int:
    """The number of the ground cell at (x, y), or the nearest one to there."""
    height, width = paths.nearest.shape
    column = int(min(max(x, 0.0), width - 1.0))
    row = int(min(max(y, 0.0), height - 1.0))
    return int(paths.nearest[row, column])


@compiled_apart
def settle(
    paths: Paths, x0: float, y0: float, x1: float, y1: float, clearance: float, climbs: int
) -> tuple[float, float]:
    """Where a unit on the ground gets to that steps from (x0, y0) towards (x1, y1), map cells.

    It crosses no barred edge, ends ``clearance`` (at most :data:`MAX_SETTLED`) from barred edges and their
    ends, and slides along what stops it. Steps are cut to :data:`MAX_STEP`. Wherever it starts, it ends in a
    ground cell that it can reach: of a start in a wall or off the map, the nearest.
    """
    keep = min(max(clearance, 1e-6), MAX_SETTLED)
    start = _ground(paths, x0, y0)
    x, y = int(paths.centers[start, 0]), int(paths.centers[start, 1])
    dx, dy = x1 - x0, y1 - y0
    squared = dx * dx + dy * dy
    if squared > MAX_STEP * MAX_STEP:
        shorter = MAX_STEP / np.sqrt(squared)
        dx, dy = dx * shorter, dy * shorter
    # A start outside the cell is in a wall or off the map: to the cell's rim first.
    x0, y0 = min(max(x0, float(x)), x + 1.0), min(max(y0, float(y)), y + 1.0)
    x1, y1 = x0 + dx, y0 + dy
    for _ in range(3):  # a step enters at most one column and one row
        here = paths.edges[climbs, y, x]
        if here >> WEST & 1:
            x1 = max(x1, x + keep)
        if here >> EAST & 1:
            x1 = min(x1, x + 1.0 - keep)
        if here >> SOUTH & 1:
            y1 = max(y1, y + keep)
        if here >> NORTH & 1:
            y1 = min(y1, y + 1.0 - keep)
        step_x = 1 if x1 >= x + 1.0 else (-1 if x1 < x else 0)
        step_y = 1 if y1 >= y + 1.0 else (-1 if y1 < y else 0)
        if step_x == 0 and step_y == 0:
            break
        if step_x != 0 and step_y != 0:
            # The edge that is reached first; both at once: to the side.
            to_side = (x + (step_x > 0) - x0) * step_x * abs(y1 - y0)
            to_end = (y + (step_y > 0) - y0) * step_y * abs(x1 - x0)
            if to_side <= to_end:
                step_y = 0
            else:
                step_x = 0
        x += step_x
        y += step_y
    here = paths.edges[climbs, y, x]
    for corner in range(1, 8, 2):
        if here >> corner & 1 and not here >> (corner - 1) & 1 and not here >> ((corner + 1) & 7) & 1:
            east = corner < 4
            north = corner in (NORTHEAST, NORTHWEST)
            cx, cy = x1 - (x + east), y1 - (y + north)
            away = np.sqrt(cx * cx + cy * cy)
            if away < keep:
                if away > 1e-9:
                    x1, y1 = x1 + cx * (keep / away - 1.0), y1 + cy * (keep / away - 1.0)
                else:
                    x1 += keep * np.sqrt(0.5) * (-1.0 if east else 1.0)
                    y1 += keep * np.sqrt(0.5) * (-1.0 if north else 1.0)
    return x1, y1


@compiled_apart
def heading(
    paths: Paths, x: float, y: float, goal_x: float, goal_y: float, climbs: int
) -> tuple[float, float]:
    """The point that a unit at (x, y) on its way to the goal walks to now, in a straight line.

    The goal itself if that way is clear, else the next turn of a shortest way, or the middle of the unit's
    own cell if it has strayed from where the turn can be walked to. A goal in a wall or off the map stands
    for the nearest point, clear of edges, of the nearest ground cell; one that no way leads to, for that of
    the nearest cell that a way leads to.
    """
    here, there = _ground(paths, x, y), _ground(paths, goal_x, goal_y)
    turn = int(paths.waypoint[climbs, here, there])
    if turn == NO_WAY:
        there = int(paths.instead[climbs, paths.region[climbs, here], there])
        turn = int(paths.waypoint[climbs, here, there])
    center_x, center_y = paths.centers[there, 0], paths.centers[there, 1]
    if abs(goal_x - center_x) > 0.5 or abs(goal_y - center_y) > 0.5:
        rim = 0.5 - CLEARANCE
        goal_x = min(max(goal_x, center_x - rim), center_x + rim)
        goal_y = min(max(goal_y, center_y - rim), center_y + rim)
    if here == there or paths.straight[climbs]:
        return goal_x, goal_y
    own_x, own_y = paths.centers[here, 0], paths.centers[here, 1]
    if not (-0.5 <= x - own_x < 0.5 and -0.5 <= y - own_y < 0.5):
        return own_x, own_y  # in a wall or off the map: out of there
    edges = paths.edges[climbs]
    if turn == there and is_clear(edges, x, y, goal_x, goal_y, _GRAZE, _AHEAD):
        return goal_x, goal_y
    turn_x, turn_y = paths.centers[turn, 0], paths.centers[turn, 1]
    if is_clear(edges, x, y, turn_x, turn_y, _GRAZE, _AHEAD):
        return turn_x, turn_y
    return own_x, own_y


@compiled
def sees_cell(paths: Paths, ax: float, ay: float, bx: float, by: float) -> bool:
    """Whether an eye on the ground at (ax, ay) sees what is on the ground at (bx, by), sight range aside."""
    return paths.sees[_ground(paths, ax, ay), _ground(paths, bx, by)]


@compiled
def walkable(paths: Paths, x: float, y: float) -> bool:
    """Whether (x, y) lies in a ground cell."""
    height, width = paths.cell.shape
    return 0.0 <= x < width and 0.0 <= y < height and paths.cell[int(y), int(x)] >= 0


@compiled
def open_step(paths: Paths, x0: float, y0: float, x1: float, y1: float, climbs: int) -> bool:
    """Whether a unit can step from (x0, y0) most of the way towards (x1, y1)."""
    x, y = settle(paths, x0, y0, x1, y1, CLEARANCE, climbs)
    dx, dy = x1 - x0, y1 - y0
    return (x - x0) * dx + (y - y0) * dy >= 0.5 * (dx * dx + dy * dy)
