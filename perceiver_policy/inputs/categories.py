"""Categorical variables as tokens: one for each variable, a trainable vector for each of its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor, nn

from perceiver_policy.config import LARGEST_VOCABULARY, Config
from perceiver_policy.inputs.adapter import InputAdapter, require_mask, require_shape
from perceiver_policy.tokens import Tokens


@dataclass(frozen=True)
class CategoriesInputConfig(Config):
    """How many values each variable has."""

    kind: ClassVar[str] = "categories"
    maximum: ClassVar[Mapping[str, int]] = {"num_values": LARGEST_VOCABULARY}

    num_values: tuple[int, ...] = (2,)
    num_channels: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = f"it must name at least one variable, and {LARGEST_VOCABULARY} values in all at most"
        self._require(0 < sum(self.num_values) <= LARGEST_VOCABULARY, "num_values", rule)


class CategoriesInput(InputAdapter):
    """A token for each variable; no two variables have a vector in common, which says which it is.

    Args:
        config: variables and width.
    """

    first: Tensor

    def __init__(self, config: CategoriesInputConfig) -> None:
        super().__init__()
        self.num_variables = len(config.num_values)
        self.num_channels = config.num_channels
        self.embedding = nn.Embedding(sum(config.num_values), config.num_channels)
        first = [0, *accumulate(config.num_values)][:-1]
        self.register_buffer("first", torch.tensor(first), persistent=False)  # each variable's first row

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tokens:
        """Make tokens.

        Args:
            inputs: (B, V) int64 or int32, each from 0 to that variable's number of values, exclusive. What is
                out of range is not looked for: it would cost a synchronisation with the device.
            mask: (B, V) bool, True where a variable has a value.

        Raises:
            ValueError: another shape or type.
        """
        require_shape("categories", inputs, "B", self.num_variables, floating=False)
        require_mask(mask, *inputs.shape[:2])
        return Tokens(self.embedding(inputs + self.first), mask)
