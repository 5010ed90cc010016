"""What a person sees of a queue: what runs and what it said last, how much is done, how long it may take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from training.suite.jobs import LOGS, Job, fraction_done, is_finished

_LOOK_S = 2.0
_LINE_S = 60.0
_TAIL_BYTES = 4096


class Running(NamedTuple):
    """A job at work, and since when (:func:`time.monotonic`)."""

    job: Job
    began: float


class QueueDisplay:
    """Shows a queue while it is entered: live rows on a terminal, elsewhere a line a minute.

    Args:
        console: where to.
        jobs: all of the queue.
        processes: how many run at a time.
    """

    def __init__(self, console: Console, jobs: Sequence[Job], processes: int) -> None:
        self._console, self._jobs, self._processes = console, jobs, processes
        self._live = Progress(
            TextColumn("{task.fields[name]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._whole = self._live.add_task("", name="all", total=1.0)
        self._rows: dict[str, TaskID] = {}
        self._began = self._looked = self._told = time.monotonic()
        self._done_before = self._seconds_done()

    def __enter__(self) -> QueueDisplay:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, running: Sequence[Running]) -> None:
        """Look at what the jobs have left on disk, now and then, and show it."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        for name in self._rows.keys() - {one.job.name for one in running}:
            self._live.remove_task(self._rows.pop(name))
        for job, began in running:
            if job.name not in self._rows:
                self._rows[job.name] = self._live.add_task("", name=escape(job.name), total=1.0)
            said = _last_line(job.config.run_dir.parent / LOGS / f"{job.name}.log")
            self._live.update(
                self._rows[job.name],
                completed=fraction_done(job.config, job.config.run_dir),
                description=f"{_clock(now - began)}  {escape(said)}",
            )
        share, line = self._overall(now)
        self._live.update(self._whole, completed=share, description=line)
        if not self._console.is_terminal and now - self._told >= _LINE_S:
            self._told = now
            names = ", ".join(one.job.name for one in running)
            self._console.print(f"{line}; at work: {names}", highlight=False, markup=False)

    def finished(self, job: Job, seconds: float) -> None:
        """A job is done."""
        said = _last_line(job.config.run_dir.parent / LOGS / f"{job.name}.log")
        self._console.print(f"{job.name} done in {_clock(seconds)}: {said}", highlight=False, markup=False)

    def failed(self, name: str, reason: str) -> None:
        """A job failed."""
        self._console.print(f"{name} failed: {reason}", highlight=False, markup=False)

    def _seconds_done(self) -> float:
        """What has been done, as the seconds it was estimated at."""
        return sum(job.seconds * fraction_done(job.config, job.config.run_dir) for job in self._jobs)

    def _overall(self, now: float) -> tuple[float, str]:
        """The share of the whole that is done, and a line about it."""
        whole, done = sum(job.seconds for job in self._jobs), self._seconds_done()
        elapsed = now - self._began
        speed = (done - self._done_before) / elapsed  # estimated seconds a second
        left = (whole - done) / speed if speed > 0 else (whole - done) / self._processes
        count = sum(is_finished(job.config.run_dir) for job in self._jobs)
        line = f"{count} of {len(self._jobs)} jobs, {_clock(elapsed)} gone, about {_clock(left)} left"
        return done / whole, line


def _last_line(log: Path) -> str:
    """The last line a job has said, without blanks at its ends; "" if it has said nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, 2) - _TAIL_BYTES, 0))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line), "")


def _clock(seconds: float) -> str:
    whole = max(int(seconds), 0)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
