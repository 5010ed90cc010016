"""Fourier features against the paper's formula, number by number."""

from __future__ import annotations

import math

import pytest
import torch

from perceiver_policy.position import FourierEncoding


@pytest.mark.parametrize("concat_position", [True, False])
def test_formula_and_layout(concat_position: bool) -> None:
    encoding = FourierEncoding(3, [4.0, 10.0], concat_position=concat_position)
    x, y = 0.3, -0.7
    angles = [math.pi * f * x for f in (1.0, 2.5, 4.0)] + [math.pi * f * y for f in (1.0, 5.5, 10.0)]
    expected = [x, y] * concat_position + [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    result = encoding(torch.tensor([[[x, y]]]))
    assert result.shape == (1, 1, encoding.num_channels)
    assert result[0, 0].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("bands", "frequencies"), [(0, [4.0]), (2, []), (2, [4.0, 0.5])])
def test_refuses_what_encodes_nothing(bands: int, frequencies: list[float]) -> None:
    with pytest.raises(ValueError, match=r"at least 1"):
        FourierEncoding(bands, frequencies)
