"""Positions: Fourier features, anywhere or on a grid, and learned tables.

    γ(p) = [p_1 … p_d, sin(π f_k p_i) …, cos(π f_k p_i) …],   f_k = linspace(1, f_max, K)

Perceiver, arXiv:2103.03206, section 3.2: positions are scaled to about [-1, 1] per axis, and for a grid
of resolution μ the highest frequency is the Nyquist frequency f_max = μ / 2. Layout and frequencies are
those of DeepMind's published checkpoints: axes outer, bands inner, all sines before all cosines.

On a grid each feature depends on one axis alone, so that the features of n_1 × … × n_d cells are d small
tables. :class:`GridFeatures` keeps them as such; attention makes use of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from perceiver_policy.config import ConfigError

POSITION_INIT_STD = 0.02


class FourierEncoding(nn.Module):
    """Encode positions, wherever they come from.

    Args:
        num_bands: K, frequencies per axis, at least 1.
        max_frequencies: f_max of each axis, in half cycles per unit of position; at least 1.
        concat_position: whether the positions themselves come first in the output.

    Raises:
        ConfigError: no bands, no axes, or a frequency below 1.
    """

    frequencies: Tensor

    def __init__(
        self, num_bands: int, max_frequencies: Sequence[float], *, concat_position: bool = True
    ) -> None:
        super().__init__()
        if num_bands < 1:
            raise ConfigError(f"num_bands is {num_bands}; it must be at least 1")
        if not max_frequencies or min(max_frequencies) < 1:
            raise ConfigError(f"max_frequencies are {list(max_frequencies)}; each axis needs one, at least 1")
        self.concat_position = concat_position
        self.num_channels = len(max_frequencies) * (2 * num_bands + int(concat_position))
        self.num_bands = num_bands
        self.max_frequencies = tuple(max_frequencies)
        self.register_buffer("frequencies", self._bands(torch.device("cpu"), torch.float32), persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """(..., d) positions to (..., num_channels) features."""
        # π comes last: at the thousands of radians of long audio, float32 rounds each order otherwise, and
        # the published checkpoints were trained with this one.
        angles = math.pi * (positions.unsqueeze(-1) * self.frequencies).flatten(-2)
        parts = [positions] if self.concat_position else []
        return torch.cat((*parts, angles.sin(), angles.cos()), dim=-1)

    def _bands(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """(d, K): f_k of each axis."""
        bands = [
            torch.linspace(1.0, f_max, self.num_bands, device=device, dtype=dtype)
            for f_max in self.max_frequencies
        ]
        return torch.stack(bands)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FourierEncoding:
        """Follow the module to another device or type, but never below float32: in bfloat16 the highest
        frequencies would be off by several cycles."""
        super()._apply(fn, recurse)
        dtype = torch.promote_types(self.frequencies.dtype, torch.float32)
        self.frequencies = self._bands(self.frequencies.device, dtype)
        return self

    def on_grid(self, axes: Sequence[Tensor]) -> GridFeatures:
        """Features of a grid.

        Args:
            axes: for each axis its n_a positions, (n_a,) float.
        """
        num_axes, num_bands = self.frequencies.shape
        features, columns = [], []
        for axis, positions in enumerate(axes):
            angles = math.pi * (positions.unsqueeze(-1) * self.frequencies[axis])
            parts = [positions.unsqueeze(-1)] if self.concat_position else []
            features.append(torch.cat((*parts, angles.sin(), angles.cos()), dim=-1))
            first_sine = num_axes if self.concat_position else 0
            sines = range(first_sine + axis * num_bands, first_sine + (axis + 1) * num_bands)
            columns.append([*([axis] if self.concat_position else []), *sines])
            columns[-1] += [column + num_axes * num_bands for column in sines]
        return GridFeatures(tuple(features), tuple(tuple(c) for c in columns))


class GridFeatures(NamedTuple):
    """Features of a grid's cells, each a function of one axis: a table an axis instead of a row a cell."""

    tables: tuple[Tensor, ...]  # of each axis: (n_a, F_a) float
    columns: tuple[tuple[int, ...], ...]  # which of the P = ΣF_a columns of a cell's row these are

    @property
    def num_channels(self) -> int:
        """P."""
        return sum(len(columns) for columns in self.columns)

    def dense(self, index: Tensor | None = None) -> Tensor:
        """The features cell by cell.

        Args:
            index: (k,) int64, which cells, counted in row-major order; None for all. The other cells'
                features are not made.

        Returns:
            (k, P) float; k is n_1 · … · n_d for all cells.
        """
        sizes = [len(table) for table in self.tables]
        pieces = []
        for axis, (table, columns) in enumerate(zip(self.tables, self.columns, strict=True)):
            if index is None:
                shape = [1] * len(sizes)
                shape[axis] = sizes[axis]
                rows = table.view(*shape, -1).expand(*sizes, -1)
            else:
                cell = index // math.prod(sizes[axis + 1 :])
                rows = table[cell % sizes[axis] if axis else cell]
            pieces += [(columns[run.start], rows[..., run]) for run in _runs(columns)]
        # Put together in their order: moving single columns afterwards costs more than all the rest.
        features = torch.cat([piece for _, piece in sorted(pieces, key=lambda p: p[0])], dim=-1)
        return features.flatten(0, -2)


def _runs(columns: Sequence[int]) -> list[slice]:
    """Stretches of ``columns`` in which each is the one before it plus 1."""
    breaks = [i for i in range(1, len(columns)) if columns[i] != columns[i - 1] + 1]
    return [slice(a, b) for a, b in itertools.pairwise([0, *breaks, len(columns)])]


def grid_axes(
    shape: Sequence[int], *, inclusive: bool = True, device: torch.device | str | None = None
) -> list[Tensor]:
    """Positions of a grid's cells, axis by axis.

    Args:
        shape: n_a, cells of each axis.
        inclusive: from -1 to 1, both ends being cells, as the published checkpoints were trained. False:
            -1 + 2 i / n, which Hugging Face and DeepMind use for subsampled queries.
        device: where the positions go.
    """
    if inclusive:
        return [torch.linspace(-1.0, 1.0, n, device=device) for n in shape]
    return [-1.0 + 2.0 * torch.arange(n, device=device) / n for n in shape]


class LearnedPositions(nn.Module):
    """A table of trainable positions.

    Args:
        num_positions: length of the table.
        num_channels: C.
    """

    def __init__(self, num_positions: int, num_channels: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(num_positions, num_channels))
        nn.init.trunc_normal_(self.table, std=POSITION_INIT_STD)

    def forward(self, num_positions: int) -> Tensor:
        """The first ``num_positions`` rows, (num_positions, C) float.

        Raises:
            ValueError: the table is shorter.
        """
        if num_positions > len(self.table):
            raise ValueError(
                f"{num_positions} positions are asked for, but the learned table has {len(self.table)}; "
                "shorten the input or configure a longer table"
            )
        return self.table[:num_positions]
