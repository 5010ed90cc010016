"""Units on the battlefield, with what one of them, or the policy, attends to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from perceiver_policy.pictures.canvas import (
    LARGE,
    SMALL,
    add_color_bar,
    checked_weights,
    new_figure,
    require_pictures,
    save,
)
from perceiver_policy.policy_config import GeometryColumns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

OWN, ENEMY, NEUTRAL = "#2f6fd6", "#e8702a", "#2f9e7f"  # told apart by the colour-blind too
_SIDES = {OWN: "own", ENEMY: "enemy", NEUTRAL: "neutral"}
HEAT = "Purples"
"""Colours of weights, pale to dark."""
_LINE = "#54278f"
_LEAST_SPAN = 6.0
"""Map cells that a picture shows at least, from side to side."""
_LEAST_RADIUS = 0.008
"""Radius of a unit at least, as a share of what the picture shows."""
_PANEL_POINTS = 400.0
"""About the longer side of the battlefield in a picture, in points."""
_ROOM_FOR_TEXT = 7.0
"""Radius in points of a circle that a percentage fits into."""


class Field(NamedTuple):
    """Units to draw."""

    position: NDArray[np.float64]  # (U, 2) map cells
    radius: NDArray[np.float64]  # (U,) map cells
    own: NDArray[np.bool_]  # (U,)
    enemy: NDArray[np.bool_]  # (U,)
    present: NDArray[np.bool_]  # (U,)

    @property
    def limits(self) -> NDArray[np.float64]:
        """(2, 2): west and east, south and north, of what the picture shows."""
        if not self.present.any():
            return np.array([[0, _LEAST_SPAN], [0, _LEAST_SPAN]])
        position, radius = self.position[self.present], self.radius[self.present, None]
        low, high = (position - radius).min(0), (position + radius).max(0)
        margin = np.maximum((_LEAST_SPAN - (high - low)) / 2, 0.04 * (high - low).max() + 0.5)
        return np.stack((low - margin, high + margin), axis=-1)

    def color(self, row: int) -> str:
        """The colour of a unit's side."""
        return OWN if self.own[row] else ENEMY if self.enemy[row] else NEUTRAL

    @property
    def shape(self) -> float:
        """Height over width, within what is good to look at."""
        width, height = np.diff(self.limits)[:, 0]
        return float(min(max(height / width, 0.4), 1.3))


def draw_unit_attention(
    units: Tensor,
    unit_mask: Tensor,
    weights: Tensor,
    path: str | Path,
    *,
    geometry: GeometryColumns | None = None,
    from_unit: int | None = None,
    title: str = "What is attended to",
) -> None:
    """Draw units where they stand, filled the darker the more they are attended to.

    Args:
        units: (U, F) float, columns as ``geometry`` says.
        unit_mask: (U,) bool, True where a row holds a unit; the others are not drawn.
        weights: (U,) float, at least 0: shares of the attention. What is missing to 1 is told in words.
        path: the file to write.
        geometry: columns of position, radius and allegiance; None: those of the default configuration.
        from_unit: the row of the unit that asks; lines go from it to what it attends to.
        title: above the picture.

    Raises:
        MissingExtra: matplotlib is not installed.
        ValueError: sizes do not fit, or ``from_unit`` is no row that holds a unit.
    """
    require_pictures(path)
    field = make_field(units, unit_mask, geometry or GeometryColumns())
    figure = new_figure(8.4, 6.6 * field.shape + 1.4)
    draw_field(figure, figure.subplots(), field, weights, from_unit=from_unit)
    add_legend(figure, field, asks=from_unit is not None)
    figure.suptitle(title, fontsize=LARGE, parse_math=False)
    save(figure, path)


def make_field(units: Tensor, unit_mask: Tensor, geometry: GeometryColumns) -> Field:
    """What there is to draw, from arguments as for :func:`draw_unit_attention`.

    Raises:
        ValueError: sizes do not fit.
    """
    if units.dim() != 2 or unit_mask.shape != units.shape[:1] or 0 in units.shape:
        raise ValueError(
            f"units are {tuple(units.shape)} and unit_mask {tuple(unit_mask.shape)}; expected "
            "(U, F) and (U,), of one observation, U at least 1"
        )
    last = max(geometry.to_dict().values())
    if last >= units.shape[1]:
        raise ValueError(
            f"geometry names column {last}, but units {tuple(units.shape)} have {units.shape[1]}"
        )
    rows = units.detach().cpu().double().numpy()
    present = unit_mask.detach().cpu().bool().numpy()
    if not np.isfinite(rows[present]).all():
        raise ValueError("units hold values that are not finite in rows that unit_mask holds")
    own, enemy = (rows[:, column] > 0 for column in (geometry.own, geometry.enemy))
    return Field(rows[:, [geometry.x, geometry.y]], rows[:, geometry.radius], own, enemy, present)


def draw_field(
    figure: Figure | SubFigure,
    axes: Axes,
    field: Field,
    weights: Tensor,
    *,
    from_unit: int | None = None,
    label: str = "share of the attention, numbers in %",
) -> None:
    """Draw units into ``axes``; arguments as for :func:`draw_unit_attention`.

    Raises:
        ValueError: the weights do not fit the units, or ``from_unit`` is no row that holds a unit.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle

    values = checked_weights(weights, 1)
    rows = np.flatnonzero(field.present)
    if len(values) != len(field.present):
        raise ValueError(f"there are {len(field.present)} units, but {len(values)} weights")
    if from_unit is not None and from_unit not in rows:
        raise ValueError(f"from_unit is {from_unit}; rows that hold a unit: {rows.tolist()}")
    top = float(values[rows].max(initial=0.0)) or 1.0
    limits = field.limits
    span = float(np.diff(limits).max())
    radius = np.maximum(field.radius, _LEAST_RADIUS * span)
    if from_unit is not None:
        for row in rows[values[rows] > 0]:
            x, y = field.position[[from_unit, row]].T
            share = values[row] / top
            axes.plot(x, y, color=_LINE, linewidth=0.4 + 4.0 * share, alpha=0.08 + 0.5 * share, zorder=1)
        reach = radius[from_unit] + 0.012 * span
        axes.add_patch(Circle(tuple(field.position[from_unit]), reach, fill=False, linewidth=1.6, zorder=3))
    order = rows[np.argsort(values[rows], kind="stable")]  # what is attended to most is drawn on top
    circles = PatchCollection(
        [Circle(tuple(field.position[row]), radius[row]) for row in order],
        cmap=HEAT,
        edgecolors=[field.color(row) for row in order],
        linewidths=1.6,
        zorder=2,
    )
    circles.set_array(values[order])
    circles.set_clim(0.0, top)
    axes.add_collection(circles)
    axes.set(xlim=limits[0], ylim=limits[1], aspect="equal", facecolor="#f6f6f4")
    axes.set_xlabel("x, map cells", fontsize=SMALL)
    axes.set_ylabel("y, map cells", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    add_color_bar(figure, circles, axes, label)
    points_per_cell = _PANEL_POINTS / span
    for row in order[(radius[order] * points_per_cell >= _ROOM_FOR_TEXT) & (values[order] >= 0.005)]:
        axes.annotate(
            f"{100 * values[row]:.0f}",
            tuple(field.position[row]),
            ha="center",
            va="center",
            fontsize=SMALL,
            color="white" if values[row] > 0.55 * top else "black",
            zorder=4,
        )
    on_units = float(values[rows].sum())
    if 0 < on_units < 0.995:
        axes.set_title(f"{on_units:.0%} on units, the rest on other inputs", fontsize=SMALL)


def add_legend(figure: Figure | SubFigure, field: Field, *, asks: bool) -> None:
    """Say below what the colours of rings mean."""
    from matplotlib.lines import Line2D

    present = {field.color(int(row)) for row in np.flatnonzero(field.present)}
    entries = [(color, name) for color, name in _SIDES.items() if color in present]
    if asks:
        entries.append(("black", "who asks"))
    rings = [
        Line2D(
            [],
            [],
            color="none",
            marker="o",
            markersize=9,
            markerfacecolor="white",
            markeredgecolor=color,
            label=name,
            markeredgewidth=1.6,
        )
        for color, name in entries
    ]
    figure.legend(handles=rings, loc="outside lower center", ncols=4, fontsize=SMALL, frameon=False)
