"""Where units stand and how they walk: neighbours, steering round comrades, walls, pushing apart.

Neighbours are found through square bins, renewed before every loop. A bin is wide enough that whoever could
touch a unit, even after both have moved, lies in at most four of them.
"""

from __future__ import annotations

import numpy as np

from envs.battle.compiled import compiled, compiled_apart
from envs.battle.paths import heading, settle
from envs.battle.records import Records
from envs.battle.rules import STIM_BOOST, Rules
from envs.battle.state import EPSILON, Battle, Bins, Unit, Units


@compiled
def fill_bins(rules: Rules, units: Units, bins: Bins) -> None:
    """Sort the living into bins by where they stand (a counting sort)."""
    world = rules.world[0]
    n, last = units.shape[0], world.bins_x * world.bins_y
    if last == 1:
        _fill_the_only_bin(units, bins)
        return
    for k in range(last + 1):
        bins.start[k] = 0
    for i in range(n):
        me = units[i]
        if me.alive:
            me.bin = row(world, me.y) * world.bins_x + column(world, me.x)
            bins.start[me.bin] += 1
    total = 0
    for k in range(last + 1):
        total += bins.start[k]
        bins.start[k] = total
    for i in range(n):
        me = units[i]
        if me.alive:
            bins.start[me.bin] -= 1
            slot = bins.start[me.bin]
            me.slot = slot
            bins.x[slot], bins.y[slot], bins.unit[slot] = me.x, me.y, i


@compiled
def _fill_the_only_bin(units: Units, bins: Bins) -> None:
    slot = 0
    for i in range(units.shape[0]):
        me = units[i]
        if me.alive:
            me.slot = slot
            bins.x[slot], bins.y[slot], bins.unit[slot] = me.x, me.y, i
            slot += 1
    bins.start[0], bins.start[1] = 0, slot


@compiled
def column(world: Records, x: float) -> int:
    """Of the bins."""
    return min(max(int((x - world.x0) * world.bin), 0), world.bins_x - 1)


@compiled
def row(world: Records, y: float) -> int:
    """Of the bins."""
    return min(max(int((y - world.y0) * world.bin), 0), world.bins_y - 1)


@compiled
def bins_within(world: Records, x: float, y: float, reach: float) -> tuple[int, int, int, int]:
    """The bins that lie less than ``reach`` from (x, y) along either axis: columns from and to, rows from and
    to, the last ones included."""
    if world.bins_x * world.bins_y == 1:
        return 0, 0, 0, 0
    return column(world, x - reach), column(world, x + reach), row(world, y - reach), row(world, y + reach)


@compiled
def place(rules: Rules, me: Unit, x: float, y: float) -> None:
    """Bring a unit from where it stands to (x, y), or as near as walls and the playable area let it."""
    world = rules.world[0]
    kind = rules.types[me.type]
    if world.terrain and kind.plane == 0:
        x, y = settle(rules.paths, me.x, me.y, x, y, kind.clearance, kind.climbs)
    r = kind.clearance
    me.x = min(max(x, world.x0 + r), world.x1 - r)
    me.y = min(max(y, world.y0 + r), world.y1 - r)


@compiled_apart
def slide(rules: Rules, me: Unit, x: float, y: float) -> tuple[float, float]:
    """Where a unit on the ground gets to that walks straight towards (x, y), sliding along walls."""
    kind = rules.types[me.type]
    at_x, at_y = me.x, me.y
    step_x, step_y = 0.25 * (x - at_x), 0.25 * (y - at_y)
    for _ in range(4):
        at_x, at_y = settle(
            rules.paths, at_x, at_y, at_x + step_x, at_y + step_y, kind.clearance, kind.climbs
        )
    return at_x, at_y


@compiled
def speed_of(kind: Records, battle: Battle, me: Unit) -> float:
    """Cells a loop, now, of a unit of the type ``kind``."""
    return kind.speed * STIM_BOOST if me.stim_until > battle.loop else kind.speed


@compiled
def walk_to(
    rules: Rules, battle: Battle, units: Units, bins: Bins, i: int, x: float, y: float, length: float
) -> None:
    """Walk ``length`` towards (x, y), which is not where the unit stands: straight, or round walls."""
    me = units[i]
    if rules.world[0].terrain and rules.types[me.type].plane == 0:
        x, y = heading(rules.paths, me.x, me.y, x, y, rules.types[me.type].climbs)
    dx, dy = x - me.x, y - me.y
    distance = np.sqrt(dx * dx + dy * dy)
    if distance > EPSILON:
        per_cell = 1.0 / distance
        _walk(rules, battle, units, bins, i, dx * per_cell, dy * per_cell, min(length, distance))


@compiled
def _walk(
    rules: Rules, battle: Battle, units: Units, bins: Bins, i: int, ux: float, uy: float, length: float
) -> None:
    """Step along (ux, uy); round whoever stands in the way, or not at all if that way is taken too.

    A unit passes on the side it is heading to; head-on, its number in the team decides.
    """
    me = units[i]
    me.facing_x, me.facing_y = ux, uy
    me.moved = True
    for attempt in range(2):
        blocker = _in_the_way(rules, battle, units, bins, i, ux * length, uy * length)
        if blocker < 0:
            place(rules, me, me.x + ux * length, me.y + uy * length)
            bins.x[me.slot], bins.y[me.slot] = me.x, me.y
            return
        if attempt == 0:
            it = units[blocker]
            nx, ny = it.x - me.x, it.y - me.y
            distance = np.sqrt(nx * nx + ny * ny)
            if distance < EPSILON:
                return
            nx, ny = nx / distance, ny / distance
            along = nx * uy - ny * ux
            member = i - rules.sides[me.side].first
            left = along > EPSILON or (along > -EPSILON and member % 2 == 0)
            ux, uy = (-ny, nx) if left else (ny, -nx)


@compiled
def _in_the_way(
    rules: Rules, battle: Battle, units: Units, bins: Bins, i: int, step_x: float, step_y: float
) -> int:
    """The unit that a step would come closest to, closer than they may stand and than they are; -1 if none.

    Whoever is overlapped all the same is marked crowded, and so is the unit itself.
    """
    me = units[i]
    world = rules.world[0]
    x, y = me.x + step_x, me.y + step_y
    left, right, bottom, top = bins_within(world, x, y, world.reach)
    blocker, least = -1, np.inf
    for line in range(bottom, top + 1):
        first, last = bins.start[line * world.bins_x + left], bins.start[line * world.bins_x + right + 1]
        itself = 1 if first <= me.slot < last else 0
        if _count_near(bins, x, y, world.widest2, first, last) == itself:
            continue
        for slot in range(np.uint64(first), np.uint64(last)):
            dx, dy = bins.x[slot] - x, bins.y[slot] - y
            squared = dx * dx + dy * dy
            if squared >= world.widest2 or squared >= least:
                continue
            j = bins.unit[slot]
            it = units[j]
            apart = rules.pairs[me.type, it.type].apart
            if squared < apart * apart and j != i and it.alive:
                ahead = (it.x - me.x) * step_x + (it.y - me.y) * step_y > 0.0
                if not ahead and dx * step_x + dy * step_y <= 0.0:
                    me.crowded = it.crowded = 1
                    battle.any_crowded = True
                elif squared < least:
                    blocker, least = j, squared
    return blocker


@compiled
def _count_near(bins: Bins, x: float, y: float, squared: float, first: int, last: int) -> int:
    """How many units in the slots ``first`` to ``last`` are nearer to (x, y) than the root of ``squared``."""
    near = 0
    for slot in range(np.uint64(first), np.uint64(last)):
        dx, dy = bins.x[slot] - x, bins.y[slot] - y
        near += dx * dx + dy * dy < squared
    return near


@compiled
def push_apart(rules: Rules, battle: Battle, units: Units, bins: Bins) -> None:
    """Push overlapping units apart; units that stand give way only to units that stand.

    Whoever stepped freely overlaps nobody, so only the units marked crowded are looked at. All pushes are
    summed before any is applied, so that no side of the map is favoured.
    """
    if not battle.any_crowded:
        return
    world = rules.world[0]
    n = units.shape[0]
    for i in range(n):
        me = units[i]
        me.push_x = me.push_y = 0.0
        if not me.alive or me.crowded != 1:
            continue
        left, right, bottom, top = bins_within(world, me.x, me.y, world.reach)
        overlaps = False
        for line in range(bottom, top + 1):
            first, last = bins.start[line * world.bins_x + left], bins.start[line * world.bins_x + right + 1]
            for slot in range(first, last):
                j = bins.unit[slot]
                it = units[j]
                dx, dy = it.x - me.x, it.y - me.y
                squared = dx * dx + dy * dy
                apart = rules.pairs[me.type, it.type].apart
                if squared < apart * apart - EPSILON and j != i and it.alive:
                    overlaps = True
                    if it.crowded == 0:
                        it.crowded = 2
                    distance = np.sqrt(squared)
                    if distance > EPSILON:
                        nx, ny = dx / distance, dy / distance
                    else:
                        nx, ny = (1.0 if i < j else -1.0), 0.0
                    share = 0.5 if me.moved == it.moved else (1.0 if me.moved else 0.0)
                    me.push_x -= nx * (apart - distance) * share
                    me.push_y -= ny * (apart - distance) * share
        me.crowded = 1 if overlaps else 3
    battle.any_crowded = False
    for i in range(n):
        me = units[i]
        if me.crowded == 0:
            continue
        # 1: overlaps still; 2: found overlapped by another just now; 3: overlaps nobody any more.
        me.crowded = 0 if me.crowded == 3 else 1
        if me.alive and me.crowded:
            battle.any_crowded = True
            if me.push_x != 0.0 or me.push_y != 0.0:
                place(rules, me, me.x + me.push_x, me.y + me.push_y)
                bins.x[me.slot], bins.y[me.slot] = me.x, me.y
