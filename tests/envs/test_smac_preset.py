"""SMAC's own rules where a scenario is played under its preset, and what rewards count."""

import numpy as np
import pytest

from envs.battle.batch import BattleBatch, Outcome
from envs.battle.rules import RewardWeights, default_rewards
from envs.scenarios import load_scenario
from envs.unit_set import Verb
from envs.units import unit_table

SMAC_VERBS = [Verb.STOP, Verb.MOVE_NORTH, Verb.MOVE_EAST, Verb.MOVE_SOUTH, Verb.MOVE_WEST]


def allowed(batch, slot):
    return np.flatnonzero(batch.observations[0]["verb_mask"][0, slot]).tolist()


def place(batch, places):
    """Put units at (x, y), by index, the others of the second team far off."""
    units = batch.state.units
    units["x"][0, batch.team_sizes[0] :] = batch.scenario.playable[2] - 1
    for i, (x, y) in places.items():
        units["x"][0, i], units["y"][0, i] = x, y
    batch.refresh()


class TestOrders:
    def test_living_units_have_four_directions_stop_and_attacks_in_reach(self):
        """6 cells between centres, whatever the weapon."""
        batch = BattleBatch("3m@smac", 1, builtin=(None, None))
        place(batch, {0: (12, 16), 1: (12, 18), 2: (12, 14), 3: (17.99, 16)})
        assert allowed(batch, 0) == [*SMAC_VERBS, Verb.ATTACK]
        place(batch, {3: (18.01, 16)})
        assert allowed(batch, 0) == SMAC_VERBS

    def test_the_dead_do_nothing_and_only_they(self):
        batch = BattleBatch("3m@smac", 1)
        batch.state.units["alive"][0, 1] = False
        batch.refresh()
        assert [allowed(batch, k) for k in range(3)] == [SMAC_VERBS, [Verb.NO_OP], SMAC_VERBS]

    def test_zealots_and_stalkers_reach_alike(self):
        batch = BattleBatch("2s3z@smac", 1, builtin=(None, None))
        names = batch.scenario.teams[0].units
        for name in ("stalker", "zealot"):
            i = names.index(name)
            place(batch, {i: (12, 16), 5: (17.9, 16)})
            assert (
                batch.observations[0]["target_mask"][0, i, 0].tolist() == [False] * 5 + [True] + [False] * 4
            )

    def test_everyone_sees_nine_cells(self):
        """Stalkers see 10 by themselves."""
        batch = BattleBatch("3s_vs_3z@smac", 1, builtin=(None, None))
        for distance, seen in ((8.99, True), (9.01, False)):
            place(batch, {0: (9, 16), 1: (6, 16), 2: (6, 18), 3: (9 + distance, 16)})
            assert batch.observations[0]["unit_mask"][0, 3] == seen
        native = BattleBatch("3s_vs_3z", 1, builtin=(None, None))
        place(native, {0: (9, 16), 1: (6, 16), 2: (6, 18), 3: (18.9, 16)})
        assert native.observations[0]["unit_mask"][0, 3]

    @pytest.mark.parametrize(
        ("name", "shoots", "sight"), [("stalker", 6, 10), ("zealot", 2, 9), ("colossus", 7, 10)]
    )
    def test_smacv2_has_each_unit_s_own_ranges_at_least_two(self, name, shoots, sight):
        batch = BattleBatch("smacv2_protoss_5v5@smac", 256, builtin=(None, None))
        kinds = np.array([unit.name for unit in batch.scenario.unit_types])[batch.state.units["type"][:, 0]]
        b = int(np.flatnonzero(kinds == name)[0])
        units = batch.state.units
        for distance, near, seen in (
            (shoots - 0.01, True, True),
            (shoots + 0.01, False, True),
            (sight + 0.01, False, False),
        ):
            units["x"][b, :5], units["y"][b, :5] = 2, 2
            units["x"][b, 5:], units["y"][b, 5:] = 31, 31
            units["x"][b, 0], units["y"][b, 0] = 16, 10
            units["x"][b, 5], units["y"][b, 5] = 16 + distance, 10
            batch.refresh()
            assert batch.observations[0]["target_mask"][b, 0, 0, 5] == near
            assert batch.observations[0]["unit_mask"][b, 5] == seen


class TestRewards:
    def play(self, name, battles=64, otherwise=Verb.MOVE_EAST):
        """The sum of rewards of each battle: the first team shoots the first it can, else ``otherwise``."""
        batch = BattleBatch(name, battles, auto_reset="off")
        total = np.zeros((battles, 2))
        while (batch.state.battles["outcome"] == Outcome.RUNNING).any():
            masks = batch.masks(0)
            verb = np.where(masks["verb_mask"][..., otherwise], otherwise, masks["verb_mask"].argmax(-1))
            verb = np.where(masks["verb_mask"][..., Verb.ATTACK], Verb.ATTACK, verb)
            total += batch.step(np.stack([verb, masks["target_mask"][..., 0, :].argmax(-1)], -1)).rewards
        return batch, total

    @pytest.mark.parametrize(("name", "bonus"), [("3m@smac", 200 / 365), ("8m@smac", 200 / 640)])
    def test_smac_s_reward_is_twenty_for_a_win_that_kills_all(self, name, bonus):
        batch, total = self.play(name)
        won = batch.state.battles["outcome"] == Outcome.WIN_0
        assert won.any()
        np.testing.assert_allclose(total[won, 0], 20, atol=1e-4)
        assert (total[~won, 0] < 20 * (1 - bonus)).all()

    def test_what_is_healed_is_taken_off_and_the_reward_stays_positive(self):
        """One of MMM's marines loses 6 health and another is healed by 4.5; then only the healing."""
        batch = BattleBatch("MMM@smac", 1, builtin=(None, None))
        names, n = batch.scenario.teams[1].units, 10
        marine, other, medivac = (
            n + k for k in (names.index("marine"), names.index("marine") + 1, names.index("medivac"))
        )
        units = batch.state.units
        units["x"][0, :n], units["x"][0, n:] = np.arange(n), 31
        units["y"][0] = np.arange(20) % 10 + 8
        units["x"][0, [0, marine, other, medivac]] = 14, 18, 22, 22
        units["y"][0, [0, marine, other, medivac]] = 16, 16, 16, 16.5
        units["health"][0, other] = 20
        batch.refresh()
        orders = np.zeros((2, 1, n, 2), int)
        for side in (0, 1):
            orders[side, 0, :, 0] = Verb.STOP
        orders[1, 0, names.index("medivac")] = (Verb.ABILITY, other - n)
        shooter = batch.scenario.teams[0].units.index("marine")
        assert shooter == 0
        orders[0, 0, 0] = (Verb.ATTACK, marine)
        weight = batch.rewards.damage / sum(unit_table()[name].health for name in names)
        assert batch.step(*orders).rewards[0, 0] == pytest.approx((6 - 4.5) * weight)
        orders[0, 0, 0] = (Verb.STOP, 0)
        assert batch.step(*orders).rewards[0, 0] == pytest.approx(4.5 * weight)

    def test_smac_s_shares(self):
        """3m: 135 health, 30 for kills, 200 for the win, scaled to 20 in all."""
        weights = default_rewards(load_scenario("3m@smac"))
        assert weights.damage == pytest.approx(20 * 135 / 365)
        assert weights.kill == pytest.approx(20 * 30 / 365)
        assert weights.win == pytest.approx(20 * 200 / 365)
        assert (weights.damage_taken, weights.loss, weights.score) == (0, 0, 0)

    def test_a_kill_pays_its_share(self):
        """One marine of three: a third of the weight; its last 6 health are 6 / 135 of the damage."""
        batch = BattleBatch(
            "3m", 1, builtin=(None, None), rewards=RewardWeights(damage=135, damage_taken=0, win=0, kill=3)
        )
        place(batch, {0: (12, 16), 1: (5, 18), 2: (5, 14), 3: (15, 16), 4: (23, 10), 5: (23, 20)})
        batch.state.units["health"][0, 3] = 6
        orders = np.zeros((1, 3, 2), int)
        orders[0, 0] = (Verb.ATTACK, 3)
        result = batch.step(orders, np.zeros((1, 3, 2), int))
        assert result.rewards[0].tolist() == [pytest.approx(6 + 1), 0]

    def test_losses_count_against_oneself(self):
        batch = BattleBatch(
            "3m", 1, builtin=(None, None), rewards=RewardWeights(damage=0, damage_taken=135, win=0)
        )
        place(batch, {0: (12, 16), 1: (5, 18), 2: (5, 14), 3: (15, 16), 4: (23, 10), 5: (23, 20)})
        orders = np.zeros((1, 3, 2), int)
        orders[0, 0] = (Verb.ATTACK, 3)
        result = batch.step(orders, np.zeros((1, 3, 2), int))
        assert result.rewards[0].tolist() == [0, -6]

    def test_missions_pay_their_score_and_nothing_else(self):
        """10 a roach, -1 a marine: 4 of each wave before the last, and 5 marines that joined."""
        batch, total = self.play("defeat_roaches", 16, otherwise=Verb.NO_OP)
        np.testing.assert_allclose(total[:, 0], batch.state.battles["score"], atol=1e-3)
        np.testing.assert_allclose(total[:, 1], -total[:, 0], atol=1e-3)
        before, alive = batch.state.battles["waves"] - 1, batch.state.units["alive"]
        roaches = 4 * before + 4 - alive[:, 45:].sum(1)
        marines = 9 + 5 * before - alive[:, :45].sum(1)
        assert before.min() > 0
        np.testing.assert_allclose(total[:, 0], 10 * roaches - marines, atol=1e-3)
