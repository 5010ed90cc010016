"""``perceiver-policy doctor``: is everything there, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.doctor import Status, examine, next_step

_COLORS = {Status.GOOD: "green", Status.NOTE: "yellow", Status.BAD: "red"}


@dataclass(frozen=True)
class Args:
    """Check the installation: Python, packages, the simulator's compilation, Ray, pysc2, StarCraft II."""


def run(_: Args) -> int:
    """Print what was found; 1 if something that is needed does not work."""
    checks = examine()
    table = Table(show_header=False, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for check in checks:
        table.add_row(check.name, f"[{_COLORS[check.status]}]{check.status.value}[/]", escape(check.detail))
    console = Console()
    console.print(table)
    console.print(f"Next: {next_step(checks)}", highlight=False, markup=False)
    return int(any(check.status is Status.BAD for check in checks))
