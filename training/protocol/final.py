"""The battles that a report is made of, played once: what was played before is read back.

Everybody plays the same seeds, so that any two can be compared in pairs. Evaluations are kept in
``evaluations/final/`` of the run, under what they depend on: agent, opponent, scenario, engine, games, seed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agents.base import Agent
from agents.learned import LearnedAgent
from agents.roster import load_opponent, policy_folder
from agents.scripted import ScriptedAgent, baselines
from envs.battle.compiled import engine_digest
from envs.battle.tactics import DEFAULT, HELD_OUT, is_engine_player
from envs.scenarios import load_scenario
from training.checkpoint_policy import POLICY
from training.evaluate import EvaluationResult, evaluate
from training.protocol.records import RecordError, load_evaluation, save_evaluation
from training.protocol.runs import Run
from training.trained_as import trained_as

UNSEEN = tuple(tactic.label for tactic in HELD_OUT)
"""The engine's players that no training meets: SMAC-HARD's black box."""
ABSOLUTE = 10
"""Times as many battles of the best policy as of an evaluation in training (Gorsane et al., 2022)."""
_LINE_S = 10.0
"""Seconds between lines where there is no terminal."""


@dataclass(frozen=True)
class Plan:
    """What is played when training is over."""

    absolute_games: int | None = None
    """Battles of each best policy for the absolute metrics; None: ten times an evaluation's in training."""
    games: int = 1000
    """Battles of everything else: black box, other scenarios, scripts, and the policy beside them."""
    seed: int = 1
    """From which the battles' seeds derive."""
    unseen: tuple[str, ...] = UNSEEN
    """Opponents that training did not meet."""
    elsewhere: tuple[str, ...] = ()
    """Scenarios that no weight was trained on."""
    scripts: bool = True
    """Whether every scripted agent plays, too."""


@dataclass
class Played:
    """All that was played, by run (its place in the list) and by what was asked."""

    absolute: dict[int, EvaluationResult] = field(default_factory=dict)
    """On its own scenario against its own opponent."""
    compared: dict[int, EvaluationResult] = field(default_factory=dict)
    """The same with the games and seeds of the scripts."""
    unseen: dict[int, dict[str, EvaluationResult]] = field(default_factory=dict)
    """By opponent."""
    elsewhere: dict[int, dict[str, EvaluationResult]] = field(default_factory=dict)
    """By scenario, against attack-move."""
    scripts: dict[tuple[str, str, str], dict[str, EvaluationResult]] = field(default_factory=dict)
    """By scenario, opponent and control, by script."""


def prepare(runs: Sequence[Run], plan: Plan) -> Evaluations:
    """All that is to be played.

    Raises:
        ValueError: an opponent or a scenario is unknown, or the plan's numbers are out of range.
    """
    todo = Evaluations(plan)
    played = todo.played
    for place, run in enumerate(runs):
        scenario, opponent, control = run.scenario, run.config.opponent, run.config.control
        own = run.config.only_scenario
        absolute = plan.absolute_games or ABSOLUTE * run.config.evaluation_games
        todo.add(
            run, run.config.only_scenario, opponent, partial(played.absolute.__setitem__, place), absolute
        )
        todo.add(run, own, opponent, partial(played.compared.__setitem__, place))
        fights = load_scenario(own).teams[1].size > 0
        unseen = played.unseen[place] = {}
        for other in plan.unseen if fights else ():
            todo.add(run, own, other, partial(unseen.__setitem__, other))
        elsewhere = played.elsewhere[place] = {}
        for other in plan.elsewhere:
            if load_scenario(other).name != scenario:
                todo.add(run, other, DEFAULT, partial(elsewhere.__setitem__, load_scenario(other).name))
        asked = [(own, opponent), *((other, DEFAULT) for other in plan.elsewhere)]
        for where, against in asked if plan.scripts else ():
            key = (load_scenario(where).name, against, control)
            if key in played.scripts:
                continue
            scripts = played.scripts[key] = {}
            for script in baselines(load_scenario(where)):
                todo.add_script(run, script, where, against, partial(scripts.__setitem__, script))
    return todo


@dataclass(frozen=True)
class _Task:
    """An evaluation to be made or read."""

    said: str
    path: Path
    depends_on: dict[str, str]
    play: Callable[[], EvaluationResult]
    keep: Callable[[EvaluationResult], None]


class Evaluations:
    """Evaluations, checked as they are added and made when all are there."""

    def __init__(self, plan: Plan) -> None:
        for name in ("absolute_games", "games"):
            if (value := getattr(plan, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if plan.seed < 0:
            raise ValueError(f"seed is {plan.seed}; it must not be negative")
        self.played = Played()
        self._plan = plan
        self._tasks: list[_Task] = []

    def add(
        self,
        run: Run,
        scenario: str,
        opponent: str,
        keep: Callable[[EvaluationResult], None],
        games: int | None = None,
    ) -> None:
        """A run's policy, greedy."""
        swap_sides = trained_as(run.path).swap_sides(None) if scenario == run.config.only_scenario else None
        self._add(
            run,
            (f"policy:{_fingerprint(run.policy)}", lambda: LearnedAgent(run.policy, name="policy")),
            scenario,
            opponent,
            keep,
            games or self._plan.games,
            swap_sides,
        )

    def add_script(
        self,
        run: Run,
        script: str,
        scenario: str,
        opponent: str,
        keep: Callable[[EvaluationResult], None],
    ) -> None:
        """A script, as the run's policy plays; kept with the run."""
        swap_sides = trained_as(run.path).swap_sides(None) if scenario == run.config.only_scenario else None
        agent = (f"scripted:{script}", lambda: ScriptedAgent(script))
        self._add(run, agent, scenario, opponent, keep, self._plan.games, swap_sides)

    def _add(
        self,
        run: Run,
        agent: tuple[str, Callable[[], Agent]],
        scenario: str,
        opponent: str,
        keep: Callable[[EvaluationResult], None],
        games: int,
        swap_sides: bool | None,
    ) -> None:
        where, against = load_scenario(scenario), load_opponent(opponent)
        who, make = agent
        learned = None if is_engine_player(opponent) else policy_folder(opponent)
        depends_on = {
            "agent": who,
            "opponent": opponent + (_fingerprint(learned) if learned else ""),
            "scenario": repr(where),
            "engine": engine_digest(),
            "control": run.config.control,
            "games": str(games),
            "seed": str(self._plan.seed),
        }
        digest = hashlib.sha256(repr(sorted(depends_on.items())).encode()).hexdigest()
        self._tasks.append(
            _Task(
                said=f"{who.partition(':')[2] if who.startswith('scripted') else run.name}: {where.name}, "
                f"{opponent}",
                path=run.path / "evaluations" / "final" / f"{digest[:16]}.npz",
                depends_on=depends_on,
                play=lambda: evaluate(
                    make(),
                    against,
                    where,
                    games=games,
                    seed=self._plan.seed,
                    control=run.config.control,
                    swap_sides=swap_sides,
                ),
                keep=keep,
            )
        )

    def work(self, console: Console) -> Played:
        """Make or read them all, with a progress display."""
        display = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        told = time.monotonic()
        with display:
            line = display.add_task("", total=len(self._tasks))
            for done, task in enumerate(self._tasks):
                display.update(line, description=task.said)
                if not console.is_terminal and time.monotonic() - told >= _LINE_S:
                    told = time.monotonic()
                    console.print(f"{done} of {len(self._tasks)} played; {task.said}", highlight=False)
                task.keep(_read(task) or _made(task))
                display.advance(line)
        return self.played


def _fingerprint(folder: Path) -> str:
    """Of an exported policy, or of the one in a run's folder."""
    inside = folder / POLICY
    files = ((inside if inside.is_dir() else folder) / name for name in ("config.yaml", "model.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _read(task: _Task) -> EvaluationResult | None:
    """What was made before; None if it was not, or cannot be read."""
    try:
        result, more = load_evaluation(task.path)
    except (OSError, RecordError):
        return None
    return result if more.get("depends_on") == task.depends_on else None


def _made(task: _Task) -> EvaluationResult:
    result = task.play()
    task.path.parent.mkdir(parents=True, exist_ok=True)
    save_evaluation(task.path, result, depends_on=task.depends_on)
    return result
