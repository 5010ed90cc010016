"""``perceiver-policy ladder``: everybody against everybody, and ratings from it."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from agents import load_opponent
from agents.base import Agent
from agents.roster import SCRIPTED, policy_folder
from envs.battle.batch import Control
from envs.battle.tactics import is_engine_player
from envs.battle.whole_file import write_whole
from envs.scenarios import load_scenario
from training.commands.door import door, require_writable
from training.rating_table import payoff_table, rating_table
from training.round_robin import require_tournament, round_robin
from training.trained_as import trained_as


@dataclass(frozen=True)
class Args:
    """Play a round robin and rate everybody on it: Bradley-Terry by maximum likelihood, on Elo's scale.

    Every pair plays the same battle seeds, each from both sides. Draws and timeouts count as half a win. The
    intervals are a bootstrap's over seeds.
    """

    agents: tuple[str, ...]
    """Two or more: folders of exported policies or of runs, policy:NAME, scripted:NAME, or players inside the
    engine, such as attack-move, focus-fire, kite."""
    scenario: str = "3m"
    """A symmetric scenario's name, or the path of a scenario file."""
    games: int = 200
    """Battles of each pair; an even number."""
    anchor: str | None = None
    """Whose rating is 1000. Default: the first of the agents that is no learned policy."""
    seed: int = 0
    """From which the battles' seeds derive, and the bootstrap."""
    orders: Literal["greedy", "sampled"] = "greedy"
    """What learned policies do: the likeliest orders, or drawn ones."""
    control: Literal["team", "unit"] | None = None
    """One observer commands a team, or each unit sees and acts for itself. Default: as the learned policies
    were trained; team for scripts."""
    threads: int = 1
    """Threads of the engine."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where to write ratings and results; the file appears whole or not at all."""


def run(args: Args) -> int:
    """Play, rate, print and write."""
    with door():
        require_writable(args.json)
        players: dict[str, Agent | str] = {}
        for spec in args.agents:
            if spec in players:
                raise ValueError(f"--agents has {spec} twice; name each once")
            players[spec] = load_opponent(spec, deterministic=args.orders == "greedy")
        if len(players) < 2:
            raise ValueError(f"--agents is {' '.join(args.agents)!r}; name two or more")
        anchor = args.anchor or _first_script(args.agents)
        if anchor not in players:
            raise ValueError(f"--anchor is {anchor}; it must be one of the agents: {', '.join(players)}")
        learned = [spec for spec in args.agents if not is_engine_player(spec) and policy_folder(spec)]
        controls = {trained_as(spec).control for spec in learned}
        if args.control is None and len(controls) > 1:
            raise ValueError("some of the agents were trained as teams and some as units; give --control")
        for name in ("threads", "seed"):
            least = 1 if name == "threads" else 0
            if getattr(args, name) < least:
                raise ValueError(f"--{name} is {getattr(args, name)}; it must be at least {least}")
        scenario = load_scenario(args.scenario)
        require_tournament(scenario, len(players), args.games)
    with _Bar() as bar:
        tournament = round_robin(
            players,
            scenario,
            games=args.games,
            seed=args.seed,
            control=args.control or next(iter(controls), Control.TEAM),
            num_threads=args.threads,
            progress=bar,
        )
    ladder = tournament.ladder(anchor, seed=args.seed)
    console = Console()
    title = f"{tournament.scenario} on the embedded simulator, {args.games} battles of each pair"
    console.print(payoff_table(title, tournament.names, tournament.wins, tournament.draws))
    console.print(rating_table(ladder))
    if args.json is not None:
        command = {"command": shlex.join(["perceiver-policy", *sys.argv[1:]])}
        whole = ladder.to_dict() | tournament.to_dict() | {"orders": args.orders} | command
        write_whole(args.json, (json.dumps(whole, indent=2) + "\n").encode())
    return 0


def _first_script(agents: Sequence[str]) -> str:
    """Who needs no training.

    Raises:
        ValueError: there is nobody.
    """
    for spec in agents:
        if spec.startswith(SCRIPTED) or is_engine_player(spec):
            return spec
    raise ValueError("all agents are learned policies; name a script, too, or give one of them as --anchor")


class _Bar:
    """A bar on a terminal, and elsewhere a line on standard error every ten seconds."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.completed} of {task.total} pairs"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("pairs", total=None)
        self._told = time.monotonic()

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, done: int, of: int) -> None:
        self._bar.update(self._task, completed=done, total=of)
        if not self._console.is_terminal and time.monotonic() >= self._told + _LINE_INTERVAL_S:
            self._console.print(f"{done} of {of} pairs", highlight=False)
            self._told = time.monotonic()


_LINE_INTERVAL_S = 10.0
