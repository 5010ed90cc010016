"""Evaluation results as a person reads them: win rates of battles, scores of missions."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.markup import escape
from rich.table import Table

from training.evaluate import EvaluationResult, Measure


def result_table(title: str, results: Mapping[str, EvaluationResult], what: str = "agent") -> Table:
    """A row a result, under the names given, which are of ``what``; names and title are printed as they are,
    brackets included.

    Results of one table are of one measure.
    """
    scored = any(result.measure is Measure.SCORE for result in results.values())
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column(what, overflow="fold")
    for column in _SCORE_COLUMNS if scored else _WIN_COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for name, result in results.items():
        cells = _score_cells(result) if scored else _win_cells(result)
        table.add_row(escape(name), *cells, f"{result.lengths.mean():.1f}")
    return table


_WIN_COLUMNS = ("won %", "95 % interval", "wins", "draws", "timeouts", "losses", "steps")
_SCORE_COLUMNS = ("score", "95 % interval", "least", "most", "to the end", "cut short", "steps")


def _win_cells(result: EvaluationResult) -> list[str]:
    low, high = result.interval
    counts = (result.wins, result.draws, result.timeouts, result.losses)
    shares = [f"{100 * result.win_rate:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"]
    return [*shares, *(str(count) for count in counts)]


def _score_cells(result: EvaluationResult) -> list[str]:
    assert result.scores is not None
    low, high = result.interval
    score = [f"{result.mean:.1f}", f"{low:.1f} to {high:.1f}"]
    ends = [result.timeouts, result.games - result.timeouts]
    return [*score, f"{result.scores.min():g}", f"{result.scores.max():g}", *(str(count) for count in ends)]
