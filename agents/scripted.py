"""Scripted agents: the baselines a learned policy has to beat, and opponents to train against.

Each script is a pure function of an observation of the unit-set contract and a random generator, over any
leading dimensions, for either side, for a team and for a single unit alike. It knows what the observation
tells and nothing else.

    hold          stand, shoot what comes into range
    random        any legal order
    attack-move   towards the scenario's attack point, fighting what is met: the built-in enemy's own order
    closest       attack the closest enemy
    focus-fire    attack the weakest enemy in reach, with no more of us than it takes to kill it
    kite          focus-fire, but keep away from enemies of shorter range while the weapon cools down
    search        focus-fire, but walk the map along its edges until an enemy is seen
    collect       walk to the nearest beacon or shard, sharing them out

closest, focus-fire and kite attack-move until an enemy is seen and then close in on the closest, together:
who is ahead of comrades of like range waits for them. They do not disturb an attack that has begun. Healers
heal whoever in reach is hurt most and else stay with the nearest comrade that fights.

Where there is no attack-move (SMAC's preset) a unit goes for the nearest enemy seen, and while none is seen
walks on where it faces: at the start towards the enemy's side, later where it last fought.

Kiting's numbers were tuned on 3s_vs_5z and are frozen: a baseline that moves is none.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from agents.base import Observation, Orders
from agents.situation import (
    DIRECTIONS,
    MOVES,
    Bools,
    Indices,
    Situation,
    as_orders,
    nearest,
)
from envs.scenarios import MissionKind, Scenario
from envs.unit_set import FIRST_TARGET_VERB, LOOPS_PER_STEP, Verb, random_orders

Script: TypeAlias = Callable[[Observation, np.random.Generator], Orders]

LINE_DEPTH = 0.7
"""Map cells, times the square root of the team's size, that a unit may be ahead of the last one of like
range: as deep as a formation is."""
MIN_DAMAGE = 0.5
"""Least damage of a hit after armour."""
HEAL_REACH = 4.5
"""Map cells, edge to edge, within which a healer chooses whom to heal: its range and a little."""
ACCOMPANY = 2.5
"""Map cells, edge to edge, from a comrade that fights within which a healer stays."""

KITE_RANGE_ADVANTAGE = 0.5
"""Map cells by which our range must exceed an enemy's for us to keep away from it."""
KITE_READY = 4.0
"""Game loops of cooldown below which a unit thinks of attacking rather than of getting away."""
KITE_SAFE = 1.25
"""Map cells a slower enemy must be short of reaching us for a ready unit to stand and shoot."""
KITE_FAR = 4.0
"""Map cells an enemy must be short of reaching us for a unit that is not ready to stay where it is."""
KITE_LOOKAHEAD = 2.0
"""Map cells ahead at which directions are compared: as far as a move order leads."""
KITE_COMRADES = 0.3
"""How much comrades repel, next to enemies: units that flee together get in each other's way."""
KITE_POWER = 3.0
"""Power of the distance with which repulsion falls."""


def hold(observation: Observation, _: np.random.Generator) -> Orders:
    """Stand, shoot what comes into range."""
    return as_orders(Situation(observation).first_allowed(Verb.HOLD, Verb.STOP))


def attack_move(observation: Observation, _: np.random.Generator) -> Orders:
    """Go where the scenario sends the team, fighting what is met."""
    situation = Situation(observation)
    orders = as_orders(_march(situation))
    return np.where(situation.marches[..., None], orders, _attack(situation, situation.closest))


def closest(observation: Observation, _: np.random.Generator) -> Orders:
    """Attack the closest enemy."""
    situation = Situation(observation)
    return _attack(situation, situation.closest)


def focus_fire(observation: Observation, _: np.random.Generator) -> Orders:
    """Attack the weakest enemy in reach, with no more of us than it takes."""
    situation = Situation(observation)
    return _attack(situation, _assign_targets(situation))


def kite(observation: Observation, _: np.random.Generator) -> Orders:
    """Focus-fire, but keep away from enemies of shorter range.

    A unit whose weapon is ready shoots if no such enemy could get at it meanwhile, or if it could not outrun
    it anyway; one whose weapon cools down keeps its distance. Where nobody has shorter range this is
    focus-fire.
    """
    situation = Situation(observation)
    targets = _assign_targets(situation)
    reach = situation.rows("weapon_range")[..., None, :]
    chaser = (
        situation.enemy[..., None, :]
        & (situation.rows("volley")[..., None, :] > 0)
        & (situation.rows("speed")[..., None, :] > 0)
        & (reach + KITE_RANGE_ADVANTAGE < situation.own("weapon_range")[..., None])
    )
    orders = _attack(situation, targets)
    if not chaser.any():
        return orders
    slower = chaser & (situation.rows("speed")[..., None, :] < situation.own("speed")[..., None])
    short_of_us = situation.gap - reach
    ready = situation.cooldown <= KITE_READY
    flees = np.where(
        ready,
        np.where(slower, short_of_us, np.inf).min(-1) < KITE_SAFE,
        np.where(chaser, short_of_us, np.inf).min(-1) < KITE_FAR,
    )
    escape = _escape(situation, chaser)
    flees &= situation.alive & ~situation.winding_up & (escape >= 0)
    return np.where(flees[..., None], as_orders(escape), orders)


def search(observation: Observation, _: np.random.Generator) -> Orders:
    """Focus-fire, but walk the map along its edges until an enemy is seen."""
    situation = Situation(observation)
    walks = situation.armed & ~situation.enemy.any(-1, keepdims=True)
    onwards = situation.onwards()
    walks &= onwards >= 0
    return np.where(walks[..., None], as_orders(onwards), _attack(situation, _assign_targets(situation)))


def collect(observation: Observation, _: np.random.Generator) -> Orders:
    """Walk to the nearest beacon or shard that no comrade is nearer to; stand where there is none."""
    situation = Situation(observation)
    units = np.stack([situation.rows(axis) for axis in ("x", "y")], axis=-1)
    distance = np.hypot(*np.moveaxis(units[..., :, None, :] - units[..., None, :, :], -1, 0))  # (..., U, U)
    comrades = (situation.rows("own") > 0)[..., None]
    finder = np.where(comrades, distance, np.inf).argmin(-2)  # (..., U) the own row that is nearest to each
    there = situation.neutral[..., None, :]
    mine = there & (finder[..., None, :] == observation["controlled"][..., None])
    row = nearest(np.where(mine.any(-1, keepdims=True), mine, there), situation.gap)
    move = np.where(row >= 0, situation.towards(situation.offset_to(row)), -1)
    return as_orders(np.where((move >= 0) & situation.alive, move, situation.first_allowed(Verb.STOP)))


COLLECT = "collect"
SCRIPTS: Mapping[str, Script] = MappingProxyType(
    {
        "hold": hold,
        "random": random_orders,
        "attack-move": attack_move,
        "closest": closest,
        "focus-fire": focus_fire,
        "kite": kite,
        "search": search,
        COLLECT: collect,
    }
)


def baselines(scenario: Scenario) -> tuple[str, ...]:
    """The scripts that make sense of a scenario: search and collect only where there is that to do."""
    kind = scenario.mission.kind if scenario.mission is not None else None
    fit = {"search": kind is MissionKind.HUNT, COLLECT: kind in (MissionKind.BEACON, MissionKind.SHARDS)}
    return tuple(name for name in SCRIPTS if fit.get(name, True))


class ScriptedAgent:
    """A script with a name and a random stream.

    Args:
        script: a key of :data:`SCRIPTS`.
        seed: of the draws, for scripts that draw.

    Raises:
        ValueError: no such script; the message lists the nearest.
    """

    def __init__(self, script: str, *, seed: int = 0) -> None:
        if script not in SCRIPTS:
            near = difflib.get_close_matches(script, SCRIPTS, n=2, cutoff=0.4)
            hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(SCRIPTS)}"
            raise ValueError(f"unknown script {script!r}; {hint}")
        self.name = f"scripted:{script}"
        self.deterministic = script != "random"
        self.remembers = False
        self._script = SCRIPTS[script]
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Draw from ``seed`` from now on."""
        self._generator = np.random.default_rng(seed)

    def act(self, observation: Observation) -> Orders:
        """Legal orders (..., A, 2)."""
        return self._script(observation, self._generator)


def _attack(situation: Situation, target: Indices) -> Orders:
    """Attack the target rows (..., A); go and look for enemies where they are -1; let those too far ahead
    wait, and those without weapons help."""
    depth = LINE_DEPTH * np.sqrt(situation.alive.sum(-1, keepdims=True))
    waits = ~situation.in_reach.any(-1) & (situation.ahead > depth)
    halt = situation.first_allowed(Verb.HOLD, Verb.STOP)
    verb = np.select([waits, target >= 0], [halt, Verb.ATTACK], default=_march(situation))
    orders = as_orders(verb, target)
    begun = _begun(situation)
    orders = np.where(situation.winding_up[..., None], np.where(begun[..., :1] >= 0, begun, orders), orders)
    helps = situation.alive & ~situation.armed
    return np.where(helps[..., None], _help(situation), orders) if helps.any() else orders


def _march(situation: Situation) -> Indices:
    """(..., A) what a unit does that has nobody to attack: attack-move; where there is no such verb, it goes
    for the nearest enemy out of its reach, or on where it faces."""
    verb = situation.first_allowed(Verb.ATTACK_MOVE, Verb.STOP)
    lacks = situation.alive & ~situation.marches
    if not lacks.any():
        return verb
    row = nearest(np.broadcast_to(situation.enemy[..., None, :], situation.gap.shape), situation.gap)
    move = np.where(row >= 0, situation.towards(situation.offset_to(row)), situation.onwards())
    return np.where(lacks & (move >= 0), move, verb)


def _begun(situation: Situation) -> Orders:
    """(..., A, 2) what lets an attack that has begun go on: nothing, or, of units that may not do nothing,
    the same attack again, on whoever stands where the unit looks; -1 where neither is possible."""
    looks = np.stack([situation.own("facing_cos"), situation.own("facing_sin")], axis=-1)
    along = (situation.offset * looks[..., None, :]).sum(-1) / np.maximum(
        situation.gap + situation.touch, 1e-6
    )
    row = nearest(situation.attackable, -along)
    idle = situation.observation["verb_mask"][..., Verb.NO_OP]
    return as_orders(np.where(idle, Verb.NO_OP, np.where(row >= 0, Verb.ATTACK, -1)), row)


def _help(situation: Situation) -> Orders:
    """(..., A, 2) what units without weapons do: heal who in reach is hurt most, else the nearest who is
    hurt; else stay with the nearest comrade that fights."""
    hurt: Bools = situation.observation["target_mask"][..., Verb.ABILITY - FIRST_TARGET_VERB, :]
    near = hurt & (situation.gap <= HEAL_REACH)
    health = np.broadcast_to(situation.rows("health_ratio")[..., None, :], hurt.shape)
    patient = np.where(near.any(-1), nearest(near, health), nearest(hurt, situation.gap))
    fights = ((situation.rows("own") > 0) & (situation.rows("volley") > 0))[..., None, :] & ~situation.myself
    comrade = nearest(fights, situation.gap)
    away = np.where(fights, situation.gap, np.inf).min(-1)
    stay = situation.first_allowed(Verb.HOLD, Verb.STOP)
    follow = situation.towards(situation.offset_to(comrade))
    follow = np.where((away > ACCOMPANY) & (follow >= 0), follow, stay)
    alone = _march(situation)
    verb = np.where(patient >= 0, Verb.ABILITY, np.where(comrade >= 0, follow, alone))
    return as_orders(verb, patient)


def _assign_targets(situation: Situation) -> Indices:
    """(..., A) target rows: the closest where nothing is in reach, -1 where nothing can be attacked.

    Unit by unit: of the enemies in reach that the volleys assigned so far leave alive, the one with the least
    health and shield for how many of us reach it. Only volleys that can fall within this step count; bonus
    damage is not in the observation, so that now and then one volley too many is assigned.
    """
    left = situation.rows("health") + situation.rows("shield")
    reached_by = np.maximum(situation.in_reach.sum(-2), 1)
    armor = situation.rows("armor")[..., None, :]
    damage = np.maximum(situation.own("volley")[..., None] - armor, MIN_DAMAGE)
    damage = np.where((situation.cooldown < LOOPS_PER_STEP)[..., None], damage, 0.0)
    targets = situation.closest.copy()
    rows = np.arange(left.shape[-1])
    for slot in range(targets.shape[-1]):
        reachable = situation.in_reach[..., slot, :]
        unfinished = reachable & (left > 0)
        candidates = np.where(unfinished.any(-1, keepdims=True), unfinished, reachable)
        weakest = np.where(candidates, left / reached_by, np.inf).argmin(-1)
        shoots: Bools = np.any(reachable, axis=-1, keepdims=True)
        targets[..., slot] = np.where(shoots[..., 0], weakest, targets[..., slot])
        hit: Bools = np.equal(rows, np.expand_dims(weakest, -1)) & shoots
        left = left - np.where(hit, damage[..., slot, :], 0.0)
    return targets


def _escape(situation: Situation, chaser: Bools) -> Indices:
    """(..., A) the move verb that leads away from ``chaser`` rows (..., A, U); -1 where no direction is open.

    Every open direction is rated by the repulsion Σ w / gapᵖ that rows would exert some cells on: enemies
    with weight 1, comrades with less.
    """
    elsewhere: Bools = np.abs(situation.offset).max(-1) > 0
    comrade: Bools = (situation.rows("own")[..., None, :] > 0) & elsewhere
    weight = np.where(chaser, 1.0, np.where(comrade, KITE_COMRADES, 0.0)).astype(np.float32)[..., None, :]
    offset = situation.offset[..., None, :, :] - KITE_LOOKAHEAD * DIRECTIONS[:, None, :]  # (..., A, 8, U, 2)
    gap = np.hypot(offset[..., 0], offset[..., 1]) - situation.touch[..., None, :]
    repulsion = (weight / np.maximum(gap, 0.2) ** KITE_POWER).sum(-1)
    is_open = situation.observation["verb_mask"][..., MOVES]
    best = np.where(is_open, repulsion, np.inf).argmin(-1)
    return np.where(is_open.any(-1), MOVES[best], -1)
