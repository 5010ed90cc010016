"""What weapons and abilities do to units: volleys, missiles, areas, death, healing, stimpacks, blinks."""

from __future__ import annotations

import numpy as np

from envs.battle.compiled import compiled, compiled_apart
from envs.battle.paths import walkable
from envs.battle.records import Records
from envs.battle.rules import (
    ACROSS,
    ALONG,
    BLINK,
    BLINK_COOLDOWN,
    BLINK_RANGE,
    BOUNCE,
    CONE,
    HEAL,
    HEAL_COST,
    HEAL_RATE,
    HELP_RADIUS,
    MIN_DAMAGE,
    NEUTRAL,
    RINGS,
    STIM_BOOST,
    STIM_LOOPS,
    STIMPACK,
    Rules,
)
from envs.battle.state import (
    ATTACK_MOVE,
    EPSILON,
    IDLE,
    PATROL,
    USE,
    Battle,
    Unit,
    Units,
    below,
    index,
    wake,
)

_BURST = -2.0  # UNIT.windup of a unit whose death is going to burst at the end of the loop


@compiled
def strike(rules: Rules, battle: Battle, units: Units, i: int) -> None:
    """A begun attack is through: its missile flies, or its damage falls."""
    me = units[i]
    target = units[me.engaged]
    pair = rules.pairs[me.type, target.type]
    me.windup = -1.0
    # What has passed since the attack began counts at the rate at which the rest will pass.
    rate = STIM_BOOST if me.stim_until > battle.loop else 1.0
    me.cooldown += pair.period + rate * (below(battle, 4) - 1 - np.ceil(pair.damage_point))
    me.busy_until = battle.loop + pair.backswing
    me.struck_at = battle.loop
    if rules.types[me.type].explodes:
        die(rules, battle, units, i)
    elif pair.missile_speed > 0.0:
        if me.missile_target >= 0:
            _land(rules, battle, units, i)
        dx, dy = target.x - me.x, target.y - me.y
        gap = max(np.sqrt(dx * dx + dy * dy) - pair.contact, 0.0)
        me.missile_target = me.engaged
        me.missile_from = battle.loop
        me.missile_at = battle.loop + int(np.ceil(gap / pair.missile_speed))
        me.missile_x, me.missile_y = me.x, me.y
        battle.any_missile = True
    else:
        _impact(rules, battle, units, i, index(me.engaged))


@compiled
def land_missiles(rules: Rules, battle: Battle, units: Units) -> None:
    """Land the missiles that are due; whose target has fallen meanwhile is wasted."""
    if not battle.any_missile:
        return
    battle.any_missile = False
    for i in range(units.shape[0]):
        if units[i].missile_target >= 0:
            if units[i].missile_at <= battle.loop:
                _land(rules, battle, units, i)
            else:
                battle.any_missile = True


@compiled_apart
def _land(rules: Rules, battle: Battle, units: Units, i: int) -> None:
    target = index(units[i].missile_target)
    units[i].missile_target = -1
    if units[target].alive:
        _impact(rules, battle, units, i, target)


@compiled
def _impact(rules: Rules, battle: Battle, units: Units, i: int, j: int) -> None:
    """The volley of unit ``i`` hits unit ``j`` and what is around it."""
    area = rules.pairs[units[i].type, units[j].type].area
    if area >= 0:
        _spread(rules, battle, units, i, j, area)
    _hurt(rules, battle, units, i, j, 1.0)
    if units[j].alive:
        _call_for_help(rules, battle, units, j, i)


@compiled
def _hurt(rules: Rules, battle: Battle, units: Units, i: int, j: int, share: float) -> None:
    """A share of a volley: shields first, then health less armour, hit by hit."""
    it = units[j]
    pair = rules.pairs[units[i].type, it.type]
    it.hit_at = battle.loop
    damage = pair.damage * share
    armor = rules.types[it.type].armor
    before = it.health + it.shield
    for _ in range(pair.hits):
        absorbed = min(damage, it.shield)
        it.shield -= absorbed
        if damage > absorbed:
            it.health -= min(max(damage - absorbed - armor, MIN_DAMAGE), it.health)
            if it.health <= 0.0:
                break
    battle.lost[it.side] += before - it.health - it.shield
    if it.health <= 0.0:
        die(rules, battle, units, j)


@compiled
def die(rules: Rules, battle: Battle, units: Units, i: int) -> None:
    """A unit falls. One that carries a charge bursts at the end of the loop."""
    me = units[i]
    kind = rules.types[me.type]
    battle.lost[me.side] += me.health + me.shield
    me.health = me.shield = 0.0
    me.alive = False
    me.hit_at = battle.loop
    battle.killed[me.side] += 1
    if kind.armed:
        battle.fighters[me.side] -= 1
    if kind.explodes:
        me.windup = _BURST
        battle.any_burst = True


@compiled_apart
def burst_the_fallen(rules: Rules, battle: Battle, units: Units) -> None:
    """Banelings that fell in this loop go off, and so do those that fall by it, until it is quiet."""
    while battle.any_burst:
        battle.any_burst = False
        for i in range(units.shape[0]):
            me = units[i]
            if me.alive or me.windup != _BURST:
                continue
            me.windup = -1.0
            enemies = rules.sides[1 - me.side]
            for j in range(enemies.first, enemies.last):
                it = units[j]
                pair = rules.pairs[me.type, it.type]
                if it.alive and pair.can_attack and pair.area >= 0:
                    area = rules.areas[pair.area]
                    share = _ring_share(area, _distance(me, it) - rules.types[it.type].radius)
                    if share > 0.0:
                        _hurt(rules, battle, units, i, j, share)


@compiled
def _distance(me: Unit, it: Unit) -> float:
    dx, dy = it.x - me.x, it.y - me.y
    return np.sqrt(dx * dx + dy * dy)


@compiled
def _ring_share(area: Unit, distance: float) -> float:
    """Share of the damage at a distance from the point of impact."""
    for k in range(area.rings):
        if distance <= area.radius[k]:
            return area.fraction[k]
    return 0.0


@compiled_apart
def _spread(rules: Rules, battle: Battle, units: Units, i: int, j: int, which: int) -> None:
    """What the volley of unit ``i`` on ``j`` does to others: enemies, or everyone if it spares nobody."""
    me, target = units[i], units[j]
    area = rules.areas[which]
    if area.shape == BOUNCE:
        _bounce(rules, battle, units, i, j, which)
        return
    distance = max(_distance(me, target), EPSILON)
    ux, uy = (target.x - me.x) / distance, (target.y - me.y) / distance
    for k in range(units.shape[0]):
        it = units[k]
        spared = it.side == NEUTRAL or (it.side == me.side and not area.friendly)
        if k in (i, j) or not it.alive or spared:
            continue
        pair = rules.pairs[me.type, it.type]
        if not pair.can_attack or pair.area != which:
            continue
        r = rules.types[it.type].radius
        share = 0.0
        if area.shape == RINGS:
            share = _ring_share(area, _distance(target, it) - r)
        elif area.shape == ACROSS:
            dx, dy = it.x - target.x, it.y - target.y
            along, across = abs(dx * ux + dy * uy), abs(dx * uy - dy * ux)
            if along <= 0.5 * area.width + r and across <= 0.5 * area.length + r:
                share = area.fraction[0]
        else:
            dx, dy = it.x - me.x, it.y - me.y
            along, across = dx * ux + dy * uy, abs(dx * uy - dy * ux)
            away = max(_distance(me, it), EPSILON)
            if area.shape == ALONG and 0.0 <= along <= area.length + r and across <= 0.5 * area.width + r:
                share = area.fraction[0]
            if area.shape == CONE and away <= area.length + r and along >= away * area.width:
                share = area.fraction[0]
        if share > 0.0:
            _hurt(rules, battle, units, i, k, share)


@compiled_apart
def _bounce(rules: Rules, battle: Battle, units: Units, i: int, j: int, which: int) -> None:
    """A shot that leaps from target to target, each time to the nearest enemy it has not hit."""
    area = rules.areas[which]
    enemies = rules.sides[units[j].side]
    before, last = -1, j
    for leap in range(area.rings):
        best, least = index(-1), area.radius[0]
        for k in range(enemies.first, enemies.last):
            it = units[k]
            pair = rules.pairs[units[i].type, it.type]
            if it.alive and pair.can_attack and k != j and k != before and k != last:
                distance = _distance(units[last], it) - rules.types[it.type].radius
                if distance <= least:
                    best, least = k, distance
        if best < 0:
            return
        _hurt(rules, battle, units, i, best, area.fraction[leap])
        before, last = last, best


@compiled
def _call_for_help(rules: Rules, battle: Battle, units: Units, victim: int, attacker: int) -> None:
    """The victim and comrades near it that choose targets and have none turn on the attacker."""
    hurt = units[victim]
    side = rules.sides[hurt.side]
    for i in range(side.first, side.last):
        it = units[i]
        if it.engaged >= 0 or not it.alive:
            continue
        idle = it.order == IDLE and fights_idle(rules.world[0], side)
        if not idle and it.order != ATTACK_MOVE and it.order != PATROL:
            continue
        dx, dy = it.x - hurt.x, it.y - hurt.y
        near = dx * dx + dy * dy <= HELP_RADIUS * HELP_RADIUS
        if near and rules.pairs[it.type, units[attacker].type].can_attack:
            if units[attacker].seen >> it.side & 1:
                it.engaged = attacker
            elif it.order == IDLE:
                # Hit from out of sight: go and look where it came from.
                it.order = ATTACK_MOVE
                it.goal_x, it.goal_y = units[attacker].x, units[attacker].y


@compiled
def fights_idle(world: Records, side: Records) -> bool:
    """Whether a side's units without orders fight of their own accord: all do that have nowhere to attack."""
    return world.idle_units_attack or not side.has_attack_point


@compiled
def heal(battle: Battle, me: Unit, it: Unit, most: float) -> None:
    """A loop's healing of ``it``, up to ``most`` health, paid for in energy."""
    amount = min(HEAL_RATE, most - it.health, me.energy / HEAL_COST)
    it.health += amount
    me.energy = max(me.energy - amount * HEAL_COST, 0.0)  # thirds do not come out even
    me.struck_at = battle.loop  # whoever heals draws fire


@compiled
def ability_ready(kind: Records, battle: Battle, me: Unit) -> bool:
    """Whether a unit of the type ``kind`` can use its ability now, on whomever."""
    if kind.ability == HEAL:
        return me.energy >= HEAL_RATE * HEAL_COST
    if kind.ability == STIMPACK:
        return me.health > kind.ability_cost and me.stim_until <= battle.loop
    return kind.ability == BLINK and me.ability_at <= battle.loop


@compiled
def ability_target(rules: Rules, i: int, me: Unit, j: int, it: Unit) -> bool:
    """Whether the ability of unit ``i`` may be aimed at ``j``: the hurt, oneself, or whom to blink to."""
    kind = rules.types[me.type]
    if kind.ability == HEAL:
        healable = it.side == me.side and rules.pairs[me.type, it.type].can_heal
        return healable and i != j and it.health < rules.types[it.type].health
    if kind.ability == STIMPACK:
        return i == j
    dx, dy = it.x - me.x, it.y - me.y
    return i != j and np.sqrt(dx * dx + dy * dy) > rules.pairs[me.type, it.type].contact + 0.5


@compiled_apart
def use_ability(rules: Rules, battle: Battle, units: Units, i: int, j: int) -> None:
    """Begin a heal, take a stimpack, or blink up to the unit ``j``, as far as blinks lead."""
    me, it = units[i], units[j]
    kind = rules.types[me.type]
    if kind.ability == HEAL:
        me.order, me.engaged = USE, j
    elif kind.ability == STIMPACK:
        me.health -= kind.ability_cost
        battle.lost[me.side] += kind.ability_cost
        me.stim_until = battle.loop + STIM_LOOPS
    else:
        dx, dy = it.x - me.x, it.y - me.y
        distance = max(np.sqrt(dx * dx + dy * dy), EPSILON)
        length = min(BLINK_RANGE, distance - rules.pairs[me.type, it.type].contact)
        x, y = me.x, me.y
        while length > 0.0:
            x, y = me.x + dx / distance * length, me.y + dy / distance * length
            if not rules.world[0].terrain or walkable(rules.paths, x, y):
                break
            length -= 0.25
        if length > 0.0:
            me.x, me.y = x, y
        me.ability_at = battle.loop + BLINK_COOLDOWN
        me.order, me.engaged, me.windup = IDLE, -1, -1.0
        battle.any_crowded = True
        wake(units)
