"""The command line: what it writes, how it refuses, and that it imports no more than a command needs."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from envs.battle.batch import Control
from envs.battle.replay import read_replay
from envs.scenarios import load_scenario, scenario_names
from perceiver_policy import UnitSetPolicy, UnitSetPolicyConfig
from perceiver_policy.pretrained import load_policy, read_metadata, save_policy
from training.cli import COMMANDS, main
from training.commands.scenarios import map_rows
from training.rl.job import StoppedBy, TrainResult
from training.rl.run_folder import Progress


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_policy(
        UnitSetPolicy(UnitSetPolicyConfig()), tmp_path / "run" / "policy", metadata={"scenario": "3m"}
    )
    return tmp_path / "run"


BEACON = ("evaluate", "--agent", "scripted:collect", "--scenario", "move_to_beacon")


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
        (["scenarios", "corridr"], "nearest: corridor"),
        (["scenarios", "3m", "--check", "x.yaml"], "not both"),
        ([*BEACON, "--opponent", "scripted:kite"], "no units on side 1"),
        (["watch", "--opponent", "scripted:kite", "--scenario", "move_to_beacon"], "no units on side 1"),
        ([*BEACON, "--opponent", "attack-move", "kite"], "no units on side 1"),
        (["evaluate", "--agent", "scripted:kite", "--scenario", "3m@smack"], "unknown preset 'smack'"),
        (["watch", "no/such/replay.jsonl"], "No such file"),
        (["watch", "--film", "battle.avi"], ".gif, .mp4"),
        (["watch", "--film", "elsewhere/battle.gif"], "give a name"),
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
        (["--adam-betas", "0.9", "1.5"], "adam_betas is (0.9, 1.5)"),
        (["--model-overrides", "encoder.num_latents=["], "'[' is no YAML value"),
        (["--model-overrides", "encoder={}=1"], "is no YAML value"),
        (["--model-overrides", "critic=[1]"], "critic"),
        (["--rewards", "wins=1"], "did you mean win?"),
        (["--rewards", "win=much"], "'win=much' must be win=NUMBER"),
        (["--scenario", "move_to_beacon", "--target-win-rate", "0.9"], "move_to_beacon is a mission"),
        (["--scenario", "move_to_beacon", "--opponent", "scripted:kite"], "no units on side 1"),
    ],
)
def test_bad_training(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(capsys, "train", "--run-dir", str(tmp_path / "run"), *arguments)
    assert expected in " ".join(error.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_training_keeps_off_what_is_there(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "choose another --run-dir" in refusal(capsys, "train", "--run-dir", str(run_folder))


NO_FILES = Path("/proc/no-files")
"""Nothing can be made there, not even by root, whom permissions do not stop."""
needs_proc = pytest.mark.skipif(not NO_FILES.parent.is_dir(), reason="no /proc on this system")


@needs_proc
def test_places_that_cannot_be_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    """Found before anything is played or trained."""
    assert "cannot hold a run" in refusal(capsys, "train", "--run-dir", str(NO_FILES))
    play = ["--agent", "scripted:kite", "--games", "1000000000"]
    assert "/proc cannot be written to" in refusal(capsys, "evaluate", *play, "--json", f"{NO_FILES}.json")
    assert "/proc" in refusal(capsys, "watch", "--out", str(NO_FILES))
    assert "/proc cannot be written to" in refusal(capsys, "watch", "--out", str(NO_FILES.parent))
    assert "/proc cannot be written to" in refusal(
        capsys, "benchmark", "engine", "--json", f"{NO_FILES}.json"
    )


@pytest.mark.parametrize("content", ["a: [", "- 1", "lr: 3", "run_dir: x\nlr: much"])
def test_a_wrong_settings_file_is_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(content, encoding="utf-8")
    error = refusal(capsys, "train", "--run-dir", str(tmp_path), "--resume")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "config.yaml" in error


def test_an_interrupted_training_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the loop, in it at the second signal, and in the report after it: one line and code 130."""
    run_dir = tmp_path / "a run"
    arguments = ["train", "--run-dir", str(run_dir)]

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.commands.train.build_algorithm_config", interrupt)
        assert main(arguments) == 130
    assert capsys.readouterr().err == "Interrupted; nothing had begun; the same command begins it\n"
    with monkeypatch.context() as patch:
        patch.setattr("training.rl.local_ray.ray.init", interrupt)
        assert main(arguments) == 130
    expected = f"Interrupted; go on with: perceiver-policy train --run-dir '{run_dir}' --resume\n"
    assert capsys.readouterr().err == expected
    result = TrainResult(Progress(), None, StoppedBy.STEP_LIMIT, run_dir / "policy")
    with monkeypatch.context() as patch:
        patch.setattr("training.commands.train.train", lambda job: result)
        patch.setattr("training.commands.train.finish_run", interrupt)
        assert main([*arguments, "--resume"]) == 130
    assert capsys.readouterr().err == expected


def test_other_commands_start_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.commands.evaluate.evaluate", interrupt)
    assert main(["evaluate", "--agent", "scripted:hold"]) == 130
    assert "the same command starts over" in capsys.readouterr().err


def test_several_opponents_are_reported_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bare name is the engine's player, a prefixed one the script; pools tell their tactics."""
    file = tmp_path / "result.json"
    play = ["evaluate", "--agent", "scripted:focus-fire", "--games", "20", "--json", str(file)]
    names = ["builtin", "focus-fire", "scripted:focus-fire", "mixed", "black-box"]
    assert main([*play, "--opponent", *names]) == 0
    printed = capsys.readouterr().out
    assert "against black-box" in printed
    assert "black-box, won % by tactic: flank " in printed
    content = json.loads(file.read_text(encoding="utf-8"))
    assert list(content["opponents"]) == ["attack-move", *names[1:]]
    assert {entry["games"] for entry in content["opponents"].values()} == {20}
    assert main([*play, "--opponent", "mixed"]) == 0
    assert json.loads(file.read_text(encoding="utf-8"))["opponent"] == "mixed"
    capsys.readouterr()
    assert "each once" in refusal(capsys, *play, "--opponent", "builtin", "attack-move")
    assert "scripted:kite plays alike" in refusal(capsys, "evaluate", "--agent", "kite")


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


def test_every_scenario_is_listed_with_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenarios"]) == 0
    printed = capsys.readouterr().out
    words = printed.split()
    assert all(name in words for name in scenario_names())
    assert printed.index("Mini-games") < printed.index("move_to_beacon") < printed.index("Large battles")
    assert "nobody" in words  # the second team of missions without enemies
    assert "mineral_shard" in printed


def test_a_scenarios_map_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenarios", "bane_vs_bane@smac"]) == 0
    printed = capsys.readouterr().out
    assert "bane_vs_bane@smac" in printed
    rows = [line for line in printed.splitlines() if line and set(line) <= set("#.ABab*")]
    # Playable are x and y from 5 to 27: (16, 21) is column 11 of the row 16 above the bottom.
    assert len(rows) == 22
    assert rows[0] == "####..............####"
    assert rows[21 - 16][11] == "B"
    assert rows[21 - 6][11] == "A"
    assert "A at 16, 11: 20 zergling" in printed


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_has_a_map(name: str) -> None:
    scenario = load_scenario(name)
    rows = map_rows(scenario)
    assert len({len(row) for row in rows}) == 1
    assert len(rows[0]) <= 100
    drawn = "".join(rows)
    assert ("A" in drawn, "B" in drawn) == (name != "find_and_defeat_zerglings", scenario.teams[1].size > 0)


def test_evaluate_scores_missions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    play = ["--agent", "scripted:search", "--scenario", "find_and_defeat_zerglings", "--opponent", "mixed"]
    assert main(["evaluate", *play, "--games", "3", "--json", str(file)]) == 0
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["score_low"] <= content["score_mean"] <= content["score_high"]
    assert "won %" not in capsys.readouterr().out


def test_watch_shows_a_mission_under_a_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    play = ["--agent", "scripted:collect", "--scenario", "collect_mineral_shards@smac"]
    assert main(["watch", *play, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "collect_mineral_shards@smac, scripted:collect against" in printed
    assert "after 240 steps" in printed


def test_watch_plays_and_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    arguments = ["--agent", "scripted:closest", "--scenario", "3m", "--seed", "5"]
    assert main(["watch", *arguments, "--out", str(first)]) == 0
    assert main(["watch", str(first / "replay.jsonl"), "--out", str(again)]) == 0
    assert "scripted:closest against attack-move" in capsys.readouterr().out
    for name in ("replay.jsonl", "battle.html", "battle.gif"):
        assert (first / name).read_bytes() == (again / name).read_bytes()


def test_export_copies_a_runs_policy(run_folder: Path, tmp_path: Path) -> None:
    assert main(["export", str(run_folder), "--out", str(tmp_path / "out")]) == 0
    ours, theirs = load_policy(run_folder / "policy"), load_policy(tmp_path / "out")
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert read_metadata(tmp_path / "out") == {"scenario": "3m"}


class Bomb:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("arguments", [[], ["--checkpoint"]])
def test_export_unpickles_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint's export is copied; RLlib's pickles beside it are left alone, even without an export."""
    mark, run = tmp_path / "mark", tmp_path / "run"
    checkpoint = run / "checkpoints" / "step_000000000064"
    module = checkpoint / "learner_group" / "learner" / "rl_module" / "policy"
    module.mkdir(parents=True)
    (checkpoint / "progress.json").write_text("{}", encoding="utf-8")
    for file in ("class_and_ctor_args.pkl", "module_state.pkl"):
        (module / file).write_bytes(pickle.dumps(Bomb(mark)))
    (module / "rllib_checkpoint.json").write_text("{}", encoding="utf-8")
    error = refusal(capsys, "export", str(run), "--out", str(tmp_path / "out"), *arguments)
    assert "an export is one with" in error
    policy = UnitSetPolicy(UnitSetPolicyConfig())
    save_policy(policy, checkpoint / "policy", metadata={"env_steps": 64})
    assert main(["export", str(run), "--out", str(tmp_path / "out"), *arguments]) == 0
    assert read_metadata(tmp_path / "out") == {"env_steps": 64}
    exported = load_policy(tmp_path / "out")
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), exported.parameters(), strict=True))
    assert not mark.exists()


def test_policies_are_played_as_they_were_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def played(*arguments: str) -> tuple[str, set[str]]:
        play = ["evaluate", "--agent", str(tmp_path), "--games", "4", "--json", str(tmp_path / "result.json")]
        assert main([*play, *arguments]) == 0
        content = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
        return content["control"], set(content["sides"])

    metadata = {"control": "unit", "swap_sides": False}
    policy = UnitSetPolicy(UnitSetPolicyConfig())
    save_policy(policy, tmp_path / "policy", metadata=metadata)
    assert played() == ("unit", {"first"})
    assert played("--control", "team", "--sides", "both") == ("team", {"first", "second"})
    capsys.readouterr()
    assert main(["watch", "--agent", str(tmp_path), "--scenario", "3m", "--out", str(tmp_path / "out")]) == 0
    assert read_replay(tmp_path / "out" / "replay.jsonl").control is Control.UNIT
    save_policy(policy, tmp_path / "policy", metadata={})
    assert played() == ("team", {"first", "second"})
    assert played("--sides", "first") == ("team", {"first"})
    capsys.readouterr()
    save_policy(policy, tmp_path / "policy", metadata={"control": "swarm"})
    assert "known: team, unit" in refusal(capsys, "evaluate", "--agent", str(tmp_path))
    sides = ["--scenario", "3s_vs_5z", "--sides", "both"]
    assert "--sides is both" in refusal(capsys, "evaluate", "--agent", "scripted:hold", *sides)


def test_export_needs_a_checkpoint_if_told_so(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(capsys, "export", str(run_folder), "--out", str(run_folder / "out"), "--checkpoint")
    assert "holds no checkpoint" in error
