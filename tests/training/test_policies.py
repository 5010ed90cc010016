"""From a finished run to the box, and ``perceiver-policy policies``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from envs.battle.compiled import engine_digest
from perceiver_policy import UnitSetPolicy
from perceiver_policy.pretrained import load_policy, save_policy
from training.cli import main
from training.commands import policies as command
from training.evaluate import provenance, wilson
from training.report import RESULT_FILE
from training.rl.config import TrainConfig
from training.rl.run_folder import RunFolder
from training.suite import cards
from training.suite.cards import CardError, add_to_box, make_card
from training.suite.lineage import lineage

SMALL = ("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8")


def summary(wins: int) -> dict:
    low, high = wilson(wins, 100)
    counts = {"wins": wins, "timeouts": 0, "losses": 100 - wins, "draws": 0, "games": 100}
    return {"win_rate": wins / 100, "wilson_low": low, "wilson_high": high} | counts


def finished_run(path: Path, steps: int = 5000, **settings) -> Path:
    """A run's folder as training and evaluation leave it."""
    config = TrainConfig(run_dir=path, model_overrides=SMALL, **settings)
    folder = RunFolder(path)
    folder.write_settings(config)
    torch.manual_seed(0)
    save_policy(UnitSetPolicy(config.load_model()), folder.policy, metadata={"scenario": config.scenario})
    result = {
        **summary(97),
        "scenario": config.scenario,
        "opponent": config.opponent,
        "control": config.control,
        "seed": 0,
        "orders": "greedy",
        "mean_length_steps": 20.5,
        "scripts": {name: summary(wins) for name, wins in (("kite", 68), ("closest", 50))},
        "training": {"env_steps": steps, "train_seconds": 12.5, "stopped_by": "step limit"},
        "command": "whatever was typed",
        **provenance(),
    }
    (path / RESULT_FILE).write_text(json.dumps(result))
    return path


def test_a_card_is_made_from_what_the_run_left(tmp_path: Path) -> None:
    first = finished_run(tmp_path / "3m", steps=4000)
    second = finished_run(tmp_path / "8m", scenario="8m", gamma=0.99, seed=3, init_from=str(tmp_path / "3m"))
    card = make_card(second, "eight")
    assert card["name"] == "eight"
    assert card["seed"] == 3
    assert card["training"]["env_steps"] == 5000
    assert card["started_from"] == [{"name": "3m", "env_steps": 4000, "train_seconds": 12.5}]
    assert list(card["scenarios"]) == ["8m"]
    assert card["scenarios"]["8m"]["result"]["wins"] == 97
    assert card["scenarios"]["8m"]["scripts"]["kite"]["wins"] == 68
    assert card["engine"] == engine_digest()
    assert card["command"] == (
        "perceiver-policy train --scenario 8m --seed 3 --run-dir runs/eight --model-overrides "
        f"{' '.join(SMALL)} --init-from runs/3m --gamma 0.99"
    )
    assert lineage(str(first / "policy")) == lineage(str(first))
    assert lineage(None) == []


def test_a_policy_for_several_scenarios_has_them_all_on_its_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(tmp_path / "run", scenario=("3m", "8m"))
    content = json.loads((run / RESULT_FILE).read_text())
    both = {"3m": content, "8m": {**content, **summary(40)}}
    (run / RESULT_FILE).write_text(json.dumps({"scenarios": both, "training": content["training"]}))
    card = make_card(run, "both")
    assert [one["result"]["wins"] for one in card["scenarios"].values()] == [97, 40]
    assert "--scenario 3m 8m" in card["command"]
    assert card["engine"] == engine_digest()
    monkeypatch.setattr(command, "all_cards", lambda: [card])
    assert main(["policies"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "kite" in line]
    assert [row[:3] for row in rows] == [["policy:both", "3m", "97.0"], ["8m", "40.0", "30.9"]]
    page = command.card_page(card)
    assert "for 3m, 8m against attack-move" in page
    assert "| policy:both | 40.0 | 30.9 to 49.8 |" in page


def test_the_box_gets_the_policy_as_it_is(tmp_path: Path) -> None:
    run, box = finished_run(tmp_path / "run"), tmp_path / "box"
    box.mkdir()
    folder = add_to_box(run, "mine", box)
    assert sorted(file.name for file in folder.iterdir()) == ["card.json", "config.yaml", "model.safetensors"]
    ours, theirs = load_policy(folder).state_dict(), load_policy(run / "policy").state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    add_to_box(run, "mine", box)
    assert [path.name for path in box.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"engine": "older"}, "another engine"),
        ({"scripts": {}}, "lacks the battles"),
        ({"win_rate": None}, "lacks the battles"),
    ],
)
def test_runs_that_may_not_go_into_the_box(changes: dict, expected: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    content = {**json.loads((run / RESULT_FILE).read_text()), **changes}
    (run / RESULT_FILE).write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    with pytest.raises(CardError, match=expected):
        add_to_box(run, "mine", tmp_path)
    with pytest.raises(CardError, match="no finished run"):
        add_to_box(tmp_path, "mine", tmp_path)


def test_large_files_and_wrong_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path / "run")
    with pytest.raises(CardError, match="cannot name a policy"):
        add_to_box(run, "a/b", tmp_path)
    monkeypatch.setattr(cards, "LARGEST", 1000)
    with pytest.raises(CardError, match="where 1,000 are allowed"):
        add_to_box(run, "mine", tmp_path)
    assert not (tmp_path / "mine").exists()


def test_the_command_lists_tells_and_adds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policies"]) == 0
    assert "policy:3m" in capsys.readouterr().out
    for name in ("3m", "policy:3m"):
        assert main(["policies", name]) == 0
        assert "perceiver-policy train --run-dir runs/3m" in capsys.readouterr().out
    assert main(["policies", "3m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "3m"
    added = []
    monkeypatch.setattr(command, "add_to_box", lambda run, name: added.append((run, name)) or tmp_path)
    runs = [finished_run(tmp_path / name) for name in ("one", "two")]
    assert main(["policies", "--add", *map(str, runs)]) == 0
    assert added == [(runs[0], "one"), (runs[1], "two")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["3mm"], "did you mean policy:3m"),
        (["--to", "x"], "--to names what --add adds"),
        (["3m", "--add", "runs/x"], "leave out the name"),
        (["--add", "runs/x", "runs/y", "--to", "x"], "add them one by one"),
        (["--add", "runs/x", "other/x"], "two runs would be called x"),
        (["--add", "no/such/run"], "no finished run"),
    ],
)
def test_bad_input(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["policies", *arguments])
    assert exit_info.value.code == 2
    assert expected in capsys.readouterr().err
