"""The mini-games: what appears where, what counts, what comes next and when it is over."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, kstest

from envs.battle.batch import BattleBatch, Outcome
from envs.battle.state import ATTACK_MOVE, IDLE
from envs.scenarios import Group, Scenario, Team, load_scenario
from envs.unit_set import Verb

REGION = (22, 20, 44, 36)


def start(name, battles=1, seed=0, **settings):
    """Battles of a mission, and their units."""
    batch = BattleBatch(name, battles, auto_reset="off", seed=seed, **settings)
    return batch, batch.state.units


def step(batch, verb=Verb.NO_OP, times=1):
    """The same order for all of the first team that may have it; the last result."""
    for _ in range(times):
        orders = np.zeros((batch.num_battles, batch.team_sizes[0], 2), int)
        orders[..., 0] = np.where(batch.masks(0)["verb_mask"][..., verb], verb, 0)
        result = batch.step(orders)
    return result


def put(batch, i, x, y, b=0):
    batch.state.units["x"][b, i], batch.state.units["y"][b, i] = x, y
    batch.refresh()


def away(units, i, j):
    """Distances of centres between units ``i`` and ``j`` of all battles."""
    return np.hypot(units["x"][:, i] - units["x"][:, j], units["y"][:, i] - units["y"][:, j])


def closest(x, y):
    """The least distance between any two of the places (B, n)."""
    distance = np.hypot(x[:, :, None] - x[:, None], y[:, :, None] - y[:, None])
    distance[:, np.arange(x.shape[1]), np.arange(x.shape[1])] = np.inf
    return distance.min()


class TestBeacon:
    def test_marine_and_beacon_start_anywhere_five_cells_apart(self):
        _, units = start("move_to_beacon", 2000)
        assert away(units, 0, 1).min() >= 5
        for field, low, high in (("x", 22, 44), ("y", 20, 36)):
            assert kstest(units[field][:, 0], "uniform", args=(low + 0.375, high - low - 0.75)).pvalue > 1e-4
            assert units[field][:, 1].min() >= low
            assert units[field][:, 1].max() <= high
            assert np.ptp(units[field][:, 1]) > 0.9 * (high - low)

    @pytest.mark.parametrize(("distance", "reached"), [(1.87, True), (1.88, False)])
    def test_it_is_reached_when_the_discs_touch(self, distance, reached):
        """The beacon's radius is 1.5, the marine's 0.375. Then it appears at once elsewhere, at least 5
        from the marine."""
        batch, units = start("move_to_beacon")
        put(batch, 0, 33, 28)
        put(batch, 1, 33 + distance, 28)
        result = step(batch)
        assert batch.state.battles["score"][0] == reached
        assert result.rewards[0].tolist() == [reached, -1.0 * reached]
        assert result.episode_return[0, 0] == reached
        assert (units["x"][0, 1] != 33 + distance) == reached
        assert units["alive"][0].all()
        assert not reached or away(units, 0, 1)[0] >= 5

    def test_it_is_shown_as_nobody_s_and_cannot_be_attacked(self):
        batch, _ = start("move_to_beacon")
        put(batch, 0, 33, 28)
        put(batch, 1, 38, 28)
        row = batch.observations[0]["unit_mask"][0]
        assert row.tolist() == [True, True]
        assert not batch.observations[0]["verb_mask"][0, 0, Verb.ATTACK]

    def test_it_lasts_240_steps_and_ends_without_a_bonus(self):
        batch, _ = start("move_to_beacon")
        result = step(batch, times=239)
        assert result.outcome[0] == Outcome.RUNNING
        result = step(batch)
        assert result.outcome[0] == Outcome.TIMEOUT
        assert result.rewards[0, 0] == 0
        assert batch.state.battles["loop"][0] == 1920

    def test_walking_straight_to_it_scores_as_published(self):
        """Published: 25 to 28 (people and agents). This one turns towards it in eight directions only."""
        batch, units = start("move_to_beacon", 64, seed=1)
        for _ in range(240):
            dx, dy = (units[field][:, 1] - units[field][:, 0] for field in ("x", "y"))
            octant = np.rint(np.arctan2(dx, dy) / (np.pi / 4)).astype(int) % 8
            verb = Verb.MOVE_NORTH + octant
            allowed = np.take_along_axis(batch.masks(0)["verb_mask"][:, 0], verb[:, None], 1)[:, 0]
            batch.step(np.stack([np.where(allowed, verb, 0), 0 * verb], -1)[:, None])
        assert 23 < batch.state.battles["score"].mean() < 29


class TestShards:
    def test_twenty_shards_two_cells_from_both_marines(self):
        _, units = start("collect_mineral_shards", 300)
        assert units["alive"].sum() == 300 * 22
        for marine in (0, 1):
            for shard in range(2, 22):
                assert away(units, marine, shard).min() >= 2
        assert away(units, 0, 1).min() >= 0.75 - 1e-9

    @pytest.mark.parametrize(("distance", "taken"), [(0.87, True), (0.88, False)])
    def test_touching_is_enough_and_scores_one(self, distance, taken):
        """Radii 0.375 and 0.5."""
        batch, units = start("collect_mineral_shards")
        units["x"][0, 2:], units["y"][0, 2:] = 43, 35
        put(batch, 0, 24, 22)
        put(batch, 1, 30, 22)
        put(batch, 2, 24 + distance, 22)
        result = step(batch)
        assert result.rewards[0, 0] == taken
        assert units["alive"][0, 2] != taken
        assert units["alive"][0, 3:].all()

    def test_two_at_once_count_twice_and_none_counts_twice_over(self):
        batch, units = start("collect_mineral_shards")
        units["x"][0, 2:], units["y"][0, 2:] = 43, 35
        for i, (x, y) in enumerate([(24, 22), (24, 23), (24.3, 22.5), (24, 22.5)]):
            put(batch, i, x, y)
        assert step(batch).rewards[0, 0] == 2
        assert step(batch).rewards[0, 0] == 0

    def test_all_twenty_come_again_when_the_last_is_gone(self):
        batch, units = start("collect_mineral_shards")
        units["alive"][0, 3:] = False
        put(batch, 0, 24, 22)
        put(batch, 1, 30, 22)
        put(batch, 2, 24.5, 22)
        assert step(batch).rewards[0, 0] == 1
        assert units["alive"][0].all()
        assert min(away(units, m, s)[0] for m in (0, 1) for s in range(2, 22)) >= 2 - 1e-9


class TestHunt:
    def test_the_first_25(self):
        """Two at 7.5 to 9.5 from the centre (32, 26), the others at 10.5 or more, all 5 apart."""
        _, units = start("find_and_defeat_zerglings", 200)
        x, y = units["x"][:, 3:], units["y"][:, 3:]
        centre = np.hypot(x - 32, y - 26)
        assert centre[:, :2].min() >= 7.5
        assert centre[:, :2].max() <= 9.5
        assert centre[:, 2:].min() >= 10.5
        assert closest(x, y) >= 5
        assert x.min() >= 10
        assert x.max() <= 54
        assert y.min() >= 8
        assert y.max() <= 44
        assert np.hypot(units["x"][:, :3].mean(1) - 32, units["y"][:, :3].mean(1) - 26).max() < 0.5

    def test_they_stand_until_somebody_comes(self):
        batch, units = start("find_and_defeat_zerglings", 16)
        before = units["x"][:, 3:].copy()
        step(batch, times=20)
        np.testing.assert_array_equal(before, units["x"][:, 3:])
        assert (units["order"][:, 3:] == IDLE).all()

    def test_a_kill_scores_one_and_a_loss_minus_one(self):
        batch, units = start("find_and_defeat_zerglings")
        units["x"][0, 4:] = 53
        units["health"][0, 3] = 1
        put(batch, 3, 33, 29)
        result = step(batch, times=1)
        assert not units["alive"][0, 3]
        assert result.rewards[0, 0] == 1
        units["x"][0, 4], units["y"][0, 4] = units["x"][0, 0], units["y"][0, 0] + 0.8
        units["health"][0, :3] = 1e-3
        batch.refresh()
        total = sum(float(step(batch).rewards[0, 0]) for _ in range(2))
        assert total == (units["alive"][0, 4] == 0) - (~units["alive"][0, :3]).sum()
        assert total < 1

    def test_when_all_are_dead_25_appear_nine_cells_from_the_marines(self):
        batch, units = start("find_and_defeat_zerglings", 100)
        units["alive"][:, 4:] = False
        batch.state.battles["fighters"][:, 1] = 1
        units["health"][:, 3] = 1
        units["x"][:, 3] = units["x"][:, 0]
        units["y"][:, 3] = units["y"][:, 0] + 3
        batch.refresh()
        step(batch)
        assert units["alive"].all()
        assert (units["health"][:, 3:] == 35).all()
        assert (batch.state.battles["fighters"] == [3, 25]).all()
        assert (batch.state.battles["waves"] == 2).all()
        # The rest of the step has passed: marines stand, zerglings that far away, too.
        assert min(away(units, m, z).min() for m in range(3) for z in range(3, 28)) >= 9 - 1e-9
        assert closest(units["x"][:, 3:], units["y"][:, 3:]) >= 5 - 1e-9

    def test_it_is_lost_when_all_marines_are_dead(self):
        batch, units = start("find_and_defeat_zerglings")
        units["alive"][0, 1:3] = False
        batch.state.battles["fighters"][0, 0] = 1
        units["health"][0, 0] = 1
        put(batch, 3, units["x"][0, 0], units["y"][0, 0] + 0.8)
        result = step(batch, times=3)
        assert result.outcome[0] == Outcome.WIN_1
        assert result.rewards[0, 0] in (0, -1, 1)
        assert batch.state.battles["score"][0] == -1 + (~units["alive"][0, 3:]).sum()


class TestWaves:
    def test_both_stand_in_lines_at_opposite_ends_which_by_a_coin(self):
        """A cell apart at y = 28, +1, -1, +2, ... by the script; ends at x = 26 and 40."""
        _, units = start("defeat_roaches", 1000)
        x, y = units["x"], units["y"]
        left = x[:, 0] == 26
        assert binomtest(int(left.sum()), 1000).pvalue > 1e-4
        assert np.isin(x[:, :9], (26, 40)).all()
        assert (x[:, :9] == x[:, :1]).all()
        assert (y[:, :9] == 28 + np.array([0, 1, -1, 2, -2, 3, -3, 4, -4])).all()
        assert (x[:, 45:] == np.where(left, 40, 26)[:, None]).all()
        assert closest(x[:, 45:], y[:, 45:]) >= 1
        assert units["alive"].sum(1).tolist() == [13] * 1000

    def test_the_enemies_attack_the_other_end_wherever_they_stand(self):
        batch, units = start("defeat_roaches", 16)
        left = units["x"][:, 45] == 26
        assert 0 < left.sum() < 16
        assert (units["order"][:, 45:] == ATTACK_MOVE).all()
        step(batch, times=2)
        moved = units["x"][:, 45:] - np.where(left, 26, 40)[:, None]
        assert (np.abs(moved) <= 2.25 + 1e-9).all()
        assert (np.abs(moved).max(1) > 2.2).all(), "those in the way of nobody"
        assert (np.sign(moved) == np.where(left, 1, -1)[:, None]).all()

    def test_an_attack_move_leads_to_the_enemies_end(self):
        batch, units = start("defeat_roaches", 16, builtin=(None, None))
        before = units["x"][:, 0].copy()
        orders = np.zeros((16, 45, 2), int)
        orders[..., 0] = np.where(batch.masks(0)["verb_mask"][..., Verb.ATTACK_MOVE], Verb.ATTACK_MOVE, 0)
        for _ in range(3):
            batch.step(orders, np.zeros((16, 4, 2), int))
        moved = units["x"][:, 0] - before
        assert (np.sign(moved) == np.where(before < 33, 1, -1)).all()

    @pytest.mark.parametrize(
        ("name", "joining", "kill", "enemies"),
        [("defeat_roaches", 5, 10, 4), ("defeat_zerglings_and_banelings", 4, 5, 10)],
    )
    def test_the_next_wave(self, name, joining, kill, enemies):
        """Of nine marines two are dead, one is hurt; the last enemy falls: 7 + joining stand in line."""
        batch, units = start(name, 32)
        first = batch.team_sizes[0]
        units["alive"][:, [2, 5]] = False
        units["alive"][:, first + 1 :] = False
        batch.state.battles["fighters"][:] = [7, 1]
        units["health"][:, 0] = 11
        units["health"][:, first] = 1
        units["x"][:, first], units["y"][:, first] = units["x"][:, 0], units["y"][:, 0] + 3
        batch.refresh()
        result = step(batch)
        assert (result.rewards[:, 0] == kill).all()
        assert (batch.state.battles["waves"] == 2).all()
        alive = units["alive"]
        assert alive[:, :first].sum(1).tolist() == [7 + joining] * 32
        assert alive[:, first:].all()
        assert (units["health"][:, 0] == 11).all()
        joined = units["health"][:, :first][alive[:, :first]].reshape(32, -1)[:, 1:]
        assert (joined == 45).all()
        assert (batch.state.battles["fighters"] == [7 + joining, enemies]).all()
        table = {unit.name: unit.health for unit in batch.scenario.unit_types}
        assert (units["health"][:, first:] == [table[n] for n in batch.scenario.teams[1].units]).all()
        assert (result.outcome == Outcome.RUNNING).all()

    def test_lines_that_do_not_fit_stay_on_the_map(self):
        """Eighty marines in lines of three, twice: before the first wave and before the second."""
        mission = replace(load_scenario("defeat_roaches").mission, region=(0, 12, 32, 16))
        teams = (
            Team((Group(("marine",) * 80, (10, 16)),), (22, 16)),
            Team((Group(("zergling",) * 9, (28, 16)),), (10, 16)),
        )
        scenario = Scenario("s", 32, 32, (0, 0, 32, 32), teams, 60, mission=mission)
        batch = BattleBatch(scenario, 1, builtin=("attack-move", "attack-move"), auto_reset="off")
        while batch.state.battles["waves"][0] < 2:
            batch.step(None)
        for axis in ("x", "y"):
            assert batch.state.units[axis][0].min() >= 0
            assert batch.state.units[axis][0].max() <= 32

    def test_nothing_is_carried_over(self):
        """Cooldowns, orders and targets are gone with the wave before; sides may change."""
        batch, units = start("defeat_roaches", 64)
        units["alive"][:, 46:] = False
        batch.state.battles["fighters"][:, 1] = 1
        units["health"][:, 45] = 1
        units["x"][:, 45], units["y"][:, 45] = 33, 28
        units["x"][:, 0], units["y"][:, 0] = 33, 31
        before = units["x"][:, 1].copy()
        batch.refresh()
        step(batch)
        again = batch.state.battles["waves"] == 2
        assert again.all()
        swapped = np.abs(units["x"][:, 1] - before) > 5
        assert 10 < swapped.sum() < 54
        assert (units["cooldown"][:, :9] <= 0).all()
        assert (units["engaged"][:, :9] == -1).all()

    def test_reinforcements_are_as_many_as_there_are_rows(self):
        batch, units = start("defeat_roaches")
        units["alive"][0, 9:43] = True
        units["health"][0, 9:43] = 45
        units["alive"][0, 46:] = False
        units["x"][0, 9:43] = np.linspace(23, 43, 34)
        units["y"][0, 9:43] = 35
        batch.state.battles["fighters"][0] = [43, 1]
        units["health"][0, 45] = 1
        put(batch, 45, units["x"][0, 0], units["y"][0, 0] + 3)
        step(batch)
        assert units["alive"][0].all()
        x, y = units["x"][0, :45], units["y"][0, :45]
        assert len(set(zip(x.round(6).tolist(), y.round(6).tolist(), strict=True))) == 45
        assert y.min() >= 20.375
        assert y.max() <= 35.625

    def test_a_baneling_s_own_attack_counts_as_a_kill(self):
        batch, units = start("defeat_zerglings_and_banelings")
        names = batch.scenario.teams[1].units
        bane = batch.team_sizes[0] + names.index("baneling")
        put(batch, bane, units["x"][0, 0], units["y"][0, 0] + 0.9)
        units["health"][0, bane] = 1000  # nobody shoots it first
        total = 0.0
        for _ in range(3):
            total += float(step(batch).rewards[0, 0])
        assert not units["alive"][0, bane]
        lost = 9 - units["alive"][0, :9].sum()
        others = (~units["alive"][0, 60:]).sum() - 1
        assert total == 5 + 5 * others - lost

    def test_the_reserve_is_neither_shown_nor_lost(self):
        batch, _ = start("defeat_roaches")
        assert batch.observations[0]["unit_mask"][0, :45].sum() == 9
        assert batch.observations[0]["controlled_mask"][0].sum() == 9
        assert step(batch).rewards[0, 0] == 0

    def test_it_is_over_when_all_marines_are_dead(self):
        """Nine marines with a point of health each, who only stand there: minus nine, and it ends early."""
        scenario = replace(load_scenario("defeat_roaches"), idle_units_attack=False)
        batch, units = start(scenario)
        units["health"][0, :9] = 1
        while step(batch).outcome[0] == Outcome.RUNNING:
            pass
        assert batch.state.battles["outcome"][0] == Outcome.WIN_1
        assert not units["alive"][0, :45].any()
        assert batch.state.battles["score"][0] == -9
        assert batch.state.battles["loop"][0] < 1000


def test_all_regions_are_as_in_the_mini_games():
    for name in ("move_to_beacon", "collect_mineral_shards", "defeat_roaches"):
        assert load_scenario(name).mission.region == REGION
