"""Vectors as they come: a set or a sequence that is tokens already, such as units embedded elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from perceiver_policy.config import Config
from perceiver_policy.inputs.adapter import InputAdapter, require_mask, require_shape
from perceiver_policy.tokens import Tokens


@dataclass(frozen=True)
class VectorsInputConfig(Config):
    """How wide the vectors are."""

    kind: ClassVar[str] = "vectors"

    num_channels: int = 32


class VectorsInput(InputAdapter):
    """Vectors, unchanged.

    Args:
        config: width.
    """

    def __init__(self, config: VectorsInputConfig) -> None:
        super().__init__()
        self.num_channels = config.num_channels

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tokens:
        """Make tokens.

        Args:
            inputs: (B, M, num_channels) float.
            mask: (B, M) bool, True where a vector is present.

        Raises:
            ValueError: another shape.
        """
        require_shape("vectors", inputs, "B", "M", self.num_channels)
        require_mask(mask, *inputs.shape[:2])
        return Tokens(inputs, mask)
