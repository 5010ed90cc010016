"""Answers of several modalities, told apart and read.

The released video model's: a linear layer for all answers, then one of each modality's own. (Perceiver IO,
arXiv:2107.14795, section 4.3.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from perceiver_policy.config import Config
from perceiver_policy.heads.reconstruction import ReconstructionHead, ReconstructionHeadConfig
from perceiver_policy.queries.multimodal import split


@dataclass(frozen=True)
class MultimodalHeadConfig(Config):
    """What all answers go through, and what each modality's do then."""

    kind: ClassVar[str] = "multimodal"

    num_shared_channels: int | None = 512  # of the linear layer for all answers; None leaves it out
    reconstruction: ReconstructionHeadConfig = field(default_factory=ReconstructionHeadConfig)


class MultimodalHead(nn.Module):
    """Reads the answers to a :class:`~perceiver_policy.queries.multimodal.MultimodalQuery`, or to part of it.

    Args:
        config: widths.
        num_query_channels: Q, width of an answer.
    """

    def __init__(self, config: MultimodalHeadConfig, *, num_query_channels: int) -> None:
        super().__init__()
        shared = config.num_shared_channels
        self.shared = None if shared is None else nn.Linear(num_query_channels, shared)
        self.reconstruction = ReconstructionHead(
            config.reconstruction, num_query_channels=num_query_channels if shared is None else shared
        )

    def forward(
        self, answers: Tensor, sizes: Mapping[str, int], index: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Read the answers.

        Args:
            answers: (B, K, Q) float.
            sizes: queries of each modality, as the query's ``sizes(tokens)`` gives them.
            index: (K,) int64, flat, which of the queries were answered; None for all.

        Returns:
            Each modality that was asked anything, as
            :class:`~perceiver_policy.heads.reconstruction.ReconstructionHead` reads it.

        Raises:
            ValueError: not one answer for each query, an index out of range, or an unknown modality.
        """
        if self.shared is not None:
            answers = self.shared(answers)
        return self.reconstruction(split(answers, sizes, index))
