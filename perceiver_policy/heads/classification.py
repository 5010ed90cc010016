"""Classification: class logits from one decoded query, or from the mean of the latents.

The first is Perceiver IO's (arXiv:2107.14795), whose decoder asks one learned query; the second is the
Perceiver's (arXiv:2103.03206), which has no decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from perceiver_policy.config import Config


@dataclass(frozen=True)
class ClassificationHeadConfig(Config):
    """How many classes."""

    kind: ClassVar[str] = "classification"

    num_classes: int = 1000


@dataclass(frozen=True)
class PooledClassificationHeadConfig(Config):
    """How many classes."""

    kind: ClassVar[str] = "pooled_classification"

    num_classes: int = 1000


class ClassificationHead(nn.Module):
    """Linear from one answer to class logits.

    Args:
        config: number of classes.
        num_query_channels: Q, width of an answer.
    """

    def __init__(self, config: ClassificationHeadConfig, *, num_query_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_query_channels, config.num_classes)

    def forward(self, answers: Tensor) -> Tensor:
        """(B, num_classes) logits from the answer to one query, (B, 1, Q).

        Raises:
            ValueError: there is not exactly one answer.
        """
        if answers.shape[1] != 1:
            raise ValueError(
                f"there are {answers.shape[1]} answers; ClassificationHead reads 1: "
                "decode one query, or classify each answer with TokenClassificationHead"
            )
        return self.linear(answers[:, 0])


class PooledClassificationHead(nn.Module):
    """Linear from the mean latent to class logits.

    Args:
        config: number of classes.
        num_latent_channels: D, width of a latent.
    """

    def __init__(self, config: PooledClassificationHeadConfig, *, num_latent_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_latent_channels, config.num_classes)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, num_classes) logits from latents (B, N, D)."""
        return self.linear(latents.mean(1))
