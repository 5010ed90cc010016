"""The protocol's pictures: sample efficiency, performance profiles, aggregates. Needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from envs.battle.whole_file import write_whole
from training.protocol.report import Report

_WIDTH, _HEIGHT = 6.4, 4.0  # inches
_DPI = 150
_TITLES = {"iqm": "IQM", "mean": "mean", "median": "median", "optimality_gap": "optimality gap"}


def write_plots(report: Report, folder: Path) -> list[Path]:
    """Write the pictures there is data for, each whole or not at all.

    Args:
        report: what to show.
        folder: made if need be.

    Returns:
        The files: ``sample_efficiency.png``, ``performance_profiles.png``, ``aggregates.png``.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in _PICTURES.items():
        figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        if not draw(report, figure):
            continue
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=_DPI)
        write_whole(folder / f"{name}.png", content.getvalue())
        written.append(folder / f"{name}.png")
    return written


def _sample_efficiency(report: Report, figure: Figure) -> bool:
    curves = report.curves
    axes = figure.subplots()
    for name, curve in curves.items():
        low = [np.nan if one.low is None else one.low for one in curve.estimates]
        high = [np.nan if one.high is None else one.high for one in curve.estimates]
        _line(axes, name, curve.env_steps, [one.value for one in curve.estimates], low, high)
    axes.set(xlabel="environment steps", ylabel="win rate, IQM", ylim=(0, 1.02))
    axes.legend(frameon=False)
    return bool(curves)


def _performance_profiles(report: Report, figure: Figure) -> bool:
    if not report.tasks:
        return False
    axes = figure.subplots()
    for name, profile in report.profiles.items():
        nothing = np.full_like(profile.share, np.nan)
        low = nothing if profile.low is None else profile.low
        high = nothing if profile.high is None else profile.high
        _line(axes, name, profile.thresholds, profile.share, low, high)
    axes.set(xlabel="win rate τ", ylabel="share of runs above τ", ylim=(0, 1.02), xlim=(0, 1))
    axes.legend(frameon=False)
    return True


def _aggregates(report: Report, figure: Figure) -> bool:
    if not report.tasks:
        return False
    aggregates = report.aggregates
    panels = figure.subplots(1, len(_TITLES), sharey=True)
    for axes, (key, title) in zip(panels, _TITLES.items(), strict=True):
        for height, (name, values) in enumerate(aggregates.items()):
            value, color = values[key], f"C{height}"
            if value.low is not None and value.high is not None:
                axes.barh(height, value.high - value.low, left=value.low, height=0.6, color=color, alpha=0.4)
            axes.plot([value.value] * 2, [height - 0.3, height + 0.3], color=color, linewidth=2, label=name)
        axes.use_sticky_edges = False
        axes.margins(0.15)
        axes.set(title=title, yticks=range(len(aggregates)), yticklabels=list(aggregates))
    return True


def _line(axes: Axes, name: str, x: ArrayLike, y: ArrayLike, low: ArrayLike, high: ArrayLike) -> None:
    """A line and the band of its interval, where it has one."""
    (drawn,) = axes.plot(x, y, label=name)
    axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.2, linewidth=0)


_PICTURES: dict[str, Callable[[Report, Figure], bool]] = {
    "sample_efficiency": _sample_efficiency,
    "performance_profiles": _performance_profiles,
    "aggregates": _aggregates,
}
