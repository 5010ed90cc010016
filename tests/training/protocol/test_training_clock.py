"""What a training run keeps for the protocol: its evaluations, and a clock that leaves them out."""

import io
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from agents.scripted import ScriptedAgent
from perceiver_policy import UnitSetPolicy
from training.evaluate import evaluate
from training.rl.config import TrainConfig
from training.rl.job import Job, train
from training.rl.rollout import MODULE_ID
from training.rl.run_folder import Progress, RunFolder

TINY_MODEL = ("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8")
GOING_ON = SimpleNamespace(requested=False)


def tiny(run_dir: Path, **changes) -> TrainConfig:
    settings = {
        "run_dir": run_dir,
        "num_battles": 8,
        "rollout_steps": 4,
        "minibatch_size": 16,
        "num_epochs": 1,
        "evaluation_games": 20,
        "evaluation_interval": 1,
        "max_env_steps": 64,
        "model_overrides": TINY_MODEL,
    }
    return TrainConfig(**settings | changes)


class SlowAlgorithm:
    """32 steps an iteration, in a twentieth of a second, and as long to save."""

    def __init__(self):
        self.policy = UnitSetPolicy(TrainConfig(model_overrides=TINY_MODEL).load_model())

    def train(self):
        time.sleep(0.05)
        sampled = {"num_env_steps_sampled": 32, "num_wins": 0, "num_episodes": 0, "num_illegal_orders": 0}
        learned = {"entropy": 1.0, "approximate_kl": 0.0, "explained_variance": 0.0}
        return {"env_runners": sampled, "learners": {MODULE_ID: learned}}

    def get_module(self, _):
        return SimpleNamespace(policy=self.policy)

    def save_to_path(self, path):
        time.sleep(0.05)
        Path(path, "rllib_checkpoint.json").write_text("{}")


class Silent:
    def __getattr__(self, _):
        return lambda *args, **kwargs: None


@pytest.fixture(scope="module")
def battles():
    return evaluate(ScriptedAgent("closest"), "attack-move", "3m", games=4, seed=3)


def test_training_evaluation_and_saving_are_told_apart(tmp_path, battles):
    def slow(_):
        time.sleep(0.3)
        return battles

    begun = Progress(train_seconds=100.0, evaluation_seconds=50.0)
    config = tiny(tmp_path, max_env_steps=96)
    result = Job(config, RunFolder(tmp_path), SlowAlgorithm(), slow, Silent(), begun).run(GOING_ON)
    assert 100.15 <= result.progress.train_seconds < 100.3
    assert 50.9 <= result.progress.evaluation_seconds < 51.3


def test_a_confirming_evaluation_is_kept_beside_the_first(tmp_path, battles):
    config = tiny(tmp_path, max_env_steps=None, target_win_rate=1e-9)
    result = Job(config, RunFolder(tmp_path), SlowAlgorithm(), lambda _: battles, Silent(), Progress()).run(
        GOING_ON
    )
    points = RunFolder(tmp_path).evaluations.points()
    assert [point.env_steps for point in points] == [32, 32]
    assert points[0].train_seconds == result.progress.train_seconds


def test_a_judges_verdict_without_battles_is_not_kept(tmp_path):
    verdict = SimpleNamespace(mean=0.5, interval=(0.4, 0.6))
    Job(tiny(tmp_path), RunFolder(tmp_path), SlowAlgorithm(), lambda _: verdict, Silent(), Progress()).run(
        GOING_ON
    )
    assert RunFolder(tmp_path).evaluations.points() == []


def test_a_run_leaves_its_evaluations_and_a_resumed_one_makes_later_ones_anew(tmp_path):
    """Evaluations after the last checkpoint belong to a future that the run goes back before."""
    console = Console(file=io.StringIO())
    first = train(tiny(tmp_path / "run"), console=console)
    log = RunFolder(tmp_path / "run").evaluations
    assert [point.env_steps for point in log.points()] == [32, 64]
    kept, last = log.points()
    assert (last.result.games, last.result.agent, last.result.scenario) == (20, "policy", "3m")
    assert np.array_equal(last.result.battle_seeds, first.evaluation.battle_seeds)
    assert first.startup_seconds > 0
    assert 0 < kept.train_seconds < last.train_seconds == first.progress.train_seconds
    for lost in (96, 128):  # as if the process had died before it saved
        log.add(last.result, env_steps=lost, train_seconds=1.0)
    second = train(tiny(tmp_path / "run", resume=True, max_env_steps=96), console=console)
    assert [point.env_steps for point in log.points()] == [32, 64, 96]
    assert log.points()[-1].train_seconds == second.progress.train_seconds > first.progress.train_seconds
