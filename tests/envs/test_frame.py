"""Frames tell what happens in a battle, and what happens between two frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from envs.battle.batch import BattleBatch
from envs.battle.frame import NEUTRAL, Camera, Frame, focus, frame_at, thin, tween
from envs.unit_set import Verb
from envs.units import unit_table

ATTACK, ABILITY = int(Verb.ATTACK), int(Verb.ABILITY)


def watch(batch: BattleBatch, give, first, second=(0, 0), steps: int = 6) -> list[Frame]:
    """A frame at the start and after each step of the same orders."""
    camera = Camera(batch)
    frames = [camera.frame()]
    for _ in range(steps):
        give(batch, first, second)
        frames.append(camera.frame())
    return frames


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


def test_types_are_those_drawn_for_the_battle() -> None:
    batch = BattleBatch("smacv2_terran_10v10", 4, seed=1)
    camera, names = Camera(batch), [unit.name for unit in batch.scenario.unit_types]
    drawn = [camera.frame(b) for b in range(4)]
    assert len({frame.unit_names for frame in drawn}) > 1
    for b, frame in enumerate(drawn):
        assert frame.unit_names == tuple(names[k] for k in batch.state.units["type"][b])
        assert frame.max_health.tolist() == [unit_table()[name].health for name in frame.unit_names]
        assert (frame.max_energy > 0).tolist() == [name == "medivac" for name in frame.unit_names]


def test_reinforcements_are_not_on_the_field_and_the_fallen_are() -> None:
    batch = BattleBatch("defeat_roaches", 1, auto_reset="off")
    camera = Camera(batch)
    own = batch.scenario.teams[0]
    frame = camera.frame()
    assert own.reserve > 0
    assert frame.counts(0) == (own.size - own.reserve, own.size - own.reserve)
    assert frame.present[: own.size].tolist() == [i < own.size - own.reserve for i in range(own.size)]
    while frame.counts(0)[0] == frame.counts(0)[1]:
        assert not batch.step(np.zeros((1, own.size, 2), np.int64)).done[0]
        frame = camera.frame()
    assert frame.present.sum() > frame.alive.sum()


def test_a_mission_has_a_score_and_things_of_nobody() -> None:
    batch = BattleBatch("move_to_beacon", 1, auto_reset="off")
    camera = Camera(batch)
    frame = camera.frame()
    assert frame.side.tolist() == [0, NEUTRAL]
    assert frame.unit_names == ("marine", "beacon")
    assert frame.score == 0
    assert frame.vitality(1) == 0
    assert frame.counts(1) == (0, 0)
    batch.state.units["x"][0, 0], batch.state.units["y"][0, 0] = frame.position[1]
    batch.step(np.zeros((1, 1, 2), np.int64))
    assert camera.frame().score == 1
    assert camera.frame().result == ""
    while not batch.step(np.zeros((1, 1, 2), np.int64)).done[0]:
        pass
    assert camera.frame().result == "time is up"
    assert Camera(BattleBatch("3m", 1)).frame().score is None


def test_a_missile_is_seen_on_its_way(battle, give) -> None:
    batch = battle({"stalker": 1}, {"zealot": 1}, at=[(20.0, 20.0), (26.5, 20.0)])
    frames = watch(batch, give, (ATTACK, 1), (int(Verb.HOLD), 0))
    smooth = tween(frames, 7)  # a frame a game loop
    flights = [frame.missiles[0] for frame in smooth if 0 in frame.missiles]
    assert len(flights) >= 3
    assert np.allclose(flights[0], frames[0].position[0], atol=0.6)
    first = [flight[0] for flight in flights[:3]]
    assert np.allclose(np.diff(first), first[1] - first[0], atol=0.2)  # at one speed
    assert first[1] > first[0]
    launched = next(frame for frame in frames if frame.missile_target[0] == 1)
    assert launched.target[0] == 1
    assert launched.firing[0]
    hurt = next(frame for frame in frames if frame.shield[1] < 50)
    assert any(frame.missile_target[0] == 1 and frame.missile_lands[0] <= hurt.seconds for frame in frames)


def test_an_attack_is_shown_on_whom_it_hit(battle, give) -> None:
    """Also where the unit has turned to another since, and where the victim fell."""
    at = [(20.0, 20.0), (24.0, 20.0), (22.0, 23.0)]
    batch = battle({"marine": 1}, {"zergling": 2}, at=at)
    batch.state.units["health"][0, 1] = 3.0
    frames = watch(batch, give, (ATTACK, 1), (int(Verb.HOLD), 0), steps=1)
    assert not frames[1].alive[1]
    assert frames[1].target[0] == 1
    assert frames[1].firing[0]
    assert frames[0].target[0] == -1


def test_a_heal_is_shown(battle, give) -> None:
    batch = battle({"marine": 1, "medivac": 1}, {"marine": 1}, at=[(20.0, 20.0), (21.0, 20.0), (60.0, 60.0)])
    batch.state.units["health"][0, 0] = 10.0
    batch.refresh()
    camera = Camera(batch)
    batch.step(np.array([[[0, 0], [ABILITY, 0]]]), np.zeros((1, 1, 2), np.int64))
    frame = camera.frame()
    assert frame.target[1] == 0
    assert frame.firing[1]
    assert frame.energy[1] < 50
    assert frame.max_energy.tolist() == [0, 200, 0]
    assert frame.flying.tolist() == [False, True, False]


def test_a_stimpack_is_shown_while_it_works(battle, give) -> None:
    changes = {"upgrades": ("stimpack",)}
    batch = battle({"marine": 1}, {"marine": 1}, at=[(5.0, 5.0), (60.0, 60.0)], changes=changes)
    frames = watch(batch, give, (ABILITY, 0), steps=1)
    assert [frame.stimmed[0] for frame in frames] == [False, True]
    give(batch, (0, 0), steps=31)
    assert not Camera(batch).frame().stimmed[0]


def test_who_sees_whom(battle) -> None:
    batch = battle({"marine": 1}, {"siege_tank": 1}, at=[(20.0, 20.0), (30.0, 20.0)])
    frame = Camera(batch).frame()
    assert frame.sight.tolist() == [9, 11]
    assert frame.seen.tolist() == [[True, True], [False, True]]
    assert frame.hidden.tolist() == [False, True]
    cloaked = battle({"dark_templar": 1}, {"marine": 1}, at=[(20.0, 20.0), (22.0, 20.0)])
    frame = Camera(cloaked).frame()
    assert frame.cloaked.tolist() == frame.hidden.tolist() == [True, False]


def test_a_baneling_leaves_a_circle_and_a_colossus_a_strip(battle, give) -> None:
    at = [(20.0, 20.0), (20.9, 20.0)]
    batch = battle({"baneling": 1}, {"zealot": 1}, at=at)
    frames = watch(batch, give, (ATTACK, 1), (int(Verb.HOLD), 0), steps=1)
    (blast,) = [blast for frame in frames for blast in frame.blasts]
    baneling = unit_table()["baneling"].weapons[0].area
    centre = frames[-1].position[0]
    np.testing.assert_allclose(np.hypot(*(blast.outline - centre).T), baneling.radii[-1])
    assert blast.side == 0
    assert blast.seconds == pytest.approx(frames[-1].seconds - frames[-1].dead_for[0])

    batch = battle({"colossus": 1}, {"zealot": 1}, at=[(20.0, 20.0), (24.0, 20.0)])
    frames = watch(batch, give, (ATTACK, 1), (int(Verb.HOLD), 0), steps=2)
    strip = next(blast for frame in frames for blast in frame.blasts).outline
    area = unit_table()["colossus"].weapons[0].area
    np.testing.assert_allclose(np.ptp(strip, axis=0), (area.width, area.length))
    np.testing.assert_allclose(strip.mean(0), frames[-1].position[1], atol=0.1)


def test_an_earlier_battle_leaves_no_missiles() -> None:
    """The state keeps when a unit's last missile landed, and a new battle does not wipe that."""
    batch = BattleBatch("3s_vs_3z", 1, auto_reset="off")
    units, camera = batch.state.units[0], Camera(batch)
    batch.state.battles["loop"] = 8
    units["missile_from"][0], units["missile_at"][0], units["hit_at"][3] = 2, 5, 5
    units["facing_x"][0], units["facing_y"][0] = units["x"][3] - units["x"][0], units["y"][3] - units["y"][0]
    assert camera.frame().missile_target[0] == -1
    assert np.isnan(camera.frame().missile_fired[0])
    assert not camera.frame().firing.any()
    units["struck_at"][0] = 2  # in this battle
    assert camera.frame().missile_target[0] == 3
    assert camera.frame().missile_lands[0] == pytest.approx(5 / 22.4)


def test_tweens_glide_from_frame_to_frame(frame: Frame) -> None:
    later = replace(frame, position=frame.position + 1.0, seconds=2.5)
    smooth = tween([frame, later], 3)
    assert [f.seconds for f in smooth] == [1.5, 1.75, 2.0, 2.25, 2.5]
    np.testing.assert_allclose(smooth[2].position, frame.position + 0.5)
    assert tween([frame], 3) == [frame]
    with pytest.raises(ValueError, match="at least 0"):
        tween([frame], -1)


def test_who_comes_or_leaps_does_not_glide(frame: Frame) -> None:
    before = replace(frame, health=np.array([45.0, 0.0, 100.0]))
    step = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 6.0]])  # walks, comes, leaps
    middle = tween([before, replace(frame, position=frame.position + step, seconds=2.5)], 1)[1]
    np.testing.assert_allclose(middle.position - frame.position, [[0.5, 0.0], [0.0, 0.0], [0.0, 0.0]])


def test_a_frame_at_any_time(frame: Frame) -> None:
    frames = [replace(frame, position=frame.position + t, seconds=1.5 + t) for t in (0.0, 1.0, 3.0)]
    np.testing.assert_allclose(frame_at(frames, 3.0).position, frame.position + 1.5)
    assert frame_at(frames, 3.0).seconds == 3.0
    assert frame_at(frames, 0.0) is frames[0]
    assert frame_at(frames, 9.0) is frames[2]


def test_thinning_keeps_the_ends(frame: Frame) -> None:
    frames = [replace(frame, seconds=float(k)) for k in range(10)]
    assert [f.seconds for f in thin(frames, 4)] == [0, 3, 6, 9]
    assert thin(frames, 10) == frames


def test_the_view_narrows_to_where_units_are(frame: Frame) -> None:
    wide = replace(frame, playable=(0.0, 0.0, 64.0, 40.0), view=(0.0, 0.0, 64.0, 40.0))
    moved = replace(wide, position=wide.position + np.array([10.0, 10.0]))
    near, again = focus([wide, moved])
    assert near.view == again.view == (0.0, 0.0, 32.0, 20.0)
    (far,) = focus([replace(wide, position=np.array([[1.0, 1.0], [60.0, 30.0], [5.0, 5.0]]))])
    assert far.view == wide.view  # 59 + 2 * 3 cells are more than there are
    absent = replace(
        wide, position=np.array([[3.0, 5.0], [12.0, 7.0], [60.0, 3.0]]), present=np.arange(3) < 2
    )
    assert focus([absent])[0].view == near.view
