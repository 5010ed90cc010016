"""Scripts give legal orders to anybody, and stand on the ladder where they should."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.scripted import SCRIPTS, ScriptedAgent, baselines
from envs.battle.batch import BattleBatch, Outcome
from envs.scenarios import Preset, load_scenario, scenario_names
from envs.unit_set import (
    FEATURE_INDEX,
    MOVE_VERBS,
    NUM_TARGET_VERBS,
    NUM_UNIT_FEATURES,
    NUM_VERBS,
    UNIT_FEATURES,
    Verb,
    validate_orders,
)
from training.evaluate import evaluate

ATTACK = 0  # index of ATTACK among the targeting verbs


def wins(script: str, scenario: str, games: int = 200, side: int = 0, opponent: str | None = None) -> float:
    """Share of battles that the script wins from a side, against the engine or another script."""
    enemy = "attack-move" if opponent is None else None
    builtin = (None, enemy) if side == 0 else (enemy, None)
    batch = BattleBatch(scenario, games, builtin=builtin, auto_reset="off", seed=5)
    players = [ScriptedAgent(script, seed=1), None if opponent is None else ScriptedAgent(opponent, seed=2)]
    if side == 1:
        players.reverse()
    while True:
        orders = [p and p.act(o) for p, o in zip(players, batch.observations, strict=True)]
        result = batch.step(*orders)
        if result.done.all():
            return float((result.outcome == (Outcome.WIN_0, Outcome.WIN_1)[side]).mean())


def observe(own: list[dict], enemies: list[dict]) -> dict[str, NDArray]:
    """One team's observation of units given by features in physical units; all enemies can be attacked."""
    count = len(own) + len(enemies)
    units = np.zeros((count, NUM_UNIT_FEATURES), np.float32)
    defaults = {"health": 45.0, "radius": 0.375, "weapon_range": 5.0, "volley": 6.0, "speed": 1.125}
    for row, given in enumerate([*own, *enemies]):
        side = "own" if row < len(own) else "enemy"
        for name, value in (defaults | {side: 1.0} | given).items():
            index = FEATURE_INDEX[name]
            units[row, index] = value / UNIT_FEATURES[index].scale
    target_mask = np.zeros((len(own), NUM_TARGET_VERBS, count), np.bool_)
    target_mask[:, ATTACK, len(own) :] = True
    verb_mask = np.ones((len(own), NUM_VERBS), np.bool_)
    verb_mask[:, Verb.ABILITY] = False
    verb_mask[:, Verb.ATTACK] = bool(enemies)
    return {
        "units": units,
        "unit_mask": np.ones(count, np.bool_),
        "controlled": np.arange(len(own)),
        "controlled_mask": np.ones(len(own), np.bool_),
        "verb_mask": verb_mask,
        "target_mask": target_mask,
    }


def order(script: str, own: list[dict], enemies: list[dict]) -> list[tuple[int, int]]:
    """What each unit is told."""
    return [tuple(o) for o in ScriptedAgent(script).act(observe(own, enemies)).tolist()]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("control", ["team", "unit"])
def test_orders_are_legal_on_either_side(script: str, control: str) -> None:
    batch = BattleBatch("2s3z", 4, builtin=(None, None), control=control)
    agents = [ScriptedAgent(script, seed=side) for side in (0, 1)]
    for _ in range(60):
        orders = [agent.act(o) for agent, o in zip(agents, batch.observations, strict=True)]
        for given, observation in zip(orders, batch.observations, strict=True):
            validate_orders(given, observation)
        batch.step(*(o.reshape(4, 5, 2) for o in orders))


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "random"])
def test_batched_answers_are_those_to_each_battle(script: str) -> None:
    batch = BattleBatch("3s_vs_5z", 5)
    agent = ScriptedAgent(script)
    for _ in range(25):
        orders = agent.act(batch.observations[0])
        for b in range(5):
            alone = agent.act({key: array[b] for key, array in batch.observations[0].items()})
            np.testing.assert_array_equal(alone, orders[b])
        batch.step(orders)


def test_random_repeats_with_its_seed() -> None:
    observation = BattleBatch("8m", 3).observations[0]
    agent = ScriptedAgent("random", seed=3)
    first, second = agent.act(observation), agent.act(observation)
    assert (first != second).any()
    agent.reset(3)
    np.testing.assert_array_equal(agent.act(observation), first)


@pytest.mark.parametrize("script", SCRIPTS)
def test_orders_are_legal_in_every_scenario(script: str) -> None:
    """On both sides, under both presets, of a team and of single units; the engine refuses what is not."""
    for name in scenario_names():
        scenario = load_scenario(name)
        if scenario.num_units > 120:
            continue  # no other units than those of battle_25v25
        both = scenario.teams[1].size > 0
        for preset, control in product(Preset, ("team", "unit")):
            builtin = (None, None if both else "attack-move")
            batch = BattleBatch(replace(scenario, preset=preset), 2, builtin=builtin, control=control, seed=3)
            agents = [ScriptedAgent(script, seed=side) for side in range(1 + both)]
            for _ in range(6 if control == "team" else 2):
                orders = [agent.act(o) for agent, o in zip(agents, batch.observations, strict=False)]
                batch.step(*(o.reshape(2, -1, 2) for o in orders))


def smacs(own: list[dict], enemies: list[dict], aim: float = 6.0) -> dict[str, NDArray]:
    """The same under SMAC's preset: near enemies can be attacked, there are four directions and no NO_OP."""
    observation = observe(own, enemies)
    verbs, targets = observation["verb_mask"], observation["target_mask"][:, ATTACK]
    position = observation["units"][:, [FEATURE_INDEX["x"], FEATURE_INDEX["y"]]]
    offset = position[: len(own), None] - position
    targets &= np.hypot(offset[..., 0], offset[..., 1]) <= aim
    verbs[:, [Verb.NO_OP, Verb.HOLD, Verb.ATTACK_MOVE, *MOVE_VERBS[1::2]]] = False
    verbs[:, Verb.ATTACK] = targets.any(-1)
    return observation


def test_without_attack_move_units_walk_to_the_nearest_enemy() -> None:
    marine = {"x": 10.0, "y": 10.0, "facing_cos": 1.0}
    for script in ("attack-move", "closest", "focus-fire", "kite", "search"):
        agent = ScriptedAgent(script)
        told = agent.act(smacs([marine], [{"x": 15.0, "y": 18.0}, {"x": 30.0, "y": 10.0}]))
        assert told.tolist() == [[Verb.MOVE_NORTH, 0]]
        assert agent.act(smacs([marine], [{"x": 15.0, "y": 10.0}])).tolist() == [[Verb.ATTACK, 1]]
        assert agent.act(smacs([marine], [])).tolist() == [[Verb.MOVE_EAST, 0]]  # where it faces
        at_a_wall = smacs([marine], [])
        at_a_wall["verb_mask"][:, Verb.MOVE_EAST] = False
        assert agent.act(at_a_wall).tolist() == [[Verb.MOVE_SOUTH, 0]]  # to the right, along it


def test_without_no_op_a_begun_attack_goes_on() -> None:
    """On the one that the unit looks at, not on the weaker one."""
    marine = {"x": 10.0, "y": 10.0, "winding_up": 1.0, "facing_cos": 0.0, "facing_sin": 1.0}
    observation = smacs([marine], [{"x": 13.0, "y": 10.0, "health": 1.0}, {"x": 10.5, "y": 14.0}])
    for script in ("closest", "focus-fire", "kite"):
        assert ScriptedAgent(script).act(observation).tolist() == [[Verb.ATTACK, 2]]


def healer(own: list[dict], hurt: list[int], where: dict) -> list[int]:
    """What a medivac that comes last is told, with some rows to heal."""
    medivac = {"volley": 0.0, "weapon_range": 0.0, "energy": 50.0, "flying": 1.0} | where
    observation = observe([*own, medivac], [{"x": 30.0, "y": 10.0}])
    observation["target_mask"][-1] = False
    observation["target_mask"][-1, 1, hurt] = True
    observation["verb_mask"][-1, [Verb.ATTACK, Verb.ABILITY]] = [False, bool(hurt)]
    orders = {
        script: ScriptedAgent(script).act(observation)[-1] for script in ("closest", "focus-fire", "kite")
    }
    assert len({tuple(order) for order in orders.values()}) == 1
    return orders["closest"].tolist()


def test_healers_heal_who_is_hurt_most_in_reach() -> None:
    near = {"x": 12.0, "y": 10.0, "health_ratio": 0.7}
    worse = {"x": 13.0, "y": 10.0, "health_ratio": 0.4}
    far = {"x": 20.0, "y": 10.0, "health_ratio": 0.1}
    medivac = {"x": 10.0, "y": 10.0}
    assert healer([near, worse, far], [0, 1, 2], medivac) == [Verb.ABILITY, 1]
    assert healer([near, worse, far], [2], medivac) == [Verb.ABILITY, 2]


def test_healers_stay_with_those_who_fight() -> None:
    marine = {"x": 20.0, "y": 10.0}
    assert healer([marine], [], {"x": 10.0, "y": 10.0}) == [Verb.MOVE_EAST, 0]
    assert healer([marine], [], {"x": 19.0, "y": 10.0}) == [Verb.HOLD, 0]
    assert healer([], [], {"x": 10.0, "y": 10.0}) == [Verb.ATTACK_MOVE, 0]


def test_a_medivac_follows_the_army() -> None:
    """It is never ahead of all marines and marauders, and it heals."""
    batch = BattleBatch("MMM", 20, auto_reset="off", seed=2)
    agent = ScriptedAgent("focus-fire")
    healed = 0
    units = batch.state.units
    healer = next(i for i in range(10) if batch.scenario.teams[0].units[i] == "medivac")
    for _ in range(25):
        orders = agent.act(batch.observations[0])
        healed += int((orders[:, healer, 0] == Verb.ABILITY).sum())
        batch.step(orders)
        fighting = units["alive"][:, :10] & (np.arange(10) != healer)
        front = np.where(fighting, units["x"][:, :10], -np.inf).max(1)
        there = units["alive"][:, healer] & fighting.any(1)
        assert (units["x"][there, healer] <= front[there] + 1.0).all()
    assert healed > 20


def neutral(own: list[dict], things: list[tuple[float, float]]) -> list[int]:
    """The verbs of units that collect."""
    observation = observe(own, [{"x": x, "y": y} for x, y in things])
    observation["units"][len(own) :, FEATURE_INDEX["enemy"]] = 0.0
    observation["target_mask"][:] = False
    observation["verb_mask"][:, Verb.ATTACK] = False
    return ScriptedAgent("collect").act(observation)[:, 0].tolist()


def test_collect_walks_to_the_nearest_and_shares_out() -> None:
    left, right = {"x": 10.0, "y": 10.0}, {"x": 20.0, "y": 10.0}
    assert neutral([left], [(10.0, 15.0), (4.0, 10.0)]) == [Verb.MOVE_NORTH]
    # Both on the left's side: it takes the nearer one to itself, and the right unit goes for what is there.
    assert neutral([left, right], [(10.0, 12.0), (14.0, 10.0)]) == [Verb.MOVE_NORTH, Verb.MOVE_WEST]
    # The shard in the middle is nearer to the right unit: the left one goes for its own, farther one.
    assert neutral([left, right], [(15.5, 10.0), (3.0, 10.0)]) == [Verb.MOVE_WEST, Verb.MOVE_WEST]
    assert neutral([left], []) == [Verb.STOP]


def test_missions_have_scripts_that_do_what_is_asked() -> None:
    beacons = evaluate(ScriptedAgent("collect"), None, "move_to_beacon", games=60)
    assert 23 < beacons.mean < 29  # published: 25 to 28
    assert evaluate(ScriptedAgent("random"), None, "move_to_beacon", games=60).mean < 2
    shards = evaluate(ScriptedAgent("collect"), None, "collect_mineral_shards", games=30)
    apart = evaluate(ScriptedAgent("collect"), None, "collect_mineral_shards", games=30, control="unit")
    assert min(shards.mean, apart.mean) > 100
    for preset in ("", "@smac"):
        hunts = evaluate(ScriptedAgent("search"), None, f"find_and_defeat_zerglings{preset}", games=30)
        assert hunts.mean > 12


def test_baselines_fit_the_scenario() -> None:
    always = {"hold", "random", "attack-move", "closest", "focus-fire", "kite"}
    assert {*baselines(load_scenario("3m"))} == always
    assert {*baselines(load_scenario("move_to_beacon"))} == always | {"collect"}
    assert {*baselines(load_scenario("find_and_defeat_zerglings"))} == always | {"search"}
    assert {*baselines(load_scenario("defeat_roaches"))} == always


def test_closest_attacks_the_closest() -> None:
    enemies = [{"x": 12.0, "y": 10.0}, {"x": 10.0, "y": 13.0}]
    assert order("closest", [{"x": 10.0, "y": 10.0}], enemies) == [(Verb.ATTACK, 1)]


def test_attack_moves_while_nobody_is_seen() -> None:
    for script in ("closest", "focus-fire", "kite"):
        assert order(script, [{"x": 10.0, "y": 10.0}], []) == [(Verb.ATTACK_MOVE, 0)]


def test_focus_fire_takes_the_weakest_without_overkill() -> None:
    own = [{"x": 10.0, "y": y} for y in (9.0, 10.0, 11.0)]
    enemies = [{"x": 13.0, "y": 10.0, "health": 30.0}, {"x": 13.0, "y": 11.0, "health": 9.0}]
    # Two volleys of 6 kill the one with 9 left; the third goes to the other.
    assert order("focus-fire", own, enemies) == [(Verb.ATTACK, 4), (Verb.ATTACK, 4), (Verb.ATTACK, 3)]
    # A unit that cannot shoot in this step kills nobody in it.
    own[0]["weapon_cooldown"] = 12.0
    assert order("focus-fire", own, enemies) == [(Verb.ATTACK, 4)] * 3


def test_an_attack_that_has_begun_is_left_alone() -> None:
    own = [{"x": 10.0, "y": 10.0, "winding_up": 1.0}]
    for script in ("closest", "focus-fire", "kite"):
        assert order(script, own, [{"x": 11.0, "y": 10.0, "weapon_range": 0.1}]) == [(Verb.NO_OP, 0)]


def test_who_is_ahead_waits() -> None:
    own = [{"x": 10.0, "y": 10.0}, {"x": 5.0, "y": 10.0}]
    assert order("focus-fire", own, [{"x": 20.0, "y": 10.0}]) == [(Verb.HOLD, 0), (Verb.ATTACK, 2)]


def test_ranged_units_do_not_wait_for_melee_units() -> None:
    stalkers = [{"x": x, "y": 10.0, "weapon_range": 6.0} for x in (10.0, 4.0)]
    zealot = {"x": 8.0, "y": 10.0, "weapon_range": 0.1}
    orders = order("focus-fire", [*stalkers, zealot], [{"x": 20.0, "y": 10.0}])
    assert orders == [(Verb.HOLD, 0), (Verb.ATTACK, 3), (Verb.ATTACK, 3)]  # for the other stalker
    assert order("focus-fire", [stalkers[0], zealot], [{"x": 20.0, "y": 10.0}]) == [(Verb.ATTACK, 2)] * 2


def test_mixed_teams_do_not_deadlock() -> None:
    batch = BattleBatch("3s5z", 100, builtin=(None, None), auto_reset="off", seed=5)
    players = [ScriptedAgent("focus-fire") for _ in range(2)]
    outcome = np.zeros(100)
    while (outcome == Outcome.RUNNING).any():
        orders = [player.act(o) for player, o in zip(players, batch.observations, strict=True)]
        outcome = batch.step(*orders).outcome
    assert (outcome == Outcome.TIMEOUT).mean() <= 0.05


def test_kite_backs_off_while_the_weapon_cools_down() -> None:
    ready = {"x": 10.0, "y": 10.0, "weapon_range": 6.0}
    zealot = {"x": 13.0, "y": 10.0, "weapon_range": 0.1, "radius": 0.5, "speed": 0.9}
    assert order("kite", [ready], [zealot]) == [(Verb.ATTACK, 1)]
    assert order("kite", [ready | {"weapon_cooldown": 20.0}], [zealot]) == [(Verb.MOVE_WEST, 0)]
    assert order("kite", [ready], [zealot | {"x": 11.5}]) == [(Verb.MOVE_WEST, 0)]  # it would be hit
    # Who cannot outrun it shoots whenever it can; who can do no harm is not run from.
    assert order("kite", [ready], [zealot | {"x": 11.5, "speed": 1.125}]) == [(Verb.ATTACK, 1)]
    medivac = zealot | {"volley": 0.0, "flying": 1.0}
    assert order("kite", [ready | {"weapon_cooldown": 20.0}], [medivac]) == [(Verb.ATTACK, 1)]
    equal = zealot | {"weapon_range": 6.0}
    assert order("kite", [ready | {"weapon_cooldown": 20.0}], [equal]) == [(Verb.ATTACK, 1)]


def test_ladder_on_symmetric_marines() -> None:
    for scenario in ("3m", "8m"):
        rates = {script: wins(script, scenario) for script in baselines(load_scenario(scenario))}
        assert rates["random"] <= 0.02
        assert rates["hold"] <= 0.1
        assert abs(rates["attack-move"] - 0.5) < 0.12  # the enemy's own orders
        assert rates["focus-fire"] > rates["closest"]
        assert rates["kite"] == rates["focus-fire"]  # nobody has shorter range


def test_kiting_is_worth_it_under_smacs_preset() -> None:
    assert wins("kite", "3s_vs_5z@smac", games=60) > 0.8
    assert wins("focus-fire", "3s_vs_5z@smac", games=60) < 0.1


def test_kiting_beats_melee_chasers() -> None:
    assert wins("kite", "3s_vs_5z", games=100) > 0.9
    assert wins("focus-fire", "3s_vs_5z", games=100) < 0.05


def test_both_sides_are_played_equally_well() -> None:
    first, second = (wins("focus-fire", "8m", games=400, side=side) for side in (0, 1))
    assert abs(first - second) < 0.12


def test_scripts_play_each_other() -> None:
    assert wins("focus-fire", "3m", opponent="random") > 0.95


def test_unknown_script_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown script 'kit'; nearest: kite"):
        ScriptedAgent("kit")
