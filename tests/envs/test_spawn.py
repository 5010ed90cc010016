"""How battles begin, and that chance favours nobody."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare, kstest

from envs.battle.batch import BattleBatch, Outcome
from envs.scenarios import Draw, Group, Scenario, Team, load_scenario
from envs.unit_set import LOOPS_PER_STEP
from envs.units import unit_table
from tests.envs.battles import STAND


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


def drawn(name, battles, seed=0):
    """Type names (B, N) and places (B, N) of fresh battles, and how many the first team has."""
    batch = BattleBatch(name, battles, builtin=("attack-move", "attack-move"), seed=seed)
    names = np.array([unit.name for unit in batch.scenario.unit_types])
    units = batch.state.units
    return names[units["type"]], units["x"], units["y"], batch.team_sizes[0]


class TestDraws:
    @pytest.mark.parametrize("sizes", [(6, 2), (2, 6), (3, 3)])
    @pytest.mark.parametrize("weight", [0.05, 1e-9])
    def test_no_team_is_all_of_those_that_are_never_alone(self, sizes, weight):
        """Whoever is larger, and however rare the others."""
        teams = tuple(
            Team((Group(("marine",) * size, (x, 16)),), (32 - x, 16))
            for size, x in zip(sizes, (6, 26), strict=True)
        )
        draw = Draw(("marine", "medivac"), (weight, 1 - weight), never_alone=("medivac",))
        names, _, _, own = drawn(Scenario("s", 32, 32, (0, 0, 32, 32), teams, 60, draw=draw), 100)
        common = min(sizes)
        for team in (names[:, :own], names[:, own:]):
            assert (team == "marine").any(1).all()
            assert (team[:, :common] == names[:, :common]).all()
            assert team.shape[1] == common or (team[:, common:] == "marine").any(1).all()

    @pytest.mark.parametrize(
        ("name", "never_alone"),
        [("smacv2_protoss_5v5", ()), ("smacv2_terran_5v5", "medivac"), ("smacv2_zerg_10v11", "baneling")],
    )
    def test_types_have_their_weights_and_no_team_is_all_of_what_never_stands_alone(self, name, never_alone):
        """Drawing again removes the teams of one kind alone: its share is (p - p^n) / (1 - p^n)."""
        types, _, _, n = drawn(name, 4000)
        draw = load_scenario(name).draw
        shares = dict(zip(draw.types, draw.weights, strict=True))
        if never_alone:
            assert draw.never_alone == (never_alone,)
            p = shares[never_alone]
            again = 1 - p**n
            shares = {
                kind: (p - p**n) / again if kind == never_alone else share / again
                for kind, share in shares.items()
            }
            assert not (types[:, :n] == never_alone).all(1).any()
        counted = Counter(types[:, :n].ravel().tolist())
        observed = [counted[kind] for kind in shares]
        expected = [share * 4000 * n for share in shares.values()]
        assert chisquare(observed, expected).pvalue > 1e-4

    def test_the_second_team_is_the_same_and_its_extras_are_drawn(self):
        types, _, _, n = drawn("smacv2_zerg_10v11", 3000)
        assert (types[:, :n] == types[:, n : 2 * n]).all()
        extras = Counter(types[:, 2 * n].tolist())
        assert set(extras) == {"zergling", "hydralisk"}, "one extra is never a baneling alone"
        assert chisquare(list(extras.values())).pvalue > 1e-4
        types, _, _, n = drawn("smacv2_zerg_20v23", 500)
        assert "baneling" in types[:, 2 * n :]
        assert not (types[:, 2 * n :] == "baneling").all(1).any()

    def test_health_and_weapons_are_those_of_the_drawn_types(self):
        batch = BattleBatch("smacv2_protoss_5v5", 64)
        names = np.array([unit.name for unit in batch.scenario.unit_types])
        types = names[batch.state.units["type"]]
        health = np.vectorize(lambda name: unit_table()[name].health)(types)
        np.testing.assert_array_equal(batch.state.units["health"], health)

    def test_the_next_battle_draws_anew(self):
        batch = BattleBatch("smacv2_terran_10v10", 64, builtin=("attack-move", "attack-move"))
        before = batch.state.units["type"].copy()
        batch.restart(np.ones(64, bool))
        assert (before != batch.state.units["type"]).any(1).mean() > 0.9


@pytest.fixture(scope="module")
def placed():
    """Places of 3,000 battles of ten against ten, and in which of them the first team is surrounded."""
    _, x, y, n = drawn("smacv2_protoss_10v10", 3000)
    middle = np.hypot(x[:, :n].mean(1) - 16, y[:, :n].mean(1) - 16) < 0.3
    tight = np.hypot(x[:, :n] - 16, y[:, :n] - 16).max(1) < 5
    return x, y, n, middle & tight


class TestSurroundAndReflect:
    """The map is 32 x 32. Units that start too near each other are pushed apart, so places are blurred."""

    def test_each_half_of_the_time(self, placed):
        *_, surround = placed
        assert binomtest(int(surround.sum()), len(surround)).pvalue > 1e-4

    def test_reflected_teams_are_mirror_images_in_the_left_and_right_half(self, placed):
        x, y, n, surround = placed
        x, y = x[~surround], y[~surround]
        assert (x[:, :n] < 16).all()
        same = (np.abs(x[:, :n] + x[:, n:] - 32) < 1e-9) & (np.abs(y[:, :n] - y[:, n:]) < 1e-9)
        assert same.all()
        assert kstest(y[:, 0], "uniform", args=(0, 32)).pvalue > 1e-4
        assert kstest(x[:, 0], "uniform", args=(0, 15)).pvalue > 1e-4

    def test_surrounders_stand_on_the_diagonals(self, placed):
        """Groups of one to four kinds of corners, all equally likely; their centres on the diagonals."""
        x, y, n, surround = placed
        dx, dy = x[surround][:, n:] - 16, y[surround][:, n:] - 16
        corners = 2 * (dx > 0) + (dy > 0)
        used = np.array([len(set(row.tolist())) for row in corners])
        assert set(used) == {1, 2, 3, 4}
        counts = np.bincount(corners.ravel(), minlength=4)
        assert counts.min() > 0.2 * counts.sum()
        # One corner in a quarter of the battles, and whenever all members of 2 to 4 fall to one: rarely.
        assert (used == 1).mean() == pytest.approx(0.25 + 0.25 * 2**-9, abs=0.04)
        one = used == 1
        centre_x, centre_y = np.abs(dx[one].mean(1)), np.abs(dy[one].mean(1))
        near_border = np.maximum(centre_x, centre_y) > 12
        assert np.abs(centre_x - centre_y)[~near_border].max() < 0.5
        assert centre_x.min() > 1.7
        # Nearer, the first team pushes them out; farther, the border does.
        free = centre_x[(centre_x > 6) & (centre_x < 12)]
        assert kstest(free, "uniform", args=(6, 6)).pvalue > 1e-4

    def test_groups_stand_in_heaps(self, placed):
        """Ten units of radius up to 1 in a disc: nobody further than 5 cells from the middle of them."""
        x, y, n, surround = placed
        away = np.hypot(x[surround][:, :n] - 16, y[surround][:, :n] - 16)
        assert away.max() < 4.5

    def test_everyone_is_inside(self, placed):
        x, y, *_ = placed
        assert x.min() >= 0.375
        assert x.max() <= 32 - 0.375
        assert y.min() >= 0.375
        assert y.max() <= 32 - 0.375


def test_random_symmetric_battles_mirror_types_and_stand_at_their_points():
    types, x, _, n = drawn("symmetric_10v10", 300)
    assert (types[:, :n] == types[:, n:]).all()
    assert np.abs(x[:, :n].mean(1) - 8).max() < 2
    assert np.abs(x[:, n:].mean(1) - 24).max() < 2


@pytest.mark.parametrize("name", ["bane_vs_bane", "2m_vs_1z", "MMM2", "corridor", "2c_vs_64zg"])
def test_groups_start_around_their_spawn_points(name):
    """Within the formation's radius and the jitter: the mean of a group is at most 1.5 x jitter away."""
    batch = BattleBatch(name, 64, builtin=("attack-move", "attack-move"), seed=5)
    units, i = batch.state.units, 0
    for team in batch.scenario.teams:
        for group in team.groups:
            members = slice(i, i + len(group.units))
            x, y = units["x"][:, members].mean(1), units["y"][:, members].mean(1)
            away = np.hypot(x - group.spawn[0], y - group.spawn[1])
            assert away.max() < 1.5 * batch.scenario.spawn_jitter + 1.2
            i += len(group.units)
