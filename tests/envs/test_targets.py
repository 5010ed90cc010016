"""Whom units choose: scan range, threat, distance, calls for help, passive units; worked out by hand."""

import numpy as np
import pytest

from envs.unit_set import Verb
from tests.envs.battles import STAND, unit


class TestTargets:
    def test_smac_s_units_do_nothing_without_orders(self, battle, give):
        batch = battle({"marine": 1}, {"marine": 1}, at=[(30, 32), (33, 32)])
        give(batch, STAND, STAND, steps=5)
        assert unit(batch, 0, "health") == unit(batch, 1, "health") == 45

    def test_idle_units_fight_where_the_scenario_says_so(self, battle, give):
        batch = battle(
            {"marine": 1}, {"marine": 1}, at=[(30, 32), (33, 32)], changes={"idle_units_attack": True}
        )
        give(batch, STAND, STAND, steps=2)
        assert unit(batch, 0, "health") < 45
        assert unit(batch, 1, "health") < 45

    def test_the_nearest_is_chosen_within_the_scan_range(self, battle, give):
        batch = battle({"marine": 1}, {"marine": 3}, at=[(30, 32), (34, 32), (33, 32), (30, 37)])
        give(batch, (Verb.ATTACK_MOVE, 0), STAND)
        assert unit(batch, 0, "engaged") == 2

    def test_beyond_the_scan_range_nobody_is_engaged(self, battle, give):
        """Marines look 5.5 cells far, edge to edge."""
        batch = battle({"marine": 1}, {"marine": 1}, at=[(48, 32), (48, 38.3)])
        give(batch, (Verb.ATTACK_MOVE, 0), STAND)
        assert unit(batch, 0, "engaged") == -1

    def test_who_can_hit_back_comes_before_who_cannot(self, battle, give):
        batch = battle({"marine": 1}, {"marine": 1, "zealot": 1}, at=[(30, 32), (34, 32), (32, 32)])
        marine, zealot = (batch.state.units["type"][0, i] for i in (1, 2))
        batch.rules.pairs["threat"][marine, zealot] = 0
        give(batch, (Verb.ATTACK_MOVE, 0), STAND)
        assert unit(batch, 0, "engaged") == 1, "the farther marine, as the zealot counts as harmless"

    def test_a_harmless_looking_attacker_is_answered(self, battle, give):
        batch = battle({"marine": 1}, {"marine": 1, "zealot": 1}, at=[(30, 32), (34, 32), (32, 32)])
        marine, zealot = (batch.state.units["type"][0, i] for i in (1, 2))
        batch.rules.pairs["threat"][marine, zealot] = 0
        batch.state.units["struck_at"][0, 2] = 0
        give(batch, (Verb.ATTACK_MOVE, 0), STAND)
        assert unit(batch, 0, "engaged") == 2

    def test_a_greater_threat_draws_fire_from_a_target_in_range(self, battle, give):
        batch = battle({"marine": 1}, {"marine": 1, "zealot": 1}, at=[(30, 32), (60, 32), (33, 32)])
        marine, zealot = (batch.state.units["type"][0, i] for i in (1, 2))
        batch.rules.pairs["threat"][marine, zealot] = 0
        give(batch, (Verb.ATTACK_MOVE, 0), STAND)
        assert unit(batch, 0, "engaged") == 2
        batch.state.units["x"][0, 1] = 35
        batch.refresh()
        give(batch, (Verb.ATTACK_MOVE, 0), STAND, steps=3)
        assert unit(batch, 0, "engaged") == 1

    def test_an_equal_threat_does_not(self, battle, give):
        batch = battle({"marine": 1}, {"marine": 2}, at=[(30, 32), (60, 32), (34, 32)])
        give(batch, (Verb.ATTACK_MOVE, 0), STAND)
        assert unit(batch, 0, "engaged") == 2
        batch.state.units["x"][0, 1] = 32
        batch.refresh()
        give(batch, (Verb.ATTACK_MOVE, 0), STAND, steps=3)
        assert unit(batch, 0, "engaged") == 2

    def test_attack_move_lets_go_of_who_leaves_the_scan_range(self, battle, give):
        batch = battle({"marine": 1}, {"marine": 1}, at=[(30, 32), (35, 32)])
        give(batch, (Verb.ATTACK_MOVE, 0), STAND)
        assert unit(batch, 0, "engaged") == 1
        batch.state.units["x"][0, 1] = 38.5  # in sight, 7.4 cells away edge to edge
        batch.refresh()
        give(batch, (Verb.ATTACK_MOVE, 0), STAND)
        assert unit(batch, 0, "engaged") == -1

    def test_a_better_target_is_looked_for_every_fourth_loop(self, battle, give):
        """Units of a team look in turn, one every loop; a marine's attack lands a loop after it began."""
        batch = battle({"marine": 4}, {"zealot": 1}, at=[(30, 32), (30, 34), (30, 30), (30, 28), (35, 31)])
        batch.rules.sides["attack_x"][0] = 30
        batch.rules.sides["arrival"][0] = 100.0  # they stand where they are
        give(batch, (Verb.ATTACK_MOVE, 0), STAND)
        assert sorted(batch.state.units["struck_at"][0, :4] - 1) == [0, 1, 2, 3]

    def test_comrades_answer_a_call_for_help(self, battle, give):
        """The second marine is 10 cells from the attacker, beyond its scan range, but near the victim."""
        batch = battle({"marine": 2}, {"stalker": 1}, at=[(30, 32), (27, 32), (36.5, 32)])
        orders = np.array([[[Verb.HOLD, 0], [Verb.ATTACK_MOVE, 0]]])
        batch.state.units["goal_x"][0, 1] = 27
        batch.rules.sides["attack_x"][0] = 27
        for _ in range(2):
            batch.step(orders, np.array([[[Verb.ATTACK, 1]]]))
        assert unit(batch, 1, "engaged") == 2

    def test_hold_shoots_without_moving(self, battle, give):
        batch = battle({"marine": 1}, {"marine": 2}, at=[(30, 32), (35, 32), (30, 38)])
        give(batch, (Verb.HOLD, 0), STAND, steps=4)
        assert (unit(batch, 0, "x"), unit(batch, 0, "y")) == (30, 32)
        assert unit(batch, 1, "health") < 45

    def test_a_move_order_is_not_broken_off_to_fight(self, battle, give):
        batch = battle({"marine": 1}, {"marine": 1}, at=[(30, 32), (33, 32)])
        give(batch, (Verb.MOVE_WEST, 0), STAND)
        give(batch, (Verb.MOVE_WEST, 0), (Verb.ATTACK, 1), steps=2)
        assert unit(batch, 1, "health") == 45

    def test_smac_s_units_do_not_even_answer_fire(self, battle, give):
        batch = battle({"marine": 2}, {"marine": 1}, at=[(30, 32), (30, 33), (33, 32)])
        give(batch, STAND, (Verb.ATTACK, 2), steps=6)
        assert unit(batch, 0, "health") + unit(batch, 1, "health") < 90
        assert unit(batch, 2, "health") == 45

    def test_threat_comes_before_distance_and_armed_before_harmless(self, battle, give):
        """To a mutalisk: zealots are armed but cannot hit back, overlords harmless, marines a threat."""
        at = [(30, 32), (10, 10), (31.3, 32), (32, 32), (33.8, 32)]
        for gone, chosen in (((), 4), ((4,), 3), ((3, 4), 2)):
            batch = battle({"mutalisk": 1, "marine": 1}, {"overlord": 1, "zealot": 1, "marine": 1}, at=at)
            names = batch.scenario.teams[1].units
            assert names == ("overlord", "zealot", "marine")
            for k in gone:
                batch.state.units["x"][0, k] = 60
            batch.refresh()
            batch.step(np.array([[(Verb.HOLD, 0), STAND]]), np.zeros((1, 3, 2), int))
            assert unit(batch, 0, "engaged") == chosen

    def test_who_cannot_be_hit_is_passed_over(self, battle, give):
        batch = battle({"zealot": 1, "marine": 1}, {"mutalisk": 1, "zealot": 1}, at=None)
        at = np.array([(30, 32), (10, 10), (30.5, 32), (33, 32)], dtype=float)
        batch.state.units["x"], batch.state.units["y"] = at.T
        batch.refresh()
        batch.step(np.array([[(Verb.ATTACK_MOVE, 0), STAND]]), np.zeros((1, 2, 2), int))
        assert unit(batch, 0, "engaged") == 3
        targets = batch.observations[0]["target_mask"][0, 0, 0]
        assert targets.tolist() == [False, False, False, True]

    @pytest.mark.parametrize(("apart", "comes"), [(4.9, True), (5.1, False)])
    def test_a_call_for_help_is_heard_five_cells_away(self, battle, give, apart, comes):
        """The attacker is out of the comrade's scan range, in sight of its team."""
        at = [(30, 32), (30 - apart, 32), (36.5, 32)]
        batch = battle({"marine": 2}, {"stalker": 1}, at=at)
        batch.rules.sides["attack_x"][0] = 30 - apart
        orders = np.array([[(Verb.HOLD, 0), (Verb.ATTACK_MOVE, 0)]])
        for _ in range(2):
            batch.step(orders, np.array([[(Verb.ATTACK, 1)]]))
        assert (unit(batch, 1, "engaged") == 2) == comes
