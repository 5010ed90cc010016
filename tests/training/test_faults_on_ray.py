"""Processes that die in the middle of training, on a real Ray. Slow."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from ray._private.state import actors
from ray.cluster_utils import Cluster
from ray.rllib.core import COMPONENT_LEARNER
from rich.console import Console

from perceiver_policy.pretrained import load_policy
from training.rl.algorithm_life import built, restore
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.faults import TrainingFaultError
from training.rl.job import train
from training.rl.post_mortem import reproduce
from training.rl.rollout import MODULE_ID, BatchedEnvRunner
from training.rl.run_folder import RunFolder, open_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TINY_MODEL = ("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8")


def tiny(run_dir: Path, **changes) -> TrainConfig:
    settings = {
        "run_dir": run_dir,
        "num_battles": 8,
        "rollout_steps": 4,
        "minibatch_size": 16,
        "num_epochs": 1,
        "evaluation_interval": 0,
        "max_env_steps": 32 * 40,
        "model_overrides": TINY_MODEL,
    }
    return TrainConfig(**settings | changes)


@pytest.fixture
def local_ray():
    ray.init("local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def said():
    output = io.StringIO()
    return Console(file=output, width=200), output


def alive(kind: str) -> list[dict]:
    """Living actors of a class."""
    return [
        actor for actor in actors().values() if actor["State"] == "ALIVE" and actor["ActorClassName"] == kind
    ]


def runner_actors() -> list[dict]:
    return alive("BatchedEnvRunner")


def learner_actors() -> list[dict]:
    return alive("_WrappedExecutable")


def learned(algorithm) -> dict[str, np.ndarray]:
    return algorithm.learner_group.get_state()[COMPONENT_LEARNER]["rl_module"][MODULE_ID]


def on_runners(algorithm, what) -> list:
    return algorithm.env_runner_group.foreach_env_runner(what, local_env_runner=False)


def described(runner: BatchedEnvRunner) -> dict:
    return {
        "pid": os.getpid(),
        "index": runner.worker_index,
        "steps": runner.num_env_steps_sampled_lifetime,
        "weights": runner.module[MODULE_ID].get_state(),
    }


@pytest.mark.usefixtures("local_ray")
def test_a_killed_runner_comes_back_with_the_weights_and_its_steps(tmp_path):
    config = build_algorithm_config(tiny(tmp_path / "run", num_env_runners=2))
    with built(config) as algorithm:
        for _ in range(3):
            algorithm.train()
        first, second = sorted(on_runners(algorithm, described), key=lambda runner: runner["index"])
        os.kill(first["pid"], signal.SIGKILL)
        sampled, back, deadline = [], [], time.monotonic() + 120
        while not (len(back) == 2 and algorithm.iteration > 8) and time.monotonic() < deadline:
            result = algorithm.train()
            sampled.append(result["env_runners"]["num_env_steps_sampled"])
            back = on_runners(algorithm, described)
        assert set(sampled) == {32}, "whole batches all the time"
        again, other = sorted(back, key=lambda runner: runner["index"])
        assert again["pid"] != first["pid"]
        assert other["pid"] == second["pid"]
        assert again["steps"] == other["steps"] == 32 * algorithm.iteration
        for name, array in learned(algorithm).items():
            np.testing.assert_array_equal(again["weights"][name], array)
        assert result["fault_tolerance"]["num_remote_worker_restarts"] == 1


@pytest.mark.usefixtures("local_ray")
def test_a_job_goes_on_while_all_its_runners_are_away(tmp_path, said):
    """Also the job itself: it waits, says so, and ends with the budget spent."""
    console, output = said
    killed = []

    def kill_all(progress, verdict):
        if not killed:
            for runner in runner_actors():
                os.kill(runner["Pid"], signal.SIGKILL)
                killed.append(runner["Pid"])

    config = tiny(tmp_path / "run", num_env_runners=2, evaluation_interval=3, evaluation_games=2)
    result = train(config, console=console, on_evaluation=kill_all)
    assert len(killed) == 2
    assert result.progress.env_steps == 32 * 40
    assert "0 of 2 env runners are there, the others are restarted; training waits for" in output.getvalue()
    assert "2 of 2 env runners are there." in output.getvalue()


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("num_learners", [1, 2])
def test_a_job_that_lost_a_learner_goes_on_from_its_checkpoint(tmp_path, said, num_learners):
    console, output = said
    killed = []

    def kill_one(progress, verdict):
        if progress.iteration >= 6 and not killed:
            killed.append(learner_actors()[0]["Pid"])
            os.kill(killed[0], signal.SIGKILL)

    config = tiny(
        tmp_path / "run",
        num_learners=num_learners,
        evaluation_interval=2,
        evaluation_games=2,
        checkpoint_interval_s=1e-6,
    )
    result = train(config, console=console, on_evaluation=kill_one)
    assert len(killed) == 1
    assert result.progress.env_steps == 32 * 40
    assert result.saved
    assert re.search(
        "A learner died; training goes on from the checkpoint at 1(60|92) steps", output.getvalue()
    )
    assert load_policy(result.policy)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("num_learners", [0, 2])
def test_a_gradient_that_is_not_finite_stops_the_job_with_its_cause_kept(
    tmp_path, said, monkeypatch, num_learners
):
    console, _ = said
    config = tiny(tmp_path / "run", num_learners=num_learners, max_env_steps=320)
    rollout = BatchedEnvRunner._rollout

    def poisoned(self, seats):
        packs = rollout(self, seats)
        for pack in packs if isinstance(packs, list) else [packs]:
            if self.num_env_steps_sampled_lifetime >= 96:
                pack.rewards[0, 0] = np.inf
        return packs

    monkeypatch.setattr(BatchedEnvRunner, "_rollout", poisoned)
    with pytest.raises(
        TrainingFaultError, match=r"^a gradient is not finite at 96 steps.*--resume$"
    ) as fault:
        train(config, console=console)
    assert "\n" not in str(fault.value)
    (failure,) = (tmp_path / "run" / "failures").iterdir()
    assert failure.name == "step_000000000096"
    kept = sorted(failure.iterdir())
    assert [path.name for path in kept] == [f"learner_{i}" for i in range(max(num_learners, 1))]
    monkeypatch.undo()
    assert any(reproduce(path) is not None for path in kept)
    assert load_policy(tmp_path / "run" / "policy")


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(("num_env_runners", "num_learners"), [(2, 0), (2, 1)])
def test_runners_and_learners_are_restored_bit_for_bit(tmp_path, num_env_runners, num_learners):
    """Whatever the number of processes was when the run was saved."""
    saved = train(tiny(tmp_path / "run", max_env_steps=96), console=Console(file=io.StringIO()))
    exported = load_policy(saved.policy).state_dict()
    path, progress = RunFolder(tmp_path / "run").latest_checkpoint()
    for _ in range(3):  # RLlib's race does not always lose
        config = tiny(tmp_path / "other", num_env_runners=num_env_runners, num_learners=num_learners, seed=1)
        with built(build_algorithm_config(config)) as algorithm:
            restore(algorithm, path, env_steps=progress.env_steps)
            runners = on_runners(algorithm, described)
            assert len(runners) == num_env_runners
            weights = learned(algorithm)
            for name, tensor in exported.items():
                np.testing.assert_array_equal(weights[f"policy.{name}"], tensor.numpy())
            for runner in runners:
                assert runner["steps"] == 96
                for name, array in runner["weights"].items():
                    np.testing.assert_array_equal(array, weights[name])


@pytest.mark.usefixtures("local_ray")
def test_two_that_go_on_from_one_checkpoint_do_the_same(tmp_path):
    """All that a run goes on with is in the checkpoint; what is not derives from the seed and the steps."""
    train(tiny(tmp_path / "run", max_env_steps=96), console=Console(file=io.StringIO()))
    path, progress = RunFolder(tmp_path / "run").latest_checkpoint()
    after = []
    for _ in range(2):
        _, config = open_run(TrainConfig(run_dir=tmp_path / "run", resume=True, max_env_steps=320))
        with built(build_algorithm_config(config)) as algorithm:
            restore(algorithm, path, env_steps=progress.env_steps)
            algorithm.train()
            after.append(learned(algorithm))
    for name, array in after[0].items():
        np.testing.assert_array_equal(array, after[1][name])


def start(run_dir: Path, *options: str) -> subprocess.Popen:
    """The command, in a process group of its own, as a shell or a scheduler starts it."""
    command = [sys.executable, "-m", "training.cli", "train", "--run-dir", str(run_dir), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


SMALL = (
    "--num-battles", "16", "--rollout-steps", "4", "--minibatch-size", "32", "--evaluation-interval", "0",
    "--checkpoint-interval-s", "1", "--final-games", "0", "--max-env-steps", "10000000",
    "--model-overrides", *TINY_MODEL,
)  # fmt: skip


def wait_for_checkpoint(run_dir: Path, process: subprocess.Popen, *, beyond: int = 0) -> int:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        checkpoint = RunFolder(run_dir).latest_checkpoint()
        if checkpoint and checkpoint[1].env_steps > beyond:
            return checkpoint[1].env_steps
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.2)
    raise AssertionError("no checkpoint")


def test_a_run_whose_machine_went_down_goes_on(tmp_path):
    """kill -9 of the driver; Ray's processes go with it; --resume goes on from the last checkpoint."""
    run_dir = tmp_path / "run"
    first = start(run_dir, *SMALL, "--num-env-runners", "1")
    steps = wait_for_checkpoint(run_dir, first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    at = RunFolder(run_dir).latest_checkpoint()[1].env_steps
    assert at >= steps
    second = start(run_dir, "--resume", "--max-env-steps", str(at + 640))
    output, _ = second.communicate(timeout=180)
    assert second.returncode == 0, output
    assert RunFolder(run_dir).latest_checkpoint()[1].env_steps == at + 640
    assert not list(RunFolder(run_dir).checkpoints.glob(".*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_asked_to_stop_saves_and_tells_the_scheduler(tmp_path, number, code):
    """Ctrl-C goes to the whole process group, env runners included; preemption to the process."""
    run_dir = tmp_path / "run"
    process = start(run_dir, *SMALL, "--num-env-runners", "1", "--checkpoint-interval-s", "3600")
    deadline = time.monotonic() + 180
    events = run_dir / "tensorboard"
    while not (events.is_dir() and any(path.stat().st_size > 1000 for path in events.iterdir())):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.2)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    assert f"Saved. Go on with: perceiver-policy train --run-dir {run_dir} --resume" in output
    assert RunFolder(run_dir).latest_checkpoint() is not None
    assert load_policy(run_dir / "policy")


def test_a_node_that_goes_takes_its_runner_and_training_goes_on(tmp_path, said):
    """Two machines, simulated: an env runner on each; the second machine leaves."""
    console, output = said
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    nodes = []

    def remove_node(progress, verdict):
        if progress.iteration == 6:
            nodes.extend({runner["Address"]["NodeID"] for runner in runner_actors()})
            cluster.remove_node(node)

    try:
        config = tiny(
            tmp_path / "run",
            num_env_runners=2,
            ray_address=cluster.address,
            evaluation_interval=3,
            evaluation_games=2,
            max_env_steps=32 * 14,
        )
        result = train(config, console=console, on_evaluation=remove_node)
        assert len(nodes) == 2, "one runner was on each node"
        assert result.progress.env_steps == 32 * 14
        assert "1 of 2 env runners are there, the others are restarted" in output.getvalue()
    finally:
        ray.shutdown()
        cluster.shutdown()
