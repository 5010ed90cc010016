"""What a person sees of a training run: a progress display in the terminal, curves in TensorBoard."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch.utils.tensorboard import SummaryWriter

from training.evaluate import Measure
from training.mixture_result import MixtureResult
from training.rl.tally import Tally

_LINE_INTERVAL_S = 10.0


class IterationReport(NamedTuple):
    """One iteration in numbers; NaN where it has none (no battle ended, say)."""

    env_steps: int  # of the whole run
    steps_per_second: float  # of this iteration
    win_rate: float
    episode_return: float
    episode_length: float
    entropy: float
    kl: float
    explained_variance: float
    illegal_orders: int
    scenarios: Mapping[str, Tally] = {}
    """By name, of a mixture."""
    shares: Mapping[str, float] = {}
    """Of the battles, likewise."""


class Verdict(Protocol):
    """What an evaluation says, as :class:`training.evaluate.EvaluationResult` does."""

    @property
    def measure(self) -> Measure:
        """What counts: wins, or a mission's score."""

    @property
    def games(self) -> int:
        """Battles played."""

    @property
    def wins(self) -> int:
        """Battles won."""

    @property
    def mean(self) -> float:
        """Wins over battles, or the mean score."""

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""


class Monitor:
    """Shows reports while it is entered, and writes them as curves over environment steps.

    On a terminal it is one live line; elsewhere (a log file, CI) a line every ten seconds.

    Args:
        tensorboard: folder of the event files; a resumed run adds to them.
        console: where to print.
        first_step: steps of the run so far; events past them, of a run that was cut off, no longer count.
        measure: what counts: battles are shown by how many were won, missions by their return.
    """

    def __init__(
        self,
        tensorboard: Path,
        console: Console,
        first_step: int,
        measure: Measure = Measure.WIN_RATE,
    ) -> None:
        self.console = console
        self._measure = measure
        self._curves = _Curves(tensorboard, first_step, self.say)
        self._display = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._display.add_task("starting", total=1.0)
        self._greedy = "–"
        self._next_line = time.monotonic() + _LINE_INTERVAL_S

    def __enter__(self) -> Monitor:
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()
        self._curves.close()

    def iteration(self, report: IterationReport, *, fraction: float, seconds_left: float | None) -> None:
        """Show and write an iteration.

        Args:
            report: the numbers.
            fraction: of the budget that is spent, 0 to 1.
            seconds_left: until the budget is spent at this speed; None if there is no budget.
        """
        for name, value in report._asdict().items():
            if name in _CURVES and not math.isnan(value):
                self._curves.add(_CURVES[name], value, report.env_steps)
        for name, tally in report.scenarios.items():
            for curve in ("win_rate", "episode_return", "episode_length"):
                value = getattr(tally, curve)
                if not math.isnan(value):
                    self._curves.add(f"scenario/{name}/{curve}", value, report.env_steps)
        for name, share in report.shares.items():
            self._curves.add(f"scenario/{name}/share_of_battles", share, report.env_steps)
        left = "no limit" if seconds_left is None else f"{_minutes(seconds_left)} left"
        line = (
            f"{report.env_steps:,} steps  {report.steps_per_second:,.0f}/s  {self._achieved(report)} "
            f"(greedy {self._greedy})  entropy {report.entropy:.2f}  {left}"
        )
        self._display.update(self._task, completed=fraction, description=line)
        if not self.console.is_terminal and time.monotonic() >= self._next_line:
            self.console.print(line, highlight=False)
            self._next_line = time.monotonic() + _LINE_INTERVAL_S

    def evaluation(self, verdict: Verdict, env_steps: int) -> None:
        """Show and write an evaluation."""
        low, high = verdict.interval
        won = verdict.measure is Measure.WIN_RATE
        names = ("win_rate", "wilson_low", "wilson_high") if won else ("score", "score_low", "score_high")
        for name, value in zip(names, (verdict.mean, low, high), strict=True):
            if math.isfinite(value):
                self._curves.add(f"evaluation/{name}", value, env_steps)
        if won:
            self._greedy = f"{verdict.mean:.1%}"
            told = f"{verdict.wins} of {verdict.games} greedy battles won, {verdict.mean:.1%}"
            told = f"{told} [{low:.1%}, {high:.1%}]"
        else:
            self._greedy = f"score {verdict.mean:.1f}"
            told = f"score {verdict.mean:.2f} [{low:.2f}, {high:.2f}] in {verdict.games} greedy missions"
        if isinstance(verdict, MixtureResult):
            for name, result in verdict.results.items():
                self._curves.add(f"scenario/{name}/greedy_win_rate", result.mean, env_steps)
            told = f"{told}; worst {verdict.worst.scenario} {verdict.worst.mean:.1%}"
        self.console.print(f"{env_steps:,} steps: {told}", highlight=False, markup=False)

    def _achieved(self, report: IterationReport) -> str:
        """What the battles that ended in an iteration came to."""
        if self._measure is Measure.SCORE:
            value = report.episode_return
            return "return –" if math.isnan(value) else f"return {value:.1f}"
        rates = {name: tally.win_rate for name, tally in report.scenarios.items() if tally.battles}
        if rates:
            worst = min(rates, key=lambda name: rates[name])
            mean = sum(rates.values()) / len(rates)
            return f"won {mean:.0%}, worst {worst} {rates[worst]:.0%}"
        return "won –" if math.isnan(report.win_rate) else f"won {report.win_rate:.0%}"

    def say(self, text: str) -> None:
        """Print a sentence."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def flush(self) -> None:
        """Bring the curves to disk."""
        self._curves.flush()


class _Curves:
    """TensorBoard's event files, which training does not depend on: a disk that takes none costs curves only.

    Args:
        folder: of the files.
        first_step: as for :class:`Monitor`.
        say: tells the user.
    """

    def __init__(self, folder: Path, first_step: int, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._writer: SummaryWriter | None = None
        self._open(first_step + 1 if first_step else None)

    def add(self, name: str, value: float, step: int) -> None:
        """A point of a curve."""
        if self._writer is not None:
            with self._forgone():
                self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Bring all points to disk; if it took none before, try again from here on."""
        if self._writer is None:
            self._open(None)
        else:
            with self._forgone():
                self._writer.flush()

    def close(self) -> None:
        """Bring all points to disk and stop."""
        if self._writer is not None:
            with self._forgone():
                self._writer.close()

    def _open(self, purge_step: int | None) -> None:
        with self._forgone():
            self._writer = SummaryWriter(str(self._folder), purge_step=purge_step)

    @contextlib.contextmanager
    def _forgone(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writer = None
            self._say(f"Curves cannot be written ({error.strerror or error}); training goes on without.")


_CURVES = {
    "steps_per_second": "rollout/steps_per_second",
    "win_rate": "rollout/win_rate",
    "episode_return": "rollout/episode_return",
    "episode_length": "rollout/episode_length",
    "illegal_orders": "rollout/illegal_orders",
    "entropy": "learner/entropy",
    "kl": "learner/approximate_kl",
    "explained_variance": "learner/explained_variance",
}


def _minutes(seconds: float) -> str:
    whole = max(int(seconds), 0)
    return f"{whole // 60}:{whole % 60:02d}"
