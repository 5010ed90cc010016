"""Train batches against slow references, and what PPO's loss makes of them."""

import dataclasses

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.learner import APPROXIMATE_KL, OrderPPOLearner
from training.rl.rollout import MODULE_ID, BatchedEnvRunner

SMALL = TrainConfig(
    num_battles=8,
    rollout_steps=30,
    minibatch_size=60,
    model_overrides=("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8"),
)


def make(**changes) -> tuple[BatchedEnvRunner, OrderPPOLearner]:
    """A runner and a learner with the same weights; Ray need not run."""
    config = build_algorithm_config(dataclasses.replace(SMALL, **changes))
    runner = BatchedEnvRunner(config=config, worker_index=0)
    spec = config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    learner = OrderPPOLearner(config=config, module_spec=spec)
    learner.build()
    learner.module.set_state(runner.module.get_state())
    return runner, learner


def train_batch(learner: OrderPPOLearner, packs: list) -> dict:
    connector = learner._learner_connector
    return connector(rl_module=learner.module, batch={}, episodes=packs, shared_data={})[MODULE_ID]


def slow_advantages(pack, module, gamma: float, lambda_: float) -> np.ndarray:
    """(T, B) battle by battle and episode by episode, every value asked of the module again."""
    num_steps, num_battles = pack.rewards.shape
    values = np.zeros((num_steps + 1, num_battles))
    for t in range(num_steps + 1):
        rows = {key: torch.from_numpy(pack.rows(key, slice(t, t + 1))) for key in pack.observations}
        with torch.no_grad():
            of_observers = module.compute_values({Columns.OBS: rows}).numpy().reshape(num_battles, -1)
        living = rows["controlled_mask"].any(-1).numpy().reshape(num_battles, -1)
        for b in range(num_battles):
            values[t, b] = of_observers[b][living[b]].mean()
    advantages = np.zeros((num_steps, num_battles))
    for b in range(num_battles):
        start = 0
        while start < num_steps:
            end = next((t for t in range(start, num_steps) if pack.dones[t, b]), num_steps - 1)
            advantage = 0.0
            for t in range(end, start - 1, -1):
                following = 0.0 if pack.dones[t, b] else values[t + 1, b]
                delta = pack.rewards[t, b] + gamma * following - values[t, b]
                advantage = delta + (0.0 if pack.dones[t, b] else gamma * lambda_ * advantage)
                advantages[t, b] = advantage
            start = end + 1
    return advantages


def observer_after_observer(pack, key: str) -> np.ndarray:
    """Observations before each step: all steps of the first observer, then of the second."""
    steps = pack.observations[key][:-1]
    if pack.num_observers == 1:
        steps = steps[:, :, None]
    _, num_battles, num_observers = steps.shape[:3]
    return np.concatenate([steps[:, b, o] for b in range(num_battles) for o in range(num_observers)])


@pytest.mark.parametrize("control", ["team", "unit"])
def test_advantages_equal_a_slow_reference(control):
    runner, learner = make(control=control)
    (pack,) = runner.sample()
    assert pack.dones.any()
    batch = train_batch(learner, [pack])
    of_battles = slow_advantages(pack, learner.module[MODULE_ID], SMALL.gamma, SMALL.gae_lambda)
    living = observer_after_observer(pack, "controlled_mask")
    of_observers = np.repeat(of_battles.T, pack.num_observers, axis=0).ravel()
    expected = np.broadcast_to(of_observers[:, None], living.shape)
    expected = (expected - expected[living].mean()) / expected[living].std()
    np.testing.assert_array_equal(batch[Columns.LOSS_MASK].numpy(), living)
    np.testing.assert_array_equal(batch[Columns.OBS]["units"].numpy(), observer_after_observer(pack, "units"))
    advantages = batch[Postprocessing.ADVANTAGES].numpy()
    np.testing.assert_allclose(advantages[living], expected[living], atol=2e-4)
    assert not advantages[~living].any()


def test_several_packs_make_one_batch():
    runner, learner = make()
    packs = [runner.sample()[0], runner.sample()[0]]
    batch = train_batch(learner, packs)
    assert len(batch[Columns.ACTIONS]) == sum(len(pack) for pack in packs)
    mask = batch[Columns.LOSS_MASK]
    advantages = batch[Postprocessing.ADVANTAGES][mask]
    assert abs(float(advantages.mean())) < 1e-4
    assert abs(float(advantages.std()) - 1) < 1e-2


@pytest.mark.parametrize("changes", [{}, {"control": "unit"}, {"per_unit_ratio": False}])
def test_every_ratio_of_the_first_minibatch_is_one(changes):
    runner, learner = make(**changes)
    batch = train_batch(learner, runner.sample())
    module = learner.module[MODULE_ID]
    logits = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    log_prob = module.get_train_action_dist_cls().from_logits(logits).logp(batch[Columns.ACTIONS])
    ratio = (log_prob - batch[Columns.ACTION_LOGP]).exp()
    assert ratio.shape == batch[Columns.LOSS_MASK].shape == batch[Postprocessing.ADVANTAGES].shape
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-5)


def gradients(learner: OrderPPOLearner, batch: dict) -> list[torch.Tensor]:
    config = learner.config.get_config_for_module(MODULE_ID)
    output = learner.module[MODULE_ID].forward_train(batch)
    loss = learner.compute_loss_for_module(module_id=MODULE_ID, config=config, batch=batch, fwd_out=output)
    parameters = list(learner.module[MODULE_ID].parameters())
    return [g for g in torch.autograd.grad(loss, parameters, allow_unused=True) if g is not None]


def test_dead_slots_give_no_gradient():
    runner, learner = make()
    for _ in range(3):  # until somebody has died
        packs = runner.sample()
    batch = train_batch(learner, packs)
    dead = ~batch[Columns.LOSS_MASK]
    assert dead.any()
    expected = gradients(learner, batch)
    for key in (Postprocessing.ADVANTAGES, Postprocessing.VALUE_TARGETS, Columns.ACTION_LOGP):
        batch[key] = torch.where(dead, 1e3, batch[key])
    for changed, unchanged in zip(gradients(learner, batch), expected, strict=True):
        torch.testing.assert_close(changed, unchanged)


@pytest.mark.parametrize("changes", [{}, {"per_unit_ratio": False}, {"control": "unit"}])
def test_an_update_learns(changes):
    runner, learner = make(**changes)
    config = learner.config
    before = {name: value.clone() for name, value in learner.module[MODULE_ID].state_dict().items()}
    results = learner.update(
        episodes=runner.sample(), num_epochs=config.num_epochs, minibatch_size=config.minibatch_size
    )[MODULE_ID]
    assert 0 <= float(results[APPROXIMATE_KL].peek()) < 0.5
    after = learner.module[MODULE_ID].state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_loss_with_a_kl_term_works():
    config = build_algorithm_config(SMALL).training(use_kl_loss=True)
    runner = BatchedEnvRunner(config=config, worker_index=0)
    learner = OrderPPOLearner(
        config=config, module_spec=config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    )
    learner.build()
    learner.module.set_state(runner.module.get_state())
    results = learner.update(episodes=runner.sample(), num_epochs=1, minibatch_size=60)[MODULE_ID]
    assert 0 <= float(results["mean_kl_loss"].peek()) < 0.1
