"""Maps drawn in characters: what is read from them, and where units on the ground may step."""

from __future__ import annotations

import time

import numpy as np
import pytest

from envs.terrain import NEIGHBOURS, WALL, Terrain, parse_terrain
from envs.unit_set import MOVE_DIRECTIONS

N, NE, E, SE, S, SW, W, NW = (1 << k for k in range(8))
EVERYWHERE = 0xFF


def draw(*rows: str) -> Terrain:
    return parse_terrain(rows, len(rows[0]), len(rows))


def random_terrain(rng: np.random.Generator, width: int, height: int, walls: float = 0.3) -> Terrain:
    cells = rng.choice(list("#.123"), size=(height, width), p=[walls, *[(1 - walls) / 4] * 4])
    return draw(*("".join(row) for row in cells))


def test_the_first_row_is_the_northernmost() -> None:
    terrain = draw("#.2", "~90")
    assert terrain.heights.tolist() == [[0, 9, 0], [WALL, 0, 2]]
    assert terrain.smoke.tolist() == [[True, False, False], [False, False, False]]
    assert (terrain.width, terrain.height) == (3, 2)


def test_terrain_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        draw("..").heights[0, 0] = 1


def test_the_same_rows_give_the_same_terrain() -> None:
    assert draw("..", ".#") is draw("..", ".#")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("..", ".."), r"2 rows; the map is 3 cells high"),
        (("...", "..", "..."), r"row 2 \(from the north\) has 2 characters; the map is 3 cells wide"),
        (("...", "...", ".x."), r"row 3 \(from the north\), column 2: 'x'"),
        (("..²", "...", "..."), r"row 1 \(from the north\), column 3: '²'"),
        ((), r"0 rows; the map is 3 cells high"),
    ],
)
def test_malformed_terrain_is_refused_with_its_place(rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_terrain(rows, 3, 3)


def test_neighbours_are_in_the_order_of_the_move_verbs() -> None:
    assert np.sign(np.round(MOVE_DIRECTIONS, 6)).astype(int).tolist() == [list(n) for n in NEIGHBOURS]


def test_open_ground_bars_only_the_outside() -> None:
    assert draw("...", "...", "...").barred(False).tolist() == [
        [SE | S | SW | W | NW, SE | S | SW, NE | E | SE | S | SW],
        [SW | W | NW, 0, NE | E | SE],
        [N | NE | SW | W | NW, N | NE | NW, N | NE | E | SE | NW],
    ]


def test_a_wall_is_barred_and_leads_nowhere() -> None:
    barred = draw("...", ".#.", "...").barred(False)
    assert barred[1, 1] == EVERYWHERE
    assert barred[0, 1] & N
    assert barred[1, 0] & E
    assert barred[0, 0] & NE
    assert not barred[0, 1] & (NE | NW), "round a corner, there is the way over the other cell"


def test_walls_that_touch_at_a_corner_are_tight() -> None:
    barred = draw("#.", ".#").barred(False)
    assert barred[0, 0] == EVERYWHERE
    assert barred[1, 1] == EVERYWHERE


def test_a_step_of_two_is_a_cliff_to_who_does_not_climb() -> None:
    terrain = draw("...", "013", "...")
    walker, climber = terrain.barred(False), terrain.barred(True)
    assert not walker[1, 0] & E
    assert not walker[1, 1] & W
    assert walker[1, 1] & E
    assert walker[1, 2] & W
    assert not climber[1, 1] & E
    assert not climber[1, 2] & W
    assert climber[1, 2] & E, "nobody leaves the map"


def test_a_cliff_cell_beside_the_way_closes_one_of_two_ways_only() -> None:
    # From the south-west to the north-east: over the north-west is a cliff, over the south-east is not.
    assert not draw("31", "00").barred(False)[0, 0] & NE
    assert draw("33", "00").barred(False)[0, 0] & NE


def test_barred_steps_are_barred_both_ways() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        terrain = random_terrain(rng, 9, 7)
        for climbs in (False, True):
            barred = terrain.barred(climbs)
            for y, x in np.argwhere(terrain.heights != WALL):
                for k, (dx, dy) in enumerate(NEIGHBOURS):
                    if 0 <= x + dx < 9 and 0 <= y + dy < 7 and terrain.heights[y + dy, x + dx] != WALL:
                        assert barred[y, x] >> k & 1 == barred[y + dy, x + dx] >> (k + 4) % 8 & 1


def test_regions_by_hand() -> None:
    terrain = draw(
        "..#35",
        "..#21",
        "####.",
    )
    assert terrain.regions(False).tolist() == [[-1, -1, -1, -1, 0], [1, 1, -1, 0, 0], [1, 1, -1, 0, 2]]
    assert terrain.regions(True).tolist() == [[-1, -1, -1, -1, 0], [1, 1, -1, 0, 0], [1, 1, -1, 0, 0]]


def test_regions_against_networkx() -> None:
    networkx = pytest.importorskip("networkx")
    rng = np.random.default_rng(1)
    for _ in range(20):
        terrain = random_terrain(rng, 12, 10, walls=0.4)
        heights = terrain.heights
        for climbs in (False, True):
            graph = networkx.Graph()
            ground = {(int(y), int(x)) for y, x in np.argwhere(heights != WALL)}
            graph.add_nodes_from(ground)
            for y, x in ground:
                for there in ((y + 1, x), (y, x + 1)):
                    gentle = there in ground and abs(int(heights[there]) - int(heights[y, x])) < 2
                    if there in ground and (climbs or gentle):
                        graph.add_edge((y, x), there)
            regions = terrain.regions(climbs)
            assert (regions[heights == WALL] == -1).all()
            components = list(networkx.connected_components(graph))
            assert regions.max() + 1 == len(components)
            for component in components:
                assert len({regions[cell] for cell in component}) == 1


def test_winding_ground_is_one_region_at_once() -> None:
    """Half a minute, if labels went from cell to cell; the bound is a hundred times what it takes."""
    ends = ("#" * 255 + ".", "." + "#" * 255)
    rows = ["." * 256 if y % 2 == 0 else ends[y // 2 % 2] for y in range(255)]
    terrain = draw(*rows)
    began = time.perf_counter()
    assert terrain.regions(False).max() == 0
    assert time.perf_counter() - began < 1


def test_a_map_of_walls_has_no_region() -> None:
    assert (draw("##", "##").regions(False) == -1).all()
