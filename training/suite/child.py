"""One job of a queue, in a process of its own: ``python -m training.suite.child SETTINGS GAMES SEED``.

It trains, or goes on where the run folder's last checkpoint is, then plays the battles asked for and writes
``result.json`` into the run folder. Exit codes are the command line's: 0 done, 2 refused, 130 stopped.

A job whose queue is gone stops as if Ctrl-C had been pressed, so that nobody trains on unseen.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from agents.learned import LearnedAgent
from agents.roster import load_opponent
from envs.battle.whole_file import write_whole
from training.cli import INTERRUPTED
from training.mixture_result import MixtureResult, evaluate_mixture
from training.report import RESULT_FILE
from training.rl import TrainConfig, train
from training.rl.job import StoppedBy, TrainResult
from training.rl.run_folder import RunFolder, RunFolderError
from training.suite.jobs import train_command

_WATCH_S = 1.0


def main(settings: Path, games: int, seed: int) -> int:
    """Train, play, write the result.

    Args:
        settings: a file of :meth:`~training.rl.config.TrainConfig.to_yaml`.
        games, seed: as for :class:`~training.suite.jobs.Job`.
    """
    _stop_with(os.getppid())
    try:
        config = TrainConfig.load(settings)
        result = train_on(config)
        if result.stopped_by is StoppedBy.SIGNAL:
            return INTERRUPTED
        finish(config, result, games=games, seed=seed)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (RunFolderError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def train_on(config: TrainConfig) -> TrainResult:
    """Train, or go on with what there is; of a time limit, only what is left of it."""
    folder = RunFolder(config.run_dir)
    console = Console(stderr=True, width=160)
    if not folder.begun:
        return train(config, console=console)
    checkpoint = folder.latest_checkpoint()
    going_on = TrainConfig(
        run_dir=config.run_dir,
        resume=True,
        max_env_steps=config.max_env_steps,
        target_win_rate=config.target_win_rate,
    )
    if config.time_limit_s is not None and checkpoint is not None:
        left = config.time_limit_s - checkpoint[1].train_seconds - checkpoint[1].evaluation_seconds
        if left <= 0 and folder.policy.is_dir():
            return TrainResult(checkpoint[1], None, StoppedBy.TIME_LIMIT, folder.policy)
        going_on = dataclasses.replace(going_on, time_limit_s=max(left, 1.0))
    return train(going_on, console=console)


def finish(config: TrainConfig, result: TrainResult, *, games: int, seed: int) -> None:
    """Play the battles asked for, and write ``result.json``: the job is done then."""
    content: dict[str, Any] = {}
    if games:
        played = evaluate_mixture(
            LearnedAgent(result.policy, name="policy"),
            load_opponent(config.opponent),
            config.scenarios,
            games=games,
            seed=seed,
            control=config.control,
            swap_sides=config.swap_sides,
        )
        content = as_content(played)
    content |= {
        "command": train_command(config),
        "training": dataclasses.asdict(result.progress) | {"stopped_by": result.stopped_by.value},
    }
    write_whole(config.run_dir / RESULT_FILE, (json.dumps(content, indent=2) + "\n").encode())


def as_content(played: MixtureResult) -> dict[str, Any]:
    """What ``result.json`` says of the battles, one scenario's result, or each and the mean."""
    by_scenario = {name: one.to_dict() for name, one in played.results.items()}
    if len(by_scenario) == 1:
        return played.worst.to_dict()
    return {"mixture": played.summary(), "scenarios": by_scenario}


def _stop_with(parent: int) -> None:
    """Ask this process to stop once its parent is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
