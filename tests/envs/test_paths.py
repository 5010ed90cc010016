"""Ways and walls on the ground, against references that share no code with them."""

from __future__ import annotations

import math
import os
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from envs.battle.compiled import compiled
from envs.battle.path_tables import NO_WAY, is_clear
from envs.battle.paths import (
    CLEARANCE,
    MAX_GROUND,
    MAX_STEP,
    Paths,
    compile_paths,
    heading,
    settle,
)
from envs.terrain import NEIGHBOURS, WALL, Terrain, parse_terrain
from tests.envs.test_terrain import draw, random_terrain

# The levels of the game's cliffs in SMAC's maps.
HEIGHT_OF_LEVEL = {0: "#", 64: "0", 72: "1", 88: "2", 104: "3", 128: "4"}
DATA = Path(os.environ.get("STARCRAFT_DATA", Path(__file__).parents[3] / "shared/data/starcraft"))

MAZE = draw(
    "###############",
    "#....#........#",
    "#.##.#.######.#",
    "#.#..#.#....#.#",
    "#.#.##.#.##.#.#",
    "#.#....#.#..#.#",
    "#.######.#.##.#",
    "#........#....#",
    "###############",
)
RAMPS = draw(
    "..........",
    ".33333210.",
    ".33333333.",
    ".33##3333.",
    "..........",
    "0000~~~000",
)


def paths_of(terrain: Terrain) -> Paths:
    return compile_paths(terrain, terrain.width, terrain.height)


def number(paths: Paths, x: float, y: float) -> int:
    return int(paths.cell[int(y), int(x)])


def way(paths: Paths, a: int, b: int, climbs: bool = False) -> list[int]:
    """The cells that the waypoint table leads over from a to b."""
    cells = [a]
    while cells[-1] != b:
        cells.append(int(paths.waypoint[int(climbs), cells[-1], b]))
        assert len(cells) <= len(paths.centers), "the table leads round in circles"
    return cells


def length(paths: Paths, cells: list[int]) -> float:
    return sum(math.dist(paths.centers[a], paths.centers[b]) for a, b in pairwise(cells))


def barred_edges(terrain: Terrain, climbs: bool) -> NDArray[np.float64]:
    """End points of all edges that a unit may not cross, (E, 2, 2), from the heights alone."""
    edges = []

    def height(x: int, y: int) -> int:
        inside = 0 <= x < terrain.width and 0 <= y < terrain.height
        return int(terrain.heights[y, x]) if inside else WALL

    for x, y in product(range(terrain.width + 1), range(terrain.height + 1)):
        for dx, dy in ((1, 0), (0, 1)):
            here, there = height(x, y), height(x - dx, y - dy)
            if WALL in (here, there) or (abs(here - there) > 1 and not climbs):
                edges.append(((x, y), (x + dy, y + dx)))
    return np.array(edges, float)


def distance_to_segments(p: NDArray[np.float64], segments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances from points (P, 2) to segments (S, 2, 2): (P, S)."""
    start, along = segments[:, 0], segments[:, 1] - segments[:, 0]
    t = ((p[:, None] - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12)
    return np.linalg.norm(p[:, None] - start - np.clip(t, 0, 1)[..., None] * along, axis=-1)


def reference_is_clear(edges: NDArray, a: NDArray, b: NDArray, clearance: float) -> bool:
    """No end of an edge is too near, and points along the way, twenty a cell, are off every edge."""
    ends = distance_to_segments(edges.reshape(-1, 2), np.array([[a, b]])).min()
    t = np.linspace(0, 1, 2 + int(20 * math.dist(a, b)))[:, None]
    return bool(ends >= clearance and distance_to_segments(a + t * (b - a), edges).min() > 0.05)


def grid_lengths(terrain: Terrain, climbs: bool) -> dict[tuple[int, int], dict[tuple[int, int], float]]:
    """Shortest ways over the eight neighbours without cutting corners, by networkx."""
    networkx = pytest.importorskip("networkx")
    graph = networkx.Graph()
    barred = terrain.barred(climbs)
    ground = {(int(x), int(y)) for y, x in np.argwhere(terrain.heights != WALL)}
    graph.add_nodes_from(ground)
    for x, y in ground:
        for k, (dx, dy) in enumerate(NEIGHBOURS):
            if k % 2 == 0:
                free = not barred[y, x] >> k & 1
            else:
                sides = [s % 8 for s in (k - 1, k + 1)]
                free = all(not barred[y, x] >> s & 1 for s in sides) and all(
                    not barred[y + NEIGHBOURS[s][1], x + NEIGHBOURS[s][0]] >> t & 1
                    for s, t in (sides, sides[::-1])
                )
            if free:
                graph.add_edge((x, y), (x + dx, y + dy), weight=math.hypot(dx, dy))
    return dict(networkx.all_pairs_dijkstra_path_length(graph))


@pytest.mark.parametrize("climbs", [False, True])
def test_straight_ways_are_those_that_keep_the_clearance(climbs: bool) -> None:
    rng = np.random.default_rng(2)
    for _ in range(3):
        terrain = random_terrain(rng, 9, 8, walls=0.25)
        paths, edges = paths_of(terrain), barred_edges(terrain, climbs)
        for a, b in rng.integers(len(paths.centers), size=(300, 2)):
            start, end = paths.centers[a], paths.centers[b]
            clear = is_clear(paths.edges[int(climbs)], *start, *end, CLEARANCE, 99)
            assert clear == reference_is_clear(edges, start, end, CLEARANCE), (start, end)
            assert clear == (paths.waypoint[int(climbs), a, b] == b)


def test_ways_are_the_shortest_over_straight_lines() -> None:
    """Against a graph in which ways may turn in any cell: a turn away from a corner saves a hair at times."""
    networkx = pytest.importorskip("networkx")
    rng = np.random.default_rng(3)
    ways = as_short = 0
    for _ in range(10):
        terrain = random_terrain(rng, 12, 10, walls=rng.uniform(0.05, 0.4))
        paths = paths_of(terrain)
        count = len(paths.centers)
        for climbs in (False, True):
            waypoint = paths.waypoint[int(climbs)]
            graph = networkx.Graph()
            graph.add_nodes_from(range(count))
            for a, b in np.argwhere(waypoint == np.arange(count)):
                graph.add_edge(int(a), int(b), weight=math.dist(paths.centers[a], paths.centers[b]))
            shortest = dict(networkx.all_pairs_dijkstra_path_length(graph))
            for a, b in rng.integers(count, size=(200, 2)):
                if waypoint[a, b] == NO_WAY:
                    assert b not in shortest[a]
                else:
                    ours = length(paths, way(paths, a, b, climbs))
                    assert shortest[a][b] - 1e-9 <= ours <= 1.02 * shortest[a][b] + 1e-9
                    as_short += ours <= shortest[a][b] + 1e-9
                    ways += 1
    assert as_short >= 0.9 * ways


def test_ways_against_grid_paths() -> None:
    """Any-angle ways are no longer than ways over eight neighbours, at most 8 % shorter, and lead as far."""
    rng = np.random.default_rng(4)
    for _ in range(10):
        terrain = random_terrain(rng, 14, 11, walls=rng.uniform(0.05, 0.4))
        paths = paths_of(terrain)
        for climbs in (False, True):
            reference = grid_lengths(terrain, climbs)
            for a, b in rng.integers(len(paths.centers), size=(300, 2)):
                here, there = (tuple(map(int, paths.centers[i])) for i in (a, b))
                if there not in reference[here]:
                    assert paths.waypoint[int(climbs), a, b] == NO_WAY
                    continue
                grid = reference[here][there]
                ours = length(paths, way(paths, a, b, climbs))
                assert grid * 0.92 <= ours + 1e-9
                assert ours <= grid + 1e-9


def test_waypoints_by_hand() -> None:
    paths = paths_of(draw(".....", ".....", "..#..", ".....", "....."))
    cells = partial(number, paths)
    assert way(paths, cells(0, 1), cells(4, 1)) == [cells(0, 1), cells(4, 1)]
    # Due east past the pillar: over two of its corners, to the left, as the map's centre is equally far.
    assert way(paths, cells(0, 2), cells(4, 2)) == [cells(0, 2), cells(1, 3), cells(3, 3), cells(4, 2)]
    assert way(paths, cells(4, 2), cells(0, 2)) == [cells(4, 2), cells(3, 1), cells(1, 1), cells(0, 2)]


def test_cliffs_are_crossed_by_climbers_only() -> None:
    paths = paths_of(draw("....", "3333", "...."))
    bottom, top = number(paths, 1, 0), number(paths, 1, 2)
    assert paths.waypoint[0, bottom, top] == NO_WAY
    assert paths.waypoint[1, bottom, top] == top
    assert paths.straight.tolist() == [True, True]
    assert heading(paths, 1.5, 0.5, 2.5, 2.5, 0) == (2.5, 0.625), "below the cliff, as near as it gets"
    assert heading(paths, 1.5, 0.5, 2.5, 2.5, 1) == (2.5, 2.5)


def test_a_goal_in_a_wall_is_the_nearest_ground() -> None:
    paths = paths_of(draw("###", "...", "###"))
    assert heading(paths, 0.5, 1.5, 2.9, 2.9, 0) == pytest.approx((2.625, 1.625))
    assert heading(paths, 0.5, 1.5, 99.0, -99.0, 0) == pytest.approx((2.625, 1.375))
    assert heading(paths, 0.5, 1.5, 2.9, 1.9, 0) == (2.9, 1.9)


@pytest.mark.parametrize(
    ("start", "end", "settled"),
    [
        ((1.5, 1.5), (1.7, 1.8), (1.625, 1.625)),  # the corner of the map
        ((0.5, 0.5), (0.6, 0.4), (0.6, 0.4)),  # free
        ((0.5, 0.5), (0.3, 0.5), (0.375, 0.5)),  # the western rim
        ((0.5, 0.5), (0.9, 0.6), (0.625, 0.6)),  # the wall to the east
        ((0.9, 1.5), (1.3, 1.2), (1.3, 1.375)),  # along the wall's top
        ((0.5, 1.5), (0.8, 1.1), (1 - 0.375 * 2 / 5**0.5, 1 + 0.375 / 5**0.5)),  # off its corner
        ((0.5, 0.5), (0.5, 5.5), (0.5, 1.4)),  # no further than a step
        ((-9.0, -9.0), (-9.0, -9.0), (0.375, 0.375)),  # off the map
        ((1.9, 0.9), (1.9, 0.9), (1.625, 1.375)),  # in the wall
    ],
)
def test_settle_by_hand(
    start: tuple[float, float], end: tuple[float, float], settled: tuple[float, float]
) -> None:
    assert settle(paths_of(draw("..", ".#")), *start, *end, 0.375, 0) == pytest.approx(settled)


@pytest.mark.parametrize(
    ("start", "end", "settled"),
    [
        ((0.9, 0.5), (1.2, 1.1), (1.2, 0.625)),  # first over the edge to the east, under the wall
        ((0.5, 0.9), (1.1, 1.2), (0.625, 1.2)),  # first over the edge to the north, beside the wall
    ],
)
def test_settle_passes_a_corner_on_the_side_of_the_step(
    start: tuple[float, float], end: tuple[float, float], settled: tuple[float, float]
) -> None:
    assert settle(paths_of(draw(".#", "..")), *start, *end, 0.375, 0) == pytest.approx(settled)


def test_a_unit_off_the_map_or_in_a_wall_heads_for_the_nearest_cell() -> None:
    paths = paths_of(draw("....", ".##.", "...."))
    assert heading(paths, -0.5, 0.5, 3.5, 0.5, 0) == (0.5, 0.5)
    assert heading(paths, 1.4, 1.1, 3.5, 2.5, 0) == (1.5, 0.5), (
        "of three cells, the nearer the centre, the counterclockwise"
    )


@compiled
def wander(
    paths: Paths, climbs: int, clearance: float, steps: NDArray[np.float64], places: NDArray[np.float64]
) -> None:
    """Take ``steps`` (N, 2) from places[0] on; note where each ends in ``places`` (N + 1, 2)."""
    for i in range(len(steps)):
        x, y = places[i]
        places[i + 1] = settle(paths, x, y, x + steps[i, 0], y + steps[i, 1], clearance, climbs)


@pytest.mark.parametrize("clearance", [0.0, 0.2, 0.375, 0.45])
@pytest.mark.parametrize("climbs", [False, True])
def test_settle_keeps_units_on_the_ground(clearance: float, climbs: bool) -> None:
    """Random steps, 16,000 a case: over no barred edge, never nearer than the clearance, never out."""
    rng = np.random.default_rng(5)
    for terrain in (MAZE, RAMPS, *(random_terrain(rng, 10, 8, walls=walls) for walls in (0.1, 0.3))):
        paths, edges, regions = paths_of(terrain), barred_edges(terrain, climbs), terrain.regions(climbs)
        barred = terrain.barred(climbs)
        steps = rng.normal(size=(4000, 2)) * rng.choice([0.05, 0.3, 2.0], size=(4000, 1))
        # Every hundredth step is a push in one direction, again and again.
        steps[2000:] = np.repeat(steps[2000::100], 100, axis=0)
        places = np.empty((4001, 2))
        places[0] = paths.centers[rng.integers(len(paths.centers))]
        wander(paths, int(climbs), clearance, steps, places)
        assert distance_to_segments(places, edges).min() >= clearance - 1e-9
        cells = np.floor(places).astype(int)
        assert len(set(regions[cells[:, 1], cells[:, 0]])) == 1
        assert regions[cells[0, 1], cells[0, 0]] >= 0
        for (x0, y0), (x1, y1) in pairwise(cells.tolist()):
            dx, dy = x1 - x0, y1 - y0
            assert max(abs(dx), abs(dy)) <= 1
            if dx or dy:
                assert not barred[y0, x0] >> NEIGHBOURS.index((dx, dy)) & 1
        moved = np.linalg.norm(np.diff(places, axis=0), axis=1)
        assert moved.max() <= MAX_STEP + clearance + 1e-9


def test_settle_from_anywhere_ends_on_the_ground() -> None:
    rng = np.random.default_rng(6)
    paths, edges = paths_of(MAZE), barred_edges(MAZE, False)
    ends = []
    for start, end in rng.uniform(-3, 18, size=(2000, 2, 2)):
        ends.append(settle(paths, *start, *end, 0.375, 0))
    for x, y in product(range(16), range(10)):  # on the very corners
        ends += [settle(paths, float(x), float(y), float(x), float(y), 0.375, 0)]
    assert distance_to_segments(np.array(ends), edges).min() >= 0.375 - 1e-9
    assert all(MAZE.heights[int(y), int(x)] != WALL for x, y in ends)


def test_settle_slides_at_the_speed_of_the_way_left() -> None:
    """Pressed against a wall at 45 degrees, a unit keeps the part of its speed along the wall."""
    paths = paths_of(draw("......", "......"))
    places = np.empty((11, 2))
    places[0] = 1.0, 0.375
    wander(paths, 0, 0.375, np.tile([0.2, -0.2], (10, 1)), places)
    assert places[-1] == pytest.approx((3.0, 0.375))


@compiled
def walk(
    paths: Paths,
    climbs: int,
    clearance: float,
    speed: float,
    ends: NDArray[np.float64],
    limits: NDArray[np.float64],
    walked: NDArray[np.float64],
) -> None:
    """Walk from ends[i, 0] to ends[i, 1] for every i; ``walked``: how far, infinite if over the limit."""
    for i in range(len(ends)):
        x, y = ends[i, 0]
        goal_x, goal_y = ends[i, 1]
        walked[i] = 0.0
        while np.hypot(goal_x - x, goal_y - y) > 1e-6:
            to_x, to_y = heading(paths, x, y, goal_x, goal_y, climbs)
            left = np.hypot(to_x - x, to_y - y)
            if left == 0.0 or walked[i] > limits[i]:
                walked[i] = np.inf
                break
            step = min(speed, left)
            walked[i] += step  # what the unit spends on it: a step against a wall counts in full
            x, y = settle(
                paths, x, y, x + (to_x - x) / left * step, y + (to_y - y) / left * step, clearance, climbs
            )


def walks_arrive(terrain: Terrain, number_of_walks: int, seed: int) -> None:
    """Units of every size arrive from anywhere to anywhere, within 1.5 times the shortest way and a cell."""
    rng = np.random.default_rng(seed)
    paths = paths_of(terrain)
    for climbs, radius, speed in product((0, 1), (0.125, 0.375, 1.0), (0.01, 0.2, 0.7)):
        clearance = min(radius, CLEARANCE)
        pairs = rng.integers(len(paths.centers), size=(number_of_walks, 2))
        pairs = pairs[paths.waypoint[climbs, pairs[:, 0], pairs[:, 1]] != NO_WAY]
        ends = paths.centers[pairs] + rng.uniform(-0.5, 0.5, size=(len(pairs), 2, 2))
        for end in ends.reshape(-1, 2):
            end[:] = settle(paths, *end, *end, clearance, climbs)
        shortest = np.array([length(paths, way(paths, a, b, bool(climbs))) for a, b in pairs])
        detour = np.linalg.norm(ends - paths.centers[pairs], axis=-1).sum(1)
        limits = 1.5 * (shortest + detour) + 1.0
        walked = np.empty(len(pairs))
        walk(paths, climbs, clearance, speed, ends, limits, walked)
        assert np.isfinite(walked).all(), (climbs, radius, speed, ends[~np.isfinite(walked)][:3].tolist())


def test_walks_through_mazes_arrive() -> None:
    rng = np.random.default_rng(7)
    walks_arrive(MAZE, 300, 0)
    walks_arrive(RAMPS, 300, 1)
    for walls in (0.05, 0.15, 0.3, 0.45):
        walks_arrive(random_terrain(rng, 16, 14, walls), 300, 2)


@pytest.mark.skipif(not DATA.exists(), reason="the data of the game's maps is not beside the project")
def test_walks_on_the_maps_of_smac_arrive() -> None:
    with np.load(DATA / "map_grids.npz") as grids:
        names = [name for name in grids if grids[name].shape == (32, 32) and np.ptp(grids[name])]
        rows = {
            tuple("".join(HEIGHT_OF_LEVEL[v] for v in row) for row in grids[name][::-1]) for name in names
        }
    assert len(rows) >= 6
    for seed, terrain in enumerate(sorted(rows)):
        walks_arrive(parse_terrain(terrain, 32, 32), 200, seed)


def turned(terrain: Terrain) -> Terrain:
    return Terrain(terrain.heights[::-1, ::-1].copy(), terrain.smoke[::-1, ::-1].copy())


def mirrored(terrain: Terrain) -> Terrain:
    return Terrain(terrain.heights[:, ::-1].copy(), terrain.smoke[:, ::-1].copy())


def test_a_map_turned_by_half_has_turned_ways_and_sights() -> None:
    rng = np.random.default_rng(9)
    for _ in range(10):
        terrain = random_terrain(rng, 13, 9, walls=rng.uniform(0.05, 0.4))
        paths, other = paths_of(terrain), paths_of(turned(terrain))
        last = len(paths.centers) - 1
        for climbs in (0, 1):
            there = other.waypoint[climbs, ::-1, ::-1].astype(int)
            expected = np.where(there == NO_WAY, NO_WAY, last - there)
            assert np.array_equal(paths.waypoint[climbs], expected)
        assert np.array_equal(paths.sees, other.sees[::-1, ::-1])
        same = paths.nearest == last - other.nearest[::-1, ::-1]
        same[4, 6] = True  # the map's very centre has no side to prefer
        assert same.all()


def test_a_reflected_map_has_reflected_sights_and_ways_but_for_ties() -> None:
    rng = np.random.default_rng(10)
    same = total = 0
    for _ in range(10):
        terrain = random_terrain(rng, 13, 9, walls=rng.uniform(0.05, 0.4))
        paths, other = paths_of(terrain), paths_of(mirrored(terrain))
        image = other.cell[:, ::-1][paths.cell >= 0]  # the number of each cell's mirror image
        back = np.append(np.argsort(image), [0])
        for climbs in (0, 1):
            there = other.waypoint[climbs][np.ix_(image, image)].astype(int)
            expected = np.where(there == NO_WAY, NO_WAY, back[np.minimum(there, len(image))])
            same += (paths.waypoint[climbs] == expected).sum()
            total += expected.size
        assert np.array_equal(paths.sees, other.sees[np.ix_(image, image)])
    assert same >= 0.998 * total


def test_the_turned_walk_is_the_walk_turned() -> None:
    rng = np.random.default_rng(11)
    terrain = random_terrain(rng, 16, 16, walls=0.2)
    paths, other = paths_of(terrain), paths_of(turned(terrain))
    for start, end in rng.integers(16 * 64, size=(2000, 2, 2)) / 64:  # sixty-fourths: mirrored exactly
        place, image = heading(paths, *start, *end, 0), heading(other, *(16 - start), *(16 - end), 0)
        if (start % 1).all() and (end % 1).all():
            assert place == pytest.approx(16 - np.array(image), abs=1e-12)
            place, image = (
                settle(paths, *start, *end, 0.375, 0),
                settle(other, *(16 - start), *(16 - end), 0.375, 0),
            )
            assert place == pytest.approx(16 - np.array(image), abs=1e-12)


def test_a_map_without_terrain_has_empty_tables_of_the_same_types() -> None:
    empty, some = compile_paths(None, 32, 32), paths_of(MAZE)
    assert [(a.dtype, a.ndim) for a in empty] == [(a.dtype, a.ndim) for a in some]
    assert all(a.flags.c_contiguous and a.flags.writeable for a in (*empty, *some)), (
        "numba would tell them apart"
    )
    assert empty.centers.size == empty.waypoint.size == 0


def test_tables_are_computed_once() -> None:
    assert paths_of(MAZE) is paths_of(MAZE)


def test_maps_that_the_tables_do_not_hold_are_refused() -> None:
    wide = parse_terrain(("." * 60,) * 50, 60, 50)
    with pytest.raises(ValueError, match=f"3000 cells of ground; it must have 1 to {MAX_GROUND}"):
        compile_paths(wide, 60, 50)
    with pytest.raises(ValueError, match="0 cells of ground"):
        paths_of(draw("##"))
    with pytest.raises(ValueError, match="terrain of 15 x 9 cells on a map of 9 x 15"):
        compile_paths(MAZE, 9, 15)
