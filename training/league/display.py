"""What a person sees of a league: a line in the terminal, curves and the payoff matrix in TensorBoard."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch.utils.tensorboard import SummaryWriter

from training.league.folder import LeagueState
from training.league.members import MAIN, Learner, Snapshot
from training.league.payoff import Game, Payoff, Result
from training.rl.monitor import Monitor

_LINE_INTERVAL_S = 10.0
_CELL = 16
"""Pixels of a cell of the matrix's picture."""


class PlayerMonitor(Monitor):
    """A learner's curves. It shows nothing; what must be said is said for it.

    Args:
        tensorboard: folder of its event files.
        learner: as it begins.
        say: prints a line.
    """

    def __init__(self, tensorboard: Path, learner: Learner, say: Callable[[str], None]) -> None:
        super().__init__(tensorboard, Console(quiet=True, force_terminal=False), learner.env_steps)
        self._name, self._say = learner.name, say

    def say(self, text: str) -> None:
        """Pass it on, with the learner's name."""
        self._say(f"{self._name}: {text}")


class LeagueDisplay:
    """Shows turns while it is entered, and writes curves over the steps of all learners.

    On a terminal it is one live line and one for each snapshot; elsewhere a line every ten seconds, too.

    Args:
        tensorboard: folder of the event files; a resumed league adds to them.
        console: where to print.
        first_step: steps of the league so far; events past them, of a turn that was cut off, no longer count.
    """

    def __init__(self, tensorboard: Path, console: Console, first_step: int) -> None:
        self._console = console
        self._writer = SummaryWriter(str(tensorboard), purge_step=first_step + 1 if first_step else None)
        self._live = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._live.add_task("starting", total=1.0)
        self._next_line = time.monotonic()

    def __enter__(self) -> LeagueDisplay:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        self._writer.close()

    def say(self, message: str) -> None:
        """Print a line."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    def turn(
        self,
        state: LeagueState,
        learner: Learner,
        drawn: Counter[str],
        games: Sequence[Game],
        fraction: float,
        elapsed: float,
    ) -> None:
        """Show and write a turn.

        Args:
            state: before the learner in it is replaced.
            learner: as the turn left it.
            drawn: its opponents, and how often each was drawn.
            games: the games that counted.
            fraction: of the budget that is spent, 0 to 1.
            elapsed: seconds of this call.
        """
        step = state.env_steps - state.learners[learner.name].env_steps + learner.env_steps
        won = {name: _share([game.result for game in games if game.opponent == name]) for name in drawn}
        for name, share in won.items():
            if share is not None:
                self._writer.add_scalar(f"{learner.name}/against_{name}", share, step)
        known = ", ".join(
            f"{'itself' if name == learner.name else name} {'–' if share is None else f'{share:.0%}'}"
            for name, share in won.items()
        )
        left = f"  {_minutes(elapsed * (1 / fraction - 1))} left" if fraction else ""
        line = f"turn {state.turn + 1}  {learner.name} {learner.env_steps:,} steps  won against {known}{left}"
        self._live.update(self._task, completed=fraction, description=line)
        if not self._console.is_terminal and time.monotonic() >= self._next_line:
            self.say(line)
            self._next_line = time.monotonic() + _LINE_INTERVAL_S

    def snapshot(self, snapshot: Snapshot, anew: bool) -> None:
        """Tell that a learner was frozen."""
        began = f"; {snapshot.learner} begins anew" if anew else ""
        self.say(f"{snapshot.name} joins the league after {snapshot.env_steps:,} steps{began}")

    def payoff(self, state: LeagueState) -> None:
        """Write the payoff matrix as a picture, and the main player's win rates against the frozen."""
        self._writer.add_image("payoff", matrix_image(state.payoff), state.env_steps, dataformats="HWC")
        names = [member.name for member in state.frozen]
        if names:
            rates = state.payoff.win_rates(MAIN, names)
            self._writer.add_scalar("main/worst_win_rate", float(rates.min()), state.env_steps)
            self._writer.add_scalar("main/mean_win_rate", float(rates.mean()), state.env_steps)
        self._writer.add_scalar("league/snapshots", len(state.snapshots), state.env_steps)
        self._writer.flush()


def matrix_image(payoff: Payoff) -> NDArray[np.uint8]:
    """(16 n, 16 n, 3): the row's recent win rate against the column's, from red (0) over white to blue (1).

    Grey: they have not met lately. The order is that of ``payoff.names``.
    """
    games = payoff.decayed.sum(-1)
    points = payoff.decayed[..., Result.WIN] + payoff.decayed[..., Result.DRAW] / 2
    rate = np.divide(points, games, out=np.full_like(games, np.nan), where=games > 0)
    below, above = np.clip(2 * rate, 0, 1), np.clip(2 - 2 * rate, 0, 1)
    colour = np.stack([above, np.minimum(below, above), below], -1)
    pixels = np.where(np.isnan(rate)[..., None], 0.75, colour) * 255
    return pixels.astype(np.uint8).repeat(_CELL, 0).repeat(_CELL, 1)


def _share(results: Sequence[Result]) -> float | None:
    """Of games won, draws as half."""
    if not results:
        return None
    return (results.count(Result.WIN) + results.count(Result.DRAW) / 2) / len(results)


def _minutes(seconds: float) -> str:
    whole = max(int(seconds), 0)
    return f"{whole // 60}:{whole % 60:02d}"
