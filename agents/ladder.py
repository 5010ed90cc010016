"""Ratings of players from the games between them: Bradley-Terry by maximum likelihood, on Elo's scale.

    ladder = rate(("a", "b"), wins=[[0, 60], [30, 0]], draws=[[0, 10], [10, 0]], anchor="b")

The model (Bradley and Terry 1952, Biometrika 39): player i beats j with probability γᵢ / (γᵢ + γⱼ). A draw
counts as half a win for each. A rating is R = 1000 + 400 / ln 10 · (ln γ − ln γ of the anchor), so that 400
points are odds of ten to one. It is one number for each player, and hides who beats whom in a circle: read
the table of games beside it.

Ratings exist between players of whom each has beaten the other, if only by way of third ones (Ford 1957,
Amer. Math. Monthly 64). One who only ever won against the anchor's company is above every number, one who
only lost is below, and one who never met it, even by way of others, is not comparable: none of these gets a
number here, and none is made up by a prior.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import choix
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import connected_components, shortest_path

ANCHOR_RATING = 1000.0
ELO = 400 / math.log(10)
"""Points of a rating for a unit of ln γ."""
RESAMPLES = 1000
CONFIDENCE = 0.95
_MAX_ITERATIONS = 10_000


class Standing(StrEnum):
    """What the games say of a player, beside the anchor."""

    RATED = "rated"
    ABOVE = "above all numbers: won against the anchor's company and never lost to it"
    BELOW = "below all numbers: lost to the anchor's company and never won against it"
    APART = "not comparable: no games join it to the anchor"


@dataclass(frozen=True)
class Rating:
    """A player's place."""

    name: str
    rating: float
    """Points; ±inf above and below all numbers, NaN where not comparable."""
    low: float
    """Lower end of the bootstrap's 95 % interval; -inf where more than 2.5 % of the resamples give none."""
    high: float
    """Upper end, likewise; inf where they give none."""
    games: float
    """Games played, against all."""
    standing: Standing

    def to_dict(self) -> dict[str, Any]:
        """For a result file: JSON types only, None where there is no number."""
        numbers = {"rating": self.rating, "low": self.low, "high": self.high}
        finite = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
        return {"name": self.name} | finite | {"games": self.games, "standing": self.standing.name.lower()}


@dataclass(frozen=True)
class Ladder:
    """Ratings, in the order of the players' names as given."""

    anchor: str
    ratings: tuple[Rating, ...]

    def ranked(self) -> list[Rating]:
        """Best first; those who cannot be compared come last."""
        return sorted(self.ratings, key=lambda rating: (math.isnan(rating.rating), -rating.rating))

    def to_dict(self) -> dict[str, Any]:
        """For a result file."""
        return {
            "anchor": self.anchor,
            "anchor_rating": ANCHOR_RATING,
            "ratings": [rating.to_dict() for rating in self.ranked()],
        }


def rate(
    names: Sequence[str],
    *,
    wins: ArrayLike,
    draws: ArrayLike,
    anchor: str,
    by_seed: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Ladder:
    """Rate players, with intervals from the percentiles of bootstrap resamples (Efron 1979).

    Args:
        names: n players, each once.
        wins: (n, n), of i against j. Fractions are allowed, as decayed counts have them.
        draws: (n, n), symmetric.
        anchor: whose rating is 1000.
        by_seed: (S, n, n) points of i against j in the games of each of S battle seeds, where all pairs
            played the same ones: resampled are whole seeds, as the games of one are not independent. None:
            games are resampled within each pair.
        resamples: how many.
        seed: of the resampling.

    Raises:
        ValueError: sizes do not fit, counts are negative or draws not symmetric, or there is no such anchor.
    """
    wins, draws = np.asarray(wins, np.float64), np.asarray(draws, np.float64)
    _require_games(names, wins, draws, anchor)
    place = list(names).index(anchor)
    rng = np.random.default_rng(seed)
    draw: Callable[[], NDArray[np.float64]]
    if by_seed is None:
        draw = _resampled_games(wins, draws, rng)
    else:
        points = np.asarray(by_seed, np.float64)
        if points.ndim != 3 or points.shape[1:] != wins.shape or not len(points):
            raise ValueError(
                f"by_seed is of shape {points.shape}; it must be (seeds, {len(names)}, {len(names)})"
            )
        draw = _resampled_seeds(points, rng)
    ratings = elo(wins + draws / 2, place)
    samples = np.array([elo(draw(), place) for _ in range(resamples)]).reshape(resamples, len(names))
    low, high = _interval(samples)
    games = (wins + wins.T + draws).sum(1)
    return Ladder(
        anchor,
        tuple(
            Rating(name, float(value), float(lowest), float(highest), float(count), _standing(value))
            for name, value, lowest, highest, count in zip(names, ratings, low, high, games, strict=True)
        ),
    )


def elo(points: NDArray[np.float64], anchor: int) -> NDArray[np.float64]:
    """(n,) the ratings of maximum likelihood.

    Args:
        points: (n, n), of i against j: wins and half the draws.
        anchor: which player's is 1000.

    Returns:
        Points; inf of players above all numbers, -inf of those below, NaN of those not comparable.
    """
    beaten = points > 0
    _, component = connected_components(beaten, connection="strong")
    company = component == component[anchor]
    reach = np.isfinite(shortest_path(beaten, unweighted=True))
    ratings = np.full(len(points), np.nan)
    ratings[reach[:, anchor]] = np.inf  # a chain of victories leads down to the anchor
    ratings[reach[anchor]] = -np.inf
    # Games with those above and below say nothing within the company: their likelihood is 1 in the limit.
    ratings[company] = ANCHOR_RATING
    if company.sum() > 1:
        strengths = choix.ilsr_pairwise_dense(points[np.ix_(company, company)], max_iter=_MAX_ITERATIONS)
        own = strengths[np.flatnonzero(company).tolist().index(anchor)]
        ratings[company] += ELO * (strengths - own)
    return ratings


def _resampled_games(
    wins: NDArray[np.float64], draws: NDArray[np.float64], rng: np.random.Generator
) -> Callable[[], NDArray[np.float64]]:
    """Draws as many games of each pair as it played, out of its own; counts are rounded to whole games."""
    upper = [
        (i, j, round(wins[i, j] + wins[j, i] + draws[i, j]))
        for i in range(len(wins))
        for j in range(i)
        if wins[i, j] + wins[j, i] + draws[i, j] > 0
    ]

    def draw() -> NDArray[np.float64]:
        points = np.zeros_like(wins)
        for i, j, games in upper:
            ends = np.array([wins[i, j], draws[i, j], wins[j, i]])
            won, drawn, lost = rng.multinomial(games, ends / ends.sum())
            points[i, j], points[j, i] = won + drawn / 2, lost + drawn / 2
        return points

    return draw


def _resampled_seeds(
    points: NDArray[np.float64], rng: np.random.Generator
) -> Callable[[], NDArray[np.float64]]:
    """Draws as many seeds as there are, with all games of each."""

    def draw() -> NDArray[np.float64]:
        counts = rng.multinomial(len(points), np.full(len(points), 1 / len(points)))
        return np.tensordot(counts.astype(np.float64), points, 1)

    return draw


def _interval(samples: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentiles (n,) of samples (resamples, n); a sample without a number widens both ends."""
    tail = (1 - CONFIDENCE) / 2
    if not len(samples):
        return np.full(samples.shape[1], -np.inf), np.full(samples.shape[1], np.inf)
    undefined = np.isnan(samples)
    # Of the sorted samples themselves: between a number and infinity there is nothing to interpolate.
    low = np.quantile(np.where(undefined, -np.inf, samples), tail, axis=0, method="inverted_cdf")
    high = np.quantile(np.where(undefined, np.inf, samples), 1 - tail, axis=0, method="inverted_cdf")
    return low, high


def _standing(rating: float) -> Standing:
    if math.isnan(rating):
        return Standing.APART
    if math.isinf(rating):
        return Standing.ABOVE if rating > 0 else Standing.BELOW
    return Standing.RATED


def _require_games(
    names: Sequence[str], wins: NDArray[np.float64], draws: NDArray[np.float64], anchor: str
) -> None:
    n = len(names)
    if len(set(names)) < n:
        raise ValueError(f"players are {', '.join(names)}; each may be named once")
    for label, counts in (("wins", wins), ("draws", draws)):
        if counts.shape != (n, n):
            raise ValueError(f"{label} is of shape {counts.shape}; {n} players need ({n}, {n})")
        if not np.isfinite(counts).all() or (counts < 0).any() or counts.diagonal().any():
            raise ValueError(f"{label} must be counts, with zeros where a player would meet itself")
    if not np.allclose(draws, draws.T):
        raise ValueError("draws must be symmetric: a draw is one for both")
    if anchor not in names:
        raise ValueError(f"the anchor {anchor!r} is none of the players; it may be: {', '.join(names)}")
