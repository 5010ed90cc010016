"""A gradient that is not finite: the step is not taken, and what it came from is kept and shows it again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.finite_gradients import NonFiniteGradientError
from training.rl.post_mortem import load_failure, reproduce, save_failures
from training.rl.rollout import MODULE_ID, BatchedEnvRunner

TINY_MODEL = ("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8")


def tiny(run_dir: Path) -> TrainConfig:
    return TrainConfig(
        run_dir=run_dir,
        num_battles=8,
        rollout_steps=4,
        minibatch_size=16,
        num_epochs=1,
        entropy_coeff=0.03,
        opponent="scripted:hold",
        model_overrides=TINY_MODEL,
    )


def learner_and_packs(job: TrainConfig):
    config = build_algorithm_config(job)
    runner = BatchedEnvRunner(config=config, worker_index=0)
    learner = config.learner_class(config=config, module_spec=config.get_multi_rl_module_spec())
    learner.build()
    runner.set_state({"rl_module": learner.module.get_state(inference_only=True)})
    return learner, runner.sample()


def update(learner, packs) -> None:
    learner.update(
        episodes=packs,
        timesteps={"num_env_steps_sampled_lifetime": 32},
        num_epochs=1,
        minibatch_size=16,
        shuffle_batch_per_epoch=True,
    )


def weights(learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.module[MODULE_ID].state_dict().items()}


def test_a_reward_that_is_no_number_stops_the_learner_before_the_step(tmp_path):
    job = tiny(tmp_path / "run")
    learner, packs = learner_and_packs(job)
    before = weights(learner)
    packs[0].rewards[0, 0] = np.nan
    with pytest.raises(NonFiniteGradientError, match="norm of the gradient is nan"):
        update(learner, packs)
    for name, tensor in weights(learner).items():
        assert torch.equal(tensor, before[name]), name

    save_failures([learner.failure], tmp_path / "failures" / "step_32", job)
    folder = tmp_path / "failures" / "step_32" / "learner_0"
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pt")]
    facts = json.loads((folder / "failure.json").read_text())
    assert facts["entropy_coeff"] == {MODULE_ID: pytest.approx(0.03)}
    assert facts["non_finite"]["weights"] == []
    assert f"{MODULE_ID}/{Postprocessing.ADVANTAGES}" in facts["non_finite"]["minibatch"]
    kept = load_failure(folder)
    assert len(kept.minibatch[f"{MODULE_ID}/{Columns.ACTIONS}"]) == 16
    for name, tensor in kept.weights.items():
        assert torch.equal(tensor, before[name.removeprefix(f"{MODULE_ID}/")])

    again = reproduce(folder)
    assert again.gradients == kept.gradients
    for name, tensor in again.minibatch.items():
        assert torch.equal(tensor, kept.minibatch[name]) or tensor.isnan().any()


def test_weights_that_overflow_are_reproduced_too(tmp_path):
    """Nothing is wrong with the minibatch: it is the kept weights that break it."""
    job = tiny(tmp_path / "run")
    learner, packs = learner_and_packs(job)
    with torch.no_grad():
        learner.module[MODULE_ID].policy.order_head.verb[2].weight.mul_(1e39)  # the critic stays well
    with pytest.raises(NonFiniteGradientError):
        update(learner, packs)
    save_failures([learner.failure], tmp_path / "kept", job)
    facts = json.loads((tmp_path / "kept" / "learner_0" / "failure.json").read_text())
    assert facts["non_finite"]["minibatch"] == []
    assert reproduce(tmp_path / "kept" / "learner_0").gradients == learner.failure.gradients


def test_a_step_that_is_well_shows_nothing(tmp_path):
    """The reproduction fails for what was kept, not for the way it is taken."""
    job = tiny(tmp_path / "run")
    learner, packs = learner_and_packs(job)
    update(learner, packs)
    assert learner.failure is None
    save_failures([learner._failure({})], tmp_path / "kept", job)
    assert reproduce(tmp_path / "kept" / "learner_0") is None
