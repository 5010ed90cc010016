"""What an agent wins over several scenarios, as many battles on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.base import Agent
from envs.battle.batch import Control
from envs.scenarios import Scenario
from training.evaluate import EvaluationResult, Measure, evaluate, wilson


@dataclass(frozen=True)
class MixtureResult:
    """Results on several scenarios, of as many games each.

    Their mean win rate is the share of all games won. Wilson's interval of that share takes the games as
    drawn from one urn; that each scenario has its own number of them can only make the mean surer, so that
    the interval is, if anything, too wide.
    """

    results: Mapping[str, EvaluationResult]
    """By scenario's name."""

    @property
    def measure(self) -> Measure:
        """Wins: mixtures hold no missions."""
        return Measure.WIN_RATE

    @property
    def games(self) -> int:
        """Battles played on all scenarios."""
        return sum(result.games for result in self.results.values())

    @property
    def wins(self) -> int:
        """Battles won on all scenarios."""
        return sum(result.wins for result in self.results.values())

    @property
    def mean(self) -> float:
        """The mean win rate over the scenarios."""
        return self.wins / self.games

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return wilson(self.wins, self.games)

    @property
    def worst(self) -> EvaluationResult:
        """Of the scenario that is won least."""
        return min(self.results.values(), key=lambda result: result.mean)

    def summary(self) -> dict[str, Any]:
        """For a result file."""
        low, high = self.interval
        return {
            "win_rate_mean": self.mean,
            "wilson_low": low,
            "wilson_high": high,
            "win_rate_worst": self.worst.mean,
            "worst": self.worst.scenario,
            "wins": self.wins,
            "games": self.games,
        }


def evaluate_mixture(
    agent: Agent,
    opponent: Agent | str | None,
    scenarios: Sequence[Scenario],
    *,
    games: int,
    seed: int = 0,
    control: Control | str = Control.TEAM,
    swap_sides: bool | None = None,
    num_threads: int = 1,
) -> MixtureResult:
    """Play ``games`` battles on each scenario; the arguments are those of
    :func:`~training.evaluate.evaluate`.

    ``swap_sides`` None or True plays both sides where a scenario is symmetric.
    """
    return MixtureResult(
        {
            scenario.name: evaluate(
                agent,
                opponent,
                scenario,
                games=games,
                seed=seed,
                control=control,
                swap_sides=None if swap_sides else swap_sides,
                num_threads=num_threads,
            )
            for scenario in scenarios
        }
    )
