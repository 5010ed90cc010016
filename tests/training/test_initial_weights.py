"""Runs that start from a policy: the weights arrive everywhere, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perceiver_policy import UnitSetPolicy
from perceiver_policy.pretrained import save_policy
from training.rl.algorithm_life import push_weights
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.initial_weights import load_initial, start_from
from training.rl.local_ray import local_ray
from training.rl.rollout import MODULE_ID

TINY = {
    "num_battles": 8,
    "rollout_steps": 4,
    "minibatch_size": 16,
    "model_overrides": (
        "encoder.num_latents=2",
        "encoder.num_latent_channels=8",
        "unit_input.num_channels=8",
    ),
}


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """The folder of a run with a policy of the tiny model."""
    torch.manual_seed(1)
    save_policy(UnitSetPolicy(TrainConfig(**TINY).load_model()), tmp_path / "run" / "policy")
    return tmp_path / "run"


def test_learner_and_runner_start_from_it(teacher: Path) -> None:
    config = TrainConfig(init_from=str(teacher), **TINY)
    policy = load_initial(config)
    assert policy is not None
    with local_ray(num_cpus=1):
        algorithm = build_algorithm_config(config).build_algo()
        try:
            learner = algorithm.learner_group._learner
            runner = algorithm.env_runner
            optimizers = {name: value.state_dict() for name, value in learner._named_optimizers.items()}
            start_from(algorithm, policy)
            push_weights(algorithm)
            for module in (learner.module[MODULE_ID], runner.module[MODULE_ID]):
                found = module.policy.state_dict()
                for name, expected in policy.state_dict().items():
                    torch.testing.assert_close(found[name], expected, rtol=0, atol=0)
            after = {name: value.state_dict() for name, value in learner._named_optimizers.items()}
            assert str(after) == str(optimizers)
            algorithm.train()  # Adam updates the weights that were set, not copies of them
            moved = learner.module[MODULE_ID].policy.state_dict()
            shifts = [(moved[name] - value).abs().max() for name, value in policy.state_dict().items()]
            assert 0 < max(shifts) < 0.1
        finally:
            algorithm.stop()


def test_from_chance_by_default() -> None:
    assert load_initial(TrainConfig(**TINY)) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"init_from": "no/such/run"}, "neither policy:NAME nor the folder"),
        ({"init_from": "policy:no_such"}, "no policy 'no_such' in the box"),
        ({"model_overrides": ("encoder.num_latents=3",)}, "differs from the job's in encoder"),
        ({"algorithm": "mappo"}, "critic reads no state.*a policy of mappo's, or train by ppo"),
    ],
)
def test_what_does_not_fit(changes: dict, expected: str, teacher: Path) -> None:
    with pytest.raises(ValueError, match=expected):
        load_initial(TrainConfig(**{**TINY, "init_from": str(teacher), **changes}))
