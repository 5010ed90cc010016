"""Everybody against everybody, for ratings that compare: every pair plays the same seeds, from both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.base import Agent
from agents.ladder import Ladder, rate
from envs.battle.batch import Control, Outcome
from envs.scenarios import Scenario, load_scenario
from training.evaluate import EvaluationResult, evaluate, provenance


@dataclass(frozen=True)
class Tournament:
    """What a round robin came to."""

    scenario: str
    names: tuple[str, ...]
    results: Mapping[tuple[int, int], EvaluationResult]
    """For each pair i < j, as player i's side sees it."""

    @cached_property
    def wins(self) -> NDArray[np.float64]:
        """(n, n), of the row's player against the column's."""
        return self._table(lambda result: result.wins, lambda result: result.losses)

    @cached_property
    def draws(self) -> NDArray[np.float64]:
        """(n, n) games that nobody won: draws and timeouts."""

        def neither(result: EvaluationResult) -> int:
            return result.draws + result.timeouts

        return self._table(neither, neither)

    @cached_property
    def by_seed(self) -> NDArray[np.float64]:
        """(S, n, n) points in the games of each battle seed: wins, and half for a draw or a timeout."""
        results = list(self.results.values())
        seeds, place = np.unique(results[0].battle_seeds, return_inverse=True)
        points = np.zeros((len(seeds), len(self.names), len(self.names)))
        for (i, j), result in self.results.items():
            won = np.where(result.outcomes == Outcome.WIN_0, 1.0, 0.5)
            won = np.where(result.outcomes == Outcome.WIN_1, 0.0, won)
            np.add.at(points[:, i, j], place, won)
            np.add.at(points[:, j, i], place, 1 - won)
        return points

    def ladder(self, anchor: str, seed: int = 0) -> Ladder:
        """Ratings with intervals; whole battle seeds are resampled.

        Raises:
            ValueError: the anchor did not play.
        """
        return rate(
            self.names, wins=self.wins, draws=self.draws, anchor=anchor, by_seed=self.by_seed, seed=seed
        )

    def to_dict(self) -> dict[str, Any]:
        """For a result file."""
        first = next(iter(self.results.values()))
        return {
            "scenario": self.scenario,
            "names": list(self.names),
            "games": (self.wins + self.wins.T + self.draws).tolist(),
            "wins": self.wins.tolist(),
            "draws": self.draws.tolist(),
            "games_each_pair": first.games,
            "seed": first.seed,
            "control": first.control.value,
        } | provenance()

    def _table(
        self, own: Callable[[EvaluationResult], int], other: Callable[[EvaluationResult], int]
    ) -> NDArray[np.float64]:
        table = np.zeros((len(self.names), len(self.names)))
        for (i, j), result in self.results.items():
            table[i, j], table[j, i] = own(result), other(result)
        return table


def round_robin(
    players: Mapping[str, Agent | str],
    scenario: Scenario | str,
    *,
    games: int,
    seed: int = 0,
    control: Control | str = Control.TEAM,
    num_threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Tournament:
    """Play ``games`` battles of each pair, every seed from both sides.

    Args:
        players: agents, or names of the engine's players, by the names they have in the tables.
        scenario: a symmetric one.
        games: of each pair, an even number.
        seed: from which the battles' seeds derive.
        control: one observer a team, or one a unit; for everybody.
        num_threads: threads of the engine.
        progress: told how many pairs have played, of how many.

    Raises:
        ScenarioError: the scenario is unknown or wrong.
        ValueError: as :func:`require_tournament`.
    """
    scenario = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
    require_tournament(scenario, len(players), games)
    names = tuple(players)
    pairs = list(combinations(range(len(names)), 2))
    results = {}
    for done, (i, j) in enumerate(pairs):
        progress(done, len(pairs))
        results[i, j] = evaluate(
            players[names[i]],
            players[names[j]],
            scenario,
            games=games,
            seed=seed,
            control=control,
            swap_sides=True,
            num_threads=num_threads,
        )
    progress(len(pairs), len(pairs))
    return Tournament(scenario.name, names, results)


def require_tournament(scenario: Scenario, players: int, games: int) -> None:
    """Refuse what tells nothing of who is better.

    Raises:
        ValueError: fewer than two players, an odd number of games, or a scenario with unequal sides.
    """
    if not scenario.symmetric or scenario.mission is not None:
        raise ValueError(
            f"scenario {scenario.name!r} is not symmetric: who plays its first side is not comparable with "
            "who plays the second; choose one with equal sides, such as 3m, 8m, 2s3z or 3s5z"
        )
    if games < 2 or games % 2:
        raise ValueError(f"games is {games}; every seed is played from both sides, so give an even number")
    if players < 2:
        raise ValueError(f"a round robin needs at least two players, not {players}")
