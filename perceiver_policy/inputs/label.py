"""Labels as an input: a distribution over classes is one token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from perceiver_policy.config import Config
from perceiver_policy.inputs.adapter import InputAdapter, require_mask, require_shape
from perceiver_policy.tokens import Tokens


@dataclass(frozen=True)
class LabelInputConfig(Config):
    """How many classes."""

    kind: ClassVar[str] = "label"

    num_classes: int = 700


class LabelInput(InputAdapter):
    """One token of ``num_classes`` channels, as it comes.

    Args:
        config: number of classes.
    """

    def __init__(self, config: LabelInputConfig) -> None:
        super().__init__()
        self.num_channels = config.num_classes

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tokens:
        """Make tokens.

        Args:
            inputs: (B, num_classes) float: one-hot, probabilities, or zeros where nothing is known.
            mask: (B, 1) bool, False where an example has no label.

        Returns:
            One token.

        Raises:
            ValueError: inputs of another shape.
        """
        require_shape("labels, one number for each class,", inputs, "B", self.num_channels)
        require_mask(mask, len(inputs), 1)
        return Tokens(inputs.unsqueeze(1), mask)
