"""The mini-games' course: beacons, shards, zerglings to hunt, waves; and their score.

The rules are those of pysc2's docs/mini_games.md. What a mission does after a game loop is decided here; what
it starts with is placed by :func:`begin`.
"""

from __future__ import annotations

import numpy as np

from envs.battle.compiled import compiled, compiled_apart
from envs.battle.engine import attack_point
from envs.battle.movement import place
from envs.battle.rules import BEACON, HUNT, NEUTRAL, SHARDS, WAVES, Rules
from envs.battle.state import ATTACK_MOVE, IDLE, LONG_AGO, Battle, Unit, Units, uniform, wake

_TRIES = 256  # places drawn for a thing before the best of them has to do
_ANYWHERE = (0.0, 1e9)  # least and greatest distance from the centre of the region


@compiled
def revive(rules: Rules, battle: Battle, me: Unit) -> None:
    """Put a unit on the field, whole and without orders, where its position says."""
    kind = rules.types[me.type]
    me.health, me.shield, me.energy = kind.health, kind.shield, kind.energy_start
    me.cooldown, me.windup = 0.0, -1.0
    me.hit_at = me.struck_at = me.next_scan = LONG_AGO
    me.stim_until = me.ability_at = 0
    me.busy_until = 0.0
    me.engaged = me.watcher = -1
    me.order = IDLE
    me.plan = me.seen = 0
    me.alive = me.moved = True
    me.crowded = 1
    battle.any_crowded = True
    if kind.armed:
        battle.fighters[me.side] += 1


@compiled_apart
def begin(rules: Rules, battle: Battle, units: Units) -> None:
    """Place what the mission starts with; the second team and neutral units are not on the field yet."""
    mission = rules.mission[0]
    battle.waves = 1
    own, neutral = rules.sides[0], rules.sides[NEUTRAL]
    if mission.kind == BEACON or mission.kind == SHARDS:
        for i in range(own.first, own.start):
            _scatter(rules, battle, units, i, (own.first, i), 0.0, 1.0, _ANYWHERE)
        for i in range(neutral.first, neutral.last):
            revive(rules, battle, units[i])
            _scatter(rules, battle, units, i, (neutral.first, i), mission.apart, mission.spread, _ANYWHERE)
    elif mission.kind == HUNT:
        enemies = rules.sides[1]
        for i in range(enemies.first, enemies.last):
            ring = (mission.near_from, mission.near_to)
            if i - enemies.first >= mission.near:
                ring = (mission.far, _ANYWHERE[1])
            _scatter(rules, battle, units, i, (enemies.first, i), 0.0, mission.spread, ring)
    elif mission.kind == WAVES:
        _line_up(rules, battle, units)


@compiled_apart
def after_loop(rules: Rules, battle: Battle, units: Units) -> None:
    """Score beacons and shards that have been reached; bring what comes next when all is done."""
    mission = rules.mission[0]
    own, enemies, neutral = rules.sides[0], rules.sides[1], rules.sides[NEUTRAL]
    if mission.kind == BEACON or mission.kind == SHARDS:
        left = 0
        for j in range(neutral.first, neutral.last):
            it = units[j]
            if it.alive:
                if _reached(rules, units, it):
                    battle.points += mission.collect
                    it.alive = False
                    it.health = 0.0
                    it.hit_at = battle.loop
                else:
                    left += 1
        if left == 0:
            battle.waves += 1
            for j in range(neutral.first, neutral.last):
                revive(rules, battle, units[j])
                _scatter(
                    rules, battle, units, j, (neutral.first, j), mission.apart, mission.spread, _ANYWHERE
                )
    elif battle.fighters[1] == 0 and battle.fighters[0] > 0:
        battle.waves += 1
        for i in range(units.shape[0]):
            units[i].missile_target = -1  # none flies on to those that appear anew
        for j in range(enemies.first, enemies.last):
            revive(rules, battle, units[j])
            if mission.kind == HUNT:
                _scatter(
                    rules, battle, units, j, (enemies.first, j), mission.apart, mission.spread, _ANYWHERE
                )
        if mission.kind == WAVES:
            joining = mission.reinforcements
            for i in range(own.first, own.last):
                if joining > 0 and not units[i].alive:
                    revive(rules, battle, units[i])
                    joining -= 1
            _line_up(rules, battle, units)
        wake(units)


@compiled
def _reached(rules: Rules, units: Units, it: Unit) -> bool:
    """Whether a unit of the first team touches a beacon or a shard."""
    own = rules.sides[0]
    for i in range(own.first, own.last):
        me = units[i]
        if me.alive:
            reach = rules.pairs[me.type, it.type].contact
            dx, dy = it.x - me.x, it.y - me.y
            if dx * dx + dy * dy <= reach * reach:
                return True
    return False


@compiled
def _draw_place(rules: Rules, battle: Battle, me: Unit) -> tuple[float, float]:
    """A random place of the region where the unit can stand: not on the very border of the playable area."""
    mission, world = rules.mission[0], rules.world[0]
    r = rules.types[me.type].clearance
    x0, x1 = max(mission.x0, world.x0 + r), min(mission.x1, world.x1 - r)
    y0, y1 = max(mission.y0, world.y0 + r), min(mission.y1, world.y1 - r)
    return x0 + uniform(battle) * (x1 - x0), y0 + uniform(battle) * (y1 - y0)


@compiled_apart
def _scatter(
    rules: Rules,
    battle: Battle,
    units: Units,
    i: int,
    others: tuple[int, int],
    apart: float,
    spread: float,
    ring: tuple[float, float],
) -> None:
    """Put unit ``i`` at a random place of the region, ``apart`` from the first team's other units, ``spread``
    from the units ``others`` (first, one past the last) and within ``ring`` (least and greatest distance)
    around the region's centre; failing that, at the best place drawn."""
    mission = rules.mission[0]
    own = rules.sides[0]
    me = units[i]
    cx, cy = 0.5 * (mission.x0 + mission.x1), 0.5 * (mission.y0 + mission.y1)
    best, best_x, best_y = -np.inf, mission.x0, mission.y0
    for _ in range(_TRIES):
        x, y = _draw_place(rules, battle, me)
        away = np.hypot(x - cx, y - cy)
        slack = min(min(away - ring[0], ring[1] - away), 0.0)
        for k in range(own.first, own.last):
            if units[k].alive and k != i:
                slack = min(slack, np.hypot(units[k].x - x, units[k].y - y) - apart)
        for k in range(others[0], others[1]):
            if k != i and units[k].alive:
                slack = min(slack, np.hypot(units[k].x - x, units[k].y - y) - spread)
        if slack > best:
            best, best_x, best_y = slack, x, y
        if slack >= 0.0:
            break
    me.x, me.y = best_x, best_y


@compiled_apart
def _line_up(rules: Rules, battle: Battle, units: Units) -> None:
    """Stand both teams in vertical lines at opposite ends of the region, which at which drawn at random.

    A second team that the engine plays and that has somewhere to attack goes for the other end.
    """
    mission = rules.mission[0]
    battle.swapped = uniform(battle) < 0.5
    for s in range(2):
        side = rules.sides[s]
        at = rules.sides[1 - s] if battle.swapped else side
        gap = 1.0  # as in the map's script
        for i in range(side.first, side.last):
            gap = max(gap, 2.0 * rules.types[units[i].type].separation + 0.05)
        # All of a line within the region, its ends 0.5 from the border: an odd number, one in the middle.
        per_line = 2 * max(int((0.5 * (mission.y1 - mission.y0) - 0.5) / gap), 0) + 1
        outwards = -1.0 if at.home_x < rules.sides[1].home_x + rules.sides[0].home_x - at.home_x else 1.0
        k = 0
        for i in range(side.first, side.last):
            me = units[i]
            if me.alive:
                line, rank = k // per_line, k % per_line
                offset = (rank + 1) // 2 * (1 if rank % 2 == 1 else -1)
                y = min(max(at.home_y + gap * offset, mission.y0), mission.y1)
                place(rules, me, at.home_x + outwards * gap * line, y)
                me.facing_x, me.facing_y = -outwards, 0.0
                me.order, me.engaged, me.windup = IDLE, -1, -1.0
                me.cooldown = me.busy_until = 0.0
                me.goal_x, me.goal_y = attack_point(rules, battle, s)
                if s == 1 and battle.tactic[1] >= 0 and side.has_attack_point:
                    me.order = ATTACK_MOVE
                k += 1
