"""Who sees whom across hills and smoke, against lines sampled point by point."""

from __future__ import annotations

import numpy as np
import pytest

from envs.battle.paths import sees_cell
from envs.terrain import Terrain
from tests.envs.test_paths import paths_of
from tests.envs.test_terrain import draw


def reference_sees(terrain: Terrain, a: tuple[int, int], b: tuple[int, int]) -> bool:
    """By points along the line, 201 for each cell it might touch, corners by both sides."""
    count = 201 * (abs(b[0] - a[0]) + abs(b[1] - a[1]) + 1)
    eye, same_smoke = int(terrain.heights[a[1], a[0]]), bool(terrain.smoke[a[1], a[0]])

    def hides(x: int, y: int) -> bool:
        height = int(terrain.heights[y, x])
        return height >= eye + 2 or bool(terrain.smoke[y, x] and not same_smoke and eye < height + 2)

    last = a
    for i in range(count + 1):
        x = a[0] + 0.5 + (b[0] - a[0]) * i / count
        y = a[1] + 0.5 + (b[1] - a[1]) * i / count
        if min(abs(x - round(x)), abs(y - round(y))) < 1e-9:
            continue
        here = (int(x), int(y))
        if here == last:
            continue
        diagonal = here[0] != last[0] and here[1] != last[1]
        if hides(*here) or (diagonal and hides(here[0], last[1]) and hides(last[0], here[1])):
            return False
        same_smoke = same_smoke and bool(terrain.smoke[here[1], here[0]])
        last = here
    return True


def test_sight_against_sampled_lines() -> None:
    rng = np.random.default_rng(8)
    hidden = 0
    for _ in range(15):
        cells = rng.choice(list("#.~123"), size=(9, 10), p=[0.1, 0.5, 0.1, 0.1, 0.1, 0.1])
        terrain = draw(*("".join(row) for row in cells))
        paths = paths_of(terrain)
        for a, b in rng.integers(len(paths.centers), size=(300, 2)):
            here, there = (tuple(map(int, paths.centers[i])) for i in (a, b))
            expected = reference_sees(terrain, here, there)
            assert sees_cell(paths, *paths.centers[a], *paths.centers[b]) == expected, (here, there)
            hidden += not expected
    assert 500 < hidden < 4000


@pytest.mark.parametrize(
    ("row", "seen_from_the_west", "seen_from_the_east"),
    [
        ("....", True, True),
        (".##.", True, True),  # a chasm
        (".12.", False, False),  # a hill
        ("0123", False, True),  # up a ramp: two higher is too high
        ("0012", False, True),
        ("0001", True, True),
        ("2..1", True, True),
        ("~...", True, False),  # out of smoke, not into it
        ("~~~~", True, True),
        ("~.~.", False, False),  # other smoke
        (".~..", False, False),
        ("2~..", True, False),  # over smoke from above
    ],
)
def test_sight_by_hand(row: str, seen_from_the_west: bool, seen_from_the_east: bool) -> None:
    paths = paths_of(draw(row))
    assert sees_cell(paths, 0.5, 0.5, 3.5, 0.5) == seen_from_the_west
    assert sees_cell(paths, 3.5, 0.5, 0.5, 0.5) == seen_from_the_east


def test_sight_through_a_corner() -> None:
    assert sees_cell(paths_of(draw("3.", "..")), 0.5, 0.5, 1.5, 1.5)
    assert not sees_cell(paths_of(draw("3.", ".3")), 0.5, 0.5, 1.5, 1.5)
