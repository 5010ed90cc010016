"""Tokens: parts of them, and all of them put together."""

from __future__ import annotations

import torch

from perceiver_policy.position import FourierEncoding, grid_axes
from perceiver_policy.tokens import Tokens


def test_one_modality_of_several_with_its_mask() -> None:
    content, mask = torch.randn(2, 5, 3), torch.rand(2, 5) < 0.5
    tokens = Tokens(content, mask, ranges={"audio": range(2), "image": range(2, 5)})
    image = tokens.of_modality("image")
    assert torch.equal(image.content, content[:, 2:])
    assert image.mask is not None
    assert torch.equal(image.mask, mask[:, 2:])
    assert tokens.of_modality("label") is tokens
    assert Tokens(content).of_modality("image").content is content


def test_features_of_the_grid_follow_the_content() -> None:
    grid = FourierEncoding(2, [2, 3]).on_grid(grid_axes((4, 3)))
    content = torch.randn(2, 12, 3)
    tokens = Tokens(content, grid=grid)
    dense = tokens.dense()
    assert dense.shape == (2, 12, tokens.num_channels)
    assert torch.equal(dense[..., :3], content)
    assert torch.equal(dense[1, :, 3:], grid.dense())
    index = torch.tensor([11, 0, 5])
    torch.testing.assert_close(tokens.dense(index), dense[:, index])
