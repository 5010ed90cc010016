"""The job: its folder, its display, and that it goes on where it stopped."""

import dataclasses
import io
import os
import pkgutil
import resource
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import torch
from ray.rllib.core import COMPONENT_LEARNER
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import training.rl
from envs.scenarios import ScenarioError
from perceiver_policy import UnitSetPolicy
from perceiver_policy.config import ConfigError
from perceiver_policy.pretrained import load_policy, read_metadata
from training.evaluate import Measure
from training.rl.algorithm_life import restore
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.interrupt import StopOnSignal
from training.rl.job import Job, StoppedBy, greedy_evaluation, train
from training.rl.rollout import MODULE_ID
from training.rl.run_folder import CHECKPOINTS_KEPT, Progress, RunFolder, RunFolderError, open_run
from training.rl.seats import BattleSetup

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


def test_no_function_hides_a_module():
    for module in pkgutil.iter_modules(training.rl.__path__):
        assert module.name not in training.rl.__all__


# The folder


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "something").touch()
    with pytest.raises(RunFolderError, match="no run's, so choose another --run-dir"):
        open_run(tiny(tmp_path))
    with pytest.raises(RunFolderError, match="no run to resume"):
        open_run(tiny(tmp_path, resume=True))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="--run-dir"):
        open_run(tiny(tmp_path / "file"))


def test_a_begun_run_is_not_begun_again(tmp_path):
    RunFolder(tmp_path).write_settings(tiny(tmp_path))
    with pytest.raises(RunFolderError, match="--resume"):
        open_run(tiny(tmp_path))


def test_a_run_cut_off_as_it_began_can_begin(tmp_path, monkeypatch):
    """Wherever the process dies, `train` and `train --resume` can both go on."""
    folder, config = RunFolder(tmp_path / "run"), tiny(tmp_path / "run")

    def die(*_):
        raise SystemExit

    for module, name in (
        ("perceiver_policy.config_files", "save"),
        ("training.rl.run_folder", "write_whole"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{name}", die)
            with pytest.raises(SystemExit):
                folder.write_settings(config)
        assert folder.checkpoints.is_dir()
        assert not folder.begun
        (folder.path / ".config.yaml.17.4").write_text("sce")
        for resume in (False, True):
            again, settings = open_run(dataclasses.replace(config, resume=resume))
            assert settings == config
        again.write_settings(settings)
        _, resumed = open_run(dataclasses.replace(config, resume=True))
        assert resumed.resume
        (folder.path / "config.yaml").unlink()
    (folder.checkpoints / "something").touch()
    assert not folder.free


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot hold a run"):
        RunFolder(tmp_path / "file" / "run").write_settings(tiny(tmp_path))


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


def test_a_resumed_run_keeps_its_budget_unless_told_otherwise(tmp_path):
    budget = {"max_env_steps": 2_000_000, "time_limit_s": 60.0, "target_win_rate": 0.9}
    RunFolder(tmp_path).write_settings(tiny(tmp_path, **budget))
    _, resumed = open_run(TrainConfig(run_dir=tmp_path, resume=True))
    assert {name: getattr(resumed, name) for name in budget} == budget
    _, resumed = open_run(TrainConfig(run_dir=tmp_path, resume=True, max_env_steps=None, time_limit_s=5.0))
    assert (resumed.max_env_steps, resumed.time_limit_s, resumed.target_win_rate) == (None, 5.0, 0.9)
    _, resumed = open_run(TrainConfig(run_dir=tmp_path, resume=True, max_env_steps=300_000))
    assert resumed.max_env_steps == 2_000_000, "documented: the default cannot be asked for"


def test_an_unreadable_progress_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    checkpoint = folder.save_checkpoint(Progress(env_steps=10), lambda to: None)
    for content in ("{", "[]", '{"steps": 3}'):
        (checkpoint / "progress.json").write_text(content)
        with pytest.raises(RunFolderError, match="how far"):
            folder.latest_checkpoint()


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


# The loop, on an algorithm that only counts


class CountingAlgorithm:
    """32 steps an iteration; its policy is as old as it is."""

    def __init__(self):
        self.policy = UnitSetPolicy(TrainConfig(model_overrides=TINY_MODEL).load_model())
        self.iterations = 0

    def train(self):
        self.iterations += 1
        sampled = {"num_env_steps_sampled": 32, "num_wins": 0, "num_episodes": 0, "num_illegal_orders": 0}
        learned = {"entropy": 1.0, "approximate_kl": 0.0, "explained_variance": 0.0}
        return {"env_runners": sampled, "learners": {MODULE_ID: learned}}

    def get_module(self, _):
        return SimpleNamespace(policy=self.policy)

    def save_to_path(self, path):
        Path(path, "rllib_checkpoint.json").write_text("{}")


class RecordingMonitor:
    def __init__(self):
        self.fractions, self.seconds_left, self.said = [], [], []

    def iteration(self, report, *, fraction, seconds_left):
        self.fractions.append(fraction)
        self.seconds_left.append(seconds_left)

    def evaluation(self, verdict, env_steps):
        pass

    def flush(self):
        pass

    def say(self, text):
        self.said.append(text)


def make_job(run_dir, *, progress=None, wins=(), **changes):
    verdicts = iter(map(verdict, wins))
    return Job(
        tiny(run_dir, **changes),
        RunFolder(run_dir),
        CountingAlgorithm(),
        lambda policy: next(verdicts),
        RecordingMonitor(),
        progress or Progress(),
    )


GOING_ON = SimpleNamespace(requested=None)


def test_a_spent_budget_trains_no_more(tmp_path):
    job = make_job(tmp_path, progress=Progress(env_steps=64))
    result = job.run(GOING_ON)
    assert result.stopped_by is StoppedBy.STEP_LIMIT
    assert job.algorithm.iterations == 0
    assert read_metadata(result.policy)["env_steps"] == 64, "the restored weights are exported"


def test_a_target_that_was_met_trains_no_more(tmp_path):
    settings = {"evaluation_interval": 1, "max_env_steps": None}
    met = make_job(tmp_path, wins=(95, 92), target_win_rate=0.9, **settings).run(GOING_ON)
    assert met.stopped_by is StoppedBy.TARGET
    _, progress = RunFolder(tmp_path).latest_checkpoint()
    job = make_job(tmp_path, progress=progress, target_win_rate=0.9, **settings)
    assert job.run(GOING_ON).stopped_by is StoppedBy.TARGET
    assert job.algorithm.iterations == 0
    job = make_job(tmp_path, progress=progress, wins=(99, 99), target_win_rate=0.95, **settings)
    job.run(GOING_ON)
    assert job.algorithm.iterations == 1


def test_the_fraction_is_of_what_this_call_has_to_do(tmp_path):
    job = make_job(tmp_path, progress=Progress(env_steps=1000), max_env_steps=1128, evaluation_interval=0)
    job.run(GOING_ON)
    assert job.monitor.fractions == [0.25, 0.5, 0.75, 1.0]
    assert job.monitor.seconds_left[-1] == 0


def test_only_a_better_policy_is_exported(tmp_path):
    job = make_job(tmp_path, wins=(50, 90, 40), evaluation_interval=1, max_env_steps=96)
    result = job.run(GOING_ON)
    assert read_metadata(result.policy) == {
        "scenario": "3m",
        "control": "team",
        "swap_sides": None,
        "env_steps": 64,
    }
    assert result.progress.best_low == 0.9


def test_an_evaluation_without_a_win_counts_as_one(tmp_path):
    job = make_job(tmp_path, wins=(0,), max_env_steps=96)
    result = job.run(GOING_ON)
    assert result.progress.best_low == 0
    assert read_metadata(result.policy)["env_steps"] == 64


def test_without_evaluations_the_last_policy_is_exported(tmp_path):
    """Also where an export of an earlier call is there."""
    settings = {"evaluation_interval": 0, "control": "unit", "swap_sides": False}
    first = make_job(tmp_path, **settings).run(GOING_ON)
    assert read_metadata(first.policy)["env_steps"] == 64
    again = make_job(tmp_path, progress=first.progress, max_env_steps=96, **settings).run(GOING_ON)
    metadata = read_metadata(again.policy)
    assert (metadata["env_steps"], metadata["control"], metadata["swap_sides"]) == (96, "unit", False)


def test_a_checkpoint_holds_an_export(tmp_path):
    make_job(tmp_path, wins=(50, 40), max_env_steps=128).run(GOING_ON)
    checkpoint, _ = RunFolder(tmp_path).latest_checkpoint()
    assert read_metadata(checkpoint / "policy")["env_steps"] == 128
    assert read_metadata(tmp_path / "policy")["env_steps"] == 64


def test_a_full_disk_costs_checkpoints_but_not_the_run(tmp_path):
    """The kernel cuts every file off at 8 kB from the third iteration on."""
    job = make_job(tmp_path, evaluation_interval=0, max_env_steps=160, checkpoint_interval_s=1e-9)
    before, train = resource.getrlimit(resource.RLIMIT_FSIZE), job.algorithm.train

    def fill_disk():
        if job.algorithm.iterations == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**13, before[1]))
        return train()

    job.algorithm.train = fill_disk
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        result = job.run(GOING_ON)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert result.progress.env_steps == 160, "training went on"
    assert not result.saved
    checkpoints = RunFolder(tmp_path).checkpoints
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step_000000000032", "step_000000000064"]
    assert read_metadata(checkpoints / "step_000000000064" / "policy")["env_steps"] == 64
    assert job.monitor.said[:1] == [
        "The checkpoint at 96 steps could not be written (File too large); the one before stays."
    ]
    assert "The exported policy at 160 steps could not be written" in job.monitor.said[-1]
    assert not list(tmp_path.glob(".policy*"))


# Evaluation


def verdict(wins: int) -> SimpleNamespace:
    """Of 100 battles, with an interval of no width."""
    rate = wins / 100
    return SimpleNamespace(measure=Measure.WIN_RATE, games=100, wins=wins, mean=rate, interval=(rate, rate))


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
        assert stop.requested is None
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested == signal.SIGINT
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
    algorithm = build_algorithm_config(config).build_algo()
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
    other = build_algorithm_config(config).build_algo()
    restore(other, saved_again, env_steps=0)
    again = other.learner_group.get_state()[COMPONENT_LEARNER]
    other.stop()
    (optimizer_again,) = again["optimizer"].values()
    for index, moments in optimizer["state"]["state"].items():
        for key, value in moments.items():
            np.testing.assert_array_equal(optimizer_again["state"]["state"][index][key], value)

    assert load_policy(path / "policy").config == load_policy(folder.policy).config

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
@pytest.mark.parametrize(("scenario", "control"), [("collect_mineral_shards@smac", "unit")])
def test_a_mission_is_trained_by_its_score(tmp_path, scenario, control):
    """The whole job: sampled returns are scores, the best policy is the one that scores most."""
    said = io.StringIO()
    config = tiny(tmp_path / scenario, scenario=scenario, control=control, evaluation_games=2)
    result = train(dataclasses.replace(config, num_battles=4), console=Console(file=said, width=120))
    assert result.evaluation.measure is Measure.SCORE
    assert result.progress.best_low is not None
    assert "score " in said.getvalue()
    assert "won" not in said.getvalue()
    events = EventAccumulator(str(tmp_path / scenario / "tensorboard")).Reload()
    assert "evaluation/score" in events.Tags()["scalars"]
    assert "evaluation/win_rate" not in events.Tags()["scalars"]
    assert read_metadata(result.policy)["scenario"] == scenario


def test_a_target_must_be_met_twice(tmp_path):
    verdicts = iter([verdict(99), verdict(50), verdict(99), verdict(99)])
    config = tiny(tmp_path / "run", evaluation_interval=1, max_env_steps=None, target_win_rate=0.9)
    result = train(config, evaluate=lambda policy: next(verdicts), console=Console(file=io.StringIO()))
    assert result.stopped_by is StoppedBy.TARGET
    assert result.progress.iteration == 2


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("algorithm", ["appo", "impala"])
def test_an_asynchronous_run_goes_on_where_it_stopped(tmp_path, algorithm):
    """What is exported is the learner's policy, which the local runner of these algorithms is never given."""
    config = tiny(tmp_path / "run", algorithm=algorithm, num_env_runners=1)
    first = train(config, console=Console(file=io.StringIO()))
    assert first.stopped_by is StoppedBy.STEP_LIMIT
    assert first.progress.env_steps >= 64
    path, progress = RunFolder(tmp_path / "run").latest_checkpoint()
    algorithm = build_algorithm_config(open_run(dataclasses.replace(config, resume=True))[1]).build_algo()
    initial = algorithm.get_module(MODULE_ID).get_state()
    restore(algorithm, path, env_steps=progress.env_steps)
    learned = algorithm.learner_group.get_state()[COMPONENT_LEARNER]["rl_module"][MODULE_ID]
    algorithm.stop()
    exported = load_policy(path / "policy").state_dict()
    assert any((initial[name] != learned[name]).any() for name in initial)
    for name, weights in exported.items():
        np.testing.assert_array_equal(weights.numpy(), learned[f"policy.{name}"])
    second = train(
        tiny(tmp_path / "run", resume=True, max_env_steps=128), console=Console(file=io.StringIO())
    )
    assert second.progress.env_steps >= 128
    assert second.progress.iteration > first.progress.iteration


@pytest.mark.usefixtures("local_ray")
def test_remote_runners_sample_with_restored_weights(tmp_path):
    config = tiny(tmp_path / "run", num_env_runners=1)
    train(config, console=Console(file=io.StringIO()))
    path, progress = RunFolder(tmp_path / "run").latest_checkpoint()
    algorithm = build_algorithm_config(dataclasses.replace(config, seed=1)).build_algo()
    restore(algorithm, path, env_steps=progress.env_steps)
    learner = algorithm.learner_group.get_state()[COMPONENT_LEARNER]["rl_module"][MODULE_ID]
    (remote,) = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner.module[MODULE_ID].get_state(), local_env_runner=False
    )
    algorithm.stop()
    for name, array in learner.items():
        np.testing.assert_array_equal(remote[name], array)
