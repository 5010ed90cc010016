"""A suite's standings as tables: for the console, and in Markdown for a page."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from training.benchmark.calibration import SCRIPTS
from training.suite.standings import Rate, Standing


def console_table(title: str, standings: Sequence[Standing]) -> Table:
    """A row a scenario: the policy, the best script, the verdict, what training took."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("scenario", no_wrap=True)
    for column in ("won %", "95 % interval", "best script", "its %", "verdict", "steps", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in standings:
        low, high = one.policy.interval
        best = one.scripts[one.best_script]
        table.add_row(
            one.scenario,
            _percent(one.policy.share),
            f"{_percent(low)} to {_percent(high)}",
            one.best_script,
            _percent(best.share),
            one.verdict.value,
            _steps(one),
            f"{one.train_seconds:,.0f}",
            style=None if one.reached else "yellow",
        )
    return table


def markdown(standings: Sequence[Standing], *, command: str, processes: int, seconds: float | None) -> str:
    """The standings as a page's section.

    Args:
        standings: one or more.
        command: what made them.
        processes: jobs at a time.
        seconds: wall time of training and evaluation; None: not known.
    """
    games = standings[0].policy.games
    wall = "" if seconds is None else f", {seconds / 60:.0f} minutes"
    head = ["scenario", "policy", *SCRIPTS, "verdict", "steps", "train s"]
    lines = [
        f"`{command}`, {processes} jobs at a time{wall}. Won %, {games:,} battles each, the same for all of a"
        " row, with Wilson 95 % intervals; the best script in bold.",
        "",
        _row(head),
        _row(["---", *["---:"] * (len(head) - 1)]),
    ]
    for one in standings:
        scripts = [_cell(one.scripts[name], bold=name == one.best_script) for name in SCRIPTS]
        policy = _cell(one.policy, bold=False)
        took = [_steps(one), f"{one.train_seconds:,.0f}"]
        lines.append(_row([f"`{one.scenario}`", policy, *scripts, one.verdict.value, *took]))
    return "\n".join([*lines, "", summary(standings)]) + "\n"


def summary(standings: Sequence[Standing]) -> str:
    """One sentence: how many are reached, and which are not."""
    count = sum(one.reached for one in standings)
    text = f"Above the best script with intervals apart, or both at 1.00, on {count} of {len(standings)}."
    short = [f"{one.scenario} ({one.verdict.value})" for one in standings if not one.reached]
    return f"{text} Not on {', '.join(short)}." if short else text


def _steps(one: Standing) -> str:
    """Environment steps, after the name of the run they were added to."""
    return " + ".join([*(ancestor.name for ancestor in one.started_from[-1:]), f"{one.env_steps:,}"])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(rate: Rate, *, bold: bool) -> str:
    low, high = rate.interval
    text = f"{_percent(rate.share)} [{100 * low:.0f}, {100 * high:.0f}]"
    return f"**{text}**" if bold else text


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
