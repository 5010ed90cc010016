"""The engine's own players: who is drawn, that they keep to agents' rules, and what each is good for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from envs.battle.batch import BattleBatch, Outcome
from envs.battle.command import command
from envs.battle.compiled import compiled
from envs.battle.movement import slide
from envs.battle.rules import Rules
from envs.battle.state import ATTACK, ATTACK_MOVE, HOLD, MOVE, State
from envs.battle.tactics import ENGINE_PLAYERS, HELD_OUT, POOLS, TRAINING, Tactic, engine_player, tactics_of
from envs.scenarios import Group, Scenario, Team, load_scenario
from envs.unit_set import FIRST_TARGET_VERB, Verb

LABELS = [tactic.label for tactic in Tactic]
COMMANDED = [tactic for tactic in Tactic if tactic is not Tactic.ATTACK_MOVE]


@compiled
def command_all(rules: Rules, state: State, side: int, tactic: int) -> None:
    """What a step begins with in every battle of which ``tactic`` plays a side."""
    for b in range(state.battles.shape[0]):
        command(rules, state.battles[b], state.units[b], side, tactic)


def play(
    scenario: Scenario | str, first: str, second: str, games: int = 200, seed: int = 5
) -> NDArray[np.int8]:
    """Outcomes of battles between two of the engine's players."""
    batch = BattleBatch(scenario, games, builtin=(first, second), auto_reset="off", seed=seed)
    while not (result := batch.step(None, None)).done.all():
        pass
    return result.outcome.copy()


def wins(scenario: Scenario | str, first: str, second: str, games: int = 200) -> float:
    """Share of battles that ``first`` wins, as the first side."""
    return float((play(scenario, first, second, games) == Outcome.WIN_0).mean())


def mirrored(scenario: str) -> Scenario:
    """The scenario with its teams exchanged."""
    original = load_scenario(scenario)
    return replace(original, teams=original.teams[::-1])


def meet(first: list[tuple[dict, tuple]], second: list[tuple[dict, tuple]], **changes) -> Scenario:
    """A battle of groups ({unit: count}, (x, y)) on an open field 48 cells wide; both attack the other's
    first group."""
    teams = []
    for groups, enemy in ((first, second), (second, first)):
        units = [tuple(name for name, count in group.items() for _ in range(count)) for group, _ in groups]
        places = [place for _, place in groups]
        teams.append(Team(tuple(map(Group, units, places)), enemy[0][1]))
    settings = {"step_limit": 200, "spawn_jitter": 1.0} | changes
    return Scenario("test", 48, 32, (0.0, 0.0, 48.0, 32.0), (teams[0], teams[1]), **settings)


def test_held_out_tactics_are_never_trained_against() -> None:
    assert set(TRAINING) | set(HELD_OUT) == set(Tactic)
    assert not set(TRAINING) & set(HELD_OUT)
    assert (tactics_of("mixed"), tactics_of("black-box")) == (TRAINING, HELD_OUT)
    batch = BattleBatch("3m", 800, builtin=("mixed", "black-box"), auto_reset="same_step", seed=1)
    drawn = [batch.tactics]
    for _ in range(70):
        batch.step(None, None)
        drawn.append(batch.tactics)
    assert (drawn[0] != drawn[-1]).any()  # every battle draws anew
    for side, pool in enumerate((TRAINING, HELD_OUT)):
        assert {Tactic(t) for t in np.unique([tactics[:, side] for tactics in drawn])} == set(pool)
        for tactic in pool:
            count = int((drawn[0][:, side] == tactic).sum())
            assert binomtest(count, 800, 1 / len(pool)).pvalue > 1e-4


def test_who_plays_is_told() -> None:
    batch = BattleBatch("3m", 2, builtin=(None, "builtin"))
    assert batch.builtin == (None, "attack-move")
    assert batch.tactics.tolist() == [[-1, Tactic.ATTACK_MOVE]] * 2
    assert BattleBatch("3m", 1).builtin == (None, "attack-move")
    with pytest.raises(ValueError, match=r"side 1 is played by the engine"):
        batch.step(np.zeros((2, 3, 2), np.int64), np.zeros((2, 3, 2), np.int64))


@pytest.mark.parametrize("name", ["kitte", "", True, "Attack-Move"])
def test_unknown_players_are_refused_with_the_names_there_are(name: object) -> None:
    with pytest.raises(
        ValueError, match=r"the engine has no player .*: attack-move, .*, ambush, mixed, black-box"
    ):
        BattleBatch("3m", 1, builtin=(None, name))
    assert all(engine_player(known) == known for known in ENGINE_PLAYERS)


def test_the_opponent_does_not_change_the_start() -> None:
    """The same seed puts everybody in the same place, whoever plays and however it was drawn."""
    starts = []
    for name in (None, "attack-move", "kite", *POOLS):
        batch = BattleBatch("2s3z", 5, builtin=(None, name), seed=3)
        starts.append(
            b"".join(batch.state.units[field].tobytes() for field in ("x", "y", "facing_x", "type"))
        )
    assert len(set(starts)) == 1


@pytest.mark.parametrize("name", ["mixed", "black-box", "retreat-regroup"])
def test_battles_do_not_depend_on_those_beside_them(name: str) -> None:
    together = BattleBatch("2s3z", 7, builtin=(name, "mixed"), auto_reset="same_step", seed=11, num_threads=2)
    alone = [BattleBatch("2s3z", 1, builtin=(name, "mixed"), auto_reset="same_step") for _ in range(7)]
    for b, batch in enumerate(alone):
        batch.reset(together.seeds[b : b + 1])
    for _ in range(150):
        together.step(None, None)
        for batch in alone:
            batch.step(None, None)
    for b, batch in enumerate(alone):
        for field in ("x", "y", "health", "shield", "cooldown", "order", "plan"):
            np.testing.assert_array_equal(together.state.units[field][b], batch.state.units[field][0], field)
        assert together.tactics[b].tolist() == batch.tactics[0].tolist()


@pytest.mark.parametrize("tactic", COMMANDED, ids=lambda tactic: tactic.label)
@pytest.mark.parametrize("scenario", ["2s3z", "3s_vs_5z", "MMM", "2c_vs_64zg", "bane_vs_bane"])
def test_orders_are_those_an_agent_could_give(tactic: Tactic, scenario: str) -> None:
    """Asked beside a batch whose sides both observe, a player's every order is one the masks allow; and a
    batch that the engine plays goes the same way."""
    told = BattleBatch(scenario, 3, builtin=(None, None), auto_reset="off", seed=2)
    played = BattleBatch(scenario, 3, builtin=(tactic.label, tactic.label), auto_reset="off", seed=2)
    units = told.state.units
    units["order"][:] = played.state.units["order"]  # the one order that is given at the start
    idle = [np.zeros((3, size, 2), np.int64) for size in told.team_sizes]
    kinds = set()
    for _ in range(110):
        masks = [told.masks(side) for side in (0, 1)]
        running = told.state.battles["outcome"] == Outcome.RUNNING
        for side, own in enumerate(
            (slice(0, told.team_sizes[0]), slice(told.team_sizes[0], sum(told.team_sizes)))
        ):
            before = units.copy()
            command_all(told.rules, told.state, side, tactic)
            changed = (units["order"] != before["order"]) | (units["engaged"] != before["engaged"])
            changed |= (units["goal_x"] != before["goal_x"]) | (units["goal_y"] != before["goal_y"])
            assert not np.delete(changed, np.arange(told.num_units)[own], axis=1).any()
            for b, i in np.argwhere(changed[:, own] & running[:, None]):
                verbs, target = order_of(told, units[b, i + own.start])
                allowed = [verb for verb in verbs if masks[side]["verb_mask"][b, i, verb]]
                assert allowed, (verbs, scenario)
                verb = allowed[0]
                kinds.add(verb)
                if verb == Verb.ATTACK:
                    row = int(np.flatnonzero(told.rules.rows[side] == target)[0])
                    assert masks[side]["target_mask"][b, i, verb - FIRST_TARGET_VERB, row]
        told.step(*idle)
        played.step(None, None)
        for field in ("x", "y", "health", "shield", "order"):
            np.testing.assert_array_equal(units[field][running], played.state.units[field][running], field)
    assert Verb.ATTACK in kinds


def order_of(batch: BattleBatch, unit: np.void) -> tuple[list[Verb], int]:
    """The verb and target unit that a unit which has just been told something was told; in a corner, the
    directions that lead to the same place."""
    if unit["order"] == MOVE:
        ways = np.array([unit["x"], unit["y"]]) + 2.0 * batch.rules.directions
        if batch.scenario.terrain is not None and not batch.scenario.unit_types[unit["type"]].flying:
            ways = np.array([slide(batch.rules, unit, x, y) for x, y in ways])  # walls cut a move short
        errors = np.abs(ways - [unit["goal_x"], unit["goal_y"]]).max(1)
        assert errors.min() < 1e-9
        return [Verb(int(Verb.MOVE_NORTH) + int(d)) for d in np.flatnonzero(errors < 1e-9)], -1
    verb = {HOLD: Verb.HOLD, ATTACK: Verb.ATTACK, ATTACK_MOVE: Verb.ATTACK_MOVE}[int(unit["order"])]
    return [verb], int(unit["engaged"])


@pytest.mark.parametrize("label", LABELS)
def test_no_side_is_favoured(label: str) -> None:
    outcome = play("8m", label, label, games=300)
    first, second = int((outcome == Outcome.WIN_0).sum()), int((outcome == Outcome.WIN_1).sum())
    assert first + second >= 290
    assert binomtest(first, first + second).pvalue > 1e-3


def test_strengths_of_attack_move() -> None:
    for scenario in ("3m", "8m", "2s3z"):
        easy, medium, plain = (
            wins(scenario, name, "attack-move", 400)
            for name in ("attack-move-easy", "attack-move-medium", "attack-move")
        )
        assert easy + 0.1 < medium < plain - 0.05, scenario
    assert wins("8m", "attack-move-hard", "attack-move", 400) > 0.58


def test_focus_fire_beats_attack_move() -> None:
    assert wins("3m", "focus-fire", "attack-move") > 0.6
    assert 1.0 - wins("8m", "attack-move", "focus-fire") > 0.6


def test_kiting_beats_melee_from_either_side() -> None:
    assert wins("3s_vs_5z", "kite", "attack-move", 100) > 0.9
    assert (play(mirrored("3s_vs_5z"), "attack-move", "kite", 100) == Outcome.WIN_1).mean() > 0.9
    assert wins("3s_vs_5z", "focus-fire", "attack-move", 100) < 0.05


def test_splitting_beats_splash() -> None:
    """Where banelings reach marines that stand close, one blast kills many."""
    scenario = meet([({"marine": 10}, (10.0, 16.0))], [({"baneling": 5, "zergling": 6}, (38.0, 16.0))])
    assert wins(scenario, "attack-move", "attack-move", 100) < 0.1
    assert wins(scenario, "split", "attack-move", 100) > 0.7


def test_falling_back_to_comrades_beats_arriving_one_by_one() -> None:
    strung_out = meet(
        [({"marine": 4}, (20.0, 16.0)), ({"marine": 4}, (6.0, 16.0))], [({"marine": 7}, (38.0, 16.0))]
    )
    assert wins(strung_out, "attack-move", "attack-move", 300) < 0.6
    assert wins(strung_out, "retreat-regroup", "attack-move", 300) > 0.7


def test_held_out_tactics_are_worth_meeting() -> None:
    for tactic in HELD_OUT:
        assert wins("8m", tactic.label, "attack-move", 300) > 0.6, tactic.label


def test_who_is_outnumbered_falls_back() -> None:
    """A marine before four enemies walks away from them, to comrades 12 cells behind; one before a single
    enemy attacks."""
    scenario = meet([({"marine": 5}, (10.0, 16.0))], [({"marine": 4}, (38.0, 16.0))], spawn_jitter=0.0)
    batch = BattleBatch(scenario, 1, builtin=(None, None), auto_reset="off")
    units = batch.state.units
    units["x"][0], units["y"][0] = (
        [22.0, *[10.0] * 4, *[28.0] * 4],
        [16.0, 13.0, 14.0, 17.0, 18.0, 14.0, 15.0, 17.0, 18.0],
    )
    batch.refresh()
    command_all(batch.rules, batch.state, 0, Tactic.RETREAT_REGROUP)
    assert units["order"][0, 0] == MOVE
    assert (units["goal_x"] - units["x"])[0, 0] == pytest.approx(-2.0)
    units["alive"][0, 6:] = False
    units["plan"][0] = 0
    batch.refresh()
    command_all(batch.rules, batch.state, 0, Tactic.RETREAT_REGROUP)
    assert (units["order"][0, 0], units["engaged"][0, 0]) == (ATTACK, 5)


def test_volleys_are_not_wasted() -> None:
    """Of three marines before an enemy with two volleys' health, the third takes the one behind it."""
    scenario = meet([({"marine": 3}, (10.0, 16.0))], [({"marine": 2}, (38.0, 16.0))], spawn_jitter=0.0)
    batch = BattleBatch(scenario, 1, builtin=(None, None), auto_reset="off")
    units = batch.state.units
    units["x"][0], units["y"][0] = [10.0, 10.0, 10.0, 13.0, 13.0], [15.0, 16.0, 17.0, 16.0, 18.0]
    units["health"][0, 3] = 12.0
    batch.refresh()
    command_all(batch.rules, batch.state, 0, Tactic.FOCUS_FIRE)
    assert units["engaged"][0, :3].tolist() == [3, 3, 4]
    units["cooldown"][0, 0] = 12.0  # who cannot shoot in this step kills nobody in it
    command_all(batch.rules, batch.state, 0, Tactic.FOCUS_FIRE)
    assert units["engaged"][0, :3].tolist() == [3, 3, 3]


def test_nobody_shoots_at_what_is_not_seen() -> None:
    """Out of everybody's sight, an enemy is neither attacked nor fled from."""
    scenario = meet([({"stalker": 2}, (10.0, 16.0))], [({"zealot": 2}, (38.0, 16.0))], spawn_jitter=0.0)
    batch = BattleBatch(scenario, 1, builtin=(None, None), auto_reset="off")
    for tactic in (Tactic.KITE, Tactic.FOCUS_FIRE, Tactic.HIT_AND_RUN):
        batch.reset([1])
        command_all(batch.rules, batch.state, 0, tactic)
        assert (batch.state.units["order"][0, :2] == ATTACK_MOVE).all()
