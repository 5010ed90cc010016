"""What a league's games say: the payoff matrix as a table and as a picture, and ratings from recent games."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from agents.ladder import Ladder, rate
from training.league.folder import LeagueFolder, LeagueState
from training.league.payoff import Payoff, Result
from training.rating_table import payoff_table, rating_table

PICTURE = "payoff.png"


def report(folder: LeagueFolder, state: LeagueState, anchor: str, console: Console) -> None:
    """Print tables, and draw the picture where matplotlib is installed.

    Raises:
        ValueError: there is no member of the anchor's name.
    """
    payoff, recent = state.payoff, state.payoff.decayed
    ladder = recent_ratings(payoff, anchor)
    title = f"{state.turn} turns, {state.env_steps:,} steps of all learners; recent games"
    console.print(payoff_table(title, payoff.names, recent[..., Result.WIN], recent[..., Result.DRAW]))
    console.print(rating_table(ladder, "Ratings from recent games, learners as they were in these"))
    to = folder.path / PICTURE
    if draw(payoff, to):
        console.print(f"{to}", highlight=False, markup=False, soft_wrap=True)
    else:
        console.print("no picture: it needs matplotlib, pip install perceiver-policy[pictures]", markup=False)
    players = " ".join(
        str(folder.snapshot(one.name)) for one in state.snapshots if one.name.startswith("main.")
    )
    console.print(
        "Members meet learners only, who change as they train. To rate them on games of their own: "
        f"perceiver-policy ladder --agents {' '.join(one.name for one in state.scripts)} {players}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def recent_ratings(payoff: Payoff, anchor: str, resamples: int = 1000) -> Ladder:
    """Ratings from decayed games."""
    wins, draws = payoff.decayed[..., Result.WIN], payoff.decayed[..., Result.DRAW]
    return rate(payoff.names, wins=wins, draws=draws, anchor=anchor, resamples=resamples)


def draw(payoff: Payoff, to: Path) -> bool:
    """A heat map of recent win rates, with the share in each cell; False if there is no matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    games = payoff.decayed.sum(-1)
    points = payoff.decayed[..., Result.WIN] + payoff.decayed[..., Result.DRAW] / 2
    rate = np.divide(points, games, out=np.full_like(games, np.nan), where=games > 0)
    size = len(payoff.names)
    figure = Figure(figsize=(3 + 0.45 * size, 2.5 + 0.4 * size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(rate, cmap="RdBu", vmin=0, vmax=1)
    axes.set_xticks(range(size), payoff.names, rotation=60, ha="right")
    axes.set_yticks(range(size), payoff.names)
    for i, j in np.argwhere(games > 0):
        axes.text(j, i, f"{100 * rate[i, j]:.0f}", ha="center", va="center", fontsize=7)
    axes.set_title("won % of recent games, row against column")
    figure.colorbar(image, ax=axes)
    unfinished = to.with_name(f".{to.name}")
    figure.savefig(unfinished, dpi=120, format="png")
    unfinished.replace(to)
    return True
