"""The engine's own players, compiled: what each unit of a side is told at the start of a step.

A player sees what its side's units see and gives its units orders that an agent could give them: to attack
somebody seen, to hold, to attack-move, or to move two cells in one of eight directions that are open. Begun
attacks are left alone. What the tactics are called and what they are for is told in tactics.py; how a unit
shoots in firing.py, how it moves in manoeuvres.py.

:func:`command` takes stock of the field once and then goes through the units one by one, in their order; each
tactic is a function of one unit. Nothing is allocated: what a tactic remembers of a unit is in its ``plan``,
what it thinks of it within one call in its ``thought``: of one's own unit how far it has to go to get an
enemy in range, of an enemy the damage that is already meant for it.
"""

from __future__ import annotations

import numpy as np

from envs.battle.compiled import compiled, compiled_apart
from envs.battle.firing import accompany, attackable_now, blunder, count_volley, fire, squared_to
from envs.battle.manoeuvres import fall_back, fan_out, go_round, keep_away, lie_in_wait, step_back
from envs.battle.rules import Rules
from envs.battle.state import LONG_AGO, RUNNING, Battle, State, Units, below
from envs.battle.tactics import Tactic

LINE_DEPTH = 0.7
"""Map cells, times the square root of the team's size, that a unit may be ahead of the last one of like
range: as deep as a formation is."""
STRAY = {Tactic.ATTACK_MOVE_EASY: 0.35, Tactic.ATTACK_MOVE_MEDIUM: 0.15}
"""Chance that a unit with an enemy in sight takes a step in a random direction instead."""
SCATTER = {Tactic.ATTACK_MOVE_EASY: 0.5, Tactic.ATTACK_MOVE_MEDIUM: 0.25}
"""Chance that it attacks any of the enemies in reach."""
MANOEUVRE = 0.4
"""Share of the step limit after which a manoeuvre or an ambush is given up for an attack."""

_ATTACK_MOVE = int(Tactic.ATTACK_MOVE)
_EASY, _MEDIUM = int(Tactic.ATTACK_MOVE_EASY), int(Tactic.ATTACK_MOVE_MEDIUM)
_FOCUS, _KITE = int(Tactic.FOCUS_FIRE), int(Tactic.KITE)
_REGROUP, _SPLIT = int(Tactic.RETREAT_REGROUP), int(Tactic.SPLIT)
_FLANK, _HIT_AND_RUN, _AMBUSH = int(Tactic.FLANK), int(Tactic.HIT_AND_RUN), int(Tactic.AMBUSH)
_EASY_STRAY, _EASY_SCATTER = STRAY[Tactic.ATTACK_MOVE_EASY], SCATTER[Tactic.ATTACK_MOVE_EASY]
_MEDIUM_STRAY, _MEDIUM_SCATTER = STRAY[Tactic.ATTACK_MOVE_MEDIUM], SCATTER[Tactic.ATTACK_MOVE_MEDIUM]


@compiled
def command_battles(rules: Rules, state: State, lo: int, hi: int) -> None:
    """Give a step's orders to the sides that the engine plays, in those of battles ``lo`` to ``hi`` that run.

    attack-move needs none but the one it got at the start.
    """
    for b in range(lo, hi):
        for side in range(2):
            tactic = int(state.battles[b].tactic[side])
            if state.battles[b].outcome == RUNNING and tactic > _ATTACK_MOVE:
                command(rules, state.battles[b], state.units[b], side, tactic)


@compiled_apart
def command(rules: Rules, battle: Battle, units: Units, side: int, tactic: int) -> None:
    """Give a step's orders to the units of ``side``, which the engine plays by ``tactic``.

    A team that has nowhere to attack to stands guard: it makes no manoeuvres, and acts on what it sees.
    """
    own = rules.sides[side]
    if battle.steps == 0 and tactic >= _SPLIT:
        _choose_ways(battle, units, own.first, own.last, tactic)
    count, met = _take_stock(rules, battle, units, side)
    late = not own.has_attack_point or battle.steps > MANOEUVRE * rules.world[0].step_limit
    depth = LINE_DEPTH * np.sqrt(count)
    if tactic in (_SPLIT, _FLANK, _AMBUSH) and not met:
        met = _any_hit(units, own.first, own.last)
    for i in range(own.first, own.last):
        me = units[i]
        if not me.alive:
            continue
        kind = rules.types[me.type]
        if not kind.armed or kind.explodes:
            accompany(rules, battle, units, i)
        elif me.windup >= 0.0:
            continue
        elif tactic == _EASY:
            blunder(rules, battle, units, i, _EASY_STRAY, _EASY_SCATTER)
        elif tactic == _MEDIUM:
            blunder(rules, battle, units, i, _MEDIUM_STRAY, _MEDIUM_SCATTER)
        elif tactic == _KITE:
            if not keep_away(rules, battle, units, i):
                fire(rules, battle, units, i, True, depth)
        elif tactic == _REGROUP:
            if not fall_back(rules, battle, units, i):
                fire(rules, battle, units, i, False, depth if me.plan < 0 else np.inf)
        elif tactic == _SPLIT:
            if not fan_out(rules, battle, units, i, late, met):
                fire(rules, battle, units, i, False, np.inf)
        elif tactic == _FLANK:
            if not go_round(rules, battle, units, i, late, met):
                fire(rules, battle, units, i, False, np.inf)
        elif tactic == _HIT_AND_RUN:
            if not step_back(rules, battle, units, i):
                fire(rules, battle, units, i, False, depth)
        elif tactic == _AMBUSH:
            if not lie_in_wait(rules, battle, units, i, late or met):
                fire(rules, battle, units, i, True, np.inf)
        else:
            fire(rules, battle, units, i, tactic == _FOCUS, depth)


@compiled
def _choose_ways(battle: Battle, units: Units, first: int, last: int, tactic: int) -> None:
    """Which side each unit goes round on: prongs by turns, all flankers on one side drawn at random."""
    flank = 1 if below(battle, 2) == 0 else -1
    for i in range(first, last):
        member = i - first
        if tactic == _SPLIT:
            units[i].plan = flank if member % 2 == 0 else -flank
        elif tactic == _FLANK and member % 3 == 0:
            units[i].plan = flank


@compiled_apart
def _take_stock(rules: Rules, battle: Battle, units: Units, side: int) -> tuple[int, bool]:
    """Fill everybody's ``thought``; returns how many of the side live, and if one has an enemy in range."""
    own, enemies = rules.sides[side], rules.sides[1 - side]
    for k in range(enemies.first, enemies.last):
        units[k].thought = 0.0
    count = 0
    met = False
    for i in range(own.first, own.last):
        me = units[i]
        if me.missile_target >= 0:
            count_volley(rules, units, i, me.missile_target)
        me.thought = np.inf
        if not me.alive:
            continue
        count += 1
        if me.windup >= 0.0 and me.engaged >= 0:
            count_volley(rules, units, i, me.engaged)
        for k in range(enemies.first, enemies.last):
            it = units[k]
            if attackable_now(rules, me, it):
                # A root only where it can be the least so far.
                reach = rules.pairs[me.type, it.type].range
                squared, within = squared_to(me, it), me.thought + reach
                if within > 0.0 and squared < within * within:
                    me.thought = np.sqrt(squared) - reach
        met = met or me.thought <= 0.0
    return count, met


@compiled
def _any_hit(units: Units, first: int, last: int) -> bool:
    """Whether any unit has been hit since the battle began."""
    for i in range(first, last):  # noqa: SIM110 - numba has no any()
        if units[i].hit_at > LONG_AGO:
            return True
    return False
