"""Evaluations survive being written, whole or not at all, and never run code on the way back."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from agents.scripted import ScriptedAgent
from training.evaluate import Measure, evaluate, paired_p_value
from training.protocol.records import EvaluationLog, RecordError, load_evaluation, save_evaluation


@pytest.fixture(scope="module")
def battles():
    return evaluate(ScriptedAgent("closest"), "attack-move", "3m", games=10, seed=3)


def assert_same(first, second):
    for field in dataclasses.fields(first):
        ours, theirs = getattr(first, field.name), getattr(second, field.name)
        assert np.array_equal(ours, theirs), field.name
        assert type(ours) is type(theirs)


def test_what_is_read_is_what_was_written(tmp_path, battles):
    save_evaluation(tmp_path / "a.npz", battles, env_steps=7)
    read, more = load_evaluation(tmp_path / "a.npz")
    assert_same(read, battles)
    assert more == {"env_steps": 7}
    assert read.to_dict() == battles.to_dict()
    assert paired_p_value(read, battles) == 1.0


def test_missions_keep_their_scores(tmp_path):
    mission = evaluate(ScriptedAgent("collect"), None, "move_to_beacon", games=2)
    save_evaluation(tmp_path / "a.npz", mission)
    read, _ = load_evaluation(tmp_path / "a.npz")
    assert read.measure is Measure.SCORE
    assert_same(read, mission)


def test_what_is_no_evaluation_is_refused(tmp_path, battles):
    path = tmp_path / "a.npz"
    save_evaluation(path, battles)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[:200]):
        path.write_bytes(content)
        with pytest.raises(RecordError, match=r"a\.npz holds no evaluation"):
            load_evaluation(path)
    np.savez(path, text="{}")
    with pytest.raises(RecordError):
        load_evaluation(path)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_nothing_is_unpickled(tmp_path):
    path, sprung = tmp_path / "a.npz", tmp_path / "sprung"
    np.savez(path, text=np.array([Trap(sprung)], object))
    with pytest.raises(RecordError, match=r"a\.npz holds no evaluation"):
        load_evaluation(path)
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(RecordError):
        load_evaluation(path)
    assert not sprung.exists()
    pickle.loads(path.read_bytes())
    assert sprung.exists(), "the trap is one"


def test_a_log_keeps_the_order_and_forgets_the_future(tmp_path, battles):
    log = EvaluationLog(tmp_path / "evaluations")
    assert log.points() == []
    for step in (2_048, 40_960, 40_960, 1_000_000_000):
        log.add(battles, env_steps=step, train_seconds=step / 1000)
    assert [point.env_steps for point in log.points()] == [2_048, 40_960, 40_960, 1_000_000_000]
    assert log.points()[1].train_seconds == 40.96
    log.forget_after(40_960)
    assert [point.env_steps for point in log.points()] == [2_048, 40_960, 40_960]
