"""Evaluation results as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.markup import escape
from rich.table import Table

from training.evaluate import EvaluationResult


def result_table(title: str, results: Mapping[str, EvaluationResult]) -> Table:
    """A row a result, under the names given; names and title are printed as they are, brackets included."""
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("agent", overflow="fold")
    for column in ("won %", "95 % interval", "wins", "draws", "timeouts", "losses", "steps"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, result in results.items():
        low, high = result.interval
        counts = (result.wins, result.draws, result.timeouts, result.losses)
        table.add_row(
            escape(name),
            f"{100 * result.win_rate:.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            *(str(count) for count in counts),
            f"{result.lengths.mean():.1f}",
        )
    return table
