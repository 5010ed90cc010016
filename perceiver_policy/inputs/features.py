"""Rows of numbers as tokens: a vector of measurements is one token, a table of them one for each row.

Each row goes through an MLP, shared by the rows, because attention normalises its inputs: of numbers that
came as they are it would see their proportions, not their size. Where there are several rows, a trainable
position is added to each, since in a table of fixed shape a row's place has a meaning. A set whose order has
none is for :mod:`perceiver_policy.inputs.vectors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from perceiver_policy.attention import MLP
from perceiver_policy.config import Config
from perceiver_policy.inputs.adapter import InputAdapter, require_mask, require_shape
from perceiver_policy.position import LearnedPositions
from perceiver_policy.tokens import Tokens


@dataclass(frozen=True)
class FeaturesInputConfig(Config):
    """How many numbers there are, and how wide a token is."""

    kind: ClassVar[str] = "features"

    num_features: int = 8  # of a row
    num_rows: int = 1
    num_channels: int = 64
    num_hidden_channels: int = 64
    activation: str = "gelu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_known_activation()


class FeaturesInput(InputAdapter):
    """Rows through an MLP, and their positions.

    Args:
        config: sizes.
    """

    def __init__(self, config: FeaturesInputConfig) -> None:
        super().__init__()
        self.config = config
        self.num_channels = config.num_channels
        self.mlp = MLP(
            config.num_features, config.num_hidden_channels, config.num_channels, activation=config.activation
        )
        several = config.num_rows > 1
        self.positions: nn.Module | None = None
        if several:
            self.positions = LearnedPositions(config.num_rows, config.num_channels)

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tokens:
        """Make tokens.

        Args:
            inputs: (B, num_rows, num_features) float, of about unit size.
            mask: (B, num_rows) bool, True where a row is present.

        Raises:
            ValueError: another shape or type.
        """
        require_shape("features", inputs, "B", self.config.num_rows, self.config.num_features)
        require_mask(mask, *inputs.shape[:2])
        rows = self.mlp(inputs)
        return Tokens(rows if self.positions is None else rows + self.positions.table.to(rows.dtype), mask)
