"""Who won how often against whom: the league's payoff matrix, with all games and with recent ones.

Learners change, so old games tell less of them. Beside the plain counts there are decayed ones: a game counts
less by a factor with every later game of the same pair, so that about 1 / (1 − decay) games are remembered.
Opponents are drawn by those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Result(IntEnum):
    """How a game ended, for the player it is told of. A timeout is a draw here: nobody won."""

    WIN = 0
    DRAW = 1
    LOSS = 2

    @property
    def mirrored(self) -> Result:
        """The same for the opponent."""
        return Result(2 - self)


@dataclass(frozen=True)
class Game:
    """A game that a player has played."""

    opponent: str
    result: Result


class Payoff:
    """Games between members of a league.

    Args:
        decay: factor of a game's weight with every later game of the pair, above 0 and at most 1.
        min_games: as long as a pair's decayed games are fewer, its win rate counts as one half.

    Attributes:
        names: members, in the order they came.
        counts: (n, n, 3), of i against j by :class:`Result`; ``counts[i, j, WIN] == counts[j, i, LOSS]``.
        decayed: the same, with decayed weights.

    Raises:
        ValueError: decay or min_games is out of range.
    """

    def __init__(self, decay: float = 0.999, min_games: float = 10.0) -> None:
        if not 0 < decay <= 1:
            raise ValueError(f"payoff decay is {decay}; it must be above 0 and at most 1")
        if min_games < 0:
            raise ValueError(f"min_games is {min_games}; it must not be negative")
        self.decay, self.min_games = decay, min_games
        self.names: list[str] = []
        self.counts = np.zeros((0, 0, 3))
        self.decayed = np.zeros((0, 0, 3))

    def add_member(self, name: str) -> None:
        """A new member, without games.

        Raises:
            ValueError: there is one of that name.
        """
        if name in self.names:
            raise ValueError(f"the league has a member {name!r} already")
        self.names.append(name)
        self.counts = np.pad(self.counts, ((0, 1), (0, 1), (0, 0)))
        self.decayed = np.pad(self.decayed, ((0, 1), (0, 1), (0, 0)))

    def record(self, player: str, games: Iterable[Game]) -> None:
        """Games of a player, oldest first. Games against itself (by its current weights) are not kept."""
        i = self.names.index(player)
        for game in games:
            j = self.names.index(game.opponent)
            if i == j:
                continue
            for one, other, result in ((i, j, game.result), (j, i, game.result.mirrored)):
                self.counts[one, other, result] += 1
                self.decayed[one, other] *= self.decay
                self.decayed[one, other, result] += 1

    def forget(self, player: str) -> None:
        """A player begins anew: its decayed games are no longer of it. The plain counts keep them."""
        i = self.names.index(player)
        self.decayed[i] = self.decayed[:, i] = 0

    def win_rates(self, player: str, opponents: Sequence[str]) -> NDArray[np.float64]:
        """(len(opponents),) share of recent games won, draws as half; one half where there are too few."""
        i = self.names.index(player)
        recent = self.decayed[i, [self.names.index(opponent) for opponent in opponents]]
        games = recent.sum(-1)
        points = recent[:, Result.WIN] + recent[:, Result.DRAW] / 2
        enough = (games >= self.min_games) & (games > 0)
        return np.where(enough, points / np.where(enough, games, 1), 0.5)

    def recent_games(self, player: str, opponents: Sequence[str]) -> NDArray[np.float64]:
        """(len(opponents),) sum of the decayed weights of the games."""
        i = self.names.index(player)
        return self.decayed[i, [self.names.index(opponent) for opponent in opponents]].sum(-1)

    def to_dict(self) -> dict[str, Any]:
        """JSON types; (n, n) lists of the row's player against the column's."""
        return {
            "names": list(self.names),
            "decay": self.decay,
            "min_games": self.min_games,
            **_tables(self.counts),
            "decayed": _tables(self.decayed),
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Payoff:
        """What :meth:`to_dict` gave.

        Raises:
            ValueError: it is no payoff matrix.
        """
        try:
            payoff = cls(plain["decay"], plain["min_games"])
            payoff.names = [str(name) for name in plain["names"]]
            payoff.counts, payoff.decayed = _counts(plain), _counts(plain["decayed"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no payoff matrix: {error!r}") from error
        shape = (len(payoff.names), len(payoff.names), 3)
        if payoff.counts.shape != shape or payoff.decayed.shape != shape:
            raise ValueError(f"the payoff matrix is of {len(payoff.names)} names, and its tables are not")
        return payoff


def _tables(counts: NDArray[np.float64]) -> dict[str, list[list[float]]]:
    """Games, wins and draws; losses are the transpose of the wins."""
    return {
        "games": counts.sum(-1).tolist(),
        "wins": counts[..., Result.WIN].tolist(),
        "draws": counts[..., Result.DRAW].tolist(),
    }


def _counts(tables: dict[str, Any]) -> NDArray[np.float64]:
    wins, draws = np.array(tables["wins"], np.float64), np.array(tables["draws"], np.float64)
    if wins.ndim != 2 or wins.shape != draws.shape:
        raise ValueError(f"wins are of shape {wins.shape} and draws of {draws.shape}; both must be (n, n)")
    return np.stack([wins, draws, wins.T], -1)
