"""The dead teach nothing and are seen by nobody; the team's return goes on without them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.learner import OrderPPOLearner
from training.rl.pack import RolloutPack
from training.rl.rollout import MODULE_ID, BatchedEnvRunner

SMALL = TrainConfig(
    num_battles=8,
    rollout_steps=30,
    minibatch_size=60,
    control="unit",
    model_overrides=("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8"),
)
ALGORITHMS = pytest.mark.parametrize("algorithm", ["ppo", "mappo"])


def make(algorithm: str) -> tuple[OrderPPOLearner, RolloutPack]:
    """A learner, and a rollout of its policy's in which somebody has died."""
    config = build_algorithm_config(dataclasses.replace(SMALL, algorithm=algorithm))
    runner = BatchedEnvRunner(config=config, worker_index=0)
    learner = OrderPPOLearner(
        config=config, module_spec=config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    )
    learner.build()
    learner.module.set_state(runner.module.get_state())
    for _ in range(2):
        (pack,) = runner.sample()
    return learner, pack


def train_batch(learner: OrderPPOLearner, pack: RolloutPack) -> dict:
    return learner._learner_connector(rl_module=learner.module, batch={}, episodes=[pack], shared_data={})[
        MODULE_ID
    ]


def gradients(learner: OrderPPOLearner, batch: dict) -> list[Tensor]:
    loss = learner.compute_loss_for_module(
        module_id=MODULE_ID,
        config=learner.config.get_config_for_module(MODULE_ID),
        batch=batch,
        fwd_out=learner.module[MODULE_ID].forward_train(batch),
    )
    parameters = list(learner.module[MODULE_ID].parameters())
    return [g for g in torch.autograd.grad(loss, parameters, allow_unused=True) if g is not None]


@ALGORITHMS
def test_what_the_dead_stand_for_changes_no_gradient(algorithm: str) -> None:
    """Neither what they see, nor the state beside it, nor what is computed for them."""
    learner, pack = make(algorithm)
    batch = train_batch(learner, pack)
    dead = ~batch[Columns.LOSS_MASK][:, 0]
    assert dead.any()
    expected = gradients(learner, batch)
    seen = {key: column.clone() for key, column in batch[Columns.OBS].items()}
    for key, column in seen.items():
        if column.is_floating_point():
            column[dead] += torch.rand_like(column[dead])
        elif key.endswith("unit_mask"):
            column[dead] = ~column[dead]
    changed = {**batch, Columns.OBS: seen}
    for key in (Postprocessing.ADVANTAGES, Postprocessing.VALUE_TARGETS, Columns.ACTION_LOGP):
        changed[key] = torch.where(dead[:, None], 1e3, batch[key])
    for ours, theirs in zip(gradients(learner, changed), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


@ALGORITHMS
def test_values_of_the_dead_are_in_no_target(algorithm: str) -> None:
    """Nor in an advantage, nor in the statistics: where a value was taken of a dead unit, any will do."""
    learner, pack = make(algorithm)
    alive = pack.observations["controlled_mask"][:-1, ..., 0].reshape(pack.values.shape)
    assert not alive.all()
    noisy = dataclasses.replace(pack, values=np.where(alive, pack.values, 1e6).astype(np.float32))
    before = {name: tensor.clone() for name, tensor in learner.module[MODULE_ID].state_dict().items()}
    batches, statistics = [], []
    for each in (pack, noisy):
        learner.module[MODULE_ID].load_state_dict(before)
        batches.append(train_batch(learner, each))
        statistics.append(learner.module[MODULE_ID].policy.critic.mean.item())
    assert statistics[0] == statistics[1]
    assert (statistics[0] != 0) == (algorithm == "mappo")
    for key in (Postprocessing.ADVANTAGES, Postprocessing.VALUE_TARGETS):
        torch.testing.assert_close(batches[0][key], batches[1][key], rtol=0, atol=0)


def test_the_state_holds_the_living_and_is_the_same_for_all_units() -> None:
    """A dead unit's row is masked out of it, zero, whoever's value is asked for."""
    learner, pack = make("mappo")
    batch = train_batch(learner, pack)
    num_steps, num_battles = pack.rewards.shape
    state = {
        key: column.numpy().reshape(num_battles, -1, num_steps, *column.shape[1:])
        for key, column in batch[Columns.OBS].items()
        if key.startswith("state_")
    }
    own = pack.num_observers
    for column in state.values():
        np.testing.assert_array_equal(column, np.broadcast_to(column[:, :1], column.shape))
    alive = batch[Columns.LOSS_MASK].numpy().reshape(num_battles, own, num_steps)
    shown = state["state_unit_mask"][:, 0, :, :own].swapaxes(1, 2)  # own rows come first, in the units' order
    np.testing.assert_array_equal(shown, alive)
    assert not state["state_units"][:, 0, :, :own].swapaxes(1, 2)[~alive].any()


@ALGORITHMS
def test_the_return_goes_on_behind_a_death(algorithm: str) -> None:
    """A unit that is about to die is told of what the others will be paid: all units of a battle, and so
    those that die later, have one target."""
    learner, pack = make(algorithm)
    batch = train_batch(learner, pack)
    num_steps, num_battles = pack.rewards.shape
    targets = batch[Postprocessing.VALUE_TARGETS].numpy().reshape(num_battles, -1, num_steps)
    np.testing.assert_array_equal(targets, np.broadcast_to(targets[:, :1], targets.shape))
    alive = batch[Columns.LOSS_MASK].numpy().reshape(targets.shape)
    dies = alive[..., :-1] & ~alive[..., 1:] & ~pack.dones.T[:, None, :-1]
    assert dies.any()
    # Were its return to end with it, the target would be the step's reward.
    rewards = np.broadcast_to(pack.rewards.T[:, None, :-1], dies.shape)
    assert np.abs(targets[..., :-1] - rewards)[dies].max() > 1e-3
