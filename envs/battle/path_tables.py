"""How the tables of ``paths.py`` are computed: which straight ways are free, shortest ways, lines of sight.

Shortest ways are those of a visibility graph (Lozano-Perez and Wesley 1979): a shortest way among obstacles
runs straight from corner to corner, so its turns lie in the cells diagonally before an obstacle's corners
("turning cells"), of which a map has few. With the clearance below half a cell, every way through the ground
can be pulled taut over such cells.

Sums of square roots are compared with a tolerance, and what is then equally long is decided by whole numbers
that a map's mirror images share, down to the last rule (``shortest_ways``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.battle.compiled import compiled
from envs.terrain import CLIFF, WALL, Terrain

NO_WAY = 0xFFFF
"""Entry of the waypoint table where no way leads."""
CLEARANCE = 0.375
"""Map cells that ways keep from walls and cliffs, the radius of a marine; bigger units squeeze through."""
_TIE = 1e-9

NORTH, EAST, SOUTH, WEST = 0, 2, 4, 6
"""Bits of an ``edges`` entry: a unit may not leave the cell that way."""
NORTHEAST, SOUTHEAST, SOUTHWEST, NORTHWEST = 1, 3, 5, 7
"""Bits of an ``edges`` entry: an edge that is barred, of this cell or another, ends in that corner."""
_ALL_CORNERS = 1 << NORTHEAST | 1 << SOUTHEAST | 1 << SOUTHWEST | 1 << NORTHWEST


def find_edges(terrain: Terrain, climbs: bool) -> NDArray[np.uint8]:
    """Barred edges and the corners they end in: uint8 (H, W), bits as above."""
    barred = terrain.barred(climbs)
    closed = {k: (barred >> k & 1).astype(bool) for k in (NORTH, EAST, SOUTH, WEST)}
    h, w = barred.shape
    corner = np.zeros((h + 1, w + 1), bool)
    for north, east, sides in (
        (1, 1, (NORTH, EAST)),
        (0, 1, (SOUTH, EAST)),
        (0, 0, (SOUTH, WEST)),
        (1, 0, (NORTH, WEST)),
    ):
        corner[north : north + h, east : east + w] |= closed[sides[0]] | closed[sides[1]]
    edges = sum(closed[k].astype(np.uint8) << k for k in closed)
    for bit, north, east in ((NORTHEAST, 1, 1), (SOUTHEAST, 0, 1), (SOUTHWEST, 0, 0), (NORTHWEST, 1, 0)):
        edges = edges | corner[north : north + h, east : east + w].astype(np.uint8) << bit
    return np.ascontiguousarray(edges, np.uint8)


def find_turning_cells(edges: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Cells where a taut way may turn, (H, W): open to both sides of a corner where a barred edge ends."""
    turning = np.zeros(edges.shape, bool)
    for corner in (NORTHEAST, SOUTHEAST, SOUTHWEST, NORTHWEST):
        both = 1 << (corner - 1) | 1 << (corner + 1) % 8
        turning |= (edges >> corner & 1).astype(bool) & (edges & both == 0)
    return turning


def find_nearest(terrain: Terrain, cell: NDArray[np.int32]) -> NDArray[np.int32]:
    """The ground cell nearest to each cell, centre to centre: compact indices, (H, W).

    Of cells equally near, the one nearest to the map's centre; then the one that lies counterclockwise.
    """
    h, w = cell.shape
    walls, ground = np.argwhere(cell < 0), np.argwhere(cell >= 0)
    nearest = cell.copy()
    middle = np.array([h - 1, w - 1])
    inward = ((2 * ground - middle) ** 2).sum(1)
    for wall in walls:
        squared = ((ground - wall) ** 2).sum(1)
        ties = np.flatnonzero(squared == squared.min())
        (wy, wx), (gy, gx) = 2 * wall - middle, (2 * ground[ties] - middle).T
        chosen = ties[np.lexsort((-(wx * gy - wy * gx), inward[ties]))[0]]
        nearest[tuple(wall)] = chosen
    return nearest


def find_waypoints(cells: NDArray[np.int64], edges: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Where to head for from cell a on the way to cell b: uint16 (C, C), or :data:`NO_WAY`.

    ``cells``: int64 (C, 2), x and y of the ground's cells. ``edges``: from :func:`find_edges`.
    """
    count = len(cells)
    free = np.empty((count, count), np.bool_)
    _free_ways(edges, cells, free)
    nodes = np.flatnonzero(find_turning_cells(edges)[cells[:, 1], cells[:, 0]])
    offset = cells[nodes, None] - cells[nodes]
    between = np.where(free[np.ix_(nodes, nodes)], np.hypot(offset[..., 0], offset[..., 1]), np.inf)
    _all_pairs(between)
    # Which turning cells each cell sees, row after row in one list.
    seen_from, node = (np.ascontiguousarray(i) for i in np.nonzero(free[:, nodes]))
    starts = np.searchsorted(seen_from, np.arange(count + 1))
    offset = cells[seen_from] - cells[nodes[node]]
    length = np.hypot(offset[:, 0], offset[:, 1])
    remaining = np.full((count, len(nodes)), np.inf)
    _from_nodes(between, starts, node, length, remaining)
    waypoint = np.empty((count, count), np.uint16)
    height, width = edges.shape
    _choose(cells, width, height, free, nodes, starts, node, length, remaining, waypoint)
    return waypoint


@compiled
def is_clear(
    edges: NDArray[np.uint8], x0: float, y0: float, x1: float, y1: float, clearance: float, crossings: int
) -> bool:
    """Whether the straight way from (x0, y0) to (x1, y1) crosses no barred edge and keeps its clearance.

    Kept from corners that the way passes, not from those behind its start or beyond its end. Looks only as
    far as the way crosses ``crossings`` edges. Both points lie on the map. Between centres of cells the
    arithmetic is exact (halves and eighths), so mirrored ways get the same answer.
    """
    dx, dy = x1 - x0, y1 - y0
    squared = dx * dx + dy * dy
    reach = clearance * clearance * squared
    x, y, last_x, last_y = int(x0), int(y0), int(x1), int(y1)
    across, up = abs(dx), abs(dy)
    # Distances to the next edge to the side and upwards or downwards.
    to_side = x + 1 - x0 if dx > 0.0 else x0 - x
    to_end = y + 1 - y0 if dy > 0.0 else y0 - y
    for _ in range(crossings + 1):
        here = edges[y, x]
        if here & _ALL_CORNERS:
            for corner in range(1, 8, 2):
                if here >> corner & 1:
                    cx = x + (corner < 4) - x0
                    cy = y + (corner in (NORTHEAST, NORTHWEST)) - y0
                    aside = cx * dy - cy * dx
                    along = cx * dx + cy * dy
                    if aside * aside < reach and 0.0 < along < squared:
                        return False
        if x == last_x and y == last_y:
            return True
        # Through a corner exactly, no edge there is barred (or we had returned): either order will do.
        if y == last_y or (x != last_x and to_side * up <= to_end * across):
            if here >> (EAST if dx > 0.0 else WEST) & 1:
                return False
            x += 1 if dx > 0.0 else -1
            to_side += 1.0
        else:
            if here >> (NORTH if dy > 0.0 else SOUTH) & 1:
                return False
            y += 1 if dy > 0.0 else -1
            to_end += 1.0
    return True


@compiled
def _free_ways(edges: NDArray[np.uint8], cells: NDArray[np.int64], free: NDArray[np.bool_]) -> None:
    """Between which cells' centres the straight way is clear; fills ``free`` (C, C)."""
    for a in range(len(cells)):
        free[a, a] = True
        for b in range(a):
            ax, ay, bx, by = cells[a, 0], cells[a, 1], cells[b, 0], cells[b, 1]
            crossings = abs(bx - ax) + abs(by - ay)
            clear = is_clear(edges, ax + 0.5, ay + 0.5, bx + 0.5, by + 0.5, CLEARANCE, crossings)
            free[a, b] = free[b, a] = clear


@compiled
def _all_pairs(length: NDArray[np.float64]) -> None:
    """Floyd's algorithm: lengths of direct ways (K, K) become those of shortest ways."""
    n = len(length)
    for via in range(n):
        for a in range(n):
            first = length[a, via]
            if first < np.inf:
                for b in range(n):
                    length[a, b] = min(length[a, b], first + length[via, b])


@compiled
def _from_nodes(
    between: NDArray[np.float64],
    starts: NDArray[np.int64],
    node: NDArray[np.int64],
    length: NDArray[np.float64],
    remaining: NDArray[np.float64],
) -> None:
    """Length of the shortest way from every turning cell to every cell; fills ``remaining`` (C, K)."""
    for b in range(len(remaining)):
        for i in range(starts[b], starts[b + 1]):
            last, n = length[i], node[i]
            for k in range(remaining.shape[1]):
                remaining[b, k] = min(remaining[b, k], last + between[n, k])


@compiled
def _choose(
    cells: NDArray[np.int64],
    width: int,
    height: int,
    free: NDArray[np.bool_],
    nodes: NDArray[np.int64],
    starts: NDArray[np.int64],
    node: NDArray[np.int64],
    length: NDArray[np.float64],
    remaining: NDArray[np.float64],
    waypoint: NDArray[np.uint16],
) -> None:
    """The first turning cell of a shortest way from every cell to every cell; fills ``waypoint`` (C, C).

    Of several: the farthest (turns that lie on one straight line); then the one nearest to the map's centre;
    then the leftmost as seen from a, looking at b; then the foremost. All but "leftmost" stay the same when
    the map is reflected, and that too when it is turned.
    """
    for a in range(len(cells)):
        ax, ay = cells[a, 0], cells[a, 1]
        for b in range(len(cells)):
            if free[a, b]:
                waypoint[a, b] = b
                continue
            shortest = np.inf
            for i in range(starts[a], starts[a + 1]):
                if nodes[node[i]] != a:
                    shortest = min(shortest, length[i] + remaining[b, node[i]])
            waypoint[a, b] = NO_WAY
            if shortest == np.inf:
                continue
            best = (-1, 0, 0, 0)
            to_x, to_y = cells[b, 0] - ax, cells[b, 1] - ay
            for i in range(starts[a], starts[a + 1]):
                c = nodes[node[i]]
                if c == a or length[i] + remaining[b, node[i]] > shortest + _TIE:
                    continue
                dx, dy = cells[c, 0] - ax, cells[c, 1] - ay
                outward = (2 * cells[c, 0] + 1 - width) ** 2 + (2 * cells[c, 1] + 1 - height) ** 2
                this = (dx * dx + dy * dy, -outward, to_x * dy - to_y * dx, to_x * dx + to_y * dy)
                if this > best:
                    best = this
                    waypoint[a, b] = c


def find_stand_ins(
    cells: NDArray[np.int64], walker: NDArray[np.uint16], climber: NDArray[np.uint16]
) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Which cells are joined, and where to go instead of to a cell that is not.

    Returns (2, C) int64, numbers of regions, and (2, R, C) uint16, the cell of a region that is nearest to
    each cell; of several, the one nearest to the map's centre. First axis: units that walk, that climb.
    """
    regions = [np.unique((way != NO_WAY).argmax(1), return_inverse=True)[1] for way in (walker, climber)]
    instead = np.zeros((2, max(int(region.max()) for region in regions) + 1, len(cells)), np.uint16)
    middle = np.square(cells - 0.5 * (cells.min(0) + cells.max(0))).sum(1)
    for climbs, region in enumerate(regions):
        for r in range(int(region.max()) + 1):
            members = np.flatnonzero(region == r)
            members = members[np.argsort(middle[members], kind="stable")]
            least = np.full(len(cells), np.iinfo(np.int64).max)
            for member in members:
                away = np.square(cells - cells[member]).sum(1)
                instead[climbs, r, away < least] = member
                least = np.minimum(least, away)
    return np.stack(regions), instead


def find_sights(terrain: Terrain, cells: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether from ground cell a one sees ground cell b: bool (C, C); the rule is in ``paths.py``."""
    sees = np.ones((len(cells), len(cells)), np.bool_)
    ground = terrain.heights[terrain.heights != WALL]
    if terrain.smoke.any() or (len(ground) and np.ptp(ground) >= CLIFF):
        _lines_of_sight(cells, terrain.heights.astype(np.int64), terrain.smoke.copy(), sees)
    return sees


@compiled
def _lines_of_sight(
    cells: NDArray[np.int64],
    heights: NDArray[np.int64],
    smoke: NDArray[np.bool_],
    sees: NDArray[np.bool_],
) -> None:
    for a in range(len(cells)):
        for b in range(len(cells)):
            sees[a, b] = _sees(heights, smoke, cells[a, 0], cells[a, 1], cells[b, 0], cells[b, 1])


@compiled
def _sees(heights: NDArray[np.int64], smoke: NDArray[np.bool_], ax: int, ay: int, bx: int, by: int) -> bool:
    level = heights[ay, ax]
    across, up = abs(bx - ax), abs(by - ay)
    step_x, step_y = (1 if bx > ax else -1), (1 if by > ay else -1)
    x, y, i, j = ax, ay, 0, 0
    inside = smoke[ay, ax]
    while i < across or j < up:
        side, end = (2 * i + 1) * up, (2 * j + 1) * across
        if side == end:
            beside = _hides(heights[y, x + step_x], smoke[y, x + step_x], level, inside)
            if beside and _hides(heights[y + step_y, x], smoke[y + step_y, x], level, inside):
                return False
        if side <= end:
            x += step_x
            i += 1
        if end <= side:
            y += step_y
            j += 1
        if _hides(heights[y, x], smoke[y, x], level, inside):
            return False
        inside = inside and smoke[y, x]
    return True


@compiled
def _hides(height: int, smoke: bool, level: int, inside: bool) -> bool:
    """Whether a cell hides itself and what is behind it from an eye at ``level``, maybe in the same smoke."""
    return height - level >= CLIFF or (smoke and not inside and level - height < CLIFF)
