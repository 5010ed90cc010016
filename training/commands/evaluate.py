"""``perceiver-policy evaluate``: how often an agent wins."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from agents import load_agent, load_opponent
from envs.battle.batch import require_units
from envs.battle.tactics import DEFAULT, POOLS, Tactic
from envs.battle.whole_file import write_whole
from envs.scenarios import load_scenario
from training.commands.door import door, require_writable
from training.evaluate import EvaluationResult, Measure, evaluate
from training.mixture import parse_mixture
from training.mixture_result import MixtureResult
from training.results import result_table
from training.trained_as import trained_as


@dataclass(frozen=True)
class Args:
    """Play battles and report the win rate with its Wilson 95 % interval, or a mission's mean score.

    Timeouts and draws are no wins; of missions a timeout is the regular end. On symmetric scenarios every
    seed is played from both sides.
    """

    agent: str
    """scripted:NAME; policy:NAME, which comes with the package (perceiver-policy policies lists them); or the
    folder of an exported policy or of a run."""
    opponent: tuple[str, ...] = (DEFAULT,)
    """One or more, each for a result of its own: scripted:NAME, policy:NAME, a folder as for --agent, or a
    player inside the engine: attack-move (SMAC's enemy), attack-move-easy, attack-move-medium,
    attack-move-hard, focus-fire, kite, retreat-regroup, split; held out of training flank, hit-and-run,
    ambush; mixed draws one of the first for each battle, black-box one of the held-out ones. A bare name is
    the engine's:
    focus-fire is not scripted:focus-fire."""
    scenario: tuple[str, ...] = ("3m",)
    """A scenario's name, or the path of a scenario file; several, groups such as smac, ranges such as
    marine_2-8, or a mixture file, each scenario for a result of its own (weights do not count)."""
    games: int = 1000
    """Battles to play, on each scenario."""
    seed: int = 0
    """From which the battles' seeds derive."""
    orders: Literal["greedy", "sampled"] = "greedy"
    """What learned policies do: the likeliest orders, or drawn ones."""
    control: Literal["team", "unit"] | None = None
    """One observer commands a team, or each unit sees and acts for itself. Default: as the agent was trained;
    team for scripts."""
    sides: Literal["both", "first"] | None = None
    """Every seed from both sides, or the first side only. Default: both where the scenario is symmetric,
    unless the agent was trained on the first only."""
    threads: int = 1
    """Threads of the engine."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where to write the result; the file appears whole or not at all."""


def run(args: Args) -> int:
    """Evaluate, print, and write the result."""
    with door():
        require_writable(args.json)
        scenarios = [load_scenario(name) for name in parse_mixture(args.scenario)]
        greedy = args.orders == "greedy"
        agent = load_agent(args.agent, deterministic=greedy)
        trained = trained_as(args.agent)
        swap_sides = trained.swap_sides(_SWAP[args.sides])
        for scenario in scenarios:
            if swap_sides and not scenario.symmetric:
                raise ValueError(f"--sides is both, but the sides of {scenario.name} differ; leave it out")
        opponents = [load_opponent(name, deterministic=greedy) for name in args.opponent]
        names = {opponent if isinstance(opponent, str) else opponent.name for opponent in opponents}
        if len(names) < max(len(opponents), 1):
            raise ValueError(f"--opponent is {' '.join(args.opponent)!r}; give one or more, each once")
        for scenario in scenarios:
            if len(names) > 1 or not all(isinstance(opponent, str) for opponent in opponents):
                require_units(scenario, 1)
        for name in ("games", "threads"):
            if getattr(args, name) < 1:
                raise ValueError(f"--{name} is {getattr(args, name)}; it must be at least 1")
        if args.seed < 0:
            raise ValueError(f"--seed is {args.seed}; it must not be negative")
    results = {
        scenario.name: [
            evaluate(
                agent,
                opponent,
                scenario,
                games=args.games,
                seed=args.seed,
                control=args.control or trained.control,
                swap_sides=swap_sides,
                num_threads=args.threads,
            )
            for opponent in opponents
        ]
        for scenario in scenarios
    }
    if len(results) == 1:
        _show(*results.values())
    else:
        _show_scenarios(results)
    if args.json is not None:
        write_whole(args.json, _as_json(results).encode())
    return 0


_SWAP = {None: None, "both": True, "first": False}


def _show(results: list[EvaluationResult]) -> None:
    """Print the table, a row an opponent if there are several, and of pools the win rate by tactic."""
    console, first = Console(), results[0]
    title = f"{first.scenario} on the embedded simulator, {first.games} battles against "
    if len(results) == 1:
        console.print(result_table(title + first.opponent, {first.agent: first}))
    else:
        rows = {f"against {result.opponent}": result for result in results}
        console.print(result_table(f"{title}each: {first.agent}", rows))
    for result in results:
        if result.opponent in POOLS and result.measure is Measure.WIN_RATE:
            wins = [(tactic.label, *result.against(tactic)) for tactic in Tactic]
            rates = ", ".join(f"{name} {100 * won / games:.1f}" for name, won, games in wins if games)
            console.print(f"{result.opponent}, won % by tactic: {rates}", highlight=False, markup=False)


def _show_scenarios(results: Mapping[str, list[EvaluationResult]]) -> None:
    """Print a table for each opponent, a row a scenario, and the mean over them."""
    console = Console()
    for against in zip(*results.values(), strict=True):
        first = against[0]
        title = (
            f"{first.agent} on the embedded simulator, {first.games} battles each against {first.opponent}"
        )
        console.print(result_table(title, dict(zip(results, against, strict=True)), "scenario"))
        mixture = MixtureResult(dict(zip(results, against, strict=True)))
        low, high = mixture.interval
        mean = f"mean {100 * mixture.mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        worst = f"worst {mixture.worst.scenario} {100 * mixture.worst.mean:.1f}"
        console.print(f"{mean}, {worst}", highlight=False, markup=False)


def _as_json(results: Mapping[str, list[EvaluationResult]]) -> str:
    """One result's keys as they are; several by opponent under ``opponents``, and these by scenario under
    ``scenarios``."""
    content = {name: _by_opponent(of_scenario) for name, of_scenario in results.items()}
    whole: dict[str, Any] = next(iter(content.values())) if len(content) == 1 else {"scenarios": content}
    return json.dumps(whole | {"command": " ".join(["perceiver-policy", *sys.argv[1:]])}, indent=2) + "\n"


def _by_opponent(results: list[EvaluationResult]) -> dict[str, Any]:
    if len(results) == 1:
        return results[0].to_dict()
    return {"opponents": {result.opponent: result.to_dict() for result in results}}
