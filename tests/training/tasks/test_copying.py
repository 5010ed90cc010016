"""The copy task's sequences, its score, and a model that learns a small one in seconds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perceiver_policy.autoregressive import PerceiverAR
from training.benchmark import autoregressive
from training.tasks import copying
from training.tasks.copying import (
    END,
    FIRST_SYMBOL,
    START,
    CopyTask,
    Training,
    share_copied,
    small_model,
    train,
)

SMALL = CopyTask(num_symbols=6, length=4)


def test_sequences_are_a_start_symbols_their_mirror_image_and_an_end() -> None:
    task = CopyTask()
    sequences = task.draw(500, torch.Generator().manual_seed(0))
    assert sequences.shape == (500, 32)
    for row in sequences.tolist():
        assert (row[0], row[-1]) == (START, END)
        assert row[1:16] == row[16:31][::-1]
        assert all(FIRST_SYMBOL <= symbol < FIRST_SYMBOL + 256 for symbol in row[1:16])
    assert len(sequences[:, 1:16].unique()) == 256
    assert len(set(map(tuple, sequences.tolist()))) == 500


def test_a_sequence_counts_only_if_all_of_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def nearly(model: PerceiverAR, prompt: Tensor, num_tokens: int, **options: object) -> Tensor:
        assert (prompt[:, 0] == START).all()
        end = torch.full_like(prompt[:, :1], END)
        copied = torch.cat((prompt[:, 1:].flip(1), end), dim=1)
        assert copied.shape[1] == num_tokens
        copied[0, 2] = START
        copied[1, -1] = START
        return copied

    monkeypatch.setattr(copying, "generate", nearly)
    model = PerceiverAR(small_model(SMALL))
    assert share_copied(model, SMALL, 8, torch.Generator().manual_seed(0)) == 6 / 8


def test_a_small_task_is_learned() -> None:
    short = Training(num_steps=150, batch=64, num_warmup_steps=30, evaluate_every=75, num_fresh=200)
    trained = train(SMALL, 0, short)
    assert [p.step for p in trained.progress] == [75, 150]
    assert trained.progress[-1].accuracy > 0.9, trained.progress
    untrained = PerceiverAR(small_model(SMALL))
    assert share_copied(untrained, SMALL, 200, torch.Generator().manual_seed(0)) < 0.1


def test_the_seed_decides_training() -> None:
    short = Training(num_steps=3, batch=8, num_fresh=10)
    reports: list[float] = []
    for seed in (0, 0, 1):
        train(SMALL, seed, short, report=lambda progress: reports.append(progress.loss))
    assert reports[0] == reports[1]
    assert reports[0] != reports[2]


def test_steps_to_perfect_are_the_first_without_a_mistake() -> None:
    model = PerceiverAR(small_model(SMALL))
    progress = [
        copying.Progress(step, 1.0, 0.5, accuracy) for step, accuracy in ((1, 0.9), (2, 1.0), (3, 1.0))
    ]
    assert copying.Trained(model, progress).num_steps_to_perfect == 2
    assert copying.Trained(model, progress[:1]).num_steps_to_perfect is None


def test_rows_of_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoregressive, "PROMPT", 20)
    monkeypatch.setattr(autoregressive, "DRAWN", 4)
    rows = {
        made.name: made
        for made in autoregressive.measure("c", seeds=(0,), training=Training(num_steps=2, num_fresh=10))
    }
    assert list(rows) == [
        "autoregressive/copy_32/seed_0/copied",
        "autoregressive/copy_32/2_steps",
        "autoregressive/generate/prompt_20/latents_128",
    ]
    assert rows["autoregressive/copy_32/seed_0/copied"].ours == 0.0  # nothing is learned in two steps
    assert rows["autoregressive/copy_32/2_steps"].ours > 0
