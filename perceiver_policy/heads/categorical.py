"""Categorical distributions over masked logits: a choice that is not allowed has probability 0, exactly.

Masked logits are :data:`MASKED`. It is finite, so that sums and gradients stay finite even when every
choice is masked, and so low that its probability underflows to 0 beside any logit a network produces.
"""

from __future__ import annotations

import torch
from torch import Tensor

MASKED = -1e9
LOWEST = -80.0  # below the best logit: e^-80 is still a normal float32


def mask_logits(logits: Tensor, allowed: Tensor) -> Tensor:
    """Logits (..., C) with :data:`MASKED` where ``allowed`` (..., C) bool is False; float32 if they came in
    16 bits, which hold neither :data:`MASKED` (float16) nor a probability (bfloat16) well."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits.masked_fill(~allowed, MASKED)


def log_prob_and_entropy(logits: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
    """log p(choice) and H = -Σ p log p, in nats, of categoricals with logits (..., C).

    Args:
        logits: (..., C) float.
        choice: (...) int64.

    Returns:
        Two (...) floats.
    """
    centred, weights, total = _weigh(logits)
    log_total = total.log()
    log_prob = centred.gather(-1, choice.unsqueeze(-1)).squeeze(-1) - log_total
    return log_prob, log_total - (weights * centred).sum(-1) / total


def entropy(logits: Tensor) -> Tensor:
    """H = -Σ p log p, in nats, of categoricals with logits (..., C): (...)."""
    centred, weights, total = _weigh(logits)
    return total.log() - (weights * centred).sum(-1) / total


def kl_divergence(logits: Tensor, other: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (log p - log q), in nats, of categoricals p and q with logits (..., C) each: (...)."""
    centred, weights, total = _weigh(logits)
    other_centred, _, other_total = _weigh(other)
    difference = (weights * (centred - other_centred)).sum(-1) / total
    return difference - total.log() + other_total.log()


def sample(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw from categoricals with logits (..., C) by the Gumbel-max trick: (...) int64.

    -log E with E ~ Exponential(1) is a standard Gumbel variable. E is kept above the smallest normal
    number, which bounds the noise by 88: no draw can lift a masked choice over an allowed one.
    """
    exponential = torch.empty_like(logits).exponential_(generator=generator)
    return (logits - exponential.clamp_min_(torch.finfo(logits.dtype).tiny).log_()).argmax(-1)


def _weigh(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits less the best of them (..., C); their exponentials, 0 where masked (..., C); the sum of these
    (...)."""
    # softmax would do, but exp of the masked logits underflows, which takes CPUs 50 times as long.
    centred = logits - logits.detach().amax(-1, keepdim=True)
    weights = centred.clamp_min(LOWEST).exp() * (centred > MASKED / 2)
    return centred, weights, weights.sum(-1)
