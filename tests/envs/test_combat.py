"""Weapons: when damage falls, how much, on whom. Every number is worked out by hand from the unit table."""

import numpy as np
import pytest

from envs.battle.batch import Outcome
from envs.unit_set import Verb
from tests.envs.battles import STAND, gap, unit, vitality


def begun(battle, give, attacker, target, distance, loop=6):
    """A battle in which the attack of unit 0 began in loop ``loop`` of the first step, at ``distance``."""
    batch = battle({attacker: 1}, {target: 1}, at=[(30, 32), (30 + distance, 32)])
    batch.state.units["cooldown"][0, 0] = loop + 0.5
    give(batch, (Verb.ATTACK, 1), STAND)
    return batch


class TestDamage:
    def fight(self, battle, give, attacker, target, distance):
        """(Health, shield) of the target after each volley, until it is dead."""
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

    def test_a_large_hit_goes_on_from_shield_to_health_with_its_bonus(self, battle, give):
        """Immortal on stalker: 20 + 30. Shields 80, 30, 0; the other 20 of the second less armour: 61."""
        after = self.fight(battle, give, "immortal", "stalker", 4)
        assert after == [(80, 30), (61, 0), (12, 0), (0, 0)]

    @pytest.mark.parametrize(
        ("attacker", "target", "shield", "loss"),
        [
            ("zealot", "zealot", 0, 14),  # 2 x (8 - 1)
            ("zealot", "zealot", 10, 15),  # 8 of the shield; 2 of it, and 6 - 1
            ("reaper", "marauder", 0, 6),  # 2 x (4 - 1)
            ("thor", "marauder", 0, 58),  # 2 x (30 - 1)
            ("mothership", "marine", 0, 36),  # 6 x 6
        ],
    )
    def test_armour_counts_against_each_hit_of_a_volley(self, battle, give, attacker, target, shield, loss):
        batch = battle({attacker: 1}, {target: 1}, at=[(30, 32), (31.3, 32)])
        batch.state.units["shield"][0, 1] = shield
        batch.state.units["hit_at"][0, 1] = 0  # no regeneration meanwhile
        before = sum(vitality(batch)[1:])
        while sum(vitality(batch)[1:]) == before:
            give(batch, (Verb.ATTACK, 1), STAND)
        assert sum(vitality(batch)[1:]) == before - loss

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

    @pytest.mark.parametrize(
        ("name", "period"), [("marine", 13.7734), ("zealot", 19.1992), ("stalker", 29.9219)]
    )
    def test_the_mean_interval_is_the_period_and_half_a_loop_of_jitter(self, battle, give, name, period):
        """The period plus a uniform draw of -1, 0, 1 or 2; attacks start on whole loops."""
        batch = battle({name: 1}, {"marine": 1}, at=[(30, 32), (30.9, 32)], battles=64, seed=3)
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
        assert intervals.mean() == pytest.approx(period + 0.5, abs=4 * error)
        assert set(intervals) == set(range(int(period) - 1, int(period) + 4))

    @pytest.mark.parametrize(
        ("name", "distance", "loop"),
        [("stalker", 4, 3), ("marine", 4, 1), ("zealot", 0.9, 0), ("thor", 4, 14)],
    )
    def test_damage_falls_at_the_damage_point(self, battle, give, name, distance, loop):
        """2.672, 0.8, 0 and 13.296 loops after the attack began in loop 0."""
        batch = battle({name: 1}, {"marine": 1}, at=[(30, 32), (30 + distance, 32)])
        give(batch, (Verb.ATTACK, 1), STAND, steps=2)
        struck = unit(batch, 0, "struck_at")
        assert struck == loop or struck >= loop + 12  # the next attack

    def test_another_order_before_the_damage_point_loses_the_attack(self, battle, give):
        batch = begun(battle, give, "stalker", "marine", 4)
        assert unit(batch, 0, "windup") > 0
        give(batch, (Verb.MOVE_WEST, 0), STAND)
        assert unit(batch, 1, "health") == 45
        assert unit(batch, 0, "cooldown") == 0, "a lost attack costs no cooldown"

    @pytest.mark.parametrize("verb", [Verb.HOLD, Verb.ATTACK_MOVE, Verb.NO_OP])
    def test_orders_that_keep_the_target_keep_the_attack(self, battle, give, verb):
        """Began in loop 6, shot in loop 9; the missile needs 3 / 1.171875 = 2.56 loops: loop 12."""
        batch = begun(battle, give, "stalker", "marine", 4)
        give(batch, (verb, 0), STAND)
        assert unit(batch, 0, "struck_at") == 9
        assert unit(batch, 1, "health") == 32
        assert unit(batch, 1, "hit_at") == 12

    @pytest.mark.parametrize(
        ("name", "distance", "strike", "away", "lands"),
        [
            ("stalker", 7, 9, 0.9, True),  # range 6, radii 1; slop 1
            ("stalker", 7, 9, 1.1, False),
            ("colossus", 8.375, 8, 0.0, True),  # range 7, radii 1.375; slop 0
            ("colossus", 8.375, 8, 0.1, False),
            ("void_ray", 7.375, 9, 1.9, True),  # range 6, radii 1.375; slop 2
            ("void_ray", 7.375, 9, 2.1, False),
            ("ultralisk", 2.25, 12, 1.2, True),  # range 1, radii 1.25; slop 1.25
            ("ultralisk", 2.25, 12, 1.3, False),
        ],
    )
    def test_a_begun_attack_reaches_beyond_the_range_by_its_slop(
        self, battle, give, name, distance, strike, away, lands
    ):
        """Begun in loop 6; damage points of 2.672, 1.3312, 2.672 and 5.3312 loops."""
        batch = begun(battle, give, name, "marine", distance)
        assert unit(batch, 0, "windup") > 0
        batch.state.units["x"][0, 1] += away
        batch.refresh()
        give(batch, STAND, STAND)
        assert (unit(batch, 0, "struck_at") == strike) == lands

    def test_a_sieged_tank_cannot_hit_what_is_nearer_than_two(self, battle, give):
        """Radii 0.875 and 0.375: centres 3.2 apart are 1.95 apart edge to edge, 3.3 are 2.05."""
        for distance, shoots in ((3.2, False), (3.3, True)):
            batch = battle({"siege_tank_sieged": 1}, {"marine": 1}, at=[(30, 32), (30 + distance, 32)])
            give(batch, (Verb.ATTACK, 1), STAND, steps=2)
            assert (unit(batch, 1, "health") == 5) == shoots  # 40 against light
            assert unit(batch, 0, "x") == 30

    def test_on_hold_a_sieged_tank_passes_over_who_is_too_near(self, battle, give):
        batch = battle({"siege_tank_sieged": 1}, {"marine": 2}, at=[(30, 32), (32, 32), (40, 32)])
        give(batch, (Verb.HOLD, 0), STAND)
        assert unit(batch, 0, "engaged") == 2

    def test_an_attack_order_chases_until_the_target_is_out_of_sight(self, battle, give):
        batch = battle({"zealot": 1}, {"marine": 1}, at=[(30, 32), (36, 32)])
        give(batch, (Verb.ATTACK, 1), STAND)
        assert unit(batch, 0, "x") == pytest.approx(31.125)
        batch.state.units["x"][0, 1] = 60
        batch.refresh()
        give(batch, STAND, STAND, steps=2)
        assert unit(batch, 0, "x") == pytest.approx(31.125)


class TestMissiles:
    @pytest.mark.parametrize(
        ("name", "target", "distance", "strike", "hit"),
        [
            ("stalker", "marine", 5.0, 3, 7),  # 4 cells between edges / 1.171875 = 3.41
            ("stalker", "marine", 6.0, 3, 8),  # 5 / 1.171875 = 4.27
            ("stalker", "marine", 7.0, 3, 9),  # 6 / 1.171875 = 5.12
            ("stalker", "marine", 1.0, 3, 3),  # touching: at once
            ("marauder", "zealot", 6.0625, 0, 4),  # 5 / 1.25
            ("hydralisk", "marine", 6.0, 3, 5),  # 2.24 loops; 5 / 2.5
            ("roach", "marine", 4.875, 3, 7),  # 4 / 1.171875
        ],
    )
    def test_a_missile_takes_its_time(self, battle, give, name, target, distance, strike, hit):
        batch = battle({name: 1}, {target: 1}, at=[(30, 32), (30 + distance, 32)])
        give(batch, (Verb.ATTACK, 1), STAND)
        assert unit(batch, 0, "struck_at") == strike
        assert (unit(batch, 0, "missile_target") == 1) == (hit > 7)
        give(batch, (Verb.MOVE_WEST, 0), STAND)
        assert unit(batch, 1, "hit_at") == hit

    def test_a_missile_in_flight_is_not_called_back_by_other_orders(self, battle, give):
        batch = battle({"stalker": 1}, {"marine": 1}, at=[(30, 32), (37, 32)])
        give(batch, (Verb.ATTACK, 1), STAND)
        assert unit(batch, 1, "health") == 45
        give(batch, (Verb.MOVE_WEST, 0), STAND)
        assert unit(batch, 1, "health") == 32

    def test_a_missile_lands_though_its_shooter_is_dead(self, battle, give):
        batch = battle({"stalker": 2}, {"marine": 1}, at=[(30, 32), (10, 10), (37, 32)])
        batch.step(np.array([[[Verb.ATTACK, 2], STAND]]), np.zeros((1, 1, 2), int))
        batch.state.units["alive"][0, 0] = False
        batch.state.units["health"][0, 0] = 0
        batch.refresh()
        give(batch, STAND, STAND)
        assert (unit(batch, 2, "hit_at"), unit(batch, 2, "health")) == (9, 32)
        assert unit(batch, 2, "alive")

    def test_a_missile_follows_its_target(self, battle, give):
        """It lands when it was due, wherever its target has gone meanwhile."""
        batch = battle({"stalker": 1}, {"marine": 1}, at=[(30, 32), (37, 32)])
        give(batch, (Verb.ATTACK, 1), STAND)
        batch.state.units["x"][0, 1] = 45
        batch.refresh()
        give(batch, STAND, STAND)
        assert (unit(batch, 1, "hit_at"), unit(batch, 1, "health")) == (9, 32)

    def test_overkill_is_wasted(self, battle, give):
        """Both stalkers have shot when the first missile kills: the other marine loses nothing."""
        batch = battle({"stalker": 2}, {"marine": 2}, at=[(30, 33), (30, 31), (36, 32), (36, 33)])
        batch.state.units["health"][0, 2] = 13
        give(batch, (Verb.ATTACK, 2), STAND, steps=2)
        assert not unit(batch, 2, "alive")
        assert unit(batch, 3, "health") == 45
        assert [unit(batch, i, "struck_at") for i in (0, 1)] == [3, 3]
        assert (batch.state.units["missile_target"][0] == -1).all()
        assert (batch.state.units["cooldown"][0, :2] > 10).all()

    def test_instant_weapons_waste_nothing(self, battle, give):
        """Two marines aim at one with 6 health: the first kills, the second keeps its shot."""
        batch = battle({"marine": 2}, {"marine": 2}, at=[(30, 33), (30, 31), (34, 32), (34, 33)])
        batch.state.units["health"][0, 2] = 6
        give(batch, (Verb.ATTACK_MOVE, 0), STAND)
        give(batch, (Verb.ATTACK_MOVE, 0), STAND)
        assert not unit(batch, 2, "alive")
        assert unit(batch, 3, "health") == 39


class TestBackswing:
    def test_a_unit_stays_put_for_its_backswing(self, battle, give):
        """A marine shoots in loop 1 and stays for 12 loops: of loops 8 to 15 it chases in 13, 14 and 15."""
        batch = battle({"marine": 1}, {"marine": 1}, at=[(30, 32), (34, 32)])
        give(batch, (Verb.ATTACK, 1), STAND)
        assert unit(batch, 0, "struck_at") == 1
        batch.state.units["x"][0, 1] = 38
        batch.refresh()
        give(batch, STAND, STAND)
        assert unit(batch, 0, "x") == pytest.approx(30 + 3 * 0.140625)

    def test_it_does_not_march_on_during_it_either(self, battle, give):
        batch = battle({"marine": 1}, {"marine": 2}, at=[(30, 32), (34, 32), (60, 60)])
        batch.state.units["health"][0, 1] = 6
        give(batch, (Verb.ATTACK_MOVE, 0), STAND)
        assert not unit(batch, 1, "alive")
        assert unit(batch, 0, "x") == 30
        give(batch, STAND, STAND)
        assert unit(batch, 0, "x") == pytest.approx(30 + 3 * 0.140625)

    def test_a_move_order_cuts_it_short_at_no_cost(self, battle, give):
        moved, stood = (battle({"marine": 1}, {"marine": 1}, at=[(30, 32), (34, 32)]) for _ in range(2))
        for batch, verb in ((moved, Verb.MOVE_WEST), (stood, Verb.HOLD)):
            give(batch, (Verb.ATTACK, 1), STAND)
            assert unit(batch, 0, "struck_at") == 1
            batch.state.units["x"][0, 1] = 60
            batch.refresh()
            give(batch, (verb, 0), STAND)
        assert unit(moved, 0, "x") == 30 - 1.125
        assert unit(stood, 0, "x") == 30
        assert unit(moved, 0, "cooldown") == unit(stood, 0, "cooldown")

    def test_an_attack_on_another_unit_cuts_it_short(self, battle, give):
        batch = battle({"marine": 1}, {"marine": 2}, at=[(30, 32), (34, 32), (38, 32)])
        give(batch, (Verb.ATTACK, 1), STAND)
        give(batch, (Verb.ATTACK, 2), STAND)
        assert unit(batch, 0, "x") == pytest.approx(31.125)


class TestEnds:
    def test_banelings_that_fall_together_draw(self, battle, give):
        batch = battle({"baneling": 1}, {"baneling": 1}, at=[(30, 32), (31, 32)])
        batch.state.units["health"][0, 1] = 10
        give(batch, (Verb.ATTACK, 1), STAND)
        assert not batch.state.units["alive"].any()
        assert batch.state.battles["outcome"][0] == Outcome.DRAW

    def test_a_side_with_unarmed_units_only_has_lost(self, battle, give):
        batch = battle({"marine": 1, "medivac": 1}, {"marine": 1}, at=[(30, 32), (20, 32), (33, 32)])
        batch.state.units["health"][0, 0] = 6
        give(batch, STAND, (Verb.ATTACK, 1))
        assert unit(batch, 1, "alive")
        assert batch.state.battles["outcome"][0] == Outcome.WIN_1
        assert unit(batch, 0, "hit_at") == 1, "over at once"
        assert batch.state.battles["loop"][0] == 2
