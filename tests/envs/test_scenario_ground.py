from dataclasses import replace

import pytest

from envs.scenarios import Group, Scenario, ScenarioError, Team, formation_radius, load_scenario


def arena(*rows: str, **units: str) -> Scenario:
    """A battle where ``first`` stands at the west end of the terrain's middle row, ``second`` at the east."""
    width, height = len(rows[0]), len(rows)
    y = height / 2
    teams = (
        Team((Group((units["first"],), (0.5, y)),), (width - 0.5, y)),
        Team((Group((units["second"],), (width - 0.5, y)),), (0.5, y)),
    )
    return Scenario("arena", width, height, (0, 0, width, height), teams, 60, terrain=rows)


class TestWhetherABattleCanBePlayed:
    WALL = ("...#....", "...#....", "...#....", "...#....", "...#....")
    CLIFF = ("...22222", "...22222", "...22222", "...22222", "...22222")
    RAMP = ("...12222", *CLIFF[1:])

    @pytest.mark.parametrize(
        ("rows", "first", "second"),
        [
            (RAMP, "marine", "zealot"),
            (CLIFF, "reaper", "zealot"),  # climbs
            (CLIFF, "marine", "reaper"),  # comes
            (CLIFF, "banshee", "zealot"),
            (WALL, "banshee", "zealot"),
            (WALL, "marine", "mutalisk"),
            (RAMP, "marine", "spine_crawler"),
            (("...##...", *WALL[1:3], "........", WALL[0]), "zealot", "zealot"),  # a gap
        ],
    )
    def test_some_way_is_enough(self, rows, first, second):
        assert arena(*rows, first=first, second=second).terrain == rows

    @pytest.mark.parametrize(
        ("rows", "first", "second"),
        [
            (WALL, "marine", "zealot"),
            (WALL, "reaper", "colossus"),
            (CLIFF, "marine", "zealot"),
            (WALL, "stalker", "spine_crawler"),
            (("...#....", "...#....", "...#....", "....#...", "....#..."), "marine", "zealot"),  # a slit
        ],
    )
    def test_no_path(self, rows, first, second):
        with pytest.raises(ScenarioError, match=r"no path between team 1's spawn .* and team 2's spawn"):
            arena(*rows, first=first, second=second)

    def test_ground_outside_the_playable_area_is_no_path(self):
        scenario = arena(*self.WALL[1:], "........", first="marine", second="zealot")
        with pytest.raises(ScenarioError, match="no path"):
            replace(scenario, playable=(0, 1, 8, 5))

    def test_who_cannot_fight_is_no_one_s_way(self):
        # The medivac flies across, but only the walled-in zealots can hurt anyone.
        scenario = arena(*self.WALL, first="banshee", second="zealot")
        team = Team((Group(("zealot", "medivac"), (0.5, 2.5)),), None)
        with pytest.raises(ScenarioError, match="no path"):
            replace(scenario, teams=(team, scenario.teams[1]))

    @pytest.mark.parametrize(
        ("first", "second", "message"),
        [
            ("zealot", "mutalisk", r"team 1 cannot win: .*\(zealot\) .* mutalisk \(air\)"),
            ("medivac", "zealot", r"team 1 cannot win: .*\(medivac\) .* zealot \(ground\)"),
            ("viking_fighter", "marine", "team 1 cannot win"),
            ("marine", "dark_templar", "team 1 cannot win: .*dark_templar is cloaked.* no detector"),
        ],
    )
    def test_a_team_that_cannot_hurt_its_enemy(self, first, second, message):
        with pytest.raises(ScenarioError, match=message):
            arena(*self.RAMP, first=first, second=second)

    def test_a_detector_makes_the_cloaked_killable(self):
        scenario = arena(*self.RAMP, first="marine", second="zealot")
        ours = Team((Group(("marine", "raven"), (0.5, 2.5)),), None)
        theirs = Team((Group(("dark_templar",), (7.5, 2.5)),), None)
        assert replace(scenario, teams=(ours, theirs)).num_units == 3

    def test_room_is_what_is_connected_to_the_spawn(self):
        rows = ("........", ".######.", ".#....#.", ".######.", "........")
        big, small = (
            Team((Group(("marine",) * 5, (4, 2.5)),), None),
            Team((Group(("marine",), (0.5, 0.5)),), None),
        )
        with pytest.raises(ScenarioError, match=r"5 units do not fit: .* \[4, 2.5\] take 5 cells, it has 4"):
            Scenario("pen", 8, 5, (0, 0, 8, 5), (big, small), 60, terrain=rows)

    def test_spawns_of_the_same_team_may_overlap_but_not_of_different_teams(self):
        together = Team((Group(("marine",), (4, 4)), Group(("marine",), (4, 4))), None)
        radius = formation_radius(["marine"])
        assert radius == pytest.approx(0.5183, abs=1e-4)  # sqrt(1.5 * 0.75**2 / pi)
        clear = Team((Group(("marine",), (4 + 2 * radius, 4)),), None)
        near = Team((Group(("marine",), (4 + 1.9 * radius, 4)),), None)
        assert Scenario("s", 32, 32, (0, 0, 32, 32), (together, clear), 60).num_units == 3
        with pytest.raises(ScenarioError, match=r"team 1, group 1's spawn .* and team 2's spawn .* overlap"):
            Scenario("s", 32, 32, (0, 0, 32, 32), (together, near), 60)

    @pytest.mark.parametrize(
        ("name", "changes", "message"),
        [
            ("3m", {1: ("overlord",)}, r"team 2 has nobody armed on the field \(overlord\)"),
            ("move_to_beacon", {0: ("medivac",)}, r"team 1 has nobody armed on the field \(medivac\)"),
            ("find_and_defeat_zerglings", {1: ("overlord",) * 25}, "team 2 has nobody armed"),
        ],
    )
    def test_a_battle_that_would_be_over_at_once(self, name, changes, message):
        """Without anybody armed a side is out of the fight: that would score, or bring the next wave."""
        scenario = load_scenario(name)
        teams = list(scenario.teams)
        for i, units in changes.items():
            teams[i] = replace(teams[i], groups=(replace(teams[i].groups[0], units=units),))
        with pytest.raises(ScenarioError, match=message):
            replace(scenario, teams=tuple(teams))

    def test_more_ground_than_ways_can_be_found_on(self):
        rows = ("." * 60,) * 50
        with pytest.raises(ScenarioError, match=r"3000 cells of ground .*; at most 2500 are supported"):
            arena(*rows, first="marine", second="marine")


class TestSymmetry:
    @pytest.mark.parametrize(
        ("points", "symmetric"),
        [
            ([(5, 10), (27, 20), (27, 10), (5, 20)], True),  # reflected
            ([(5, 10), (27, 22), (27, 22), (5, 10)], True),  # rotated about (16, 16)
            ([(5, 10), (5, 22), (5, 22), (5, 10)], True),  # reflected, south to north
            ([(5, 10), (27, 20), (27, 10), (5, 12)], False),  # spawns reflected, attack points rotated
            ([(5, 10), None, (27, 10), None], True),
            ([(5, 10), (27, 10), (27, 10), None], False),
        ],
    )
    def test_one_symmetry_must_hold_for_all_points(self, points, symmetric):
        spawn0, attack0, spawn1, attack1 = points
        teams = (Team((Group(("marine",), spawn0),), attack0), Team((Group(("marine",), spawn1),), attack1))
        assert Scenario("s", 32, 32, (0, 0, 32, 32), teams, 60).symmetric == symmetric

    @pytest.mark.parametrize(
        ("theirs", "symmetric"),
        [
            ([("zealot", (27, 10)), ("stalker", (22, 12))], True),
            ([("stalker", (22, 12)), ("zealot", (27, 10))], True),  # in whatever order
            ([("stalker", (27, 10)), ("zealot", (22, 12))], False),  # types exchanged
            ([("zealot", (27, 10)), ("stalker", (22, 20))], False),  # one reflected, one turned
            ([("zealot", (27, 10))], False),
            ([("zealot", (27, 10)), ("stalker", (22, 12)), ("stalker", (22, 14))], False),
        ],
    )
    def test_groups_must_match_one_by_one(self, theirs, symmetric):
        ours = [("zealot", (5, 10)), ("stalker", (10, 12))]
        teams = tuple(Team(tuple(Group((u,), at) for u, at in side), None) for side in (ours, theirs))
        assert Scenario("s", 32, 32, (0, 0, 32, 32), teams, 60).symmetric == symmetric

    @pytest.mark.parametrize(
        ("rows", "symmetric"),
        [
            (("........", "..#..#..", "........"), True),  # reflected
            ((".#......", "........", "......#."), True),  # turned
            ((".#......", "........", "........"), False),
            ((".0......", "........", "........"), True),  # "." is height 0
            ((".~....1.", "........", "........"), False),  # smoke and a height
            (("..~.....", "........", ".....~.."), True),
        ],
    )
    def test_terrain_counts(self, rows, symmetric):
        assert (
            arena(
                *rows[:1], "........", *rows[1:2], "........", *rows[2:], first="marine", second="marine"
            ).symmetric
            == symmetric
        )

    def test_terrain_outside_the_playable_area_does_not(self):
        scenario = arena(*["........"] * 4, first="marine", second="marine")
        uneven = replace(scenario, height=5, playable=(0, 0, 8, 5), terrain=("#.......", *scenario.terrain))
        assert not uneven.symmetric
        assert replace(uneven, playable=(0, 0, 8, 4)).symmetric
