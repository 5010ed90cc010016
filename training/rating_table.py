"""Ratings and payoff matrices as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.typing import NDArray
from rich import box
from rich.markup import escape
from rich.table import Table

from agents.ladder import ANCHOR_RATING, Ladder, Rating, Standing


def rating_table(ladder: Ladder, title: str = "Bradley-Terry ratings") -> Table:
    """Best first, with the 95 % interval, or what is to be said where there is no number."""
    whole = f"{title}, {ladder.anchor} = {ANCHOR_RATING:g}"
    table = Table(title=escape(whole), title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("player", overflow="fold")
    table.add_column("rating", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right")
    table.add_column("games", justify="right", no_wrap=True)
    missing: dict[str, None] = {}
    for rating in ladder.ranked():
        number = f"{rating.rating:.0f}" if rating.standing is Standing.RATED else "–"
        if rating.standing is not Standing.RATED:
            missing[rating.standing.value] = None
        table.add_row(escape(rating.name), number, _interval(rating, ladder.anchor), f"{rating.games:.0f}")
    table.caption, table.caption_justify = "\n".join(missing) or None, "left"
    return table


def payoff_table(title: str, names: Sequence[str], wins: NDArray, draws: NDArray) -> Table:
    """Points in % of the row's player against the column's, draws as half; columns by the rows' numbers."""
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", justify="right")
    table.add_column("won % against", overflow="fold")
    for number in range(len(names)):
        table.add_column(str(number + 1), justify="right", no_wrap=True)
    games = wins + wins.T + draws
    for i, name in enumerate(names):
        cells = [
            f"{100 * (wins[i, j] + draws[i, j] / 2) / games[i, j]:.0f}" if games[i, j] else "·"
            for j in range(len(names))
        ]
        table.add_row(str(i + 1), escape(name), *cells)
    return table


def _interval(rating: Rating, anchor: str) -> str:
    if rating.standing is not Standing.RATED:
        return rating.standing.value.partition(":")[0]
    if rating.name == anchor:
        return "the anchor"
    low, high = (f"{end:.0f}" if math.isfinite(end) else "open" for end in (rating.low, rating.high))
    return f"{low} to {high}"
