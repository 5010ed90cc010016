"""Battles of several scenarios and sizes in one runner, one batch, one update."""

import dataclasses

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import SampleBatch
from ray.rllib.utils.metrics import NUM_EPISODES

from training.rl.algorithms import build_algorithm_config
from training.rl.allocation import allocate, deal
from training.rl.config import TrainConfig
from training.rl.learner import OrderPPOLearner
from training.rl.rollout import (
    LENGTH_SUM,
    MIXTURE_WEIGHTS,
    MODULE_ID,
    NUM_WINS,
    RETURN_SUM,
    SCENARIOS,
    BatchedEnvRunner,
)
from training.rl.sizes import SIZE, by_size

SMALL = TrainConfig(
    scenario=("3m", "3s_vs_5z", "marine_3v3", "2s3z"),
    num_battles=16,
    rollout_steps=12,
    minibatch_size=64,
    model_overrides=("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8"),
)


def make_runner(worker_index: int = 0, num_env_runners: int = 0, **changes) -> BatchedEnvRunner:
    config = build_algorithm_config(dataclasses.replace(SMALL, num_env_runners=num_env_runners, **changes))
    return BatchedEnvRunner(config=config, worker_index=worker_index)


def make_learner(runner: BatchedEnvRunner) -> OrderPPOLearner:
    spec = runner.config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    learner = OrderPPOLearner(config=runner.config, module_spec=spec)
    learner.build()
    learner.module.set_state(runner.module.get_state())
    return learner


def train_batch(learner: OrderPPOLearner, packs: list) -> dict:
    connector = learner._learner_connector
    return connector(rl_module=learner.module, batch={}, episodes=packs, shared_data={})[MODULE_ID]


# How many battles of which scenario, and where


def test_allocation() -> None:
    assert allocate([1, 1], 128, [2, 2]) == (64, 64)
    assert allocate([2, 1, 1], 10, [1, 1, 1]) == (5, 3, 2), "the first of equal remainders"
    assert allocate([98, 1, 1], 20, [2, 2, 1]) == (17, 2, 1), "held at their least"
    assert allocate([0, 1], 10, [1, 1]) == (1, 9)
    assert allocate([0, 1, 0], 4, [2, 1, 1]) == (2, 1, 1)
    with pytest.raises(ValueError, match="num_battles is 3; this mixture needs at least 4"):
        allocate([1, 1], 3, [2, 2])


def test_allocations_add_up() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        weights = generator.random(generator.integers(1, 25)) ** 3
        least = generator.integers(1, 3, len(weights))
        num_battles = int(least.sum() + generator.integers(0, 200))
        counts = np.array(allocate(weights, num_battles, least))
        assert counts.sum() == num_battles
        assert (counts >= least).all()
        free = counts > least
        if free.sum() > 1:  # in proportion, to within the rounding of both
            share = weights[free] / weights[free].sum() * counts[free].sum()
            assert np.abs(counts[free] - share).max() < 1 + free.sum()


def test_battles_are_dealt_in_turn() -> None:
    counts = (7, 2, 3)
    dealt = [deal(counts, runner, 4) for runner in range(4)]
    numbers = [
        sorted(first + 4 * k for hand in dealt for c, first in [hand[i]] for k in range(c)) for i in range(3)
    ]
    assert numbers == [list(range(count)) for count in counts], "every battle is somebody's"
    assert [sum(count for count, _ in hand) for hand in dealt] == [3, 3, 3, 3]
    assert deal((5, 3), 0, 1) == [(5, 0), (3, 0)]


def test_too_few_battles_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 7"):
        build_algorithm_config(dataclasses.replace(SMALL, num_battles=6, minibatch_size=8))
    with pytest.raises(ValueError, match=r"3s_vs_5z.*not symmetric"):
        build_algorithm_config(dataclasses.replace(SMALL, swap_sides=True))


def test_runners_share_scenarios_and_sides() -> None:
    """Also where a runner has a single battle of a symmetric scenario."""
    played = set()
    for worker_index in (1, 2):
        runner = make_runner(worker_index, num_env_runners=2, num_battles=8, minibatch_size=8)
        runner.make_env()
        assert sum(seat.battles.num_battles for seat in runner.env) == 4
        played |= {(seat.battles.scenario.name, seat.side) for seat in runner.env}
    symmetric = {(name, side) for name in ("3m", "marine_3v3", "2s3z") for side in (0, 1)}
    assert played == symmetric | {("3s_vs_5z", 0)}


def test_new_weights_begin_new_battles() -> None:
    runner = make_runner()
    runner.sample()
    before = runner.env
    runner.set_state({MIXTURE_WEIGHTS: None})
    assert runner.env is before, "they have not changed"
    runner.set_state({MIXTURE_WEIGHTS: (0.0, 1.0, 0.0, 0.0)})
    packs = runner.sample()
    counts = np.bincount(np.concatenate([pack.scenarios for pack in packs]))
    assert counts.tolist() == [0, 16]
    runner.set_state({MIXTURE_WEIGHTS: (0.0, 2.0, 0.0, 0.0)})
    assert runner.env is not None, "they mean the same"
    assert make_runner().get_state()[MIXTURE_WEIGHTS] is None
    assert runner.get_state()[MIXTURE_WEIGHTS] == (0.0, 2.0, 0.0, 0.0)


# Packs


@pytest.mark.parametrize("control", ["team", "unit"])
def test_a_pack_for_each_size(control: str) -> None:
    """3m and marine_3v3 share one; what it holds is what their battles show."""
    runner = make_runner(control=control)
    packs = runner.sample()
    assert len(packs) == 3
    assert sum(map(len, packs)) == SMALL.num_battles * SMALL.rollout_steps
    (even,) = (pack for pack in packs if set(pack.scenarios.tolist()) == {0, 2})
    assert even.scenarios.tolist() == [0] * 4 + [2] * 4
    for seat in runner.env:
        (pack,) = (pack for pack in packs if seat.scenario in pack.scenarios)
        assert (pack.scenarios[seat.rows] == seat.scenario).all()
        for key, array in seat.observation.items():
            np.testing.assert_array_equal(pack.observations[key][-1, seat.rows], array)


def test_metrics_by_scenario() -> None:
    runner = make_runner(rollout_steps=70, minibatch_size=64)
    packs = runner.sample()
    metrics = runner.get_metrics()
    ended = np.concatenate([pack.dones.sum(0) for pack in packs])
    scenarios = np.concatenate([pack.scenarios for pack in packs])
    by_scenario = np.bincount(scenarios, ended)
    assert by_scenario.sum() == metrics[NUM_EPISODES].peek()
    for index, name in enumerate(("3m", "3s_vs_5z", "marine_3v3", "2s3z")):
        if by_scenario[index]:
            assert metrics[SCENARIOS][name][NUM_EPISODES].peek() == by_scenario[index]
            assert metrics[SCENARIOS][name][LENGTH_SUM].peek() >= by_scenario[index]
    sums = [metrics[SCENARIOS][name] for name in metrics[SCENARIOS]]
    assert sum(one[NUM_WINS].peek() for one in sums if NUM_WINS in one) == metrics[NUM_WINS].peek()
    mean = sum(one[RETURN_SUM].peek() for one in sums) / metrics[NUM_EPISODES].peek()
    assert mean == pytest.approx(metrics["episode_return_mean"].peek(), abs=1e-4)


# Batches


WITH_STATE = {"model_overrides": (*SMALL.model_overrides, "critic=state")}
WITH_MEMORY = {"model_overrides": (*SMALL.model_overrides, "memory=true")}
VARIANTS = [{}, {"control": "unit"}, {"per_unit_ratio": False}, WITH_STATE, WITH_MEMORY]


@pytest.mark.parametrize("changes", VARIANTS)
def test_padding_is_cut_off_again(changes: dict) -> None:
    """The parts of a batch are what the packs alone make, with their shares of the battles as weights."""
    runner = make_runner(**changes)
    learner = make_learner(runner)
    packs = runner.sample()
    batch = train_batch(learner, packs)
    parts = list(by_size(batch, runner.setup.sizes, per_unit=changes.get("per_unit_ratio", True)))
    assert len(parts) == len(packs) == 3
    for pack in packs:
        alone = train_batch(learner, [pack])
        assert alone.pop(SIZE).unique().numel() == 1
        shape = alone[Columns.OBS]["target_mask"].shape
        ((weight, part),) = (p for p in parts if p[1][Columns.OBS]["target_mask"].shape == shape)
        assert weight == pytest.approx(len(pack) / sum(map(len, packs)))
        assert part.keys() == alone.keys()
        for nested in (Columns.OBS, Columns.STATE_IN):
            for key, column in alone.pop(nested, {}).items():
                torch.testing.assert_close(part.get(nested, {})[key], column, rtol=0, atol=0)
        for key, column in alone.items():
            torch.testing.assert_close(part[key], column, rtol=0, atol=0)


def test_advantages_are_standardised_by_scenario(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one of a hundred times the rewards, and the values to go with them, pulls no harder."""
    monkeypatch.setattr("training.rl.learner_connector.team_values", lambda pack, _: values[id(pack)])
    learner = make_learner(runner := make_runner())
    values, batches = {}, []
    packs = runner.sample()
    for factor in (1.0, 100.0):
        scale = [np.where(pack.scenarios == 0, np.float32(factor), np.float32(1)) for pack in packs]
        scaled = [
            dataclasses.replace(pack, rewards=f * pack.rewards) for f, pack in zip(scale, packs, strict=True)
        ]
        for f, pack in zip(scale, scaled, strict=True):
            values[id(pack)] = np.concatenate([f * pack.values.reshape(pack.rewards.shape), f[None]])
        torch.manual_seed(0)
        batches.append(train_batch(learner, scaled))
    first, second = (batch[Postprocessing.ADVANTAGES] for batch in batches)
    assert first.abs().max() > 1
    torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-3)
    targets = [batch[Postprocessing.VALUE_TARGETS] for batch in batches]
    assert targets[1].abs().max() > 10 * targets[0].abs().max()


# Updates


@pytest.mark.parametrize("changes", VARIANTS)
def test_the_gradient_is_the_weighted_sum_of_each_sizes(changes: dict) -> None:
    learner = make_learner(runner := make_runner(**changes))
    packs = runner.sample()
    parameters = list(learner.module[MODULE_ID].parameters())
    expected = [torch.zeros_like(parameter) for parameter in parameters]
    config = learner.config.get_config_for_module(MODULE_ID)
    for pack in packs:
        alone = train_batch(learner, [pack])
        output = learner.module[MODULE_ID].forward_train(alone)
        loss = learner.compute_loss_for_module(
            module_id=MODULE_ID, config=config, batch=alone, fwd_out=output
        )
        share = len(pack) / sum(map(len, packs))
        for total, gradient in zip(
            expected, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            if gradient is not None:
                total += share * gradient
    found = {}

    def note(gradients: dict) -> dict:
        found.update(
            {parameter: parameter.grad.clone() for parameter in parameters if parameter.grad is not None}
        )
        return gradients

    learner.postprocess_gradients = note
    learner._update({MODULE_ID: SampleBatch(train_batch(learner, packs))})
    assert any(gradient.abs().max() > 1e-4 for gradient in expected)
    assert len(learner._last_minibatch[MODULE_ID]) == len(packs)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(
            found.get(parameter, torch.zeros_like(parameter)), gradient, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("changes", VARIANTS[:3])
def test_the_network_never_sees_padding(changes: dict) -> None:
    """Not in an update of whole epochs, either."""
    learner = make_learner(runner := make_runner(**changes))
    runner.make_env()
    sizes = {seat.size for seat in runner.env}
    seen = set()
    forward = learner.module.forward_train

    def watch(batch: dict) -> dict:
        observations = batch[MODULE_ID][Columns.OBS]
        seen.add((observations["controlled_mask"].shape[1], observations["unit_mask"].shape[1]))
        return forward(batch)

    learner.module.forward_train = watch
    results = learner.update(episodes=runner.sample(), num_epochs=2, minibatch_size=48)[MODULE_ID]
    assert seen == {(size.slots, size.units) for size in sizes}
    assert len(seen) == 3
    assert 0 <= float(results["approximate_kl"].peek()) < 0.5
    units = 5 if changes.get("per_unit_ratio") is False else 1  # then the entropy is of all orders together
    assert 1 < float(results["entropy"].peek()) / units < 4


def test_several_learners_average_to_one() -> None:
    """Each with other battles, and one without any of some size: the average of what each minimises is what
    one learner with all the data does."""
    learner = make_learner(runner := make_runner())
    batch, sizes = train_batch(learner, runner.sample()), runner.setup.sizes
    cut = torch.arange(len(batch[SIZE])) < int((batch[SIZE] == batch[SIZE][-1]).nonzero()[0]) + 30
    halves = [_rows(batch, chosen) for chosen in (cut, ~cut)]
    assert len(halves[1][SIZE].unique()) < len(sizes)

    def loss(half: dict, **how) -> float:
        parts = by_size(half, sizes, per_unit=True, **how)
        return sum(weight * _mean_square(part) for weight, part in parts)

    asked: list[list[np.ndarray]] = []
    for half in halves:
        asked.append([])

        def note(sums: np.ndarray, to: list = asked[-1]) -> np.ndarray:
            to.append(sums)
            return sums

        loss(half, total=note)
    found = 0.0
    for half in halves:
        told = iter([sum(sums) for sums in zip(*asked, strict=True)])
        found += loss(half, total=lambda _, told=told: next(told)) / 2
    assert found == pytest.approx(loss(batch), rel=1e-5)


def _rows(batch: dict, chosen: torch.Tensor) -> dict:
    return {
        key: {k: column[chosen] for k, column in value.items()} if key == Columns.OBS else value[chosen]
        for key, value in batch.items()
    }


def _mean_square(part: dict) -> float:
    return float(part[Postprocessing.ADVANTAGES][part[Columns.LOSS_MASK]].square().mean())


def test_a_mixture_of_one_is_that_scenario() -> None:
    """Bit for bit, over some updates."""
    states = []
    for scenario in ("3m", ("3m",), ("3m=7",)):
        torch.manual_seed(0)
        np.random.seed(0)
        runner = make_runner(scenario=scenario)
        learner = make_learner(runner)
        for _ in range(2):
            learner.update(
                episodes=runner.sample(), num_epochs=2, minibatch_size=64, shuffle_batch_per_epoch=True
            )
            runner.set_state({"rl_module": learner.module.get_state()})
        states.append(learner.module[MODULE_ID].state_dict())
    for state in states[1:]:
        assert all(torch.equal(value, states[0][name]) for name, value in state.items())
