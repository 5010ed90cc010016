"""The sequence pointer: its distribution over sequences, against enumeration; what must not change it;
empty sets; impossible sequences; and that it learns."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from perceiver_policy.config import ConfigError
from perceiver_policy.heads.categorical import kl_divergence
from perceiver_policy.heads.sequence_pointer import (
    PAST_END,
    Evaluation,
    SequencePointerConfig,
    SequencePointerHead,
)

NUM_QUERY_CHANNELS, NUM_TOKEN_CHANNELS = 6, 5


def make_head(seed: int = 0, *, spread: float = 0.8, **config: int) -> SequencePointerHead:
    """A head whose choices are far from uniform, in float64."""
    torch.manual_seed(seed)
    sizes = {"num_key_channels": 4, "num_hidden_channels": 8, "max_selected": 6} | config
    head = SequencePointerHead(
        SequencePointerConfig.from_dict(sizes),
        num_query_channels=NUM_QUERY_CHANNELS,
        num_token_channels=NUM_TOKEN_CHANNELS,
    ).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=spread)
    return head


def make_sets(batch: int = 16, num_units: int = 7, *, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, tokens and which rows are allowed, about two in three; none in the first set."""
    g = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, NUM_QUERY_CHANNELS, generator=g, dtype=torch.float64)
    tokens = torch.randn(batch, num_units, NUM_TOKEN_CHANNELS, generator=g, dtype=torch.float64)
    allowed = torch.rand(batch, num_units, generator=g) < 0.65
    allowed[0] = False
    return query, tokens, allowed


def sequences(num_units: int, limit: int) -> list[list[int]]:
    """Every legal sequence of up to ``limit`` of the units, padded to it."""
    orders = [order for n in range(1, limit + 1) for order in itertools.permutations(range(num_units), n)]
    return [list(order) + [PAST_END] * (limit - len(order)) for order in orders]


def by_hand(
    head: SequencePointerHead, query: Tensor, tokens: Tensor, allowed: Tensor, indices: list[int]
) -> tuple[float, float]:
    """Log-probability and entropy of one selection from one set, by the equations, one step at a time."""
    keys = [head.key.weight @ token for token in tokens]
    chosen: list[int] = []
    log_prob = entropy = 0.0
    for index in indices:
        mean = sum((keys[j] for j in chosen), torch.zeros_like(head.end_key)) / max(len(chosen), 1)
        state = torch.cat([mean, mean.new_tensor([len(chosen) / head.max_selected])])
        hidden = (head.query.weight @ query + head.query.bias + head.state.weight @ state).clamp_min(0)
        pointer = (head.pointer.weight @ hidden + head.pointer.bias) / math.sqrt(len(mean))
        options = {j: float(pointer @ keys[j]) for j in range(len(keys)) if allowed[j] and j not in chosen}
        if chosen or not options:
            options[PAST_END] = float(pointer @ head.end_key)
        total = sum(math.exp(score) for score in options.values())
        log_prob += options[index] - math.log(total)
        entropy -= sum(math.exp(s) / total * (s - math.log(total)) for s in options.values())
        if index == PAST_END:
            break
        chosen.append(index)
    return log_prob, entropy


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("limit", [3, 20])
def test_what_is_selected_is_legal_and_worth_what_the_equations_say(deterministic: bool, limit: int) -> None:
    head = make_head(max_selected=limit)
    query, tokens, allowed = make_sets(batch=48)
    g = torch.Generator().manual_seed(2)
    selection = head.select(query, tokens, allowed, deterministic=deterministic, generator=g)
    evaluation = head.evaluate(query, tokens, allowed, selection.indices)
    torch.testing.assert_close(selection.log_prob, evaluation.log_prob, atol=1e-12, rtol=0)
    torch.testing.assert_close(selection.logits, evaluation.logits, atol=1e-12, rtol=0)
    torch.testing.assert_close(selection.embedding, evaluation.embedding, atol=1e-12, rtol=0)
    lengths = set()
    for b, row in enumerate(selection.indices.tolist()):
        chosen = [index for index in row if index != PAST_END]
        lengths.add(len(chosen))
        assert row == chosen + [PAST_END] * (head.max_selected - len(chosen))
        assert len(set(chosen)) == len(chosen)
        assert allowed[b, chosen].all()
        assert bool(chosen) == bool(allowed[b].any())
        assert selection.selected[b].nonzero().flatten().tolist() == sorted(chosen)
        taken = min(len(chosen) + 1, head.max_selected)
        assert selection.mask[b].tolist() == [step < taken for step in range(head.max_selected)]
        with torch.no_grad():
            log_prob, entropy = by_hand(head, query[b], tokens[b], allowed[b], row)
        assert selection.log_prob[b].item() == pytest.approx(log_prob, abs=1e-9)
        assert evaluation.entropy[b].item() == pytest.approx(entropy, abs=1e-9)
        keys = tokens[b, chosen] @ head.key.weight.T
        mean = keys.sum(0) / max(len(chosen), 1)
        torch.testing.assert_close(selection.embedding[b], query[b] + head.embedding.weight @ mean)
    assert {0, 1, 2, 3} <= lengths  # none, few, and as many as the smaller limit lets


@pytest.mark.parametrize(("num_units", "limit"), [(3, 3), (3, 2), (3, 5), (2, 1)])
def test_probabilities_of_all_sequences_sum_to_one(num_units: int, limit: int) -> None:
    head = make_head()
    query, tokens, _ = make_sets(1, num_units)
    every = torch.tensor(sequences(num_units, min(limit, num_units)))
    every = torch.nn.functional.pad(every, (0, limit - every.shape[1]), value=PAST_END)
    count = len(every)
    evaluation = head.evaluate(
        query.expand(count, -1),
        tokens.expand(count, -1, -1),
        torch.ones(count, num_units, dtype=torch.bool),
        every,
    )
    probability = evaluation.log_prob.exp()
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert probability.min() > 1e-6
    assert probability.max() < 0.9
    # The chain rule: conditional entropies, averaged over sequences, are the sequences' entropy.
    whole = -(probability * evaluation.log_prob).sum().item()
    assert (probability * evaluation.entropy).sum().item() == pytest.approx(whole, abs=1e-12)


def test_draws_follow_the_probabilities() -> None:
    head, count = make_head(max_selected=3), 20_000
    query, tokens, _ = make_sets(1, 3)
    every = torch.tensor(sequences(3, 3))
    allowed = torch.ones(count, 3, dtype=torch.bool)
    query, tokens = query.expand(count, -1), tokens.expand(count, -1, -1)
    g = torch.Generator().manual_seed(3)
    drawn = head.select(query, tokens, allowed, deterministic=False, generator=g).indices
    same = (drawn.unsqueeze(1) == every).all(-1)
    assert same.any(1).all()
    n = len(every)
    probability = head.evaluate(query[:n], tokens[:n], allowed[:n], every).log_prob.exp()
    error = (probability * (1 - probability) / count).sqrt()
    assert ((same.double().mean(0) - probability).abs() < 4 * error).all()


def test_the_best_choice_of_each_step_is_taken() -> None:
    head = make_head()
    query, tokens, allowed = make_sets()
    selection = head.select(query, tokens, allowed, deterministic=True)
    best = selection.logits.argmax(-1)
    expected = best.masked_fill(best == allowed.shape[1], PAST_END)
    torch.testing.assert_close(selection.indices, expected)


def test_permuting_rows_permutes_the_selection() -> None:
    head = make_head()
    query, tokens, allowed = make_sets()
    order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(4))
    there = head.select(query, tokens[:, order], allowed[:, order], deterministic=True)
    here = head.select(query, tokens, allowed, deterministic=True)
    torch.testing.assert_close(there.log_prob, here.log_prob)
    torch.testing.assert_close(there.embedding, here.embedding)
    assert torch.equal(there.selected, here.selected[:, order])
    back = torch.where(there.indices < 0, PAST_END, order[there.indices])
    assert torch.equal(back, here.indices)
    assert here.selected.any()
    assert not torch.equal(there.indices, here.indices)


def test_rows_that_are_not_allowed_change_nothing() -> None:
    head = make_head()
    query, tokens, allowed = make_sets()
    padded = torch.cat([tokens, 100 * torch.ones_like(tokens)], 1)
    padded_allowed = torch.cat([allowed, torch.zeros_like(allowed)], 1)
    here = head.select(query, tokens, allowed, deterministic=True)
    there = head.select(query, padded, padded_allowed, deterministic=True)
    assert torch.equal(there.indices, here.indices)
    torch.testing.assert_close(there.embedding, here.embedding)
    for one, other in zip(
        head.evaluate(query, tokens, allowed, here.indices)[:2],
        head.evaluate(query, padded, padded_allowed, here.indices)[:2],
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_what_follows_does_not_depend_on_the_order_chosen_so_far() -> None:
    head = make_head().float()
    query, tokens, _ = (x.float() for x in make_sets(1))
    allowed = torch.ones(24, 7, dtype=torch.bool)
    orders = torch.tensor([[*order, 5, PAST_END] for order in itertools.permutations((0, 2, 3, 6))])
    evaluation = head.evaluate(query.expand(24, -1), tokens.expand(24, -1, -1), allowed, orders)
    assert (evaluation.logits[:, 4:] == evaluation.logits[:1, 4:]).all()  # to the last bit
    assert (evaluation.embedding == evaluation.embedding[:1]).all()
    assert evaluation.log_prob.std() > 0.1


def test_single_precision_agrees_with_evaluation() -> None:
    head = make_head(max_selected=64, num_key_channels=32).float()
    query, tokens, allowed = make_sets(32, 80)
    query, tokens = query.float(), tokens.float()
    g = torch.Generator().manual_seed(5)
    selection = head.select(query, tokens, allowed, deterministic=False, generator=g)
    evaluation = head.evaluate(query, tokens, allowed, selection.indices)
    torch.testing.assert_close(selection.log_prob, evaluation.log_prob, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_keeps_the_distribution_in_single_precision(dtype: torch.dtype) -> None:
    head = make_head(spread=0.3).float()
    query, tokens, allowed = make_sets()
    query, tokens = query.float(), tokens.float()
    indices = head.select(query, tokens, allowed, deterministic=True).indices
    full = head.evaluate(query, tokens, allowed, indices)
    with torch.autocast("cpu", dtype):
        selection = head.select(query, tokens, allowed, deterministic=True)
        again = head.evaluate(query, tokens, allowed, selection.indices)
        half = head.evaluate(query, tokens, allowed, indices)
    assert half.log_prob.dtype == torch.float32
    assert not torch.equal(half.log_prob, full.log_prob)
    torch.testing.assert_close(half.log_prob, full.log_prob, atol=0.05, rtol=0)
    torch.testing.assert_close(again.log_prob, selection.log_prob, atol=1e-5, rtol=0)


def test_an_empty_set_selects_nothing() -> None:
    head = make_head()
    for num_units in (0, 4):
        query = torch.randn(2, NUM_QUERY_CHANNELS, dtype=torch.float64, requires_grad=True)
        tokens = torch.randn(2, num_units, NUM_TOKEN_CHANNELS, dtype=torch.float64, requires_grad=True)
        allowed = torch.zeros(2, num_units, dtype=torch.bool)
        selection = head.select(query, tokens, allowed, deterministic=False)
        assert (selection.indices == PAST_END).all()
        assert not selection.selected.any()
        assert (selection.log_prob == 0).all()
        assert torch.equal(selection.embedding, query)
        evaluation = head.evaluate(query, tokens, allowed, selection.indices)
        assert (evaluation.log_prob == 0).all()
        assert (evaluation.entropy == 0).all()
        (evaluation.log_prob + evaluation.entropy).sum().backward()
        assert query.grad is not None
        assert (query.grad == 0).all()


def test_gradients_are_those_of_finite_differences() -> None:
    head = make_head()
    query, tokens, allowed = make_sets(4, 5)
    indices = head.select(query, tokens, allowed, deterministic=False).indices

    def worth(query: Tensor, tokens: Tensor, end_key: Tensor) -> tuple[Tensor, ...]:
        arguments = (query, tokens, allowed, indices)
        parts = torch.func.functional_call(
            _Evaluate(head), {"head.end_key": end_key}, arguments, strict=False
        )
        return parts[0], parts[1], parts[3]

    inputs = [x.detach().clone().requires_grad_() for x in (query, tokens, head.end_key)]
    assert torch.autograd.gradcheck(worth, inputs)
    log_prob, _, _ = worth(*inputs)
    assert log_prob[0] == 0  # the empty set
    for gradient in torch.autograd.grad(log_prob.sum(), inputs):
        assert gradient.abs().max() > 1e-3


class _Evaluate(torch.nn.Module):
    """A head whose ``forward`` is ``evaluate``."""

    def __init__(self, head: SequencePointerHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, query: Tensor, tokens: Tensor, allowed: Tensor, indices: Tensor) -> Evaluation:
        return self.head.evaluate(query, tokens, allowed, indices)


@pytest.mark.parametrize(
    ("indices", "errors"),
    [
        ([0, 2, PAST_END], 0),
        ([0, 1, PAST_END], 1),  # 1 is not allowed
        ([0, 0, PAST_END], 1),  # twice
        ([PAST_END, PAST_END, PAST_END], 1),  # the end, though units are allowed
        ([2, PAST_END, 0], 1),  # after the end
        ([1, 2, 2], 2),
    ],
)
def test_impossible_sequences_are_worth_a_billion_nats_less_each(indices: list[int], errors: int) -> None:
    head = make_head()
    query, tokens, _ = make_sets(1, 3)
    allowed = torch.tensor([[True, False, True]])
    log_prob = head.evaluate(query, tokens, allowed, torch.tensor([indices])).log_prob
    assert log_prob.item() == pytest.approx(-1e9 * errors, abs=1e3)


def test_a_limit_of_its_own() -> None:
    head = make_head()
    query, tokens, allowed = make_sets(num_units=12)
    selection = head.select(query, tokens, allowed, deterministic=True, max_selected=2)
    assert selection.indices.shape == (16, 2)
    whole = head.select(query, tokens, allowed, deterministic=True)
    assert torch.equal(selection.indices, whole.indices[:, :2])
    for limit in (0, 7):
        with pytest.raises(ValueError, match=f"max_selected is {limit}; this head was made for 1 to 6"):
            head.select(query, tokens, allowed, deterministic=True, max_selected=limit)


def test_kl_divergence_of_steps_compares_two_heads() -> None:
    head, other = make_head(0), make_head(1)
    query, tokens, _ = make_sets(1, 3)
    every = torch.tensor(sequences(3, 3))
    arguments = (query.expand(15, -1), tokens.expand(15, -1, -1), torch.ones(15, 3, dtype=torch.bool), every)
    p, q = head.evaluate(*arguments), other.evaluate(*arguments)
    whole = (p.log_prob.exp() * (p.log_prob - q.log_prob)).sum()
    steps = kl_divergence(p.logits, q.logits).sum(-1)
    torch.testing.assert_close((p.log_prob.exp() * steps).sum(), whole)


def test_compiles_in_one_graph() -> None:
    head = make_head(max_selected=3)
    query, tokens, allowed = make_sets()

    def select(query: Tensor, tokens: Tensor, allowed: Tensor) -> tuple[Tensor, ...]:
        return head.select(query, tokens, allowed, deterministic=True)

    compiled = torch.compile(select, backend="eager", fullgraph=True)(query, tokens, allowed)
    for one, other in zip(compiled, select(query, tokens, allowed), strict=True):
        torch.testing.assert_close(one, other)
    indices = compiled[0]
    evaluate = torch.compile(_Evaluate(head), backend="eager", fullgraph=True)
    for one, other in zip(
        evaluate(query, tokens, allowed, indices), head.evaluate(query, tokens, allowed, indices), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_configuration() -> None:
    config = SequencePointerConfig(max_selected=3)
    assert SequencePointerConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["kind"] == "sequence_pointer"
    with pytest.raises(ConfigError, match=r"max_selected is 0; it must be at least 1"):
        SequencePointerConfig(max_selected=0)
    with pytest.raises(ConfigError, match=r"activation is 'rellu'; allowed: relu"):
        SequencePointerConfig(activation="rellu")


def signed_sets(
    batch: int, num_units: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries of noise, tokens whose first feature decides, which rows are there, and those to select: the
    rows whose feature is positive. In every set there is one at least."""
    query = torch.randn(batch, NUM_QUERY_CHANNELS, generator=generator)
    tokens = torch.randn(batch, num_units, NUM_TOKEN_CHANNELS, generator=generator)
    allowed = torch.rand(batch, num_units, generator=generator) < 0.8
    allowed[:, 0] = True
    tokens[:, 0, 0] = tokens[:, 0, 0].abs()
    return query, tokens, allowed, allowed & (tokens[..., 0] > 0)


def in_order(tokens: Tensor, wanted: Tensor, limit: int) -> Tensor:
    """(B, limit) the wanted rows (B, U), the largest feature first."""
    order = tokens[..., 0].masked_fill(~wanted, -torch.inf).argsort(-1, descending=True)
    order = torch.nn.functional.pad(order, (0, limit), value=PAST_END)[:, :limit]
    return order.masked_fill(torch.arange(limit) >= wanted.sum(-1, keepdim=True), PAST_END)


def test_learns_to_select_the_positive_rows() -> None:
    torch.manual_seed(0)
    head = SequencePointerHead(
        SequencePointerConfig(num_key_channels=16, num_hidden_channels=32, max_selected=16),
        num_query_channels=NUM_QUERY_CHANNELS,
        num_token_channels=NUM_TOKEN_CHANNELS,
    )
    steps = 400
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    g = torch.Generator().manual_seed(0)
    for _ in range(steps):
        query, tokens, allowed, wanted = signed_sets(64, 8, g)
        loss = -head.evaluate(query, tokens, allowed, in_order(tokens, wanted, 9)).log_prob.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    for num_units in (4, 8, 14):
        query, tokens, allowed, wanted = signed_sets(500, num_units, g)
        with torch.no_grad():
            selected = head.select(query, tokens, allowed, deterministic=True).selected
        exact = (selected == wanted).all(-1).float().mean().item()
        assert exact > 0.95, f"{exact:.3f} of the sets of {num_units} rows exact"
