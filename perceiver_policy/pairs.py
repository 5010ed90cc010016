"""What a policy reads of pairs of a controlled unit and a row, the widest thing in it.

A pair's embedding is e = relu(r + Σ_g w_g f_g), with r linear in the row and f the geometry of the pair. It
is used twice: pooled over the rows it tells a unit of its surroundings, and against a query it scores them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perceiver_policy import pair_kernels

ABSENT = -1e6


class Pairs:
    """Embeddings (B, A, U, P) in factors; 0 where a row holds no unit.

    On CPUs both uses are compiled kernels that make the embeddings as they go, in a third of the time;
    elsewhere, and where gradients of the geometry are wanted, torch makes them once.

    Args:
        rows: (B, U, P) float, r.
        geometry: (G, B, A, U) float, f.
        weight: (G, P) float, w.
        mask: (B, U) bool, True where a row holds a unit.
    """

    def __init__(self, rows: Tensor, geometry: Tensor, weight: Tensor, mask: Tensor) -> None:
        self.factors = rows, geometry, weight, mask
        self.embedded: Tensor | None = None  # (B, A, U, P), where the kernels do not serve
        if geometry.requires_grad or not pair_kernels.available(rows, geometry, weight):
            # Absence weighs so much that ReLU yields 0: masking costs no pass of its own.
            rows = rows + ABSENT * (~mask).to(rows.dtype).unsqueeze(-1)
            by_geometry = (geometry.flatten(1).T @ weight).unflatten(0, geometry.shape[1:])
            self.embedded = (by_geometry + rows.unsqueeze(1)).relu()

    def pool(self) -> Tensor:
        """(B, A, 2 * P) float: maximum and mean over the rows that hold a unit; 0 over none."""
        if self.embedded is None:
            maximum, total = pair_kernels.pool(*self.factors)
        else:
            maximum, total = self.embedded.amax(2), self.embedded.sum(2)
        count = self.factors[-1].sum(-1).clamp_min(1)[:, None, None]
        return torch.cat((maximum, total / count), dim=-1)

    def score(self, query: Tensor) -> Tensor:
        """(B, A, U) float: Σ_p query_p e_p, from queries (B, A, P); 0 where a row holds no unit."""
        if self.embedded is None:
            return pair_kernels.score(*self.factors, query)
        # Not a batched matmul: (U, P) by (P,) is so small that its backward pass costs twice as much.
        return (self.embedded * query.unsqueeze(2)).sum(-1)
