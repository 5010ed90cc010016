"""Input queries: rows of what the encoder read."""

from __future__ import annotations

import pytest
import torch

from perceiver_policy.position import FourierEncoding, grid_axes
from perceiver_policy.queries.input import InputQuery, InputQueryConfig
from perceiver_policy.tokens import Tokens


def grid_tokens() -> Tokens:
    content = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0))
    return Tokens(content, grid=FourierEncoding(2, [4.0, 3.0]).on_grid(grid_axes((4, 3))))


def test_the_queries_are_content_then_position() -> None:
    tokens = grid_tokens()
    query = InputQuery(InputQueryConfig(), num_input_channels=15)
    positions = torch.cartesian_prod(torch.linspace(-1, 1, 4), torch.linspace(-1, 1, 3))
    expected = torch.cat((tokens.content, FourierEncoding(2, [4.0, 3.0])(positions).expand(2, -1, -1)), -1)
    assert (query.num_queries(tokens), query.num_channels) == (12, 15)
    torch.testing.assert_close(query(tokens), expected)


@pytest.mark.parametrize("num_channels", [None, 3])
@pytest.mark.parametrize("gridded", [True, False])
def test_any_part_equals_its_rows_of_the_whole(num_channels: int | None, gridded: bool) -> None:
    tokens = grid_tokens() if gridded else Tokens(grid_tokens().content)
    query = InputQuery(InputQueryConfig(num_channels), num_input_channels=tokens.num_channels)
    index = torch.tensor([11, 0, 5, 5])
    whole = query(tokens)
    torch.testing.assert_close(query(tokens, index), whole[:, index])
    assert whole.shape == (2, 12, num_channels or tokens.num_channels)


def test_projection_is_linear_in_the_tokens() -> None:
    tokens = grid_tokens()
    query = InputQuery(InputQueryConfig(3), num_input_channels=15)
    assert query.projection is not None
    expected = tokens.dense() @ query.projection.weight.T + query.projection.bias
    torch.testing.assert_close(query(tokens), expected)


def test_refuses_tokens_of_another_width() -> None:
    query = InputQuery(InputQueryConfig(), num_input_channels=14)
    with pytest.raises(ValueError, match="tokens have 15 channels; the queries are made from 14"):
        query(grid_tokens())
