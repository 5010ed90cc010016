"""What an engine-side player may tell a unit, and whom it shoots at; see command.py."""

from __future__ import annotations

import numpy as np

from envs.battle.compiled import compiled, compiled_apart
from envs.battle.engine import attackable, direction_open, give_order
from envs.battle.rules import HEAL, MIN_DAMAGE, Rules
from envs.battle.state import ATTACK, ATTACK_MOVE, HOLD, Battle, Unit, Units, below, uniform
from envs.unit_set import LOOPS_PER_STEP, Verb

REACH = 0.2
"""Steps of walking from which an enemy counts as in reach: there is time to shoot in the same step."""
LIKE_RANGE = 1.0
"""Map cells by which the ranges of units that wait for each other may differ."""
PATIENCE = 12
"""Steps for which a unit waits for comrades in all."""
ACCOMPANY = 2.5
"""Map cells from a comrade within which a healer stays."""

_MENACE = 1e6  # squared cells by which who can hit back comes before who is nearer
_HOLD, _ATTACK_MOVE, _ATTACK = int(Verb.HOLD), int(Verb.ATTACK_MOVE), int(Verb.ATTACK)
_FIRST_MOVE = int(Verb.MOVE_NORTH)


@compiled
def attackable_now(rules: Rules, me: Unit, it: Unit) -> bool:
    """Whether ``me`` may be told to attack ``it``, an enemy."""
    return it.alive and it.seen >> me.side & 1 == 1 and attackable(rules.pairs[me.type, it.type], me, it)


@compiled
def squared_to(me: Unit, it: Unit) -> float:
    """Squared distance of the centres."""
    dx, dy = it.x - me.x, it.y - me.y
    return dx * dx + dy * dy


@compiled
def distance_to(me: Unit, it: Unit) -> float:
    """Distance of the centres, map cells."""
    return np.sqrt(squared_to(me, it))


@compiled
def count_volley(rules: Rules, units: Units, i: int, target: int) -> None:
    """Count a volley of ``i`` as meant for the enemy ``target``."""
    pair = rules.pairs[units[i].type, units[target].type]
    armor = rules.types[units[target].type].armor
    units[target].thought += pair.hits * max(pair.damage - armor, MIN_DAMAGE)


@compiled
def march(rules: Rules, battle: Battle, units: Units, i: int) -> None:
    """Attack-move, if not about it already; who has nowhere to attack to stays on guard."""
    if units[i].order != ATTACK_MOVE and rules.sides[units[i].side].has_attack_point:
        give_order(rules, battle, units, i, _ATTACK_MOVE, -1)


@compiled
def halt(rules: Rules, battle: Battle, units: Units, i: int) -> None:
    """Stand and shoot what comes into range."""
    if units[i].order != HOLD:
        give_order(rules, battle, units, i, _HOLD, -1)


@compiled
def step(rules: Rules, battle: Battle, units: Units, i: int, ux: float, uy: float) -> bool:
    """Move in the open direction nearest to (ux, uy), any length; False if none leads that way at all."""
    best, most = -1, 1e-6
    for d in range(rules.directions.shape[0]):
        along = ux * rules.directions[d, 0] + uy * rules.directions[d, 1]
        if along > most and direction_open(rules, units[i], d):
            best, most = d, along
    if best >= 0:
        give_order(rules, battle, units, i, _FIRST_MOVE + best, -1)
    return best >= 0


@compiled_apart
def fire(rules: Rules, battle: Battle, units: Units, i: int, weakest: bool, depth: float) -> None:
    """Attack the weakest or the nearest enemy in reach that the volleys meant for it leave alive; failing
    that go for the nearest seen, or wait for comrades if more than ``depth`` ahead of the last; failing that
    attack-move."""
    me = units[i]
    enemies = rules.sides[1 - me.side]
    nearest, least = -1, np.inf
    in_reach, in_reach_least = -1, np.inf
    best, best_score, best_squared = -1, np.inf, np.inf
    reach = REACH * LOOPS_PER_STEP * rules.types[me.type].speed
    for k in range(enemies.first, enemies.last):
        it = units[k]
        if not attackable_now(rules, me, it):
            continue
        pair = rules.pairs[me.type, it.type]
        squared, within = squared_to(me, it), pair.range + reach
        if squared < least:
            nearest, least = k, squared
        if squared > within * within or squared < pair.near2:
            continue
        if squared < in_reach_least:
            in_reach, in_reach_least = k, squared
        left = it.health + it.shield - it.thought
        if left <= 0.0:
            continue
        score = left if weakest else squared - _MENACE * pair.threat
        if k == me.engaged and not weakest:
            score -= 0.5 * _MENACE  # stay with it
        if score < best_score or (score == best_score and squared < best_squared):
            best, best_score, best_squared = k, score, squared
    target = best if best >= 0 else in_reach
    if target >= 0:
        if me.cooldown < LOOPS_PER_STEP:
            count_volley(rules, units, i, target)
    elif nearest < 0:
        march(rules, battle, units, i)
        return
    elif depth < np.inf and me.plan < PATIENCE and is_ahead(rules, units, i, units[nearest].type, depth):
        if me.plan >= 0:
            me.plan += 1
        halt(rules, battle, units, i)
        return
    else:
        target = nearest
    if me.order != ATTACK or me.engaged != target:
        give_order(rules, battle, units, i, _ATTACK, target)


@compiled
def is_ahead(rules: Rules, units: Units, i: int, against: int, depth: float) -> bool:
    """Whether the last comrade of like range has more than ``depth`` farther to go than unit ``i``."""
    me = units[i]
    side = rules.sides[me.side]
    reach = rules.pairs[me.type, against].range
    for k in range(side.first, side.last):
        it = units[k]
        if not it.alive or it.thought == np.inf or it.thought - me.thought <= depth:
            continue
        pair = rules.pairs[it.type, against]
        if pair.can_attack and abs(pair.range - reach) <= LIKE_RANGE and rules.types[it.type].speed > 0.0:
            return True
    return False


@compiled_apart
def blunder(rules: Rules, battle: Battle, units: Units, i: int, stray: float, scatter: float) -> None:
    """Attack-move; with an enemy in sight, now and then step anywhere, or attack anybody in reach."""
    me = units[i]
    chance = uniform(battle)
    if me.thought < np.inf and chance < stray:
        d = below(battle, rules.directions.shape[0])
        if step(rules, battle, units, i, rules.directions[d, 0], rules.directions[d, 1]):
            return
    if me.thought <= 0.0 and chance < stray + scatter:
        enemies = rules.sides[1 - me.side]
        chosen, found = -1, 0
        for k in range(enemies.first, enemies.last):
            it = units[k]
            within = rules.pairs[me.type, it.type].range
            if attackable_now(rules, me, it) and squared_to(me, it) <= within * within:
                found += 1
                if below(battle, found) == 0:
                    chosen = k
        if chosen >= 0:
            give_order(rules, battle, units, i, _ATTACK, chosen)
            return
    if me.order != ATTACK:
        march(rules, battle, units, i)


@compiled_apart
def accompany(rules: Rules, battle: Battle, units: Units, i: int) -> None:
    """Healers stay with the nearest comrade that fights; what bursts attack-moves."""
    me = units[i]
    if rules.types[me.type].explodes:
        march(rules, battle, units, i)
    if rules.types[me.type].ability != HEAL:
        return
    side = rules.sides[me.side]
    nearest, least = -1, np.inf
    for k in range(side.first, side.last):
        it = units[k]
        if it.alive and rules.types[it.type].armed:
            distance = distance_to(me, it)
            if distance < least:
                nearest, least = k, distance
    if nearest < 0:
        march(rules, battle, units, i)
    elif least > ACCOMPANY:
        step(rules, battle, units, i, units[nearest].x - me.x, units[nearest].y - me.y)
    else:
        halt(rules, battle, units, i)
