"""The command line: what it writes, how it refuses, and that it imports no more than a command needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from perceiver_policy import UnitSetPolicy, UnitSetPolicyConfig
from perceiver_policy.pretrained import load_policy, read_metadata, save_policy
from training.cli import COMMANDS, main


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_policy(
        UnitSetPolicy(UnitSetPolicyConfig()), tmp_path / "run" / "policy", metadata={"scenario": "3m"}
    )
    return tmp_path / "run"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Standard error of a call that must exit with 2."""
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {command} " in printed for command in COMMANDS)
    assert main([]) == 2


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([command, "--help"])
    assert exit_info.value.code == 0
    assert f"perceiver-policy {command}" in capsys.readouterr().out


def test_light_commands_import_neither_torch_nor_ray() -> None:
    code = """
import sys
from training.cli import main
main(["scenarios"])
main(["evaluate", "--agent", "scripted:closest", "--games", "4"])
sys.exit(bool({"ray", "torch"} & sys.modules.keys()))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_evaluate_writes_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    arguments = [
        "evaluate",
        "--agent",
        "scripted:closest",
        "--games",
        "20",
        "--seed",
        "3",
        "--json",
        str(file),
    ]
    assert main(arguments) == 0
    content = json.loads(file.read_text(encoding="utf-8"))
    assert (
        content["games"] == content["wins"] + content["draws"] + content["timeouts"] + content["losses"] == 20
    )
    assert content["wilson_low"] <= content["win_rate"] <= content["wilson_high"]
    assert "scripted:closest" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_evaluate_plays_policies_against_each_other(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--agent", str(run_folder), "--opponent", str(run_folder / "policy"), "--games", "6"]
    assert main(["evaluate", *arguments, "--orders", "sampled"]) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evalute"], "nearest: evaluate"),
        (["evaluate", "--agent", "scripted:kit"], "nearest: kite"),
        (["evaluate", "--agent", "scripted:kite", "--scenario", "3mm"], "nearest: 3m"),
        (["evaluate", "--agent", "scripted:kite", "--game", "3"], "--games"),
        (["evaluate", "--agent", "scripted:kite", "--games", "0"], "--games is 0"),
        (["evaluate", "--agent", "scripted:kite", "--seed", "-1"], "--seed is -1"),
        (["evaluate", "--agent", "scripted:kite", "--json", "no/such/folder/x.json"], "does not exist"),
        (["evaluate", "--agent", "no/such/policy"], "no directory of a policy"),
        (["scenarios", "--check", "no/such.yaml"], "no such file"),
        (["watch", "no/such/replay.jsonl"], "No such file"),
        (["export", "no/such/run", "--out", "x"], "no folder of a run"),
        (["benchmark", "engin"], "engine"),
    ],
)
def test_bad_input(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in refusal(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--scenario", "3n"], "unknown scenario '3n'; nearest: 3m"),
        (["--gama", "1"], "--gamma"),
        (["--gamma", "3"], "gamma is 3.0; it must be from 0 to 1"),
        (["--model-overrides", "encoder.num_latent=3"], "did you mean num_latents"),
        (["--opponent", "scripted:kit"], "nearest: kite"),
        (["--final-games", "-1"], "--final-games is -1"),
    ],
)
def test_bad_training(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(capsys, "train", "--run-dir", str(tmp_path / "run"), *arguments)
    assert expected in " ".join(error.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_training_keeps_off_a_run_that_exists(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--resume" in refusal(capsys, "train", "--run-dir", str(run_folder))


def test_scenario_files_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """\
map: {width: 32, height: 32}
teams:
  - units: {marine: 2}
    spawn: [9, 16]
  - units: {zergling: 4}
    spawn: [23, 16]
step_limit: 50
"""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(text, encoding="utf-8")
    bad.write_text(text.replace("marine", "marin"), encoding="utf-8")
    assert main(["scenarios", "--check", str(good)]) == 0
    assert "4 zergling" in capsys.readouterr().out
    assert "bad.yaml:3" in refusal(capsys, "scenarios", "--check", str(bad))
    assert main(["evaluate", "--agent", "scripted:kite", "--scenario", str(good), "--games", "2"]) == 0


def test_watch_plays_and_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    arguments = ["--agent", "scripted:closest", "--scenario", "3m", "--seed", "5"]
    assert main(["watch", *arguments, "--out", str(first)]) == 0
    assert main(["watch", str(first / "replay.jsonl"), "--out", str(again)]) == 0
    assert "scripted:closest against builtin" in capsys.readouterr().out
    for name in ("replay.jsonl", "battle.html", "battle.gif"):
        assert (first / name).read_bytes() == (again / name).read_bytes()


def test_export_copies_a_runs_policy(run_folder: Path, tmp_path: Path) -> None:
    assert main(["export", str(run_folder), "--out", str(tmp_path / "out")]) == 0
    ours, theirs = load_policy(run_folder / "policy"), load_policy(tmp_path / "out")
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert read_metadata(tmp_path / "out") == {"scenario": "3m"}


def test_export_needs_a_checkpoint_if_told_so(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(capsys, "export", str(run_folder), "--out", str(run_folder / "out"), "--checkpoint")
    assert "holds no checkpoint" in error
