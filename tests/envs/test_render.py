"""Pictures show what the frame says: who stands where, whose, how hurt, doing what, seen by whom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from envs.battle.blasts import Blast
from envs.battle.colors import (
    ENERGY,
    GROUND,
    HEAL,
    HEALTH_COLORS,
    NEUTRAL_COLOR,
    STIM,
    TEAM_COLORS,
    TEXT,
    WALL,
    height_color,
)
from envs.battle.frame import NEUTRAL, Frame
from envs.battle.render import draw_frame, headline, mark_legend, pixel_of, type_legend
from envs.terrain import parse_terrain


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


def is_bare(pixels: np.ndarray) -> bool:
    """Whether there is nothing but ground and its grid."""
    return bool((np.abs(pixels.astype(int) - GROUND).max(-1) <= 12).all())


def flags(*units: int) -> np.ndarray:
    """Which of the three units."""
    return np.isin(np.arange(3), units)


def field(picture: np.ndarray) -> np.ndarray:
    """The picture without header and footer."""
    return picture[58:-34]


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


def test_reinforcements_that_have_not_come_leave_no_trace(frame: Frame) -> None:
    reserve = replace(frame, health=np.array([45.0, 0.0, 100.0]), present=flags(0, 2))
    elsewhere = np.array([[3.0, 5.0], [8.0, 5.0], [12.0, 3.0]])
    assert is_bare(around(reserve, 1, 2.0))
    assert np.array_equal(draw_frame(reserve), draw_frame(replace(reserve, position=elsewhere)))
    assert reserve.counts(1) == (1, 1)
    assert reserve.vitality(1) == 1.0


def test_an_attack_is_a_line_to_the_target(frame: Frame) -> None:
    assert (at(draw_frame(frame), frame, 7.5, 6.0) == GROUND).all()
    fires = replace(frame, target=np.array([1, -1, -1]), firing=flags(0))
    middle = at(draw_frame(fires), fires, 7.5, 6.0)
    assert (middle[:, 2] > middle[:, 0] + 40).any()  # bluish: it is team 0 that fires


def test_a_heal_is_a_green_line_to_the_patient(frame: Frame) -> None:
    heals = replace(frame, target=np.array([-1, 2, -1]), firing=flags(1))
    assert share_of(around(heals, 2, 2.5), HEAL) > 0
    assert share_of(around(frame, 2, 2.5), HEAL) == 0
    middle = at(draw_frame(heals), heals, 12.0, 5.0)
    assert (middle[:, 1] > middle[:, 0] + 40).all()


def test_a_move_is_an_arrow_towards_the_goal(frame: Frame) -> None:
    goal = np.full((3, 2), np.nan)
    goal[0] = (3.0, 8.0)
    moves = replace(frame, goal=goal)
    assert not (at(draw_frame(moves), moves, 3.0, 6.0) == GROUND).all()
    assert (at(draw_frame(moves), moves, 3.0, 4.0)[:, 0] == GROUND[0]).any()


def test_units_that_the_enemy_does_not_see_are_hollow(frame: Frame) -> None:
    seen = np.ones((3, 2), bool)
    seen[1, 0] = False
    unseen = replace(frame, seen=seen)
    assert unseen.hidden.tolist() == [False, True, False]
    assert (
        share_of(around(unseen, 1, 0.7), TEAM_COLORS[1])
        < 0.25
        < 0.5
        < share_of(around(frame, 1, 0.7), TEAM_COLORS[1])
    )
    assert np.array_equal(around(unseen, 2, 1.0), around(frame, 2, 1.0))
    alone = replace(unseen, side=np.array([1, 1, 1]))
    assert not alone.hidden.any()  # there is nobody to see them


def test_the_sight_of_both_tints_the_ground_faintly(frame: Frame) -> None:
    sees = replace(frame, sight=np.array([4.0, 0.0, 0.0]))
    near, far = (at(draw_frame(sees), sees, x, 5.0).mean(0) for x in (5.0, 9.0))
    assert (far == GROUND).all()
    assert 2 < near[2] - GROUND[2] < 30
    assert near[2] - near[0] > GROUND[2] - GROUND[0]  # the first team's blue


def test_the_sight_of_one_team_leaves_the_rest_in_fog(frame: Frame) -> None:
    seen = np.ones((3, 2), bool)
    seen[1, 0] = False
    sees = replace(frame, sight=np.array([4.0, 9.0, 9.0]), seen=seen)
    picture = draw_frame(sees, sight=0)
    assert (at(picture, sees, 5.0, 5.0) == GROUND).all()
    assert at(picture, sees, 9.0, 5.0).max() < 0.7 * max(GROUND)
    orange = [share_of(at(picture, sees, *sees.position[i] + (-0.25, 0.0)), TEAM_COLORS[1]) for i in (1, 2)]
    assert orange[0] == 0 < orange[1]
    with pytest.raises(ValueError, match="sight is 2"):
        draw_frame(frame, sight=2)


def test_a_missile_is_where_it_is_and_only_while_it_flies(frame: Frame) -> None:
    start = np.full((3, 2), np.nan)
    start[0] = frame.position[0]
    shot = replace(
        frame,
        missile_target=np.array([1, -1, -1]),
        missile_start=start,
        missile_fired=np.array([1.0, np.nan, np.nan]),
        missile_lands=np.array([2.0, np.nan, np.nan]),
    )
    assert shot.missiles[0].tolist() == [7.5, 6.0]  # after half of its way
    assert np.abs(at(draw_frame(shot), shot, 7.5, 6.0).astype(int) - GROUND).min() > 60
    for moment in (0.9, 2.0):
        assert not replace(shot, seconds=moment).missiles
        assert np.array_equal(field(draw_frame(replace(shot, seconds=moment))), field(draw_frame(frame)))


def test_the_area_of_an_attack_glows_and_fades(frame: Frame) -> None:
    square = np.array([[7.0, 4.0], [9.0, 4.0], [9.0, 6.0], [7.0, 6.0]])

    def glow(seconds: float, x: float) -> float:
        blasted = replace(frame, seconds=seconds, blasts=(Blast(1, 1.5, square),))
        return float(np.abs(at(draw_frame(blasted), blasted, x, 5.0).astype(int) - GROUND).mean())

    assert glow(1.5, 7.5) > glow(1.8, 7.5) > 5
    assert glow(1.4, 7.5) == glow(2.2, 7.5) == glow(1.5, 9.5) == 0


def test_a_bar_shows_a_weapon_that_reloads_and_another_the_energy(frame: Frame) -> None:
    below = slice(*(pixel_of(frame, (3.0, y))[0] for y in (4.6, 4.2)))
    columns = slice(*(pixel_of(frame, (x, 5.0))[1] for x in (2.6, 3.4)))

    def filled(changed: Frame, color: tuple[int, int, int]) -> float:
        return share_of(draw_frame(changed)[below, columns].reshape(-1, 3), color)

    assert filled(frame, (140, 149, 163)) == 0
    early, late = (replace(frame, readiness=np.array([share, 1.0, 1.0])) for share in (0.2, 0.8))
    assert 0 < 2 * filled(early, (140, 149, 163)) < filled(late, (140, 149, 163))
    some, most = (
        replace(frame, max_energy=np.array([200.0, 0, 0]), energy=np.array([energy, 0, 0]))
        for energy in (50.0, 150.0)
    )
    assert 0 < 2 * filled(some, ENERGY) < filled(most, ENERGY)
    assert filled(replace(most, flying=flags(0)), ENERGY) == filled(most, ENERGY)
    assert filled(frame, ENERGY) == 0


def test_a_stimpack_and_a_cloak_are_marked(frame: Frame) -> None:
    stimmed = replace(frame, stimmed=flags(0))
    assert share_of(around(stimmed, 0, 2.0), STIM) > share_of(around(frame, 0, 2.0), STIM) == 0
    cloaked, rim = replace(frame, cloaked=flags(0)), pixel_of(frame, (3.0, 5.0))
    distance = np.hypot(*np.ogrid[-rim[0] : draw_frame(frame).shape[0] - rim[0], -rim[1] : 960 - rim[1]])
    edge = 0.375 * 58.75  # pixels a cell of this field
    halo = (distance > edge + 1.2) & (distance < edge + 3)
    changed = (draw_frame(cloaked) != draw_frame(frame)).any(-1)[halo].mean()
    assert 0.25 < changed < 0.85  # dashes, not a ring
    assert "dashed ring: cloaked" in mark_legend(cloaked)


def test_what_nobody_owns_is_green_and_named(frame: Frame) -> None:
    names = ("marine", "beacon", "mineral_shard")
    neutral = replace(
        frame, side=np.array([0, NEUTRAL, NEUTRAL]), unit_names=names, radius=np.array([0.375, 1.5, 0.5])
    )
    assert share_of(around(neutral, 2, 0.9), NEUTRAL_COLOR) > 0.3
    rim = at(draw_frame(neutral), neutral, 12.0, 8.5)
    assert share_of(rim, NEUTRAL_COLOR) > 0
    assert share_of(around(neutral, 1, 0.5), NEUTRAL_COLOR) < 0.1  # a place, not a thing
    assert type_legend(neutral) == ["M marine", "green circle beacon", "green diamond mineral_shard"]
    taken = replace(neutral, health=np.array([45.0, 100.0, 0.0]), dead_for=np.array([0, 0, 5.0]))
    assert is_bare(around(taken, 2, 1.0))
    assert not is_bare(around(neutral, 2, 1.0))


def test_a_mission_shows_its_score(frame: Frame) -> None:
    mission = replace(frame, score=7.0)
    assert headline(frame) == ""
    assert headline(mission) == "score 7"
    assert headline(replace(mission, result="time is up")) == "score 7, time is up"
    assert not np.array_equal(draw_frame(frame)[:30], draw_frame(mission)[:30])


def test_the_ground_shows_walls_heights_cliffs_and_smoke(frame: Frame) -> None:
    rows = ["................"] * 4 + ["###.........2...", "~~~.........2..."] + ["................"] * 4
    hilly = replace(frame, terrain=parse_terrain(tuple(rows), 16, 10), health=np.zeros(3), present=flags())
    picture = draw_frame(hilly)
    assert share_of(at(picture, hilly, 0.3, 5.7), WALL) == 1
    assert share_of(at(picture, hilly, 12.5, 5.5), height_color(2)) == 1
    assert (at(picture, hilly, 6.0, 5.5) == GROUND).all()
    smoke = at(picture, hilly, 1.9, 4.9).mean(0)
    assert smoke[2] > GROUND[2] + 15
    assert smoke[2] > smoke[1] + 10
    cliff, ramp = at(picture, hilly, 12.0, 5.5), at(picture, hilly, 12.5, 5.0)
    assert cliff.max() > 100 > ramp.max()


def test_small_units_of_large_battles_keep_their_colour(frame: Frame) -> None:
    """At four pixels of radius letters and full health rings would hide whose a unit is."""
    wide = replace(frame, playable=(0.0, 0.0, 100.0, 60.0), view=(0.0, 0.0, 100.0, 60.0))
    for i, side in enumerate(wide.side):
        assert share_of(around(wide, i, 0.8), TEAM_COLORS[side]) > 0.7
    hurt = replace(wide, health=np.array([45.0, 10.0, 100.0]))
    assert (
        share_of(around(hurt, 1, 1.0), TEAM_COLORS[1]) < share_of(around(wide, 1, 1.0), TEAM_COLORS[1]) - 0.1
    )


def test_the_header_tells_title_names_and_time(frame: Frame) -> None:
    plain = draw_frame(frame)
    for change in ({"title": "another"}, {"names": ("a", "b")}, {"seconds": 9.0}, {"result": "ours wins"}):
        assert not np.array_equal(plain[:58], draw_frame(replace(frame, **change))[:58])
    assert share_of(plain[:30].reshape(-1, 3), TEXT) > 0


def test_the_size_depends_on_the_view_alone(frame: Frame) -> None:
    square = replace(frame, view=(0.0, 0.0, 10.0, 10.0))
    assert draw_frame(frame).shape == draw_frame(replace(frame, seconds=3.0)).shape
    assert draw_frame(square).shape[0] > draw_frame(frame).shape[0]
    assert draw_frame(frame, width=640).shape[1] == 640
    with pytest.raises(ValueError, match="at least 320"):
        draw_frame(frame, width=100)


def test_types_that_share_a_first_letter_get_two(frame: Frame) -> None:
    assert frame.labels == {"marine": "M", "zealot": "Z"}
    names = replace(frame, unit_names=("zealot", "zergling", "stalker"))
    assert names.labels == {"zealot": "Zt", "zergling": "Zg", "stalker": "S"}
    alike = replace(frame, unit_names=("carrier", "corruptor", "colossus"))
    assert len(set(alike.labels.values())) == 3
