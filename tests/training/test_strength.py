"""The time to strength, with a training that is only told."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from training.benchmark import strength
from training.benchmark.strength import Attempt, measure, rows, strength_configs
from training.cli import main
from training.rl import TrainConfig, TrainResult
from training.rl.job import StoppedBy
from training.rl.run_folder import Progress
from training.suite.recipes import group_recipe

SECONDS = {0: 12.0, 1: 8.0, 2: 30.0, 3: 9.0, 4: 50.0}


def told(config: TrainConfig) -> TrainResult:
    """Seed 4 spends its budget."""
    assert not config.run_dir.exists()
    config.run_dir.mkdir()
    reached = config.seed != 4
    progress = Progress(
        env_steps=1000 * (config.seed + 1),
        train_seconds=SECONDS[config.seed],
        evaluation_seconds=3.0,
    )
    stopped_by = StoppedBy.TARGET if reached else StoppedBy.STEP_LIMIT
    return TrainResult(progress, None, stopped_by, config.run_dir, startup_seconds=6.0)


def made(configs, train_one=told) -> dict[str, strength.Row]:
    console = Console(file=io.StringIO())
    return {row.name: row for row in measure("it", configs=configs, train_one=train_one, console=console)}


def test_the_median_counts_a_seed_that_failed_as_slowest():
    by_name = made(strength_configs("3m", 5))
    assert by_name["strength/3m/seeds"].ours == 4
    assert by_name["strength/3m/seeds"].unit == "of 5 got there"
    # 8 9 12 30 and one that took forever
    assert by_name["strength/3m/training"].ours == 12.0
    assert by_name["strength/3m/training"].spread == pytest.approx((30 - 8) / 12)
    assert by_name["strength/3m/steps"].ours == 3000, "of 1000 to 4000 steps and never"
    assert by_name["strength/3m/start-up"].ours == 6.0
    assert by_name["strength/3m/evaluations"].ours == 3.0
    json.dumps([row.to_dict() for row in by_name.values()], allow_nan=False)


def test_where_half_fail_there_is_no_median():
    attempts = [Attempt(seed, seed < 2, 10.0, 5.0, 3.0, 100) for seed in range(4)]
    assert [row.name for row in rows("3m", attempts, "it")] == [
        "strength/3m/seeds",
        "strength/3m/start-up",
        "strength/3m/evaluations",
    ]


def test_the_job_is_the_suites_from_chance():
    configs = strength_configs("8m_vs_9m", 2, ["gamma=0.9"])
    assert [config.seed for config in configs] == [0, 1]
    config = configs[0]
    assert config.max_env_steps == group_recipe("smac").defaults["max_env_steps"]
    assert config.init_from is None
    assert config.gamma == 0.9
    assert (config.target_win_rate, config.evaluation_games) == (0.95, 1000)


def test_scenarios_come_one_after_another_and_leave_nothing():
    folders: list[Path] = []

    def noting(config):
        folders.append(config.run_dir)
        return told(config)

    by_name = made([*strength_configs("3m", 2), *strength_configs("8m", 1)], noting)
    assert (by_name["strength/3m/seeds"].ours, by_name["strength/8m/seeds"].ours) == (2, 1)
    assert by_name["strength/3m/training"].ours == 10.0
    assert len(set(folders)) == 3
    assert not any(folder.exists() for folder in folders)


def test_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(strength, "train", told)
    monkeypatch.setattr(strength, "_compile", lambda scenario: None)
    file = tmp_path / "strength.json"
    assert main(["benchmark", "strength", "--scenario", "3m", "--seeds", "5", "--json", str(file)]) == 0
    said = capsys.readouterr()
    assert "seed 4: not there after 50.0 s of training" in said.err
    by_name = {row["name"]: row for row in json.loads(file.read_text())}
    assert by_name["strength/3m/training"]["ours"] == 12.0
    assert by_name["strength/3m/training"]["command"].endswith("benchmark strength --scenario 3m --seeds 5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["strength", "--seeds", "0"], "seeds is 0"),
        (["strength", "--scenario", "3m", "3m"], "each once"),
        (["strength", "--scenario", "move_to_beacon"], "is a mission"),
        (["strength", "--changes", "gamma=3"], "gamma is 3"),
        (["engine", "--seeds", "3"], "--seeds is for strength and torsos"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["benchmark", *arguments])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err
