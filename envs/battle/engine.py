"""The embedded battle simulator's rules, game loop by game loop, compiled with numba.

State is arrays with one row a battle, and every battle draws from its own random stream, so a battle's course
depends on its seed and orders alone, not on what is simulated beside it. Units are indexed 0..N-1, the first
team's first.

A game loop visits the living units in random order (StarCraft II's update order is random: pysc2,
docs/environment.md). Each regenerates, looks for a target if its order lets it, winds up or lands its attack,
or moves; then overlapping units push each other apart. Attacks: a weapon that is ready and in range (edge to
edge) starts its attack, the damage falls ``damage_point`` loops later unless another order came first or the
target got away, and the next start is ``period`` loops after the last plus a jitter of -1 to +2 loops (same
source). Units that choose targets themselves prefer those that can hit back over armed ones over harmless
ones, then the nearest, and answer calls for help (same source).

This file does not know what observations look like: that is observe.py.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from envs.battle.compiled import compiled
from envs.battle.rules import (
    HELP_MEMORY,
    HELP_RADIUS,
    MIN_DAMAGE,
    MOVE_DISTANCE,
    RANGE_SLOP,
    SCAN_PERIOD,
    SHIELD_DELAY,
    SHIELD_RATE,
    Records,
    Rules,
)
from envs.unit_set import Verb

# Orders a unit carries out (state.order).
IDLE, HOLD, MOVE, ATTACK, ATTACK_MOVE = 0, 1, 2, 3, 4
# How a battle stands (state.outcome); Outcome in batch.py names them.
RUNNING, WIN_0, WIN_1, DRAW, TIMEOUT = 0, 1, 2, 3, 4

_NO_OP, _STOP, _HOLD = int(Verb.NO_OP), int(Verb.STOP), int(Verb.HOLD)
_FIRST_MOVE, _LAST_MOVE = int(Verb.MOVE_NORTH), int(Verb.MOVE_NORTHWEST)
_ATTACK_MOVE, _ATTACK = int(Verb.ATTACK_MOVE), int(Verb.ATTACK)
_LONG_AGO = -(1 << 20)
_EPSILON = 1e-6
# In compiled code a unit or a battle is one record of an array, units the row of a battle.
Unit: TypeAlias = Records
Units: TypeAlias = Records
Battle: TypeAlias = Records
_GOLDEN_ANGLE = np.pi * (3.0 - np.sqrt(5.0))


UNIT = np.dtype(
    [
        # What every look at a neighbour reads, in one cache line.
        ("x", "f8"),  # map cells
        ("y", "f8"),
        ("type", "i2"),  # local type
        ("sweep", "i2"),  # entry of the battle's order along x, as of the last loop's end
        ("rank", "i2"),  # the unit's place in it
        ("shuffle", "i2"),  # entry of the battle's update order
        ("engaged", "i2"),  # unit the attack is aimed at, or -1
        ("side", "i1"),
        ("order", "i1"),
        ("alive", "?"),
        ("moved", "?"),  # in this loop
        ("seen", "u1"),  # bit 0: by the first side, bit 1: by the second; renewed after every step
        ("hit_at", "i4"),  # loop of the last damage taken
        ("struck_at", "i4"),  # loop of the last attack landed
        ("cooldown", "f8"),  # loops until the weapon is ready
        ("windup", "f8"),  # loops until the begun attack lands; negative: none begun
        ("facing_x", "f8"),  # unit vector
        ("facing_y", "f8"),
        ("goal_x", "f8"),  # where a move leads
        ("goal_y", "f8"),
        ("health", "f8"),
        ("shield", "f8"),
        ("energy", "f8"),
        ("dealt", "f8"),  # damage done in this step
        ("push_x", "f8"),  # sum of the loop's pushes
        ("push_y", "f8"),
    ],
    align=True,
)
BATTLE = np.dtype(
    [
        ("random", "u8"),
        ("loop", "i4"),  # game loops since the start
        ("steps", "i4"),
        ("outcome", "i1"),
    ],
    align=True,
)


class State(NamedTuple):
    """All battles' state."""

    units: Records  # (B, N) UNIT
    battles: Records  # (B,) BATTLE
    returns: NDArray[np.float64]  # (B, 2) sums of rewards


def new_state(num_battles: int, num_units: int) -> State:
    """Zeroed state; :func:`reset_battle` makes a battle of a row."""
    return State(
        np.zeros((num_battles, num_units), UNIT), np.zeros(num_battles, BATTLE), np.zeros((num_battles, 2))
    )


@compiled
def _random(battle: Battle) -> np.uint64:
    """SplitMix64 (Steele, Lea and Flood 2014): 64 random bits from the battle's own stream."""
    battle.random += np.uint64(0x9E3779B97F4A7C15)
    z = battle.random
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def _uniform(battle: Battle) -> float:
    """Uniform in [0, 1)."""
    return np.float64(_random(battle) >> np.uint64(11)) * (1.0 / (1 << 53))


@compiled
def _below(battle: Battle, n: int) -> np.int64:
    """Uniform integer in [0, n) by multiply-shift; the bias is below n / 2**32."""
    return np.int64(((_random(battle) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@compiled
def reset_battle(
    rules: Rules, battle: Battle, units: Units, seed: np.uint64, builtin: NDArray[np.bool_]
) -> None:
    """Start a battle afresh from ``seed``.

    A team stands in a disc around its spawn point, in random order, turned by a random angle; disc and units
    scatter by the scenario's jitter. A builtin side gets its one order: attack-move.
    """
    battle.random = seed
    battle.loop = 0
    battle.steps = 0
    battle.outcome = RUNNING
    jitter = rules.world[0].jitter
    for s in range(2):
        side = rules.sides[s]
        angle = 2.0 * np.pi * _uniform(battle)
        cx = side.spawn_x + jitter * (2.0 * _uniform(battle) - 1.0)
        cy = side.spawn_y + jitter * (2.0 * _uniform(battle) - 1.0)
        for i in range(side.first, side.last):
            units[i].shuffle = i - side.first
        _shuffle(battle, units, side.first, side.last)
        for i in range(side.first, side.last):
            me = units[i]
            me.type = rules.type_of[i]
            me.side = s
            kind = rules.types[me.type]
            k = me.shuffle
            r = side.spacing * np.sqrt(k + 0.5)
            x = cx + r * np.cos(angle + k * _GOLDEN_ANGLE) + 0.25 * jitter * (2.0 * _uniform(battle) - 1.0)
            y = cy + r * np.sin(angle + k * _GOLDEN_ANGLE) + 0.25 * jitter * (2.0 * _uniform(battle) - 1.0)
            _place(rules, me, x, y)
            me.facing_x = -1.0 if side.attack_x < side.spawn_x else 1.0
            me.facing_y = 0.0
            me.goal_x, me.goal_y = side.attack_x, side.attack_y
            me.health, me.shield, me.energy = kind.health, kind.shield, kind.energy
            me.cooldown, me.windup, me.dealt = 0.0, -1.0, 0.0
            me.push_x = me.push_y = 0.0
            me.hit_at = me.struck_at = _LONG_AGO
            me.engaged = -1
            me.order = ATTACK_MOVE if builtin[s] else IDLE
            me.alive = me.moved = True
    for i in range(units.shape[0]):
        units[i].sweep = units[i].shuffle = i
    for _ in range(4):
        _separate(rules, units)
    look(rules, units)


@compiled
def _shuffle(battle: Battle, units: Units, first: int, last: int) -> None:
    """Fisher-Yates over the ``shuffle`` entries ``first`` to ``last``."""
    for i in range(last - 1, first, -1):
        j = first + _below(battle, i - first + 1)
        units[i].shuffle, units[j].shuffle = units[j].shuffle, units[i].shuffle


@compiled
def _place(rules: Rules, me: Unit, x: float, y: float) -> None:
    """Put a unit at (x, y), or the nearest point where it lies wholly in the playable area."""
    world = rules.world[0]
    r = rules.types[me.type].radius
    me.x = min(max(x, world.x0 + r), world.x1 - r)
    me.y = min(max(y, world.y0 + r), world.y1 - r)


@compiled
def look(rules: Rules, units: Units) -> None:
    """Renew what each side sees: its own living, and enemies within any one's sight (centre to centre)."""
    for i in range(units.shape[0]):
        it = units[i]
        it.seen = 0
        if it.alive:
            it.seen = 1 << it.side
            other = rules.sides[1 - it.side]
            for j in range(other.first, other.last):
                watcher = units[j]
                if watcher.alive:
                    dx, dy = it.x - watcher.x, it.y - watcher.y
                    sight = rules.types[watcher.type].sight
                    if dx * dx + dy * dy <= sight * sight:
                        it.seen = 3
                        break


@compiled
def give_order(rules: Rules, me: Unit, verb: int, target: int) -> None:
    """Tell a unit what to do. ``target`` is a unit index; the order is known to be legal."""
    if verb == _NO_OP:
        return
    if verb == _ATTACK:
        if me.engaged != target:
            me.windup = -1.0
        me.order = ATTACK
        me.engaged = target
    elif verb == _ATTACK_MOVE:
        me.order = ATTACK_MOVE
        me.goal_x, me.goal_y = rules.sides[me.side].attack_x, rules.sides[me.side].attack_y
    elif verb == _HOLD:
        me.order = HOLD
    else:
        me.windup = -1.0
        me.engaged = -1
        me.order = IDLE
        if _FIRST_MOVE <= verb <= _LAST_MOVE:
            me.order = MOVE
            me.goal_x = me.x + MOVE_DISTANCE * rules.directions[verb - _FIRST_MOVE, 0]
            me.goal_y = me.y + MOVE_DISTANCE * rules.directions[verb - _FIRST_MOVE, 1]


@compiled
def game_loop(rules: Rules, battle: Battle, units: Units) -> None:
    """Advance a battle by one game loop."""
    n = units.shape[0]
    _shuffle(battle, units, 0, n)
    for k in range(n):
        i = units[k].shuffle
        if units[i].alive:
            _update(rules, battle, units, i)
    _separate(rules, units)
    battle.loop += 1


@compiled
def _update(rules: Rules, battle: Battle, units: Units, i: int) -> None:
    me = units[i]
    kind = rules.types[me.type]
    me.moved = False
    if me.shield < kind.shield and battle.loop - me.hit_at >= SHIELD_DELAY:
        me.shield = min(me.shield + SHIELD_RATE, kind.shield)
    if kind.regeneration > 0.0:
        me.health = min(me.health + kind.regeneration, kind.health)
    if me.windup < 0.0:
        # A weapon gets ready within (-1, 0]: an attack that starts in that very loop keeps the fraction, so
        # that periods are right on average.
        me.cooldown = me.cooldown - 1.0 if me.cooldown > 0.0 else 0.0

    _choose_target(rules, battle, units, i)
    if me.engaged < 0:
        if me.order == MOVE or me.order == ATTACK_MOVE:
            _advance(rules, units, i)
        return

    target = units[me.engaged]
    pair = rules.pairs[me.type, target.type]
    dx, dy = target.x - me.x, target.y - me.y
    distance = np.sqrt(dx * dx + dy * dy)
    gap = distance - kind.radius - rules.types[target.type].radius
    if me.windup >= 0.0:
        me.windup -= 1.0
        if gap > pair.range + RANGE_SLOP:
            me.windup = -1.0
        elif me.windup <= 0.0:
            _strike(rules, battle, units, i)
    elif gap <= pair.range + _EPSILON:
        if distance > 0.0:
            me.facing_x, me.facing_y = dx / distance, dy / distance
        if me.cooldown <= 0.0:
            me.windup = pair.damage_point
            if me.windup <= 0.0:
                _strike(rules, battle, units, i)
    elif me.order != HOLD and distance > 0.0:
        _walk(rules, units, i, dx / distance, dy / distance, min(kind.speed, gap - pair.range))


@compiled
def _choose_target(rules: Rules, battle: Battle, units: Units, i: int) -> None:
    """Drop a target that is gone; let units that fight of their own accord look for one."""
    me = units[i]
    lost = False
    if me.engaged >= 0:
        target = units[me.engaged]
        lost = not (target.alive and target.seen >> me.side & 1)
        if lost:
            me.engaged = -1
            me.windup = -1.0
            if me.order == ATTACK:
                me.order = IDLE
    if me.windup >= 0.0 or me.order == MOVE or me.order == ATTACK:
        return
    if me.order == IDLE and not rules.world[0].idle_units_attack:
        return
    if not lost and (battle.loop + i - rules.sides[me.side].first) % SCAN_PERIOD != 0:
        return
    kind = rules.types[me.type]
    enemies = rules.sides[1 - me.side]
    best, best_threat, best_squared = -1, -1, np.inf
    for k in range(enemies.first, enemies.last):
        it = units[k]
        if not it.alive:
            continue
        dx, dy = it.x - me.x, it.y - me.y
        squared = dx * dx + dy * dy
        if squared >= best_squared and best_threat == 2:
            continue
        pair = rules.pairs[me.type, it.type]
        reach = (pair.range if me.order == HOLD else pair.scan) + kind.radius + rules.types[it.type].radius
        if not pair.can_attack or squared > reach * reach + _EPSILON:
            continue
        threat = _threat(rules, battle, me, it)
        if threat > best_threat or (threat == best_threat and squared < best_squared):
            best, best_threat, best_squared = k, threat, squared
    if me.engaged >= 0 and best != me.engaged:
        target = units[me.engaged]
        pair = rules.pairs[me.type, target.type]
        dx, dy = target.x - me.x, target.y - me.y
        reach = pair.range + kind.radius + rules.types[target.type].radius
        threat = _threat(rules, battle, me, target)
        if dx * dx + dy * dy <= reach * reach + _EPSILON and best_threat <= threat:
            return  # in reach and no lesser threat: stay with it
        if best < 0 and me.order != HOLD and battle.loop - target.struck_at <= HELP_MEMORY:
            return  # beyond the scan range, but it has been shooting: go after it
    me.engaged = best


@compiled
def _threat(rules: Rules, battle: Battle, me: Unit, it: Unit) -> int:
    """How much ``it`` worries ``me``: what its type says, or the most if it has attacked lately."""
    recently = battle.loop - it.struck_at <= HELP_MEMORY
    return 2 if recently else rules.pairs[me.type, it.type].threat


@compiled
def _advance(rules: Rules, units: Units, i: int) -> None:
    """Follow a move or attack-move order."""
    me = units[i]
    speed = rules.types[me.type].speed
    dx, dy = me.goal_x - me.x, me.goal_y - me.y
    distance = np.sqrt(dx * dx + dy * dy)
    if me.order == ATTACK_MOVE:
        if distance <= rules.sides[me.side].arrival:
            return
    elif distance <= speed:
        me.order = IDLE
    if distance > _EPSILON:
        _walk(rules, units, i, dx / distance, dy / distance, min(speed, distance))


@compiled
def _walk(rules: Rules, units: Units, i: int, ux: float, uy: float, length: float) -> None:
    """Step along (ux, uy); round whoever stands in the way, or not at all if that way is taken too.

    A unit passes on the side it is heading to; head-on, its number in the team decides.
    """
    me = units[i]
    me.facing_x, me.facing_y = ux, uy
    me.moved = True
    blocker = _in_the_way(rules, units, i, ux * length, uy * length)
    if blocker >= 0:
        it = units[blocker]
        nx, ny = it.x - me.x, it.y - me.y
        distance = np.sqrt(nx * nx + ny * ny)
        if distance < _EPSILON:
            return
        nx, ny = nx / distance, ny / distance
        along = nx * uy - ny * ux
        member = i - rules.sides[me.side].first
        left = along > _EPSILON or (along > -_EPSILON and member % 2 == 0)
        ux, uy = (-ny, nx) if left else (ny, -nx)
        if _in_the_way(rules, units, i, ux * length, uy * length) >= 0:
            return
    _place(rules, me, me.x + ux * length, me.y + uy * length)


@compiled
def _in_the_way(rules: Rules, units: Units, i: int, step_x: float, step_y: float) -> int:
    """The unit that a step would come closest to, closer than they may stand and than they are; -1 if none.

    Looks along x, among the neighbours of the last loop's order.
    """
    me = units[i]
    kind = rules.types[me.type]
    x, y = me.x + step_x, me.y + step_y
    reach = rules.world[0].widest + 2.0 * kind.speed
    blocker, least = -1, np.inf
    for direction in range(-1, 2, 2):
        c = me.rank + direction
        while 0 <= c < units.shape[0]:
            j = units[c].sweep
            c += direction
            it = units[j]
            dx = it.x - x
            if dx * direction > reach:
                break
            touch = kind.radius + rules.types[it.type].radius
            dy = it.y - y
            squared = dx * dx + dy * dy
            if squared >= touch * touch or squared >= least or not it.alive:
                continue
            closer = dx * step_x + dy * step_y > 0.0 or (it.x - me.x) * step_x + (it.y - me.y) * step_y > 0.0
            if closer and rules.types[it.type].plane == kind.plane:
                blocker, least = j, squared
    return blocker


@compiled
def _strike(rules: Rules, battle: Battle, units: Units, i: int) -> None:
    """A unit's volley lands on its target: shields first, then health less armour, hit by hit."""
    me = units[i]
    target = units[me.engaged]
    pair = rules.pairs[me.type, target.type]
    me.windup = -1.0
    me.cooldown += pair.period - np.ceil(pair.damage_point) + (_below(battle, 4) - 1)
    me.struck_at = battle.loop
    target.hit_at = battle.loop
    armor = rules.types[target.type].armor
    for _ in range(pair.hits):
        absorbed = min(pair.damage, target.shield)
        target.shield -= absorbed
        me.dealt += absorbed
        if pair.damage > absorbed:
            wound = min(max(pair.damage - absorbed - armor, MIN_DAMAGE), target.health)
            target.health -= wound
            me.dealt += wound
            if target.health <= 0.0:
                target.alive = False
                return
    _call_for_help(rules, units, me.engaged, i)


@compiled
def _call_for_help(rules: Rules, units: Units, victim: int, attacker: int) -> None:
    """The victim and comrades near it that choose targets and have none turn on the attacker."""
    hurt = units[victim]
    side = rules.sides[hurt.side]
    for i in range(side.first, side.last):
        it = units[i]
        if not it.alive or it.engaged >= 0:
            continue
        if it.order != ATTACK_MOVE and not (it.order == IDLE and rules.world[0].idle_units_attack):
            continue
        dx, dy = it.x - hurt.x, it.y - hurt.y
        near = dx * dx + dy * dy <= HELP_RADIUS * HELP_RADIUS
        if near and rules.pairs[it.type, units[attacker].type].can_attack:
            it.engaged = attacker


@compiled
def _separate(rules: Rules, units: Units) -> None:
    """Push overlapping units of one plane apart; units that stand give way only to units that stand.

    All pushes are summed before any is applied, so that no side of the map is favoured. Pairs are found by
    sweeping along x, the order being kept from loop to loop.
    """
    n = units.shape[0]
    for a in range(1, n):
        i = units[a].sweep
        x = units[i].x
        c = a - 1
        while c >= 0 and units[units[c].sweep].x > x:
            units[c + 1].sweep = units[c].sweep
            c -= 1
        units[c + 1].sweep = i
    widest = rules.world[0].widest
    for a in range(n):
        i = units[a].sweep
        me = units[i]
        me.rank = a
        if not me.alive:
            continue
        kind = rules.types[me.type]
        for c in range(a + 1, n):
            it = units[units[c].sweep]
            dx = it.x - me.x
            if dx >= widest:
                break
            other = rules.types[it.type]
            if not it.alive or kind.plane != other.plane:
                continue
            dy = it.y - me.y
            touch = kind.radius + other.radius
            squared = dx * dx + dy * dy
            if squared < touch * touch:
                distance = np.sqrt(squared)
                nx, ny = (dx / distance, dy / distance) if distance > _EPSILON else (1.0, 0.0)
                share = 0.5 if me.moved == it.moved else (1.0 if me.moved else 0.0)
                overlap = touch - distance
                me.push_x -= nx * overlap * share
                me.push_y -= ny * overlap * share
                it.push_x += nx * overlap * (1.0 - share)
                it.push_y += ny * overlap * (1.0 - share)
    for i in range(n):
        me = units[i]
        if me.push_x != 0.0 or me.push_y != 0.0:
            _place(rules, me, me.x + me.push_x, me.y + me.push_y)
            me.push_x = me.push_y = 0.0
