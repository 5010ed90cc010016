"""Learned queries: the same question whatever the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

QUERY_INIT_STD = 0.02


class LearnedQuery(nn.Module):
    """Trainable queries, one row each: a value, a class label, a task.

    Args:
        num_queries: K.
        num_query_channels: Q.
    """

    def __init__(self, num_queries: int, num_query_channels: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(num_queries, num_query_channels))
        nn.init.trunc_normal_(self.query, std=QUERY_INIT_STD)

    def forward(self, batch_size: int) -> Tensor:
        """(batch_size, K, Q) float, a view."""
        return self.query.expand(batch_size, -1, -1)
