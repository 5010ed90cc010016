"""How the engine's cost grows with the units of a battle: time of a game loop, and memory.

Density stays: the armies start as discs whose areas grow with their units. All sizes are timed over the same
stage, from the moment that a tenth of the units has fallen until half have. The time is the core's (CPU time
of one thread), so other programs on the machine hardly change it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import numpy as np

from envs.battle.batch import AutoReset, BattleBatch
from envs.battle.tactics import DEFAULT
from envs.scenarios import Group, Scenario, Team, formation_radius
from envs.unit_set import LOOPS_PER_STEP, Verb
from training.benchmark.rows import REPEATS, Row, row

NUM_UNITS = (50, 100, 200, 400)
"""Units in one battle, both sides together."""
_BATTLES = 4
_FROM, _TO = 0.1, 0.5
"""Parts of the units that have fallen when the clock starts, and when it stops."""
_GAP = 12.0
"""Map cells between the armies' edges at the start, out of each other's reach."""
_MARGIN = 4.0
"""Map cells between an army and the map's edge."""
_STEP_LIMIT = 2000


def measure(
    command: str, *, sizes: Sequence[int] = NUM_UNITS, seconds: float = 0.3, repeats: int = REPEATS
) -> Iterator[Row]:
    """Time of a loop by size and the exponent of its growth; memory by size.

    The engine plays both sides, or (rows ``observed``) one side is observed and ordered from outside.

    Args:
        command: what to run to get the rows again.
        sizes: units in one battle, even numbers.
        seconds: least duration of a repeat.
        repeats: how often; sizes take turns.
    """
    for suffix, observing in (("", False), ("/observed", True)):
        fights = [Fight(num_units, observing) for num_units in sizes]
        measured = [[fight.seconds_a_loop(seconds) for fight in fights] for _ in range(repeats)]
        for i, num_units in enumerate(sizes):
            times = [1e6 * of_all[i] for of_all in measured]
            yield row(f"engine/growth/{num_units}_units{suffix}", "µs/game loop", times, command)
        exponents = [exponent(sizes, of_all) for of_all in measured]
        yield row(f"engine/growth/exponent{suffix}", "exponent", exponents, command)
    for num_units in sizes:
        state, observation = memory(num_units)
        for what, size in (("state", state), ("observation", observation)):
            yield row(f"engine/memory/{num_units}_units/{what}", "bytes/battle", [size], command)


def armies(num_units: int) -> Scenario:
    """Two equal armies, half marines and half zealots, with room to march.

    Args:
        num_units: of both sides together, even.
    """
    size = num_units // 2
    units = ("marine",) * (size - size // 2) + ("zealot",) * (size // 2)
    radius = formation_radius(units)
    width, height = math.ceil(4 * radius + _GAP + 2 * _MARGIN), math.ceil(2 * (radius + _MARGIN))
    left, right = (radius + _MARGIN, height / 2), (width - radius - _MARGIN, height / 2)
    return Scenario(
        name=f"armies_{num_units}",
        width=width,
        height=height,
        playable=(0, 0, width, height),
        teams=(Team((Group(units, left),), right), Team((Group(units, right),), left)),
        step_limit=_STEP_LIMIT,
    )


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """b of the least-squares fit log cost = a + b log size: the cost grows with the size to the power b."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def memory(num_units: int) -> tuple[int, int]:
    """Bytes of one battle's state, and of one side's observation of it with its masks (team control)."""
    batch = BattleBatch(armies(num_units), 1)
    observation = batch.observations[0]
    assert observation is not None
    return sum(array.nbytes for array in batch.state), sum(array.nbytes for array in observation.values())


class Fight:
    """Battles of two armies, repeatable from the moment that a tenth of the units has fallen.

    Args:
        num_units: of both sides together.
        observing: the first side is ordered to attack-move from outside, which fills its observations and
            masks; otherwise the engine plays both sides.

    Raises:
        RuntimeError: the armies do not fight.

    Attributes:
        num_steps: from that moment until half of the units have fallen.
    """

    def __init__(self, num_units: int, observing: bool) -> None:
        self._batch = BattleBatch(
            armies(num_units),
            _BATTLES,
            builtin=(None if observing else DEFAULT, DEFAULT),
            auto_reset=AutoReset.OFF,
        )
        self._orders = np.zeros((_BATTLES, num_units // 2, 2), np.int64) if observing else None
        self._play_until(_FROM)
        self._moment = [array.copy() for array in self._batch.state]
        self.num_steps = self._play_until(_TO)

    def seconds_a_loop(self, seconds: float) -> float:
        """CPU time that a game loop of one battle takes, measured for at least so many seconds."""
        spent, steps = 0.0, 0
        while spent < seconds:
            for array, then in zip(self._batch.state, self._moment, strict=True):
                array[...] = then
            self._batch.refresh()
            began = time.thread_time()
            for _ in range(self.num_steps):
                self._step()
            spent += time.thread_time() - began
            steps += self.num_steps
        return spent / (steps * LOOPS_PER_STEP * _BATTLES)

    def _play_until(self, fallen: float) -> int:
        """Step until that part of all units has fallen; returns how many steps it took."""
        for steps in range(_STEP_LIMIT):
            if np.mean(self._batch.state.units["alive"]) <= 1 - fallen:
                return steps
            self._step()
        raise RuntimeError(
            f"{self._batch.scenario.name}: after {_STEP_LIMIT} steps not {fallen:.0%} have fallen"
        )

    def _step(self) -> None:
        if self._orders is not None:
            attack_moves = self._batch.masks(0)["verb_mask"][..., Verb.ATTACK_MOVE]  # not the dead
            self._orders[..., 0] = np.where(attack_moves, Verb.ATTACK_MOVE, Verb.NO_OP)
        self._batch.step(self._orders)
