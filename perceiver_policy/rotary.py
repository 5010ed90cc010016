"""Positions of a sequence as angles p θ_k: channels turned by them, or their sines and cosines added.

**Rotary.** With z_k = x_2k + i x_2k+1 the k-th pair of channels of a query or key at position p, and d the
number of channels turned,

    z_k ← z_k · exp(i p θ_k),   θ_k = base^(−2k / d)

RoFormer, arXiv:2104.09864, equation 34. The product of a turned query and a turned key depends on the
distance of their positions alone. Channels after the first d are left as they are; Perceiver AR
(arXiv:2202.07765) turns half of them.

**Sinusoidal.** The features sin p θ_k and cos p θ_k say where a position is, not how far from another
(arXiv:1706.03762, section 3.5).

Nothing is learned and no table is kept, so that any position can be encoded: angles are float32, whatever the
model's type, and off by at most p · 2⁻²³.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """The angles of some positions, to be applied to queries or keys at them."""

    cosine: Tensor  # (B or 1, 1, N, d / 2) float32
    sine: Tensor  # the same

    def apply(self, x: Tensor) -> Tensor:
        """Turn the first d channels of each head: (B, heads, N, D) float to the same, D at least d."""
        num_turned = 2 * self.cosine.shape[-1]
        real, imaginary = x[..., :num_turned].unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack(
            (
                real * self.cosine - imaginary * self.sine,
                real * self.sine + imaginary * self.cosine,
            ),
            dim=-1,
        ).flatten(-2)
        return torch.cat((turned.to(x.dtype), x[..., num_turned:]), dim=-1)


def rotation(positions: Tensor, num_channels: int, base: float = 10_000.0) -> Rotation:
    """The angles of positions.

    Args:
        positions: (B or 1, N) int64.
        num_channels: d, how many channels of a head are turned; even.
        base: the slowest pair turns once in about 2π · base positions.

    Raises:
        ValueError: ``num_channels`` is odd or below 2.
    """
    if num_channels < 2 or num_channels % 2:
        raise ValueError(f"num_channels is {num_channels}; channels turn in pairs, so it must be 2, 4, 6 ...")
    angles = _angles(positions.unsqueeze(1), num_channels, base)
    return Rotation(angles.cos(), angles.sin())


def sinusoids(positions: Tensor, num_channels: int, base: float = 10_000.0) -> Tensor:
    """(B, N, num_channels) float32: the sines of the angles of positions (B, N) int64, then the cosines.

    ``num_channels`` must be even; ``base`` is as for :func:`rotation`.
    """
    angles = _angles(positions, num_channels, base)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def _angles(positions: Tensor, num_channels: int, base: float) -> Tensor:
    """p θ_k, (..., num_channels / 2) float32."""
    exponents = torch.arange(0, num_channels, 2, device=positions.device, dtype=torch.float32) / num_channels
    return positions.unsqueeze(-1) * base**-exponents
