"""What input adapters hand to the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from perceiver_policy.position import GridFeatures


class Tokens(NamedTuple):
    """Inputs of the encoder: M vectors of C channels.

    The channels are those of ``content``, then the grid's features if there are any. The two are kept apart
    because attention over a grid need not put them together (:mod:`perceiver_policy.separable`).
    """

    content: Tensor  # (B, M, c) float
    mask: Tensor | None = None  # (B, M) bool, True where an input is present; None when all are
    grid: GridFeatures | None = None  # of the M cells in row-major order
    ranges: Mapping[str, range] | None = None  # of a multimodal input: which of the M each modality's are
    shape: tuple[int, ...] | None = None  # of the grid that the M lie on, if they do

    @property
    def num_channels(self) -> int:
        """C."""
        return self.content.shape[-1] + (0 if self.grid is None else self.grid.num_channels)

    def dense(self, index: Tensor | None = None) -> Tensor:
        """(B, M, C) float, or the rows (B, k, C) at ``index`` (k,) int64."""
        content = self.content if index is None else self.content[:, index]
        if self.grid is None:
            return content
        features = self.grid.dense(index).to(content.dtype)
        return torch.cat((content, features.expand(len(content), -1, -1)), dim=-1)

    def of_modality(self, name: str) -> Tokens:
        """One modality's part of a multimodal input, or all of the input if ``name`` is not in it."""
        if self.ranges is None or name not in self.ranges:
            return self
        rows = slice(self.ranges[name].start, self.ranges[name].stop)
        return Tokens(self.content[:, rows], None if self.mask is None else self.mask[:, rows])
