"""Two programs measured in turn on the same cores, each in a process of its own.

They take turns (rival, ours, rival, ours ...), so that what else the machine does hits both; the one whose
turn it is not waits for a line of text. Each first looks for its own best batch size. The programs are
modules that answer requests with :func:`serve`: :mod:`training.benchmark.stepping` is ours,
:mod:`training.benchmark.smax` the rival.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from training.benchmark.rows import REPEATS, rates

NOT_WORTH_MORE = 0.8
"""Larger batches are not tried once one reaches less than this part of the best rate so far."""


class Way(StrEnum):
    """How a program uses its cores. On one core both are the same."""

    TOGETHER = "together"
    """One batch that all cores work on."""
    APART = "apart"
    """Each core a batch of its own."""


@dataclass(frozen=True)
class Setting:
    """What a program is asked to run."""

    scenario: str
    battles: int
    """For each core."""
    way: Way = Way.TOGETHER

    def batch(self, num_cores: int) -> str:
        """The batch as a row names it: ``512``, or ``2x256`` where each of two cores has its own."""
        return f"{num_cores}x{self.battles}" if self.way is Way.APART else f"{num_cores * self.battles}"


class ContestError(RuntimeError):
    """A program could not be measured; the message says why.

    Attributes:
        contestant: the program.
    """

    def __init__(self, contestant: Contestant, message: str) -> None:
        super().__init__(message)
        self.contestant = contestant


def serve(prepare: Callable[[Setting, int], Callable[[], int]]) -> None:
    """The program's end: answer requests, a JSON line each, until there are no more.

    The arguments of the process are the cores it may run on.

    Args:
        prepare: sets up what is asked for on that many cores and returns what does a piece of the work and
            tells how many environment steps it was. It is called after the process is confined to its cores,
            so it is the place to import what counts them.
    """
    cores = {int(core) for core in sys.argv[1:]}
    os.sched_setaffinity(0, cores)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print to where the answers go
    prepared: Setting | None = None
    work: Callable[[], int] = int
    for line in sys.stdin:
        request = json.loads(line)
        seconds = request.pop("seconds")
        setting = Setting(**request | {"way": Way(request["way"])})
        try:
            if setting != prepared:
                work, prepared = int, None  # gives the memory back before the next one takes its own
                work, prepared = prepare(setting, len(cores)), setting
            answer: dict[str, Any] = {"rate": rates(work, seconds=seconds, repeats=1)[0]}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


class Contestant:
    """Our end of a program: starts it, asks it for rates, ends it. A context manager.

    Args:
        module: the program's module.
        cores: what it may run on.
    """

    def __init__(self, module: str, cores: Sequence[int]) -> None:
        self.num_cores = len(cores)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the program runs
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # Ctrl-C is for us, and we end it
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def rate(self, setting: Setting, seconds: float) -> float:
        """Environment steps a second.

        Raises:
            ContestError: the program refused, or is gone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(asdict(setting) | {"seconds": seconds}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ContestError(self, f"ended with exit code {self._process.wait()}{self._last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise ContestError(self, answer["error"].splitlines()[0])
        return float(answer["rate"])

    def best(
        self, scenario: str, sizes: Sequence[int], seconds: float, ways: Sequence[Way] = tuple(Way)
    ) -> Setting:
        """The setting with the highest rate.

        Args:
            scenario: what to play.
            sizes: battles for each core, ascending.
            seconds: how long each is measured.
            ways: to use several cores.
        """
        measured: dict[Setting, float] = {}
        for way in ways if self.num_cores > 1 else (Way.TOGETHER,):
            for size in sizes:
                setting = Setting(scenario, size, way)
                measured[setting] = self.rate(setting, seconds)
                if measured[setting] < NOT_WORTH_MORE * max(measured.values()):
                    break
        return max(measured, key=lambda setting: measured[setting])

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


def take_turns(
    sides: Sequence[tuple[Contestant, Setting]], *, seconds: float, repeats: int = REPEATS
) -> list[list[float]]:
    """Rates of each side, ``repeats`` of them, measured in turn."""
    measured: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for rates_, (side, setting) in zip(measured, sides, strict=True):
            rates_.append(side.rate(setting, seconds))
    return measured
