"""The commands, from run folders to files."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from training.cli import main
from training.commands import sweep
from training.suite.runner import QueueOutcome

FEW = ("--games", "4", "--absolute-games", "4", "--no-scripts", "--unseen", "flank")


@pytest.fixture
def runs(make_run, tmp_path):
    folder = tmp_path / "runs"
    for seed in (0, 1):
        make_run(f"runs/a{seed}", seed=seed)
        make_run(f"runs/b{seed}", seed=seed, gamma=0.9)
    return folder


def refusal(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_protocol_writes_a_report_a_marl_eval_file_and_pictures(runs, tmp_path, capsys):
    report, raw, pictures = tmp_path / "report.json", tmp_path / "raw.json", tmp_path / "pictures"
    files = ("--json", str(report), "--marl-eval", str(raw), "--plots", str(pictures))
    assert main(["protocol", str(runs), *FEW, *files]) == 0
    printed = capsys.readouterr().out
    assert "gamma=0.9" in printed
    assert "flank" in printed
    content = json.loads(report.read_text())
    assert len(content["runs"]) == 4
    assert len(content["paired"]) == 2
    assert list(json.loads(raw.read_text())["perceiver_policy"]) == ["3m"]
    drawn = sorted(path.name for path in pictures.iterdir())
    assert drawn == ["aggregates.png", "performance_profiles.png", "sample_efficiency.png"]
    for path in pictures.iterdir():
        assert len(Image.open(path).convert("RGB").getcolors(1 << 20)) > 10


def test_protocol_refuses_before_it_plays(runs, make_run, tmp_path, capsys, monkeypatch):
    assert "no run is given" in refusal(capsys, "protocol")
    assert "holds no run" in refusal(capsys, "protocol", str(runs / "a0" / "checkpoints"))
    assert "does not exist" in refusal(capsys, "protocol", str(runs), "--json", str(tmp_path / "no" / "f"))
    flat = make_run("flat", wins=())
    assert "--evaluation-interval" in refusal(capsys, "protocol", str(flat), "--marl-eval", "raw.json")
    assert "games is 0" in refusal(capsys, "protocol", str(runs), "--games", "0")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "training.protocol.plots", raising=False)
    assert "[pictures]" in refusal(capsys, "protocol", str(runs), "--plots", str(tmp_path / "pictures"))
    assert not list(runs.glob("*/evaluations/final"))


def test_sweep_hands_the_jobs_to_the_queue(tmp_path, capsys, monkeypatch):
    called = SimpleNamespace()

    def queue(jobs, folder, processes):
        called.names, called.folder, called.processes = [job.name for job in jobs], folder, processes
        return QueueOutcome(finished=called.names)

    monkeypatch.setattr(sweep, "run_queue", queue)
    folder = tmp_path / "sweep"
    given = ("--scenarios", "3m", "8m", "--seeds", "2", "--run-dir", str(folder), "--processes", "3")
    assert main(["sweep", *given]) == 0
    assert called.names == ["ppo_3m_seed0", "ppo_3m_seed1", "ppo_8m_seed0", "ppo_8m_seed1"]
    assert (called.folder, called.processes) == (folder, 3)
    assert f"perceiver-policy protocol {folder}" in capsys.readouterr().out
    assert json.loads((folder / "experiment.json").read_text())["runs"]["ppo_8m_seed1"] == "ppo"


def test_sweep_tells_what_failed_and_refuses_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "run_queue", lambda *_, **__: QueueOutcome(failed={"ppo_3m_seed0": "exit 1"}))
    assert main(["sweep", "--seeds", "1", "--run-dir", str(tmp_path / "a")]) == 1
    assert "ppo_3m_seed0 failed: exit 1" in capsys.readouterr().err
    monkeypatch.setattr(sweep, "run_queue", lambda *_, **__: QueueOutcome(stopped=True))
    assert main(["sweep", "--seeds", "1", "--run-dir", str(tmp_path / "b")]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    for arguments, message in (
        (("--processes", "0"), "--processes is 0"),
        (("--changes", "gama=1"), "did you mean gamma"),
        (("--recipe", str(tmp_path / "no.yaml")), "no.yaml"),
    ):
        assert message in refusal(capsys, "sweep", "--run-dir", str(tmp_path / "c"), *arguments)
    assert not (tmp_path / "c").exists()
