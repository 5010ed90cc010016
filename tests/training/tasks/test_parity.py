"""Parity: the task as the paper states it, and models that learn it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from perceiver_policy.adaptive import AdaptiveConfig
from training.benchmark import ponder
from training.evaluate import wilson
from training.tasks.parity import Parity, ParityModel, Setting, draw, hints, score, train


def test_examples_are_the_tasks() -> None:
    batch = draw(6000, 5, torch.Generator().manual_seed(0))
    for bits, successors, length, odd in zip(
        batch.bits[:300].tolist(),
        batch.successors[:300].tolist(),
        batch.length[:300].tolist(),
        batch.odd[:300].tolist(),
        strict=True,
    ):
        followed = [0]
        while successors[followed[-1]] != 5:
            followed.append(successors[followed[-1]])
        assert len(followed) == len(set(followed)) == length
        assert odd == (sum(bits[element] for element in followed) % 2 == 1)
        # The other elements are one list too: each but its first is named by one.
        others = [successors[element] for element in range(5) if element not in followed]
        assert max(others) == 5
        assert len(set(others)) == len(others)
        assert not set(others) & set(followed)
    counts = batch.length.bincount()[1:]
    weights = torch.tensor([1, 1 / 2, 1 / 4, 1 / 8])
    assert counts.tolist() == pytest.approx((6000 * weights / weights.sum()).tolist(), abs=160)
    assert batch.bits.float().mean(0).tolist() == pytest.approx([0.5] * 5, abs=0.03)


def test_hints_say_where_each_step_leads() -> None:
    """The list 0, 2, 1 with the bits 1, 0, 1, beside the list 3."""
    batch = Parity(
        bits=torch.tensor([[1, 1, 0, 1]]),
        order=torch.tensor([[0, 2, 1, 3]]),
        successors=torch.tensor([[2, 4, 1, 4]]),
        length=torch.tensor([3]),
        odd=torch.tensor([False]),
    )
    element, running = hints(batch, 5)
    assert element.flatten().tolist() == [0, 2, 1, 1, 1]
    assert running.flatten().tolist() == [1, 1, 0, 0, 0]


def test_a_step_reads_the_elements_again() -> None:
    """Always by the same layer."""
    batch = draw(200, 4, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = ParityModel(Setting(num_elements=4, num_steps=3))
    layer = model.encoder.cross_attentions[0]
    calls: list[object] = []
    layer.register_forward_hook(lambda *call: calls.append(call))
    model(batch)
    assert len(model.encoder.cross_attentions) == 1
    assert len(calls) == 3


def test_same_seed_same_model() -> None:
    setting = Setting(num_elements=4, num_steps=2, num_updates=3)
    first, again, other = (train(setting, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_adaptive_model_has_only_the_halting_head_more() -> None:
    fixed = ParityModel(Setting(num_elements=4, num_steps=2))
    adaptive = ParityModel(Setting(num_elements=4, num_steps=7, adaptive=AdaptiveConfig()))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (fixed, adaptive)]
    assert sizes[1] - sizes[0] == 3 * 32 + 1  # a normalisation and a linear layer of 32 channels


def test_scores_add_up() -> None:
    model = ParityModel(Setting(num_elements=4, num_steps=2))
    result = score(model, 500, seed=3)
    batch = draw(500, 4, torch.Generator().manual_seed(3))
    odd, steps = model(batch)
    assert steps.tolist() == [2] * 500
    assert result.mean_steps == 2
    assert result.accuracy == (odd == batch.odd).float().mean().item()
    for k in range(1, 4):
        among = batch.length == k
        assert result.examples[k - 1] == among.sum()
        assert result.correct[k - 1] == (odd == batch.odd)[among].sum()


@pytest.mark.parametrize("adaptive", [None, AdaptiveConfig(prior_rate=0.4)])
def test_learns_lists_of_one_and_two(adaptive: AdaptiveConfig | None) -> None:
    setting = Setting(
        num_elements=3,
        num_steps=2 if adaptive is None else 3,
        adaptive=adaptive,
        num_updates=250,
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
    rows = {row.name.removeprefix("ponder/parity_8/"): row for row in ponder.measure("a command")}
    depth = math.ceil(rows["steps"].ours)
    assert rows["accuracy"].rival_name == f"fixed depth {depth}"
    fixed = replace(ponder.FIXED, num_steps=depth)
    theirs = score(train(fixed, 5), 400, 5 + ponder.UNSEEN)
    assert rows["accuracy"].rival == theirs.accuracy
    assert (rows["accuracy/low"].rival, rows["accuracy/high"].rival) == wilson(int(theirs.correct.sum()), 400)
    long = slice(min(depth, 6), 7)
    right, tried = int(theirs.correct[long].sum()), int(theirs.examples[long].sum())
    assert rows["accuracy/long"].rival == pytest.approx(right / tried)
    assert (rows["accuracy/long/low"].rival, rows["accuracy/long/high"].rival) == wilson(right, tried)
    assert rows["accuracy/length_2"].rival == pytest.approx(float(theirs.correct[1] / theirs.examples[1]))
    assert rows["accuracy/most_steps"].rival_name == "fixed depth 8"
    assert rows["accuracy/one_step"].rival_name == "fixed depth 1"
