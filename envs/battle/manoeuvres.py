"""How the units of an engine-side player move when they do not shoot; see command.py.

Each function gives one unit an order and tells whether it did: if not, the unit is free to shoot.
"""

from __future__ import annotations

import numpy as np

from envs.battle.compiled import compiled, compiled_apart
from envs.battle.engine import attack_point, direction_open, give_order, home_point
from envs.battle.firing import distance_to, halt, squared_to, step
from envs.battle.rules import Rules
from envs.battle.state import Battle, Unit, Units
from envs.unit_set import Verb

RANGE_ADVANTAGE = 2.0
"""Map cells by which our range must exceed an enemy's for us to keep away from it: from one that has nearly
as much, at like speed, nobody gets away."""
READY = 4.0
"""Game loops of cooldown below which a unit thinks of attacking rather than of getting away."""
SAFE = 1.25
"""Map cells an enemy must be short of reaching us for a ready unit to stand and shoot."""
FAR = 4.0
"""Map cells an enemy must be short of reaching us for a unit that is not ready to stay where it is."""
LOOKAHEAD = 2.0
"""Map cells ahead at which directions are compared: as far as a move order leads."""
COMRADES = 0.3
"""How much comrades repel, next to enemies: units that flee together get in each other's way."""

LOCAL = 8.0
"""Map cells within which strengths are compared."""
OUTNUMBERED = 1.25
"""How many times the own health and shield near a unit that of the enemies must be for it to fall back."""
RETREAT_STEPS = 5
"""Steps of a retreat."""
RETURN_STEPS = 15
"""Steps after it in which a unit does not fall back again."""

PRONG = 4.0
"""Map cells that the prongs of a split team go to the sides."""
ROOM = 1.0
"""Map cells a spread-out unit wants between itself and its nearest comrade."""
CIRCUIT = 8.0
"""Map cells that flankers stay off the straight way."""
NEAR_WAYPOINT = 2.0
"""Map cells from a point on the way at which a unit has passed it."""
CONTACT = 3.0
"""Map cells short of range at which an enemy is as good as met."""
MELEE = 2.0
"""Map cells of range, edge to edge, up to which a weapon is a melee weapon."""
BACK_STEPS = 4
"""Steps that an ambush pulls back at the start."""

_FIRST_MOVE = int(Verb.MOVE_NORTH)


@compiled_apart
def keep_away(rules: Rules, battle: Battle, units: Units, i: int) -> bool:
    """Move away from enemies of shorter range that could get at the unit before it has shot; False if there
    is no need or no way."""
    me = units[i]
    enemies = rules.sides[1 - me.side]
    short = np.inf
    for k in range(enemies.first, enemies.last):
        it = units[k]
        if chases(rules, me, it):
            short = min(short, distance_to(me, it) - rules.pairs[it.type, me.type].range)
    if short >= (SAFE if me.cooldown <= READY else FAR):
        return False
    best, least = -1, np.inf
    for d in range(rules.directions.shape[0]):
        if direction_open(rules, me, d):
            repulsion = repulsion_towards(rules, units, i, d)
            if repulsion < least:
                best, least = d, repulsion
    if best >= 0:
        give_order(rules, battle, units, i, _FIRST_MOVE + best, -1)
    return best >= 0


@compiled
def chases(rules: Rules, me: Unit, it: Unit) -> bool:
    """Whether the enemy ``it`` is seen, can walk, and has to come much closer than ``me`` to do harm."""
    if not it.alive or it.seen >> me.side & 1 == 0 or rules.types[it.type].speed <= 0.0:
        return False
    theirs = rules.pairs[it.type, me.type]
    return theirs.can_attack and theirs.range + RANGE_ADVANTAGE < rules.pairs[me.type, it.type].range


@compiled
def repulsion_towards(rules: Rules, units: Units, i: int, d: int) -> float:
    """What unit ``i`` would feel some cells on in direction ``d``: the sum of w / gap^3, with w = 1 for
    chasers and less for comrades."""
    me = units[i]
    x, y = me.x + LOOKAHEAD * rules.directions[d, 0], me.y + LOOKAHEAD * rules.directions[d, 1]
    repulsion = 0.0
    for k in range(rules.sides[0].first, rules.sides[1].last):
        it = units[k]
        comrade = it.side == me.side
        if k != i and (it.alive if comrade else chases(rules, me, it)):
            dx, dy = x - it.x, y - it.y
            gap = max(np.sqrt(dx * dx + dy * dy) - rules.pairs[it.type, me.type].contact, 0.2)
            repulsion += (COMRADES if comrade else 1.0) / (gap * gap * gap)
    return repulsion


@compiled
def flee(rules: Rules, battle: Battle, units: Units, i: int, to_x: float, to_y: float) -> bool:
    """Move away from the nearest enemy seen, and towards (to_x, to_y); False if there is no way."""
    me = units[i]
    enemies = rules.sides[1 - me.side]
    nearest, least = -1, np.inf
    for k in range(enemies.first, enemies.last):
        it = units[k]
        if it.alive and it.seen >> me.side & 1 == 1:
            distance = distance_to(me, it)
            if distance < least:
                nearest, least = k, distance
    if nearest < 0:
        return False
    it = units[nearest]
    away, home = max(least, 0.1), max(np.hypot(to_x - me.x, to_y - me.y), 0.1)
    ux = (me.x - it.x) / away + (to_x - me.x) / home
    uy = (me.y - it.y) / away + (to_y - me.y) / home
    return step(rules, battle, units, i, ux, uy)


@compiled_apart
def fall_back(rules: Rules, battle: Battle, units: Units, i: int) -> bool:
    """Retreat to the middle of the comrades, if outnumbered or still about it; False if not."""
    me = units[i]
    ours = theirs = x = y = 0.0
    count = 0
    for k in range(units.shape[0]):
        it = units[k]
        if not it.alive or it.side > 1:
            continue
        near = squared_to(me, it) <= LOCAL * LOCAL
        if it.side == me.side:
            x += it.x
            y += it.y
            count += 1
            if near:
                ours += it.health + it.shield
        elif near and it.seen >> me.side & 1 == 1:
            theirs += it.health + it.shield
    if me.plan < 0:
        me.plan += 1
    elif me.plan == 0 and theirs > OUTNUMBERED * ours:
        me.plan = RETREAT_STEPS
    if me.plan <= 0:
        return False
    me.plan -= 1
    if me.plan == 0:
        me.plan = -RETURN_STEPS
    # Half way between the comrades and where the team came from.
    home_x, home_y = home_point(rules, battle, me.side)
    return flee(rules, battle, units, i, 0.5 * (x / count + home_x), 0.5 * (y / count + home_y))


@compiled
def go_to(rules: Rules, battle: Battle, units: Units, i: int, along: float, aside: float) -> bool:
    """Move towards a point: a share of the way from home to the attack point, and cells to the left of it.
    False if the unit is there, or if nothing leads there."""
    me = units[i]
    world = rules.world[0]
    home_x, home_y = home_point(rules, battle, me.side)
    attack_x, attack_y = attack_point(rules, battle, me.side)
    ax, ay = attack_x - home_x, attack_y - home_y
    length = max(np.hypot(ax, ay), 0.1)
    x = home_x + along * ax - aside * ay / length
    y = home_y + along * ay + aside * ax / length
    dx = min(max(x, world.x0 + 1.0), world.x1 - 1.0) - me.x
    dy = min(max(y, world.y0 + 1.0), world.y1 - 1.0) - me.y
    if dx * dx + dy * dy <= NEAR_WAYPOINT * NEAR_WAYPOINT:
        return False
    return step(rules, battle, units, i, dx, dy)


@compiled_apart
def fan_out(rules: Rules, battle: Battle, units: Units, i: int, late: bool, met: bool) -> bool:
    """Approach in one of two prongs, and keep comrades at a distance while there is nothing to shoot."""
    me = units[i]
    if me.plan != 0:
        if not late and not met and go_to(rules, battle, units, i, 0.4, me.plan * PRONG):
            return True
        me.plan = 0
    if not late and not met and anyone_under_way(rules, units, me.side):
        halt(rules, battle, units, i)
        return True
    if met or me.thought > 2.0 * CONTACT:
        return False
    side = rules.sides[me.side]
    nearest, least = -1, ROOM
    for k in range(side.first, side.last):
        it = units[k]
        if it.alive and k != i:
            gap = distance_to(me, it) - rules.pairs[me.type, it.type].contact
            if gap < least:
                nearest, least = k, gap
    if nearest < 0:
        return False
    return step(rules, battle, units, i, me.x - units[nearest].x, me.y - units[nearest].y)


@compiled_apart
def go_round(rules: Rules, battle: Battle, units: Units, i: int, late: bool, met: bool) -> bool:
    """Flankers walk round to the attack point's flank; the others wait for them before contact."""
    me = units[i]
    if late or met:
        me.plan = 0
        return False
    if me.plan == 0:
        if me.thought > CONTACT or not anyone_under_way(rules, units, me.side):
            return False
        halt(rules, battle, units, i)
        return True
    way = 1 if me.plan > 0 else -1
    if abs(me.plan) == 1:
        if go_to(rules, battle, units, i, 0.4, way * CIRCUIT):
            return True
        me.plan = 2 * way
    if go_to(rules, battle, units, i, 1.0, way * CIRCUIT):
        return True
    me.plan = 0
    return False


@compiled
def anyone_under_way(rules: Rules, units: Units, side: int) -> bool:
    own = rules.sides[side]
    for k in range(own.first, own.last):  # noqa: SIM110 - numba has no any()
        if units[k].alive and units[k].plan != 0:
            return True
    return False


@compiled_apart
def step_back(rules: Rules, battle: Battle, units: Units, i: int) -> bool:
    """Ranged units whose weapon cools down step out of the reach of whoever is near."""
    me = units[i]
    if me.cooldown <= READY or me.thought > 0.0:
        return False
    enemies = rules.sides[1 - me.side]
    ranged = False
    for k in range(enemies.first, enemies.last):
        it = units[k]
        if it.alive:
            pair = rules.pairs[me.type, it.type]
            ranged = ranged or pair.range - pair.contact > MELEE
    home_x, home_y = home_point(rules, battle, me.side)
    return ranged and flee(rules, battle, units, i, home_x, home_y)


@compiled_apart
def lie_in_wait(rules: Rules, battle: Battle, units: Units, i: int, sprung: bool) -> bool:
    """Pull back from the enemy's way and hold, until the ambush is sprung."""
    me = units[i]
    if sprung:
        me.plan = 1
    if me.plan != 0:
        return False
    if battle.steps < BACK_STEPS:
        home_x, home_y = home_point(rules, battle, me.side)
        attack_x, attack_y = attack_point(rules, battle, me.side)
        if step(rules, battle, units, i, home_x - attack_x, home_y - attack_y):
            return True
    halt(rules, battle, units, i)
    return True
