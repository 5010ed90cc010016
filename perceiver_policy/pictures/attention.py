"""A layer's attention, head by head, and what each modality receives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perceiver_policy.looking import modality_shares
from perceiver_policy.pictures.canvas import (
    LARGE,
    NORMAL,
    PAPER,
    SMALL,
    add_color_bar,
    checked_weights,
    new_figure,
    require_pictures,
    save,
    whole_numbers,
)


def draw_attention_matrix(
    weights: Tensor,
    path: str | Path,
    *,
    queries: str = "query",
    inputs: str = "input",
    title: str = "Attention",
) -> None:
    """Draw a layer's attention, a panel a head, all in the same colours.

    Args:
        weights: (heads, M, N) float, at least 0.
        path: the file to write.
        queries, inputs: what the M rows and the N columns are.
        title: above the picture.

    Raises:
        MissingExtra: matplotlib is not installed.
        ValueError: the weights are not such.
    """
    require_pictures(path)
    values = checked_weights(weights, 3)
    num_heads, num_queries, num_inputs = values.shape
    aspect = min(max(num_queries / num_inputs, 0.2), 3.0)  # of a panel, height to width
    columns = min(num_heads, max(1, round(math.sqrt(num_heads * aspect * 2))))
    rows = -(-num_heads // columns)
    wide = min(max(6.4 / columns, 2.2), 4.4)
    figure = new_figure(columns * (wide + 0.4) + 1.0, rows * (max(wide * aspect, 0.9) + 0.6) + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    top = float(values.max()) or 1.0
    for head, axes in enumerate(panels.flat):
        if head >= num_heads:
            axes.set_axis_off()
            continue
        shown = axes.imshow(values[head], cmap=PAPER, vmin=0.0, vmax=top, aspect="auto", interpolation="none")
        axes.set_title(f"head {head}", fontsize=SMALL)
        axes.tick_params(labelsize=SMALL)
        whole_numbers(axes.xaxis, axes.yaxis)
    figure.supxlabel(inputs, fontsize=NORMAL)
    figure.supylabel(queries, fontsize=NORMAL)
    add_color_bar(figure, shown, list(panels.flat), "share of the attention")
    figure.suptitle(title, fontsize=LARGE, parse_math=False)
    save(figure, path)


def draw_modality_attention(
    weights: Tensor,
    ranges: Mapping[str, tuple[int, int]],
    path: str | Path,
    *,
    title: str = "Attention by modality",
) -> None:
    """Draw what share of the attention each modality receives, beside its share of the inputs.

    Args:
        weights: (..., M) float, at least 0; over several queries the mean is drawn.
        ranges: as for :func:`~perceiver_policy.looking.modality_shares`.
        path: the file to write.
        title: above the picture.

    Raises:
        MissingExtra: matplotlib is not installed.
        ValueError: no range, or one that does not fit the weights.
    """
    require_pictures(path)
    values = torch.from_numpy(checked_weights(weights)).reshape(-1, weights.shape[-1]).mean(0)
    if not ranges:
        raise ValueError("ranges are empty; give at least one modality")
    shares = [float(share) for share in modality_shares(values, ranges).values()]
    sizes = [(stop - start) / len(values) for start, stop in ranges.values()]
    figure = new_figure(7.2, 0.5 * len(shares) + 1.3)
    axes = figure.subplots()
    places = np.arange(len(shares))
    axes.barh(places, shares, height=0.62, color="#4a90ff", label="attention")
    axes.scatter(sizes, places, marker="|", s=320, color="black", label="share of the inputs", zorder=3)
    most = max(*shares, *sizes, 1e-9)
    for place, share, size in zip(range(len(shares)), shares, sizes, strict=True):
        axes.text(max(share, size) + 0.02 * most, place, f"{share:.1%}", va="center", fontsize=NORMAL)
    axes.set_yticks(places, list(ranges), fontsize=NORMAL, parse_math=False)
    axes.set(xlim=(0, 1.16 * most), ylim=(len(shares) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    axes.set_xlabel("share", fontsize=SMALL)
    axes.tick_params(axis="x", labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False)
    figure.suptitle(title, fontsize=LARGE, parse_math=False)
    save(figure, path)
