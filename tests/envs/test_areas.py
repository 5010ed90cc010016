"""Weapons that hit more than their target: who is hit, and for how much, by geometry worked out by hand.

Attackers stand at (30, 32) and shoot east. Victims are marines (radius 0.375, 45 health, light, no armour)
unless said otherwise, and stand where they are put.
"""

import numpy as np
import pytest

from envs.unit_set import Verb
from tests.envs.battles import STAND, unit, vitality


@pytest.fixture
def losses(battle):
    """``losses(attacker, enemies, own=[], victim="marine", steps=1)``: what the attack of one unit on the
    first of ``enemies`` (places) takes in so many steps from all of them, then from marines at ``own``."""

    def run(attacker, enemies, own=(), victim="marine", steps=1):
        mine = {attacker: 1} | ({"marine": len(own)} if own else {})
        batch = battle(mine, {victim: len(enemies)}, at=[(30, 32), *own, *enemies])
        orders = np.zeros((1, 1 + len(own), 2), int)
        orders[0, 0] = (Verb.ATTACK, 1 + len(own))
        before = vitality(batch)
        for _ in range(steps):
            batch.step(orders, np.zeros((1, len(enemies), 2), int))
            orders[:] = 0
        lost = [a - b for a, b in zip(before, vitality(batch), strict=True)]
        return [*lost[1 + len(own) :], *lost[1 : 1 + len(own)]]

    return run


class TestBaneling:
    """16 + 19 against light, within 2.2 cells to the victim's edge."""

    @pytest.mark.parametrize(
        ("victim", "radius", "damage"), [("marine", 0.375, 35), ("zealot", 0.5, 35), ("marauder", 0.5625, 15)]
    )
    def test_the_burst_reaches_to_the_edge_of_the_victim(self, losses, victim, radius, damage):
        inside, outside = 2.2 + radius - 0.01, 2.2 + radius + 0.01
        enemies = [(31, 32), (30, 32 + inside), (30, 32 - outside)]
        assert losses("baneling", enemies, victim=victim) == [damage, damage, 0]

    def test_it_spares_its_own_side_and_itself_is_gone(self, battle, give):
        batch = battle(
            {"baneling": 2, "marine": 1}, {"marine": 1}, at=[(30, 32), (30, 33), (29, 32), (31, 32)]
        )
        batch.step(np.array([[[Verb.ATTACK, 3], STAND, STAND]]), np.zeros((1, 1, 2), int))
        assert batch.state.units["alive"][0].tolist() == [False, True, True, True]
        assert vitality(batch) == [0, 30, 45, 10]

    def test_flyers_are_out_of_its_reach(self, battle, give):
        at = [(30, 32), (10, 10), (31, 32), (30, 33)]
        batch = battle({"baneling": 1, "marine": 1}, {"marine": 1, "mutalisk": 1}, at=at)
        batch.step(np.array([[[Verb.ATTACK, 2], STAND]]), np.zeros((1, 2, 2), int))
        assert vitality(batch) == [0, 45, 10, 120]

    def test_one_that_is_shot_bursts_where_it_falls(self, battle, give):
        """The marine at 5 cells is out of reach; the zealot beside the baneling is not."""
        at = [(30, 32), (35, 33), (35, 32)]
        batch = battle({"marine": 1, "zealot": 1}, {"baneling": 1}, at=at)
        batch.state.units["health"][0, 2] = 5
        batch.step(np.array([[[Verb.ATTACK, 2], STAND]]), np.zeros((1, 1, 2), int))
        assert vitality(batch) == [45, 150 - 35, 0]

    def test_bursts_set_off_others_in_the_same_loop(self, battle, give):
        """A marine shoots p, which kills b, which kills q, which hits the zealot: 2 cells a leap."""
        at = [(30, 32), (36, 32), (40, 32), (34, 32), (38, 32)]
        batch = battle({"marine": 1, "baneling": 1, "zealot": 1}, {"baneling": 2}, at=at)
        batch.state.units["health"][0, [1, 3, 4]] = 5
        batch.step(np.array([[[Verb.ATTACK, 3], STAND, STAND]]), np.zeros((1, 2, 2), int))
        assert vitality(batch) == [45, 0, 150 - 35, 0, 0]
        assert batch.state.units["hit_at"][0, [1, 3, 4]].tolist() == [1, 1, 1]
        assert batch.state.battles["loop"][0] == 2, "side 1 is gone"

    def test_a_target_out_of_range_is_not_burst_at(self, losses):
        """Range 0.25: from 2 cells it walks 1.0 to contact 0.75 + 0.25 first, at 0.15625 a loop."""
        assert losses("baneling", [(32.3, 32)]) == [0]
        assert losses("baneling", [(32.3, 32)], steps=2) == [35]


class TestColossus:
    """2 x (10 + 5) along a line 2.8 across the shot and 0.3 wide, to the edges of the victims."""

    @pytest.mark.parametrize(
        ("at", "hit"),
        [
            ((38, 33.77), True),  # across: 1.4 + 0.375 = 1.775
            ((38, 33.78), False),
            ((38, 30.23), True),
            ((38, 30.22), False),
            ((38.52, 33), True),  # along: 0.15 + 0.375 = 0.525
            ((38.53, 33), False),
            ((37.48, 31), True),
            ((37.47, 31), False),
            ((34, 32), False),  # between the two
            ((39, 32), False),
        ],
    )
    def test_the_line_lies_across_the_shot(self, losses, at, hit):
        assert losses("colossus", [(38, 32), at]) == [30, 30 if hit else 0]

    def test_it_spares_its_own_side(self, losses):
        assert losses("colossus", [(38, 32)], own=[(38, 32.8)]) == [30, 0]

    def test_armour_counts_against_both_hits(self, losses):
        """Zealots without shields would lose 2 x 14; with 50 shields they lose 30 of them."""
        assert losses("colossus", [(38, 32), (38, 33)], victim="marauder") == [18, 18]


class TestSiegeTank:
    """40 within 0.4687 of the edge, half within 0.7812, a quarter within 1.25; its own side, too."""

    def test_rings(self, losses):
        enemies = [(40, 32), (40, 32.84), (41.15, 32), (40, 30.38), (38.37, 32)]
        assert losses("siege_tank_sieged", enemies) == [40, 40, 20, 10, 0]  # edges at .465 .775 1.245 1.255

    def test_rings_hit_its_own_side_but_itself(self, losses):
        own = [(40, 32.84), (41.15, 32), (40, 30.38), (38.37, 32)]
        assert losses("siege_tank_sieged", [(40, 32)], own=own) == [40, 40, 20, 10, 0]

    def test_bonus_and_armour_are_the_victim_s_own(self, losses):
        """Marauders: 40 + 30 less 1; half: 35 less 1."""
        enemies = [(40, 32), (41.3, 32)]  # edge at 0.7375
        assert losses("siege_tank_sieged", enemies, victim="marauder") == [69, 34]


def polar(distance, angle):
    """A place at a distance and angle (from east) from the attacker."""
    return 30 + distance * np.cos(angle), 32 + distance * np.sin(angle)


@pytest.mark.parametrize(
    ("attacker", "first", "at", "share"),
    [
        # Hellion: 8 + 6 within 6.15 of itself, 0.3 wide.
        ("hellion", (34, 32), (36.52, 32), 14),  # 6.15 + 0.375 = 6.525
        ("hellion", (34, 32), (36.53, 32), 0),
        ("hellion", (34, 32), (35, 32.52), 14),  # 0.15 + 0.375 = 0.525
        ("hellion", (34, 32), (35, 31.47), 0),
        ("hellion", (34, 32), (31.5, 32), 14),  # before the target, too
        ("hellion", (34, 32), (28.5, 32), 0),  # not behind the shooter
        # Hellbat: 18 within 2.625 of itself and 22.5 degrees to either side.
        ("hellbat", (32.5, 32), polar(2.99, 0.38), 18),  # 3.0; 21.8 degrees
        ("hellbat", (32.5, 32), polar(3.01, 0.38), 0),
        ("hellbat", (32.5, 32), polar(2.9, -0.40), 0),  # 22.9 degrees
        # Ultralisk: a third within 2 of itself, ahead.
        ("ultralisk", (32, 32), (30.1, 34.3), 35 * 0.33),  # 2.375
        ("ultralisk", (32, 32), (30.1, 34.4), 0),
        ("ultralisk", (32, 32), (29.9, 34.0), 0),
    ],
)
def test_lines_and_cones_start_at_the_shooter(losses, attacker, first, at, share):
    lost = losses(attacker, [first, at], own=[(31, 30)], steps=2)
    assert lost[1:] == [pytest.approx(share), 0]
    assert lost[0] >= share


class TestMutalisk:
    """9, then a third, then a ninth; each time on the nearest within 3 cells to its edge."""

    def test_bounces(self, losses):
        enemies = [(33, 32), (35.5, 32), (33, 29.4), (38.8, 32)]  # 2.5, 2.6; 3.3 from the second
        lost = losses("mutalisk", enemies)
        assert lost == [9, pytest.approx(3, abs=1e-4), 0, pytest.approx(1, abs=1e-4)]

    def test_it_bounces_no_further_than_it_reaches(self, losses):
        assert losses("mutalisk", [(33, 32), (36.38, 32)]) == [9, 0]  # 3.38 - 0.375
        assert losses("mutalisk", [(33, 32), (36.37, 32)]) == [9, pytest.approx(3, abs=1e-4)]

    def test_it_does_not_come_back(self, losses):
        assert losses("mutalisk", [(33, 32), (34, 32)]) == [9, pytest.approx(3, abs=1e-4)]

    def test_a_hit_of_a_bounce_takes_half_a_point_of_armour_at_least(self, losses):
        """Marauders: 9 - 1, 3 - 1, 1 - 1."""
        enemies = [(33, 32), (34.5, 32), (36, 32)]
        assert losses("mutalisk", enemies, victim="marauder") == [8, pytest.approx(2, abs=1e-4), 0.5]


def test_an_archon_spares_its_own_side(losses):
    """25 + 10 against biological; half within 0.5 of the edge."""
    assert losses("archon", [(33, 32), (33, 32.8)], own=[(33, 31.2)]) == [35, 17.5, 0]


def test_a_thor_s_rockets_hit_flyers_around_their_target(battle, give):
    """4 x 6 on all within 0.5 of the edge of void rays, radius 1; the marine below is no flyer."""
    at = [(30, 32), (38, 32), (38, 33.51), (38, 30.51), (36.49, 32), (38.5, 32)]
    batch = battle({"thor": 1}, {"void_ray": 4, "marine": 1}, at=at)
    give(batch, (Verb.ATTACK, 1), STAND, steps=2)
    assert vitality(batch)[1:] == [226, 250, 226, 250, 45]
    assert unit(batch, 1, "hit_at") == 8  # 2.672 loops; 6 cells / 1.25
