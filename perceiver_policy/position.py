"""Fourier features of positions.

    γ(p) = [p_1 … p_d, sin(π f_k p_i) …, cos(π f_k p_i) …],   f_k = linspace(1, f_max, K)

Perceiver, arXiv:2103.03206, section 3.2: positions are scaled to about [-1, 1] per axis, and for a grid
of resolution μ the highest frequency is the Nyquist frequency f_max = μ / 2. Layout and frequencies are
those of DeepMind's published checkpoints: axes outer, bands inner, all sines before all cosines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FourierEncoding(nn.Module):
    """Encode positions, wherever they come from.

    Args:
        num_bands: K, frequencies per axis, at least 1.
        max_frequencies: f_max of each axis, in half cycles per unit of position; at least 1.
        concat_position: whether the positions themselves come first in the output.

    Raises:
        ValueError: no bands, no axes, or a frequency below 1.
    """

    frequencies: Tensor

    def __init__(
        self, num_bands: int, max_frequencies: Sequence[float], *, concat_position: bool = True
    ) -> None:
        super().__init__()
        if num_bands < 1:
            raise ValueError(f"num_bands is {num_bands}; it must be at least 1")
        if not max_frequencies or min(max_frequencies) < 1:
            raise ValueError(f"max_frequencies are {list(max_frequencies)}; each axis needs one, at least 1")
        self.concat_position = concat_position
        self.num_channels = len(max_frequencies) * (2 * num_bands + int(concat_position))
        bands = [torch.linspace(1.0, f_max, num_bands) for f_max in max_frequencies]
        self.register_buffer("frequencies", math.pi * torch.stack(bands), persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """(..., d) positions to (..., num_channels) features."""
        angles = (positions.unsqueeze(-1) * self.frequencies).flatten(-2)
        parts = [positions] if self.concat_position else []
        return torch.cat((*parts, angles.sin(), angles.cos()), dim=-1)
