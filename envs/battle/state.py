"""The state of battles as records, and each battle's own random stream.

Units are indexed 0..N-1: the first team's, the second's, then neutral ones. State is arrays with one row a
battle, and every battle draws from its own stream, so a battle's course depends on its seed and orders alone,
not on what is simulated beside it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from envs.battle.compiled import compiled
from envs.battle.records import Records
from envs.battle.rules import Rules

# Orders a unit carries out (UNIT.order).
IDLE, HOLD, MOVE, ATTACK, ATTACK_MOVE, PATROL, USE = 0, 1, 2, 3, 4, 5, 6
# How a battle stands (BATTLE.outcome); Outcome in batch.py names them.
RUNNING, WIN_0, WIN_1, DRAW, TIMEOUT = 0, 1, 2, 3, 4

LONG_AGO = -(1 << 20)
EPSILON = 1e-6
# In compiled code a unit or a battle is one record of an array, units the row of a battle.
Unit: TypeAlias = Records
Units: TypeAlias = Records
Battle: TypeAlias = Records


class Bins(NamedTuple):
    """Where the living units of the battle at hand stand, sorted by square bins of the map row by row.

    Contiguous, so that a look for neighbours is a few vector instructions. Scratch of one thread: filled anew
    in every step, and in every game loop where there are several bins. Who falls meanwhile stays in.
    """

    x: NDArray[np.float64]  # (N,) by slot
    y: NDArray[np.float64]  # (N,)
    unit: NDArray[np.int64]  # (N,) the unit in the slot
    start: NDArray[np.int64]  # (bins + 1,) first slot of each bin


UNIT = np.dtype(
    [
        # What every look at a neighbour reads, in one cache line.
        ("x", "f8"),  # map cells
        ("y", "f8"),
        ("type", "i2"),  # local type
        ("bin", "i2"),
        ("slot", "i2"),  # in the bins
        ("engaged", "i2"),  # unit that an attack, a heal or another ability is aimed at, or -1
        ("side", "i1"),
        ("order", "i1"),
        ("alive", "?"),
        ("moved", "?"),  # in this loop
        ("crowded", "u1"),  # overlaps another: see movement.push_apart
        ("seen", "u1"),  # bit 0: by the first side, bit 1: by the second; renewed after every step
        ("watcher", "i2"),  # the enemy that saw it last
        ("hit_at", "i4"),  # loop of the last damage taken
        ("struck_at", "i4"),  # loop of the last attack landed
        ("cooldown", "f8"),  # loops until the weapon is ready
        ("windup", "f8"),  # loops until the begun attack lands; negative: none begun
        # What only its own update reads.
        ("facing_x", "f8"),  # unit vector
        ("facing_y", "f8"),
        ("goal_x", "f8"),  # where a move leads
        ("goal_y", "f8"),
        ("health", "f8"),
        ("shield", "f8"),
        ("energy", "f8"),
        ("push_x", "f8"),  # of this loop
        ("push_y", "f8"),
        ("home_x", "f8"),  # the other end of a patrol
        ("home_y", "f8"),
        ("busy_until", "f8"),  # loop at which the backswing ends
        ("next_scan", "i4"),  # loop before which no enemy can have come near
        ("stim_until", "i4"),
        ("ability_at", "i4"),  # loop from which the ability is ready
        ("missile_at", "i4"),  # loop at which its missile lands
        ("missile_target", "i2"),  # unit its missile flies to, or -1
        ("shuffle", "i2"),  # entry of the update order: of the units that act in this step
        ("plan", "i4"),  # what an engine-side opponent remembers of the unit
        ("missile_x", "f8"),  # where its missile was fired from
        ("missile_y", "f8"),
        ("missile_from", "i4"),  # loop at which it was fired
        ("thought", "f4"),  # scratch of an engine-side opponent within one step
    ],
    align=True,
)
BATTLE = np.dtype(
    [
        ("random", "u8"),
        ("loop", "i4"),  # game loops since the start
        ("steps", "i4"),
        ("outcome", "i1"),
        ("tactic", "i1", 2),  # which engine-side opponent plays each side; -1: none
        ("acting", "i4"),  # units alive when the step began
        ("any_missile", "?"),
        ("any_burst", "?"),
        ("any_crowded", "?"),
        ("waves", "i4"),  # waves that have appeared, the first included
        ("swapped", "?"),  # the teams of a mission's wave stand at each other's end
        ("fighters", "i4", 2),  # living units that keep a side in the battle
        ("killed", "i4", 2),  # units a side has lost in this step
        ("lost", "f8", 2),  # health and shield a side has lost in this step
        ("vitality", "f8", 2),  # health and shield of a whole team at the start
        ("points", "f8"),  # a mission's score in this step
        ("score", "f8"),  # and in all
    ],
    align=True,
)


class State(NamedTuple):
    """All battles' state."""

    units: Records  # (B, N) UNIT
    battles: Records  # (B,) BATTLE
    returns: NDArray[np.float64]  # (B, 2) sums of rewards


def new_state(num_battles: int, num_units: int) -> State:
    """Zeroed state; spawn.reset_battle makes a battle of a row."""
    return State(
        np.zeros((num_battles, num_units), UNIT), np.zeros(num_battles, BATTLE), np.zeros((num_battles, 2))
    )


def new_bins(rules: Rules) -> Bins:
    """Scratch for one thread."""
    n, world = len(rules.type_of), rules.world[0]
    return Bins(
        np.zeros(n),
        np.zeros(n),
        np.zeros(n, np.int64),
        np.zeros(world["bins_x"] * world["bins_y"] + 1, np.int64),
    )


@compiled
def random_bits(battle: Battle) -> np.uint64:
    """SplitMix64 (Steele, Lea and Flood 2014): 64 random bits from the battle's own stream."""
    battle.random += np.uint64(0x9E3779B97F4A7C15)
    z = battle.random
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def uniform(battle: Battle) -> float:
    """Uniform in [0, 1)."""
    return np.float64(random_bits(battle) >> np.uint64(11)) * (1.0 / (1 << 53))


@compiled
def index(value: Any) -> Any:
    """An index as the one integer type that kernels pass on: for each other type all of them were compiled
    anew."""
    return np.int64(value)


@compiled
def below(battle: Battle, n: int) -> Any:
    """Uniform integer in [0, n) by multiply-shift; the bias is below n / 2**32."""
    return np.int64(((random_bits(battle) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@compiled
def shuffle(battle: Battle, units: Units, first: int, last: int) -> None:
    """Fisher-Yates over the ``shuffle`` entries ``first`` to ``last``."""
    for i in range(last - 1, first, -1):
        j = first + below(battle, i - first + 1)
        units[i].shuffle, units[j].shuffle = units[j].shuffle, units[i].shuffle


@compiled
def wake(units: Units) -> None:
    """After units have changed places by other means than walking: let all look for targets again."""
    for i in range(units.shape[0]):
        units[i].next_scan = LONG_AGO
        units[i].crowded = 1
