"""Attention over a grid by per-axis tables, against the same attention with everything written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from perceiver_policy import separable
from perceiver_policy.separable import grid_attention

Arguments = tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]

GRIDS = [(7,), (3, 4), (2, 3, 2), (5, 1), (1, 4)]
CHANNELS, ROWS, BATCH = 3, 5, 2


def dense_attention(
    weights: Tensor, content: Tensor, scale: Tensor, axis_scores: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Softmax over one-hot cells: every tensor in full, cell by cell from the definition."""
    sizes = [scores.shape[-1] for scores in axis_scores]
    indices = torch.cartesian_prod(*(torch.arange(size) for size in sizes)).reshape(-1, len(sizes))
    one_hots = [
        torch.nn.functional.one_hot(indices[:, a], size).to(content.dtype) for a, size in enumerate(sizes)
    ]
    t = weights @ content.transpose(1, 2)
    for scores, one_hot in zip(axis_scores, one_hots, strict=True):
        t = t + scores @ one_hot.T
    w = (scale[:, None] * t).softmax(-1) * scale[:, None]
    return w @ content, tuple(w @ one_hot for one_hot in one_hots)


def random_arguments(
    sizes: tuple[int, ...],
    *,
    batched: bool = True,
    batch: int = BATCH,
    rows: int = ROWS,
    channels: int = CHANNELS,
    dtype: torch.dtype = torch.float64,
    requires_grad: bool = False,
) -> Arguments:
    """Scores far from uniform: a softmax of almost equal scores would hide errors."""
    generator = torch.Generator().manual_seed(len(sizes) * 10 + batched)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    leading = (batch, rows) if batched else (rows,)
    weights = 2.0 * draw(*leading, channels)
    content = draw(batch, math.prod(sizes), channels)
    scale = draw(batch, math.prod(sizes)).abs() + 0.3
    axis_scores = tuple(2.0 * draw(*leading, size) for size in sizes)
    for tensor in (weights, content, scale, *axis_scores):
        tensor.requires_grad_(requires_grad)
    return weights, content, scale, axis_scores


def flat(result: tuple[Tensor, tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return result[0], *result[1]


def gradients(result: tuple[Tensor, tuple[Tensor, ...]], arguments: Arguments) -> tuple[Tensor, ...]:
    """Of every argument that requires one, for a loss that weights every output differently."""
    generator = torch.Generator().manual_seed(99)
    loss = torch.zeros((), dtype=result[0].dtype)
    for output in flat(result):
        loss = loss + (output * torch.randn(output.shape, generator=generator).to(output.dtype)).sum()
    weights, content, scale, axis_scores = arguments
    tensors = [tensor for tensor in (weights, content, scale, *axis_scores) if tensor.requires_grad]
    return torch.autograd.grad(loss, tensors)


@pytest.fixture(params=["one chunk", "many chunks"])
def _chunking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which no chunk divides rows, cells or batch evenly, beside the usual ones."""
    if request.param == "many chunks":
        monkeypatch.setattr(separable, "CHUNK_BYTES_PER_CORE", 8 * 14)
        monkeypatch.setattr(separable, "ROWS_PER_CHUNK", 3)


@pytest.mark.usefixtures("_chunking")
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "shared"])
@pytest.mark.parametrize("sizes", GRIDS, ids=str)
def test_sums_and_gradients_are_those_of_dense_attention(sizes: tuple[int, ...], batched: bool) -> None:
    arguments = random_arguments(sizes, batched=batched, requires_grad=True)
    result, expected = grid_attention(*arguments), dense_attention(*arguments)
    torch.testing.assert_close(flat(result), flat(expected), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        gradients(result, arguments), gradients(expected, arguments), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("batched", [True, False], ids=["batched", "shared"])
def test_a_chunk_of_several_batch_entries(monkeypatch: pytest.MonkeyPatch, batched: bool) -> None:
    """Space for the scores of two entries (5 rows, 12 cells, float64), in a batch of three."""
    monkeypatch.setattr(separable, "CHUNK_BYTES_PER_CORE", 8 * 130)
    arguments = random_arguments((3, 4), batched=batched, batch=3, requires_grad=True)
    result, expected = grid_attention(*arguments), dense_attention(*arguments)
    torch.testing.assert_close(flat(result), flat(expected), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        gradients(result, arguments), gradients(expected, arguments), rtol=1e-10, atol=1e-10
    )


@pytest.mark.usefixtures("_chunking")
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "shared"])
@pytest.mark.parametrize("sizes", [(4,), (2, 3), (2, 2, 2)], ids=str)
def test_gradients_are_finite_differences(sizes: tuple[int, ...], batched: bool) -> None:
    weights, content, scale, axis_scores = random_arguments(
        sizes, batched=batched, rows=3, channels=2, requires_grad=True
    )

    def outputs(weights: Tensor, content: Tensor, scale: Tensor, *axis_scores: Tensor) -> tuple[Tensor, ...]:
        return flat(grid_attention(weights, content, scale, axis_scores))

    assert torch.autograd.gradcheck(outputs, (weights, content, scale, *axis_scores))


@pytest.mark.parametrize("needed", ["weights", "content", "scale", "axis_scores"])
def test_gradient_of_one_argument_alone(needed: str) -> None:
    arguments = random_arguments((3, 4))
    named = dict(zip(("weights", "content", "scale", "axis_scores"), arguments, strict=True))
    for tensor in named[needed] if needed == "axis_scores" else (named[needed],):
        tensor.requires_grad_()
    torch.testing.assert_close(
        gradients(grid_attention(*arguments), arguments),
        gradients(dense_attention(*arguments), arguments),
        rtol=1e-10,
        atol=1e-10,
    )


def test_batched_weights_with_shared_axis_scores() -> None:
    weights, content, scale, axis_scores = random_arguments((3, 4), requires_grad=True)
    shared = (axis_scores[0].detach()[0].requires_grad_(), axis_scores[1])
    arguments = (weights, content, scale, shared)
    result, expected = grid_attention(*arguments), dense_attention(*arguments)
    torch.testing.assert_close(flat(result), flat(expected), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(gradients(result, arguments), gradients(expected, arguments))


def test_two_cells_by_hand() -> None:
    """Scores 2 (1 · 1 + 0) = 2 and 1 (1 · 3 - 1) = 2, so p = (1/2, 1/2) and w = (1, 1/2)."""
    content_sums, (axis_sums,) = grid_attention(
        torch.tensor([[1.0]]),
        torch.tensor([[[1.0], [3.0]]]),
        torch.tensor([[2.0, 1.0]]),
        (torch.tensor([[0.0, -1.0]]),),
    )
    torch.testing.assert_close(content_sums, torch.tensor([[[2.5]]]))
    torch.testing.assert_close(axis_sums, torch.tensor([[[1.0, 0.5]]]))


@pytest.mark.usefixtures("_chunking")
@pytest.mark.parametrize("direction", [1, -1], ids=["rising", "falling"])
def test_scores_far_beyond_the_range_of_exp(direction: int) -> None:
    weights, content, scale, _ = random_arguments((6, 4), requires_grad=True)
    steep = (3000.0 * direction * torch.arange(6.0, dtype=torch.float64)).expand(BATCH, ROWS, 6)
    arguments = (weights, content, scale, (steep, 2.0 * torch.ones(BATCH, ROWS, 4, dtype=torch.float64)))
    result, expected = grid_attention(*arguments), dense_attention(*arguments)
    torch.testing.assert_close(flat(result), flat(expected), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        gradients(result, arguments), gradients(expected, arguments), rtol=1e-8, atol=1e-8
    )


def relative_errors(results: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> list[float]:
    pairs = zip(results, expected, strict=True)
    return [((a.double() - b.double()).norm() / b.double().norm()).item() for a, b in pairs]


def test_float32_is_as_accurate_as_dense_float32() -> None:
    """Several chunks of the usual size, against float64; dense float32 is off by as much."""
    double = random_arguments((96, 64), rows=96, channels=4, batch=1, batched=False, requires_grad=True)
    weights, content, scale, axis_scores = double
    single = tuple(tensor.detach().float().requires_grad_() for tensor in (weights, content, scale))
    single_axes = tuple(scores.detach().float().requires_grad_() for scores in axis_scores)
    arguments = (*single, single_axes)
    expected, result = dense_attention(*double), grid_attention(*arguments)
    assert result[0].dtype == torch.float32
    dense = dense_attention(*arguments)
    exact = (*flat(expected), *gradients(expected, double))
    ours = relative_errors((*flat(result), *gradients(result, arguments)), exact)
    theirs = relative_errors((*flat(dense), *gradients(dense, arguments)), exact)
    assert max(ours) < 5e-6
    assert max(ours) < 4 * max(theirs)


def test_autocast_does_not_lower_the_precision() -> None:
    arguments = random_arguments((6, 5), dtype=torch.float32, requires_grad=True)
    plain = grid_attention(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = grid_attention(*arguments)
        cast = gradients(result, arguments)
    torch.testing.assert_close(flat(result), flat(plain), rtol=0, atol=0)
    torch.testing.assert_close(cast, gradients(plain, arguments), rtol=0, atol=0)


def test_bfloat16_arguments_are_computed_in_float32_and_get_bfloat16_gradients() -> None:
    weights, content, scale, axis_scores = random_arguments((6, 5), dtype=torch.float32, requires_grad=True)
    low = weights.detach().bfloat16().requires_grad_()
    result = grid_attention(low, content, scale, axis_scores)
    expected = grid_attention(low.float(), content, scale, axis_scores)
    torch.testing.assert_close(flat(result), flat(expected), rtol=0, atol=0)
    assert gradients(result, (low, content, scale, axis_scores))[0].dtype == torch.bfloat16


def test_one_float64_argument_makes_it_float64() -> None:
    weights, content, scale, axis_scores = random_arguments((6, 5), dtype=torch.float32)
    mixed = grid_attention(weights.double(), content, scale, axis_scores)
    expected = dense_attention(
        weights.double(), content.double(), scale.double(), tuple(scores.double() for scores in axis_scores)
    )
    torch.testing.assert_close(flat(mixed), flat(expected), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("learned_content", [True, False])
def test_compiles_into_one_graph(learned_content: bool) -> None:
    arguments = random_arguments((3, 4), dtype=torch.float32, requires_grad=True)
    weights, content, scale, axis_scores = arguments
    if not learned_content:
        arguments = (weights, content.detach(), scale.detach(), axis_scores)

    def attend(*arguments: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return grid_attention(*arguments)  # type: ignore[arg-type]

    torch._dynamo.reset()
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    expected, result = grid_attention(*arguments), compiled(*arguments)
    torch.testing.assert_close(flat(result), flat(expected))
    torch.testing.assert_close(gradients(result, arguments), gradients(expected, arguments))


@pytest.mark.parametrize("batched", [True, False], ids=["batched", "shared"])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_operators_keep_the_contract_of_custom_operators(batched: bool, requires_grad: bool) -> None:
    weights, content, scale, axis_scores = random_arguments((3, 4), batched=batched)
    rows = torch.cat((weights, *axis_scores), dim=-1)
    rows = rows if batched else rows.unsqueeze(0)
    for tensor in (rows, content, scale):
        tensor.requires_grad_(requires_grad)
    operators = torch.ops.perceiver_policy
    torch.library.opcheck(operators.grid_attention.default, (rows, content, scale, [3, 4]))
    inputs = [tensor.detach() for tensor in (rows, content, scale)]
    sums, log_sum_exp = operators.grid_attention(*inputs, [3, 4])
    backward_arguments = (torch.ones_like(sums), sums, log_sum_exp, *inputs, [3, 4])
    torch.library.opcheck(
        operators.grid_attention_backward.default, (*backward_arguments, requires_grad, requires_grad)
    )


def test_double_backward_is_refused() -> None:
    arguments = random_arguments((3, 4), requires_grad=True)
    content_sums, _ = grid_attention(*arguments)
    (gradient,) = torch.autograd.grad(content_sums.square().sum(), arguments[0], create_graph=True)
    with pytest.raises(RuntimeError, match="grid_attention_backward"):
        torch.autograd.grad(gradient.sum(), arguments[0])


def test_neither_scores_nor_grid_inputs_exist_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest single allocation of a forward and a backward pass is an argument's or a chunk's."""
    monkeypatch.setattr(separable, "CHUNK_BYTES_PER_CORE", 2**14)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    arguments = random_arguments((48, 40), rows=64, batch=1, dtype=torch.float32, requires_grad=True)
    with torch.profiler.profile(profile_memory=True) as profiler:
        gradients(grid_attention(*arguments), arguments)
    largest = max(event.cpu_memory_usage for event in profiler.events() if event.name == "aten::empty")
    cells, content_bytes, axis_bytes = 48 * 40, 4 * 48 * 40 * CHANNELS, 4 * 64 * (48 + 40 + CHANNELS)
    assert 2**13 < largest <= max(2**14, content_bytes, axis_bytes) < 4 * cells * 64 / 10


def test_an_empty_batch_has_empty_sums_and_zero_gradients() -> None:
    arguments = random_arguments((3, 4), batched=False, batch=0, requires_grad=True)
    result = grid_attention(*arguments)
    assert [output.shape for output in flat(result)] == [(0, ROWS, CHANNELS), (0, ROWS, 3), (0, ROWS, 4)]
    assert not gradients(result, arguments)[0].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"content": (12, 3)}, r"content has shape \(12, 3\)"),
        ({"scale": (2, 11)}, r"scale has shape \(2, 11\).* needs \(2, 12\)"),
        ({"weights": (5, 4)}, r"weights have shape \(5, 4\).* needs \(rows, 3\) or \(2, rows, 3\)"),
        ({"weights": (3, 5, 3)}, r"weights have shape \(3, 5, 3\)"),
        ({"weights": (3,)}, r"weights have shape \(3,\)"),
        ({"weights": (0, 3)}, r"weights have shape \(0, 3\).*at least 1 row"),
        ({"axis_scores": []}, "axis_scores is empty"),
        ({"axis_scores": [(5, 3), (4, 4)]}, r"axis_scores\[1\] has shape \(4, 4\).*\(5, n\) or \(2, 5, n\)"),
        ({"axis_scores": [(5, 3), (5, 5)]}, "grid of 3 x 5, content has 12 cells"),
        ({"content": (2, 0, 3), "scale": (2, 0), "axis_scores": [(5, 0)]}, "grid of 0, content has 0 cells"),
    ],
)
def test_shapes_that_do_not_fit_are_named(changes: dict[str, object], message: str) -> None:
    shapes = {"weights": (5, 3), "content": (2, 12, 3), "scale": (2, 12), "axis_scores": [(5, 3), (5, 4)]}
    shapes |= changes
    axis_scores = [torch.zeros(shape) for shape in shapes.pop("axis_scores")]
    with pytest.raises(ValueError, match=message):
        grid_attention(
            **{name: torch.zeros(shape) for name, shape in shapes.items()}, axis_scores=axis_scores
        )
