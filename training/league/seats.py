"""Battles against several opponents at once, each with its share, and a record of who won them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.battle.batch import Outcome, StepResult
from training.league.payoff import Game, Result
from training.rl.seats import BattleSetup, Opponent, Seat
from training.rl.sizes import BattleSize


class Match(NamedTuple):
    """An opponent of a learner's, and its share of the battles."""

    name: str
    """Of the member of the league."""
    opponent: Opponent | None
    """None: the learner itself, by the weights it samples with."""
    weight: float = 1.0


@dataclass
class Record:
    """The battles of a seat that ended, in the order they did, and how many steps were played."""

    steps: int = 0
    ended: list[tuple[int, int, Result]] = field(default_factory=list)
    """Step of the first order, step of the end, and the result as the learner's side sees it."""


@dataclass(frozen=True)
class MatchSeat(Seat):
    """A seat that keeps a record."""

    match: str = ""
    """The opponent's name in the league."""
    record: Record = field(default_factory=Record)

    def step(self, orders: NDArray[np.int64], out: Any = None) -> StepResult:
        """As any seat's, with what ended noted."""
        result = super().step(orders, out)
        record = self.record
        record.steps += 1
        names = {self.victory: Result.WIN, self.defeat: Result.LOSS}
        for battle in np.flatnonzero(result.done):
            outcome = names.get(Outcome(result.outcome[battle]), Result.DRAW)
            record.ended.append((record.steps - int(result.length[battle]), record.steps, outcome))
        return result


@dataclass(frozen=True)
class MatchSetup(BattleSetup):
    """A setup whose battles may be shared among several opponents."""

    matches: tuple[Match, ...] = ()
    """None of them: the setup's own opponent plays, and is no member of the league."""

    def seats(
        self,
        num_battles: int,
        entropy: Sequence[int] | None,
        *,
        weights: Sequence[float] | None = None,
        runner: int = 0,
        num_runners: int = 1,
    ) -> list[Seat]:
        """As any setup's, for each opponent. Each gets all scenarios of a mixture, by their weights, in every
        runner.
        """
        if not self.matches:
            return super().seats(
                num_battles, entropy, weights=weights, runner=runner, num_runners=num_runners
            )
        seats: list[Seat] = []
        filled: Counter[BattleSize] = Counter()
        for number, (match, count) in enumerate(zip(self.matches, self.shares(num_battles), strict=True)):
            if not count:
                continue
            assert match.opponent is not None, "the runner knows who itself is"
            setup = BattleSetup(**_own(self) | {"opponent": match.opponent})
            for seat in setup.seats(count, None if entropy is None else (*entropy, number), weights=weights):
                first, size = filled[seat.size], seat.battles.num_battles
                fields = vars(seat) | {"rows": slice(first, first + size), "match": match.name}
                seats.append(MatchSeat(**fields))
                filled[seat.size] += size
        return seats

    def shares(self, num_battles: int) -> list[int]:
        """How many battles each opponent gets: by weight, rounded so that they add up."""
        weights = np.cumsum([0.0, *(match.weight for match in self.matches)])
        bounds = np.round(weights / weights[-1] * num_battles).astype(int)
        return np.diff(bounds).tolist()


def finished_games(seats: Sequence[Seat]) -> list[Game]:
    """The games of these seats' records that say who wins how often, in the order they ended.

    A battle counts if it began at least the scenario's step limit before the last step played. All of those
    have ended. Of the later ones only the short ones have, and to count these would favour whoever wins fast.
    """
    games = [
        (ended, seat.match, result)
        for seat in seats
        if isinstance(seat, MatchSeat)
        for began, ended, result in seat.record.ended
        if began + seat.battles.scenario.step_limit <= seat.record.steps
    ]
    return [Game(match, result) for _, match, result in sorted(games, key=lambda game: game[0])]


def _own(setup: MatchSetup) -> dict[str, Any]:
    """The fields of the plain setup."""
    return {name: value for name, value in vars(setup).items() if name != "matches"}
