"""A report as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.evaluate import EvaluationResult, Measure, paired_p_value
from training.protocol.aggregates import Estimate
from training.protocol.report import SIGNIFICANT, Report, over_runs

_SMACV2 = "smacv2_"


def print_report(console: Console, report: Report) -> None:
    """All tables, and notes on what is missing."""
    for table in (_scenarios(report), _aggregates(report), _unseen(report), _elsewhere(report)):
        if table is not None:
            console.print(table)
    for line in (*_improvements(report), *_notes(report)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _scenarios(report: Report) -> Table:
    games = report.plan.games
    table = _table(
        f"The best policies, mean over runs [95 %]; and {games} battles beside the best script",
        ("scenario", "algorithm"),
        ("runs", "won % or score", "best script", "its", "runs above it"),
    )
    for scenario in report.scenarios:
        for algorithm in report.algorithms:
            places = report.places(algorithm, scenario)
            if not places:
                continue
            best = report.best_script(places[0])
            script = ("–", "–", "–")
            if best is not None:
                above = sum(_above(report.played.compared[i], best[1]) for i in places)
                script = (best[0], _single(best[1]), f"{above} of {len(places)}")
            results = [report.played.absolute[i] for i in places]
            name = f"{algorithm} (open loop)" if report.runs[places[0]].open_loop else algorithm
            table.add_row(escape(scenario), escape(name), str(len(places)), _several(results), *script)
    return table


def _aggregates(report: Report) -> Table | None:
    if not report.tasks:
        return None
    table = _table(
        f"Win rates over {', '.join(report.tasks)} [95 %, bootstrap over runs]",
        ("algorithm",),
        ("IQM", "mean", "median", "optimality gap"),
    )
    for algorithm, values in report.aggregates.items():
        table.add_row(escape(algorithm), *(_estimate(value) for value in values.values()))
    return table


def _unseen(report: Report) -> Table | None:
    """Robustness to scripts that training did not meet."""
    return _side_by_side(
        report,
        f"Against players no training meets, {report.plan.games} battles each, mean over runs [95 %]",
        "own opponent",
        [report.played.unseen[i] for i in range(len(report.runs))],
        list(report.plan.unseen),
    )


def _elsewhere(report: Report) -> Table | None:
    """The same weights on scenarios they were not trained on."""
    where = list(dict.fromkeys(name for played in report.played.elsewhere.values() for name in played))
    table = _side_by_side(
        report,
        f"The same weights elsewhere, {report.plan.games} battles each against attack-move, mean over runs "
        "[95 %]",
        "at home",
        [report.played.elsewhere[i] for i in range(len(report.runs))],
        where,
    )
    if table is not None and report.plan.scripts:
        control = report.runs[0].config.control
        best = [report.best_script_of(name, control) for name in where]
        cells = [f"{script[0]} {_single(script[1])}" if script else "–" for script in best]
        table.add_row("", "best script there", "", *cells)
    return table


def _side_by_side(
    report: Report,
    title: str,
    own: str,
    others: Sequence[dict[str, EvaluationResult]],
    columns: Sequence[str],
) -> Table | None:
    """A row for each algorithm and scenario: at home, and in each column."""
    if not columns or not any(others):
        return None
    table = _table(title, ("trained on", "algorithm"), (own, *columns))
    for scenario in report.scenarios:
        for algorithm in report.algorithms:
            places = report.places(algorithm, scenario)
            if not places:
                continue
            cells = [_several([report.played.compared[i] for i in places])]
            for column in columns:
                results = [others[i][column] for i in places if column in others[i]]
                cells.append(_several(results) if results else "–")
            table.add_row(escape(scenario), escape(algorithm), *cells)
    return table


def _improvements(report: Report) -> Iterator[str]:
    if not report.tasks:
        return
    for (x, y), value in report.improvements.items():
        chance = _estimate(value, 1, 2, bracket="[")
        yield f"A run of {x} does better than one of {y} with probability {chance}"


def _notes(report: Report) -> Iterator[str]:
    left_out = [scenario for scenario in report.scenarios if scenario not in report.tasks]
    if left_out:
        yield (
            f"Not in the aggregates: {', '.join(left_out)} (a mission, or without a run of every algorithm)"
        )
    if any(len(report.places(name, task)) < 2 for name in report.algorithms for task in report.tasks):
        yield "Intervals over runs need two runs of every algorithm on every scenario"
    seen = {run.scenario for run in report.runs if run.open_loop}
    for scenario in report.scenarios:
        if scenario.startswith(_SMACV2) and scenario not in seen:
            yield (
                f"{scenario} has no open-loop baseline; train one with: perceiver-policy train --scenario "
                f"{scenario} --model-overrides sight=time --run-dir FOLDER"
            )


def _above(policy: EvaluationResult, script: EvaluationResult) -> bool:
    """Whether the policy does better on the same seeds, by more than chance."""
    return policy.mean > script.mean and paired_p_value(policy, script) < SIGNIFICANT


def _several(results: Sequence[EvaluationResult]) -> str:
    return _estimate(over_runs(results), 1 if results[0].measure is Measure.SCORE else 100)


def _single(result: EvaluationResult) -> str:
    return f"{result.mean:.1f}" if result.measure is Measure.SCORE else f"{100 * result.mean:.1f}"


def _estimate(value: Estimate, scale: float = 100, digits: int = 1, bracket: str = "\\[") -> str:
    said = f"{scale * value.value:.{digits}f}"
    if value.low is None or value.high is None:
        return said
    return f"{said} {bracket}{scale * value.low:.{digits}f}, {scale * value.high:.{digits}f}]"


def _table(title: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(escape(name), justify="right")
    return table
