"""Input queries: the inputs themselves, one answer each. A pixel's flow, a unit's order.

(Perceiver IO, arXiv:2107.14795, table 6: optical flow and StarCraft II.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from perceiver_policy.config import Config
from perceiver_policy.queries.provider import QueryProvider
from perceiver_policy.tokens import Tokens


@dataclass(frozen=True)
class InputQueryConfig(Config):
    """How wide the queries are."""

    kind: ClassVar[str] = "input"

    num_channels: int | None = None  # of a linear layer from the inputs; None: they are the queries


class InputQuery(QueryProvider):
    """The tokens that the encoder read, with their positions, or a linear layer of them.

    Args:
        config: width.
        num_input_channels: C, width of the tokens.
    """

    def __init__(self, config: InputQueryConfig, *, num_input_channels: int) -> None:
        super().__init__()
        self.num_input_channels = num_input_channels
        self.num_channels = num_input_channels if config.num_channels is None else config.num_channels
        self.projection = (
            None if config.num_channels is None else nn.Linear(num_input_channels, config.num_channels)
        )

    def num_queries(self, tokens: Tokens) -> int:
        """M, as many as there are tokens, absent ones included."""
        return tokens.content.shape[1]

    def forward(self, tokens: Tokens, index: Tensor | None = None) -> Tensor:
        """(B, k, Q) float.

        Raises:
            ValueError: tokens of another width.
        """
        if tokens.num_channels != self.num_input_channels:
            raise ValueError(
                f"tokens have {tokens.num_channels} channels; the queries are made from "
                f"{self.num_input_channels}: pass the tokens of the input the queries were built for"
            )
        rows = tokens.dense(index)
        return rows if self.projection is None else self.projection(rows)
