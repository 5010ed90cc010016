"""``perceiver-policy benchmark``: measure one of the project's parts."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from envs.battle.whole_file import write_whole
from training.benchmark.rows import CURVE, Row
from training.commands.door import door, require_writable

BUSY = 0.5
"""Load average of the last minute, for each core, above which the numbers are not to be relied on."""


@dataclass(frozen=True)
class Args:
    """Measure the engine, the network (core), sampling and training (rollout), the time until a policy is
    strong (strength), adaptive depth (ponder), token sequences (autoregressive), Gymnasium tasks (torso) or
    other networks of the same size in the policy (torsos) on this machine.

    With the extra `bench` the engine is measured beside SMAX, and the network beside transformers and
    perceiver-pytorch; either takes about a quarter of an hour. The torso's tasks need the extra `gym`."""

    subject: tyro.conf.Positional[
        Literal["engine", "core", "rollout", "strength", "ponder", "autoregressive", "torso", "torsos"]
    ]
    """What to measure."""
    scenario: tuple[str, ...] = ("3m",)
    """Of strength and torsos: where."""
    seeds: int = 5
    """Of strength and torsos: how many train, each torso as many."""
    changes: tuple[str, ...] = ()
    """Of strength and torsos: options of train that differ from the suite's or, of torsos, from train's own,
    such as evaluation_interval=2."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where to write the rows; the file appears whole or not at all. A plot goes beside it, as FILE.png."""


def run(args: Args) -> int:
    """Measure, print the rows and write them."""
    with door():
        require_writable(args.json)
        command = f"perceiver-policy benchmark {args.subject}"
        options: dict[str, Any] = {}
        if args.subject in _TRAINING:
            more = ["--scenario", *args.scenario, "--seeds", str(args.seeds)]
            more += ["--changes", *args.changes] if args.changes else []
            command = f"{command} {shlex.join(more)}"
            options = {"configs": _configs(args)}
        else:
            _refuse_trainings_own(args)
    rows: list[Row] = []
    log = Console(stderr=True)
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > BUSY * cores:
        busy = f"the machine is busy (load {load:.1f} on {cores} cores); measure when it is idle"
        log.print(f"note: {busy}", highlight=False, markup=False, soft_wrap=True)
    benchmark = importlib.import_module(f"training.benchmark.{args.subject}")
    for row in benchmark.measure(command, **options):
        rows.append(row)
        if CURVE not in row.name:
            log.print(_line(row), highlight=False, markup=False, soft_wrap=True, style="dim")
    console = Console()
    console.print(_table([row for row in rows if CURVE not in row.name]))
    for absent in dict.fromkeys(row.rival_name for row in rows if row.rival is None and row.rival_name):
        console.print(absent, highlight=False, markup=False)
    console.print(f"{command}   on {cores} cores, {platform.machine()}", highlight=False, markup=False)
    if args.json is not None:
        write_whole(args.json, (json.dumps([row.to_dict() for row in rows], indent=2) + "\n").encode())
        if hasattr(benchmark, "plot") and (reason := benchmark.plot(rows, args.json.with_suffix(".png"))):
            log.print(reason, highlight=False, markup=False)
    return 0


_TRAINING = ("strength", "torsos")
"""What trains whole jobs, on scenarios and seeds to be chosen."""


def _configs(args: Args) -> list[Any]:
    """The jobs, checked before any begins."""
    if len(set(args.scenario)) < max(len(args.scenario), 1):
        raise ValueError(f"--scenario is {' '.join(args.scenario)!r}; give one or more, each once")
    # torch and Ray take seconds
    if args.subject == "torsos":
        from training.benchmark.torsos import torso_configs

        return torso_configs(args.scenario, args.seeds, args.changes)
    from training.benchmark.strength import strength_configs

    return [
        config
        for scenario in args.scenario
        for config in strength_configs(scenario, args.seeds, args.changes)
    ]


def _refuse_trainings_own(args: Args) -> None:
    for field in fields(Args):
        if field.name in ("scenario", "seeds", "changes") and getattr(args, field.name) != field.default:
            raise ValueError(f"--{field.name} is for strength and torsos; leave it out with {args.subject}")


def _line(row: Row) -> str:
    """What is said as soon as a row is there; measuring all of them takes minutes."""
    rival = "" if row.rival is None else f"; {row.rival_name}: {_number(row.rival)}"
    return f"{row.name}: {_number(row.ours)} {row.unit}{rival}"


def _table(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    compares = any(row.rival is not None for row in rows)
    table.add_column("name", overflow="fold")
    for column in ("ours", "spread", *(("rival", "ratio") if compares else ())):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for row in rows:
        cells = [row.name, _number(row.ours), f"{row.spread:.0%}"]
        if compares:
            cells += ["" if row.rival is None else _number(row.rival)]
            cells += ["" if row.ratio is None else f"{row.ratio:.2f}"]
        table.add_row(*cells, row.unit)
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
