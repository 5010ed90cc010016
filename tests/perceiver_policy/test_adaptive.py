"""Adaptive depth: the halting distribution by hand, the loss against its definition, halting as it says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from perceiver_policy.adaptive import (
    AdaptiveConfig,
    AdaptiveEncoder,
    Halting,
    divergence_from_prior,
    expected,
    expected_steps,
    halting_log_probs,
    ponder_loss,
    truncated_geometric_log_probs,
)
from perceiver_policy.config import ConfigError, EncoderConfig, Placement
from perceiver_policy.core import PerceiverEncoder
from perceiver_policy.tokens import Tokens

NUM_BLOCKS = 5


def logits_of(rates: list[float]) -> Tensor:
    rate = torch.tensor(rates, dtype=torch.float64)
    return (rate / (1 - rate)).log().unsqueeze(-1)


def make_encoder(
    *, seed: int = 0, spread: float = 8.0, encoder: dict[str, object] | None = None, **config: object
) -> AdaptiveEncoder:
    """In float64, with halting rates that differ much between steps and batch entries."""
    torch.manual_seed(seed)
    core = PerceiverEncoder(EncoderConfig.from_dict({"num_blocks": NUM_BLOCKS, **(encoder or {})}), 3)
    adaptive = AdaptiveEncoder(AdaptiveConfig.from_dict(config), core).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.normal_(std=0.3)
        adaptive.halting.weight.normal_(std=spread)
        logits = adaptive.halting_logits(torch.stack(list(core.stages(make_inputs()))))
        rising = 1 if logits[-1].mean() > logits[0].mean() else -1
        adaptive.halting.weight.mul_(rising)
        adaptive.halting.bias.copy_(rising * (adaptive.halting.bias - logits.mean()))
    return adaptive


def make_inputs(batch_size: int = 64, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch_size, 6, 3, dtype=torch.float64, generator=generator)


def test_halting_distribution_by_hand() -> None:
    # λ = 1/2, 1/5, 1/4, (9/10): 1/2;  1/2 · 1/5;  1/2 · 4/5 · 1/4;  and 1/2 · 4/5 · 3/4 is left
    log_probs = halting_log_probs(logits_of([0.5, 0.2, 0.25, 0.9]))
    by_hand = torch.tensor([0.5, 0.1, 0.1, 0.3], dtype=torch.float64)
    torch.testing.assert_close(log_probs.exp().squeeze(-1), by_hand)
    assert expected_steps(log_probs).item() == pytest.approx(0.5 + 2 * 0.1 + 3 * 0.1 + 4 * 0.3)


def test_one_step_is_certain() -> None:
    assert halting_log_probs(torch.tensor([[-3.0, 40.0]])).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("logit", [-1000.0, -100.0, 100.0, 1000.0])
def test_certain_steps_keep_the_loss_and_its_gradient_finite(logit: float) -> None:
    logits = torch.full((6, 2), logit, requires_grad=True)
    log_probs = halting_log_probs(logits)
    torch.testing.assert_close(log_probs.exp().sum(0), torch.ones(2))
    loss = ponder_loss(torch.arange(12.0).view(6, 2), log_probs, 0.2, 0.01)
    loss.total.backward()
    assert logits.grad is not None
    assert math.isfinite(loss.total.item())
    assert logits.grad.isfinite().all()


def test_improbable_step_is_exact_in_single_precision() -> None:
    """λ = σ(20) at every step: p_3 = (1 - λ)² λ is e⁻⁴⁰, of which 1 - λ in float32 would leave nothing."""
    log_probs = halting_log_probs(torch.full((4, 1), 20.0))
    assert log_probs[2].item() == pytest.approx(-40.0, abs=1e-5)


def test_truncated_geometric_by_hand() -> None:
    # λ = 1/2, N = 3: 1/2, 1/4, 1/8 over their sum 7/8
    probs = truncated_geometric_log_probs(0.5, 3).exp()
    torch.testing.assert_close(probs, torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64) / 7)
    assert truncated_geometric_log_probs(0.3, 20).exp().sum().item() == pytest.approx(1, abs=1e-14)


def test_divergence_by_hand() -> None:
    # p = (1/2, 1/2) against (2/3, 1/3): ½ ln(3/4) + ½ ln(3/2) = ½ ln(9/8)
    divergence = divergence_from_prior(halting_log_probs(logits_of([0.5, 0.1])), 0.5)
    assert divergence.item() == pytest.approx(0.5 * math.log(9 / 8))


def test_divergence_against_torch() -> None:
    logits = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    log_probs = halting_log_probs(logits)
    prior = torch.tensor([0.35 * 0.65**n for n in range(7)], dtype=torch.float64)
    reference = torch.distributions.kl_divergence(
        torch.distributions.Categorical(probs=log_probs.exp().T),
        torch.distributions.Categorical(probs=prior.expand(5, 7)),
    )
    torch.testing.assert_close(divergence_from_prior(log_probs, 0.35), reference)


def test_prior_diverges_from_itself_by_nothing() -> None:
    prior = truncated_geometric_log_probs(0.2, 9).unsqueeze(-1)
    assert divergence_from_prior(prior, 0.2).item() == pytest.approx(0, abs=1e-14)


def test_loss_by_hand() -> None:
    log_probs = halting_log_probs(logits_of([0.5, 0.1]).repeat(1, 2))
    loss = ponder_loss(torch.tensor([[1.0, 2.0], [3.0, 6.0]]).double(), log_probs, 0.5, 0.1)
    assert loss.expected.item() == pytest.approx((2 + 4) / 2)
    assert loss.divergence.item() == pytest.approx(0.5 * math.log(9 / 8))
    assert loss.total.item() == pytest.approx(3 + 0.05 * math.log(9 / 8))


def test_loss_refuses_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"\(3, 1\).*\(3, 2\).*\(steps, batch\)"):
        ponder_loss(torch.zeros(3, 1), torch.zeros(3, 2), 0.2, 0.01)


def test_loss_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    losses, logits = (
        torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2)
    )

    def total(losses: Tensor, logits: Tensor) -> Tensor:
        return ponder_loss(losses, halting_log_probs(logits), 0.3, 0.2).total

    assert torch.autograd.gradcheck(total, (losses, logits))


def test_expected_combines_logits() -> None:
    log_probs = halting_log_probs(logits_of([0.25, 0.5]).repeat(1, 2))
    values = torch.tensor([[[4.0, 8.0], [0.0, 4.0]], [[8.0, 0.0], [4.0, 0.0]]]).double()
    by_hand = torch.tensor([[7.0, 2.0], [3.0, 1.0]]).double()
    torch.testing.assert_close(expected(values, log_probs), by_hand)


def test_steps_are_the_encoders_blocks() -> None:
    adaptive = make_encoder()
    inputs = make_inputs(4)
    pondering = adaptive(inputs)
    blocks = torch.stack(list(adaptive.encoder.stages(inputs)))
    assert pondering.latents.shape == (NUM_BLOCKS, 4, 4, 32)
    torch.testing.assert_close(pondering.latents, blocks)
    rates = adaptive.halting_logits(blocks).sigmoid()
    left = torch.ones(4, dtype=torch.float64)
    for n in range(NUM_BLOCKS - 1):
        torch.testing.assert_close(pondering.log_probs[n].exp(), left * rates[n])
        left = left * (1 - rates[n])
    torch.testing.assert_close(pondering.log_probs[-1].exp(), left)


def test_gradients_reach_every_weight() -> None:
    """Those of the halting head too, which the loss alone moves."""
    adaptive = make_encoder(spread=1.0)
    pondering = adaptive(make_inputs(4))
    ponder_loss(pondering.latents.square().mean((2, 3)), pondering.log_probs, 0.2, 0.01).total.backward()
    without = [name for name, p in adaptive.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.9, 1.0])
def test_cumulative_halting(threshold: float) -> None:
    """The first step at which Σ p_j reaches the threshold, with that step's latents, entry by entry."""
    adaptive = make_encoder(halting="cumulative", threshold=threshold)
    inputs = make_inputs()
    with torch.no_grad():
        pondering, halted = adaptive(inputs), adaptive.halt(inputs)
    for entry in range(len(inputs)):
        total, step = 0.0, 0
        for log_prob in pondering.log_probs[:-1, entry]:
            total, step = total + math.exp(log_prob), step + 1
            if total >= threshold:
                break
        else:
            step = NUM_BLOCKS
        assert halted.steps[entry] == step
        torch.testing.assert_close(halted.latents[entry], pondering.latents[step - 1, entry])
    if threshold == 0.5:
        assert len(halted.steps.unique()) > 1  # else entries halting apart were not tested


def test_drawn_halting_has_the_distribution() -> None:
    adaptive = make_encoder(spread=3.0)
    inputs = make_inputs(1).expand(4000, -1, -1)
    with torch.no_grad():
        pondering = adaptive(inputs[:1])
        halted = adaptive.halt(inputs, generator=torch.Generator().manual_seed(0))
    probs = pondering.log_probs[:, 0].exp()
    counts = halted.steps.bincount(minlength=NUM_BLOCKS + 1)[1:]
    assert (probs > 0.02).sum() >= 3  # a distribution worth the name
    error = (counts / 4000 - probs).abs()
    assert (error <= 5 * (probs * (1 - probs) / 4000).sqrt() + 1e-9).all()
    torch.testing.assert_close(halted.latents, pondering.latents[halted.steps - 1, 0])


def test_drawn_halting_is_repeated_by_its_seed() -> None:
    adaptive = make_encoder(spread=1.0)
    inputs = make_inputs()
    first, again, other = (
        adaptive.halt(inputs, generator=torch.Generator().manual_seed(seed)).steps for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_step_is_computed_for_entries_that_halted() -> None:
    adaptive = make_encoder(halting="cumulative")
    sizes: list[int] = []
    adaptive.encoder.blocks[0][0].register_forward_hook(lambda *call: sizes.append(len(call[2])))
    steps = adaptive.halt(make_inputs()).steps
    assert sum(sizes) == steps.sum()
    assert len(sizes) == steps.max()
    with torch.no_grad():
        adaptive.halting.weight.zero_()
        adaptive.halting.bias.fill_(50.0)
    sizes.clear()
    assert adaptive.halt(make_inputs()).steps.tolist() == [1] * 64
    assert sizes == [64]


@pytest.mark.parametrize("as_tokens", [False, True])
def test_masks_and_reads_between_blocks(as_tokens: bool) -> None:
    """Entries that remain keep their own inputs and masks when others leave the batch."""
    encoder = {"num_cross_attention_layers": NUM_BLOCKS, "cross_attention_placement": Placement.INTERLEAVED}
    adaptive = make_encoder(halting="cumulative", encoder=encoder)
    inputs = make_inputs()
    mask = torch.rand(64, 6, generator=torch.Generator().manual_seed(2)) < 0.6
    given = (Tokens(inputs, mask),) if as_tokens else (inputs, mask)
    with torch.no_grad():
        pondering, halted = adaptive(*given), adaptive.halt(*given)
    assert len(halted.steps.unique()) > 1
    torch.testing.assert_close(halted.latents, pondering.latents[halted.steps - 1, torch.arange(64)])


def test_starts_from_given_latents() -> None:
    adaptive = make_encoder(halting="cumulative", threshold=1.0)
    inputs, start = make_inputs(2), torch.randn(2, 4, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            adaptive.halt(inputs, latents=start).latents, adaptive.encoder(inputs, latents=start)
        )
        torch.testing.assert_close(
            adaptive(inputs, latents=start).latents[-1], adaptive.encoder(inputs, None, start)
        )


def test_unrolling_ends_where_the_tail_is_thin() -> None:
    adaptive = make_encoder(tail=0.05, encoder={"num_blocks": 40})
    with torch.no_grad():
        adaptive.halting.weight.zero_()
        adaptive.halting.bias.zero_()  # λ = 1/2: 1/32 < 0.05 is left after 5 steps, 1/16 after 4
    pondering = adaptive(make_inputs(3))
    torch.testing.assert_close(
        pondering.log_probs.exp()[:, 0], torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625]).double()
    )


def test_starts_at_the_priors_rate() -> None:
    torch.manual_seed(0)
    adaptive = AdaptiveEncoder(AdaptiveConfig(prior_rate=0.3), PerceiverEncoder(EncoderConfig(), 3))
    assert adaptive.halting.bias.sigmoid().item() == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("prior_rate", 0.0, "between 0 and 1"),
        ("prior_rate", 1.0, "between 0 and 1"),
        ("threshold", 0.0, "above 0"),
        ("threshold", 1.5, "at most 1"),
        ("tail", 1.0, "below 1"),
        ("kl_weight", -0.1, "at least 0"),
        ("halting", "never", "'sample', 'cumulative'"),
    ],
)
def test_refused(key: str, value: object, rule: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} is {value!r}.*{rule}"):
        AdaptiveConfig.from_dict({key: value})


def test_config_comes_back_from_its_dict() -> None:
    config = AdaptiveConfig(halting=Halting.CUMULATIVE, threshold=0.9)
    assert AdaptiveConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(("threshold", "step"), [(0.5, 1), (0.75, 2), (0.76, 3)])
def test_cumulative_halting_where_the_threshold_is_just_reached(threshold: float, step: int) -> None:
    adaptive = make_encoder(halting="cumulative", threshold=threshold)
    with torch.no_grad():  # λ = 1/2 at every step: 1/2, 3/4, 7/8, all exact
        adaptive.halting.weight.zero_()
        adaptive.halting.bias.zero_()
        assert adaptive.halt(make_inputs(3)).steps.tolist() == [step] * 3


def test_unrolling_goes_on_for_the_entry_with_most_left() -> None:
    inputs = make_inputs()
    whole = make_encoder()(inputs).log_probs.exp().cumsum(0)
    enough = (whole > 0.5).long().argmax(0) + 1  # steps until less than half is left
    assert enough.min() < enough.max()
    assert len(make_encoder(tail=0.5)(inputs).latents) == enough.max()


def test_halting_is_not_decided_in_sixteen_bits() -> None:
    encoder = make_encoder().float()
    latents = torch.stack(list(encoder.encoder.stages(make_inputs().float())))
    expected_logits = encoder.halting_logits(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder.halting_logits(latents), expected_logits)
