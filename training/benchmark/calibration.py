"""How the shipped players fare everywhere: what a reader holds next to the rules and to published numbers.

    played = play(plan(games=500), processes=2)
    report = judge(played)  # training.benchmark.orderings

Five parts. ``missions``: scripts and their scores. ``smac``: scripts against SMAC's enemy on SMAC's maps.
``smacv2``: the same on the teams that SMACv2 draws. ``mirrors``: players against themselves on scenarios with
equal sides, where neither side may win more than the other. ``tactics``: the engine's own players against
each other.

A match is played in one process, on seeds that depend on nothing but the plan's seed; so the numbers are the
same for any number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing import get_context

import numpy as np

from agents.roster import SCRIPTED, load_agent
from envs.battle.batch import AutoReset, BattleBatch, Control
from envs.battle.tactics import DEFAULT, Tactic, is_engine_player
from envs.scenarios import MissionKind, load_scenario, scenario_groups
from training.evaluate import EvaluationResult, evaluate


class Part(StrEnum):
    """Of the calibration."""

    MISSIONS = "missions"
    SMAC = "smac"
    SMACV2 = "smacv2"
    MIRRORS = "mirrors"
    TACTICS = "tactics"


SCRIPTS = ("random", "hold", "attack-move", "closest", "focus-fire", "kite")
"""Scripts that can play any battle; the first is the one that all others should beat."""
GENERATED_SCRIPTS = ("random", "attack-move", "closest", "focus-fire", "kite")
"""Scripts on SMACv2's teams. attack-move does not look: one order, whatever happens."""
MISSION_SCRIPTS = {
    MissionKind.BEACON: ("random", "collect"),
    MissionKind.SHARDS: ("random", "collect"),
    MissionKind.HUNT: ("random", "attack-move", "closest", "focus-fire", "kite", "search"),
    MissionKind.WAVES: ("random", "hold", "attack-move", "closest", "focus-fire", "kite"),
}
MIRRORED = (DEFAULT, "scripted:closest", "scripted:focus-fire", "scripted:kite")
"""Who plays against itself; on large scenarios only the first."""
LARGE = 100
"""Units from which on scripts, which look at every pair of units, do not play mirrors."""
LARGE_SHARE = 0.2
"""Games of a mirror of so many units, relative to those of other matches."""
TACTICS_ON = ("3m", "8m", "2s3z", "3s5z", "MMM", "3s_vs_5z", "smacv2_terran_5v5")
TACTICS_SHARE = 0.4
"""Games of a pair of tactics on a side, relative to those of other matches: there are 121 pairs."""


@dataclass(frozen=True)
class Match:
    """Two players, a scenario, and how many battles."""

    part: Part
    scenario: str
    agent: str
    """As for :func:`agents.roster.load_agent`, or a player of the engine, which is then on the first side in
    every battle."""
    opponent: str
    games: int
    seed: int = 0
    swap_sides: bool | None = None
    """As for :func:`training.evaluate.evaluate`."""
    control: str = Control.TEAM.value
    """Likewise; the engine's players have none."""

    @property
    def cost(self) -> float:
        """What orders matches from long to short, roughly."""
        scenario = load_scenario(self.scenario)
        scripts = sum(not is_engine_player(name) for name in (self.agent, self.opponent))
        return self.games * scenario.step_limit * scenario.num_units ** (1 + scripts / 2)


@dataclass(frozen=True)
class Played:
    """A match and its battles."""

    match: Match
    result: EvaluationResult


def plan(*, games: int = 500, seed: int = 0, parts: Iterable[Part] = tuple(Part)) -> list[Match]:
    """All matches of some parts.

    Args:
        games: battles of a match; less of two tactics (:data:`TACTICS_SHARE`) and of very large mirrors
            (:data:`LARGE_SHARE`).
        seed: from which the battles' seeds derive.
        parts: which parts.
    """
    makers: dict[Part, Callable[[], list[Match]]] = {
        Part.MISSIONS: lambda: _missions(games, seed),
        Part.SMAC: lambda: _against_attack_move(Part.SMAC, SCRIPTS, games, seed),
        Part.SMACV2: lambda: _against_attack_move(Part.SMACV2, GENERATED_SCRIPTS, games, seed),
        Part.MIRRORS: lambda: _mirrors(games, seed),
        Part.TACTICS: lambda: _tactics(max(round(TACTICS_SHARE * games), 1), seed),
    }
    return [match for part in parts for match in makers[part]()]


def _missions(games: int, seed: int) -> list[Match]:
    return [
        Match(Part.MISSIONS, name, SCRIPTED + script, DEFAULT, games, seed)
        for name in scenario_groups()["missions"]
        for script in MISSION_SCRIPTS[_mission_kind(name)]
    ]


def _mission_kind(name: str) -> MissionKind:
    mission = load_scenario(name).mission
    assert mission is not None
    return mission.kind


def _against_attack_move(part: Part, scripts: Sequence[str], games: int, seed: int) -> list[Match]:
    names = scenario_groups()[part.value]
    return [
        Match(part, name, SCRIPTED + script, DEFAULT, games, seed) for name in names for script in scripts
    ]


def _mirrors(games: int, seed: int) -> list[Match]:
    matches = []
    for names in scenario_groups().values():
        for name in names:
            scenario = load_scenario(name)
            if scenario.symmetric:
                large = scenario.num_units >= LARGE
                players = MIRRORED[:1] if large else MIRRORED
                count = max(round(LARGE_SHARE * games), 1) if large else games
                matches += [Match(Part.MIRRORS, name, who, who, count, seed, False) for who in players]
    return matches


def _tactics(games: int, seed: int) -> list[Match]:
    labels = [tactic.label for tactic in Tactic]
    return [
        Match(Part.TACTICS, name, first, second, games, seed, False)
        for name in TACTICS_ON
        for first in labels
        for second in labels
    ]


def play(
    matches: Sequence[Match],
    *,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Played]:
    """Play matches, in their order.

    Args:
        matches: what to play.
        processes: over how many processes to spread them; default: one a core. With 1, in this process.
        progress: called after each match with how many are done, of how many.

    Raises:
        ValueError: processes is less than 1.
    """
    processes = processes if processes is not None else os.cpu_count() or 1
    if processes < 1:
        raise ValueError(f"processes is {processes}; it must be at least 1")
    longest_first = sorted(range(len(matches)), key=lambda index: -matches[index].cost)
    results: dict[int, EvaluationResult] = {}
    if processes == 1:
        for index in longest_first:
            results[index] = play_one(matches[index])
            progress(len(results), len(matches))
    else:
        play_one(Match(Part.TACTICS, "3m", "kite", "flank", 1))  # compiles, once
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            futures = {pool.submit(play_one, matches[index]): index for index in longest_first}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                progress(len(results), len(matches))
    return [Played(match, results[index]) for index, match in enumerate(matches)]


def play_one(match: Match) -> EvaluationResult:
    """The battles of one match."""
    if is_engine_player(match.agent):
        return duel(match.agent, match.opponent, match.scenario, games=match.games, seed=match.seed)
    opponent = match.opponent if is_engine_player(match.opponent) else load_agent(match.opponent)
    return evaluate(
        load_agent(match.agent),
        opponent,
        match.scenario,
        games=match.games,
        seed=match.seed,
        control=match.control,
        swap_sides=match.swap_sides,
    )


def duel(first: str, second: str, scenario: str, *, games: int, seed: int = 0) -> EvaluationResult:
    """Two of the engine's players against each other, as the first side sees it; sides are not swapped.

    Raises:
        ValueError: the engine has no such player.
        ScenarioError: the scenario is unknown or wrong.
    """
    batch = BattleBatch(scenario, games, builtin=(first, second), auto_reset=AutoReset.OFF)
    seeds = np.random.SeedSequence([seed, _SEED_STREAM]).generate_state(games, np.uint64).astype(np.uint64)
    batch.reset(seeds)
    drawn = batch.tactics
    result = batch.step(None, None)
    while not result.done.all():
        result = batch.step(None, None)
    return EvaluationResult(
        scenario=batch.scenario.name,
        agent=first,
        opponent=second,
        seed=seed,
        control=Control.TEAM,
        deterministic=True,
        outcomes=result.outcome.copy(),
        side=np.zeros(games, np.int8),
        battle_seeds=seeds,
        lengths=result.length.copy(),
        returns=result.episode_return[:, 0].copy(),
        tactics=drawn[:, 1],
        scores=None if batch.scenario.mission is None else batch.state.battles["score"].copy(),
    )


_SEED_STREAM = 0x6475656C  # "duel"
