"""The ground that a battle is drawn on: a grid, or a map's heights, cliffs, walls and smoke."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs.battle.canvas import SCALE, Canvas, Layout, Rectangle
from envs.battle.colors import (
    BACKGROUND,
    CLIFF,
    FAINT,
    GRID,
    GROUND,
    HATCH,
    SMOKE,
    WALL,
    height_color,
    mix,
)
from envs.terrain import CLIFF as CLIFF_STEP
from envs.terrain import WALL as NO_GROUND
from envs.terrain import Terrain

_GRID_STEP = 4


@lru_cache(maxsize=8)
def background(view: Rectangle, terrain: Terrain | None, width: int) -> Image.Image:
    """An image ``width`` pixels wide with nothing on it but the ground. Kept and shared: draw on a copy."""
    layout = Layout(view, width)
    image = Image.new("RGB", (layout.size[0] * SCALE, layout.size[1] * SCALE), BACKGROUND)
    canvas = Canvas(image)
    canvas.draw.rectangle(layout.box(*view), fill=GROUND)
    if terrain is None:
        _grid(canvas, layout)
    else:
        field = Image.new("RGB", image.size, GROUND)
        _terrain(Canvas(field), layout, terrain)
        left, top, right, bottom = layout.field
        image.paste(field.crop((left, top, right, bottom)), (left, top))
    return image.reduce(SCALE)


def _grid(canvas: Canvas, layout: Layout) -> None:
    x0, y0, x1, y1 = layout.view
    step = _GRID_STEP
    for x in range(math.ceil(x0 / step) * step, math.ceil(x1), step):
        canvas.line(layout.at((x, y0)), layout.at((x, y1)), GRID, SCALE)
    for y in range(math.ceil(y0 / step) * step, math.ceil(y1), step):
        canvas.line(layout.at((x0, y)), layout.at((x1, y)), GRID, SCALE)


def _terrain(canvas: Canvas, layout: Layout, terrain: Terrain) -> None:
    for y in range(terrain.height):
        for x in range(terrain.width):
            left, top, right, bottom = box = layout.box(x, y, x + 1, y + 1)
            if terrain.heights[y, x] == NO_GROUND:
                canvas.draw.rectangle(box, fill=WALL)
                canvas.line((left, bottom), (right, top), HATCH, SCALE)
            else:
                canvas.draw.rectangle(box, fill=height_color(int(terrain.heights[y, x])))
            if terrain.smoke[y, x]:
                canvas.draw.rectangle(box, fill=mix(GROUND, SMOKE, 0.55))
                for u, v in ((0.25, 0.3), (0.7, 0.2), (0.5, 0.75)):
                    canvas.disc(
                        left + u * layout.cell,
                        top + v * layout.cell,
                        0.17 * layout.cell,
                        mix(GROUND, SMOKE, 0.9),
                    )
    for (x, y), (dx, dy), drop in edges(terrain):
        # The edge between this cell and its neighbour to the east (1, 0) or north (0, 1).
        start, end = ((x + 1, y), (x + 1, y + 1)) if dx else ((x, y + 1), (x + 1, y + 1))
        color = mix(WALL, FAINT, 0.5) if drop == 0 else CLIFF
        canvas.line(layout.at(start), layout.at(end), color, 1.5 * SCALE)
        if drop:  # teeth down the slope
            sign = math.copysign(1.0, drop)
            for share in (0.25, 0.75):
                foot = np.array(start) + share * (np.array(end) - np.array(start))
                tip = foot + 0.22 * sign * np.array([dx, dy])
                canvas.line(layout.at(foot), layout.at(tip), CLIFF, SCALE)


def edges(terrain: Terrain) -> list[tuple[tuple[int, int], tuple[int, int], int]]:
    """Where walking units cannot pass from a cell to its neighbour.

    Returns:
        ``((x, y), (dx, dy), drop)``: the cell, the neighbour's direction (east or north), and how far down it
        goes that way at a cliff; 0 at the foot of a wall.
    """
    found = []
    heights: NDArray[np.int8] = terrain.heights
    for dx, dy in ((1, 0), (0, 1)):
        here, there = heights[: terrain.height - dy, : terrain.width - dx], heights[dy:, dx:]
        drop = here.astype(int) - there
        wall = (here == NO_GROUND) != (there == NO_GROUND)
        cliff = (np.abs(drop) >= CLIFF_STEP) & (here != NO_GROUND) & (there != NO_GROUND)
        for y, x in np.argwhere(wall | cliff).tolist():
            found.append(((x, y), (dx, dy), 0 if wall[y, x] else int(drop[y, x])))
    return found
