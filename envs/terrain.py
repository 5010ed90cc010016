"""The ground of a map as a grid of unit cells: walls, heights, and smoke that blocks sight.

A map is drawn as rows of characters, north to south:

===========  ==================================================================================
``#``        wall: nobody on the ground passes
``.``        ground of height 0
``0`` - ``9``  ground of that height
``~``        smoke on ground of height 0 (StarCraft II's line-of-sight blockers)
===========  ==================================================================================

Neighbouring cells whose heights differ by at most 1 are connected: a ramp is a staircase. By more, they are
parted by a cliff, which only units that climb (reaper, colossus) and flyers cross. What a unit then does with
this, and how fast, is ``envs/battle/paths.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

WALL = -1
"""The height that stands for a wall."""
MAX_GROUND = 2500
"""Most cells of ground that a map with terrain may have: the tables of ways grow with their square (31 MB
then)."""
CLIFF = 2
"""Least difference in height, between neighbouring cells, that walking units do not cross."""

NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""(dx, dy) of a cell's neighbours: N, NE, E, SE, S, SW, W, NW, as :data:`envs.unit_set.MOVE_VERBS`."""

_HEIGHT_OF = {"#": WALL, ".": 0, "~": 0, **{str(height): height for height in range(10)}}


@dataclass(frozen=True, eq=False)
class Terrain:
    """A map's cells; cell [y, x] is the square from (x, y) to (x + 1, y + 1), row 0 the southernmost.

    ``heights``: int8, shape (H, W), :data:`WALL` for walls. ``smoke``: bool, shape (H, W). Neither may be
    written to.
    """

    heights: NDArray[np.int8]
    smoke: NDArray[np.bool_]

    @property
    def height(self) -> int:
        """Rows of the grid, map cells."""
        return self.heights.shape[0]

    @property
    def width(self) -> int:
        """Columns of the grid, map cells."""
        return self.heights.shape[1]

    def barred(self, climbs: bool) -> NDArray[np.uint8]:
        """Where a unit on the ground may not step: uint8 (H, W), bit k for the neighbour ``NEIGHBOURS[k]``.

        A wall and the outside of the map are barred, and to who does not climb a cliff, too. A diagonal
        neighbour is also barred if both ways to it over an orthogonal neighbour are. Out of a wall
        everything is barred.
        """
        padded = np.pad(self.heights.astype(np.int16), 2, constant_values=WALL)
        h, w = self.heights.shape

        def around(dx: int, dy: int) -> NDArray:
            return padded[2 + dy : 2 + dy + h, 2 + dx : 2 + dx + w]

        def edge(x: int, y: int, dx: int, dy: int) -> NDArray:
            """Whether an orthogonal step (dx, dy) is barred from each cell's neighbour (x, y)."""
            here, there = around(x, y), around(x + dx, y + dy)
            closed = (here == WALL) | (there == WALL)
            return closed if climbs else closed | (np.abs(here - there) >= CLIFF)

        bits = np.zeros((h, w), np.uint8)
        for k, (dx, dy) in enumerate(NEIGHBOURS):
            if dx and dy:
                x_first = edge(0, 0, dx, 0) | edge(dx, 0, 0, dy)
                y_first = edge(0, 0, 0, dy) | edge(0, dy, dx, 0)
                closed = x_first & y_first
            else:
                closed = edge(0, 0, dx, dy)
            bits |= (closed << k).astype(np.uint8)
        return bits

    def regions(self, climbs: bool) -> NDArray[np.int32]:
        """Which cells are connected over orthogonal steps: int32 (H, W), -1 for walls.

        Regions are numbered from 0 in the order of their first cells, row by row from the south-west.
        """
        h, w = self.heights.shape
        open_bits = ~self.barred(climbs)
        index = np.arange(h * w).reshape(h, w)
        east, north = (open_bits[:, :-1] >> 2 & 1).astype(bool), (open_bits[:-1] & 1).astype(bool)
        one = np.concatenate([index[:, :-1][east], index[:-1][north]])
        other = np.concatenate([index[:, 1:][east], index[1:][north]])
        # Trees of cells are hooked to neighbouring trees of lower number, and flattened: of the trees that
        # can be joined, at least half are in every round, however winding the ground.
        root = index.ravel().copy()
        while True:
            low, high = np.minimum(root[one], root[other]), np.maximum(root[one], root[other])
            if np.array_equal(low, high):
                break
            np.minimum.at(root, high, low)
            while not np.array_equal(flatter := root[root], root):
                root = flatter
        ground = self.heights != WALL
        regions = np.full((h, w), -1, np.int32)
        regions[ground] = np.unique(root.reshape(h, w)[ground], return_inverse=True)[1]
        return regions


@lru_cache(maxsize=64)
def parse_terrain(rows: tuple[str, ...], width: int, height: int) -> Terrain:
    """The terrain drawn by ``rows`` (north to south) of a map of ``width`` x ``height`` cells.

    The same rows give the same object, so that what is computed from it can be kept with it. Raises
    ValueError, naming the row (from 1, the northernmost), column (from 1, the westernmost) and character, for
    a wrong number of rows or columns and for characters other than those in this file's table.
    """
    if len(rows) != height:
        raise ValueError(f"terrain has {len(rows)} rows; the map is {height} cells high: draw {height} rows")
    heights = np.empty((height, width), np.int8)
    smoke = np.zeros((height, width), np.bool_)
    for row, line in enumerate(rows):
        if len(line) != width:
            raise ValueError(
                f"terrain row {row + 1} (from the north) has {len(line)} characters; "
                f"the map is {width} cells wide: draw {width}"
            )
        y = height - 1 - row
        for x, character in enumerate(line):
            if character not in _HEIGHT_OF:
                raise ValueError(
                    f"terrain row {row + 1} (from the north), column {x + 1}: {character!r} is none of "
                    "'#' (wall), '.' (ground), '0' to '9' (ground of that height), '~' (smoke)"
                )
            heights[y, x] = _HEIGHT_OF[character]
            smoke[y, x] = character == "~"
    heights.flags.writeable = smoke.flags.writeable = False
    return Terrain(heights, smoke)
