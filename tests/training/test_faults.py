"""What the job does when something fails, on algorithms that fail on demand; Ray need not run."""

import dataclasses
import math
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.rllib.utils.actor_manager import RemoteCallResults, ResultOrError

from training.cli import main
from training.rl import faults
from training.rl.algorithms import resources
from training.rl.config import TrainConfig
from training.rl.faults import (
    LearnerLostError,
    NonFiniteError,
    Recoveries,
    RunnerWatch,
    TrainingFaultError,
    iterate,
)
from training.rl.job import StoppedBy, TrainResult
from training.rl.local_ray import shortage
from training.rl.run_folder import Progress, RunFolder


def result(*, steps: float, healthy: int) -> dict:
    return {
        "env_runners": {"num_env_steps_sampled": steps},
        "fault_tolerance": {"num_healthy_workers": healthy},
    }


class FailingAlgorithm:
    """Its learners answer with what they are given: a failure, None, or an error."""

    def __init__(self, *answers, num_learners=0):
        self.config = SimpleNamespace(num_learners=num_learners)
        self.learner_group = SimpleNamespace(foreach_learner=self._ask)
        self._answers = answers

    def train(self):
        raise ValueError("broken")

    def _ask(self, func, *, healthy_only=True, mark_healthy=False, **_):
        self.back_in_service = mark_healthy and not healthy_only
        results = RemoteCallResults()
        for answer in self._answers:
            if isinstance(answer, Exception):
                results.add_result(0, ResultOrError(error=answer), None)
            else:
                results.add_result(0, ResultOrError(result=func(SimpleNamespace(failure=answer))), None)
        return results


def test_what_a_failed_iteration_means():
    with pytest.raises(ValueError, match="broken"):
        iterate(FailingAlgorithm(None))
    with pytest.raises(ValueError, match="broken"):
        iterate(FailingAlgorithm(None, None, num_learners=2))
    with pytest.raises(NonFiniteError) as error:
        iterate(FailingAlgorithm("one", "other", num_learners=2))
    assert error.value.failures == ["one", "other"]
    with pytest.raises(LearnerLostError):
        iterate(FailingAlgorithm(OSError("dead"), "other", num_learners=2))
    with pytest.raises(LearnerLostError):  # one that does not answer at all
        iterate(FailingAlgorithm(None, num_learners=2))


def test_a_learner_that_refused_a_step_is_asked_for_its_weights_again():
    algorithm = FailingAlgorithm("not finite", num_learners=1)
    with pytest.raises(NonFiniteError):
        iterate(algorithm)
    assert algorithm.back_in_service


def test_a_lost_learner_is_recovered_from_unless_it_keeps_getting_lost(tmp_path):
    folder, said = RunFolder(tmp_path), []
    recoveries, lost = Recoveries(folder, said.append), LearnerLostError("a learner died")
    assert recoveries.checkpoint_after(lost) is None
    assert said == ["A learner died; training goes on from the beginning."]
    saved = folder.save_checkpoint(Progress(env_steps=1_000), lambda to: None)
    for _ in range(faults.RECOVERIES_IN_A_ROW):
        assert recoveries.checkpoint_after(lost) == (saved.resolve(), Progress(env_steps=1_000))
    assert said[-1] == "A learner died; training goes on from the checkpoint at 1,000 steps."
    with pytest.raises(TrainingFaultError, match=r"without a checkpoint in between.*--resume"):
        recoveries.checkpoint_after(lost)
    folder.save_checkpoint(Progress(env_steps=3_000), lambda to: None)
    assert recoveries.checkpoint_after(lost)[1].env_steps == 3_000


def test_env_runners_that_go_and_come_are_told_of_once():
    said = []
    watch = RunnerWatch(2, Path("runs/x"), said.append)
    for healthy in (2, 1, 1, 2, 2):
        assert watch.sampled(result(steps=32, healthy=healthy))
    assert said == [
        "1 of 2 env runners are there, the others are restarted; training goes on.",
        "2 of 2 env runners are there.",
    ]


@pytest.mark.parametrize("empty", [{}, {"env_runners": {"num_env_steps_sampled": math.nan}}])
def test_training_waits_for_env_runners_but_not_for_ever(monkeypatch, empty):
    said, empty = [], empty | {"fault_tolerance": {"num_healthy_workers": 0}}
    watch = RunnerWatch(2, Path("runs/x"), said.append)
    assert not watch.sampled(empty)
    assert not watch.sampled(empty)
    assert said == ["0 of 2 env runners are there, the others are restarted; training waits for them."]
    monkeypatch.setattr(faults, "PATIENCE_S", -1.0)
    with pytest.raises(TrainingFaultError, match="--run-dir runs/x --resume"):
        watch.sampled(empty)


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"signal": signal.SIGTERM}, 143), ({"signal": signal.SIGINT}, 130), ({"saved": False}, 1)],
)
def test_the_exit_code_tells_a_scheduler_whether_to_go_on(tmp_path, monkeypatch, changes, code):
    result = TrainResult(Progress(), None, StoppedBy.SIGNAL, tmp_path / "policy", **changes)
    monkeypatch.setattr("training.commands.train.train", lambda job: result)
    assert main(["train", "--run-dir", str(tmp_path / "run")]) == code


def test_a_fault_is_one_sentence_and_exit_code_1(tmp_path, monkeypatch, capsys):
    def fail(job):
        raise TrainingFaultError("it broke; go on with: this")

    monkeypatch.setattr("training.commands.train.train", fail)
    assert main(["train", "--run-dir", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == "error: it broke; go on with: this\n"


def test_a_cluster_that_is_not_there_is_refused(tmp_path, monkeypatch, capsys):
    def connect(address, **_):
        raise ConnectionError("long story")

    monkeypatch.setattr("training.rl.local_ray.ray.init", connect)
    with pytest.raises(SystemExit) as left:
        main(["train", "--run-dir", str(tmp_path / "run"), "--ray-address", "nowhere:6379"])
    assert left.value.code == 2
    assert "ray_address is 'nowhere:6379', but no Ray cluster answers there" in capsys.readouterr().err


def test_a_job_tells_what_the_cluster_lacks(monkeypatch):
    monkeypatch.setattr("training.rl.local_ray.ray.cluster_resources", lambda: {"CPU": 4.0})
    config = TrainConfig(num_env_runners=4, num_learners=1)
    assert shortage({"CPU": 4, "GPU": 0}) is None
    assert shortage(resources(config)) == (
        "The job asks Ray for CPU 5 where the cluster has 4; it waits until there is more."
    )
    with_gpu = dataclasses.replace(config, num_gpus_per_learner=1)
    assert shortage(resources(with_gpu)) == (
        "The job asks Ray for GPU 1 where the cluster has 0; it waits until there is more."
    )
