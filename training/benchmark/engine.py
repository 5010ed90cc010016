"""How fast the battle engine is, beside SMAX where that is installed; how its cost grows; how soon it starts.

An environment step runs 8 game loops of one battle with its enemy, scores it, starts it afresh if it is over
and fills the observations and masks. Orders are uniformly random legal ones; drawing them counts, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from training.benchmark import growth, smax
from training.benchmark.contest import Contestant, ContestError, Way, take_turns
from training.benchmark.rows import REPEATS, Row, row, row_against

SCENARIOS = ("3m", "8m", "2s3z", "27m_vs_30m")
SIZES = (32, 128, 512)
"""Battles for each core that ours is tried with."""
RIVAL_SIZES = (4, 8, 16, 32, 128, 512)
"""XLA's code is often at its fastest for small batches, which stay in a core's cache."""
_UNIT = "env steps/s"
_FIRST_CALL = """
import time
began = time.perf_counter()
from envs.battle.batch import BattleBatch
batch = BattleBatch("3m", 1)
batch.step(batch.observations[0]["controlled"][..., None] * [0, 0])
print(time.perf_counter() - began)
"""


def measure(command: str) -> Iterator[Row]:
    """Environment steps a second on one core and on all, growth with the units, seconds to the first step.

    With the rival installed this takes about a quarter of an hour on two cores, most of it to compile the
    rival.
    """
    cores = sorted(os.sched_getaffinity(0))
    for used in (cores[:1], cores) if len(cores) > 1 else (cores,):
        yield from speeds(command, used)
    yield from growth.measure(command)
    yield from _first_call(command)


def speeds(
    command: str,
    cores: Sequence[int],
    *,
    scenarios: Sequence[str] = SCENARIOS,
    sizes: Sequence[int] = SIZES,
    rival_sizes: Sequence[int] = RIVAL_SIZES,
    seconds: float = 1.0,
    repeats: int = REPEATS,
) -> Iterator[Row]:
    """Environment steps a second by scenario: each side with its best batch, in turn, on the same cores.

    Args:
        command: what to run to get the rows again.
        cores: what both sides may run on.
        scenarios: what to play.
        sizes: battles for each core to try ours with.
        rival_sizes: and the rival.
        seconds: least duration of a repeat; sizes are tried for a third of it.
        repeats: how often each side has its turn.
    """
    for scenario in scenarios:
        with ExitStack() as processes:
            ours = processes.enter_context(Contestant("training.benchmark.stepping", cores))
            setting = ours.best(scenario, sizes, seconds / 3)
            name = f"engine/{scenario}/{_cores(len(cores))}/batch_{setting.batch(len(cores))}"
            reason = smax.absence()
            if reason is None:
                rival = processes.enter_context(Contestant("training.benchmark.smax", cores))
                try:
                    best = rival.best(scenario, rival_sizes, seconds / 3)
                    theirs, measured = take_turns(
                        [(rival, best), (ours, setting)], seconds=seconds, repeats=repeats
                    )
                except ContestError as error:
                    if error.contestant is ours:
                        raise
                    reason = str(error)
                else:
                    rival_name = f"{smax.version()}, batch {best.batch(len(cores))}"
                    yield row_against(name, _UNIT, measured, command, rival_name, theirs)
                    if best.way is Way.APART:
                        # What its users run: one device, whose threads XLA manages.
                        plain = rival.best(scenario, rival_sizes, seconds / 3, (Way.TOGETHER,))
                        theirs, measured = take_turns(
                            [(rival, plain), (ours, setting)], seconds=seconds, repeats=repeats
                        )
                        rival_name = f"{smax.version()}, one device, batch {plain.batch(len(cores))}"
                        name += "/one_device"
                        yield row_against(name, _UNIT, measured, command, rival_name, theirs)
                    continue
            (measured,) = take_turns([(ours, setting)], seconds=seconds, repeats=repeats)
            yield replace(row(name, _UNIT, measured, command), rival_name=f"SMAX, not measured: {reason}")


def _cores(number: int) -> str:
    return "1_core" if number == 1 else f"{number}_cores"


def _first_call(command: str) -> Iterator[Row]:
    """Seconds from importing the engine to the end of its first step: with nothing compiled, and cached."""
    with tempfile.TemporaryDirectory() as cache:
        for state in ("nothing compiled", "cached"):
            yield row(f"engine/first step, {state}", "s", [_first_step(cache)], command)


def _first_step(cache: str) -> float:
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    process = subprocess.run(
        [sys.executable, "-c", _FIRST_CALL], env=environment, capture_output=True, text=True, check=True
    )
    return float(process.stdout)
