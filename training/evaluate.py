"""How often an agent wins, or what it scores, with an interval, on battles whose seeds are set beforehand.

    result = evaluate(load_agent("scripted:kite"), "attack-move", "3s_vs_5z", games=1000)
    print(result.win_rate, result.wilson_low, result.wilson_high)

Every battle counts once: which ones are played never depends on how long they take. On a symmetric scenario
every seed is played twice, the sides swapped, so that neither spawn counts in an agent's favour. A timeout
is no win for anybody; neither is a draw (both teams gone in the same game loop). Missions are not won: of
them it is the mean score that counts, and a timeout is their regular end.

Then 1000 games are 500 seeds, and the two games of a seed are not independent: a start that favours a spawn
helps the agent in one and harms it in the other. Their wins correlate negatively (closest and focus-fire
against the built-in enemy, 500 seeds: -0.44 and -0.36 on 3m, -0.07 and -0.19 on 8m), so the Wilson interval,
which takes all games as independent, is too wide rather than too narrow. The paired test goes by seeds.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, t

from agents.base import Agent
from envs.battle.batch import AutoReset, BattleBatch, Control, Outcome, require_units
from envs.battle.compiled import engine_digest
from envs.battle.tactics import DEFAULT, Tactic, engine_player
from envs.scenarios import Scenario, load_scenario
from envs.units import unit_table_hash

CONFIDENCE = 0.95
NOBODY = "nobody"
"""What an opponent without units is called."""
UNITS_TOGETHER = 16384
"""Units of all battles stepped together; bounds memory."""
_SEED_STREAM = 0x6576616C  # "eval": these battles are not those a training run with the same seed meets
_VERSIONED = ("perceiver-policy", "torch", "numpy", "numba")


class Measure(StrEnum):
    """What an agent is judged by."""

    WIN_RATE = "win_rate"
    SCORE = "score"
    """A mission's points, on average."""


@dataclass(frozen=True)
class EvaluationResult:
    """Battles played by an agent against an opponent, and what they amount to."""

    scenario: str
    agent: str
    opponent: str
    """ "nobody" where the other side has no units."""
    seed: int
    """From which the battles' seeds derive."""
    control: Control
    """Whether a team or each unit of it observed and commanded."""
    deterministic: bool
    """Whether the agent takes the likeliest orders or draws them."""
    outcomes: NDArray[np.int8]
    """(games,) as the agent's side sees it: WIN_0 a win, WIN_1 a loss, DRAW, TIMEOUT."""
    side: NDArray[np.int8]
    """(games,) the side the agent played."""
    battle_seeds: NDArray[np.uint64]
    """(games,)"""
    lengths: NDArray[np.int32]
    """(games,) steps."""
    returns: NDArray[np.float32]
    """(games,) the agent's sum of rewards."""
    tactics: NDArray[np.int8]
    """(games,) the Tactic of an opponent inside the engine, drawn or not; -1 of others."""
    scores: NDArray[np.float64] | None = None
    """(games,) points of a mission; None of battles."""

    @property
    def measure(self) -> Measure:
        """What counts."""
        return Measure.WIN_RATE if self.scores is None else Measure.SCORE

    @property
    def games(self) -> int:
        """Battles played: wins + draws + timeouts + losses."""
        return len(self.outcomes)

    @property
    def wins(self) -> int:
        """Battles the agent won."""
        return int((self.outcomes == Outcome.WIN_0).sum())

    @property
    def losses(self) -> int:
        """Battles the opponent won."""
        return int((self.outcomes == Outcome.WIN_1).sum())

    @property
    def draws(self) -> int:
        """Battles in which both teams were gone."""
        return int((self.outcomes == Outcome.DRAW).sum())

    @property
    def timeouts(self) -> int:
        """Battles that hit the step limit."""
        return int((self.outcomes == Outcome.TIMEOUT).sum())

    @property
    def win_rate(self) -> float:
        """Wins over all battles."""
        return self.wins / self.games

    @property
    def mean(self) -> float:
        """The win rate, or the mean score of a mission."""
        return self.win_rate if self.scores is None else float(self.scores.mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of :attr:`mean`: Wilson's of a win rate, Student's of a mean score."""
        return wilson(self.wins, self.games) if self.scores is None else mean_interval(self.scores)

    @property
    def wilson_low(self) -> float:
        """Lower end of the win rate's Wilson 95 % interval."""
        return wilson(self.wins, self.games)[0]

    @property
    def wilson_high(self) -> float:
        """Upper end of the win rate's Wilson 95 % interval."""
        return wilson(self.wins, self.games)[1]

    def against(self, tactic: Tactic) -> tuple[int, int]:
        """(wins, games) of the battles in which the opponent played by this tactic."""
        played = self.tactics == tactic
        return int((self.outcomes[played] == Outcome.WIN_0).sum()), int(played.sum())

    def on_side(self, side: int) -> tuple[int, int]:
        """(wins, games) of the battles in which the agent played this side."""
        played = self.side == side
        return int((self.outcomes[played] == Outcome.WIN_0).sum()), int(played.sum())

    def to_dict(self) -> dict[str, Any]:
        """For a result file: JSON types only, with what it takes to play the same battles again."""
        return (
            self.summary()
            | {
                "seeds": len(np.unique(self.battle_seeds)),
                "scenario": self.scenario,
                "agent": self.agent,
                "opponent": self.opponent,
                "control": self.control.value,
                "orders": "greedy" if self.deterministic else "sampled",
                "mean_length_steps": float(self.lengths.mean()),
                "mean_return": float(self.returns.mean()),
                "seed": self.seed,
            }
            | self._shares()
            | provenance()
        )

    def summary(self) -> dict[str, Any]:
        """The measure with its interval, and how the battles ended."""
        counts = {"timeouts": self.timeouts, "losses": self.losses, "draws": self.draws, "games": self.games}
        if self.scores is None:
            rate = {"win_rate": self.win_rate, "wilson_low": self.wilson_low}
            return rate | {"wilson_high": self.wilson_high, "wins": self.wins} | counts
        low, high = self.interval
        return {
            "score_mean": self.mean,
            "score_low": low if np.isfinite(low) else None,  # JSON knows no infinity
            "score_high": high if np.isfinite(high) else None,
            "score_least": float(self.scores.min()),
            "score_most": float(self.scores.max()),
        } | counts

    def _shares(self) -> dict[str, Any]:
        """Win rates by side and by tactic; none of missions."""
        if self.scores is not None:
            return {}
        per_side = {name: self.on_side(side) for side, name in ((0, "first"), (1, "second"))}
        per_tactic = {tactic.label: self.against(tactic) for tactic in Tactic}
        return {"sides": _rates(per_side), "tactics": _rates(per_tactic)}


def _rates(counts: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """For a result file: (wins, games) by name as win rates with intervals, without what was not played."""
    rates = {}
    for name, (wins, games) in counts.items():
        if games:
            low, high = wilson(wins, games)
            rates[name] = {
                "wins": wins,
                "games": games,
                "win_rate": wins / games,
                "wilson_low": low,
                "wilson_high": high,
            }
    return rates


def provenance() -> dict[str, Any]:
    """What a win rate depends on beside the agents: the backend, its unit table, and versions."""
    versions = {"python": platform.python_version()}
    for package in _VERSIONED:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a source tree that was never installed
            versions[package] = "not installed"
    return {
        "backend": "embedded",
        "engine": engine_digest(),
        "unit_table": unit_table_hash(),
        "versions": versions,
    }


def wilson(wins: int, games: int) -> tuple[float, float]:
    """The Wilson 95 % interval of a win rate (Wilson 1927, JASA 22)."""
    interval = binomtest(wins, games).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: NDArray[np.floating]) -> tuple[float, float]:
    """Student's 95 % interval of a mean: x̅ ± t₀.₉₇₅,ₙ₋₁ s / √n; everything, for a single value."""
    n = len(values)
    if n < 2:
        return -np.inf, np.inf
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return float(values.mean()) - half, float(values.mean()) + half


def paired_p_value(first: EvaluationResult, second: EvaluationResult) -> float:
    """Exact sign test of two agents on the same seeds: two-sided p of either doing better so often by chance.

    A seed's games, from one side or from both, count together, as they are not independent. Only seeds of
    which the agents win different numbers (of a mission: score differently) tell them apart: of n of them,
    that the first does better in k is as likely as k heads of n coins. With one game a seed and wins it is
    McNemar's test.

    Raises:
        ValueError: the two did not play the same battles.
    """
    same = (
        first.scenario == second.scenario
        and np.array_equal(first.battle_seeds, second.battle_seeds)
        and np.array_equal(first.side, second.side)
    )
    if not same:
        raise ValueError("a paired test needs the same scenario, games, seed and sides")
    seeds, seed_of_game = np.unique(first.battle_seeds, return_inverse=True)
    ahead = np.zeros(len(seeds))  # the first, of the second
    np.add.at(ahead, seed_of_game, _merits(first) - _merits(second))
    for_first, for_second = int((ahead > 0).sum()), int((ahead < 0).sum())
    if for_first + for_second == 0:
        return 1.0
    return float(binomtest(for_first, for_first + for_second).pvalue)


def _merits(result: EvaluationResult) -> NDArray[np.float64]:
    """(games,) wins as 1 and 0, or scores."""
    return (result.outcomes == Outcome.WIN_0).astype(np.float64) if result.scores is None else result.scores


def evaluate(
    agent: Agent | str,
    opponent: Agent | str | None,
    scenario: Scenario | str,
    *,
    games: int = 1000,
    seed: int = 0,
    control: Control | str = Control.TEAM,
    swap_sides: bool | None = None,
    num_threads: int = 1,
) -> EvaluationResult:
    """Play ``games`` battles.

    Args:
        agent: whose win rate it is: an agent, reset with ``seed`` first, or the name of an engine-side
            player (:mod:`envs.battle.tactics`).
        opponent: the other side: an agent, reset with ``seed + 1``, or the name of an engine-side player;
            None: attack-move.
        scenario: a scenario, the name of a shipped one, or the path of a YAML file.
        games: battles, at least 1.
        seed: from which the battles' seeds derive; not negative. The first n seeds are the same for any
            number of games.
        control: one observer a team, or one a unit; for both sides.
        swap_sides: play each seed from both sides (with an odd number of games, the last only from the
            first); default: where the scenario is symmetric.
        num_threads: threads of the engine.

    Raises:
        ValueError: an argument is out of range, sides are to be swapped and the teams differ, or the opponent
            is an agent that would have no units.
        ScenarioError: the scenario is unknown or wrong.
    """
    scenario = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
    control = Control(control)
    if games < 1:
        raise ValueError(f"games is {games}; it must be at least 1")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must not be negative")
    if swap_sides is None:
        swap_sides = scenario.symmetric
    elif swap_sides and not scenario.symmetric:
        raise ValueError(f"scenario {scenario.name!r} is not symmetric; its sides cannot be swapped")
    if isinstance(agent, str):
        agent = engine_player(agent)
    else:
        agent.reset(seed)
    opponent = (
        engine_player(opponent or DEFAULT) if opponent is None or isinstance(opponent, str) else opponent
    )
    if not isinstance(opponent, str):
        require_units(scenario, 1)
        opponent.reset(seed + 1)
    sequence = np.random.SeedSequence([seed, _SEED_STREAM])
    per_side = [(games + 1) // 2, games // 2] if swap_sides else [games, 0]
    seeds = sequence.generate_state(per_side[0], np.uint64).astype(np.uint64)
    together = max(UNITS_TOGETHER // scenario.num_units, 1)
    waves = []
    for side, count in enumerate(per_side):
        for start in range(0, count, together):
            wave = seeds[start : min(start + together, count)]
            waves.append(_play(agent, opponent, scenario, control, side, wave, num_threads))
    outcomes, sides, battle_seeds, lengths, returns, tactics, scores = (
        np.concatenate(column) for column in zip(*waves, strict=True)
    )
    return EvaluationResult(
        scenario=scenario.name,
        agent=_name(agent),
        opponent=_name(opponent) if scenario.teams[1].size else NOBODY,
        seed=seed,
        control=control,
        deterministic=isinstance(agent, str) or agent.deterministic,
        outcomes=outcomes,
        side=sides,
        battle_seeds=battle_seeds,
        lengths=lengths,
        returns=returns,
        tactics=tactics,
        scores=scores if scenario.mission is not None else None,
    )


def _name(player: Agent | str) -> str:
    return player if isinstance(player, str) else player.name


def _play(
    agent: Agent | str,
    opponent: Agent | str,
    scenario: Scenario,
    control: Control,
    side: int,
    seeds: NDArray[np.uint64],
    num_threads: int,
) -> tuple[NDArray, ...]:
    """Play one battle a seed, the agent on ``side``: outcomes, sides, seeds, lengths, returns,
    opponent's tactics, scores."""
    first, second = (agent, opponent) if side == 0 else (opponent, agent)
    players = [None if isinstance(player, str) else player for player in (first, second)]
    batch = BattleBatch(
        scenario,
        len(seeds),
        builtin=(
            first if isinstance(first, str) else None,
            second if isinstance(second, str) else None,
        ),
        control=control,
        auto_reset=AutoReset.OFF,
        num_threads=num_threads,
    )
    batch.reset(seeds)
    orders = [
        None if player is None else np.zeros((len(seeds), size, 2), np.int64)
        for player, size in zip(players, batch.team_sizes, strict=True)
    ]
    running = np.ones(len(seeds), np.bool_)
    while running.any():
        for player, observation, given in zip(players, batch.observations, orders, strict=True):
            if player is not None and observation is not None and given is not None:
                shown = running | player.remembers
                answered = player.act(_rows(observation, shown))
                given[shown] = answered.reshape(-1, *given.shape[1:])
        result = batch.step(orders[0], orders[1])
        running = ~result.done
    outcomes = result.outcome.copy()
    if side == 1:
        outcomes = _SWAPPED[outcomes]
    return (
        outcomes,
        np.full_like(outcomes, side),
        seeds,
        result.length.copy(),
        result.episode_return[:, side].copy(),
        batch.tactics[:, 1 - side],
        batch.state.battles["score"].copy(),
    )


_SWAPPED = np.array([Outcome.RUNNING, Outcome.WIN_1, Outcome.WIN_0, Outcome.DRAW, Outcome.TIMEOUT], np.int8)
"""Outcomes as the second side sees them."""


def _rows(observation: Mapping[str, NDArray], chosen: NDArray[np.bool_]) -> dict[str, NDArray]:
    """The observations of the chosen battles; finished ones need no orders."""
    if chosen.all():
        return dict(observation)
    return {key: array[chosen] for key, array in observation.items()}
