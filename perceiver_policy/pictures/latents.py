"""Latents over blocks or time steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_policy.looking import principal_plane
from perceiver_policy.pictures.canvas import (
    LARGE,
    NORMAL,
    SMALL,
    add_color_bar,
    new_figure,
    require_pictures,
    save,
    whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MAX_NAMED = 16
"""Most latents whose paths have their numbers at the end."""


def draw_latents(latents: Tensor, path: str | Path, *, steps: str = "block", title: str = "Latents") -> None:
    """Draw how latents move: their norms, how like they are to themselves one step before (cosine), and their
    paths in the plane in which all of them vary most.

    Args:
        latents: (T, N, D) float: after T blocks, or at T time steps.
        path: the file to write.
        steps: what the T steps are.
        title: above the picture.

    Raises:
        MissingExtra: matplotlib is not installed.
        ValueError: the latents are not such, or not finite.
    """
    require_pictures(path)
    if latents.dim() != 3 or 0 in latents.shape or not latents.isfinite().all():
        raise ValueError(f"latents are {tuple(latents.shape)}; expected finite (steps, latents, channels)")
    latents = latents.detach().cpu().double()
    num_steps, num_latents, _ = latents.shape
    figure = new_figure(13.0, 4.4)
    norms, likeness, plane = figure.subplots(1, 3, width_ratios=(1.0, 1.0, 1.15))
    extent = (-0.5, num_steps - 0.5, num_latents - 0.5, -0.5)
    shown = norms.imshow(latents.norm(dim=-1).T.numpy(), aspect="auto", cmap="viridis", extent=extent)
    add_color_bar(figure, shown, norms, "")
    norms.set_title("norm", fontsize=NORMAL)
    likeness.set_title(f"cosine to the {steps} before", fontsize=NORMAL)
    if num_steps > 1:
        cosine = torch.cosine_similarity(latents[1:], latents[:-1], dim=-1)
        extent = (0.5, num_steps - 0.5, num_latents - 0.5, -0.5)
        shown = likeness.imshow(
            cosine.T.numpy(), aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, extent=extent
        )
        add_color_bar(figure, shown, likeness, "")
    else:
        likeness.text(0.0, 0.0, f"one {steps} only", ha="center", va="center")
        likeness.set(xlim=(-0.5, 0.5), ylim=(-0.5, 0.5))
        likeness.set_axis_off()
    for axes in (norms, likeness):
        axes.set_xlabel(steps, fontsize=NORMAL)
        axes.set_ylabel("latent", fontsize=NORMAL)
        whole_numbers(axes.xaxis, axes.yaxis)
    points, shares = principal_plane(latents)
    _draw_paths(plane, points.numpy(), steps)
    for axis, share, name in zip((plane.xaxis, plane.yaxis), shares, ("first", "second"), strict=True):
        axis.set_label_text(f"{name} principal component, {share:.0%} of the variance", fontsize=SMALL)
    for axes in (norms, likeness, plane):
        axes.tick_params(labelsize=SMALL)
    figure.suptitle(title, fontsize=LARGE, parse_math=False)
    save(figure, path)


def _draw_paths(axes: Axes, points: NDArray[np.float64], steps: str) -> None:
    """Paths (T, N, 2): from a ring to a dot, a colour a latent."""
    from matplotlib import colormaps

    num_latents = points.shape[1]
    colors = colormaps["turbo"](np.linspace(0.04, 0.96, num_latents))
    strong = 1.0 if num_latents <= 32 else 0.35
    for latent, color in enumerate(colors):
        x, y = points[:, latent].T
        axes.plot(x, y, color=color, linewidth=1.2, alpha=0.7 * strong)
        axes.scatter(x[:1], y[:1], facecolors="none", edgecolors=[color], s=36, alpha=strong)
        axes.scatter(x[-1:], y[-1:], color=[color], s=30, alpha=strong)
    if num_latents <= MAX_NAMED:
        for together in _neighbours(points[-1]):
            name, place = ", ".join(map(str, together)), points[-1, together[0]]
            axes.annotate(name, place, xytext=(5, 4), textcoords="offset points", fontsize=SMALL)
    axes.set_title(f"paths, first {steps} ○ to last ●" if len(points) > 1 else "places", fontsize=NORMAL)
    axes.margins(0.1)
    axes.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.85", linewidth=0.8, zorder=0)


def _neighbours(places: NDArray[np.float64]) -> list[list[int]]:
    """Places (N, 2) by number, those together that are too near each other for labels of their own."""
    near = 0.03 * np.ptp(places, axis=0).max()
    groups: list[list[int]] = []
    for index, place in enumerate(places):
        for group in groups:
            if np.linalg.norm(places[group[0]] - place) <= near:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups
