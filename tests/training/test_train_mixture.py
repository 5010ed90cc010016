"""A job on a mixture: curves by scenario, a curriculum that resumes, a report."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
import ray
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from perceiver_policy.pretrained import read_metadata
from training import report
from training.mixture_report import finish_mixture
from training.mixture_result import MixtureResult
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.job import train
from training.rl.run_folder import RunFolder, RunFolderError

LADDER = TrainConfig(
    scenario=("marine_1v1", "marine_2v2=2", "marine_1v3"),
    curriculum="ladder",
    curriculum_interval=1,
    num_battles=8,
    rollout_steps=60,
    minibatch_size=64,
    num_epochs=1,
    evaluation_games=16,
    evaluation_interval=2,
    max_env_steps=8 * 60 * 4,
    model_overrides=("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8"),
)


def test_settings_survive_their_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(LADDER.to_yaml())
    assert TrainConfig.load(tmp_path / "config.yaml") == LADDER


def test_what_makes_no_mixture_is_refused() -> None:
    with pytest.raises(ValueError, match="curriculum is 'ladder', but 3m is a single scenario"):
        build_algorithm_config(dataclasses.replace(LADDER, scenario="3m"))
    with pytest.raises(ValueError, match="is a mission"):
        build_algorithm_config(dataclasses.replace(LADDER, scenario=("3m", "move_to_beacon")))
    with pytest.raises(ValueError, match="curriculum is 'hill'"):
        dataclasses.replace(LADDER, curriculum="hill")


@pytest.fixture(scope="module")
def local_ray():
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("local_ray")
def test_a_run_on_a_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ladder's first rung alone, then, as if it had been won, the second; resumed; reported."""
    output = io.StringIO()
    console = Console(file=output, width=200)
    config = dataclasses.replace(LADDER, run_dir=tmp_path / "run")
    first = train(dataclasses.replace(config, max_env_steps=8 * 60 * 2), console=console)
    assert isinstance(first.evaluation, MixtureResult)
    assert list(first.evaluation.results) == ["marine_1v1", "marine_2v2", "marine_1v3"]
    assert first.evaluation.games == 18, "16 on three scenarios, rounded up"
    assert "worst" in output.getvalue()
    folder = RunFolder(config.run_dir)
    checkpoint, _ = folder.latest_checkpoint()
    saved = json.loads((checkpoint / "curriculum.json").read_text())
    assert saved["tallies"]["marine_1v1"]["battles"] > 0
    assert saved["tallies"]["marine_2v2"]["battles"] == saved["tallies"]["marine_1v3"]["battles"] == 0
    saved["num_open"] = 2
    (checkpoint / "curriculum.json").write_text(json.dumps(saved))

    train(TrainConfig(run_dir=config.run_dir, resume=True, max_env_steps=8 * 60 * 4), console=console)
    checkpoint, progress = folder.latest_checkpoint()
    again = json.loads((checkpoint / "curriculum.json").read_text())
    assert progress.env_steps == 8 * 60 * 4
    assert again["tallies"]["marine_1v1"]["battles"] > saved["tallies"]["marine_1v1"]["battles"]
    assert again["tallies"]["marine_2v2"]["battles"] > 0
    assert read_metadata(folder.policy)["scenario"] == ["marine_1v1", "marine_2v2=2", "marine_1v3"]

    events = EventAccumulator(str(folder.tensorboard)).Reload()
    steps = [480 * n for n in (1, 2, 3, 4)]
    for name, shares in (("marine_1v1", [1, 1]), ("marine_2v2", [0, 0]), ("marine_1v3", [0] * 4)):
        told = events.Scalars(f"scenario/{name}/share_of_battles")
        assert [event.step for event in told] == steps
        assert [event.value for event in told][: len(shares)] == shares
    shares = [
        events.Scalars(f"scenario/{name}/share_of_battles")[2].value for name in ("marine_1v1", "marine_2v2")
    ]
    assert sum(shares) == 1
    assert min(shares) > 0
    for curve in ("win_rate", "episode_return", "episode_length"):
        assert [event.step for event in events.Scalars(f"scenario/marine_1v1/{curve}")] == steps
    assert [event.step for event in events.Scalars("scenario/marine_1v3/greedy_win_rate")] == steps[1::2]

    monkeypatch.setattr(report, "ELSEWHERE", ("marine_1v1", "3m"))
    finished = finish_mixture(config.run_dir, scenario=config.scenario, games=4, console=console)
    content = json.loads((config.run_dir / "result.json").read_text())
    assert content["mixture"]["games"] == 12
    assert content["mixture"]["win_rate_mean"] == finished.greedy.mean
    assert content["scenarios"].keys() == {"marine_1v1", "marine_2v2", "marine_1v3"}
    assert content["scenarios"]["marine_1v3"]["scripts"]["focus-fire"]["games"] == 4
    assert content["other_scenarios"].keys() == {"3m"}
    assert (config.run_dir / "battle.html").is_file()

    (checkpoint / "curriculum.json").unlink()
    with pytest.raises(RunFolderError, match=r"curriculum.json does not tell how the scenarios fared"):
        train(TrainConfig(run_dir=config.run_dir, resume=True), console=console)


def test_the_mean_over_scenarios_has_the_interval_of_all_games() -> None:
    results = {"one": _won("one", 3, 10), "two": _won("two", 9, 10)}
    mixture = MixtureResult(results)
    assert (mixture.games, mixture.wins, mixture.mean) == (20, 12, 0.6)
    assert mixture.worst is results["one"]
    low, high = mixture.interval  # Wilson's formula, written out
    z, p, n = 1.959964, 0.6, 20
    centre, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert low == pytest.approx((centre - half) / (1 + z * z / n), abs=1e-5)
    assert high == pytest.approx((centre + half) / (1 + z * z / n), abs=1e-5)


def _won(name: str, wins: int, games: int):
    return type("Result", (), {"scenario": name, "wins": wins, "games": games, "mean": wins / games})()
