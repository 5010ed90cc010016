"""Pictures: what is attended to more looks so, sizes that do not fit are refused, files are whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from perceiver_policy.looking import input_attention, record
from perceiver_policy.pictures import (
    MissingExtra,
    draw_attention_matrix,
    draw_image_attention,
    draw_latents,
    draw_modality_attention,
    draw_text_attention,
    draw_unit_attention,
    look_at_policy,
    require_pictures,
)
from perceiver_policy.pictures import policy as policy_pictures
from perceiver_policy.pictures.image import STRENGTH, overlay
from perceiver_policy.pictures.text import wrap
from perceiver_policy.pictures.units import ENEMY, NEUTRAL, OWN
from perceiver_policy.policy import UnitSetPolicy


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "picture.png"


def light(path: Path) -> NDArray[np.float64]:
    """(H, W): how light each pixel is, 0 to 255."""
    return np.asarray(Image.open(path).convert("L"), np.float64)


def centre(amount: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where, as row and column, the mean of ``amount`` is; negative amounts count as 0."""
    amount = np.maximum(amount, 0)
    assert amount.sum() > 0
    rows, columns = np.indices(amount.shape)
    return np.array([(rows * amount).sum(), (columns * amount).sum()]) / amount.sum()


def area(path: Path, color: str) -> int:
    """How many pixels have a colour, written #rrggbb, give or take the rounding."""
    pixels = np.asarray(Image.open(path).convert("RGB"), np.int64)
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels - wanted).max(-1) <= 2).sum())


def one_hot(size: int, *at: int) -> Tensor:
    weights = torch.zeros(size)
    weights[list(at)] = 1 / len(at)
    return weights


def test_overlay_by_hand() -> None:
    pixels = np.full((4, 4, 3), 0.5)
    mixed = overlay(pixels, np.array([[0.0, 0.25], [0.5, 1.0]]))
    grey = (1 - STRENGTH) * 0.5
    np.testing.assert_allclose(
        mixed[:2, :2], np.full((2, 2, 3), grey), atol=0.01
    )  # inferno begins with black
    brightest = np.array([0.988, 0.998, 0.645])  # and ends with this
    np.testing.assert_allclose(mixed[3, 3], grey + STRENGTH * brightest, atol=1e-3)
    steps = mixed[[0, 0, 3, 3], [0, 3, 0, 3]].mean(-1)
    assert (np.diff(steps) > 0.05).all()


def test_an_image_is_brighter_where_it_is_attended_to(path: Path) -> None:
    image = torch.rand(3, 32, 64, generator=torch.Generator().manual_seed(0))
    shown = []
    for cell in (0, 31):  # of 4 x 8: the first is in the north-west, the last in the south-east
        draw_image_attention(image, one_hot(32, cell), path)
        shown.append(light(path))
    first, last = centre(shown[0] - shown[1]), centre(shown[1] - shown[0])
    size = np.array(shown[0].shape)
    assert (first < last).all()
    assert ((last - first) / size > [0.4, 0.3]).all()  # the right half of the picture, but for the margins


@pytest.mark.parametrize(
    ("shape", "cells", "grid"), [((3, 8, 8), 16, (4, 4)), ((8, 16, 3), 128, (8, 16)), ((1, 6, 9), 6, (2, 3))]
)
def test_grids_are_found(
    shape: tuple[int, ...], cells: int, grid: tuple[int, int], path: Path, tmp_path: Path
) -> None:
    image = torch.arange(np.prod(shape)).reshape(shape).to(torch.uint8)
    weights = torch.rand(cells, generator=torch.Generator().manual_seed(0))
    draw_image_attention(image, weights, path)
    draw_image_attention(image, weights, tmp_path / "named.png", grid=grid)
    assert path.read_bytes() == (tmp_path / "named.png").read_bytes()


def test_wrapped_text_by_hand() -> None:
    places, lines = wrap(["ab", "cde", "f", "g↵", "abcdefg", "h"], 5)
    assert places == [
        (0, 0, 0, "ab"),
        (1, 0, 2, "cde"),
        (2, 1, 0, "f"),
        (3, 1, 1, "g↵"),
        (4, 2, 0, "abcde"),
        (4, 3, 0, "fg"),
        (5, 3, 2, "h"),
    ]
    assert lines == 4


def test_text_is_darker_where_it_is_attended_to(path: Path) -> None:
    text = "seven words\nover several\nlines"
    shown = []
    for at in (0, len(text) - 1):
        draw_text_attention(text, one_hot(len(text), at), path, columns=12)
        shown.append(light(path))
    first, last = centre(shown[1] - shown[0]), centre(shown[0] - shown[1])
    assert first[0] < last[0] - 30
    assert first[1] < last[1] - 30


def test_text_is_drawn_as_it_is(path: Path, tmp_path: Path) -> None:
    """Dollars begin no formula; what cannot be shown becomes a sign."""
    draw_text_attention("$x^{2$ \t\x00漢", torch.rand(10), path)
    assert light(path).min() < 50
    tokens = ["Perceiver", " IO", "\n", "x" * 30]
    draw_text_attention(tokens, torch.tensor([0.1, 0.2, 0.3, 0.4]), path, columns=12)
    draw_text_attention(tokens[:2], torch.tensor([0.1, 0.2]), tmp_path / "short.png", columns=12)
    assert light(path).shape[0] > light(tmp_path / "short.png").shape[0] + 50  # three lines more


UNITS = torch.zeros(4, 6)
UNITS[:, 0] = torch.tensor([5.0, 15.0, 15.0, 99.0])  # x; the last is not there
UNITS[:, 1] = torch.tensor([5.0, 5.0, 12.0, 99.0])  # y
UNITS[:, 2] = 0.6
UNITS[0, 4], UNITS[1, 5], UNITS[2, 5] = 1.0, 1.0, 1.0
PRESENT = torch.tensor([True, True, True, False])


def test_units_are_darker_where_they_are_attended_to(path: Path) -> None:
    def drawn(*at: int, **options: int) -> NDArray[np.float64]:
        draw_unit_attention(UNITS, PRESENT, one_hot(4, *at), path, **options)
        return light(path)

    west, south, north = drawn(0), drawn(1), drawn(2)
    assert centre(south - west)[1] < centre(west - south)[1] - 300
    assert centre(south - north)[0] < centre(north - south)[0] - 200  # north is up
    lines = drawn(2) - drawn(2, from_unit=0)  # darker along the way
    between = (centre(south - west) + centre(west - north)) / 2
    row, column = between.round().astype(int)
    assert lines[row - 15 : row + 15, column - 15 : column + 15].max() > 60


def test_units_show_their_sides_and_only_those_present(path: Path, tmp_path: Path) -> None:
    draw_unit_attention(UNITS, PRESENT, one_hot(4, 1), path)
    assert area(path, OWN) > 50
    assert area(path, ENEMY) > 1.5 * area(path, OWN) - 100
    assert area(path, NEUTRAL) == 0
    elsewhere = UNITS.clone()
    elsewhere[3] = 7.0
    draw_unit_attention(elsewhere, PRESENT, one_hot(4, 1), tmp_path / "other.png")
    assert path.read_bytes() == (tmp_path / "other.png").read_bytes()
    draw_unit_attention(torch.zeros(2, 6), torch.tensor([True, False]), one_hot(2, 0), path)
    assert area(path, NEUTRAL) > 50
    draw_unit_attention(torch.zeros(2, 6), torch.zeros(2).bool(), torch.zeros(2), path)  # nobody there
    assert area(path, NEUTRAL) == 0


def test_modalities_have_bars_as_long_as_their_shares(path: Path) -> None:
    weights = torch.tensor([[0.6, 0.2, 0.0, 0.2], [0.4, 0.4, 0.2, 0.0]])
    draw_modality_attention(weights, {"video": (0, 2), "audio": (2, 4)}, path)
    pixels = np.asarray(Image.open(path).convert("RGB"), np.int64)
    blue = np.abs(pixels - [0x4A, 0x90, 0xFF]).max(-1) <= 2
    lengths = blue.sum(1)[: int(0.75 * len(blue))]  # above the legend
    long, short = np.unique(lengths[lengths > 20], return_counts=True)[0][[-1, 0]]
    assert long / short == pytest.approx(0.8 / 0.2, rel=0.06)  # the means over both queries


def test_matrices_are_dark_where_weights_are_high(path: Path) -> None:
    """In all heads by the same scale."""
    weights = torch.zeros(2, 3, 4)
    weights[0, 0, 0], weights[1, 2, 3] = 1.0, 0.5
    draw_attention_matrix(weights, path)
    darkest = area(path, "#800026")  # YlOrRd's end
    weights[1, 2, 3] = 1.0
    draw_attention_matrix(weights, path)
    assert area(path, "#800026") > 1.8 * darkest - 300
    assert darkest > 1000


def test_latents_that_turn_round_have_cosine_minus_one(path: Path) -> None:
    still = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1)
    same, opposite = "#67001f", "#053061"  # RdBu_r's ends
    draw_latents(still, path)
    assert area(path, same) > 20_000
    assert area(path, opposite) < 1_000  # in the colour bar alone
    draw_latents(still * torch.tensor([1.0, -1.0, 1.0])[:, None, None], path)
    assert area(path, opposite) > 20_000
    assert area(path, same) < 1_000
    draw_latents(still[:1], path, steps="time step")
    assert area(path, same) == 0  # one step has none before it


WRONG: list[tuple[Callable[[Path], None], str]] = [
    (lambda p: draw_image_attention(torch.rand(3, 8, 8), torch.rand(5), p), "5 weights .* 8 x 8"),
    (lambda p: draw_image_attention(torch.rand(3, 8, 8), torch.rand(5), p, grid=(2, 3)), "2 x 3, 6 .* 5 wei"),
    (lambda p: draw_image_attention(torch.rand(2, 8, 8), torch.rand(4), p), r"image is \(2, 8, 8\)"),
    (lambda p: draw_image_attention(torch.rand(3, 8, 8), torch.rand(2, 2), p), r"\(2, 2\); expected 1 dim"),
    (lambda p: draw_image_attention(torch.rand(3, 8, 8), torch.tensor([1, 1, 1, -1]), p), "from -1.0 to 1.0"),
    (lambda p: draw_text_attention("abc", torch.rand(4), p), "3 characters, but there are 4 weights"),
    (lambda p: draw_text_attention(["ab", "c"], torch.rand(3), p), "2 tokens, but there are 3 weights"),
    (lambda p: draw_text_attention([""], torch.rand(1), p), "0 characters"),
    (lambda p: draw_text_attention("abc", torch.rand(3), p, columns=0), "columns is 0"),
    (lambda p: draw_unit_attention(UNITS, PRESENT, torch.rand(3), p), "4 units, but 3 weights"),
    (lambda p: draw_unit_attention(UNITS, PRESENT[:3], torch.rand(4), p), r"\(4, 6\) and unit_mask \(3,\)"),
    (
        lambda p: draw_unit_attention(UNITS[:, :5], PRESENT, torch.rand(4), p),
        r"column 5, but units \(4, 5\)",
    ),
    (lambda p: draw_unit_attention(UNITS, PRESENT, torch.rand(4), p, from_unit=3), r"is 3; .*\[0, 1, 2\]"),
    (lambda p: draw_modality_attention(torch.rand(4), {"audio": (2, 6)}, p), r"2 to 6; weights \(4,\)"),
    (lambda p: draw_modality_attention(torch.rand(4), {}, p), "ranges are empty"),
    (lambda p: draw_attention_matrix(torch.rand(4, 4), p), r"\(4, 4\); expected 3 dimensions"),
    (lambda p: draw_latents(torch.rand(4, 4), p), r"latents are \(4, 4\)"),
    (lambda p: draw_latents(torch.full((2, 2, 2), torch.nan), p), "expected finite"),
]


@pytest.mark.parametrize(("draw", "expected"), WRONG, ids=range(len(WRONG)))
def test_what_does_not_fit_is_refused(
    draw: Callable[[Path], None], expected: str, path: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=expected):
        draw(path)
    assert list(tmp_path.iterdir()) == []


def test_files_are_whole_or_not_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.rand(1, 2, 2)
    draw_attention_matrix(weights, path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise OSError("full")

        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="full"):
            draw_attention_matrix(1 - weights, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    draw_attention_matrix(1 - weights, path)
    assert path.read_bytes() != before
    with pytest.raises(FileNotFoundError):
        draw_attention_matrix(weights, path.parent / "none" / "picture.png")


def test_what_drawing_needs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"ends in '.jpg'; pictures are written as .png"):
        draw_attention_matrix(torch.rand(1, 2, 2), path.with_suffix(".jpg"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'perceiver-policy\[pictures\]'"):
        require_pictures(path)
    with pytest.raises(MissingExtra):
        draw_latents(torch.rand(2, 2, 2), path)


def test_no_global_state(path: Path) -> None:
    """matplotlib comes with the first picture, and pyplot never."""
    code = f"""
import sys, torch, perceiver_policy.pictures as pictures
assert "matplotlib" not in sys.modules
pictures.draw_attention_matrix(torch.rand(1, 2, 2), {str(path)!r})
assert "matplotlib" in sys.modules
sys.exit("matplotlib.pyplot" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_looking_at_a_policy(
    make_policy: Callable[..., UnitSetPolicy],
    make_observation: Callable,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is drawn is the unit's share of the rollout, and p(target | its likeliest targeting verb)."""
    policy, observation = make_policy(3), make_observation(4, 6, 2, seed=3)
    drawn: list[tuple[Tensor, int]] = []
    draw_field = policy_pictures.draw_field

    def keep(*args: object, from_unit: int, **kwargs: object) -> None:
        drawn.append((args[3], from_unit))  # type: ignore[arg-type]
        draw_field(*args, from_unit=from_unit, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(policy_pictures, "draw_field", keep)
    aiming = observation["verb_mask"][..., 12:].any(-1)
    index, unit = (int(i) for i in aiming.nonzero()[-1])
    assert index > 0
    look_at_policy(policy, observation, path, unit=unit, index=index)
    row = int(observation["controlled"][index, unit])
    assert [who for _, who in drawn] == [row, row]
    with torch.no_grad(), record(policy) as recording:
        output = policy(observation)
    expected = input_attention(recording)[index, unit, :6]
    torch.testing.assert_close(drawn[0][0], expected)
    verb = 12 + output.verb_logits[index, unit, 12:].argmax()
    target = output.target_logits(verb.expand(4, 2))[index, unit].softmax(-1)
    torch.testing.assert_close(drawn[1][0], target)
    assert drawn[1][0].sum() == pytest.approx(1, abs=1e-5)
    assert light(path).shape[1] > 1000

    dead = (~observation["controlled_mask"]).nonzero()[0].tolist()
    with pytest.raises(ValueError, match=rf"unit is {dead[1]}; slots that command a unit"):
        look_at_policy(policy, observation, path, index=dead[0], unit=dead[1])
    with pytest.raises(ValueError, match="index is 4, but there are 4 observations"):
        look_at_policy(policy, observation, path, index=4)
    with pytest.raises(ValueError, match="verbs are 1 names, but the policy has 14"):
        look_at_policy(policy, observation, path, index=index, unit=unit, verbs=["stop"])

    drawn.clear()  # nothing to aim at
    observation["target_mask"] = torch.zeros_like(observation["target_mask"])
    observation["verb_mask"][..., 12:] = False
    look_at_policy(policy, observation, path, unit=unit, index=index)
    assert (drawn[1][0] == 0).all()
