"""The embedded battle simulator's game loop, compiled with numba.

A game loop visits the living units in random order (StarCraft II's update order is random: pysc2,
docs/environment.md). Each regenerates, looks for a target if its order lets it, winds up or lands its attack,
or moves; then missiles land, the fallen burst, and overlapping units push each other apart. Attacks: a weapon
that is ready and in range (edge to edge) starts its attack, the damage falls (or the missile leaves)
``damage_point`` loops later unless another order came first or the target got away, the unit stays put for
the ``backswing``, and the next start is ``period`` loops after the last plus a jitter of -1 to +2 loops (same
source). Units that choose targets themselves prefer those that can hit back over armed ones over harmless
ones, then the nearest, and answer calls for help (same source).

This file does not know what observations look like: that is observe.py.
"""

from __future__ import annotations

import numpy as np

from envs.battle.combat import (
    ability_ready,
    ability_target,
    burst_the_fallen,
    fights_idle,
    heal,
    land_missiles,
    strike,
    use_ability,
)
from envs.battle.compiled import compiled, compiled_apart, compiled_within
from envs.battle.movement import bins_within, push_apart, slide, speed_of, walk_to
from envs.battle.paths import open_step, sees_cell
from envs.battle.records import Records
from envs.battle.rules import (
    HEAL,
    HELP_MEMORY,
    MOVE_DISTANCE,
    NEUTRAL,
    SCAN_PERIOD,
    SHIELD_DELAY,
    SHIELD_RATE,
    STIM_BOOST,
    Rules,
)
from envs.battle.state import (
    ATTACK,
    ATTACK_MOVE,
    EPSILON,
    HOLD,
    IDLE,
    LONG_AGO,
    MOVE,
    PATROL,
    USE,
    Battle,
    Bins,
    Unit,
    Units,
    below,
    index,
)
from envs.unit_set import LOOPS_PER_STEP, Verb

_NO_OP, _STOP, _HOLD = int(Verb.NO_OP), int(Verb.STOP), int(Verb.HOLD)
_FIRST_MOVE, _LAST_MOVE = int(Verb.MOVE_NORTH), int(Verb.MOVE_NORTHWEST)
_ATTACK_MOVE, _ATTACK, _ABILITY = int(Verb.ATTACK_MOVE), int(Verb.ATTACK), int(Verb.ABILITY)


@compiled
def look(rules: Rules, units: Units) -> None:
    """Renew what each side sees: its own living, and others within any one's sight (centre to centre).

    Who saw a unit last is asked first. Where the map has heights or smoke, or units cloak, nearness is not
    enough: see :func:`notices`.
    """
    for i in range(units.shape[0]):
        it = units[i]
        it.seen = 0
        if not it.alive:
            continue
        for side in range(2):
            if it.side == side:
                it.seen |= 1 << side
                continue
            watchers = rules.sides[side]
            known = it.watcher >= watchers.first and it.watcher < watchers.last
            if known and notices(rules, units[it.watcher], it):
                it.seen |= 1 << side
                continue
            for j in range(watchers.first, watchers.last):
                if notices(rules, units[j], it):
                    it.seen |= 1 << side
                    it.watcher = j
                    break


@compiled
def notices(rules: Rules, watcher: Unit, it: Unit) -> bool:
    """Whether the living unit ``it`` is within the sight of ``watcher``, not hidden by higher ground, smoke
    or a cloak that nothing near detects."""
    if not watcher.alive:
        return False
    dx, dy = it.x - watcher.x, it.y - watcher.y
    kind = rules.types[watcher.type]
    squared = dx * dx + dy * dy
    if squared > kind.sight * kind.sight:
        return False
    if not rules.world[0].hidden:
        return True
    return _uncovers(rules, watcher, it, squared)


@compiled_apart
def _uncovers(rules: Rules, watcher: Unit, it: Unit, squared: float) -> bool:
    kind, other = rules.types[watcher.type], rules.types[it.type]
    if other.cloaked and it.side != watcher.side and squared > kind.detection * kind.detection:
        return False
    if not rules.world[0].terrain or kind.plane == 1 or other.plane == 1 or other.tall:
        return True
    return sees_cell(rules.paths, watcher.x, watcher.y, it.x, it.y)


@compiled
def give_order(rules: Rules, battle: Battle, units: Units, i: int, verb: int, target: int) -> None:
    """Tell a living unit what to do. ``target`` is a unit index; the order is known to be legal."""
    me = units[i]
    if verb == _NO_OP:
        return
    me.next_scan = LONG_AGO
    if verb == _ATTACK:
        if me.engaged != target:
            me.windup = -1.0
            me.busy_until = 0.0
        me.order = ATTACK
        me.engaged = target
    elif verb == _ATTACK_MOVE:
        me.order = ATTACK_MOVE
        me.goal_x, me.goal_y = attack_point(rules, battle, me.side)
    elif verb == _HOLD:
        me.order = HOLD
    elif verb == _ABILITY:
        # Two orders of one step may contend: what was legal before the first may not be after it.
        it = units[target]
        ready = it.alive and ability_ready(rules.types[me.type], battle, me)
        if ready and ability_target(rules, i, me, target, it):
            use_ability(rules, battle, units, i, target)
    else:
        me.windup = -1.0
        me.busy_until = 0.0
        me.engaged = -1
        me.order = IDLE
        if _FIRST_MOVE <= verb <= _LAST_MOVE:
            me.order = MOVE
            me.goal_x = me.x + MOVE_DISTANCE * rules.directions[verb - _FIRST_MOVE, 0]
            me.goal_y = me.y + MOVE_DISTANCE * rules.directions[verb - _FIRST_MOVE, 1]
            if rules.world[0].terrain and rules.types[me.type].plane == 0:
                me.goal_x, me.goal_y = slide(rules, me, me.goal_x, me.goal_y)


@compiled
def attack_point(rules: Rules, battle: Battle, s: int) -> tuple[float, float]:
    """Where attack-moves of side ``s`` lead: turned about the middle where teams have changed ends."""
    side, other = rules.sides[s], rules.sides[1 - s]
    if battle.swapped:
        return side.home_x + other.home_x - side.attack_x, side.home_y + other.home_y - side.attack_y
    return side.attack_x, side.attack_y


@compiled
def home_point(rules: Rules, battle: Battle, s: int) -> tuple[float, float]:
    """Where side ``s`` came from: the other's spawn point where teams have changed ends."""
    side = rules.sides[1 - s] if battle.swapped else rules.sides[s]
    return side.home_x, side.home_y


@compiled
def send(me: Unit, order: int, x: float, y: float) -> None:
    """Order a unit of an engine-side player to a place: MOVE, ATTACK_MOVE, or PATROL between it and here."""
    me.next_scan = LONG_AGO
    if order == MOVE:
        me.windup = -1.0
        me.busy_until = 0.0
        me.engaged = -1
    if order == PATROL:
        me.home_x, me.home_y = me.x, me.y
    me.order = order
    me.goal_x, me.goal_y = x, y


@compiled_within
def game_loop(rules: Rules, battle: Battle, units: Units, bins: Bins) -> None:
    """Advance a battle by one game loop.

    The order in which units act is that of the step's shuffle, begun at a random unit and run through in a
    random direction: of two units, each is as often first as the other. ``bins`` must be filled.
    """
    n = battle.acting
    start = below(battle, 2 * n)
    stride = 1
    if start >= n:
        start, stride = start - n, n - 1
    k = start
    for _ in range(n):
        i = index(units[k].shuffle)
        if units[i].alive:
            _update(rules, battle, units, bins, i)
        k += stride
        if k >= n:
            k -= n
    land_missiles(rules, battle, units)
    if battle.any_burst:
        burst_the_fallen(rules, battle, units)
    push_apart(rules, battle, units, bins)
    battle.loop += 1


@compiled_within
def _update(rules: Rules, battle: Battle, units: Units, bins: Bins, i: int) -> None:
    me = units[i]
    kind = rules.types[me.type]
    me.moved = False
    if me.shield < kind.shield and battle.loop - me.hit_at >= SHIELD_DELAY:
        me.shield = min(me.shield + SHIELD_RATE, kind.shield)
    if kind.upkeep:
        me.health = min(me.health + kind.regeneration, kind.health)
        me.energy = min(me.energy + kind.energy_regeneration, kind.energy)
    if me.windup < 0.0:
        # A weapon gets ready within (-1, 0]: an attack that starts in that very loop keeps the fraction, so
        # that periods are right on average.
        rate = STIM_BOOST if me.stim_until > battle.loop else 1.0
        me.cooldown = me.cooldown - rate if me.cooldown > 0.0 else 0.0

    # Where it walks: towards (x, y), by so much.
    x, y, length = 0.0, 0.0, 0.0
    if kind.ability == HEAL:
        x, y, length = _tend(rules, battle, units, i)
    else:
        _choose_target(rules, battle, units, bins, i)
        if me.engaged >= 0:
            x, y, length = _fight(rules, battle, units, i)
        else:
            x, y, length = _march(rules, battle, me)
    if length > 0.0:
        walk_to(rules, battle, units, bins, i, x, y, length)


@compiled
def _fight(rules: Rules, battle: Battle, units: Units, i: int) -> tuple[float, float, float]:
    """Attack the unit engaged, or follow it: where to walk, and how far."""
    me = units[i]
    kind = rules.types[me.type]
    strikes = False
    length = 0.0
    target = units[me.engaged]
    pair = rules.pairs[me.type, target.type]
    dx, dy = target.x - me.x, target.y - me.y
    squared = dx * dx + dy * dy
    if me.windup >= 0.0:
        me.windup -= 1.0
        if squared > pair.slop2:
            me.windup = -1.0
        else:
            strikes = me.windup <= 0.0
    elif squared <= pair.range2:
        if me.cooldown <= 0.0 and squared >= pair.near2:
            distance = np.sqrt(squared)
            if distance > 0.0:
                me.facing_x, me.facing_y = dx / distance, dy / distance
            me.windup = pair.damage_point
            strikes = me.windup <= 0.0
    elif me.order != HOLD and kind.speed > 0.0 and me.busy_until <= battle.loop:
        length = min(speed_of(rules.types[me.type], battle, me), np.sqrt(squared) - pair.range)
    if strikes:
        strike(rules, battle, units, i)
    return target.x, target.y, length


@compiled
def _choose_target(rules: Rules, battle: Battle, units: Units, bins: Bins, i: int) -> None:
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
    # One branch for what differs from unit to unit: processors guess badly where units act in random order.
    waits = not lost and (battle.loop + i - rules.sides[me.side].first) & (SCAN_PERIOD - 1) != 0
    bound = (me.windup >= 0.0) | (me.order == MOVE) | (me.order == ATTACK) | (battle.loop < me.next_scan)
    if bound | waits:
        return
    if me.order == IDLE and not fights_idle(rules.world[0], rules.sides[me.side]):
        return
    if me.engaged >= 0:
        target = units[me.engaged]
        dx, dy = target.x - me.x, target.y - me.y
        pair = rules.pairs[me.type, target.type]
        if dx * dx + dy * dy <= pair.range2 and _threat(pair, battle, target) == 2:
            return  # in reach, and none can be a greater threat
    _scan(rules, battle, units, bins, i)


@compiled
def _scan(rules: Rules, battle: Battle, units: Units, bins: Bins, i: int) -> None:
    """Engage the best target within the scan range, the range on hold; keep one in reach that is no lesser.

    Where all enemies are far, no look is needed before they can have come near.
    """
    me = units[i]
    world, kind = rules.world[0], rules.types[me.type]
    enemies = rules.sides[1 - me.side]
    best, best_threat, best_squared = -1, -1, np.inf
    far = True
    left, right, bottom, top = bins_within(world, me.x, me.y, kind.notice)
    for row in range(bottom, top + 1):
        for slot in range(bins.start[row * world.bins_x + left], bins.start[row * world.bins_x + right + 1]):
            k = bins.unit[slot]
            dx, dy = bins.x[slot] - me.x, bins.y[slot] - me.y
            squared = dx * dx + dy * dy
            if k < enemies.first or k >= enemies.last or squared > kind.notice * kind.notice:
                continue
            far = False
            if squared > best_squared and best_threat == 2:
                continue
            it = units[k]
            pair = rules.pairs[me.type, it.type]
            within = pair.range2 if me.order == HOLD else pair.scan2
            if squared > within or squared < pair.near2 or not pair.can_attack or not visible(it, me.side):
                continue
            threat = _threat(pair, battle, it)
            nearer = squared < best_squared or (squared == best_squared and k < best)
            if threat > best_threat or (threat == best_threat and nearer):
                best, best_threat, best_squared = k, threat, squared
    if me.engaged >= 0 and best != me.engaged:
        target = units[me.engaged]
        pair = rules.pairs[me.type, target.type]
        dx, dy = target.x - me.x, target.y - me.y
        threat = _threat(pair, battle, target)
        if dx * dx + dy * dy <= pair.range2 and best_threat <= threat:
            return  # in reach and no lesser threat: stay with it
        if best < 0 and me.order != HOLD and battle.loop - target.struck_at <= HELP_MEMORY:
            return  # beyond the scan range, but it has been shooting: go after it
    me.engaged = best
    if far:
        nearest = 1e12
        for k in range(enemies.first, enemies.last):
            it = units[k]
            if it.alive:
                dx, dy = it.x - me.x, it.y - me.y
                nearest = min(nearest, dx * dx + dy * dy)
        free = (np.sqrt(nearest) - kind.notice) / (2.0 * world.fastest)
        me.next_scan = battle.loop + int(min(free, 1000.0))


@compiled
def _threat(pair: Records, battle: Battle, it: Unit) -> int:
    """How much ``it`` worries an attacker: what the types say, or the most if it has attacked lately."""
    return 2 if battle.loop - it.struck_at <= HELP_MEMORY else pair.threat


@compiled
def _march(rules: Rules, battle: Battle, me: Unit) -> tuple[float, float, float]:
    """Follow a move, attack-move or patrol order: where to walk, and how far."""
    going = (me.order == MOVE) | (me.order == ATTACK_MOVE) | (me.order == PATROL)
    if not going or me.busy_until > battle.loop:
        return me.x, me.y, 0.0
    speed = speed_of(rules.types[me.type], battle, me)
    dx, dy = me.goal_x - me.x, me.goal_y - me.y
    squared = dx * dx + dy * dy
    if me.order == ATTACK_MOVE:
        arrival = rules.sides[me.side].arrival
        if squared <= arrival * arrival:
            return me.x, me.y, 0.0
    elif squared <= speed * speed:
        if me.order == MOVE:
            me.order = IDLE
        else:
            me.goal_x, me.home_x = me.home_x, me.goal_x
            me.goal_y, me.home_y = me.home_y, me.goal_y
    return me.goal_x, me.goal_y, min(speed, np.sqrt(squared))


@compiled_apart
def _tend(rules: Rules, battle: Battle, units: Units, i: int) -> tuple[float, float, float]:
    """The loop of a healer: heal whom it was told to, or of its own accord the nearest that is hurt.

    Where to walk, and how far.
    """
    me = units[i]
    if me.engaged >= 0:
        it = units[me.engaged]
        done = not it.alive or it.health >= rules.types[it.type].health or me.energy <= 0.0
        if done or not rules.pairs[me.type, it.type].can_heal or me.order == MOVE:
            me.engaged = -1
            if me.order == USE:
                me.order = IDLE
    elif me.order == USE:
        me.order = IDLE
    if me.engaged >= 0 and me.order == HOLD:
        it = units[me.engaged]
        dx, dy = it.x - me.x, it.y - me.y
        if dx * dx + dy * dy > rules.pairs[me.type, it.type].range2:
            me.engaged = -1  # it will not be followed: look for another
    free = me.order == ATTACK_MOVE or me.order == PATROL or me.order == HOLD
    free = free or (me.order == IDLE and fights_idle(rules.world[0], rules.sides[me.side]))
    if free and me.engaged < 0 and ability_ready(rules.types[me.type], battle, me):
        side = rules.sides[me.side]
        least = np.inf
        for k in range(side.first, side.last):
            it = units[k]
            pair = rules.pairs[me.type, it.type]
            if k == i or not it.alive or not pair.can_heal or it.health >= rules.types[it.type].health:
                continue
            dx, dy = it.x - me.x, it.y - me.y
            squared = dx * dx + dy * dy
            if squared <= (pair.range2 if me.order == HOLD else pair.scan2) and squared < least:
                me.engaged, least = k, squared
    if me.engaged < 0:
        return _march(rules, battle, me)
    it = units[me.engaged]
    pair = rules.pairs[me.type, it.type]
    dx, dy = it.x - me.x, it.y - me.y
    squared = dx * dx + dy * dy
    if squared <= pair.range2:
        distance = np.sqrt(squared)
        if distance > EPSILON:
            me.facing_x, me.facing_y = dx / distance, dy / distance
        heal(battle, me, it, rules.types[it.type].health)
        return me.x, me.y, 0.0
    length = min(speed_of(rules.types[me.type], battle, me), np.sqrt(squared) - pair.range)
    return it.x, it.y, 0.0 if me.order == HOLD else length


@compiled
def visible(me: Unit, side: int) -> bool:
    """Whether a side sees a unit, as of the last look. Neutral units are shown like enemies."""
    return me.alive and me.seen >> side & 1 == 1


@compiled
def attackable(pair: Records, me: Unit, it: Unit) -> bool:
    """Whether unit ``me`` may be ordered to attack ``it``, which its side sees."""
    return it.side != NEUTRAL and it.side != me.side and pair.can_attack


@compiled
def direction_open(rules: Rules, me: Unit, d: int) -> bool:
    """Whether a unit may be told to move in direction ``d``: half a step stays inside and off walls."""
    kind, world = rules.types[me.type], rules.world[0]
    half = 0.5 * LOOPS_PER_STEP * kind.speed
    r = kind.clearance
    x, y = me.x + half * rules.directions[d, 0], me.y + half * rules.directions[d, 1]
    if half <= 0.0 or x < world.x0 + r or x > world.x1 - r or y < world.y0 + r or y > world.y1 - r:
        return False
    return not world.terrain or kind.plane == 1 or open_step(rules.paths, me.x, me.y, x, y, kind.climbs)
