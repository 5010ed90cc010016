"""Who sees whom: sight, high ground, smoke, cloaks; and what an observer is told."""

import numpy as np
import pytest

from envs.battle.batch import BattleBatch
from envs.battle.state import ATTACK_MOVE, IDLE
from envs.scenarios import Group, Scenario, Team
from envs.unit_set import FEATURE_INDEX, UNIT_FEATURES, Verb
from tests.envs.battles import STAND, unit

SIZE = 32
PLATEAU = tuple(
    "." * 14 + ("12" if 4 <= row < 8 else ".2") + "2" * 16 for row in range(SIZE)
)  # height 2 from x = 15 on, a ramp at y = 24 to 28
SMOKE = ("." * 15 + "~~" + "." * 15,) * SIZE  # at x = 15 to 17


def on_ground(terrain, first, second, at, **settings) -> BattleBatch:
    """A battle on a 32 x 32 map with terrain, everyone placed."""
    teams = (
        Team((Group(first, (6.0, 16.0)),), (26.0, 16.0)),
        Team((Group(second, (26.0, 16.0)),), (6.0, 16.0)),
    )
    scenario = Scenario(
        "test", SIZE, SIZE, (0.0, 0.0, SIZE, SIZE), teams, 1000, spawn_jitter=0.0, terrain=terrain
    )
    batch = BattleBatch(scenario, 1, **({"builtin": (None, None), "auto_reset": "off"} | settings))
    batch.state.units["x"], batch.state.units["y"] = np.array(at, dtype=float).T
    batch.refresh()
    return batch


def sees(batch, side):
    """Which units a team sees, in unit order of the battle."""
    rows = batch.observations[side]["unit_mask"][0]
    shown = np.zeros(len(rows), bool)
    shown[batch.rules.rows[side]] = rows
    return shown.tolist()


class TestSight:
    def test_sight_is_centre_to_centre(self, battle):
        """Marines see 9 cells, stalkers 10."""
        batch = battle({"marine": 1}, {"stalker": 1}, at=[(20, 32), (29.5, 32)])
        assert sees(batch, 0) == [True, False]
        assert sees(batch, 1) == [True, True]

    def test_a_team_shares_sight_and_a_unit_does_not(self, battle):
        at = [(20, 32), (36, 32), (28, 32)]
        team = battle({"marine": 2}, {"marine": 1}, at=at)
        assert team.observations[0]["unit_mask"][0].tolist() == [True, True, True]
        far = [(20, 32), (45, 32), (50, 32)]
        views = battle({"marine": 2}, {"marine": 1}, at=far, control="unit").observations[0]["unit_mask"][0]
        assert views.tolist() == [[True, False, False], [False, True, True]]

    def test_under_unit_control_only_what_the_unit_sees_can_be_its_target(self, battle):
        at = [(20, 32), (33, 32), (40, 32)]
        batch = battle({"marine": 2}, {"marine": 1}, at=at, control="unit")
        allowed = batch.observations[0]["verb_mask"][0, :, 0, Verb.ATTACK]
        assert allowed.tolist() == [False, True]
        orders = np.array([[(Verb.ATTACK, 2), STAND]])
        with pytest.raises(ValueError, match="unit 0: ATTACK is not available now"):
            batch.step(orders, np.zeros((1, 1, 2), int))

    def test_aims_of_units_out_of_sight_are_not_counted(self, battle):
        """The first marine cannot see the second, so it must not learn what that one aims at."""
        batch = battle({"marine": 2}, {"stalker": 1}, at=[(20, 32), (33, 32), (28.5, 32)], control="unit")
        orders = np.zeros((1, 2, 2), np.int64)
        orders[0, 1] = (Verb.ATTACK, 2)
        batch.step(orders, np.zeros((1, 1, 2), np.int64))
        column = FEATURE_INDEX["engaged_by"]
        units = batch.observations[0]["units"][0]
        assert batch.observations[0]["unit_mask"][0].tolist() == [[True, False, True], [False, True, True]]
        assert units[0, 2, column] == 0
        assert units[1, 2, column] == 0.25

    def test_enemies_orders_and_cooldowns_are_not_told(self, battle, give):
        batch = battle({"marine": 1}, {"marine": 1}, at=[(30, 32), (33, 32)], with_state=True)
        give(batch, (Verb.ATTACK, 1), (Verb.ATTACK, 1))
        own_only = [i for i, feature in enumerate(UNIT_FEATURES) if feature.own_only]
        rows = batch.observations[0]["units"][0]
        assert rows[0, own_only].any()
        assert not rows[1, own_only].any()
        assert batch.observations[0]["state_units"][0][1, own_only].any(), "the critic's state holds them"


class TestHighGround:
    def test_from_below_one_does_not_see_up_and_from_above_one_sees_down(self):
        batch = on_ground(PLATEAU, ("marine",), ("marine",), [(12, 10), (18, 10)])
        assert sees(batch, 0) == [True, False]
        assert sees(batch, 1) == [True, True]
        assert not batch.observations[0]["verb_mask"][0, 0, Verb.ATTACK]
        assert batch.observations[1]["verb_mask"][0, 0, Verb.ATTACK]

    def test_from_the_ramp_one_sees_up(self):
        batch = on_ground(PLATEAU, ("marine",), ("marine",), [(14.5, 26), (18, 26)])
        assert sees(batch, 0) == [True, True]

    def test_flyers_see_up_and_are_seen(self):
        batch = on_ground(PLATEAU, ("marine", "medivac"), ("marine",), [(12, 10), (12, 12), (18, 10)])
        assert sees(batch, 0) == [True, True, True]
        batch = on_ground(PLATEAU, ("marine",), ("marine", "medivac"), [(12, 10), (31, 10), (18, 10)])
        assert sees(batch, 0) == [True, False, True]

    def test_who_is_shot_at_from_above_cannot_shoot_back(self):
        batch = on_ground(PLATEAU, ("marine",), ("marine",), [(12, 10), (16, 10)])
        orders = np.array([[(Verb.ATTACK_MOVE, 0)]])
        batch.rules.sides["attack_x"][0] = 12
        batch.rules.sides["attack_y"][0] = 10
        for _ in range(4):
            batch.step(orders, np.array([[(Verb.ATTACK, 1)]]))
        assert unit(batch, 0, "health") < 45
        assert unit(batch, 1, "health") == 45


class TestSmoke:
    def test_it_hides_what_is_behind_it_and_in_it_from_outside(self):
        batch = on_ground(SMOKE, ("marine",), ("marine",), [(13, 10), (19, 10)])
        assert sees(batch, 0) == [True, False]
        assert sees(batch, 1) == [False, True]
        batch = on_ground(SMOKE, ("marine",), ("marine",), [(13, 10), (16, 10)])
        assert sees(batch, 0) == [True, False]
        assert sees(batch, 1) == [True, True]

    def test_flyers_see_through_it(self):
        batch = on_ground(SMOKE, ("marine", "medivac"), ("marine",), [(13, 10), (13, 12), (19, 10)])
        assert sees(batch, 0) == [True, True, True]


class TestCloak:
    def test_a_cloaked_enemy_is_neither_shown_nor_a_target(self, battle, give):
        at = [(30, 32), (5, 5), (33, 32), (34, 32)]
        batch = battle({"marine": 1, "raven": 1}, {"dark_templar": 1, "zealot": 1}, at=at)
        assert sees(batch, 0) == [True, True, False, True]
        targets = batch.observations[0]["target_mask"][0, 0, 0]
        assert targets.tolist() == [False, False, False, True]
        assert sees(batch, 1) == [True, False, True, True]
        give(batch, (Verb.HOLD, 0), STAND, steps=3)
        assert unit(batch, 0, "engaged") == 3, "not the nearer one"

    def test_under_detection_it_is_both(self, battle):
        """Ravens detect within 11 cells, centre to centre."""
        for away, found in ((10.9, True), (11.1, False)):
            at = [(30, 32), (33 - away, 32), (33, 32), (60, 60)]
            batch = battle({"marine": 1, "raven": 1}, {"dark_templar": 1, "zealot": 1}, at=at)
            assert sees(batch, 0) == [True, True, found, False]
            assert batch.observations[0]["verb_mask"][0, 0, Verb.ATTACK] == found
            batch.step(np.array([[(Verb.HOLD, 0), STAND]]), np.zeros((1, 2, 2), int))
            assert unit(batch, 0, "engaged") == (2 if found else -1)

    def test_out_of_detection_it_is_lost_again(self, battle):
        at = [(30, 32), (28, 32), (33, 32), (60, 60)]
        batch = battle({"marine": 1, "raven": 1}, {"dark_templar": 1, "zealot": 1}, at=at)
        batch.step(np.array([[(Verb.ATTACK, 2), STAND]]), np.zeros((1, 2, 2), int))
        assert unit(batch, 0, "engaged") == 2
        batch.state.units["x"][0, 1] = 5
        batch.refresh()
        batch.step(np.array([[STAND, STAND]]), np.zeros((1, 2, 2), int))
        assert unit(batch, 0, "engaged") == -1
        assert unit(batch, 0, "order") == IDLE

    def test_comrades_see_it_under_unit_control(self, battle):
        at = [(30, 32), (32, 32), (60, 60)]
        batch = battle({"dark_templar": 2}, {"zealot": 1}, at=at, control="unit")
        assert batch.observations[0]["unit_mask"][0].tolist() == [[True, True, False], [True, True, False]]


class TestGuards:
    """A second team without an attack point stands on guard."""

    def guard(self, distance, guards=("roach",)):
        teams = (
            Team((Group(("siege_tank_sieged", "marine"), (16.0, 32.0)),), (48.0, 32.0)),
            Team((Group(guards, (48.0, 32.0)),), None),
        )
        scenario = Scenario("test", 64, 64, (0.0, 0.0, 64.0, 64.0), teams, 1000, spawn_jitter=0.0)
        batch = BattleBatch(scenario, 1, builtin=(None, "attack-move"), auto_reset="off")
        at = [(30, 32), (5, 5), *((30 + distance, 32 + 3 * k) for k in range(len(guards)))]
        batch.state.units["x"], batch.state.units["y"] = np.array(at, dtype=float).T
        batch.refresh()
        return batch

    def test_they_stay_where_nobody_comes_near(self):
        batch = self.guard(10.5)
        for _ in range(5):
            batch.step(np.array([[STAND, STAND]]))
        assert unit(batch, 2, "x") == 40.5
        assert unit(batch, 2, "order") == IDLE

    def test_they_fight_who_comes_into_their_scan_range(self):
        """Roaches look 5 cells far, edge to edge: 6.375 between centres."""
        for distance, fights in ((6.3, True), (6.5, False)):
            batch = self.guard(distance)
            batch.step(np.array([[STAND, STAND]]))
            assert (unit(batch, 2, "engaged") == 0) == fights

    def test_hit_from_out_of_sight_they_go_and_look(self):
        """A roach sees 9 cells, the tank 11: 40 + 30 - 1 of 145 health, and the roach comes."""
        batch = self.guard(10.5)
        batch.step(np.array([[(Verb.ATTACK, 2), STAND]]))
        assert unit(batch, 2, "health") == pytest.approx(145 - 69, abs=0.2)
        assert unit(batch, 2, "order") == ATTACK_MOVE
        batch.step(np.array([[STAND, STAND]]))
        assert unit(batch, 2, "x") < 40

    def test_comrades_within_five_cells_come_along(self):
        batch = self.guard(10.5, ("roach", "roach", "roach"))  # 3 and 6 cells from the one that is hit
        batch.step(np.array([[(Verb.ATTACK, 2), STAND]]))
        assert batch.state.units["order"][0, 2:].tolist() == [ATTACK_MOVE, ATTACK_MOVE, IDLE]
