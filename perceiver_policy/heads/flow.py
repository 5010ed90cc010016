"""Optical flow: a displacement for each pixel asked about. (Perceiver IO, arXiv:2107.14795, section 4.2)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from perceiver_policy.config import Config


@dataclass(frozen=True)
class FlowHeadConfig(Config):
    """Units of the output, and how it starts."""

    kind: ClassVar[str] = "flow"
    minimum: ClassVar[Mapping[str, float]] = {"scale": 1e-9}

    scale: float = 0.01  # the released model's; DeepMind then multiplies by 20, for pixels: 0.2 does both
    zero_init: bool = False  # starts from no motion at all, as DeepMind's training does


class FlowHead(nn.Module):
    """Linear from each answer to a displacement, horizontal then vertical, times a constant.

    Args:
        config: scale and initialisation.
        num_query_channels: Q, width of an answer.
    """

    def __init__(self, config: FlowHeadConfig, *, num_query_channels: int) -> None:
        super().__init__()
        self.scale = config.scale
        self.linear = nn.Linear(num_query_channels, 2)
        if config.zero_init:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, answers: Tensor) -> Tensor:
        """(B, K, 2) displacements from answers (B, K, Q)."""
        return self.linear(answers) * self.scale
