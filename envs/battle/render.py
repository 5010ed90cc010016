"""Pictures of battles, drawn with Pillow from :class:`Frame` values.

A unit is a disc of its true size in its team's colour with a letter for its type. The ring inside the
disc's rim is its health, the thin ring outside its shield, the notch its facing, the bar below how far its
weapon has reloaded. Lines lead to what a unit attacks (dashed while it closes in or reloads), arrows to where
it walks; the dead fade.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from envs.battle.frame import Frame

Color: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]

TEAM_COLORS: tuple[Color, Color] = ((74, 144, 255), (255, 138, 60))  # told apart by the colour-blind too
BACKGROUND: Color = (14, 17, 23)
GROUND: Color = (28, 33, 42)
GRID: Color = (36, 42, 53)
TEXT: Color = (232, 236, 241)
FAINT: Color = (140, 149, 163)
SHIELD: Color = (196, 236, 255)
RING_TRACK: Color = (10, 12, 16)
HEALTH_COLORS: tuple[Color, Color, Color] = ((239, 68, 68), (250, 204, 21), (74, 222, 128))  # low, half, full
FADE_SECONDS = 4.0
"""Game time after which a dead unit's marker has faded to its last trace."""

_HEADER, _FOOTER, _MARGIN = 58, 30, 10
_MAX_FIELD_HEIGHT = 700
_OVERSAMPLING = 2  # drawn this much larger and averaged down, for smooth edges


def draw_frame(frame: Frame, *, width: int = 960) -> NDArray[np.uint8]:
    """The frame as an image (H, W, 3) uint8.

    Args:
        width: W in pixels, at least 320; H follows from the playable area.

    Raises:
        ValueError: the width is below 320.
    """
    if width < 320:
        raise ValueError(f"width is {width}; it must be at least 320 pixels")
    picture = _Picture(frame, width)
    picture.field()
    picture.units()
    picture.header()
    picture.footer()
    return picture.pixels()


def pixel_of(frame: Frame, point: Point, *, width: int = 960) -> tuple[int, int]:
    """The pixel (row, column) of :func:`draw_frame`'s image at which a map position lies."""
    x, y = _Picture(frame, width).at(point)
    return int(y / _OVERSAMPLING), int(x / _OVERSAMPLING)


class _Picture:
    """The canvas of one frame. Lengths are pixels of the enlarged canvas unless said otherwise."""

    def __init__(self, frame: Frame, width: int) -> None:
        self.frame = frame
        x0, y0, x1, y1 = frame.playable
        # Pixels of the final image a map cell, for a field that fits in both directions.
        cell = min((width - 2 * _MARGIN) / (x1 - x0), _MAX_FIELD_HEIGHT / (y1 - y0))
        self.size = (width, round(cell * (y1 - y0)) + _HEADER + _FOOTER)
        self.cell = cell * _OVERSAMPLING
        self.left = (width - cell * (x1 - x0)) / 2 * _OVERSAMPLING
        self.top = _HEADER * _OVERSAMPLING
        enlarged = (self.size[0] * _OVERSAMPLING, self.size[1] * _OVERSAMPLING)
        self.image = Image.new("RGB", enlarged, BACKGROUND)
        self.draw = ImageDraw.Draw(self.image)

    def at(self, point: Point) -> Point:
        """Where a map position lies on the canvas."""
        x0, _, _, y1 = self.frame.playable
        return self.left + (point[0] - x0) * self.cell, self.top + (y1 - point[1]) * self.cell

    def pixels(self) -> NDArray[np.uint8]:
        return np.asarray(self.image.reduce(_OVERSAMPLING))

    def field(self) -> None:
        x0, y0, x1, y1 = self.frame.playable
        self.draw.rectangle((*self.at((x0, y1)), *self.at((x1, y0))), fill=GROUND)
        step = 4
        for x in range(math.ceil(x0 / step) * step, math.ceil(x1), step):
            self.draw.line((*self.at((x, y0)), *self.at((x, y1))), fill=GRID, width=_OVERSAMPLING)
        for y in range(math.ceil(y0 / step) * step, math.ceil(y1), step):
            self.draw.line((*self.at((x0, y)), *self.at((x1, y))), fill=GRID, width=_OVERSAMPLING)

    def units(self) -> None:
        """The dead below, then orders, then the living, so that nothing alive is hidden."""
        living, dead = (np.flatnonzero(flags).tolist() for flags in (self.frame.alive, ~self.frame.alive))
        for i in dead:
            self._grave(i)
        for draw in (self._order, self._reload, self._unit):
            for i in living:
                draw(i)

    def header(self) -> None:
        frame, line = self.frame, 8 * _OVERSAMPLING
        right = self.image.width - _MARGIN * _OVERSAMPLING
        self._text((_MARGIN * _OVERSAMPLING, line), frame.title, 17, TEXT, "la")
        self._text((right, line), f"{frame.seconds:.1f} s of {frame.limit:.0f} s", 15, FAINT, "ra")
        self._text((self.image.width / 2, line), frame.result, 17, TEXT, "ma")
        half = self.image.width / 2
        for side, color in enumerate(TEAM_COLORS):
            left = half * side + _MARGIN * _OVERSAMPLING
            own = frame.side == side
            text = f"{frame.names[side]}  {int(frame.alive[own].sum())} of {int(own.sum())}"
            self._text((left, 31 * _OVERSAMPLING), text, 13, color, "la")
            top, bottom = 49 * _OVERSAMPLING, 53 * _OVERSAMPLING
            full = half - 2 * _MARGIN * _OVERSAMPLING
            self.draw.rectangle((left, top, left + full, bottom), fill=_mix(BACKGROUND, color, 0.25))
            if frame.vitality(side) > 0:
                self.draw.rectangle((left, top, left + full * frame.vitality(side), bottom), fill=color)

    def footer(self) -> None:
        types = "   ".join(f"{label} {name}" for name, label in self.frame.labels.items())
        legend = "ring: health   outer ring: shield   bar: weapon reload   line: attacks   dashes: aims"
        if self.size[0] >= 640:
            legend += "   arrow: moves   square: holds"
        y = self.image.height - 9 * _OVERSAMPLING
        self._text((_MARGIN * _OVERSAMPLING, y), types, 12, TEXT, "ls")
        self._text((self.image.width - _MARGIN * _OVERSAMPLING, y), legend, 10, FAINT, "rs")

    def _unit(self, i: int) -> None:
        frame = self.frame
        x, y = self.at(tuple(frame.position[i]))
        radius = frame.radius[i] * self.cell
        color = TEAM_COLORS[frame.side[i]]
        ring = max(0.2 * radius, 2.0 * _OVERSAMPLING)
        shielded = frame.max_shield[i] > 0
        outer = radius + 2.5 * _OVERSAMPLING if shielded else radius
        self._notch(x, y, outer, frame.facing[i], color)
        if shielded:
            self._disc(x, y, outer, RING_TRACK)
            self._arc(x, y, outer, frame.shield[i] / frame.max_shield[i], SHIELD, 2 * _OVERSAMPLING)
        self._disc(x, y, radius, RING_TRACK)
        health = frame.health[i] / frame.max_health[i]
        self._arc(x, y, radius, health, _health_color(health), round(ring))
        self._disc(x, y, radius - ring, color)
        if frame.holding[i]:
            side = radius + 3.5 * _OVERSAMPLING
            self.draw.rectangle((x - side, y - side, x + side, y + side), outline=color, width=_OVERSAMPLING)
        label = frame.labels[frame.unit_names[i]]
        size = 1.5 * (radius - ring) / _OVERSAMPLING / (1 if len(label) == 1 else 1.4)
        self._text((x, y), label, max(round(size), 7), RING_TRACK, "mm")

    def _grave(self, i: int) -> None:
        """A cross that fades to a trace."""
        frame = self.frame
        x, y = self.at(tuple(frame.position[i]))
        reach = 0.6 * frame.radius[i] * self.cell
        left = max(1.0 - frame.dead_for[i] / FADE_SECONDS, 0.0)
        color = _mix(GROUND, TEAM_COLORS[frame.side[i]], 0.2 + 0.6 * left)
        for sign in (1, -1):
            ends = (x - reach, y - sign * reach, x + reach, y + sign * reach)
            self.draw.line(ends, fill=color, width=2 * _OVERSAMPLING)

    def _order(self, i: int) -> None:
        """A line to the target, dashed while it does not fire; or an arrow towards the goal."""
        frame = self.frame
        start = self.at(tuple(frame.position[i]))
        color = TEAM_COLORS[frame.side[i]]
        k = int(frame.target[i])
        if k >= 0:
            end = self.at(tuple(frame.position[k]))
            first, last = frame.radius[i] * self.cell, frame.radius[k] * self.cell
            line = _between(start, end, first, last)
            if line is None:
                return
            if frame.firing[i]:
                self.draw.line((*line[0], *line[1]), fill=_mix(color, TEXT, 0.35), width=2 * _OVERSAMPLING)
                self._disc(*line[1], 2.5 * _OVERSAMPLING, TEXT)
            else:
                self._dashes(*line, _mix(GROUND, color, 0.6))
        elif np.isfinite(frame.goal[i]).all():
            end = self.at(tuple(frame.goal[i]))
            length = (frame.radius[i] + 1.2) * self.cell
            self._arrow(start, end, frame.radius[i] * self.cell, length, _mix(GROUND, color, 0.75))

    def _notch(self, x: float, y: float, radius: float, facing: NDArray[np.float64], color: Color) -> None:
        """A beak on the rim that points where the unit faces."""
        fx, fy = float(facing[0]), -float(facing[1])
        tip, base, half = radius + 4.5 * _OVERSAMPLING, 0.8 * radius, 0.5 * radius
        self.draw.polygon(
            [
                (x + tip * fx, y + tip * fy),
                (x + base * fx - half * fy, y + base * fy + half * fx),
                (x + base * fx + half * fy, y + base * fy - half * fx),
            ],
            fill=color,
        )

    def _reload(self, i: int) -> None:
        """A bar below the unit, full when its weapon can fire; none for the unarmed."""
        readiness = float(self.frame.readiness[i])
        if math.isnan(readiness):
            return
        x, y = self.at(tuple(self.frame.position[i]))
        half, height = self.frame.radius[i] * self.cell, 1.25 * _OVERSAMPLING
        y += half + 5.5 * _OVERSAMPLING
        self.draw.rectangle((x - half, y - height, x + half, y + height), fill=RING_TRACK)
        if readiness > 0:
            filled = (x - half, y - height, x - half + 2 * half * readiness, y + height)
            self.draw.rectangle(filled, fill=TEXT if readiness >= 1 else FAINT)

    def _arrow(self, start: Point, end: Point, skip: float, length: float, color: Color) -> None:
        dx, dy = end[0] - start[0], end[1] - start[1]
        distance = math.hypot(dx, dy)
        reach = min(distance, length)
        if reach <= skip:
            return
        ux, uy = dx / distance, dy / distance
        rim, tip = (
            (start[0] + skip * ux, start[1] + skip * uy),
            (start[0] + reach * ux, start[1] + reach * uy),
        )
        self.draw.line((*rim, *tip), fill=color, width=2 * _OVERSAMPLING)
        back, half = 6 * _OVERSAMPLING, 3.5 * _OVERSAMPLING
        bx, by = tip[0] - back * ux, tip[1] - back * uy
        ahead = (tip[0] + 2 * _OVERSAMPLING * ux, tip[1] + 2 * _OVERSAMPLING * uy)
        self.draw.polygon(
            [ahead, (bx - half * uy, by + half * ux), (bx + half * uy, by - half * ux)],
            fill=color,
        )

    def _dashes(self, start: Point, end: Point, color: Color) -> None:
        dash = 5 * _OVERSAMPLING
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = math.hypot(dx, dy)
        for k in range(0, int(length // dash) + 1, 2):
            a, b = k * dash / length, min((k + 1) * dash / length, 1.0)
            self.draw.line(
                (start[0] + a * dx, start[1] + a * dy, start[0] + b * dx, start[1] + b * dy),
                fill=color,
                width=_OVERSAMPLING,
            )

    def _disc(self, x: float, y: float, radius: float, color: Color) -> None:
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def _arc(self, x: float, y: float, radius: float, fraction: float, color: Color, width: int) -> None:
        """A ring from the top clockwise, ``fraction`` of the way round."""
        if fraction > 0:
            box = (x - radius, y - radius, x + radius, y + radius)
            self.draw.arc(box, -90, -90 + 360 * min(fraction, 1.0), fill=color, width=width)

    def _text(self, at: Point, text: str, size: int, color: Color, anchor: str) -> None:
        self.draw.text(at, text, fill=color, font=_font(size * _OVERSAMPLING), anchor=anchor)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _mix(first: Color, second: Color, share: float) -> Color:
    """``first`` with ``share`` of ``second``."""
    r, g, b = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return r, g, b


def _health_color(fraction: float) -> Color:
    low, half, full = HEALTH_COLORS
    return _mix(low, half, 2 * fraction) if fraction < 0.5 else _mix(half, full, 2 * fraction - 1)


def _between(start: Point, end: Point, first: float, last: float) -> tuple[Point, Point] | None:
    """The part of a line between two discs of radii ``first`` and ``last`` at its ends, if there is any."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    distance = math.hypot(dx, dy)
    if distance <= first + last:
        return None
    ux, uy = dx / distance, dy / distance
    return (start[0] + first * ux, start[1] + first * uy), (end[0] - last * ux, end[1] - last * uy)
