"""How a suite's policies stand beside the scripts, on the same battles.

A policy stands *above* where its Wilson 95 % interval lies above that of the best script, and *full* where
both win everything (1.00 to two digits), so that there is nothing to be above of; these two count as reached.
*level* is where the intervals meet, *below* where the script's lies above.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from agents.roster import SCRIPTED
from envs.battle.compiled import engine_digest
from envs.battle.whole_file import write_whole
from training.benchmark.calibration import SCRIPTS, Match, Part, play
from training.evaluate import wilson
from training.mixture import parse_mixture
from training.report import RESULT_FILE
from training.suite.jobs import Job, is_finished
from training.suite.lineage import Ancestor, lineage
from training.suite.script_results import script_results

_FULL = 0.995
"""A win rate that is 1.00 to two digits."""

Progress = Callable[[int, int], None]


class Verdict(StrEnum):
    """How a policy stands beside the best script."""

    ABOVE = "above"
    FULL = "full"
    LEVEL = "level"
    BELOW = "below"


@dataclass(frozen=True)
class Rate:
    """Battles won."""

    wins: int
    games: int

    @property
    def share(self) -> float:
        """Wins over all battles."""
        return self.wins / self.games

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, 95 %."""
        return wilson(self.wins, self.games)

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Rate:
        """From an evaluation's summary."""
        return cls(int(result["wins"]), int(result["games"]))


@dataclass(frozen=True)
class Standing:
    """A scenario of a suite: the policy, the scripts, and what training took."""

    scenario: str
    policy: Rate
    scripts: Mapping[str, Rate]
    env_steps: int
    train_seconds: float
    stopped_by: str
    command: str
    started_from: Sequence[Ancestor] = ()
    """The runs whose weights it began with, the earliest first."""

    @property
    def best_script(self) -> str:
        """The script that wins most."""
        return max(self.scripts, key=lambda name: self.scripts[name].wins)

    @property
    def verdict(self) -> Verdict:
        """How the policy stands beside it."""
        return judge(self.policy, self.scripts[self.best_script])

    @property
    def reached(self) -> bool:
        """Whether there is no more to be had."""
        return self.verdict in (Verdict.ABOVE, Verdict.FULL)

    @classmethod
    def of(cls, result: Mapping[str, Any], started_from: Sequence[Ancestor] = ()) -> Standing:
        """From a run's ``result.json`` with the scripts in it, and the runs before it."""
        training = result["training"]
        return cls(
            scenario=result["scenario"],
            policy=Rate.of(result),
            scripts={name: Rate.of(script) for name, script in result["scripts"].items()},
            env_steps=training["env_steps"],
            train_seconds=training["train_seconds"],
            stopped_by=training["stopped_by"],
            command=result["command"],
            started_from=started_from,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {
            "scenario": self.scenario,
            "verdict": self.verdict.value,
            "policy": _as_dict(self.policy),
            "best_script": self.best_script,
            "scripts": {name: _as_dict(rate) for name, rate in self.scripts.items()},
            "env_steps": self.env_steps,
            "train_seconds": self.train_seconds,
            "stopped_by": self.stopped_by,
            "command": self.command,
            "started_from": [ancestor.to_dict() for ancestor in self.started_from],
        }


def judge(policy: Rate, script: Rate) -> Verdict:
    """How a policy stands beside a script."""
    if policy.interval[0] > script.interval[1]:
        return Verdict.ABOVE
    if policy.share >= _FULL and script.share >= _FULL:
        return Verdict.FULL
    return Verdict.BELOW if policy.interval[1] < script.interval[0] else Verdict.LEVEL


def collect(
    jobs: Sequence[Job],
    *,
    processes: int | None = None,
    progress: Progress = lambda done, of: None,
) -> list[Standing]:
    """The standings of the jobs that have finished, in their order.

    What is missing is played: scripts that no cache has, and policies whose battles were others than asked
    for, or on another engine. Each run's ``result.json`` then has all of it.

    Args:
        jobs: of a suite, a scenario each, with their run folders.
        processes, progress: as for :func:`training.benchmark.calibration.play`.

    Raises:
        ValueError: a ``result.json`` cannot be read.
    """
    done = [job for job in jobs if is_finished(job.config.run_dir)]
    contents = [_read(job.config.run_dir / RESULT_FILE) for job in done]
    stale = [index for index, job in enumerate(done) if not _is_current(contents[index], job)]
    replayed = play([_match(done[i], str(done[i].config.run_dir)) for i in stale], processes=processes)
    for index, one in zip(stale, replayed, strict=True):
        contents[index] |= one.result.to_dict() | {"agent": "policy"}
    matches = [_match(job, SCRIPTED + script) for job in done for script in SCRIPTS]
    results = script_results(matches, processes=processes, progress=progress)
    for index, job in enumerate(done):
        own = results[index * len(SCRIPTS) : (index + 1) * len(SCRIPTS)]
        scripts = {name: _summary(result) for name, result in zip(SCRIPTS, own, strict=True)}
        if index in stale or contents[index].get("scripts") != scripts:
            contents[index]["scripts"] = scripts
            text = json.dumps(contents[index], indent=2) + "\n"
            write_whole(job.config.run_dir / RESULT_FILE, text.encode())
    return [
        Standing.of(content, lineage(job.config.init_from))
        for job, content in zip(done, contents, strict=True)
    ]


def _is_current(content: Mapping[str, Any], job: Job) -> bool:
    """Whether a result is of the battles that the job asks for, on this engine."""
    asked = {"engine": engine_digest(), "games": job.games, "seed": job.seed}
    return all(content.get(key) == value for key, value in asked.items())


def _match(job: Job, agent: str) -> Match:
    config = job.config
    (scenario,) = parse_mixture(config.scenario)
    return Match(
        Part.SMAC,
        scenario,
        agent,
        config.opponent,
        job.games,
        job.seed,
        config.swap_sides,
        config.control,
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}; remove it to have the job done again") from error
    if not isinstance(content, dict) or "training" not in content:
        raise ValueError(f"{file} is no result of a training run; remove it to have the job done again")
    return content


def _summary(result: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("win_rate", "wilson_low", "wilson_high", "wins", "timeouts", "losses", "draws", "games")
    return {key: result[key] for key in keys}


def _as_dict(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {
        "win_rate": rate.share,
        "wilson_low": low,
        "wilson_high": high,
        "wins": rate.wins,
        "games": rate.games,
    }
