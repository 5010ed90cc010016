"""The queue of training jobs: order, waiting, failing, stopping, going on. Its jobs here train nothing."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import tyro
from rich.console import Console

from training.rl.config import TrainConfig
from training.rl.run_folder import RunFolder
from training.suite import child, runner
from training.suite.display import QueueDisplay, Running
from training.suite.jobs import (
    Job,
    check_jobs,
    estimated_seconds,
    fraction_done,
    longest_first,
    train_command,
)
from training.suite.runner import QueueError, QueueOutcome, run_queue

STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
import yaml
config = yaml.safe_load(Path(sys.argv[1]).read_text())
run = Path(config["run_dir"])
run.mkdir(parents=True, exist_ok=True)
with (run / "calls").open("a") as calls:
    calls.write("x")
(run / "began").write_text(str(time.time()))
print("working at", run.name, flush=True)
if config["seed"] == 1:
    print("no good", flush=True)
    sys.exit(3)
if config["seed"] == 2:
    os.kill(os.getpid(), signal.SIGKILL)
if config["seed"] == 3 and not (run / "saved").exists():
    def save(*_):
        (run / "saved").touch()
        sys.exit(130)
    signal.signal(signal.SIGINT, save)
    (run / "waiting").touch()
    time.sleep(60)
if config["seed"] == 4 and (run / "calls").read_text() == "x":
    sys.exit(1)
if config["seed"] == 5:
    sys.exit(2)
(run / "ended").write_text(str(time.time()))
(run / "result.json").write_text(json.dumps({"games": int(sys.argv[2]), "seed": int(sys.argv[3])}))
"""
PLAIN, FAILS, DIES, WAITS, FAILS_ONCE, REFUSED = range(6)  # by the seed of the job's config


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A queue's folder, whose jobs are stand-ins."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(runner, "_CHILD", (sys.executable, str(script)))
    return tmp_path / "queue"


def job(name: str, kind: int = PLAIN, after: tuple[str, ...] = (), steps: int = 1000) -> Job:
    return Job(name, TrainConfig(seed=kind, max_env_steps=steps), after=after, games=7, seed=5)


def work(jobs: list[Job], queue: Path, processes: int = 2) -> tuple[QueueOutcome, str]:
    console = Console(file=io.StringIO(), width=200)
    outcome = run_queue(jobs, queue, processes=processes, console=console)
    return outcome, console.file.getvalue()


def test_a_failing_job_stops_only_those_that_wait_for_it(queue: Path) -> None:
    jobs = [
        job("fails", FAILS),
        job("dies", DIES),
        job("good"),
        job("after_good", after=("good",)),
        job("after_fails", after=("fails",)),
    ]
    outcome, said = work(jobs, queue)
    assert sorted(outcome.finished) == ["after_good", "good"]
    assert outcome.failed.keys() == {"fails", "dies"}
    assert "exit code 3" in outcome.failed["fails"]
    assert "no good" in outcome.failed["fails"]
    assert "SIGKILL" in outcome.failed["dies"]
    assert outcome.left == ["after_fails"]
    assert not outcome.stopped
    assert "fails failed" in said
    assert "good done" in said
    began = float((queue / "after_good" / "began").read_text())
    assert began >= float((queue / "good" / "ended").read_text())


def test_what_is_done_is_not_done_again(queue: Path) -> None:
    work([job("one"), job("fails", FAILS)], queue)
    outcome, _ = work([job("one"), job("fails", FAILS), job("two", after=("one",))], queue)
    assert sorted(outcome.finished) == ["one", "two"]
    assert (queue / "one" / "calls").read_text() == "x"
    assert (queue / "fails" / "calls").read_text() == "xxxx"


def test_a_job_is_tried_twice_unless_refused(queue: Path) -> None:
    jobs = [job("once", FAILS_ONCE), job("refused", REFUSED), job("fails", FAILS)]
    outcome, said = work(jobs, queue)
    assert outcome.finished == ["once"]
    assert outcome.failed.keys() == {"refused", "fails"}
    assert [len((queue / name / "calls").read_text()) for name in ("once", "refused", "fails")] == [2, 1, 2]
    assert said.count("once more") == 2


def test_no_more_at_a_time_than_asked_for(queue: Path) -> None:
    names = ["a", "b", "c"]
    work([job(name) for name in names], queue, processes=1)
    spans = sorted(
        tuple(float((queue / name / file).read_text()) for file in ("began", "ended")) for name in names
    )
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


def test_ctrl_c_lets_jobs_save_and_the_same_call_goes_on(queue: Path) -> None:
    jobs = [job(name, WAITS) for name in "abc"]

    def interrupt() -> None:
        while len(list(queue.glob("*/waiting"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    outcome, said = work(jobs, queue)
    assert outcome.stopped
    assert sorted(outcome.left) == ["a", "b", "c"]
    assert outcome.failed == {}
    assert len(list(queue.glob("*/saved"))) == 2
    assert "Letting the jobs save" in said
    (queue / "c").mkdir(exist_ok=True)
    (queue / "c" / "saved").touch()
    outcome, _ = work(jobs, queue)
    assert sorted(outcome.finished) == ["a", "b", "c"]


def test_a_second_ctrl_c_does_not_wait(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the job has no ear for signals at all."""
    script = queue.parent / "deaf.py"
    deaf = "import pathlib, signal, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    script.write_text(f"{deaf}; pathlib.Path({str(queue / 'deaf')!r}).touch(); time.sleep(60)")
    monkeypatch.setattr(runner, "_CHILD", (sys.executable, str(script)))
    monkeypatch.setattr(runner, "_PATIENCE_S", 0.5)

    def interrupt() -> None:
        while not (queue / "deaf").exists():
            time.sleep(0.05)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    threading.Thread(target=interrupt, daemon=True).start()
    began = time.monotonic()
    outcome, _ = work([job("a")], queue)
    assert outcome.stopped
    assert outcome.left == ["a"]
    assert time.monotonic() - began < 30
    with runner._locked(queue):  # nobody is left to hold it
        pass


def test_one_queue_at_a_time_in_a_folder(queue: Path) -> None:
    with runner._locked(queue), pytest.raises(QueueError, match="another queue, or a job of one"):
        work([job("a")], queue)
    (queue.parent / "file").touch()
    with pytest.raises(QueueError, match="cannot hold a queue"):
        work([job("a")], queue.parent / "file")


def test_a_job_begun_with_other_settings_is_refused(queue: Path) -> None:
    begun = runner.place(job("a"), queue)
    RunFolder(queue / "a").write_settings(begun.config)
    runner.check_queue([job("a")], queue)
    with pytest.raises(ValueError, match="begun with max_env_steps 1000, and is now to have 2000; remove"):
        work([job("a", steps=2000)], queue)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([job("a"), job("a")], "two jobs are called a"),
        ([job("a", after=("b",))], "a waits for b, which is not in the queue"),
        ([job("a", after=("b",)), job("b", after=("a",)), job("c")], "wait for each other: a, b"),
    ],
)
def test_jobs_that_do_not_fit_together(jobs: list[Job], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        check_jobs(jobs)


@pytest.mark.parametrize("name", ["", "a/b", "..", "logs", "-x"])
def test_names_that_are_no_folders(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a job's name"):
        job(name)


def test_those_that_hold_up_most_go_first() -> None:
    """c alone takes longest, but a and what waits for it take longer together."""
    jobs = [
        job("b", steps=30_000_000, after=("a",)),
        job("c", steps=40_000_000),
        job("a", steps=20_000_000),
    ]
    assert [one.name for one in longest_first(jobs)] == ["a", "c", "b"]


def test_the_nearest_limit_and_the_size_tell_how_long_a_job_takes() -> None:
    small, large = TrainConfig(scenario="3m"), TrainConfig(scenario="27m_vs_30m")
    assert estimated_seconds(large) > 10 * estimated_seconds(small)
    assert estimated_seconds(dataclasses.replace(large, time_limit_s=60.0)) == pytest.approx(75)
    assert estimated_seconds(TrainConfig(max_env_steps=None)) > 86_000


def test_progress_is_what_the_last_checkpoint_says(tmp_path: Path) -> None:
    config = TrainConfig(max_env_steps=1000, time_limit_s=100.0)
    assert fraction_done(config, tmp_path) == 0
    checkpoint = tmp_path / "checkpoints" / "step_000000000250"
    checkpoint.mkdir(parents=True)
    (checkpoint / "progress.json").write_text('{"env_steps": 250, "train_seconds": 40.0}')
    assert fraction_done(config, tmp_path) == pytest.approx(0.4)
    (tmp_path / "result.json").write_text("{}")
    assert fraction_done(config, tmp_path) == 1


def test_the_display_tells_what_is_done_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [runner.place(job(name), tmp_path) for name in ("a", "b")]
    for folder in ("a", "logs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "logs" / "b.log").write_text("first\n  half way \n\n")
    console = Console(file=io.StringIO(), width=200)
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with QueueDisplay(console, jobs, 2) as display:
        (tmp_path / "a" / "result.json").write_text("{}")
        clock[0] = 61.0
        display.show([Running(jobs[1], 1.0)])
        display.finished(jobs[1], 3661.0)
    said = console.file.getvalue()
    assert "1 of 2 jobs, 1:01 gone, about 1:01 left; at work: b" in said
    assert "b done in 1:01:01: half way" in said


def test_the_command_of_a_job_makes_the_same_job() -> None:
    config = TrainConfig(
        scenario="8m",
        gamma=0.99,
        model_overrides=("encoder.num_latents=16", "critic=state"),
        per_unit_ratio=False,
        swap_sides=False,
        adam_betas=(0.8, 0.9),
        run_dir=Path("runs/a b"),
        target_win_rate=0.98,
    )
    words = shlex.split(train_command(config))
    assert words[:2] == ["perceiver-policy", "train"]
    assert tyro.cli(TrainConfig, args=words[2:]) == config


def test_a_job_whose_queue_is_gone_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Ctrl-C: who loses its parent gets another one."""
    signalled, parent = threading.Event(), [41]
    sent: list[tuple[int, int]] = []

    def kill(process: int, number: int) -> None:
        sent.append((process, number))
        signalled.set()

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(os, "getppid", lambda: parent[0])
    monkeypatch.setattr(child, "_WATCH_S", 0.01)
    child._stop_with(41)
    assert not signalled.wait(0.2)
    parent[0] = 1
    assert signalled.wait(10)
    assert sent == [(os.getpid(), signal.SIGINT)]
