"""A policy with memory in the batched runner: what is remembered, and what training unrolls."""

import dataclasses

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing

from perceiver_policy.rl_module import BEGINS, LATENTS
from training.rl.advantages import generalized_advantages
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.rollout import MODULE_ID, BatchedEnvRunner

SMALL = TrainConfig(
    num_battles=6,
    rollout_steps=24,
    minibatch_size=72,
    model_overrides=(
        "encoder.num_latents=2",
        "encoder.num_latent_channels=8",
        "unit_input.num_channels=8",
        "memory=true",
    ),
)


def make(**changes):
    """A runner and a learner with the same weights, in which what is remembered matters."""
    config = build_algorithm_config(dataclasses.replace(SMALL, **changes))
    runner = BatchedEnvRunner(config=config, worker_index=0)
    learner = config.learner_class(
        config=config, module_spec=config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    )
    learner.build()
    with torch.no_grad():
        runner.module[MODULE_ID].policy.memory_norm.weight.fill_(3.0)
    learner.module.set_state(runner.module.get_state())
    return runner, learner


def observer_of(pack, t: int, index: int) -> dict[str, torch.Tensor]:
    """What one observer sees before step t, as a batch of one."""
    return {
        key: torch.from_numpy(pack.rows(key, slice(t, t + 1))[index : index + 1]) for key in pack.observations
    }


@pytest.mark.parametrize("control", ["team", "unit"])
def test_each_observer_remembers_its_own_battle(control):
    """Step by step, observer by observer: forgotten where a battle begins, kept from rollout to rollout."""
    runner, _ = make(control=control)
    first, second = (runner.sample()[0] for _ in range(2))
    policy = runner.module[MODULE_ID].policy
    assert second.dones.any()
    num_observers = {"team": 1, "unit": 3}[control]
    assert not first.states[0].any()
    for index in range(0, first.values.shape[1], 2):
        state = policy.initial_state(1)
        for pack in (first, second):
            np.testing.assert_allclose(pack.states[0][index], state[0].numpy(), atol=1e-5)
            for t in range(SMALL.rollout_steps):
                with torch.no_grad():
                    output = policy(observer_of(pack, t, index), state)
                    orders = torch.from_numpy(pack.orders[t, index : index + 1])
                    log_prob, value = output.evaluate(orders).log_prob, output.value
                np.testing.assert_allclose(pack.log_probs[t, index], log_prob[0].numpy(), atol=1e-5)
                np.testing.assert_allclose(pack.values[t, index], value.item(), atol=1e-5)
                ended = pack.dones[t, index // num_observers]
                state = policy.initial_state(1) if ended else output.latents
            np.testing.assert_allclose(pack.states[1][index], state[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"control": "unit"}, {"algorithm": "appo", "num_env_runners": 1}])
def test_training_unrolls_what_was_sampled(changes):
    """With unchanged weights every ratio of the unrolled sequences is 1, over the ends of battles, too."""
    runner, learner = make(**changes)
    runner.sample()
    (pack,) = runner.sample()
    assert pack.dones[:-1].any()
    assert pack.states[0].any()
    (whole,) = learner._create_iterator_if_necessary(training_data=_packs([pack]), num_epochs=1)
    batch = whole[MODULE_ID]
    with torch.no_grad():
        logits = learner.module[MODULE_ID].forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    distribution = learner.module[MODULE_ID].get_train_action_dist_cls().from_logits(logits)
    mask = batch[Columns.LOSS_MASK]
    ratio = (distribution.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]).exp()[mask]
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-4)
    with torch.no_grad():
        forgetful = learner.module[MODULE_ID].forward_train({**batch, BEGINS: torch.ones_like(batch[BEGINS])})
    assert (
        forgetful[Columns.EMBEDDINGS] - learner.module[MODULE_ID].compute_values(batch)
    ).abs().max() > 1e-3


def test_the_value_behind_a_rollout_remembers():
    runner, learner = make()
    runner.sample()
    (pack,) = runner.sample()
    batch = learner._learner_connector(rl_module=learner.module, batch={}, episodes=[pack], shared_data={})
    module = learner.module[MODULE_ID]
    last = {key: torch.from_numpy(pack.rows(key, slice(-1, None))) for key in pack.observations}
    values = [pack.values]
    with torch.no_grad():
        state = {LATENTS: torch.from_numpy(pack.states[1])}
        values.append(module.compute_values({Columns.OBS: last, Columns.STATE_IN: state}).numpy()[None])
    values = np.concatenate(values)
    advantages = generalized_advantages(
        pack.rewards, values, pack.dones, gamma=SMALL.gamma, lambda_=SMALL.gae_lambda
    )
    targets = batch[MODULE_ID][Postprocessing.VALUE_TARGETS].numpy()
    expected = np.repeat((advantages + values[:-1]).T.ravel()[:, None], 3, axis=1)
    np.testing.assert_allclose(targets, expected, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"control": "unit"},
        {"algorithm": "appo", "num_env_runners": 1},
        {"algorithm": "impala", "num_env_runners": 1, "control": "unit"},
    ],
)
def test_an_update_learns_to_remember(changes):
    runner, learner = make(**changes)
    norm = learner.module[MODULE_ID].policy.memory_norm
    before = norm.weight.detach().clone()
    config = learner.config
    learner.update(
        training_data=_packs(runner.sample()),
        timesteps={},
        num_epochs=2,
        minibatch_size=config.minibatch_size,
    )
    assert torch.isfinite(norm.weight).all()
    assert (norm.weight - before).abs().max() > 1e-4


def _packs(packs) -> TrainingData:
    return TrainingData(episodes=packs)
