"""What every query of :class:`~perceiver_policy.model.PerceiverIO` is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from perceiver_policy.tokens import Tokens


class QueryProvider(nn.Module, ABC):
    """Asks the decoder for outputs.

    Outputs are numbered 0 to K - 1, and any of them can be asked for alone: that is how outputs are
    subsampled, and how many of them are decoded in chunks.

    Attributes:
        num_channels: Q, width of a query.
    """

    num_channels: int

    @abstractmethod
    def num_queries(self, tokens: Tokens) -> int:
        """K, how many outputs there are for these inputs."""

    @abstractmethod
    def forward(self, tokens: Tokens, index: Tensor | None = None) -> Tensor:
        """Ask.

        Args:
            tokens: what the encoder read.
            index: (k,) int64, which of the outputs; None for all.

        Returns:
            (B, k, Q) float, or (k, Q) where every batch entry asks the same.
        """
