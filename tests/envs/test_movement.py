"""Walking: how far, round whom, over what, and where not."""

from dataclasses import replace

import numpy as np
import pytest

from envs.battle.batch import BattleBatch
from envs.battle.engine import send
from envs.battle.state import IDLE, MOVE, PATROL
from envs.unit_set import Verb
from tests.envs.battles import STAND, gap, unit
from tests.envs.test_fog import PLATEAU, SIZE, on_ground

WALL = tuple("." * 15 + ("..." if row >= 28 else "##.") + "." * 14 for row in range(SIZE))
"""A wall at x = 15 to 17, open at y = 0 to 4."""


class TestSteps:
    @pytest.mark.parametrize(("name", "cells"), [("marine", 1.125), ("stalker", 1.476), ("reaper", 1.875)])
    def test_displacement_in_one_step(self, battle, give, name, cells):
        """Speed in Normal seconds (2.25, 2.953, 3.75) / 16 loops * 8 loops."""
        batch = battle({name: 1}, {"zealot": 1}, at=[(10, 32), (60, 60)])
        give(batch, (Verb.MOVE_EAST, 0))
        assert unit(batch, 0, "x") - 10 == pytest.approx(cells, abs=1e-3)
        assert unit(batch, 0, "y") == 32

    @pytest.mark.parametrize(
        ("verb", "direction"),
        [(Verb.MOVE_NORTHEAST, (1, 1)), (Verb.MOVE_SOUTH, (0, -1)), (Verb.MOVE_WEST, (-1, 0))],
    )
    def test_directions_have_equal_length_and_north_is_up(self, battle, give, verb, direction):
        batch = battle({"marine": 1}, {"zealot": 1}, at=[(32, 32), (60, 60)])
        give(batch, (verb, 0))
        moved = np.array([unit(batch, 0, "x") - 32, unit(batch, 0, "y") - 32])
        np.testing.assert_allclose(moved, 1.125 * np.array(direction) / np.linalg.norm(direction), atol=1e-9)

    def test_a_move_leads_two_cells_and_then_the_unit_stands(self, battle, give):
        batch = battle({"marine": 1}, {"zealot": 1}, at=[(10, 32), (60, 60)])
        give(batch, (Verb.MOVE_EAST, 0))
        give(batch, STAND, steps=5)
        assert unit(batch, 0, "x") == pytest.approx(12)
        assert unit(batch, 0, "order") == IDLE

    def test_stop_halts_a_move(self, battle, give):
        batch = battle({"marine": 1}, {"zealot": 1}, at=[(10, 32), (60, 60)])
        give(batch, (Verb.MOVE_EAST, 0))
        give(batch, (Verb.STOP, 0), steps=2)
        assert unit(batch, 0, "x") == pytest.approx(11.125)

    def test_nobody_leaves_the_playable_area(self, battle, give):
        batch = battle({"marine": 1}, {"zealot": 1}, at=[(0.375, 32), (60, 60)])
        assert not batch.observations[0]["verb_mask"][0, 0, Verb.MOVE_WEST]
        give(batch, (Verb.MOVE_NORTHWEST, 0), steps=3)  # refused by the mask, so the unit stands
        assert unit(batch, 0, "x") == 0.375

    def test_attack_move_goes_to_the_attack_point_and_stays_there(self, battle, give):
        batch = battle({"marine": 1}, {"zealot": 1}, at=[(40, 32), (60, 60)])
        give(batch, (Verb.ATTACK_MOVE, 0), steps=20)
        assert abs(unit(batch, 0, "x") - 48) <= 1.0 + 1e-9  # arrives within 0.5 + 0.5 * sqrt(1)

    def test_a_patrol_goes_to_and_fro_and_fights_what_it_meets(self, battle, give):
        """4 cells at 0.140625 are 28.4 loops: there after 4 steps, back and there again after 8 and 12."""
        batch = battle({"marine": 1}, {"zealot": 1}, at=[(30, 32), (60, 60)])
        send(batch.state.units[0, 0], PATROL, 34.0, 32.0)
        xs = []
        for _ in range(24):
            give(batch, STAND)
            xs.append(unit(batch, 0, "x"))
        assert unit(batch, 0, "order") == PATROL
        assert max(xs) == pytest.approx(34, abs=0.6)
        assert min(xs[6:]) == pytest.approx(30, abs=0.6)
        turns = np.flatnonzero(np.diff(np.sign(np.diff(xs))) != 0)
        assert np.diff(turns).tolist() == pytest.approx([3.55] * (len(turns) - 1), abs=1)
        batch.state.units["x"][0, 1], batch.state.units["y"][0, 1] = 32, 35
        batch.refresh()
        give(batch, STAND, steps=3)
        assert unit(batch, 1, "shield") < 50

    def test_an_engine_player_s_move_does_not_fight(self, battle, give):
        batch = battle({"marine": 1}, {"zealot": 1}, at=[(30, 32), (33, 33.5)])
        send(batch.state.units[0, 0], MOVE, 36.0, 32.0)
        give(batch, STAND, steps=6)
        assert unit(batch, 0, "x") == pytest.approx(36)
        assert unit(batch, 1, "shield") == 50


class TestOthers:
    def test_units_do_not_overlap_and_walk_around_each_other(self, battle, give):
        batch = battle({"marine": 2}, {"zealot": 1}, at=[(30, 32), (34, 32), (60, 60)])
        batch.state.units["order"][0, 1] = 0
        orders = np.array([[[Verb.ATTACK_MOVE, 0], [Verb.HOLD, 0]]])
        for _ in range(10):
            batch.step(orders, np.zeros((1, 1, 2), np.int64))
            assert gap(batch, 0, 1) > -0.15
        assert unit(batch, 0, "x") > 36, "the walker got past"
        assert unit(batch, 1, "x") == pytest.approx(34), "who stands is not pushed"

    def test_flyers_and_walkers_pass_each_other(self, battle, give):
        batch = battle({"mutalisk": 1}, {"marine": 1}, at=[(30, 32), (31, 32)])
        give(batch, (Verb.MOVE_EAST, 0))
        assert (unit(batch, 0, "x"), unit(batch, 0, "y")) == (pytest.approx(32), 32)
        assert unit(batch, 1, "x") == 31

    def test_colossi_stride_over_zerglings_but_not_over_each_other(self, battle, give):
        at = [(30, 32), (40, 32), (31.5, 32), (32, 32.6), (32, 31.4), (41.6, 32)]
        batch = battle({"colossus": 2}, {"zergling": 3, "colossus": 1}, at=at)
        give(batch, (Verb.MOVE_EAST, 0))
        assert (unit(batch, 0, "x"), unit(batch, 0, "y")) == (31.125, 32)
        assert unit(batch, 1, "y") != 32, "round the other colossus"
        assert batch.state.units["x"][0, 2:5].tolist() == [31.5, 32, 32]

    def test_structures_are_walked_round_by_all(self, battle, give):
        batch = battle({"colossus": 1}, {"spine_crawler": 1}, at=[(30, 32), (33, 32)])
        batch.rules.sides["attack_x"][0] = 40
        for _ in range(12):
            give(batch, (Verb.MOVE_EAST, 0))
            assert np.hypot(unit(batch, 0, "x") - 33, unit(batch, 0, "y") - 32) > 1.125 + 0.75 - 0.15
        assert unit(batch, 0, "x") > 35
        assert (unit(batch, 1, "x"), unit(batch, 1, "y")) == (33, 32)


class TestGround:
    def walk(self, batch, i, steps, order=(Verb.ATTACK_MOVE, 0)):
        """Places of unit ``i`` after each step."""
        track = []
        for _ in range(steps):
            orders = np.zeros((1, batch.team_sizes[0], 2), int)
            allowed = batch.observations[0]["verb_mask"][0, :, order[0]]
            orders[0, allowed] = order
            batch.step(orders, np.zeros((1, batch.team_sizes[1], 2), int))
            track.append((unit(batch, i, "x"), unit(batch, i, "y")))
        return np.array(track)

    def test_a_wall_is_walked_round(self):
        """From (10, 16) to (26, 16) by the gap below y = 4: about 12 and 12.6 cells, with the way along."""
        batch = on_ground(WALL, ("marine",), ("zealot",), [(10, 16), (30, 30)])
        track = self.walk(batch, 0, 40)
        inside = (track[:, 0] > 15) & (track[:, 0] < 17)
        assert inside.any()
        assert (track[inside, 1] < 4).all()
        assert np.hypot(*(track[-1] - (26, 16))) < 1.1
        length = np.hypot(*np.diff([(10, 16), *track], axis=0).T).sum()
        shortest = np.hypot(5, 12.4) + 2 + np.hypot(9, 12.4)
        assert shortest - 2 < length < shortest + 1

    def test_moves_into_a_wall_are_masked_and_stop_at_it(self):
        """A marine keeps 0.375 from the wall at 15; half a step, 0.5625, is open if half of it is."""
        for x, allowed in ((14.34, True), (14.35, False)):
            batch = on_ground(WALL, ("marine",), ("zealot",), [(x, 16), (30, 30)])
            assert batch.observations[0]["verb_mask"][0, 0, Verb.MOVE_EAST] == allowed
            assert batch.observations[0]["verb_mask"][0, 0, Verb.MOVE_WEST]
        batch = on_ground(WALL, ("marine",), ("zealot",), [(13, 16), (30, 30)])
        assert (self.walk(batch, 0, 6, (Verb.MOVE_EAST, 0))[:, 0] <= 15 - 0.375).all()

    def test_flyers_fly_over_walls(self):
        batch = on_ground(WALL, ("mutalisk",), ("zealot",), [(14, 16), (30, 30)])
        track = self.walk(batch, 0, 2, (Verb.MOVE_EAST, 0))
        assert track[-1].tolist() == [pytest.approx(18), 16]

    @pytest.mark.parametrize(("name", "crosses"), [("colossus", True), ("reaper", True), ("marine", False)])
    def test_climbers_cross_cliffs(self, name, crosses):
        batch = on_ground(PLATEAU, (name,), ("zealot",), [(13, 10), (30, 30)])
        track = self.walk(batch, 0, 6, (Verb.MOVE_EAST, 0))
        assert (track[-1, 0] > 15.5) == crosses
        assert (track[:, 1] == 10).all()
        assert crosses or track[-1, 0] == pytest.approx(15 - 0.375)

    def test_others_take_the_ramp(self):
        batch = on_ground(PLATEAU, ("marine",), ("zealot",), [(10, 10), (30, 30)])
        track = self.walk(batch, 0, 40)
        assert 24 < np.interp(15, track[:, 0], track[:, 1]) < 28
        assert np.hypot(*(track[-1] - (26, 16))) < 1.1

    def test_a_blink_leads_over_a_wall_but_never_into_it(self):
        """A blink of 3.75 ends behind the wall; of 2.75, at x = 16.75, it would end in it: a cell back."""

        def blink(target):
            batch = on_ground(WALL, ("stalker",), ("zealot",), [(14, 16), (target, 16)])
            batch = BattleBatch(
                replace(batch.scenario, upgrades=("blink",)), 1, builtin=(None, None), auto_reset="off"
            )
            batch.state.units["x"][0], batch.state.units["y"][0] = (14, target), 16
            batch.refresh()
            batch.step(np.array([[(Verb.ABILITY, 1)]]), np.zeros((1, 1, 2), int))
            return unit(batch, 0, "x")

        assert blink(18.875) == pytest.approx(17.75)
        assert blink(17.875) == pytest.approx(15 - 0.375, abs=0.26)

    def test_armies_get_through_a_choke(self):
        """All of both teams reach the other's spawn or fall; nobody is ever in a wall or across one."""
        batch = BattleBatch("choke_8v8", 16, builtin=("attack-move", "attack-move"), auto_reset="off", seed=1)
        cell = batch.rules.paths.cell
        units = batch.state.units
        for _ in range(250):
            batch.step(None, None)
            alive = units["alive"]
            assert (cell[units["y"][alive].astype(int), units["x"][alive].astype(int)] >= 0).all()
        assert (batch.state.battles["outcome"] != 0).all()
        assert np.isin(batch.state.battles["outcome"], (1, 2)).mean() > 0.9
