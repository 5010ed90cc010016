"""``perceiver-policy train``: train, evaluate, record a battle."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field

import tyro

from training.commands.door import door, refuse, require_writable
from training.report import RESULT_FILE, finish_run
from training.rl import TrainConfig, build_ppo_config, train
from training.rl.job import StoppedBy, resume_command
from training.rl.run_folder import RunFolder, RunFolderError, open_run


@dataclass(frozen=True)
@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
class Args:
    """Train a policy with RLlib's PPO, evaluate it beside every script and record a battle.

    Ctrl-C saves and says how to go on. The run folder gets the settings, TensorBoard events, checkpoints, the
    exported policy, result.json, battle.html and battle.gif.
    """

    job: TrainConfig = field(default_factory=TrainConfig)
    final_games: int = 1000
    """Battles of each evaluation after training; 0: none."""


def run(args: Args) -> int:
    """Train, and report unless the run was interrupted."""
    with door():
        if args.final_games < 0:
            raise ValueError(f"--final-games is {args.final_games}; it must be at least 0")
        folder, config = open_run(args.job)
        build_ppo_config(config)
        folder.latest_checkpoint()  # it can be read
        if folder.begun:
            require_writable(folder.path / RESULT_FILE)
    try:
        result = train(args.job)
    except RunFolderError as error:  # the folder could not be made
        refuse(str(error))
    if result.stopped_by is StoppedBy.SIGNAL:
        return 0
    if args.final_games:
        finish_run(
            config.run_dir,
            scenario=config.scenario,
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
