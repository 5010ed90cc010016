"""Packs shared among learners, and what learners agree on."""

import dataclasses

import numpy as np
import pytest
import ray
import torch
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.core.columns import Columns
from ray.rllib.utils.minibatch_utils import ShardEpisodesIterator

from training.rl import across_learners
from training.rl.advantages import standardize
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.minibatches import SequenceMinibatches
from training.rl.rollout import MODULE_ID, BatchedEnvRunner

SMALL = TrainConfig(
    num_battles=6,
    rollout_steps=10,
    minibatch_size=60,
    num_epochs=1,
    model_overrides=("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8"),
)


def sample(**changes):
    config = build_algorithm_config(dataclasses.replace(SMALL, **changes))
    runner = BatchedEnvRunner(config=config, worker_index=0)
    return runner.sample()


@pytest.mark.parametrize("changes", [{}, {"control": "unit", "model_overrides": ("memory=true",)}])
def test_rllib_shares_packs_by_whole_battles(changes):
    (pack,) = sample(**changes)
    shares = list(ShardEpisodesIterator([pack], num_shards=3))
    assert [[len(part) for part in share] for share in shares] == [[20], [20], [20]]
    parts = [part for share in shares for part in share]
    assert {part.num_observers for part in parts} == {pack.num_observers}
    for key in pack.observations:
        np.testing.assert_array_equal(
            np.concatenate([part.sequences(key, slice(None)) for part in parts]),
            pack.sequences(key, slice(None)),
        )
    for field in dataclasses.fields(pack):
        whole = getattr(pack, field.name)
        if isinstance(whole, np.ndarray):
            of_steps = whole.ndim > 1  # of the battles alone, which scenario each is of
            shared = np.concatenate([getattr(part, field.name) for part in parts], axis=int(of_steps))
            np.testing.assert_array_equal(shared, whole, err_msg=field.name)


def test_a_battle_is_not_cut():
    (pack,) = sample()
    with pytest.raises(ValueError, match="steps 0 to 15 of 6 battles of 10 steps would cut a battle"):
        pack[:15]


def test_advantages_are_standardised_over_all_learners():
    values = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32) + np.array(
        [[0], [3]], np.float32
    )
    mask = np.random.default_rng(1).random((2, 50)) < 0.7
    expected = standardize(values, mask)
    sums = []
    for own in range(2):  # what each adds to the two sums, the second of which needs the mean of all
        standardize(values[own], mask[own], lambda part: sums.append(part) or part)
    everyones = sums[0] + sums[2]
    mean = everyones[0] / everyones[1]
    squares = sum(((values[own][mask[own]].astype(float) - mean) ** 2).sum() for own in range(2))
    for own in range(2):
        answers = iter([everyones, np.array([squares])])
        result = standardize(values[own], mask[own], lambda part, answers=answers: next(answers))
        np.testing.assert_allclose(result, expected[own], atol=1e-6)


def test_alone_nothing_changes():
    values = np.array([1.0, 2.0])
    assert across_learners.total(values) is values
    assert across_learners.weight_of_mean(torch.ones(3, dtype=torch.bool)) == 1.0


def test_minibatches_hold_whole_sequences():
    batch = {
        Columns.OBS: {"x": torch.arange(24)},
        Columns.ACTIONS: torch.arange(24),
        Columns.STATE_IN: {"latents": torch.arange(0, 24, 4)},
    }
    minibatches = SequenceMinibatches(
        batch, module_id=MODULE_ID, env_steps=12, sequence_length=4, minibatch_size=5, num_epochs=3
    )
    seen = []
    for minibatch in minibatches:
        columns = minibatch[MODULE_ID]
        rows = columns[Columns.ACTIONS].reshape(-1, 4)
        torch.testing.assert_close(rows, rows[:, :1] + torch.arange(4))
        torch.testing.assert_close(rows[:, 0], columns[Columns.STATE_IN]["latents"])
        torch.testing.assert_close(columns[Columns.OBS]["x"], columns[Columns.ACTIONS])
        assert minibatch.env_steps() == 6
        seen.append(rows[:, 0].tolist())
    assert len(seen) == 6  # two to each of three passes
    passes = [sorted(seen[i] + seen[i + 1]) for i in (0, 2, 4)]
    assert passes == [list(range(0, 24, 4))] * 3
    few = SequenceMinibatches(
        batch, module_id=MODULE_ID, env_steps=12, sequence_length=12, minibatch_size=1, num_epochs=1
    )
    assert [len(minibatch[MODULE_ID][Columns.ACTIONS]) for minibatch in few] == [12, 12]


def updated(packs, state, **changes):
    """Weights after an update with these packs from that state."""
    config = build_algorithm_config(dataclasses.replace(SMALL, **changes))
    group = config.build_learner_group(spaces=BatchedEnvRunner(config=config, worker_index=0).get_spaces())
    try:
        if state is not None:
            group.set_state(state)
        before = group.get_state()
        if packs is not None:
            group.update(
                episodes=packs,
                timesteps={},
                num_epochs=config.num_epochs,
                minibatch_size=config.minibatch_size,
            )
        return before, group.get_state()[COMPONENT_LEARNER][COMPONENT_RL_MODULE][MODULE_ID]
    finally:
        group.shutdown()


def test_learners_hand_out_no_buffers():
    """Which would spoil the gradient through several forward passes, one a size."""
    assert build_algorithm_config(SMALL).torch_ddp_kwargs == {"broadcast_buffers": False}


@pytest.mark.slow
def test_two_learners_take_the_step_of_one_on_a_mixture():
    changes = {"scenario": ("3m", "8m"), "num_battles": 8, "normalize_values": True}
    packs = sample(**changes)
    assert len({pack.size for pack in packs}) == 2
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        state, alone = updated(packs, None, **changes, minibatch_size=80)
        _, together = updated(packs, state, **changes, minibatch_size=80, num_learners=2)
    finally:
        ray.shutdown()
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("control", ["team", "unit"])
def test_two_learners_take_the_step_of_one(control):
    """Advantages over both shares, and a mean over all their living units, though the dead are not as many in
    one as in the other."""
    packs = sample(control=control)
    living = packs[0].observations["controlled_mask"][:-1].reshape(10, 2, -1).sum((0, 2))
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        state, alone = updated(packs, None, control=control)
        _, together = updated(packs, state, control=control, num_learners=2)
    finally:
        ray.shutdown()
    assert living[0] != living[1]
    start = state[COMPONENT_LEARNER][COMPONENT_RL_MODULE][MODULE_ID]
    assert any(np.abs(alone[name] - start[name]).max() > 1e-4 for name in alone)
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], atol=1e-5, err_msg=name)
