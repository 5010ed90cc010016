"""Adaptive depth: as many blocks as an input needs, by PonderNet (Banino et al., arXiv:2107.05407).

After each block n of the encoder, a linear head on the mean of the latents gives the probability λ_n of
halting there if the encoder has not halted before::

    p_n = λ_n Π_{j<n} (1 - λ_j),   n < N        the last step takes what is left: p_N = Π_{j<N} (1 - λ_j)

In training every step's latents are decoded, and the loss is the expected one, kept close to a prior::

    L = Σ_n p_n L_n + β KL(p ‖ G),   G_n ∝ λ_p (1 - λ_p)^{n-1},  n = 1 … N

For use, :meth:`AdaptiveEncoder.halt` stops at one step, by drawing it or once halting has become likely
enough. Where that choice must not depend on luck and must have gradients, as a policy's logits, take the
:func:`expected` ones of all steps.

Steps are the first axis everywhere. Halting distributions are kept as logarithms, in which neither a
certain nor an impossible step loses its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_policy.config import Config
from perceiver_policy.core import PerceiverEncoder
from perceiver_policy.tokens import Tokens


class Halting(StrEnum):
    """What ends the computation of a batch entry."""

    SAMPLE = "sample"  # a coin of probability λ_n at each step, as in the paper
    CUMULATIVE = "cumulative"  # Σ_{j≤n} p_j has reached the threshold; no chance involved


@dataclass(frozen=True)
class AdaptiveConfig(Config):
    """Halting. The most steps are the encoder's ``num_blocks``."""

    minimum: ClassVar[Mapping[str, float]] = {
        "prior_rate": 0.0,
        "kl_weight": 0.0,
        "tail": 0.0,
        "threshold": 0.0,
    }

    prior_rate: float = 0.2  # λ_p: the prior's mean is 1 / λ_p steps, if there are enough
    kl_weight: float = 0.01  # β
    tail: float = 0.0  # ε: training's unrolling ends where less than this is left to every batch entry
    halting: Halting = Halting.SAMPLE
    threshold: float = 0.5  # of cumulative halting

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(0 < self.prior_rate < 1, "prior_rate", "it must lie between 0 and 1, exclusive")
        self._require(self.tail < 1, "tail", "it must be below 1")
        self._require(0 < self.threshold <= 1, "threshold", "it must be above 0 and at most 1")


class Pondering(NamedTuple):
    """Every step, up to the last that may be needed."""

    latents: Tensor  # (N, B, L, D) float
    log_probs: Tensor  # (N, B) float, ln p_n of halting at each


class Halted(NamedTuple):
    """Of each batch entry the step at which it halted."""

    latents: Tensor  # (B, L, D) float
    steps: Tensor  # (B,) int64, 1 … num_blocks


class AdaptiveEncoder(nn.Module):
    """A Perceiver encoder that decides after each of its blocks whether to go on.

    Blocks that share weights make it the paper's recurrent step function; others an early exit.

    Args:
        config: how it halts.
        encoder: what is applied; a step is one of its blocks, with the cross-attention before it.
    """

    def __init__(self, config: AdaptiveConfig, encoder: PerceiverEncoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        num_channels = encoder.config.num_latent_channels
        self.halting_norm = nn.LayerNorm(num_channels)
        self.halting = nn.Linear(num_channels, 1)
        # λ starts around the prior's: neither all at the first step nor none before the last.
        nn.init.constant_(self.halting.bias, math.log(config.prior_rate / (1 - config.prior_rate)))

    def forward(
        self, inputs: Tensor | Tokens, mask: Tensor | None = None, latents: Tensor | None = None
    ) -> Pondering:
        """Every step, with gradients, for training and for expectations.

        Args:
            inputs: as of :meth:`~perceiver_policy.core.PerceiverEncoder.forward`, like the others.
            mask: (B, M) bool.
            latents: (B, L, D) float to start from.
        """
        steps: list[Tensor] = []
        logits: list[Tensor] = []
        log_left: Tensor | float = 0.0
        for x in self.encoder.stages(inputs, mask, latents):
            steps.append(x)
            logits.append(self.halting_logits(x))
            log_left = log_left + F.logsigmoid(-logits[-1])
            if self.config.tail and bool((log_left < math.log(self.config.tail)).all()):
                break
        return Pondering(torch.stack(steps), halting_log_probs(torch.stack(logits)))

    def halt(
        self,
        inputs: Tensor | Tokens,
        mask: Tensor | None = None,
        latents: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Halted:
        """Each batch entry up to the step at which it halts; later steps compute only what still runs.

        Args:
            inputs, mask, latents: as of :meth:`forward`.
            generator: what drawn halting draws from, on the inputs' device; None: torch's own.
        """
        tokens = inputs if isinstance(inputs, Tokens) else Tokens(inputs, mask)
        num_blocks = self.encoder.config.num_blocks
        batch_size = len(tokens.content)
        x = self.encoder.latents if latents is None else latents
        running = torch.arange(batch_size, device=tokens.content.device)
        log_left = torch.zeros(batch_size, device=running.device, dtype=self.halting.weight.dtype)
        steps = torch.full_like(running, num_blocks)
        halted: Tensor | None = None
        for block in range(num_blocks):
            x = self.encoder.apply_block(block, x, tokens)
            halted = torch.empty_like(x) if halted is None else halted
            logits = self.halting_logits(x)
            if block == num_blocks - 1:
                stop = torch.ones_like(running, dtype=torch.bool)
            elif self.config.halting is Halting.SAMPLE:
                draw = torch.rand(len(running), device=running.device, generator=generator)
                stop = draw < logits.sigmoid()
            else:
                log_left = log_left + F.logsigmoid(-logits)
                stop = -torch.expm1(log_left) >= self.config.threshold
            halted = halted.index_copy(0, running[stop], x[stop])
            steps[running[stop]] = block + 1
            if bool(stop.all()):
                break
            go_on = ~stop
            x, running, log_left = x[go_on], running[go_on], log_left[go_on]
            tokens = _select(tokens, go_on)
        assert halted is not None
        return Halted(halted, steps)

    def halting_logits(self, latents: Tensor) -> Tensor:
        """(..., L, D) float latents after a step to (...) float, the logits of λ."""
        # Not in autocast's 16 bits: the prior's divergence is a sum of differences of their logarithms.
        with torch.autocast(latents.device.type, enabled=False):
            normed = self.halting_norm(latents.to(self.halting.weight.dtype))
            logits: Tensor = self.halting(normed.mean(-2)).squeeze(-1)
        return logits


class PonderLoss(NamedTuple):
    """The loss and its parts, each a mean over the batch, () float."""

    total: Tensor  # expected + β divergence
    expected: Tensor  # Σ_n p_n L_n
    divergence: Tensor  # KL(p ‖ G), nats


def halting_log_probs(logits: Tensor) -> Tensor:
    """ln p_n = ln λ_n + Σ_{j<n} ln(1 - λ_j), and ln p_N = Σ_{j<N} ln(1 - λ_j); λ = σ(logits).

    PonderNet, equation 2, with what is left given to the last step, whose own logit plays no part.

    Args:
        logits: (N, ...) float, of halting at a step that is reached.

    Returns:
        (N, ...) float; the exponentials sum to 1 over the steps.
    """
    log_stop = torch.cat((F.logsigmoid(logits[:-1]), torch.zeros_like(logits[-1:])))
    log_left = F.logsigmoid(-logits).cumsum(0)
    return log_stop + torch.cat((torch.zeros_like(logits[:1]), log_left[:-1]))


def truncated_geometric_log_probs(rate: float, num_steps: int) -> Tensor:
    """ln G_n = ln λ + (n - 1) ln(1 - λ) - ln(1 - (1 - λ)^N), n = 1 … N.

    Args:
        rate: λ, between 0 and 1, exclusive.
        num_steps: N.

    Returns:
        (N,) float64; the exponentials sum to 1.
    """
    steps = torch.arange(num_steps, dtype=torch.float64)
    log_miss = math.log1p(-rate)
    return math.log(rate) + steps * log_miss - math.log(-math.expm1(num_steps * log_miss))


def divergence_from_prior(log_probs: Tensor, rate: float) -> Tensor:
    """KL(p ‖ G) = Σ_n p_n (ln p_n - ln G_n), G being the geometric distribution truncated to N steps.

    Args:
        log_probs: (N, ...) float, ln p.
        rate: λ_p of G.

    Returns:
        (...) float, nats.
    """
    prior = truncated_geometric_log_probs(rate, len(log_probs)).to(log_probs)
    prior = prior.view(-1, *(1,) * (log_probs.dim() - 1))
    return (log_probs.exp() * (log_probs - prior)).sum(0)


def expected(values: Tensor, log_probs: Tensor) -> Tensor:
    """Σ_n p_n x_n: of losses, and of logits or values where halting must not be left to chance.

    Args:
        values: (N, B, ...) float, x.
        log_probs: (N, B) float, ln p.

    Returns:
        (B, ...) float.
    """
    probs = log_probs.exp()
    return (probs.view(*probs.shape, *(1,) * (values.dim() - probs.dim())) * values).sum(0)


def expected_steps(log_probs: Tensor) -> Tensor:
    """Σ_n n p_n, (N, B) float ln p to (B,) float."""
    steps = torch.arange(1, len(log_probs) + 1, device=log_probs.device, dtype=log_probs.dtype)
    return expected(steps.unsqueeze(-1).expand_as(log_probs), log_probs)


def ponder_loss(losses: Tensor, log_probs: Tensor, prior_rate: float, kl_weight: float) -> PonderLoss:
    """L = Σ_n p_n L_n + β KL(p ‖ G), PonderNet's equation 3.

    Args:
        losses: (N, B) float, L_n of every step's output.
        log_probs: (N, B) float, ln p.
        prior_rate: λ_p of G.
        kl_weight: β.

    Raises:
        ValueError: losses and log_probs of different shapes.
    """
    if losses.shape != log_probs.shape:
        raise ValueError(
            f"losses {tuple(losses.shape)} and log_probs {tuple(log_probs.shape)} differ; "
            "both are of shape (steps, batch)"
        )
    mean_loss = expected(losses, log_probs).mean()
    divergence = divergence_from_prior(log_probs, prior_rate).mean()
    return PonderLoss(mean_loss + kl_weight * divergence, mean_loss, divergence)


def _select(tokens: Tokens, rows: Tensor) -> Tokens:
    """The batch entries where ``rows`` (B,) bool is True."""
    mask = None if tokens.mask is None else tokens.mask[rows]
    return tokens._replace(content=tokens.content[rows], mask=mask)
