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

    def forward(self, answers: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Displacements.

        Args:
            answers: (B, K, Q) float.
            size: height and width, where the K = H W answers are those of a whole image, row by row.

        Returns:
            (B, H, W, 2), or (B, K, 2) without a size.

        Raises:
            ValueError: the size does not fit the number of answers.
        """
        flow = self.linear(answers) * self.scale
        if size is None:
            return flow
        height, width = size
        if height * width != flow.shape[1]:
            raise ValueError(
                f"size {size} has {height * width} pixels and there are {flow.shape[1]} answers; "
                "give the size of the image asked for, or None for part of one"
            )
        return flow.unflatten(1, size)
