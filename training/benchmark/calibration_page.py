"""The calibration's tables in Markdown, and the place in a page where they go.

A page holds the two marker lines; what stands between them is replaced, what stands around them is prose that
people write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.roster import SCRIPTED
from envs.battle.tactics import HELD_OUT, Tactic
from training.benchmark.calibration import GENERATED_SCRIPTS, SCRIPTS, TACTICS_ON, Part, Played
from training.benchmark.orderings import Check, Claim, Verdict
from training.evaluate import EvaluationResult, wilson

BEGIN = "<!-- calibration: begin -->"
END = "<!-- calibration: end -->"

PUBLISHED_SCORES: Mapping[str, tuple[int, int, int, int, int]] = {
    "move_to_beacon": (1, 26, 28, 26, 27),
    "collect_mineral_shards": (17, 133, 177, 103, 196),
    "find_and_defeat_zerglings": (4, 46, 61, 45, 62),
    "defeat_roaches": (1, 41, 215, 100, 303),
    "defeat_zerglings_and_banelings": (23, 729, 727, 62, 736),
}
"""In StarCraft II itself, means: random policy, a human, a grandmaster and the best FullyConv agent (Vinyals
et al. 2017, arXiv 1708.04782, table 1), and relational deep RL's control agent (Zambaldi et al. 2019)."""
PUBLISHED_SMACV2: Mapping[str, tuple[float, float, float]] = {
    "protoss_5v5": (0.71, 0.57, 0.07),
    "protoss_10v10": (0.71, 0.61, 0.04),
    "protoss_20v20": (0.71, 0.40, 0.03),
    "protoss_10v11": (0.41, 0.19, 0.00),
    "protoss_20v23": (0.17, 0.06, 0.00),
    "terran_5v5": (0.62, 0.53, 0.12),
    "terran_10v10": (0.67, 0.57, 0.04),
    "terran_20v20": (0.56, 0.52, 0.01),
    "terran_10v11": (0.39, 0.28, 0.02),
    "terran_20v23": (0.10, 0.10, 0.00),
    "zerg_5v5": (0.40, 0.43, 0.07),
    "zerg_10v10": (0.41, 0.40, 0.05),
    "zerg_20v20": (0.31, 0.34, 0.02),
    "zerg_10v11": (0.26, 0.29, 0.02),
    "zerg_20v23": (0.09, 0.16, 0.01),
}
"""In StarCraft II itself, win rates at 10 million steps of QMIX, MAPPO and a MAPPO that sees only the time
(open loop), from the results that SMACv2's authors publish with their code (Ellis et al. 2023)."""

_HEADINGS = {
    Part.MISSIONS: "Missions: mean score",
    Part.SMAC: "SMAC's scenarios against attack-move: won %",
    Part.SMACV2: "SMACv2's scenarios against attack-move: won %",
    Part.MIRRORS: "Players against themselves: won by the first side, of what was decided, %",
    Part.TACTICS: "The engine's players against each other: won %",
}


def page_text(page: Path) -> str:
    """A page, read.

    Raises:
        ValueError: it lacks the markers, or has them in the wrong order.
        OSError: it cannot be read.
    """
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{page}: the tables go between the lines {BEGIN} and {END}; put each in once")
    return text


def with_tables(text: str, tables: str) -> str:
    """A page's text with other tables between the markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables.strip()}\n\n{END}{after}"


def render(played: Sequence[Played], checks: Sequence[Check], provenance: Mapping[str, Any]) -> str:
    """All tables of what was played."""
    makers = {
        Part.MISSIONS: _missions,
        Part.SMAC: lambda results: _scripts_table(results, SCRIPTS),
        Part.SMACV2: _smacv2,
        Part.MIRRORS: _mirrors,
        Part.TACTICS: _tactics,
    }
    parts = [_stamp(played, provenance)]
    for part, make in makers.items():
        results = [one.result for one in played if one.match.part is part]
        if results:
            parts += [f"## {_HEADINGS[part]}", make(results)]
    if checks:
        parts += ["## What the rules imply", _checks(checks)]
    return "\n\n".join(parts)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table whose first ``words`` columns are words and the others numbers."""
    rule = ["---" if column < words else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def _stamp(played: Sequence[Played], provenance: Mapping[str, Any]) -> str:
    battles = sum(one.result.games for one in played)
    return (
        f"{battles:,} battles; engine `{provenance['engine'][:12]}`, unit table "
        f"`{provenance['unit_table'][:12]}`. In brackets: 95 % intervals."
    )


def _script(result: EvaluationResult) -> str:
    return result.agent.removeprefix(SCRIPTED)


def _percent(wins: int, games: int) -> str:
    """With Wilson's interval."""
    low, high = wilson(wins, games)
    return f"{100 * wins / games:.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def _missions(results: Sequence[EvaluationResult]) -> str:
    rows = []
    for result in results:
        low, high = result.interval
        score = f"{result.mean:.1f} [{low:.1f}, {high:.1f}]"
        published = (str(number) for number in PUBLISHED_SCORES[result.scenario])
        rows.append((f"`{result.scenario}`", _script(result), score, str(result.games), *published))
    header = ("mission", "script", "score here", "games", "random", "human", "GM", "FullyConv", "relational")
    return (
        "The five columns to the right are published means in the game itself.\n\n"
        f"{markdown_table(header, rows, words=2)}"
    )


def _by_scenario(results: Sequence[EvaluationResult]) -> dict[str, dict[str, EvaluationResult]]:
    """By scenario, then by script, in the order played."""
    table: dict[str, dict[str, EvaluationResult]] = {}
    for result in results:
        table.setdefault(result.scenario, {})[_script(result)] = result
    return table


def _scripts_table(results: Sequence[EvaluationResult], scripts: Sequence[str]) -> str:
    """A row a scenario, a column a script; the best in bold; means below."""
    table = _by_scenario(results)
    rows = []
    for scenario, by_script in table.items():
        best = max(result.wins for result in by_script.values())
        cells = [_percent(by_script[script].wins, by_script[script].games) for script in scripts]
        bold = [best > 0 and by_script[script].wins == best for script in scripts]
        rows.append(
            (
                f"`{scenario}`",
                *(f"**{cell}**" if is_best else cell for cell, is_best in zip(cells, bold, strict=True)),
            )
        )
    means = [float(np.mean([line[script].win_rate for line in table.values()])) for script in scripts]
    rows.append((f"mean of {len(table)}", *(f"{100 * mean:.1f}" for mean in means)))
    return f"{results[0].games} battles a cell.\n\n{markdown_table(('scenario', *scripts), rows)}"


def _smacv2(results: Sequence[EvaluationResult]) -> str:
    ours = _scripts_table(results, GENERATED_SCRIPTS)
    names = dict.fromkeys(result.scenario.removeprefix("smacv2_") for result in results)
    rows = [(name, *(f"{100 * rate:.0f}" for rate in PUBLISHED_SMACV2[name])) for name in names]
    published = markdown_table(("published, won %", "QMIX", "MAPPO", "open loop"), rows)
    return f"{ours}\n\nIn the game itself, after 10 million steps:\n\n{published}"


def _mirrors(results: Sequence[EvaluationResult]) -> str:
    table = _by_scenario(results)
    players = list(dict.fromkeys(_script(result) for result in results))
    rows = []
    for scenario, by_player in table.items():
        cells = []
        for player in players:
            result = by_player.get(player)
            decided = result.wins + result.losses if result is not None else 0
            cells.append(_percent(result.wins, decided) if result is not None and decided else "-")
        rows.append((f"`{scenario}`", *cells))
    most, least = max(result.games for result in results), min(result.games for result in results)
    games = (
        f"{most} battles a cell" if most == least else f"{most} battles a cell, {least} of the largest teams"
    )
    return f"{games}.\n\n{markdown_table(('scenario', *players), rows)}"


def _tactics(results: Sequence[EvaluationResult]) -> str:
    """A payoff table a scenario: the row's player against the column's."""
    labels = [tactic.label for tactic in Tactic]
    held_out = {tactic.label for tactic in HELD_OUT}
    names = [f"{label} (held out)" if label in held_out else label for label in labels]
    parts = []
    for scenario in TACTICS_ON:
        pairs = {(one.agent, one.opponent): one for one in results if one.scenario == scenario}
        if not pairs:
            continue
        rows = []
        for name, row in zip(names, labels, strict=True):
            rates = [pairs[row, column].win_rate for column in labels]
            others = [rate for rate, column in zip(rates, labels, strict=True) if column != row]
            rows.append((name, *(f"{100 * rate:.0f}" for rate in [*rates, float(np.mean(others))])))
        games = next(iter(pairs.values())).games
        title = f"### `{scenario}`: the row's player has the first side, {games} battles a cell"
        parts += [title, markdown_table(("", *labels, "mean of others"), rows)]
    return "\n\n".join(parts)


def _checks(checks: Sequence[Check]) -> str:
    rows = []
    for claim in Claim:
        of_claim = [check for check in checks if check.claim is claim]
        if of_claim:
            counts = (sum(check.verdict is verdict for check in of_claim) for verdict in Verdict)
            rows.append((claim.value, *(str(count) for count in counts)))
    table = markdown_table(("claim", *(verdict.value for verdict in Verdict)), rows)
    departures = [
        f"- {check.claim}: `{check.scenario}`, {check.who}: {check.numbers}"
        for check in checks
        if check.verdict is Verdict.DEPARTS
    ]
    listed = "\n".join(departures) if departures else "- none"
    return f"{table}\n\nDepartures:\n\n{listed}"
