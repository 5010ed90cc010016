"""Suites: recipes, standings beside scripts, tables, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from agents.scripted import ScriptedAgent
from envs.battle.compiled import engine_digest
from envs.scenarios import scenario_groups
from perceiver_policy import UnitSetPolicy
from perceiver_policy.pretrained import save_policy
from training.benchmark.calibration import SCRIPTS, Match, Part
from training.cli import main
from training.evaluate import evaluate
from training.report import RESULT_FILE
from training.rl.config import TrainConfig
from training.rl.run_folder import RunFolder
from training.suite import script_results as kept
from training.suite.jobs import Job, longest_first
from training.suite.lineage import Ancestor
from training.suite.page import console_table, markdown, summary
from training.suite.recipes import GROUPS, group_recipe, load_recipe, parse_changes, suite_jobs
from training.suite.runner import place
from training.suite.script_results import script_results
from training.suite.standings import Rate, Standing, Verdict, collect, judge


def standing(name: str = "3m", wins: int = 990, best: int = 700, **more) -> Standing:
    scripts = {script: Rate(best if script == "kite" else 10, 1000) for script in SCRIPTS}
    return Standing(name, Rate(wins, 1000), scripts, 300_000, 61.4, "step limit", "command", **more)


# Recipes


@pytest.mark.parametrize("group", GROUPS)
def test_shipped_recipes_name_every_scenario_of_their_group(group: str) -> None:
    recipe = group_recipe(group)
    assert set(recipe.scenarios) == set(scenario_groups()[group])
    jobs = suite_jobs(recipe, list(recipe.scenarios), Path("runs/suite"))
    order = [job.name for job in longest_first(jobs)]
    assert all(order.index(job.after[0]) < order.index(job.name) for job in jobs if job.after)


def test_smac_fits_into_90_minutes_on_two_cores() -> None:
    """By the estimate, which knows nothing of early ends; each job's start and battles are in it."""
    jobs = suite_jobs(group_recipe("smac"), scenario_groups()["smac"], Path("runs/suite"))
    assert sum(job.seconds for job in jobs) < 2 * 90 * 60


def test_what_counts_most_is_the_changes_then_the_scenario_then_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("""
defaults: {gamma: 0.9, lr: 0.001, adam_betas: [0.8, 0.9]}
scenarios:
  3m: {gamma: 0.95, seed: 3}
  8m: {init_from: suite:3m}
""")
    recipe = load_recipe(file)
    three, eight, other = suite_jobs(
        recipe, ["3m", "8m", "2s3z"], tmp_path / "suite", changes=parse_changes(["seed=7"]), games=5, seed=2
    )
    assert (three.config.gamma, three.config.lr, three.config.seed) == (0.95, 0.001, 7)
    assert (other.config.gamma, other.config.adam_betas, other.config.scenario) == (0.9, (0.8, 0.9), "2s3z")
    assert eight.after == ("3m",)
    assert eight.config.init_from == str(tmp_path / "suite" / "3m")
    assert (eight.games, eight.seed) == (5, 2)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("defaults: {gama: 1}", "no setting 'gama'; did you mean gamma"),
        ("scenarios: {3m: {run_dir: x}}", "run_dir is the suite's business"),
        ("scenarios: {3m: [1]}", "settings must be KEY: VALUE"),
        ("scenarios: [3m]", "scenarios must map names to settings"),
        ("jobs: {}", "keys defaults and scenarios"),
        ("a: [", "is no YAML"),
        ("scenarios: {3m: {gamma: 3}}", "3m: gamma is 3; it must be from 0 to 1"),
        ("scenarios: {3m: {init_from: 'suite:8m'}}", "8m is not in the suite; add it"),
    ],
)
def test_wrong_recipes(content: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(ValueError, match=expected):
        suite_jobs(load_recipe(tmp_path / "recipe.yaml"), ["3m"], tmp_path)


# Standings


@pytest.mark.parametrize(
    ("policy", "script", "expected"),
    [
        (700, 660, Verdict.LEVEL),  # 67.1 to 72.8 and 63.0 to 68.9
        (720, 640, Verdict.ABOVE),  # 69.1 to 74.7 and 61.0 to 66.9
        (999, 1000, Verdict.FULL),
        (995, 995, Verdict.FULL),
        (994, 1000, Verdict.LEVEL),  # 98.7 to 99.7 and 99.6 to 100
        (990, 1000, Verdict.BELOW),
        (1000, 985, Verdict.ABOVE),
        (500, 640, Verdict.BELOW),
    ],
)
def test_verdicts(policy: int, script: int, expected: Verdict) -> None:
    assert judge(Rate(policy, 1000), Rate(script, 1000)) is expected


def test_scripts_are_played_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again only on another engine, other battles, or by another script."""
    match = Match(Part.SMAC, "3m", "scripted:closest", "attack-move", 8, 1)
    calls = []
    play = kept.play
    monkeypatch.setattr(kept, "play", lambda matches, **more: calls.append(matches) or play(matches, **more))
    (first,) = script_results([match], folder=tmp_path, processes=1)
    (again,) = script_results([match], folder=tmp_path, processes=1)
    assert calls == [[match]]
    assert first == again
    expected = evaluate(ScriptedAgent("closest"), "attack-move", "3m", games=8, seed=1).to_dict()
    assert {key: first[key] for key in expected} == expected
    monkeypatch.setattr(kept, "engine_digest", lambda: "another")
    script_results([match], folder=tmp_path, processes=1)
    assert len(calls) == 2
    for file in tmp_path.iterdir():
        file.write_text("{")
    script_results([match], folder=tmp_path, processes=1)
    assert len(calls) == 3


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job that has ended with an untrained policy and an old result."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = ("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8")
    job = place(Job("3m", TrainConfig(model_overrides=small), games=8), tmp_path / "suite")
    run = RunFolder(job.config.run_dir)
    run.write_settings(job.config)
    torch.manual_seed(0)
    save_policy(UnitSetPolicy(job.config.load_model()), run.policy, metadata={"scenario": "3m"})
    training = {"env_steps": 64, "train_seconds": 1.5, "stopped_by": "step limit"}
    result = {"engine": "older", "games": 8, "seed": 0, "training": training, "command": "perceiver-policy"}
    (run.path / RESULT_FILE).write_text(json.dumps(result))
    return job


def test_what_is_missing_is_played(finished: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    other = place(Job("8m", TrainConfig(), games=8), finished.config.run_dir.parent)
    (first,) = collect([finished, other], processes=1)
    assert first.scenario == "3m"
    assert first.policy.games == 8
    assert tuple(first.scripts) == SCRIPTS
    assert first.env_steps == 64
    result = json.loads((finished.config.run_dir / RESULT_FILE).read_text())
    assert result["engine"] == engine_digest()
    assert result["scripts"]["kite"]["wins"] == first.scripts["kite"].wins
    monkeypatch.setattr("training.suite.standings.play", lambda matches, **_: [] if not matches else 1 / 0)
    assert collect([finished], processes=1) == [first]  # nothing is played again


# Tables


def test_tables_tell_who_is_best_and_what_fell_short() -> None:
    standings = [
        standing("3m"),
        standing("8m", wins=700, best=710, started_from=[Ancestor("3m", 300_000, 61.4)]),
    ]
    page = markdown(standings, command="perceiver-policy suite", processes=2, seconds=5000.0)
    assert "`perceiver-policy suite`, 2 jobs at a time, 83 minutes" in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows[0].startswith("| `3m` | 99.0 [98, 99] | 1.0 [1, 2] |")
    assert "**70.0 [67, 73]** | above | 300,000 | 61 |" in rows[0]
    assert "**71.0 [68, 74]** | level | 3m + 300,000 | 61 |" in rows[1]
    assert summary(standings).endswith("on 1 of 2. Not on 8m (level).")
    assert page.rstrip().endswith(summary(standings))
    table = console_table("title", standings)
    assert list(table.columns[5].cells) == ["above", "level"]


# The command


def test_the_command_reports_on_what_has_finished(finished: Job, capsys: pytest.CaptureFixture[str]) -> None:
    directory = finished.config.run_dir.parent
    arguments = ["suite", "--scenarios", "3m", "8m", "--run-dir", str(directory), "--games", "8", "--report"]
    assert main([*arguments, "--processes", "1"]) == 0
    printed = capsys.readouterr().out
    assert "on 0 of 1. Not on 3m" in printed
    content = json.loads((directory / "suite.json").read_text())
    assert content["engine"] == engine_digest()
    assert [one["scenario"] for one in content["scenarios"]] == ["3m"]
    assert "--report" not in content["command"]
    assert "| `3m` |" in (directory / "suite.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--scenarios", "3n"], "nearest: 3m"),
        (["--scenarios", "3m", "3m"], "3m is named twice"),
        (["--changes", "gama=1"], "did you mean gamma"),
        (["--changes", "seed"], "must be KEY=VALUE"),
        (["--games", "0"], "--games is 0"),
        (["--processes", "0"], "--processes is 0"),
        (["--recipe", "no/such.yaml"], "No such file"),
        (["--scenarios", "25m"], "25m starts from suite:8m, and 8m is not in the suite"),
        (["--scenarios", "3m", "move_to_beacon"], "move_to_beacon is a mission"),
        (["--report", "--run-dir", "no/such/folder"], "nothing has finished"),
    ],
)
def test_bad_input(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["suite", *arguments])
    assert exit_info.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_a_suite_from_beginning_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two policies, the second from the first's weights; called again, nothing is left to do."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = tmp_path / "recipe.yaml"
    settings = {"max_env_steps": 4096, "evaluation_games": 20, "num_battles": 64, "minibatch_size": 256}
    scenarios = {"3m": {}, "8m": {"init_from": "suite:3m"}}
    recipe.write_text(yaml.safe_dump({"defaults": settings, "scenarios": scenarios}))
    arguments = ["suite", "--recipe", str(recipe), "--run-dir", str(tmp_path / "suite"), "--games", "10"]
    assert main(arguments) == 0
    content = json.loads((tmp_path / "suite" / "suite.json").read_text())
    assert [one["scenario"] for one in content["scenarios"]] == ["3m", "8m"]
    assert all(one["env_steps"] >= 4096 for one in content["scenarios"])
    assert [one["name"] for one in content["scenarios"][1]["started_from"]] == ["3m"]
    assert content["wall_seconds"] > 0
    assert main(arguments) == 0
    assert json.loads((tmp_path / "suite" / "suite.json").read_text())["scenarios"] == content["scenarios"]
