"""Run folders as training leaves them, without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from envs.battle.batch import Control, Outcome
from perceiver_policy import UnitSetPolicy
from perceiver_policy.pretrained import save_policy
from training.evaluate import EvaluationResult
from training.rl.config import TrainConfig
from training.rl.run_folder import RunFolder

TINY_MODEL = ("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8")


def evaluation(wins: int, games: int, scenario: str = "3m") -> EvaluationResult:
    """An evaluation with so many wins, the first ones."""
    outcomes = np.full(games, Outcome.WIN_1, np.int8)
    outcomes[:wins] = Outcome.WIN_0
    return EvaluationResult(
        scenario=scenario,
        agent="policy",
        opponent="attack-move",
        seed=0,
        control=Control.TEAM,
        deterministic=True,
        outcomes=outcomes,
        side=np.zeros(games, np.int8),
        battle_seeds=np.arange(games, dtype=np.uint64),
        lengths=np.full(games, 20, np.int32),
        returns=np.linspace(0, 1, games, dtype=np.float32),
        tactics=np.zeros(games, np.int8),
    )


@pytest.fixture
def outcome_of() -> Callable[..., EvaluationResult]:
    """``outcome_of(wins, games, scenario="3m")``."""
    return evaluation


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """``make_run(name, wins=(w1, w2, ...), **settings)``: a finished run in tmp_path whose evaluations after
    1,000, 2,000, ... steps had so many wins of 10."""

    def make(name: str, wins: tuple[int, ...] = (2, 5), **settings: object) -> Path:
        overrides = (*TINY_MODEL, *settings.pop("model_overrides", ()))
        config = TrainConfig(
            **{"run_dir": tmp_path / name, "evaluation_games": 4, "model_overrides": overrides, **settings}
        )
        folder = RunFolder(config.run_dir)
        folder.write_settings(config)
        torch.manual_seed(config.seed)
        save_policy(
            UnitSetPolicy(config.load_model()),
            folder.policy,
            metadata={
                "scenario": config.scenario,
                "control": config.control,
                "swap_sides": config.swap_sides,
            },
        )
        for index, count in enumerate(wins):
            folder.evaluations.add(
                evaluation(count, 10, config.scenario),
                env_steps=1000 * (index + 1),
                train_seconds=index + 1.0,
            )
        return config.run_dir

    return make
