"""What a finished run is told and shows: win rates or scores beside every script's, and a battle to look at.

All agents play the same battles, none of which training has seen. The run folder gets ``result.json`` (the
policy's greedy result, with sampled orders, scripts and other scenarios beside it), ``replay.jsonl``,
``battle.html`` and ``battle.gif``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from agents.base import Agent
from agents.learned import LearnedAgent
from agents.roster import load_opponent
from agents.scripted import ScriptedAgent, baselines
from envs.battle.batch import Control
from envs.battle.replay import record_battle
from envs.battle.tactics import DEFAULT
from envs.battle.whole_file import write_whole
from envs.scenarios import load_scenario
from training.battle_record import ShownBattle, show_replay
from training.evaluate import EvaluationResult, evaluate, paired_p_value
from training.results import result_table
from training.trained_as import trained_as

ELSEWHERE = ("3m", "8m", "27m_vs_30m")
"""Scenarios that every policy is tried on, whatever it was trained on."""
RESULT_FILE = "result.json"


@dataclass(frozen=True)
class Report:
    """A finished run in numbers."""

    greedy: EvaluationResult
    sampled: EvaluationResult
    scripts: dict[str, EvaluationResult]
    """Every script on the same battles, by name."""
    elsewhere: dict[str, EvaluationResult]
    """The same weights on other scenarios against attack-move, SMAC's enemy, by scenario."""

    @property
    def best_script(self) -> str:
        """The script that wins or scores most."""
        return max(self.scripts, key=lambda name: self.scripts[name].mean)

    def to_dict(self) -> dict[str, Any]:
        """For ``result.json``: the greedy result, and the others under keys of their own."""
        return self.greedy.to_dict() | {
            "sampled": self.sampled.summary(),
            "scripts": {
                name: result.summary() | {"paired_p_value": paired_p_value(self.greedy, result)}
                for name, result in self.scripts.items()
            },
            "other_scenarios": {name: result.summary() for name, result in self.elsewhere.items()},
        }


def finish_run(
    run_dir: Path,
    *,
    scenario: str,
    opponent: str = DEFAULT,
    control: Control | str | None = None,
    swap_sides: bool | None = None,
    games: int = 1000,
    seed: int = 0,
    command: str = "",
    training: dict[str, Any] | None = None,
    console: Console | None = None,
) -> Report:
    """Evaluate the policy in ``run_dir/policy``, record a battle, print and write what came out.

    Args:
        run_dir: the run's folder.
        scenario, opponent: what was trained on.
        control, swap_sides: as for :func:`~training.evaluate.evaluate`; default: as the policy was trained,
            by its export. Other scenarios are not played from sides that differ.
        games: battles of each evaluation.
        seed: of the evaluations.
        command: what produced the run, for the result file.
        training: anything JSON about the training, for the result file.
        console: where to print; default: standard output.

    Raises:
        ExportError: there is no policy that can be loaded.
    """
    console = console or Console()
    exam = Examination(run_dir, opponent, control=control, swap_sides=swap_sides, games=games, seed=seed)
    with console.status(f"playing {games} battles with every agent"):
        report = exam.report(scenario)
        report.elsewhere.update(exam.elsewhere([scenario]))
        shown = exam.record(scenario)
    _print(console, report, run_dir, shown)
    content = report.to_dict() | {"command": command, "training": training or {}}
    write_whole(run_dir / RESULT_FILE, (json.dumps(content, indent=2) + "\n").encode())
    return report


class Examination:
    """Plays a run's policy and the scripts on scenarios; the arguments are those of :func:`finish_run`."""

    def __init__(
        self,
        run_dir: Path,
        opponent: str,
        *,
        control: Control | str | None,
        swap_sides: bool | None,
        games: int,
        seed: int,
    ) -> None:
        policy = LearnedAgent(run_dir / "policy").policy
        self.greedy = LearnedAgent(policy, name="policy")
        self.sampled = LearnedAgent(policy, name="policy", deterministic=False)
        self.opponent = load_opponent(opponent)
        trained = trained_as(run_dir)
        self.control = Control(control or trained.control)
        self.swap_sides = trained.swap_sides(swap_sides)
        self.run_dir, self.games, self.seed = run_dir, games, seed

    def report(self, scenario: str) -> Report:
        """Of a scenario that was trained on; nothing is played elsewhere."""
        swap = self.swap_sides

        def play(agent: Agent) -> EvaluationResult:
            return self._play(agent, scenario, self.opponent, swap)

        scripts = {name: play(ScriptedAgent(name)) for name in baselines(load_scenario(scenario))}
        return Report(play(self.greedy), play(self.sampled), scripts, elsewhere={})

    def elsewhere(self, trained_on: Sequence[str]) -> dict[str, EvaluationResult]:
        """The greedy policy on those of :data:`ELSEWHERE` that it was not trained on."""
        swap = None if self.swap_sides else self.swap_sides  # the sides may differ there
        names = [name for name in ELSEWHERE if name not in trained_on]
        return {name: self._play(self.greedy, name, DEFAULT, swap) for name in names}

    def record(self, scenario: str) -> ShownBattle:
        """A battle of the greedy policy's, with its pictures."""
        path = self.run_dir / "replay.jsonl"
        players = (self.greedy, self.opponent)
        record_battle(path, load_scenario(scenario), players, seed=0, control=self.control)
        return show_replay(path)

    def _play(self, agent: Agent, on: str, against: Agent | str, swap: bool | None) -> EvaluationResult:
        return evaluate(
            agent, against, on, games=self.games, seed=self.seed, control=self.control, swap_sides=swap
        )


def _print(console: Console, report: Report, run_dir: Path, shown: ShownBattle) -> None:
    greedy, best = report.greedy, report.scripts[report.best_script]
    rows = {"policy, greedy": greedy, "policy, sampled": report.sampled}
    rows |= {f"scripted:{name}": result for name, result in report.scripts.items()}
    title = f"{greedy.scenario} on the embedded simulator, {greedy.games} fresh battles"
    console.print(result_table(f"{title} against {greedy.opponent}", rows))
    title = f"The same weights on other scenarios, {greedy.games} battles against {DEFAULT}"
    console.print(result_table(title, report.elsewhere))
    above = greedy.interval[0] > best.interval[1]
    verdict = "lies above" if above else "does not lie above"
    lines = [
        f"The policy's interval {verdict} that of the best script, {report.best_script}.",
        *where_to_find(run_dir, shown),
    ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def where_to_find(run_dir: Path, shown: ShownBattle) -> list[str]:
    """What a finished run has left, a line each."""
    return [
        f"result   {run_dir / RESULT_FILE}",
        f"policy   {run_dir / 'policy'}",
        f"battle   {shown.page} and {shown.film.name}: {shown.ending}",
        f"curves   {_program('tensorboard')} --logdir {run_dir / 'tensorboard'}",
    ]


def _program(name: str) -> str:
    """How to call a program installed beside this one: by name if that finds it, else by its path."""
    return name if shutil.which(name) else os.path.relpath(Path(sys.executable).with_name(name))
