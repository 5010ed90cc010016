"""``perceiver-policy train``: train, evaluate, record a battle."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import tyro

from training.commands.door import door, refuse, require_writable
from training.commands.settings_file import job_from_file
from training.mixture import parse_mixture
from training.mixture_report import finish_mixture
from training.report import RESULT_FILE, finish_run
from training.rl import TrainConfig, build_algorithm_config, train
from training.rl.faults import TrainingFaultError, resume_command
from training.rl.initial_weights import load_initial
from training.rl.run_folder import RunFolder, RunFolderError, open_run


@dataclass(frozen=True)
@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
class Args:
    """Train a policy with RLlib's PPO, evaluate it beside every script and record a battle.

    Ctrl-C and SIGTERM save and say how to go on; a second one quits at once. The run folder gets settings,
    TensorBoard events, checkpoints, the exported policy, result.json, battle.html and battle.gif.
    """

    job: TrainConfig = field(default_factory=TrainConfig)
    config: Path | None = None
    """Settings to begin with: the config.yaml of a run, or the best.yaml of a search. Options given beside it
    win; the run folder is --run-dir's in any case."""
    final_games: int = 1000
    """Battles of each evaluation after training, on each scenario; 0: none."""


def defaults(argv: Sequence[str]) -> Args:
    """The options' defaults, from the file of ``--config`` if that is given."""
    return Args(job=job_from_file(argv, TrainConfig()))


def run(args: Args) -> int:
    """Train, and report unless the run was interrupted.

    Exit codes: 0 the budget is spent or the target met, also in an earlier call; 1 a fault, which says how to
    go on; 130 (SIGINT) or 143 (SIGTERM) asked to stop, and saved.
    """
    with door():
        if args.final_games < 0:
            raise ValueError(f"--final-games is {args.final_games}; it must be at least 0")
        folder, config = open_run(args.job)
        build_algorithm_config(config)
        if folder.latest_checkpoint() is None:  # one that is there can be read
            load_initial(config)
        if folder.begun:
            require_writable(folder.path / RESULT_FILE)
    try:
        result = train(args.job)
    except (RunFolderError, ConnectionError) as error:  # the folder could not be made; no cluster is there
        refuse(str(error))
    except TrainingFaultError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1
    if not result.saved:
        return 1
    if result.signal is not None:
        return 128 + result.signal
    if args.final_games:
        several = len(config.scenarios) > 1
        finish: Callable[..., object] = finish_mixture if several else finish_run
        finish(
            config.run_dir,
            scenario=config.scenario if several else next(iter(parse_mixture(config.scenario))),
            opponent=config.opponent,
            control=config.control,
            swap_sides=config.swap_sides,
            games=args.final_games,
            seed=config.seed,
            command=" ".join(["perceiver-policy", *sys.argv[1:]]),
            training=asdict(result.progress) | {"stopped_by": result.stopped_by.value},
        )
    else:
        print(f"{result.policy} (no evaluation was asked for, so there is no {RESULT_FILE})")
    return 0


def how_to_go_on(args: Args) -> str:
    """What to do after an interruption."""
    run_dir = args.job.run_dir
    if RunFolder(run_dir).begun:
        return f"go on with: {resume_command(run_dir)}"
    return "nothing had begun; the same command begins it"
