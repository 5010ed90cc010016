"""What the job does when something fails, on algorithms that fail on demand; Ray need not run."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.rllib.utils.actor_manager import RemoteCallResults, ResultOrError

from training.rl import faults
from training.rl.faults import (
    LearnerLostError,
    NonFiniteError,
    Recoveries,
    RunnerWatch,
    TrainingFaultError,
    iterate,
)
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

    def _ask(self, func, **_):
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
