"""``perceiver-policy benchmark``: measure one of the project's parts."""

from __future__ import annotations

import importlib
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from envs.battle.whole_file import write_whole
from training.benchmark.rows import Row
from training.commands.door import door, require_writable


@dataclass(frozen=True)
class Args:
    """Measure the engine, the network (core) or sampling and training (rollout) on this machine."""

    subject: tyro.conf.Positional[Literal["engine", "core", "rollout"]]
    """What to measure."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where to write the rows; the file appears whole or not at all."""


def run(args: Args) -> int:
    """Measure, print the rows and write them."""
    with door():
        require_writable(args.json)
    command = f"perceiver-policy benchmark {args.subject}"
    rows: list[Row] = importlib.import_module(f"training.benchmark.{args.subject}").measure(command)
    console = Console()
    console.print(_table(rows))
    console.print(
        f"{command}   on {os.cpu_count()} cores, {platform.machine()}", highlight=False, markup=False
    )
    if args.json is not None:
        write_whole(args.json, (json.dumps([row.to_dict() for row in rows], indent=2) + "\n").encode())
    return 0


def _table(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    compares = any(row.rival is not None for row in rows)
    table.add_column("name", no_wrap=True)
    for column in ("ours", "spread", *(("rival", "ratio") if compares else ())):
        table.add_column(column, justify="right")
    table.add_column("unit", no_wrap=True)
    for row in rows:
        cells = [row.name, _number(row.ours), f"{row.spread:.0%}"]
        if compares:
            rival = "" if row.rival is None else f"{_number(row.rival)} ({row.rival_name})"
            cells += [rival, "" if row.ratio is None else f"{row.ratio:.2f}"]
        table.add_row(*cells, row.unit)
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
