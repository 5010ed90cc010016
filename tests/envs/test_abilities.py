"""Healing, stimpacks, blinks and regeneration, in numbers worked out by hand from the unit table."""

from dataclasses import replace

import numpy as np
import pytest

from envs.battle.batch import BattleBatch, Outcome
from envs.battle.state import IDLE
from envs.scenarios import load_scenario
from envs.unit_set import FIRST_TARGET_VERB, Verb
from tests.envs.battles import STAND, unit

ABILITY = (Verb.ABILITY, 0)
ABILITY_TARGETS = int(Verb.ABILITY) - FIRST_TARGET_VERB


def can_use(batch, slot, side=0):
    return bool(batch.observations[side]["verb_mask"][0, slot, Verb.ABILITY])


def targets(batch, slot, side=0):
    return np.flatnonzero(batch.observations[side]["target_mask"][0, slot, ABILITY_TARGETS]).tolist()


class TestMedivac:
    """0.5625 health a loop at a third of an energy each; energy comes back at 0.5625 / 16 a loop."""

    def healing(self, battle, distance, **changes):
        """A medivac at (30, 32), a marine with 20 health at a distance, an enemy far away."""
        at = [(30, 32), (30 + distance, 32), (60, 60)]
        batch = battle({"medivac": 1, "marine": 1}, {"marine": 1}, at=at)
        for name, value in ({"health": 20.0} | changes).items():
            batch.state.units[name][0, 0 if name == "energy" else 1] = value
        batch.refresh()
        return batch

    def order(self, batch, medivac, marine=STAND, steps=1):
        for _ in range(steps):
            batch.step(np.array([[medivac, marine]]), np.zeros((1, 1, 2), int))
            medivac = marine = STAND

    def test_rate_and_price(self, battle):
        batch = self.healing(battle, 3)
        assert unit(batch, 0, "energy") == 50
        self.order(batch, (Verb.ABILITY, 1))
        assert unit(batch, 1, "health") == pytest.approx(24.5)
        assert unit(batch, 0, "energy") == pytest.approx(50 - 1.5 + 0.28125)

    def test_it_goes_on_until_full_health_and_no_further(self, battle):
        """25 health at 0.5625: 44.4 loops, 8 1/3 energy."""
        batch = self.healing(battle, 3)
        self.order(batch, (Verb.ABILITY, 1), steps=5)
        assert unit(batch, 1, "health") == pytest.approx(42.5)
        self.order(batch, STAND, steps=2)
        assert unit(batch, 1, "health") == 45
        assert unit(batch, 0, "energy") == pytest.approx(50 - 25 / 3 + 7 * 0.28125)
        assert unit(batch, 0, "order") == IDLE
        assert targets(batch, 0) == []

    @pytest.mark.parametrize(("distance", "loops"), [(5.12, 8), (5.2, 7), (5.5, 5)])
    def test_it_heals_from_four_cells_and_flies_there_first(self, battle, distance, loops):
        """Radii 0.75 and 0.375: 5.125 between centres; 0.075 takes one loop at 0.15625, 0.375 takes three."""
        batch = self.healing(battle, distance)
        self.order(batch, (Verb.ABILITY, 1))
        assert unit(batch, 1, "health") == pytest.approx(20 + loops * 0.5625)
        assert unit(batch, 0, "x") == pytest.approx(max(30, 30 + distance - 5.125), abs=1e-5)

    def test_without_energy_it_waits_for_a_loop_s_worth(self, battle):
        """0.1875 for a loop; 0.5625 / 16 a loop comes back, so nothing is there for 6 loops."""
        batch = self.healing(battle, 3, energy=0.0)
        assert not can_use(batch, 0)
        self.order(batch, STAND)
        assert unit(batch, 0, "energy") == pytest.approx(0.28125)
        assert can_use(batch, 0)

    def test_the_last_energy_heals_what_it_can_and_stays_above_zero(self, battle):
        """0.3 and what comes back in a step: 0.58125 in all, 1.74375 health."""
        batch = self.healing(battle, 3, energy=0.3)
        self.order(batch, (Verb.ABILITY, 1))
        assert 0 <= unit(batch, 0, "energy") < 0.1875
        health, energy = unit(batch, 1, "health"), unit(batch, 0, "energy")
        assert (health - 20) / 3 + energy == pytest.approx(0.58125)

    def test_energy_stops_at_its_maximum(self, battle):
        batch = self.healing(battle, 3, energy=199.99)
        self.order(batch, STAND)
        assert unit(batch, 0, "energy") == 200

    def test_never_flyers_nor_mechanical_units_nor_itself_nor_who_is_well(self, battle):
        """An SCV is both biological and mechanical, and is healed."""
        team = {"medivac": 2, "hellion": 1, "scv": 1, "mutalisk": 1, "marine": 2}
        at = [(30 + k, 32) for k in range(7)]
        batch = battle(team, {"marine": 1}, at=[*at, (60, 60)])
        names = [batch.scenario.teams[0].units[k] for k in range(7)]
        batch.state.units["health"][0, :6] = 20
        batch.refresh()
        healers = [k for k, name in enumerate(names) if name == "medivac"]
        hurt = [k for k, name in enumerate(names) if name in ("scv", "marine") and k < 6]
        assert [targets(batch, k) for k in healers] == [hurt, hurt]
        batch.step(
            np.array([[(Verb.ATTACK_MOVE, 0) if k in healers else STAND for k in range(7)]]),
            np.zeros((1, 1, 2), int),
        )
        healed = np.flatnonzero(batch.state.units["health"][0, :7] > 20).tolist()
        assert set(healed) - {names.index("mutalisk"), 6} <= set(hurt)
        assert len(set(healed) & set(hurt)) >= 1

    def test_on_attack_move_it_heals_of_its_own_accord(self, battle):
        """25 health take 45 loops, the way there 6; only then does it fly on to the attack point."""
        batch = self.healing(battle, 6)
        self.order(batch, (Verb.ATTACK_MOVE, 0), steps=2)
        assert unit(batch, 1, "health") > 20
        self.order(batch, STAND, steps=3)
        assert unit(batch, 0, "x") == pytest.approx(36 - 5.125, abs=1e-5)
        self.order(batch, STAND, steps=3)
        assert unit(batch, 1, "health") == 45
        assert unit(batch, 0, "x") > 31

    def test_on_a_move_it_does_not(self, battle):
        batch = self.healing(battle, 3)
        self.order(batch, (Verb.MOVE_NORTH, 0))
        assert unit(batch, 1, "health") == 20
        assert unit(batch, 0, "y") == 33.25

    def test_idle_it_does_nothing_in_smac_s_manner(self, battle):
        batch = self.healing(battle, 3)
        self.order(batch, STAND, steps=2)
        assert unit(batch, 1, "health") == 20

    def test_on_hold_it_heals_within_reach_and_lets_go_of_who_leaves(self, battle):
        at = [(30, 32), (34, 32), (30, 36), (60, 60)]
        batch = battle({"medivac": 1, "marine": 2}, {"marine": 1}, at=at)
        batch.state.units["health"][0, 1] = 20
        batch.step(np.array([[(Verb.HOLD, 0), STAND, STAND]]), np.zeros((1, 1, 2), int))
        assert unit(batch, 1, "health") == 24.5
        batch.state.units["x"][0, 1] = 40
        batch.state.units["health"][0, 2] = 20
        batch.refresh()
        batch.step(np.array([[STAND, STAND, STAND]]), np.zeros((1, 1, 2), int))
        assert unit(batch, 1, "health") == 24.5
        assert unit(batch, 2, "health") == 24.5
        assert unit(batch, 0, "x") == 30

    def test_it_draws_fire_while_it_heals(self, battle):
        """The marine is a threat, the nearer medivac none, unless it has healed lately."""
        for heals in (False, True):
            at = [(30, 32), (34, 32), (28, 32)]
            batch = battle({"medivac": 1, "marine": 1}, {"marine": 1}, at=at)
            batch.rules.sides["attack_x"][1] = 28
            batch.state.units["health"][0, 1] = 20
            batch.refresh()
            order = (Verb.ABILITY, 1) if heals else STAND
            batch.step(np.array([[order, STAND]]), np.array([[STAND]]))
            batch.step(np.array([[STAND, STAND]]), np.array([[(Verb.ATTACK_MOVE, 0)]]))
            assert unit(batch, 2, "engaged") == (0 if heals else 1)

    def test_only_medivacs_left_is_lost(self, battle, give):
        batch = battle(
            {"marine": 1, "medivac": 2}, {"marine": 1}, at=[(33, 32), (10, 10), (12, 10), (30, 32)]
        )
        batch.state.units["health"][0, 0] = 6
        give(batch, STAND, (Verb.ATTACK, 1))
        assert batch.state.battles["outcome"][0] == Outcome.WIN_1


class TestStimpack:
    """10 health (marauders 20) for 246 loops of 1.5 times the speed and rate of fire."""

    @pytest.fixture
    def stimmed(self, battle):
        def build(name="marine", upgrades=("stimpack",), **settings):
            changes = {"upgrades": upgrades}
            at = [(30, 32), (33, 32)]
            return battle({name: 1}, {"zealot": 1}, at=at, changes=changes, **settings)

        return build

    @pytest.mark.parametrize(("name", "cost"), [("marine", 10), ("marauder", 20)])
    def test_price_and_speed(self, stimmed, give, name, cost):
        batch = stimmed(name)
        assert targets(batch, 0) == [0]
        before = unit(batch, 0, "health")
        give(batch, ABILITY, STAND)
        assert unit(batch, 0, "health") == before - cost
        give(batch, (Verb.MOVE_WEST, 0), STAND)
        assert unit(batch, 0, "x") == pytest.approx(30 - 1.125 * 1.5)

    def test_it_lasts_eleven_seconds_and_cannot_be_doubled(self, stimmed, give):
        """246 loops: 30 steps and 6 loops, so in the 31st step it still walks 6 loops fast and 2 not."""
        batch = stimmed()
        give(batch, ABILITY, STAND)
        give(batch, STAND, STAND, steps=29)
        assert not can_use(batch, 0)
        x = unit(batch, 0, "x")
        give(batch, (Verb.MOVE_WEST, 0), STAND)
        assert x - unit(batch, 0, "x") == pytest.approx(0.140625 * (6 * 1.5 + 2))
        assert can_use(batch, 0)

    def test_rate_of_fire(self, stimmed, give):
        """A marine's 13.7734 loops become 9.1823, with the same jitter of 0.5 on average."""
        batch = stimmed(battles=64, seed=3)
        batch.state.units["health"][:, 1] = 1e9
        give(batch, ABILITY, STAND)
        batch.state.units["stim_until"][:, 0] = 1 << 20
        previous, intervals = None, []
        for _ in range(300):
            give(batch, (Verb.ATTACK, 1), STAND)
            struck = batch.state.units["struck_at"][:, 0].copy()
            if previous is not None:
                fired = (struck != previous) & (previous >= 0)
                intervals += (struck - previous)[fired].tolist()
            previous = struck
        error = np.std(intervals) / np.sqrt(len(intervals))
        assert np.mean(intervals) == pytest.approx(13.7734 / 1.5 + 0.5, abs=4 * error)

    def test_its_price_counts_as_damage_taken(self, stimmed):
        """10 of 45, to oneself; the enemy has seen its foe lose as much."""
        batch = stimmed()
        rewards = batch.step(np.array([[ABILITY]]), np.array([[STAND]])).rewards[0]
        assert rewards.tolist() == [pytest.approx(-10 / 45), pytest.approx(10 / 45)]

    @pytest.mark.parametrize(("health", "allowed"), [(10.0, False), (10.5, True)])
    def test_it_cannot_kill(self, stimmed, health, allowed):
        batch = stimmed()
        batch.state.units["health"][0, 0] = health
        batch.refresh()
        assert can_use(batch, 0) == allowed

    def test_it_must_have_been_researched(self, stimmed):
        assert not can_use(stimmed(upgrades=()), 0)
        assert not can_use(stimmed(upgrades=("blink",)), 0)


class TestBlink:
    """Up to 8 cells towards a unit in sight, every 157 loops."""

    @pytest.fixture
    def blinking(self, battle):
        def build(distance, upgrades=("blink",)):
            changes = {"upgrades": upgrades}
            return battle({"stalker": 1}, {"zealot": 1}, at=[(30, 32), (30 + distance, 32)], changes=changes)

        return build

    @pytest.mark.parametrize(("distance", "leap"), [(9.5, 8.0), (9.0, 7.875), (5.0, 3.875)])
    def test_it_leads_eight_cells_or_up_to_the_unit(self, blinking, give, distance, leap):
        """Radii 0.625 and 0.5: 1.125 between centres."""
        batch = blinking(distance)
        assert targets(batch, 0) == [1]
        give(batch, (Verb.ABILITY, 1), STAND)
        assert unit(batch, 0, "x") == pytest.approx(30 + leap)
        assert unit(batch, 0, "y") == 32

    def test_not_to_who_is_beside_one(self, blinking):
        assert not can_use(blinking(1.6), 0)
        assert can_use(blinking(1.7), 0)

    def test_it_is_ready_again_after_157_loops(self, blinking, give):
        batch = blinking(9.5)
        give(batch, (Verb.ABILITY, 1), STAND)
        batch.state.units["x"][0, 1] = 33
        batch.refresh()
        give(batch, STAND, STAND, steps=18)
        assert not can_use(batch, 0)  # loop 152
        give(batch, STAND, STAND)
        assert can_use(batch, 0)  # loop 160

    def test_it_must_have_been_researched(self, blinking):
        assert not can_use(blinking(9.5, upgrades=()), 0)

    def test_it_breaks_off_an_attack(self, blinking, give):
        batch = blinking(7)
        batch.state.units["cooldown"][0, 0] = 6.5
        give(batch, (Verb.ATTACK, 1), STAND)
        assert unit(batch, 0, "windup") > 0
        give(batch, (Verb.ABILITY, 1), STAND)
        assert unit(batch, 0, "windup") < 0
        assert unit(batch, 1, "shield") == 50


class TestRegeneration:
    def test_shields_wait_ten_normal_seconds_then_give_two_a_second(self, battle, give):
        batch = battle({"stalker": 1}, {"marine": 1}, at=[(10, 10), (60, 60)])
        batch.state.units["shield"][0, 0] = 10
        batch.state.units["hit_at"][0, 0] = 0
        give(batch, STAND, steps=20)  # loops 0 to 159
        assert unit(batch, 0, "shield") == 10
        give(batch, STAND, steps=2)  # 16 loops = 1 Normal second
        assert unit(batch, 0, "shield") == pytest.approx(12)

    def test_shields_stop_at_their_maximum(self, battle, give):
        batch = battle({"stalker": 1}, {"marine": 1}, at=[(10, 10), (60, 60)])
        batch.state.units["shield"][0, 0] = 79.8
        give(batch, STAND)
        assert unit(batch, 0, "shield") == 80

    def test_zerg_heal_themselves_and_others_do_not(self, battle, give):
        batch = battle({"zergling": 1}, {"marine": 1}, at=[(10, 10), (60, 60)])
        batch.state.units["health"][0] = 20
        give(batch, STAND, steps=20)
        assert unit(batch, 0, "health") == pytest.approx(20 + 10 * 0.2734)
        assert unit(batch, 1, "health") == 20


def test_smac_s_medivacs_heal_by_order_from_six_cells():
    """SMAC lets every unit act within 6 cells, centre to centre; the medivac flies into its own 4."""
    batch = BattleBatch(replace(load_scenario("MMM@smac"), spawn_jitter=0.0), 1, builtin=(None, None))
    names = batch.scenario.teams[0].units
    medivac, marine = names.index("medivac"), names.index("marine")
    units = batch.state.units
    units["health"][0, marine] = 20
    for distance, allowed in ((5.99, True), (6.01, False)):
        units["x"][0, medivac], units["y"][0, medivac] = 9, 16
        units["x"][0, marine], units["y"][0, marine] = 9 + distance, 16
        batch.refresh()
        assert (marine in targets(batch, medivac)) == allowed
