"""The engine's rules, each against numbers worked out by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from envs.battle.batch import BattleBatch, Outcome
from envs.battle.engine import ATTACK, IDLE
from envs.unit_set import LOOPS_PER_STEP, Verb
from envs.units import unit_table

STAND = (Verb.NO_OP, 0)


def unit(batch, i, field, b=0):
    return batch.state.units[field][b, i]


def gap(batch, i, j, b=0):
    """Edge-to-edge distance."""
    units = batch.state.units[b]
    centre = np.hypot(units["x"][i] - units["x"][j], units["y"][i] - units["y"][j])
    radius = [unit_table()[batch.scenario.unit_types[units["type"][k]].name].radius for k in (i, j)]
    return centre - sum(radius)


class TestMovement:
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

    def test_units_do_not_overlap_and_walk_around_each_other(self, battle, give):
        batch = battle({"marine": 2}, {"zealot": 1}, at=[(30, 32), (34, 32), (60, 60)])
        batch.state.units["order"][0, 1] = 0
        orders = np.array([[[Verb.ATTACK_MOVE, 0], [Verb.HOLD, 0]]])
        for _ in range(10):
            batch.step(orders, np.zeros((1, 1, 2), np.int64))
            assert gap(batch, 0, 1) > -0.15
        assert unit(batch, 0, "x") > 36, "the walker got past"
        assert unit(batch, 1, "x") == pytest.approx(34), "who stands is not pushed"


class TestDamage:
    def fight(self, battle, give, attacker, target, distance):
        """Hits of one volley each until the target is dead: (hit points, shields) after each volley."""
        batch = battle({attacker: 1}, {target: 1}, at=[(30, 32), (30 + distance, 32)])
        seen = [(unit(batch, 1, "health"), unit(batch, 1, "shield"))]
        while unit(batch, 1, "alive"):
            give(batch, (Verb.ATTACK, 1), STAND)
            now = (unit(batch, 1, "health"), unit(batch, 1, "shield"))
            if now != seen[-1]:
                seen.append(now)
        return seen[1:]

    def test_marine_on_marine(self, battle, give):
        after = self.fight(battle, give, "marine", "marine", 4)
        assert [health for health, _ in after] == [39, 33, 27, 21, 15, 9, 3, 0]

    def test_shields_take_no_armour_and_the_remainder_does(self, battle, give):
        """50 shields: 8 hits of 6, the ninth takes 2 shields and 4 - 1 health, then 97 / (6 - 1): 20 hits."""
        after = self.fight(battle, give, "marine", "zealot", 4)
        assert after[7] == (100, 2)
        assert after[8] == (97, 0)
        assert after[9] == (92, 0)
        assert len(after) == 29

    def test_bonus_damage_and_armour(self, battle, give):
        """Stalker on stalker: 13 + 5 a hit; 80 shields go in 4.44 hits, then 17 a hit on 80 health."""
        after = self.fight(battle, give, "stalker", "stalker", 4)
        assert [shield for _, shield in after[:5]] == [62, 44, 26, 8, 0]
        assert [health for health, _ in after[4:]] == [71, 54, 37, 20, 3, 0]

    def test_armour_counts_against_each_hit_of_a_volley(self, battle, give):
        """Zealots hit twice for 8: on a zealot's bare health, armour 1, that is 14 a volley."""
        batch = battle({"zealot": 1}, {"zealot": 1}, at=[(30, 32), (31, 32)])
        batch.state.units["shield"][0, 1] = 0
        batch.state.units["hit_at"][0, 1] = 0  # no regeneration meanwhile
        give(batch, (Verb.ATTACK, 1), STAND)
        assert unit(batch, 1, "health") == 86

    def test_a_hit_takes_at_least_half_a_point(self, battle, give):
        batch = battle({"marine": 1}, {"marine": 1}, at=[(30, 32), (33, 32)])
        batch.rules.types["armor"] = 50
        give(batch, (Verb.ATTACK, 1), STAND)
        assert unit(batch, 1, "health") == 44.5


class TestWeapons:
    def test_range_is_edge_to_edge(self, battle, give):
        """Marine range 5, radii 0.375: fires from 5.75 between centres, from 5.8 it steps closer first."""
        for distance, walks in ((5.75, False), (5.8, True)):
            batch = battle({"marine": 1}, {"marine": 1}, at=[(30, 32), (30 + distance, 32)])
            give(batch, (Verb.ATTACK, 1), STAND)
            assert (unit(batch, 0, "x") > 30) == walks
            assert gap(batch, 0, 1) == pytest.approx(5.0, abs=1e-6)

    def test_the_mean_interval_is_the_period_and_half_a_loop_of_jitter(self, battle, give):
        """13.7734 loops plus a uniform draw of -1, 0, 1 or 2; attacks start on whole loops."""
        batch = battle({"marine": 1}, {"marine": 1}, at=[(30, 32), (33, 32)], battles=64, seed=3)
        batch.state.units["health"][:, 1] = 1e9
        previous, intervals = None, []
        for _ in range(400):
            give(batch, (Verb.ATTACK, 1), STAND)
            struck = batch.state.units["struck_at"][:, 0].copy()
            if previous is not None:
                fired = (struck != previous) & (previous >= 0)
                intervals += (struck - previous)[fired].tolist()
            previous = struck
        intervals = np.array(intervals)
        error = intervals.std() / np.sqrt(len(intervals))
        assert intervals.mean() == pytest.approx(13.7734 + 0.5, abs=4 * error)
        assert set(intervals) == {12, 13, 14, 15, 16}

    def test_damage_falls_at_the_damage_point(self, battle, give):
        """Stalker: 2.667 loops, so the attack that starts in loop 0 lands in loop 3."""
        batch = battle({"stalker": 1}, {"marine": 1}, at=[(30, 32), (34, 32)])
        give(batch, (Verb.ATTACK, 1), STAND)
        assert unit(batch, 0, "struck_at") == 3
        zealot = battle({"zealot": 1}, {"marine": 1}, at=[(30, 32), (30.9, 32)])
        give(zealot, (Verb.ATTACK, 1), STAND)
        assert unit(zealot, 0, "struck_at") == 0

    def test_another_order_before_the_damage_point_loses_the_attack(self, battle, give):
        batch = battle({"stalker": 1}, {"marine": 1}, at=[(30, 32), (34, 32)])
        batch.state.units["cooldown"][0, 0] = 6.5  # ready in loop 6, would land in loop 9
        give(batch, (Verb.ATTACK, 1), STAND)
        assert unit(batch, 0, "windup") > 0
        give(batch, (Verb.MOVE_WEST, 0), STAND)
        assert unit(batch, 1, "health") == 45
        assert unit(batch, 0, "cooldown") == 0, "a lost attack costs no cooldown"

    @pytest.mark.parametrize("verb", [Verb.HOLD, Verb.ATTACK_MOVE, Verb.NO_OP])
    def test_orders_that_keep_the_target_keep_the_attack(self, battle, give, verb):
        batch = battle({"stalker": 1}, {"marine": 1}, at=[(30, 32), (34, 32)])
        batch.state.units["cooldown"][0, 0] = 6.5
        give(batch, (Verb.ATTACK, 1), STAND)
        give(batch, (verb, 0), STAND)
        assert unit(batch, 0, "struck_at") == 9
        assert unit(batch, 1, "health") == 32

    @pytest.mark.parametrize(("steps_back", "lands"), [(0.9, True), (1.1, False)])
    def test_a_begun_attack_reaches_one_cell_beyond_the_range(self, battle, give, steps_back, lands):
        batch = battle({"stalker": 1}, {"marine": 1}, at=[(30, 32), (37, 32)])  # range 6, radii 1.0 together
        batch.state.units["cooldown"][0, 0] = 6.5
        give(batch, (Verb.ATTACK, 1), STAND)
        assert unit(batch, 0, "windup") > 0
        batch.state.units["x"][0, 1] += steps_back
        batch.refresh()
        give(batch, STAND, STAND)
        assert (unit(batch, 0, "struck_at") == 9) == lands
        assert (unit(batch, 1, "health") < 45) == lands

    def test_an_attack_order_chases_until_the_target_is_out_of_sight(self, battle, give):
        batch = battle({"zealot": 1}, {"marine": 1}, at=[(30, 32), (36, 32)])
        give(batch, (Verb.ATTACK, 1), STAND)
        assert unit(batch, 0, "order") == ATTACK
        batch.state.units["x"][0, 1] = 60
        batch.refresh()
        give(batch, STAND, STAND)
        assert unit(batch, 0, "order") == IDLE


class TestRegeneration:
    def test_shields_wait_ten_normal_seconds_then_give_two_a_second(self, battle, give):
        batch = battle({"stalker": 1}, {"marine": 1}, at=[(10, 10), (60, 60)])
        batch.state.units["shield"][0, 0] = 10
        batch.state.units["hit_at"][0, 0] = 0
        give(batch, STAND, steps=20)  # loops 0 to 159
        assert unit(batch, 0, "shield") == 10
        give(batch, STAND, steps=2)  # 16 loops = 1 Normal second
        assert unit(batch, 0, "shield") == pytest.approx(12)

    def test_zerg_heal_themselves_and_others_do_not(self, battle, give):
        batch = battle({"zergling": 1}, {"marine": 1}, at=[(10, 10), (60, 60)])
        batch.state.units["health"][0] = 20
        give(batch, STAND, steps=20)
        assert unit(batch, 0, "health") == pytest.approx(20 + 10 * 0.2734)
        assert unit(batch, 1, "health") == 20


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


class TestSight:
    def test_sight_is_centre_to_centre(self, battle):
        """Marines see 9 cells, stalkers 10."""
        batch = battle({"marine": 1}, {"stalker": 1}, at=[(20, 32), (29.5, 32)])
        assert not batch.observations[0]["unit_mask"][0, 1]
        assert batch.observations[1]["unit_mask"][0, 1]

    def test_a_team_shares_sight_and_a_unit_does_not(self, battle):
        at = [(20, 32), (36, 32), (28, 32)]
        team = battle({"marine": 2}, {"marine": 1}, at=at)
        assert team.observations[0]["unit_mask"][0].tolist() == [True, True, True]
        far = [(20, 32), (45, 32), (50, 32)]
        unit_view = battle({"marine": 2}, {"marine": 1}, at=far, control="unit").observations[0]["unit_mask"][
            0
        ]
        assert unit_view.tolist() == [[True, False, False], [False, True, True]]

    def test_aims_of_units_out_of_sight_are_not_counted(self, battle, give):
        """The first marine cannot see the second, so it must not learn what that one aims at."""
        from envs.unit_set import FEATURE_INDEX

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
        from envs.unit_set import UNIT_FEATURES

        batch = battle({"marine": 1}, {"marine": 1}, at=[(30, 32), (33, 32)], with_state=True)
        give(batch, (Verb.ATTACK, 1), (Verb.ATTACK, 1))
        own_only = [i for i, feature in enumerate(UNIT_FEATURES) if feature.own_only]
        rows = batch.observations[0]["units"][0]
        assert rows[0, own_only].any()
        assert not rows[1, own_only].any()
        assert batch.observations[0]["state_units"][0][1, own_only].any(), "the critic's state holds them"


class TestFairnessAndChance:
    def test_update_order_makes_a_mirrored_duel_a_coin_toss(self, battle):
        batch = battle(
            {"marine": 1},
            {"marine": 1},
            at=[(30, 32), (34, 32)],
            battles=2000,
            builtin=("attack-move", "attack-move"),
        )
        while (batch.state.battles["outcome"] == Outcome.RUNNING).any():
            batch.step(None)
        wins = [int((batch.state.battles["outcome"] == o).sum()) for o in (Outcome.WIN_0, Outcome.WIN_1)]
        assert sum(wins) == 2000
        assert binomtest(wins[0], 2000).pvalue > 1e-4

    @pytest.mark.parametrize("name", ["3m", "2s3z"])
    def test_mirrored_teams_win_half(self, name):
        batch = BattleBatch(name, 512, builtin=("attack-move", "attack-move"), seed=7)
        counts = np.zeros(5, int)
        for _ in range(250):
            counts += np.bincount(batch.step(None).outcome, minlength=5)
        assert binomtest(int(counts[1]), int(counts[1] + counts[2])).pvalue > 1e-4
        assert counts[1] + counts[2] > 1000

    def test_spawns_differ_from_battle_to_battle_and_stay_near_the_spawn_point(self):
        batch = BattleBatch("8m", 64, seed=1)
        x = batch.state.units["x"]
        assert len(np.unique(x[:, 0])) == 64
        assert np.abs(x[:, :8].mean(1) - 9).max() < 2
        assert np.abs(x[:, 8:].mean(1) - 23).max() < 2

    def test_random_streams_are_uniform(self):
        """Angles of the first formation are uniform over the circle."""
        batch = BattleBatch("3m", 4000, seed=2)
        units = batch.state.units
        centre_x, centre_y = units["x"][:, :3].mean(1), units["y"][:, :3].mean(1)
        angle = np.arctan2(units["y"][:, 0] - centre_y, units["x"][:, 0] - centre_x)
        counts, _ = np.histogram(angle, bins=12, range=(-np.pi, np.pi))
        assert chisquare(counts).pvalue > 1e-4


def test_a_step_is_eight_loops(battle, give):
    batch = battle({"marine": 1}, {"marine": 1}, at=[(10, 10), (60, 60)])
    give(batch, STAND, steps=3)
    assert batch.state.battles["loop"][0] == 3 * LOOPS_PER_STEP
