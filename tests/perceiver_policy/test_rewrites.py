"""Every path of attention equals the plain one, in float64; and the cheapest is chosen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from perceiver_policy import attention, rewrites
from perceiver_policy.attention import Attention, AttentionLayer, Path, choose_path
from perceiver_policy.config import EmptyAttention
from perceiver_policy.position import FourierEncoding, grid_axes
from perceiver_policy.tokens import Tokens


def make_layer(**changes: object) -> AttentionLayer:
    """A layer whose every weight matters, norms' too."""
    torch.manual_seed(0)
    sizes: dict = {"num_heads": 2, "num_qk_channels": 4, "num_v_channels": 12} | changes
    layer = AttentionLayer(8, 15, **sizes).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


def grid_tokens(*shape: int, content_channels: int, batch: int = 2) -> Tokens:
    encoding = FourierEncoding(3, [size / 2 for size in shape]).double()
    features = encoding.on_grid([axis.double() for axis in grid_axes(shape)])
    content = torch.randn(batch, torch.tensor(shape).prod(), content_channels, dtype=torch.float64)
    return Tokens(content, grid=features)


def gradients(output: Tensor, layer: nn.Module, *inputs: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    used = [p for p in layer.parameters() if p.requires_grad] + list(inputs)
    found = torch.autograd.grad((output * weights).sum(), used, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(u) if g is None else g for u, g in zip(used, found, strict=True)]


# 5 queries of 2 heads are fewer than the 15 channels, 9 are more; 7 keys are fewer than VECTOR, 20 are more.
@pytest.mark.parametrize(("num_queries", "num_keys"), [(5, 7), (5, 20), (9, 7)])
@pytest.mark.parametrize("shared_queries", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_folding_equals_the_plain_path_with_its_gradients(
    num_queries: int, num_keys: int, shared_queries: bool, masked: bool
) -> None:
    layer = make_layer()
    shape = () if shared_queries else (3,)
    x = torch.randn(*shape, num_queries, 8, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(3, num_keys, 15, dtype=torch.float64, requires_grad=True)
    mask = None
    if masked:
        mask = torch.rand(3, num_keys) < 0.6
        mask[1] = False  # nothing to attend to
    normed = layer.key_value_norm(inputs)
    plain = layer.attention(layer.query_norm(x), normed, mask)
    few_queries = rewrites.attend_with_few_queries(
        layer.attention, layer.query_norm(x), layer.key_value_norm, inputs, mask
    )
    few_keys = rewrites.attend_to_few_keys(layer.attention, layer.query_norm, x, normed, mask)
    expected = gradients(plain, layer.attention, x, inputs)
    for rewritten in (few_queries, few_keys):
        torch.testing.assert_close(rewritten, plain, rtol=0, atol=1e-13)
        for theirs, ours in zip(expected, gradients(rewritten, layer.attention, x, inputs), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    if masked:
        assert (plain[1] == layer.attention.output.bias).all()


@pytest.mark.parametrize(("shape", "content_channels"), [((11,), 8), ((4, 5), 1), ((4, 2, 3), 3)])
def test_a_grid_equals_its_cells_with_gradients(shape: tuple[int, ...], content_channels: int) -> None:
    tokens = grid_tokens(*shape, content_channels=content_channels)
    torch.manual_seed(0)
    layer = AttentionLayer(8, tokens.num_channels, num_heads=2).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    assert tokens.grid is not None
    content = tokens.content.requires_grad_()
    for x in (torch.randn(5, 8).double().requires_grad_(), torch.randn(2, 5, 8).double().requires_grad_()):
        plain = layer.attention(layer.query_norm(x), layer.key_value_norm(tokens.dense()))
        grid = rewrites.attend_over_grid(
            layer.attention, layer.query_norm(x), layer.key_value_norm, content, tokens.grid
        )
        torch.testing.assert_close(grid, plain, rtol=0, atol=1e-12)
        expected = gradients(plain, layer, x, content)
        for theirs, ours in zip(expected, gradients(grid, layer, x, content), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


class TestChoice:
    """``choose_path`` by counting."""

    def choose(self, attention: Attention, num_queries: int, tokens: Tokens) -> Path:
        return choose_path(attention, torch.zeros(num_queries, attention.query.in_features), tokens)

    def test_the_papers_models(self) -> None:
        with torch.device("meta"):
            starcraft = Attention(256, 256, 2)
            decoder = Attention(128, 256, 2, num_qk_channels=256)
            language = Attention(1280, 768, 8, num_qk_channels=256, num_v_channels=1280)
        units, latents = Tokens(torch.zeros(1, 512, 256)), Tokens(torch.zeros(1, 32, 256))
        assert self.choose(starcraft, 32, units) is Path.FEW_QUERIES
        assert self.choose(decoder, 512, latents) is Path.FEW_KEYS
        assert self.choose(language, 256, Tokens(torch.zeros(1, 2048, 768))) is Path.PLAIN
        encoding = FourierEncoding(64, [112, 112])
        pixels = Tokens(torch.zeros(1, 224 * 224, 3), grid=encoding.on_grid(grid_axes((224, 224))))
        with torch.device("meta"):
            imagenet = Attention(1024, 261, 1, num_qk_channels=261)
        assert self.choose(imagenet, 512, pixels) is Path.GRID
        masked = pixels._replace(mask=torch.ones(1, 224 * 224, dtype=torch.bool))
        assert self.choose(imagenet, 512, masked) is Path.FEW_QUERIES, "a grid has no mask"

    def test_small_and_shared_queries(self) -> None:
        """Rewrites cost more than they save on little work; queries of the whole batch are projected once."""
        attention = Attention(32, 32, 2)
        assert self.choose(attention, 4, Tokens(torch.zeros(1, 6, 32))) is Path.PLAIN
        assert self.choose(attention, 4, Tokens(torch.zeros(512, 17, 32))) is Path.FEW_QUERIES
        wide, few = Attention(256, 64, 2), Tokens(torch.zeros(16, 16, 64))
        assert self.choose(wide, 32, few) is Path.PLAIN
        assert choose_path(wide, torch.zeros(16, 512, 256), few) is Path.FEW_KEYS

    def test_what_needs_each_weight_takes_the_plain_path(self) -> None:
        units = Tokens(torch.zeros(1, 512, 256))
        assert self.choose(Attention(256, 256, 2, dropout=0.1), 32, units) is Path.PLAIN
        assert self.choose(Attention(256, 256, 2, dropout=0.1).eval(), 32, units) is Path.FEW_QUERIES
        masked = units._replace(mask=torch.ones(1, 512, dtype=torch.bool))
        assert self.choose(Attention(256, 256, 2), 32, masked) is Path.FEW_QUERIES
        assert self.choose(Attention(256, 256, 2, empty=EmptyAttention.MEAN), 32, masked) is Path.PLAIN
        pairs = units._replace(mask=torch.ones(1, 32, 512, dtype=torch.bool))
        assert self.choose(Attention(256, 256, 2), 32, pairs) is Path.PLAIN


@pytest.mark.parametrize("path", [Path.PLAIN, Path.FEW_QUERIES, Path.FEW_KEYS])
def test_a_query_that_is_not_there_gets_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "choose_path", lambda *_: path)
    layer = make_layer(attention_residual=False)
    x, inputs = torch.randn(2, 5, 8).double(), torch.randn(2, 7, 15).double()
    query_mask = torch.tensor([[True, False, True, True, False], [False] * 5])
    masked, whole = layer(x, inputs, query_mask=query_mask), layer(x, inputs)
    torch.testing.assert_close(masked[query_mask], whole[query_mask])
    nothing = layer.attention.output.bias
    expected = nothing + layer.mlp(layer.mlp_norm(nothing))
    torch.testing.assert_close(masked[~query_mask], expected.expand(7, -1))


def test_recorded_probabilities_are_those_of_attention() -> None:
    layer = make_layer(num_v_channels=2)
    x, inputs, mask = torch.randn(2, 5, 8).double(), torch.randn(2, 7, 15).double(), torch.rand(2, 7) < 0.7
    probabilities = layer.probabilities(x, inputs, mask)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 2, 5, dtype=torch.float64))
    assert (probabilities.masked_select(~mask[:, None, None]) == 0).all()
    value = layer.attention.project(layer.query_norm(x), layer.key_value_norm(inputs))[2]
    attended = layer.attention.output((probabilities @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(
        attended, layer.attention(layer.query_norm(x), layer.key_value_norm(inputs), mask)
    )
