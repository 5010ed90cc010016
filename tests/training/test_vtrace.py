"""Learning from an older policy's rollouts, against slow references."""

import dataclasses

import numpy as np
import pytest
import torch
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from training.rl.advantages import generalized_advantages, vtrace
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.learner_connector import PacksToTrainBatch
from training.rl.rollout import MODULE_ID, BatchedEnvRunner
from training.rl.vtrace_learner import OrderVTraceLearner

SMALL = TrainConfig(
    algorithm="appo",
    num_env_runners=1,
    num_battles=6,
    rollout_steps=24,
    minibatch_size=72,
    model_overrides=("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8"),
)
GAMMA, LAMBDA = 0.9, 0.8


def random_steps(num_steps=7, shape=(2, 3)):
    random = np.random.default_rng(0)
    rewards = random.normal(size=(num_steps, *shape)).astype(np.float32)
    values = random.normal(size=(num_steps + 1, *shape)).astype(np.float32)
    dones = random.random((num_steps, *shape)) < 0.3
    ratios = np.exp(random.normal(size=(num_steps, *shape))).astype(np.float32)
    return rewards, values, dones, ratios


def slow_vtrace(rewards, values, dones, ratios, clip):
    """The sums of the paper's equation 1 for one trajectory, each written out."""
    num_steps = len(rewards)
    targets = np.zeros(num_steps + 1)
    targets[num_steps] = values[num_steps]
    for s in range(num_steps):
        targets[s] = values[s]
        weight = 1.0
        for t in range(s, num_steps):
            following = 0.0 if dones[t] else GAMMA * values[t + 1]
            targets[s] += weight * min(ratios[t], clip) * (rewards[t] + following - values[t])
            if dones[t]:
                break
            weight *= GAMMA * LAMBDA * min(ratios[t], 1.0)
    advantages = np.zeros(num_steps)
    for s in range(num_steps):
        mixed = LAMBDA * targets[s + 1] + (1 - LAMBDA) * values[s + 1]
        following = 0.0 if dones[s] else GAMMA * mixed
        advantages[s] = min(ratios[s], clip) * (rewards[s] + following - values[s])
    return targets[:-1] - values[:-1], advantages


@pytest.mark.parametrize("clip", [1.0, 1.7])
def test_vtrace_equals_its_sums(clip):
    steps = random_steps()
    errors, advantages = vtrace(*steps, gamma=GAMMA, lambda_=LAMBDA, clip=clip)
    for index in np.ndindex(2, 3):
        slow = slow_vtrace(*(array[(slice(None), *index)] for array in steps), clip)
        np.testing.assert_allclose(errors[(slice(None), *index)], slow[0], atol=1e-5)
        np.testing.assert_allclose(advantages[(slice(None), *index)], slow[1], atol=1e-5)


def test_on_policy_it_is_generalised_advantage_estimation():
    rewards, values, dones, ratios = random_steps()
    expected = generalized_advantages(rewards, values, dones, gamma=GAMMA, lambda_=LAMBDA)
    for array in vtrace(rewards, values, dones, np.ones_like(ratios), gamma=GAMMA, lambda_=LAMBDA):
        np.testing.assert_allclose(array, expected, atol=1e-6)


def test_a_team_has_many_ratios_and_one_value():
    rewards, values, dones, _ = random_steps(shape=(4, 1))
    ratios = np.exp(np.random.default_rng(1).normal(size=(7, 4, 5))).astype(np.float32)
    together = vtrace(rewards, values, dones, ratios, gamma=GAMMA, lambda_=LAMBDA)
    for unit in range(5):
        alone = vtrace(rewards, values, dones, ratios[..., unit : unit + 1], gamma=GAMMA, lambda_=LAMBDA)
        for of_all, of_one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(of_all[..., unit : unit + 1], of_one)


def make(**changes):
    """A runner and a learner with the same weights; Ray need not run."""
    config = build_algorithm_config(dataclasses.replace(SMALL, **changes))
    runner = BatchedEnvRunner(config=config, worker_index=0)
    spec = config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    learner = config.learner_class(config=config, module_spec=spec)
    learner.build()
    learner.module.set_state(runner.module.get_state())
    return runner, learner


def train_batch(connector, learner, packs):
    return connector(rl_module=learner.module, batch={}, episodes=packs, shared_data={})[MODULE_ID]


@pytest.mark.parametrize("changes", [{}, {"control": "unit"}, {"per_unit_ratio": False}])
def test_of_its_own_rollouts_it_learns_what_ppo_does(changes):
    runner, learner = make(**changes)
    packs = runner.sample()
    assert packs[0].dones.any()
    batches = [
        train_batch(PacksToTrainBatch(gamma=GAMMA, lambda_=LAMBDA, off_policy=off_policy), learner, packs)
        for off_policy in (False, True)
    ]
    assert batches[0].keys() == batches[1].keys()
    for key in (Columns.ACTION_LOGP, Postprocessing.ADVANTAGES, Postprocessing.VALUE_TARGETS):
        torch.testing.assert_close(batches[1][key], batches[0][key], rtol=0, atol=2e-4)


@pytest.mark.parametrize("control", ["team", "unit"])
def test_an_older_policys_steps_are_corrected_unit_by_unit(control):
    runner, learner = make(control=control, gamma=GAMMA, gae_lambda=LAMBDA)
    (pack,) = runner.sample()
    module = learner.module[MODULE_ID]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = train_batch(learner._learner_connector, learner, [pack])
    num_steps, num_battles = pack.rewards.shape
    values = np.zeros((num_steps + 1, num_battles, pack.num_observers))
    log_probs = np.zeros((num_steps, num_battles, pack.num_observers, pack.orders.shape[2]))
    for t in range(num_steps + 1):
        rows = {key: torch.from_numpy(pack.rows(key, slice(t, t + 1))) for key in pack.observations}
        with torch.no_grad():
            output = module.policy(rows)
            values[t] = output.value.numpy().reshape(values[t].shape)
            if t < num_steps:
                orders = torch.from_numpy(pack.orders[t])
                log_probs[t] = output.evaluate(orders).log_prob.numpy().reshape(log_probs[t].shape)
    living = pack.observations["controlled_mask"].reshape(*values.shape, -1).any(-1)
    team = np.stack(
        [[values[t, b][living[t, b]].mean() for b in range(num_battles)] for t in range(num_steps + 1)]
    )
    sampled = pack.log_probs.reshape(log_probs.shape)
    ratios = np.exp(log_probs - sampled)
    assert np.abs(ratios - 1).max() > 0.1
    targets, row = batch[Postprocessing.VALUE_TARGETS].numpy(), 0
    now = batch[Columns.ACTION_LOGP].numpy()
    for b in range(num_battles):
        for observer in range(pack.num_observers):
            for unit in range(pack.orders.shape[2]):
                steps = pack.rewards[:, b], team[:, b], pack.dones[:, b], ratios[:, b, observer, unit]
                errors, _ = slow_vtrace(*steps, 1.0)
                np.testing.assert_allclose(
                    targets[row : row + num_steps, unit], errors + team[:-1, b], atol=1e-4
                )
                np.testing.assert_allclose(
                    now[row : row + num_steps, unit], log_probs[:, b, observer, unit], atol=1e-4
                )
            row += num_steps
    assert row == len(targets)


@pytest.mark.parametrize("algorithm", ["appo", "impala"])
def test_an_update_gives_weights_for_the_runners(algorithm, monkeypatch):
    """As RLlib's training step asks for them: a reference that runners take over."""
    runner, learner = make(algorithm=algorithm)
    assert isinstance(learner, OrderVTraceLearner)
    monkeypatch.setattr("training.rl.vtrace_learner.ray.put", lambda weights: weights)
    config = learner.config
    result = learner.update(
        training_data=TrainingData(episodes=runner.sample()),
        timesteps={},
        return_state=True,
        num_epochs=config.num_epochs,
        minibatch_size=config.minibatch_size,
    )
    state = result["_rl_module_state_after_update"]
    assert state[WEIGHTS_SEQ_NO] == 1
    before = runner.module[MODULE_ID].get_state()
    runner.set_state({COMPONENT_RL_MODULE: state[COMPONENT_RL_MODULE], WEIGHTS_SEQ_NO: 1})
    after, learned = runner.module[MODULE_ID].get_state(), learner.module[MODULE_ID].get_state()
    assert any((before[name] != after[name]).any() for name in before)
    for name in after:
        np.testing.assert_array_equal(after[name], learned[name])
    assert np.isfinite(float(result[MODULE_ID]["total_loss"].peek()))


def test_a_gradient_that_is_not_finite_stops_it():
    """RLlib's own two would wait for ever for the thread that failed."""
    runner, learner = make()
    packs = runner.sample()
    packs[0].rewards[0, 0] = np.nan
    with pytest.raises(RuntimeError, match="the norm of the gradient is nan"):
        learner.update(
            training_data=TrainingData(episodes=packs), timesteps={}, num_epochs=1, minibatch_size=72
        )
