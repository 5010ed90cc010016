"""One query per controlled unit: "what should this unit do?"."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_policy.queries.learned import QUERY_INIT_STD


class UnitQuery(nn.Module):
    """A unit's own token, plus the geometry around it, plus a learned task token.

    Args:
        num_query_channels: Q, also the width of a token.
        num_geometry_channels: width of the pooled geometry.
    """

    def __init__(self, num_query_channels: int, num_geometry_channels: int) -> None:
        super().__init__()
        # The projection's bias is the task token: both would be one vector added to every query.
        self.geometry = nn.Linear(num_geometry_channels, num_query_channels)
        nn.init.trunc_normal_(self.geometry.bias, std=QUERY_INIT_STD)

    def forward(self, tokens: Tensor, geometry: Tensor, select: Tensor) -> Tensor:
        """Ask.

        Args:
            tokens: (B, U, Q) float, the rows' tokens.
            geometry: (B, A, num_geometry_channels) float, around each controlled unit.
            select: (B, A, U) float, 1 at the controlled unit's row; all 0 where a slot commands nothing.

        Returns:
            (B, A, Q) float.
        """
        return torch.baddbmm(self.geometry(geometry), select, tokens)
