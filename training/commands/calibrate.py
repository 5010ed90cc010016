"""``perceiver-policy calibrate``: how the shipped players fare everywhere, beside published numbers."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.markdown import Markdown

from envs.battle.whole_file import write_whole
from training.benchmark.calibration import Part, Played, plan, play
from training.benchmark.calibration_page import page_text, render, with_tables
from training.benchmark.orderings import Check, Verdict, judge
from training.benchmark.rows import Row
from training.commands.door import door, require_writable
from training.evaluate import Measure, provenance


@dataclass(frozen=True)
class Args:
    """Play the scripts and the engine's players everywhere, and check what the rules imply.

    Missions' scores, SMAC's and SMACv2's scenarios against attack-move, players against themselves on
    scenarios with equal sides, and the engine's players against each other. What departs from what the rules
    imply is listed; that is a finding to explain, and no error.
    """

    parts: tuple[Literal["missions", "smac", "smacv2", "mirrors", "tactics"], ...] = (
        "missions",
        "smac",
        "smacv2",
        "mirrors",
        "tactics",
    )
    """Which parts."""
    games: int = 500
    """Battles of a match; of two of the engine's players two fifths of that from either side."""
    seed: int = 0
    """From which the battles' seeds derive."""
    processes: int | None = None
    """Over how many processes to spread the matches; the numbers do not depend on it. Default: one a core."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where to write the rows and checks; the file appears whole or not at all."""
    page: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A Markdown page with two marker lines between which the tables go, such as docs/calibration.md."""


def run(args: Args) -> int:
    """Play, print the tables, and write them."""
    with door():
        for path in (args.json, args.page):
            require_writable(path)
        if args.page is not None:
            page_text(args.page)
        for name in ("games", "processes"):
            value = getattr(args, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} is {value}; it must be at least 1")
        if args.seed < 0:
            raise ValueError(f"--seed is {args.seed}; it must not be negative")
        if len(set(args.parts)) < max(len(args.parts), 1):
            raise ValueError(f"--parts is {' '.join(args.parts)!r}; give one or more, each once")
    matches = plan(games=args.games, seed=args.seed, parts=[Part(part) for part in args.parts])
    played = play(matches, processes=args.processes, progress=_Progress())
    checks = judge(played)
    tables = render(played, checks, provenance())
    Console().print(Markdown(tables))
    command = shlex.join(["perceiver-policy", *sys.argv[1:]])
    if args.json is not None:
        write_whole(args.json, _as_json(played, checks, command).encode())
    if args.page is not None:
        write_whole(args.page, with_tables(page_text(args.page), tables).encode())
    return 0


class _Progress:
    """Tells on standard error, now and then, how far the matches are."""

    def __init__(self, every: float = 10.0) -> None:
        self._every, self._began, self._told = every, time.monotonic(), 0.0

    def __call__(self, done: int, of: int) -> None:
        elapsed = time.monotonic() - self._began
        if elapsed - self._told >= self._every or done == of:
            self._told = elapsed
            print(f"{done} of {of} matches, {elapsed:.0f} s", file=sys.stderr, flush=True)


def _as_json(played: Sequence[Played], checks: Sequence[Check], command: str) -> str:
    """A row a line: there are a thousand."""
    whole = {
        "command": command,
        "cores": os.cpu_count(),
        "departures": sum(check.verdict is Verdict.DEPARTS for check in checks),
        "checks": [check.to_dict() for check in checks],
    } | provenance()
    rows = ",\n".join(json.dumps(_row(one, command)) for one in played)
    return f'{json.dumps(whole)[:-1]},\n"rows": [\n{rows}\n]}}\n'


def _row(one: Played, command: str) -> dict[str, Any]:
    """A benchmark's row, its spread the 95 % interval's width over the value (0 where the value is 0), with
    the interval and how the battles ended."""
    result, match = one.result, one.match
    low, high = result.interval
    score = result.measure is Measure.SCORE
    row = Row(
        name=f"calibration/{match.part}/{match.scenario}/{match.agent}/{match.opponent}",
        unit="points" if score else "win rate",
        ours=result.mean,
        spread=(high - low) / abs(result.mean) if result.mean and result.games > 1 else 0.0,
        command=command,
    )
    return row.to_dict() | {
        "low": low if np.isfinite(low) else None,  # JSON knows no infinity
        "high": high if np.isfinite(high) else None,
        "games": result.games,
        "draws": result.draws,
        "timeouts": result.timeouts,
        "sides": "both" if result.side.any() else "first",
        "mean_length_steps": round(float(result.lengths.mean()), 2),
    }
