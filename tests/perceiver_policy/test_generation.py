"""Generation: sampling against distributions worked out by hand, caches against none."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from perceiver_policy import generation
from perceiver_policy.autoregressive import PerceiverAR
from perceiver_policy.autoregressive_config import AbsolutePositions, PerceiverARConfig
from perceiver_policy.config import ConfigError
from perceiver_policy.generation import GREEDY, SamplingConfig, constrain, draw, generate, latent_windows

SMALL = PerceiverARConfig(
    vocabulary_size=11,
    max_context=40,
    num_latents=6,
    num_channels=8,
    num_cross_attention_heads=1,
    num_self_attention_heads=2,
    num_self_attention_layers=2,
    rotary_base=100.0,
)


def perturbed(config: PerceiverARConfig = SMALL) -> PerceiverAR:
    """A model whose next token depends on all before it, and hardly ever on which is nearest alone."""
    torch.manual_seed(0)
    model = PerceiverAR(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model.eval()


def log(*probabilities: float) -> Tensor:
    return torch.tensor([[math.log(p) for p in probabilities]])


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (SamplingConfig(), (0.5, 0.25, 0.15, 0.1)),
        (SamplingConfig(temperature=0.5), (0.25 / 0.345, 0.0625 / 0.345, 0.0225 / 0.345, 0.01 / 0.345)),
        (SamplingConfig(top_k=2), (2 / 3, 1 / 3, 0, 0)),
        (SamplingConfig(top_k=9), (0.5, 0.25, 0.15, 0.1)),
        (SamplingConfig(top_p=0.74), (2 / 3, 1 / 3, 0, 0)),
        (SamplingConfig(top_p=0.76), (0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0)),
        (SamplingConfig(top_p=0.01), (1, 0, 0, 0)),
        (SamplingConfig(min_p=0.25), (0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0)),
        (SamplingConfig(min_p=1.0), (1, 0, 0, 0)),
        # Of the three that top-k leaves, 0.5/0.9 and 0.25/0.9 reach 0.8; the third is one of four without it.
        (SamplingConfig(top_k=3, top_p=0.8), (2 / 3, 1 / 3, 0, 0)),
        (SamplingConfig(top_p=0.8), (0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0)),
        # Squares first: 0.25 : 0.0625 : 0.0225 : 0.01, whose first is 0.72 of all.
        (SamplingConfig(temperature=0.5, top_p=0.7), (1, 0, 0, 0)),
    ],
)
def test_what_a_token_is_drawn_by(sampling: SamplingConfig, expected: tuple[float, ...]) -> None:
    order = [2, 0, 3, 1]
    logits = log(0.5, 0.25, 0.15, 0.1) + 1.7  # a constant changes no probability
    probabilities = constrain(logits[:, order], sampling).softmax(-1)
    torch.testing.assert_close(probabilities, torch.tensor([expected], dtype=torch.float32)[:, order])


def test_repetition_penalty_makes_what_occurred_less_likely() -> None:
    logits = torch.tensor([[2.0, -1.0, 3.0, -2.0]])
    seen = torch.tensor([[True, True, False, False]])
    penalised = constrain(logits, SamplingConfig(repetition_penalty=2.0), seen)
    assert penalised.tolist() == [[1.0, -2.0, 3.0, -2.0]]


def test_draws_follow_the_probabilities() -> None:
    logits = log(0.5, 0.25, 0.15, 0.1).expand(4000, -1)
    generator = torch.Generator().manual_seed(0)
    counts = draw(logits, SamplingConfig(), generator=generator).bincount(minlength=4)
    for count, p in zip(counts.tolist(), (0.5, 0.25, 0.15, 0.1), strict=True):
        assert abs(count - 4000 * p) < 4 * math.sqrt(4000 * p * (1 - p))
    assert draw(logits[:1], GREEDY).tolist() == [0]
    assert draw(logits[:1], SamplingConfig(temperature=0.0, top_k=1, top_p=0.1, min_p=0.9)).tolist() == [0]


@pytest.mark.parametrize(
    ("arguments", "windows"),
    [
        ((3, 6, 6, 3), [3, 4, 5, 6, 3, 4]),
        ((6, 4, 6, 3), [6, 3, 4, 5]),
        ((7, 5, 6, 3), [3, 4, 5, 6, 3]),
        ((7, 3, 6, 6), [6, 6, 6]),
        ((1, 3, 1, 1), [1, 1, 1]),
    ],
)
def test_the_window_grows_and_starts_over(arguments: tuple[int, int, int, int], windows: list[int]) -> None:
    assert latent_windows(*arguments) == windows


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("places", AbsolutePositions)
@pytest.mark.parametrize(("length", "restart"), [(3, None), (9, None), (6, 1), (9, 6)])
def test_caches_change_nothing(
    length: int, restart: int | None, places: AbsolutePositions, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = perturbed(dataclasses.replace(SMALL, absolute_positions=places)).double()
    prompt = torch.randint(11, (3, length))
    mask = torch.arange(length) >= torch.tensor([[0], [1], [2]]) if padded else None
    dictated = torch.randint(11, (20, 3))  # the model's own choice soon repeats itself
    steps: list[Tensor] = []

    def recording(logits: Tensor, *rest: object) -> Tensor:
        steps.append(logits)
        return dictated[(len(steps) - 1) % 20]

    monkeypatch.setattr(generation, "draw", recording)
    cached = generate(model, prompt, 20, mask=mask, restart=restart)
    generate(model, prompt, 20, mask=mask, restart=restart, use_cache=False)
    assert torch.equal(cached, dictated.T)
    torch.testing.assert_close(torch.stack(steps[:20]), torch.stack(steps[20:]), rtol=0, atol=1e-10)


def test_each_token_is_what_the_model_says_of_its_window() -> None:
    model = perturbed()
    prompt = torch.randint(11, (2, 4))
    drawn = generate(model, prompt, 9, sampling=GREEDY)
    assert torch.equal(drawn, generate(model, prompt, 9, sampling=GREEDY, use_cache=False))
    whole = torch.cat((prompt, drawn), dim=1)
    for i, window in enumerate([4, 5, 6, 3, 4, 5, 6, 3, 4]):
        logits = model(whole[:, : 4 + i], num_latents=window)[:, -1]
        assert torch.equal(drawn[:, i], logits.argmax(-1))


def test_a_padded_prompt_goes_on_as_it_would_alone() -> None:
    """As long as all it has is in the window, of which padding takes a part."""
    model = perturbed()
    prompt = torch.randint(11, (2, 4))
    mask = torch.tensor([[True] * 4, [False, False, True, True]])
    drawn = generate(model, prompt, 3, mask=mask, sampling=GREEDY)
    assert torch.equal(drawn[1:], generate(model, prompt[1:, 2:], 3, sampling=GREEDY))
    assert torch.equal(drawn[:1], generate(model, prompt[:1], 3, sampling=GREEDY))


def test_caches_compute_each_position_once_but_for_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = perturbed()
    lengths: list[int] = []
    forward = model.forward

    def recording(tokens: Tensor, *rest: object, **more: object) -> Tensor:
        lengths.append(tokens.shape[1])
        return forward(tokens, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "forward", recording)
    generate(model, torch.randint(11, (1, 9)), 10, restart=3)
    assert lengths == [9, 1, 1, 1, 3, 1, 1, 1, 3, 1]


def test_the_same_seed_draws_the_same_tokens() -> None:
    model = perturbed()
    prompt = torch.randint(11, (2, 4))
    draws = [generate(model, prompt, 12, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_row_ends_with_the_stop_token() -> None:
    model = perturbed()
    prompt = torch.randint(11, (2, 4))
    free = generate(model, prompt, 20, sampling=GREEDY)
    stop = next(t for t in free[0].tolist() if t != free[1, 0].item())
    stopped = generate(model, prompt, 20, sampling=GREEDY, stop_token=stop)
    ends = [row.index(stop) if stop in row else 19 for row in free.tolist()]
    assert stopped.shape[1] == max(ends) + 1
    assert ends[0] != ends[1]
    for row, expected, end in zip(stopped.tolist(), free.tolist(), ends, strict=True):
        assert row[: end + 1] == expected[: end + 1]
        assert set(row[end + 1 :]) <= {stop}


def test_the_repetition_penalty_knows_the_prompt_but_not_its_padding() -> None:
    model = perturbed()
    with torch.no_grad():
        model.head.bias[3], model.head.bias[5] = 60.0, 50.0
    sampling = SamplingConfig(temperature=0.0, repetition_penalty=100.0)
    prompt = torch.tensor([[3, 1, 2]])
    assert generate(model, prompt, 2, sampling=sampling)[0, 0] == 5
    absent = torch.tensor([[False, True, True]])
    assert generate(model, prompt, 2, mask=absent, sampling=sampling).tolist() == [[3, 5]]


def test_generation_leaves_the_model_as_it_was() -> None:
    model = perturbed(dataclasses.replace(SMALL, attention_dropout=0.5, prefix_dropout=0.5)).train()
    prompt = torch.randint(11, (2, 9))
    assert torch.equal(*(generate(model, prompt, 6, sampling=GREEDY) for _ in range(2)))
    assert model.training
    assert model.loss(torch.cat((prompt, generate(model, prompt, 2)), dim=1)).requires_grad


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0; it must be at least 0"),
        ({"temperature": 1e-40}, "temperature is 1e-40; it must be 0, .* or at least 1e-06"),
        ({"top_k": 0}, "top_k is 0; it must be at least 1"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0, at most 1"),
        ({"top_p": 1.1}, "top_p is 1.1; it must be above 0, at most 1"),
        ({"min_p": 1.1}, "min_p is 1.1; it must be at most 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; it must be above 0"),
    ],
)
def test_wrong_sampling(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingConfig(**changes)  # type: ignore[arg-type]


def test_wrong_requests() -> None:
    model = perturbed()
    prompt = torch.randint(11, (2, 9))
    generate(model, prompt, 32)  # the last token drawn is not read
    with pytest.raises(ValueError, match=r"9 tokens and 33 .* max_context is 40; keep the last 8"):
        generate(model, prompt, 33)
    with pytest.raises(ValueError, match=r"max_context is 40; draw fewer"):
        generate(model, prompt, 41)
    with pytest.raises(ValueError, match="num_tokens is 0"):
        generate(model, prompt, 0)
    for wrong in (prompt[0], prompt[:, :0], prompt.int()):
        with pytest.raises(ValueError, match=r"must be \(B, L\) int64"):
            generate(model, wrong, 1)
    with pytest.raises(ValueError, match="tokens from -1 to 11; the vocabulary is 0 to 10"):
        generate(model, torch.tensor([[-1, 11]]), 1)
    with pytest.raises(ValueError, match="stop_token is 11; the vocabulary is 0 to 10"):
        generate(model, prompt, 1, stop_token=11)
    for restart in (0, 7):
        with pytest.raises(ValueError, match=f"restart is {restart}; it must be between 1 and num_latents 6"):
            generate(model, prompt, 1, restart=restart)
    with pytest.raises(ValueError, match=r"the mask has shape \(2, 8\)"):
        generate(model, prompt, 1, mask=torch.ones(2, 8, dtype=torch.bool))
    for absent in (8, 4):
        mask = torch.arange(9).expand(2, -1) != absent
        with pytest.raises(ValueError, match="pad prompts at the left"):
            generate(model, prompt, 1, mask=mask)


def test_top_p_stops_where_the_sum_is_just_reached() -> None:
    found = constrain(torch.zeros(1, 4), SamplingConfig(top_p=0.5))  # 1/4 each
    assert found.isfinite().tolist() == [[True, True, False, False]]
