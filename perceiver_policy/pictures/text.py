"""Characters and tokens on their weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from perceiver_policy.pictures.canvas import (
    LARGE,
    PAPER,
    add_color_bar,
    checked_weights,
    new_figure,
    require_pictures,
    save,
)

MAX_COLUMNS = 400
"""Most characters in a line."""
MAX_CHARACTERS = 20_000
"""Most characters in a text."""
FONT = "DejaVu Sans Mono"  # comes with matplotlib
LINE_END = "↵"


def draw_text_attention(
    text: str | Sequence[str],
    weights: Tensor,
    path: str | Path,
    *,
    columns: int = 80,
    title: str = "What is attended to",
) -> None:
    """Draw a text with each character, or token, on a colour that is darker the more it is attended to.

    Args:
        text: characters, one a weight, or tokens. Line ends, which are shown as signs, end lines; lines that
            are too long go on below.
        weights: (M,) float, at least 0.
        path: the file to write.
        columns: characters in a line.
        title: above the picture.

    Raises:
        MissingExtra: matplotlib is not installed.
        ValueError: sizes do not fit, or the text is empty or too long to draw.
    """
    require_pictures(path)
    values = checked_weights(weights, 1)
    pieces = list(text)
    if len(pieces) != len(values):
        unit = "characters" if isinstance(text, str) else "tokens"
        raise ValueError(f"the text has {len(pieces)} {unit}, but there are {len(values)} weights")
    total = sum(map(len, pieces))
    if not 0 < total <= MAX_CHARACTERS:
        raise ValueError(f"the text has {total:,} characters; it must have from 1 to {MAX_CHARACTERS:,}")
    if not 1 <= columns <= MAX_COLUMNS:
        raise ValueError(f"columns is {columns}; it must be from 1 to {MAX_COLUMNS}")
    places, lines = wrap([_visible(piece) for piece in pieces], columns)
    wide = max(column + len(part) for _, _, column, part in places)
    heat = np.full((lines, wide), np.nan)
    for piece, line, column, part in places:
        heat[line, column : column + len(part)] = values[piece]
    figure = new_figure(max(0.105 * wide, 4.0) + 1.2, 0.24 * lines + 0.8)
    axes = figure.subplots()
    shown = axes.imshow(heat, cmap=PAPER, vmin=0.0, vmax=float(values.max()) or 1.0, aspect="auto")
    for piece, line, column, part in places:
        dark = values[piece] > 0.6 * values.max()
        axes.text(
            column + len(part) / 2 - 0.5,
            line,
            part,
            family=FONT,
            fontsize=9,
            ha="center",
            va="center",
            color="white" if dark else "black",
            parse_math=False,
        )
    if not isinstance(text, str):  # where a token ends
        for _, line, column, part in places:
            axes.plot([column + len(part) - 0.5] * 2, [line - 0.5, line + 0.5], color="white", linewidth=1.2)
    axes.set(xlim=(-0.5, wide - 0.5), ylim=(lines - 0.5, -0.5))
    axes.set_axis_off()
    add_color_bar(figure, shown, axes, "share of the attention" if lines > 7 else "share")
    figure.suptitle(title, fontsize=LARGE, parse_math=False)
    save(figure, path)


def wrap(pieces: Sequence[str], columns: int) -> tuple[list[tuple[int, int, int, str]], int]:
    """Place pieces of text in lines of at most ``columns`` characters: a piece that does not fit in what is
    left of a line goes to the next, one longer than a line is cut.

    Returns:
        Of each part placed its piece, line, column and characters; and the number of lines.
    """
    places: list[tuple[int, int, int, str]] = []
    line = column = 0
    for index, piece in enumerate(pieces):
        if column and column + min(len(piece), columns) > columns:
            line, column = line + 1, 0
        for start in range(0, len(piece), columns):
            part = piece[start : start + columns]
            if start:
                line, column = line + 1, 0
            places.append((index, line, column, part))
            column += len(part)
        if piece.endswith(LINE_END):
            line, column = line + 1, 0
    return places, 1 + max((place[1] for place in places), default=0)


def _visible(piece: str) -> str:
    """With signs for line ends, for control characters and for those that the font lacks."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont(FONT))
    signs = {"\n": LINE_END, "\t": "→", "\r": "·"}
    shown = (signs.get(c, c if c.isprintable() else "·") for c in piece)
    return "".join(c if font.get_char_index(ord(c)) else "\N{REPLACEMENT CHARACTER}" for c in shown)
