"""Which scenarios of a mixture deserve the battles now, by how often they are won.

Each kind scores the scenarios; a scenario's share of the battles is then

    εbᵢ + (1 − ε) bᵢsᵢ / Σⱼ bⱼsⱼ

with bᵢ its own weight in the mixture (all of them sum to 1), sᵢ its score and ε = :data:`FLOOR`, so that no
scenario is forgotten. Win rates are of exploring policies, over about the last 150 battles, with one win and
one loss added (Laplace's rule): a scenario without a battle counts as half won.

contested
    sᵢ = pᵢ(1 − pᵢ), the variance of a battle's outcome: what is won half of the time, neither out of reach
    nor learned (Vinyals et al. 2019, Nature 575, the variance weighting of their matchmaking).
progress
    sᵢ = |pᵢ − p̅ᵢ|, how far the win rate has moved from its slower mean (half-life four times as long): what
    is being learned, or forgotten (Matiisen et al. 2017, arXiv:1707.00183). These rates are as counted, and
    a scenario without a battle has moved by 1.
ladder
    As contested, among the scenarios open so far, in the mixture's order: at first only the first, and the
    next one as soon as the last one opened is won at a rate of :data:`OPENS_AT`. The others are not played.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, TypeAlias

from training.rl.tally import HALF_LIFE, Tally

Kind: TypeAlias = Literal["none", "contested", "progress", "ladder"]

FLOOR = 0.2
"""ε, the part of the battles that is shared out by the mixture's own weights."""
OPENS_AT = 0.6
"""Win rate, exploring, at which a ladder's next scenario opens."""
LEAST_BATTLES = 20
"""Battles behind a win rate before it opens anything."""
_SLOWER = 4


class Curriculum:
    """Keeps count of how a policy fares on each scenario, and weighs them.

    Args:
        kind: how; "none": by the mixture's own weights.
        mixture: weights by scenario's name, in the order of a ladder.
    """

    def __init__(self, kind: Kind, mixture: Mapping[str, float]) -> None:
        self.kind = kind
        total = sum(mixture.values())
        self._base = {name: weight / total for name, weight in mixture.items()}
        self.tallies = {name: Tally() for name in mixture}
        """Of the last battles, by name."""
        self._slow = {name: Tally() for name in mixture}
        self.num_open = 1 if kind == "ladder" else len(mixture)
        """Scenarios that are played: the first so many."""

    def note(self, ended: Mapping[str, Mapping[str, float]]) -> None:
        """Count the battles that ended in an iteration, as runners log them by scenario's name."""
        for name, sums in ended.items():
            self.tallies[name] = self.tallies[name].after(sums)
            self._slow[name] = self._slow[name].after(sums, _SLOWER * HALF_LIFE)
        names = list(self._base)
        while self.num_open < len(names):
            last = self.tallies[names[self.num_open - 1]]
            if last.battles < LEAST_BATTLES or last.win_rate < OPENS_AT:
                break
            self.num_open += 1

    def weights(self) -> tuple[float, ...]:
        """Each scenario's share of the battles from now on, in the mixture's order; they sum to 1."""
        scores = self._scores()
        played = {name: base for name, base in self._base.items() if scores[name] is not None}
        total = sum(played.values())
        pull = {name: base * (scores[name] or 0.0) for name, base in played.items()}
        if not sum(pull.values()):
            pull = played
        return tuple(
            FLOOR * played[name] / total + (1 - FLOOR) * pull[name] / sum(pull.values())
            if name in played
            else 0.0
            for name in self._base
        )

    def _scores(self) -> dict[str, float | None]:
        """sᵢ by name; None: not played."""
        names = list(self._base)
        if self.kind == "none":
            return dict.fromkeys(names, 1.0)
        if self.kind == "progress":
            return {name: _moved(self.tallies[name], self._slow[name]) for name in names}
        rates = {name: _smoothed(tally) for name, tally in self.tallies.items()}
        scores: dict[str, float | None] = {name: rate * (1 - rate) for name, rate in rates.items()}
        return scores | dict.fromkeys(names[self.num_open :])

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint: JSON types only."""
        return {
            "scenarios": list(self._base),
            "num_open": self.num_open,
            "tallies": {name: asdict(tally) for name, tally in self.tallies.items()},
            "slow": {name: asdict(tally) for name, tally in self._slow.items()},
        }

    def restore(self, content: Any) -> None:
        """Go on from what :meth:`to_dict` gave.

        Raises:
            ValueError: it is of another mixture, or no such thing.
        """
        names = list(self._base)
        if not isinstance(content, dict) or content.get("scenarios") != names:
            raise ValueError(f"it is not of the mixture {', '.join(names)}")
        try:
            self.tallies = {name: Tally(**content["tallies"][name]) for name in names}
            self._slow = {name: Tally(**content["slow"][name]) for name in names}
            self.num_open = int(content["num_open"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"it lacks or holds too much: {error}") from error


def _smoothed(tally: Tally) -> float:
    return (tally.wins + 1) / (tally.battles + 2)


def _moved(fast: Tally, slow: Tally) -> float:
    return abs(fast.win_rate - slow.win_rate) if slow.battles else 1.0
