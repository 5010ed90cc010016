"""Perceiver AR: whether it learns the copy task of 32 positions, and what caches save when tokens are drawn.

The task and its training are :mod:`training.tasks.copying`'s. One thread of torch; three minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from perceiver_policy.autoregressive import PerceiverAR
from perceiver_policy.autoregressive_config import PerceiverARConfig
from perceiver_policy.generation import GREEDY, generate
from training.benchmark.rows import Row, rates, row, row_against
from training.tasks.copying import CopyTask, Training, share_copied, train

SEEDS = (0, 1, 2)
HELD_OUT_SEED = 10_000
"""Plus the training seed: of the sequences that the accuracy is measured on, drawn after training."""

LONG = PerceiverARConfig(
    max_context=1280,
    num_latents=128,
    num_channels=128,
    num_cross_attention_heads=4,
    num_self_attention_heads=4,
    num_self_attention_layers=4,
)
"""The model whose speed is measured; untrained, which does not change the work."""
PROMPT, DRAWN = 1024, 128


def measure(command: str, seeds: Sequence[int] = SEEDS, training: Training | None = None) -> Iterator[Row]:
    """Rows of learning for each seed, then of generation.

    Copied are the fresh sequences that greedy, cached generation continues to the end without a mistake; the
    steps are those until an evaluation during training found no mistake, absent if none did.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _learning(command, seeds, training or Training())
        yield _generating(command)
    finally:
        torch.set_num_threads(threads)


def _learning(command: str, seeds: Sequence[int], training: Training) -> Iterator[Row]:
    task, name = CopyTask(), "autoregressive/copy_32"
    seconds = []
    for seed in seeds:
        model, progress = trained = train(task, seed, training)
        fresh = torch.Generator().manual_seed(HELD_OUT_SEED + seed)
        accuracy = share_copied(model, task, training.num_fresh, fresh)
        copied = round(accuracy * training.num_fresh)
        yield Row(f"{name}/seed_{seed}/copied", f"of {training.num_fresh:,}", copied, 0.0, command)
        if trained.num_steps_to_perfect is not None:
            yield Row(f"{name}/seed_{seed}/steps", "steps", trained.num_steps_to_perfect, 0.0, command)
        seconds.append(progress[-1].seconds)
    yield row(f"{name}/{training.num_steps}_steps", "s", seconds, command)


def _generating(command: str, repeats: int = 3) -> Row:
    torch.manual_seed(0)
    model = PerceiverAR(LONG)
    prompt = torch.randint(LONG.vocabulary_size, (1, PROMPT))
    cached = rates(_drawing(model, prompt, use_cache=True), repeats=repeats)
    fresh = rates(_drawing(model, prompt, use_cache=False), repeats=repeats)
    name = f"autoregressive/generate/prompt_{PROMPT}/latents_{LONG.num_latents}"
    return row_against(name, "tokens/s", cached, command, "the same without caches", fresh)


def _drawing(model: PerceiverAR, prompt: torch.Tensor, *, use_cache: bool) -> Callable[[], int]:
    return lambda: generate(model, prompt, DRAWN, sampling=GREEDY, use_cache=use_cache).numel()
