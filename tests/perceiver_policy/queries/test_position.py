"""Position queries: against the formula, and any part against the whole."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from perceiver_policy.config import ConfigError
from perceiver_policy.inputs.grid import FourierPositionConfig, LearnedPositionConfig
from perceiver_policy.queries.position import PositionQuery, PositionQueryConfig
from perceiver_policy.tokens import Tokens

TOKENS = Tokens(torch.zeros(2, 3, 4))


def by_hand(shape: tuple[int, ...], resolution: tuple[int, ...], bands: int, inclusive: bool) -> Tensor:
    """The features of every cell in Python's float64, cell by cell."""
    rows = []
    for cell in itertools.product(*map(range, shape)):
        if inclusive:
            place = [-1 + 2 * i / (n - 1) for i, n in zip(cell, shape, strict=True)]
        else:
            place = [-1 + 2 * i / n for i, n in zip(cell, shape, strict=True)]
        angles = [
            math.pi * (1 + k * (r / 2 - 1) / (bands - 1)) * p
            for p, r in zip(place, resolution, strict=True)
            for k in range(bands)
        ]
        rows.append([*place, *map(math.sin, angles), *map(math.cos, angles)])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize(("shape", "resolution"), [((7,), (12,)), ((4, 3), (8, 6)), ((2, 3, 4), (4, 12, 10))])
def test_formula_on_grids_of_one_to_three_axes(
    shape: tuple[int, ...], resolution: tuple[int, ...], inclusive: bool
) -> None:
    query = PositionQuery(PositionQueryConfig(shape, FourierPositionConfig(resolution, 3), inclusive))
    expected = by_hand(shape, resolution, 3, inclusive)
    assert (query.num_queries(TOKENS), query.num_channels) == expected.shape
    torch.testing.assert_close(query(TOKENS).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "config",
    [
        PositionQueryConfig((2, 3, 4), FourierPositionConfig((2, 3, 4), 3)),
        PositionQueryConfig((2, 3, 4), FourierPositionConfig((2, 8, 8), 3, False), inclusive=False),
        PositionQueryConfig((24,), FourierPositionConfig((24,), 3)),
        PositionQueryConfig((2, 3, 4), LearnedPositionConfig((2, 3, 4), 5)),
        PositionQueryConfig((2, 3, 4), LearnedPositionConfig((2, 2, 4), 5, num_projected_channels=6)),
    ],
)
def test_any_part_equals_its_rows_of_the_whole(config: PositionQueryConfig) -> None:
    query = PositionQuery(config)
    whole = query(TOKENS)
    assert len(whole.unique(dim=0)) == 24
    index = torch.tensor([23, 0, 7, 7, 12])
    torch.testing.assert_close(query(TOKENS, index), whole[index])
    chunks = [query(TOKENS, chunk) for chunk in torch.arange(24).split(5)]
    torch.testing.assert_close(torch.cat(chunks), whole)
    with pytest.raises(IndexError):
        query(TOKENS, torch.tensor([24]))


def test_learned_positions_are_rows_of_their_table() -> None:
    query = PositionQuery(PositionQueryConfig((2, 3), LearnedPositionConfig((2, 3), 5)))
    table = query.position.positions.table
    assert torch.equal(query(TOKENS), table)
    assert torch.equal(query(TOKENS, torch.tensor([5, 1])), table[[5, 1]])
    taller = PositionQuery(PositionQueryConfig((3, 3), LearnedPositionConfig((2, 3), 5)))
    taller.load_state_dict(query.state_dict())
    torch.testing.assert_close(taller(TOKENS)[3:6], (table[:3] + table[3:]) / 2)


def test_a_part_of_a_huge_grid_costs_what_the_part_costs() -> None:
    # The whole would have 2^36 rows.
    query = PositionQuery(PositionQueryConfig((4096, 4096, 4096), FourierPositionConfig((8, 8, 8), 2)))
    last = query(TOKENS, torch.tensor([0, 4096**3 - 1]))
    assert last[:, :3].tolist() == [[-1.0] * 3, [1.0] * 3]


def test_features_have_the_dtype_of_the_tokens() -> None:
    query = PositionQuery(PositionQueryConfig((4, 3), FourierPositionConfig((4, 3), 2)))
    half = query(Tokens(TOKENS.content.bfloat16()), torch.tensor([5]))
    assert torch.equal(half, query(TOKENS, torch.tensor([5])).bfloat16())


def test_subsampled_queries_agree_with_hugging_face() -> None:
    from transformers import PerceiverConfig
    from transformers.models.perceiver import modeling_perceiver as peer

    shape, resolution = (2, 5, 4), (16, 56, 56)
    theirs = peer.PerceiverBasicDecoder(
        PerceiverConfig(),
        output_num_channels=8,
        output_index_dims=shape,
        position_encoding_only=True,
        position_encoding_type="fourier",
        fourier_position_encoding_kwargs={"num_bands": 32, "max_resolution": resolution},
    )
    ours = PositionQuery(PositionQueryConfig(shape, FourierPositionConfig(resolution, 32), False))
    index = torch.tensor([39, 3, 17, 0])
    expected = theirs.decoder_query(torch.zeros(1, 6, 4), subsampled_points=index)[0]
    assert torch.equal(ours(TOKENS, index), expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": ()}, "shape is .*; it must have one to three axes"),
        ({"shape": (2, 2, 2, 2)}, "shape is .*; it must have one to three axes"),
        ({"shape": (2, 0)}, "shape is 0; it must be at least 1"),
        ({"position": {"kind": "sine"}}, "position.kind is 'sine'; allowed: fourier, learned"),
    ],
)
def test_refuses_grids_that_are_none(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PositionQueryConfig.from_dict(fields)


def test_refuses_positions_of_other_axes() -> None:
    with pytest.raises(ConfigError, match=r"max_resolution is \(4,\); .* 2 axes"):
        PositionQuery(PositionQueryConfig((2, 2), FourierPositionConfig((4,))))


def test_the_released_sound_has_the_peers_features_bit_by_bit() -> None:
    from transformers.models.perceiver import modeling_perceiver as peer

    query = PositionQuery(PositionQueryConfig((1920,), FourierPositionConfig((30720,), 192)))
    places = peer.build_linear_positions((1920,)).unsqueeze(0)
    assert torch.equal(query(TOKENS), peer.generate_fourier_features(places, 192, (30720,))[0])
