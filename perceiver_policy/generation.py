"""Draw token sequences from a :class:`~perceiver_policy.autoregressive.PerceiverAR`.

**The window of latents.** The model predicts from the latents of at most N positions. Drawing token after
token, the window of positions that have a latent grows by the new one until it has N; the next pass starts
over with the last ``restart`` positions, N / 2 unless said otherwise, and the window grows again. Positions
that leave the window stay in the context: the latents go on reading them by cross-attention. A prompt longer
than N starts as after a restart. DeepMind's code has the same schedule. All rows of a batch have the same
window, by the padded length.

**With caches**, a pass computes the new position alone. The schedule is what makes this exact: a latent
depends on where the window starts, which stands still between restarts, so that what was cached is what a
fresh pass over the whole sequence would compute. Dropping the oldest latent at each token instead would leave
latents that still know the dropped ones, a state the model has never been trained in. A restart computes the
window's positions afresh, and keeps the cross-attention's keys of those before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from perceiver_policy.autoregressive import PerceiverAR
from perceiver_policy.cache import SequenceCaches
from perceiver_policy.config import Config

LOWEST_TEMPERATURE = 1e-6
"""But for 0: logits divided by less could become infinite."""


@dataclass(frozen=True)
class SamplingConfig(Config):
    """How a token is drawn from logits: as they are, unless said otherwise, in the order of the fields."""

    minimum: ClassVar[Mapping[str, float]] = {
        "repetition_penalty": 0.0,
        "temperature": 0.0,
        "top_p": 0.0,
        "min_p": 0.0,
    }
    maximum: ClassVar[Mapping[str, int]] = {"top_k": 2**24}

    repetition_penalty: float = 1.0  # tokens that occurred: logits above 0 divided, below 0 multiplied by it
    temperature: float = 1.0  # logits divided by it; 0 takes the most probable token
    top_k: int | None = None  # only the k most probable tokens, and those as probable as the last of them
    top_p: float | None = None  # only the fewest tokens whose probabilities add up to p
    min_p: float | None = None  # only tokens at least p times as probable as the most probable one

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.repetition_penalty > 0, "repetition_penalty", "it must be above 0; 1 is none")
        self._require(
            self.temperature == 0 or self.temperature >= LOWEST_TEMPERATURE,
            "temperature",
            f"it must be 0, for the most probable token, or at least {LOWEST_TEMPERATURE}",
        )
        self._require(self.top_p is None or 0 < self.top_p <= 1, "top_p", "it must be above 0, at most 1")
        self._require(self.min_p is None or self.min_p <= 1, "min_p", "it must be at most 1")


GREEDY = SamplingConfig(temperature=0.0)
"""Always the most probable token."""


def generate(
    model: PerceiverAR,
    prompt: Tensor,
    num_tokens: int,
    *,
    mask: Tensor | None = None,
    sampling: SamplingConfig | None = None,
    generator: torch.Generator | None = None,
    stop_token: int | None = None,
    restart: int | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Continue sequences.

    Args:
        model: is put into evaluation mode meanwhile.
        prompt: (B, L) int64.
        num_tokens: how many to draw at most.
        mask: (B, L) bool, True where a token is present; prompts shorter than L are padded at the left.
        sampling: how tokens are drawn; as the model predicts them if None.
        generator: source of randomness; torch's default one if None.
        stop_token: a sequence ends with it; the rest of its row is filled with it.
        restart: latents after a restart, between 1 and N; half of N if None.
        use_cache: False computes every pass afresh, to the same result.

    Returns:
        (B, n) int64, the tokens drawn, without the prompt; n is ``num_tokens``, or less if all ended.

    Raises:
        ValueError: a prompt that is empty, too long for what is to be drawn, padded elsewhere than at its
            left, or with tokens outside of the vocabulary; a ``restart`` or ``stop_token`` that cannot be.
    """
    sampling = sampling or SamplingConfig()
    restart = _check(model, prompt, num_tokens, mask, stop_token, restart)
    if mask is not None and mask.all():
        mask = None
    config, caches = model.config, None
    if use_cache:
        caches = SequenceCaches(
            prompt.shape[1] + num_tokens - 1, config.num_latents, config.num_self_attention_layers
        )
    sequence = prompt
    ended = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for window in latent_windows(prompt.shape[1], num_tokens, config.num_latents, restart):
                logits = _next_logits(model, sequence, mask, window, caches)
                seen = None
                if sampling.repetition_penalty != 1:
                    seen = _occurring(sequence, mask, config.vocabulary_size)
                token = draw(logits, sampling, seen, generator)
                if stop_token is not None:
                    token = token.masked_fill(ended, stop_token)
                    ended |= token == stop_token
                sequence = torch.cat((sequence, token.unsqueeze(1)), dim=1)
                if mask is not None:
                    mask = torch.cat((mask, torch.ones_like(mask[:, :1])), dim=1)
                if ended.all():
                    break
    finally:
        model.train(training)
    return sequence[:, prompt.shape[1] :]


def latent_windows(prompt_length: int, num_tokens: int, num_latents: int, restart: int) -> list[int]:
    """The latents of each pass, as the module docstring says.

    Args:
        prompt_length: tokens of the first pass; each pass has one more.
        num_tokens: how many passes.
        num_latents: N, most latents.
        restart: latents of a pass that cannot have one more than the pass before.
    """
    windows: list[int] = []
    window = prompt_length if prompt_length <= num_latents else restart
    for _ in range(num_tokens):
        windows.append(window)
        window = window + 1 if window < num_latents else restart
    return windows


def draw(
    logits: Tensor,
    sampling: SamplingConfig,
    seen: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw a token of each row.

    Args:
        logits: (B, V) float.
        sampling: how.
        seen: (B, V) bool, tokens that the repetition penalty is for; None for none.
        generator: source of randomness; torch's default one if None.

    Returns:
        (B,) int64.
    """
    logits = constrain(logits.float(), sampling, seen)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)


def constrain(logits: Tensor, sampling: SamplingConfig, seen: Tensor | None = None) -> Tensor:
    """The logits that tokens are drawn by, -inf for those that cannot be. Arguments as for :func:`draw`.

    The repetition penalty is that of CTRL (arXiv:1909.05858, section 4.1) in the form common today; top-p is
    nucleus sampling (arXiv:1904.09751); min-p is arXiv:2407.01082. Each sees what the ones before it left.
    """
    if seen is not None and sampling.repetition_penalty != 1:
        penalty = sampling.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if sampling.temperature > 0:
        logits = logits / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        descending, order = logits.sort(descending=True, stable=True)
        probabilities = descending.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        surplus = (before >= sampling.top_p).scatter(-1, order, before >= sampling.top_p)
        logits = logits.masked_fill(surplus, -torch.inf)
    if sampling.min_p is not None and sampling.min_p > 0:
        probabilities = logits.softmax(-1)
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        logits = logits.masked_fill(probabilities < least, -torch.inf)
    return logits


def _next_logits(
    model: PerceiverAR, sequence: Tensor, mask: Tensor | None, window: int, caches: SequenceCaches | None
) -> Tensor:
    """(B, V) float: logits of what follows ``sequence``, from the latents of its last ``window`` tokens."""
    if caches is None:
        return model(sequence, mask, num_latents=window)[:, -1]
    if window != caches.num_latents + 1:
        caches.rewind(sequence.shape[1] - window)
    new = sequence[:, caches.num_tokens :]
    return model(new, mask, num_latents=min(window, new.shape[1]), caches=caches)[:, -1]


def _occurring(sequence: Tensor, mask: Tensor | None, vocabulary_size: int) -> Tensor:
    """(B, V) bool: which tokens occur in the (B, L) sequence where the mask is True."""
    present = torch.ones_like(sequence, dtype=torch.int32) if mask is None else mask.int()
    counts = torch.zeros(len(sequence), vocabulary_size, dtype=torch.int32, device=sequence.device)
    return counts.scatter_add(1, sequence, present) > 0


def _check(
    model: PerceiverAR,
    prompt: Tensor,
    num_tokens: int,
    mask: Tensor | None,
    stop_token: int | None,
    restart: int | None,
) -> int:
    """The number of latents after a restart, once everything is known to be right."""
    config = model.config
    if prompt.dim() != 2 or 0 in prompt.shape or prompt.dtype is not torch.int64:
        raise ValueError(
            f"the prompt has shape {tuple(prompt.shape)} and type {prompt.dtype}; it must be (B, L) int64, "
            "both at least 1: begin with a start token if there is nothing to continue"
        )
    if num_tokens < 1:
        raise ValueError(f"num_tokens is {num_tokens}; it must be at least 1")
    longest = config.max_context - num_tokens + 1
    if prompt.shape[1] > longest:
        raise ValueError(
            f"the prompt has {prompt.shape[1]} tokens and {num_tokens} are to be drawn, but max_context is "
            f"{config.max_context}; "
            + (f"keep the last {longest} of the prompt or less" if longest > 0 else "draw fewer")
        )
    least, most = int(prompt.min()), int(prompt.max())
    if least < 0 or most >= config.vocabulary_size:
        raise ValueError(
            f"the prompt has tokens from {least} to {most}; the vocabulary is 0 to "
            f"{config.vocabulary_size - 1}"
        )
    if stop_token is not None and not 0 <= stop_token < config.vocabulary_size:
        raise ValueError(
            f"stop_token is {stop_token}; the vocabulary is 0 to {config.vocabulary_size - 1}, or None"
        )
    if mask is not None:
        if mask.shape != prompt.shape or mask.dtype is not torch.bool:
            raise ValueError(
                f"the mask has shape {tuple(mask.shape)} and type {mask.dtype}; it must be "
                f"{tuple(prompt.shape)} bool, like the prompt"
            )
        if not mask[:, -1].all() or (mask[:, :-1] & ~mask[:, 1:]).any():
            raise ValueError(
                "the mask is False after a token that is present; pad prompts at the left, each with at "
                "least one token"
            )
    if restart is None:
        restart = max(config.num_latents // 2, 1)
    if not 1 <= restart <= config.num_latents:
        raise ValueError(f"restart is {restart}; it must be between 1 and num_latents {config.num_latents}")
    return restart
