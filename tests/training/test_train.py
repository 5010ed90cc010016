"""The job: its settings, its folder, its display, and that it goes on where it stopped."""

import dataclasses
import io
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import torch
import tyro
from ray.rllib.core import COMPONENT_LEARNER
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from envs.scenarios import ScenarioError
from perceiver_policy import UnitSetPolicy
from perceiver_policy.config import ConfigError
from perceiver_policy.pretrained import load_policy
from training.rl.config import TrainConfig, build_ppo_config
from training.rl.interrupt import StopOnSignal
from training.rl.rollout import MODULE_ID
from training.rl.run_folder import CHECKPOINTS_KEPT, Progress, RunFolder, RunFolderError, open_run
from training.rl.seats import BattleSetup
from training.rl.train import StoppedBy, greedy_evaluation, restore, train

TINY_MODEL = ("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8")


def tiny(run_dir: Path, **changes) -> TrainConfig:
    settings = {
        "run_dir": run_dir,
        "num_battles": 8,
        "rollout_steps": 4,
        "minibatch_size": 16,
        "num_epochs": 1,
        "evaluation_games": 20,
        "evaluation_interval": 2,
        "time_limit_s": None,
        "max_env_steps": 64,
        "model_overrides": TINY_MODEL,
    }
    return TrainConfig(**settings | changes)


# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_battles": 0}, "num_battles is 0.*at least 1"),
        ({"lr": 0.0}, "lr is 0.0.*above 0"),
        ({"gamma": 1.5}, "gamma is 1.5.*0 to 1"),
        ({"num_env_runners": 3}, "num_battles is 128.*3 env runners"),
        ({"minibatch_size": 4096}, "minibatch_size is 4096.*2048"),
        ({"target_win_rate": 1.0}, "target_win_rate is 1.0.*below 1"),
        ({"time_limit_s": -1.0}, "time_limit_s is -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_settings_survive_their_file(tmp_path):
    config = tiny(tmp_path / "run", lr=3e-4)
    config.save(tmp_path / "config.yaml")
    assert TrainConfig.load(tmp_path / "config.yaml") == config
    (tmp_path / "other.yaml").write_text("nonsense: 1")
    with pytest.raises(ValueError, match="does not hold the settings"):
        TrainConfig.load(tmp_path / "other.yaml")


def test_settings_are_the_command_line():
    args = ["--scenario", "8m", "--lr", "3e-4", "--time-limit-s", "None", "--model-overrides", "critic=state"]
    config = tyro.cli(TrainConfig, args=args)
    assert config == TrainConfig(scenario="8m", lr=3e-4, time_limit_s=None, model_overrides=("critic=state",))


def test_the_model_takes_overrides():
    model = TrainConfig(model_overrides=("encoder.num_latents=16", "critic=state")).load_model()
    assert (model.encoder.num_latents, model.critic.value) == (16, "state")
    with pytest.raises(ConfigError, match=r"num_latens.*num_latents"):
        TrainConfig(model_overrides=("encoder.num_latens=16",)).load_model()
    with pytest.raises(ValueError, match="KEY=VALUE"):
        TrainConfig(model_overrides=("encoder",)).load_model()


def test_rllibs_config_counts_rows_per_observer():
    team, unit = (build_ppo_config(TrainConfig(control=control)) for control in ("team", "unit"))
    assert (team.train_batch_size_per_learner, team.minibatch_size) == (2048, 512)
    assert (unit.train_batch_size_per_learner, unit.minibatch_size) == (3 * 2048, 3 * 512)
    for config in (team, unit):
        config.validate()


# The folder


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "something").touch()
    with pytest.raises(RunFolderError, match="--resume"):
        open_run(tiny(tmp_path))
    with pytest.raises(RunFolderError, match="no run to resume"):
        open_run(tiny(tmp_path, resume=True))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="--run-dir"):
        open_run(tiny(tmp_path / "file"))


def test_bad_settings_leave_no_folder(tmp_path):
    for changes, error in (
        ({"scenario": "4m"}, ScenarioError),
        ({"model": "no_such"}, ConfigError),
        ({"opponent": "nobody"}, ValueError),
    ):
        with pytest.raises(error):
            train(tiny(tmp_path / "run", **changes))
        assert not (tmp_path / "run").exists()


def test_a_resumed_run_keeps_its_settings_and_takes_the_budget(tmp_path):
    begun = tiny(tmp_path, lr=3e-4)
    RunFolder(tmp_path).write_settings(begun)
    _, resumed = open_run(TrainConfig(run_dir=tmp_path, resume=True, max_env_steps=500))
    assert (resumed.lr, resumed.num_battles, resumed.max_env_steps) == (3e-4, 8, 500)
    assert resumed.load_model() == begun.load_model()
    with pytest.raises(RunFolderError, match=r"gamma is 0.5.*0.98"):
        open_run(TrainConfig(run_dir=tmp_path, resume=True, gamma=0.5))


def test_checkpoints_appear_whole_or_not_at_all(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.latest_checkpoint() is None
    for steps in (10, 20, 30):
        folder.save_checkpoint(Progress(env_steps=steps), lambda to: Path(to, "state").write_text("whole"))

    def die(path):
        Path(path, "state").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        folder.save_checkpoint(Progress(env_steps=40), die)
    path, progress = folder.latest_checkpoint()
    assert (progress.env_steps, (path / "state").read_text()) == (30, "whole")
    assert len(list(folder.checkpoints.glob("step_*"))) == CHECKPOINTS_KEPT


# Evaluation


def verdict(wins: int) -> SimpleNamespace:
    """Of 100 battles, with an interval of no width."""
    rate = wins / 100
    return SimpleNamespace(games=100, wins=wins, win_rate=rate, wilson_low=rate, wilson_high=rate)


def test_every_evaluation_plays_other_battles():
    torch.manual_seed(0)
    policy = UnitSetPolicy(TrainConfig(model_overrides=TINY_MODEL).load_model())
    judge = greedy_evaluation(BattleSetup("3m"), games=10, seed=(0, 0))
    first, second = judge(policy), judge(policy)
    assert first.games == second.games == 10
    assert not set(first.battle_seeds) & set(second.battle_seeds)


# Stopping


def test_the_first_signal_asks_and_the_second_interrupts():
    told = []
    before = signal.getsignal(signal.SIGINT)
    with StopOnSignal(lambda: told.append(True)) as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        assert told == [True]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before


# The whole job, on a real Ray


@pytest.fixture(scope="module")
def local_ray():
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("local_ray")
def test_a_run_goes_on_where_it_stopped(tmp_path):
    """Two iterations, a checkpoint, two more: curves, weights and optimizer continue."""
    console = Console(file=io.StringIO())
    first = train(tiny(tmp_path / "run"), console=console)
    assert (first.progress.iteration, first.progress.env_steps) == (2, 64)
    assert first.stopped_by is StoppedBy.STEP_LIMIT
    assert first.evaluation.games == 20
    folder = RunFolder(tmp_path / "run")
    path, progress = folder.latest_checkpoint()
    assert progress == first.progress

    _, config = open_run(tiny(tmp_path / "run", resume=True))
    algorithm = build_ppo_config(config).build_algo()
    restore(algorithm, path, env_steps=progress.env_steps)
    restored = algorithm.learner_group.get_state()[COMPONENT_LEARNER]
    (optimizer,) = restored["optimizer"].values()
    assert optimizer["state"]["state"], "Adam's moments are there"
    runner, learner = algorithm.env_runner.module[MODULE_ID], restored["rl_module"][MODULE_ID]
    exported = load_policy(folder.policy).state_dict()
    for name, array in learner.items():
        np.testing.assert_array_equal(runner.state_dict()[name].numpy(), array)
        np.testing.assert_array_equal(exported[name.removeprefix("policy.")].numpy(), array)
    saved_again = algorithm.save_to_path(tmp_path / "again")
    algorithm.stop()
    other = build_ppo_config(config).build_algo()
    restore(other, saved_again, env_steps=0)
    again = other.learner_group.get_state()[COMPONENT_LEARNER]
    other.stop()
    (optimizer_again,) = again["optimizer"].values()
    for index, moments in optimizer["state"]["state"].items():
        for key, value in moments.items():
            np.testing.assert_array_equal(optimizer_again["state"]["state"][index][key], value)

    second = train(tiny(tmp_path / "run", resume=True, max_env_steps=128), console=console)
    assert (second.progress.iteration, second.progress.env_steps) == (4, 128)
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    for curve in ("rollout/steps_per_second", "rollout/illegal_orders", "learner/entropy"):
        assert [event.step for event in events.Scalars(curve)] == [32, 64, 96, 128], curve
    assert {event.value for event in events.Scalars("rollout/illegal_orders")} == {0.0}
    assert [event.step for event in events.Scalars("evaluation/win_rate")] == [64, 128]


@pytest.mark.usefixtures("local_ray")
def test_a_signal_saves_and_says_how_to_go_on(tmp_path):
    output = io.StringIO()

    def interrupting(policy):
        os.kill(os.getpid(), signal.SIGINT)
        return verdict(50)

    config = tiny(tmp_path / "run", evaluation_interval=1, max_env_steps=None)
    result = train(config, evaluate=interrupting, console=Console(file=output, width=200))
    assert result.stopped_by is StoppedBy.SIGNAL
    assert RunFolder(tmp_path / "run").latest_checkpoint()[1].iteration == 1
    assert (result.policy / "config.yaml").is_file()
    assert f"--run-dir {tmp_path / 'run'} --resume" in output.getvalue()


@pytest.mark.usefixtures("local_ray")
def test_a_target_must_be_met_twice(tmp_path):
    verdicts = iter([verdict(99), verdict(50), verdict(99), verdict(99)])
    config = tiny(tmp_path / "run", evaluation_interval=1, max_env_steps=None, target_win_rate=0.9)
    result = train(config, evaluate=lambda policy: next(verdicts), console=Console(file=io.StringIO()))
    assert result.stopped_by is StoppedBy.TARGET
    assert result.progress.iteration == 2


@pytest.mark.usefixtures("local_ray")
def test_remote_runners_sample_with_restored_weights(tmp_path):
    config = tiny(tmp_path / "run", num_env_runners=1)
    train(config, console=Console(file=io.StringIO()))
    path, progress = RunFolder(tmp_path / "run").latest_checkpoint()
    algorithm = build_ppo_config(dataclasses.replace(config, seed=1)).build_algo()
    restore(algorithm, path, env_steps=progress.env_steps)
    learner = algorithm.learner_group.get_state()[COMPONENT_LEARNER]["rl_module"][MODULE_ID]
    (remote,) = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner.module[MODULE_ID].get_state(), local_env_runner=False
    )
    algorithm.stop()
    for name, array in learner.items():
        np.testing.assert_array_equal(remote[name], array)
