"""Pictures show what the frame says: who stands where, in which colour, how hurt, doing what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from envs.battle.batch import BattleBatch
from envs.battle.frame import Camera, Frame, tween
from envs.battle.render import GROUND, HEALTH_COLORS, TEAM_COLORS, TEXT, draw_frame, pixel_of
from envs.unit_set import Verb


@pytest.fixture(scope="module")
def frame() -> Frame:
    """A marine of team 0 in the west, two zealots of team 1 in the east, all unhurt and idle."""
    nothing = np.zeros(3)
    return Frame(
        title="made up",
        names=("ours", "theirs"),
        playable=(0.0, 0.0, 16.0, 10.0),
        seconds=1.5,
        limit=20.0,
        result="",
        unit_names=("marine", "zealot", "zealot"),
        side=np.array([0, 1, 1]),
        radius=np.array([0.375, 0.5, 0.5]),
        max_health=np.array([45.0, 100.0, 100.0]),
        max_shield=np.array([0.0, 50.0, 50.0]),
        position=np.array([[3.0, 5.0], [12.0, 7.0], [12.0, 3.0]]),
        facing=np.array([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]),
        health=np.array([45.0, 100.0, 100.0]),
        shield=np.array([0.0, 50.0, 50.0]),
        readiness=np.ones(3),
        target=np.full(3, -1),
        firing=nothing > 0,
        goal=np.full((3, 2), np.nan),
        holding=nothing > 0,
        dead_for=nothing,
    )


def around(frame: Frame, i: int, share: float) -> np.ndarray:
    """The pixels (k, 3) within ``share`` of unit ``i``'s radius of its centre."""
    picture = draw_frame(frame)
    row, column = pixel_of(frame, tuple(frame.position[i]))
    edge = pixel_of(frame, (frame.position[i][0] + frame.radius[i], frame.position[i][1]))[1] - column
    y, x = np.ogrid[: picture.shape[0], : picture.shape[1]]
    return picture[(y - row) ** 2 + (x - column) ** 2 <= (share * edge) ** 2]


def share_of(pixels: np.ndarray, color: tuple[int, int, int]) -> float:
    """Which part of the pixels has a colour, more or less."""
    return float((np.abs(pixels.astype(int) - color).max(-1) <= 24).mean())


def at(picture: np.ndarray, frame: Frame, x: float, y: float) -> np.ndarray:
    row, column = pixel_of(frame, (x, y))
    return picture[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3)


def test_units_have_their_teams_colour(frame: Frame) -> None:
    for i, side in enumerate(frame.side):
        pixels = around(frame, i, 0.7)
        assert share_of(pixels, TEAM_COLORS[side]) > 0.5
        assert share_of(pixels, TEAM_COLORS[1 - side]) == 0


def test_discs_have_their_true_size(frame: Frame) -> None:
    picture = draw_frame(frame)
    x, y = frame.position[0]
    inside = at(picture, frame, x, y + 0.36)
    assert not (inside == GROUND).all(-1).any()
    assert (at(picture, frame, x, y + 0.60) == GROUND).all()


def test_north_is_up(frame: Frame) -> None:
    assert pixel_of(frame, (5.0, 9.0))[0] < pixel_of(frame, (5.0, 1.0))[0]


def test_the_health_ring_shrinks_and_reddens(frame: Frame) -> None:
    def ring(health: float) -> np.ndarray:
        return around(replace(frame, health=np.array([health, 100.0, 100.0])), 0, 1.0)

    full, quarter = ring(45.0), ring(9.0)
    assert share_of(full, HEALTH_COLORS[2]) > 0.1
    assert share_of(quarter, HEALTH_COLORS[2]) < 0.02
    reddish = quarter[(quarter[:, 0] > 200) & (quarter[:, 1] < 160) & (quarter[:, 2] < 110)]
    assert 0 < len(reddish) < len(full) / 4


def test_the_dead_leave_a_fading_cross(frame: Frame) -> None:
    def cross(seconds: float) -> float:
        dead = replace(frame, health=np.array([45.0, 0.0, 100.0]), dead_for=np.array([0.0, seconds, 0.0]))
        return float(np.abs(around(dead, 1, 0.9).astype(int) - GROUND).mean())

    alive = float(np.abs(around(frame, 1, 0.9).astype(int) - GROUND).mean())
    assert alive > cross(0.0) > cross(2.0) > cross(4.0) > 0
    assert cross(4.0) == cross(60.0)


def test_an_attack_is_a_line_to_the_target(frame: Frame) -> None:
    assert (at(draw_frame(frame), frame, 7.5, 6.0) == GROUND).all()
    fires = replace(frame, target=np.array([1, -1, -1]), firing=np.array([True, False, False]))
    middle = at(draw_frame(fires), fires, 7.5, 6.0)
    assert (middle[:, 2] > middle[:, 0] + 40).any()  # bluish: it is team 0 that fires


def test_a_move_is_an_arrow_towards_the_goal(frame: Frame) -> None:
    goal = np.full((3, 2), np.nan)
    goal[0] = (3.0, 8.0)
    moves = replace(frame, goal=goal)
    assert not (at(draw_frame(moves), moves, 3.0, 6.0) == GROUND).all()
    assert (at(draw_frame(moves), moves, 3.0, 4.0)[:, 0] == GROUND[0]).any()


def test_the_header_tells_title_names_and_time(frame: Frame) -> None:
    plain = draw_frame(frame)
    for change in ({"title": "another"}, {"names": ("a", "b")}, {"seconds": 9.0}, {"result": "ours wins"}):
        assert not np.array_equal(plain[:58], draw_frame(replace(frame, **change))[:58])
    assert share_of(plain[:30].reshape(-1, 3), TEXT) > 0


def test_the_size_depends_on_the_playable_area_alone(frame: Frame) -> None:
    square = replace(frame, playable=(0.0, 0.0, 16.0, 16.0))
    assert draw_frame(frame).shape == draw_frame(replace(frame, seconds=3.0)).shape
    assert draw_frame(square).shape[0] > draw_frame(frame).shape[0]
    assert draw_frame(frame, width=640).shape[1] == 640
    with pytest.raises(ValueError, match="at least 320"):
        draw_frame(frame, width=100)


def test_types_that_share_a_first_letter_get_two() -> None:
    batch = BattleBatch("2s3z", 1)
    assert Camera(batch).frame().labels == {"stalker": "S", "zealot": "Z"}
    frame = replace(Camera(batch).frame(), unit_names=("zealot", "zergling", "stalker"))
    assert frame.labels == {"zealot": "Zt", "zergling": "Zg", "stalker": "S"}


def test_the_camera_tells_orders_and_deaths() -> None:
    batch = BattleBatch("3m", 1, auto_reset="off")
    camera = Camera(batch, ("agent", "builtin"))
    batch.step(np.array([[[Verb.MOVE_NORTH, 0], [Verb.HOLD, 0], [Verb.NO_OP, 0]]]))
    frame = camera.frame()
    assert np.isfinite(frame.goal[0]).all()
    assert frame.goal[0, 1] > frame.position[0, 1]
    assert frame.holding.tolist() == [False, True, False, False, False, False]
    assert not np.isfinite(frame.goal[1:3]).any()
    assert frame.seconds == pytest.approx(8 / 22.4)
    while not batch.step(np.zeros((1, 3, 2), np.int64)).done[0]:
        pass
    frame = camera.frame()
    assert frame.result == "builtin wins"
    assert frame.vitality(0) == 0 < frame.vitality(1)
    assert (frame.dead_for[:3] >= 0).all()
    assert frame.dead_for[:3].max() > 0


def test_tweens_glide_from_frame_to_frame(frame: Frame) -> None:
    later = replace(frame, position=frame.position + 1.0, seconds=2.5)
    smooth = tween([frame, later], 3)
    assert [f.seconds for f in smooth] == [1.5, 1.75, 2.0, 2.25, 2.5]
    np.testing.assert_allclose(smooth[2].position, frame.position + 0.5)
    assert tween([frame], 3) == [frame]
    with pytest.raises(ValueError, match="at least 0"):
        tween([frame], -1)
