"""Learned queries: the same questions whatever the input. A value, a class label, a text position, a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from perceiver_policy.config import Config
from perceiver_policy.queries.provider import QueryProvider
from perceiver_policy.tokens import Tokens

QUERY_INIT_STD = 0.02


@dataclass(frozen=True)
class LearnedQueryConfig(Config):
    """Trainable queries."""

    kind: ClassVar[str] = "learned"

    num_queries: int = 1
    num_channels: int = 32
    one_per_input: bool = False  # ask as many as there are inputs, in their order: positions of a text


class LearnedQuery(QueryProvider):
    """Trainable queries, one row each.

    Args:
        config: how many, and how wide.
    """

    def __init__(self, config: LearnedQueryConfig) -> None:
        super().__init__()
        self.num_channels = config.num_channels
        self.one_per_input = config.one_per_input
        self.query = nn.Parameter(torch.empty(config.num_queries, config.num_channels))
        nn.init.trunc_normal_(self.query, std=QUERY_INIT_STD)

    def num_queries(self, tokens: Tokens) -> int:
        """As configured, or as many as there are tokens.

        Raises:
            ValueError: more tokens than queries.
        """
        if not self.one_per_input:
            return len(self.query)
        num_inputs = tokens.content.shape[1]
        if num_inputs > len(self.query):
            raise ValueError(
                f"{num_inputs} inputs ask for a query each, and there are {len(self.query)}; "
                "shorten the input or configure more queries"
            )
        return num_inputs

    def forward(self, tokens: Tokens | None = None, index: Tensor | None = None) -> Tensor:
        """(k, Q) float, whatever the tokens hold."""
        if index is not None:
            return self.query[index]
        return self.query if tokens is None else self.query[: self.num_queries(tokens)]
