"""What all pictures share: figures, colour bars, checked weights, PNG files that appear whole or not at all.

matplotlib is imported where it is used: it is of the extra ``pictures``. Figures are drawn by its Agg canvas,
without ``pyplot`` and its global state.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure, SubFigure

PAPER = "YlOrRd"
"""Colours of weights, pale to dark."""
SMALL, NORMAL, LARGE = 8, 10, 12
"""Font sizes, in points."""
_DOTS_PER_INCH = 120


class MissingExtra(ValueError):
    """Drawing needs a package that is not installed; the message names it."""


def require_pictures(path: str | Path) -> None:
    """Check, before there is anything to draw, that a picture can be drawn to a path.

    Raises:
        MissingExtra: matplotlib is not installed.
        ValueError: the path does not end in .png.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra(
            "drawing needs matplotlib, which is not installed: pip install 'perceiver-policy[pictures]'"
        )
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path} ends in {Path(path).suffix!r}; pictures are written as .png")


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, in which parts make room for each other."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08)
    return Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout=layout, facecolor="white")


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, replacing what is there only once everything is written.

    Raises:
        OSError: the folder does not exist or cannot be written to; ``path`` is as before then.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as workspace:
        whole = Path(workspace) / path.name
        FigureCanvasAgg(figure).print_png(whole)
        whole.replace(path)


def add_color_bar(figure: Figure | SubFigure, shown: Any, axes: Any, label: str) -> None:
    """The scale of what ``shown``, an image or a collection, shows in ``axes``."""
    bar = figure.colorbar(shown, ax=axes, shrink=0.9, aspect=32, pad=0.02)
    bar.set_label(label, fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")


def whole_numbers(*axes: Axis) -> None:
    """Ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def checked_weights(weights: Tensor, dimensions: int | None = None) -> NDArray[np.float64]:
    """Weights as an array.

    Raises:
        ValueError: there are none, not so many dimensions, or some are negative or not finite.
    """
    array = weights.detach().cpu().double().numpy()
    if array.size == 0 or array.ndim == 0 or dimensions not in (None, array.ndim):
        expected = f"{dimensions} dimensions" if dimensions else "one dimension or more"
        raise ValueError(f"weights are {tuple(weights.shape)}; expected {expected}, none of them 0")
    if not np.isfinite(array).all() or array.min() < 0:
        raise ValueError(f"weights are from {array.min()} to {array.max()}; they must be finite, at least 0")
    return array
