"""What a finished run on a mixture is told: each scenario as a run on it alone would be, and what that comes
to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from envs.battle.batch import Control
from envs.battle.tactics import DEFAULT
from envs.battle.whole_file import write_whole
from envs.scenarios import load_scenario
from training.evaluate import EvaluationResult
from training.mixture import parse_mixture
from training.mixture_result import MixtureResult
from training.report import RESULT_FILE, Examination, Report, where_to_find
from training.results import result_table


@dataclass(frozen=True)
class MixtureReport:
    """A finished run on several scenarios in numbers."""

    scenarios: Mapping[str, Report]
    """By scenario's name."""
    elsewhere: Mapping[str, EvaluationResult]
    """The same weights on scenarios that were not trained on, by name."""

    @property
    def greedy(self) -> MixtureResult:
        """The policy's results, over all scenarios."""
        return MixtureResult({name: report.greedy for name, report in self.scenarios.items()})

    def to_dict(self) -> dict[str, Any]:
        """For ``result.json``: the mean, and each scenario as a run on it alone has it."""
        return {
            "mixture": self.greedy.summary(),
            "scenarios": {name: report.to_dict() for name, report in self.scenarios.items()},
            "other_scenarios": {name: result.summary() for name, result in self.elsewhere.items()},
        }


def finish_mixture(
    run_dir: Path,
    *,
    scenario: str | tuple[str, ...],
    opponent: str = DEFAULT,
    control: Control | str | None = None,
    swap_sides: bool | None = None,
    games: int = 1000,
    seed: int = 0,
    command: str = "",
    training: dict[str, Any] | None = None,
    console: Console | None = None,
) -> MixtureReport:
    """As :func:`~training.report.finish_run`, for each scenario of a mixture; the battle is of the worst.

    Args:
        scenario: the mixture, as for :func:`~training.mixture.parse_mixture`.
        run_dir, opponent, control, swap_sides, games, seed, command, training, console: as there; ``games``
            on each scenario.

    Raises:
        ExportError: there is no policy that can be loaded.
    """
    console = console or Console()
    exam = Examination(run_dir, opponent, control=control, swap_sides=swap_sides, games=games, seed=seed)
    names = list(parse_mixture(scenario))
    reports = {}
    for name in names:
        with console.status(f"playing {games} battles of {name} with every agent"):
            reports[load_scenario(name).name] = exam.report(name)
    with console.status("playing elsewhere"):
        report = MixtureReport(reports, exam.elsewhere(names))
        spelled = dict(zip(reports, names, strict=True))
        shown = exam.record(spelled[report.greedy.worst.scenario])
    console.print(_table(report))
    if report.elsewhere:
        title = f"The same weights on other scenarios, {games} battles against {DEFAULT}"
        console.print(result_table(title, report.elsewhere))
    console.print("\n".join(where_to_find(run_dir, shown)), highlight=False, markup=False, soft_wrap=True)
    content = report.to_dict() | {"command": command, "training": training or {}}
    write_whole(run_dir / RESULT_FILE, (json.dumps(content, indent=2) + "\n").encode())
    return report


def _table(report: MixtureReport) -> Table:
    first = next(iter(report.scenarios.values())).greedy
    title = f"One policy on the embedded simulator, {first.games} fresh battles each against {first.opponent}"
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("scenario", overflow="fold")
    for column in ("won %", "95 % interval", "sampled", "best script", "won %", "95 % interval", ""):
        table.add_column(column, justify="left" if column == "best script" else "right")
    for name, one in report.scenarios.items():
        best = one.scripts[one.best_script]
        apart = one.greedy.interval[0] > best.interval[1]
        cells = (*_won(one.greedy), f"{100 * one.sampled.mean:.1f}", one.best_script, *_won(best))
        table.add_row(escape(name), *cells, "above" if apart else "")
    low, high = report.greedy.interval
    table.add_section()
    table.add_row("mean", f"{100 * report.greedy.mean:.1f}", f"{100 * low:.1f} to {100 * high:.1f}")
    return table


def _won(result: EvaluationResult) -> tuple[str, str]:
    low, high = result.interval
    return f"{100 * result.mean:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"
