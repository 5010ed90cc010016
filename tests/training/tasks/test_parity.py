"""Parity: the task as the paper states it, and models that learn it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from perceiver_policy.adaptive import AdaptiveConfig
from training.benchmark import ponder
from training.evaluate import wilson
from training.tasks.parity import ParityModel, Setting, draw, score, train


def test_examples_are_the_tasks() -> None:
    batch = draw(6000, 5, torch.Generator().manual_seed(0))
    assert set(batch.values.unique().tolist()) == {-1, 0, 1}
    for values, odd in zip(batch.values[:200].tolist(), batch.odd[:200].tolist(), strict=True):
        assert odd == (values.count(1) % 2 == 1)
    # Each number of elements that are not 0 a fifth of the time, wherever they stand and of either sign.
    assert batch.num_nonzero.bincount()[1:].tolist() == pytest.approx([1200] * 5, abs=160)
    assert (batch.values != 0).float().mean(0).tolist() == pytest.approx([0.6] * 5, abs=0.03)
    assert (batch.values == 1).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_same_seed_same_model() -> None:
    setting = Setting(length=4, num_steps=2, num_updates=3)
    first, again, other = (train(setting, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_adaptive_model_has_only_the_halting_head_more() -> None:
    fixed = ParityModel(Setting(length=4, num_steps=2))
    adaptive = ParityModel(Setting(length=4, num_steps=7, adaptive=AdaptiveConfig()))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (fixed, adaptive)]
    assert sizes[1] - sizes[0] == 3 * 32 + 1  # a normalisation and a linear layer of 32 channels


def test_scores_add_up() -> None:
    model = ParityModel(Setting(length=4, num_steps=2))
    result = score(model, 500, seed=3)
    batch = draw(500, 4, torch.Generator().manual_seed(3))
    odd, steps = model(batch.values)
    assert steps.tolist() == [2] * 500
    assert result.mean_steps == 2
    assert result.accuracy == (odd == batch.odd).float().mean().item()
    for k in range(1, 5):
        among = batch.num_nonzero == k
        assert result.examples[k - 1] == among.sum()
        assert result.correct[k - 1] == (odd == batch.odd)[among].sum()


@pytest.mark.parametrize("adaptive", [None, AdaptiveConfig(prior_rate=0.4)])
def test_learns_parity_of_four(adaptive: AdaptiveConfig | None) -> None:
    setting = Setting(
        length=4,
        num_steps=2 if adaptive is None else 4,
        adaptive=adaptive,
        num_updates=250,
        learning_rate=5e-3,
    )
    result = score(train(setting, seed=0), 1000, seed=1)
    assert result.accuracy > 0.97
    assert 1 <= result.mean_steps <= setting.num_steps


def test_benchmark_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rival is as deep as the adaptive model was on average, and tried on the same examples."""
    monkeypatch.setattr(ponder, "SEEDS", (5,))
    monkeypatch.setattr(ponder, "NUM_EXAMPLES", 400)
    for name in ("FIXED", "ADAPTIVE"):
        monkeypatch.setattr(ponder, name, replace(getattr(ponder, name), num_updates=2))
    rows = {row.name.removeprefix("ponder/parity_12/"): row for row in ponder.measure("a command")}
    depth = math.ceil(rows["steps"].ours)
    assert rows["accuracy"].rival_name == f"fixed depth {depth}"
    fixed = replace(ponder.FIXED, num_steps=depth)
    theirs = score(train(fixed, 5), 400, 5 + ponder.UNSEEN)
    assert rows["accuracy"].rival == theirs.accuracy
    low, high = wilson(int(theirs.correct.sum()), 400)
    assert (rows["accuracy/low"].rival, rows["accuracy/high"].rival) == (low, high)
    last = slice(9, 12)
    assert rows["accuracy/nonzero_10_12"].rival == float(
        theirs.correct[last].sum() / theirs.examples[last].sum()
    )
    assert rows["accuracy/one_step"].rival_name == "fixed depth 1"
