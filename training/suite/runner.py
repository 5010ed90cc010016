"""A queue of training jobs, some at a time, each in a process of its own::

    jobs = [Job(f"3m_{seed}", TrainConfig(scenario="3m", seed=seed), games=1000) for seed in range(5)]
    outcome = run_queue(jobs, Path("runs/seeds"))
    outcome.failed  # {} if all went well

What is on disk is all there is to know: jobs that have finished are skipped, one that was cut off goes on
from its last checkpoint, so that the same call goes on with a queue however it ended. A job that fails is
tried once more, unless it was refused, and then stops only those that wait for it. Ctrl-C lets every job
save; a second one does not wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rich.console import Console

from envs.battle.whole_file import write_whole
from training.rl.config import TrainConfig
from training.rl.interrupt import StopOnSignal
from training.suite.display import QueueDisplay, Running
from training.suite.jobs import LOGS, SETTINGS, Job, check_jobs, is_finished, longest_first

_CHILD = (sys.executable, "-m", "training.suite.child")
_POLL_S = 0.2
_REFUSED = 2
"""Exit code of a job that would fail again."""
_TRIES = 2
_PATIENCE_S = 15.0
"""How long jobs that were told to stop at once may take before they are killed."""
_LOG_LINES = 3
"""Last lines of a failed job's log that are told."""
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # cores are shared out by processes
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONUNBUFFERED": "1",
}


class QueueError(ValueError):
    """The folder cannot hold the queue; the message says what to do instead."""


@dataclass
class QueueOutcome:
    """How a queue ended."""

    finished: list[str] = field(default_factory=list)
    """Names of jobs that are done, those done before among them."""
    failed: dict[str, str] = field(default_factory=dict)
    """By name, what happened."""
    left: list[str] = field(default_factory=list)
    """Names of jobs not done as the queue was stopped, or as they wait for one that failed."""
    stopped: bool = False
    """Whether a signal stopped it."""
    seconds: float = 0.0
    """Wall time of this call."""


def run_queue(
    jobs: Sequence[Job],
    directory: Path,
    *,
    processes: int | None = None,
    console: Console | None = None,
) -> QueueOutcome:
    """Work off a queue.

    Args:
        jobs: in any order; the longest are started first.
        directory: the queue's folder, see :mod:`training.suite.jobs`; made if need be.
        processes: jobs at a time; default: one a core.
        console: where to report; default: standard error.

    Raises:
        QueueError: the folder cannot be made, or another queue is at work in it.
        ValueError: ``processes`` is less than 1, or the jobs do not fit together.
    """
    processes = processes if processes is not None else len(os.sched_getaffinity(0))
    if processes < 1:
        raise ValueError(f"processes is {processes}; it must be at least 1")
    check_queue(jobs, directory)
    jobs = [place(job, directory) for job in jobs]
    console = console or Console(stderr=True)
    with _locked(directory) as lock:
        queue = _Queue(longest_first(jobs), directory, processes, lock)
        with (
            StopOnSignal(lambda: console.print("Letting the jobs save. Again to quit at once.")) as stop,
            QueueDisplay(console, jobs, processes) as display,
        ):
            return queue.work(stop, display)


def check_queue(jobs: Sequence[Job], directory: Path) -> None:
    """Refuse jobs that do not fit together, or not to what is in the queue's folder.

    Raises:
        ValueError: see :func:`~training.suite.jobs.check_jobs`; or a job was begun with other settings.
    """
    check_jobs(jobs)
    for job in jobs:
        config = place(job, directory).config
        file = config.run_dir / "config.yaml"
        if not file.is_file():
            continue
        begun = dataclasses.replace(TrainConfig.load(file), run_dir=config.run_dir, resume=False)
        other = [name for name, value in vars(begun).items() if value != getattr(config, name)]
        if other:
            was = ", ".join(f"{name} {getattr(begun, name)!r}" for name in other)
            now = ", ".join(f"{getattr(config, name)!r}" for name in other)
            raise ValueError(
                f"{config.run_dir} was begun with {was}, and is now to have {now}; remove that folder to "
                "begin anew, or choose another one for the queue"
            )


def place(job: Job, directory: Path) -> Job:
    """The job with its run folder in the queue's."""
    config = dataclasses.replace(job.config, run_dir=directory / job.name, resume=False)
    return dataclasses.replace(job, config=config)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """The folder, for one queue at a time. Jobs inherit the lock, and hold it to their end."""
    try:
        for folder in (directory / LOGS, directory / SETTINGS):
            folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise QueueError(f"{directory} cannot hold a queue: {error.strerror or error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield lock
    except BlockingIOError as error:
        raise QueueError(
            f"another queue, or a job of one, is at work in {directory}; wait for it, or choose "
            "another folder"
        ) from error
    finally:
        os.close(lock)


@dataclass
class _Process:
    """A job at work."""

    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    began: float


class _Queue:
    """The loop, and what it keeps."""

    def __init__(self, jobs: list[Job], directory: Path, processes: int, lock: int) -> None:
        self._directory, self._processes, self._lock = directory, processes, lock
        self._waiting = [job for job in jobs if not is_finished(job.config.run_dir)]
        self._running: list[_Process] = []
        self._tries: Counter[str] = Counter()
        self._outcome = QueueOutcome(finished=[job.name for job in jobs if job not in self._waiting])
        self._began = time.monotonic()

    def work(self, stop: StopOnSignal, display: QueueDisplay) -> QueueOutcome:
        """Start, wait, note what ends, until nothing is left to start or a signal came."""
        try:
            while self._running or (self._ready() and not stop.requested):
                while not stop.requested and len(self._running) < self._processes and self._ready():
                    self._start(self._ready()[0])
                if stop.requested and not self._outcome.stopped:
                    self._outcome.stopped = True
                    self._signal(signal.SIGINT)
                time.sleep(_POLL_S)
                for ended in [one for one in self._running if one.process.poll() is not None]:
                    self._note(ended, display)
                display.show([Running(one.job, one.began) for one in self._running])
        except KeyboardInterrupt:
            self._outcome.stopped = True
        finally:
            self._end_all()
        self._outcome.left += [job.name for job in self._waiting]
        self._outcome.seconds = time.monotonic() - self._began
        return self._outcome

    def _ready(self) -> list[Job]:
        """Jobs that can start now, in their order."""
        return [job for job in self._waiting if set(job.after) <= set(self._outcome.finished)]

    def _start(self, job: Job) -> None:
        self._waiting.remove(job)
        self._tries[job.name] += 1
        settings = self._directory / SETTINGS / f"{job.name}.yaml"
        write_whole(settings, job.config.to_yaml().encode())
        log = (self._directory / LOGS / f"{job.name}.log").open("ab")
        process = subprocess.Popen(
            [*_CHILD, str(settings), str(job.games), str(job.seed)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,  # Ctrl-C reaches the queue alone, which passes it on
            pass_fds=(self._lock,),
        )
        self._running.append(_Process(job, process, log, time.monotonic()))

    def _note(self, ended: _Process, display: QueueDisplay) -> None:
        """A process ended: done, stopped, or failed."""
        self._running.remove(ended)
        ended.log.close()
        name, code = ended.job.name, ended.process.returncode
        if is_finished(ended.job.config.run_dir):
            self._outcome.finished.append(name)
            display.finished(ended.job, time.monotonic() - ended.began)
        elif self._outcome.stopped:
            self._outcome.left.append(name)
        elif code != _REFUSED and self._tries[name] < _TRIES:
            display.failed(name, f"{self._reason(name, code)}\nonce more, after the others")
            self._waiting.append(ended.job)
        else:
            self._outcome.failed[name] = self._reason(name, code)
            display.failed(name, self._outcome.failed[name])

    def _reason(self, name: str, code: int) -> str:
        """What became of a failed job, and the end of what it said."""
        log = self._directory / LOGS / f"{name}.log"
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return "\n".join([f"{ended}, see {log}", *(f"    {line}" for line in said)])

    def _signal(self, number: signal.Signals) -> None:
        for one in self._running:
            with contextlib.suppress(ProcessLookupError):
                one.process.send_signal(number)

    def _end_all(self) -> None:
        """Nothing of the queue is left behind, whatever happened."""
        if not self._running:
            return
        self._signal(signal.SIGINT)
        patience = time.monotonic() + _PATIENCE_S
        for one in self._running:
            try:
                one.process.wait(max(patience - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.process.pid, signal.SIGKILL)
                one.process.wait()
            one.log.close()
            self._outcome.left.append(one.job.name)
        self._running.clear()
