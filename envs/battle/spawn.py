"""How a battle begins: who takes part, where everyone stands."""

from __future__ import annotations

import numpy as np

from envs.battle.compiled import compiled, compiled_apart
from envs.battle.engine import attack_point, look
from envs.battle.missions import begin, revive
from envs.battle.movement import fill_bins, place, push_apart
from envs.battle.rules import NEUTRAL, NO_MISSION, SURROUND_OR_REFLECT, WAVES, Rules
from envs.battle.state import (
    ATTACK_MOVE,
    LONG_AGO,
    RUNNING,
    Battle,
    Bins,
    Units,
    below,
    shuffle,
    uniform,
)

_GOLDEN_ANGLE = np.pi * (3.0 - np.sqrt(5.0))
_SETTLING = 16  # times that overlapping units are pushed apart before the battle begins


@compiled_apart
def reset_battle(
    rules: Rules, battle: Battle, units: Units, bins: Bins, seed: np.uint64, players: np.ndarray
) -> None:
    """Start a battle afresh from ``seed``.

    A group stands in a disc around its spawn point, in random order, turned by a random angle; disc and units
    scatter by the scenario's jitter. A side that the engine plays is told to attack-move, if there is a point
    to attack; who plays it is drawn last, from ``players``, (2, 2) as of tactics.choices.
    """
    world = rules.world[0]
    battle.random = seed
    battle.loop = battle.steps = battle.waves = 0
    battle.outcome = RUNNING
    battle.any_missile = battle.any_burst = battle.swapped = False
    battle.score = battle.points = 0.0
    for s in range(2):
        battle.tactic[s] = players[s, 0]
    for i in range(units.shape[0]):
        me = units[i]
        me.type = rules.type_of[i]
        me.missile_target = -1
        me.shuffle = i
        me.alive = False
        me.health = me.shield = me.energy = 0.0
        me.side = 0 if i < rules.sides[0].last else (1 if i < rules.sides[1].last else NEUTRAL)
        me.facing_x, me.facing_y = 1.0, 0.0
        me.x = me.goal_x = me.home_x = 0.5 * (world.x0 + world.x1)
        me.y = me.goal_y = me.home_y = 0.5 * (world.y0 + world.y1)
        me.hit_at = me.struck_at = me.next_scan = LONG_AGO
        me.engaged = -1
        me.order = 0
        me.windup = -1.0
        me.seen = 0
    if world.draws:
        _draw_types(rules, battle, units)
    for s in range(2):
        side = rules.sides[s]
        battle.fighters[s] = 0
        battle.killed[s] = 0
        battle.lost[s] = battle.vitality[s] = 0.0
        for i in range(side.first, side.last):
            kind = rules.types[units[i].type]
            battle.vitality[s] += kind.health + kind.shield
            if i < side.start:
                revive(rules, battle, units[i])
    if world.placement == SURROUND_OR_REFLECT:
        if uniform(battle) < 0.5:
            _surround(rules, battle, units)
        else:
            _reflect(rules, battle, units)
    else:
        _stand_at_points(rules, battle, units)
    if rules.mission[0].kind != NO_MISSION:
        begin(rules, battle, units)
    for s in range(2):
        side, other = rules.sides[s], rules.sides[1 - s]
        for i in range(side.first, side.last):
            me = units[i]
            if rules.mission[0].kind != WAVES:
                me.facing_x = -1.0 if other.home_x < side.home_x else 1.0
            place(rules, me, me.x, me.y)
            me.goal_x, me.goal_y = attack_point(rules, battle, s)
            if players[s, 1] > 0 and me.alive and side.has_attack_point:
                me.order = ATTACK_MOVE
    for _ in range(_SETTLING):
        fill_bins(rules, units, bins)
        push_apart(rules, battle, units, bins)
    look(rules, units)
    for s in range(2):
        if players[s, 1] > 1:
            battle.tactic[s] += below(battle, players[s, 1])


@compiled
def _draw_types(rules: Rules, battle: Battle, units: Units) -> None:
    """Draw what both teams have; who is larger draws as many more (SMACv2, whose second team is)."""
    own, enemies = rules.sides[0], rules.sides[1]
    size = min(own.last - own.first, enemies.last - enemies.first)
    _draw_team(rules, battle, units, own.first, own.first + size)
    for k in range(size):
        units[enemies.first + k].type = units[own.first + k].type
    for s in range(2):
        if rules.sides[s].last - rules.sides[s].first > size:
            _draw_team(rules, battle, units, rules.sides[s].first + size, rules.sides[s].last)


@compiled_apart
def _draw_team(rules: Rules, battle: Battle, units: Units, first: int, last: int) -> None:
    """Draw units until one of them is of a type that may stand alone; failing that, make the first one."""
    for _ in range(100):
        alone = True
        for i in range(first, last):
            u = uniform(battle)
            k = 0
            while k < rules.choices.shape[0] - 1 and u >= rules.choices[k].up_to:
                k += 1
            units[i].type = rules.choices[k].type
            alone = alone and rules.choices[k].never_alone
        if not alone:
            return
    least = 0.0
    for k in range(rules.choices.shape[0]):
        if not rules.choices[k].never_alone and rules.choices[k].up_to > least:
            units[first].type = rules.choices[k].type
            return
        least = rules.choices[k].up_to


@compiled_apart
def _stand_at_points(rules: Rules, battle: Battle, units: Units) -> None:
    jitter = rules.world[0].jitter
    for s in range(2):
        side = rules.sides[s]
        for g in range(side.first_group, side.last_group):
            group = rules.groups[g]
            angle = 2.0 * np.pi * uniform(battle)
            cx = group.x + jitter * (2.0 * uniform(battle) - 1.0)
            cy = group.y + jitter * (2.0 * uniform(battle) - 1.0)
            last = min(group.last, side.start)
            for i in range(group.first, last):
                units[i].shuffle = i - group.first
            shuffle(battle, units, group.first, last)
            for i in range(group.first, last):
                me = units[i]
                k = me.shuffle
                r = group.spacing * np.sqrt(k + 0.5) if last - group.first > 1 else 0.0
                wobble_x, wobble_y = 2.0 * uniform(battle) - 1.0, 2.0 * uniform(battle) - 1.0
                me.x, me.y = group.x, group.y
                # In short steps: walls on the way stop a unit, and none is leapt over.
                for part in range(1, 9):
                    x = cx + r * np.cos(angle + k * _GOLDEN_ANGLE) + 0.25 * jitter * wobble_x
                    y = cy + r * np.sin(angle + k * _GOLDEN_ANGLE) + 0.25 * jitter * wobble_y
                    place(rules, me, group.x + (x - group.x) * part / 8, group.y + (y - group.y) * part / 8)
    for i in range(units.shape[0]):
        units[i].shuffle = i


@compiled_apart
def _surround(rules: Rules, battle: Battle, units: Units) -> None:
    """The first team in the middle of the map, the second in one to four groups on its diagonals, each
    somewhere between the corner and two cells from the middle (SMACv2).

    SMACv2 makes a group's units on one point, and the game pushes them apart into a heap; here they start in
    a disc.
    """
    world = rules.world[0]
    own, enemies = rules.sides[0], rules.sides[1]
    cx, cy = 0.5 * (world.x0 + world.x1), 0.5 * (world.y0 + world.y1)
    _stand_in_disc(rules, battle, units, own.first, own.last, cx, cy)
    groups = 1 + below(battle, 4)
    taken, i = 0, enemies.first
    for g in range(groups):
        diagonal = below(battle, 4)
        while taken >> diagonal & 1:
            diagonal = below(battle, 4)
        taken |= 1 << diagonal
        inwards = uniform(battle)
        sx = -1.0 if diagonal < 2 else 1.0
        sy = -1.0 if diagonal == 0 or diagonal == 3 else 1.0
        x = (cx + 2.0 * sx) * inwards + (world.x0 if sx < 0 else world.x1) * (1.0 - inwards)
        y = (cy + 2.0 * sy) * inwards + (world.y0 if sy < 0 else world.y1) * (1.0 - inwards)
        # Each of those left joins with the chance that makes all groups alike: a multinomial draw.
        members = 0
        for _ in range(enemies.last - i):
            members += uniform(battle) * (groups - g) < 1.0
        _stand_in_disc(rules, battle, units, i, i + members, x, y)
        i += members


@compiled_apart
def _stand_in_disc(
    rules: Rules, battle: Battle, units: Units, first: int, last: int, x: float, y: float
) -> None:
    """Units ``first`` to ``last`` in a sunflower disc around (x, y), turned by a random angle."""
    spacing = rules.groups[0].spacing
    angle = 2.0 * np.pi * uniform(battle)
    for k in range(last - first):
        r = spacing * np.sqrt(k + 0.5) if last - first > 1 else 0.0
        units[first + k].x = x + r * np.cos(angle + k * _GOLDEN_ANGLE)
        units[first + k].y = y + r * np.sin(angle + k * _GOLDEN_ANGLE)


@compiled_apart
def _reflect(rules: Rules, battle: Battle, units: Units) -> None:
    """The first team anywhere in the left half of the map, the second mirrored in the right (SMACv2)."""
    world = rules.world[0]
    own, enemies = rules.sides[0], rules.sides[1]
    middle = 0.5 * (world.x0 + world.x1)
    for i in range(own.first, own.last):
        units[i].x = world.x0 + uniform(battle) * (middle - 1.0 - world.x0)
        units[i].y = world.y0 + uniform(battle) * (world.y1 - world.y0)
    for i in range(enemies.first, enemies.last):
        k = own.first + i - enemies.first
        if k < own.last:
            units[i].x, units[i].y = world.x0 + world.x1 - units[k].x, units[k].y
        else:
            units[i].x = middle + uniform(battle) * (world.x1 - middle)
            units[i].y = world.y0 + uniform(battle) * (world.y1 - world.y0)
