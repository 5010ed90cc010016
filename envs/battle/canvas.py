"""What pictures are drawn with: a map's field on a canvas, and shapes in one call each.

The canvas is twice the size of the final image and is averaged down, for smooth edges.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from envs.battle.colors import Color

Point: TypeAlias = tuple[float, float]
Rectangle: TypeAlias = tuple[float, float, float, float]

SCALE = 2
"""Pixels of the canvas for one of the image."""
HEADER, FOOTER, MARGIN = 58, 34, 10
"""Pixels of the image above, below and beside the field."""
_MAX_FIELD_HEIGHT = 700


class Layout:
    """Where the map in view lies on an image ``width`` pixels wide. Lengths are pixels of the canvas."""

    def __init__(self, view: Rectangle, width: int) -> None:
        self.view = x0, y0, x1, y1 = view
        # Pixels of the final image a map cell, for a field that fits in both directions.
        cell = min((width - 2 * MARGIN) / (x1 - x0), _MAX_FIELD_HEIGHT / (y1 - y0))
        self.size = (width, round(cell * (y1 - y0)) + HEADER + FOOTER)
        self.cell = cell * SCALE
        self.left = (width - cell * (x1 - x0)) / 2 * SCALE
        self.top = HEADER * SCALE

    def at(self, point: Point | NDArray[np.float64]) -> Point:
        """Where a map position lies on the canvas."""
        x0, _, _, y1 = self.view
        return self.left + (float(point[0]) - x0) * self.cell, self.top + (y1 - float(point[1])) * self.cell

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Rectangle:
        """A rectangle of the map as left, top, right, bottom on the canvas."""
        return *self.at((x0, y1)), *self.at((x1, y0))

    @property
    def field(self) -> tuple[int, int, int, int]:
        """The view as left, top, right, bottom in whole pixels."""
        left, top, right, bottom = (round(edge) for edge in self.box(*self.view))
        return left, top, right, bottom


class Canvas:
    """An image under the brush. Lengths are pixels of the canvas."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.draw = ImageDraw.Draw(image)

    def pixels(self) -> NDArray[np.uint8]:
        """The final image (H, W, 3)."""
        return np.asarray(self.image.reduce(SCALE))

    def disc(self, x: float, y: float, radius: float, color: Color) -> None:
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def ring(self, x: float, y: float, radius: float, color: Color, width: float) -> None:
        box = (x - radius, y - radius, x + radius, y + radius)
        self.draw.ellipse(box, outline=color, width=max(round(width), 1))

    def arc(self, x: float, y: float, radius: float, fraction: float, color: Color, width: float) -> None:
        """A ring from the top clockwise, ``fraction`` of the way round."""
        if fraction > 0:
            box = (x - radius, y - radius, x + radius, y + radius)
            turn = 360 * min(fraction, 1.0)
            self.draw.arc(box, -90, -90 + turn, fill=color, width=max(round(width), 1))

    def dashed_ring(self, x: float, y: float, radius: float, color: Color, width: float) -> None:
        box = (x - radius, y - radius, x + radius, y + radius)
        for k in range(8):
            self.draw.arc(box, 45 * k, 45 * k + 24, fill=color, width=max(round(width), 1))

    def line(self, start: Point, end: Point, color: Color, width: float) -> None:
        self.draw.line((*start, *end), fill=color, width=max(round(width), 1))

    def dashes(self, start: Point, end: Point, color: Color) -> None:
        dash = 5 * SCALE
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = math.hypot(dx, dy)
        for k in range(0, int(length // dash) + 1, 2):
            a, b = k * dash / length, min((k + 1) * dash / length, 1.0)
            self.line(
                (start[0] + a * dx, start[1] + a * dy), (start[0] + b * dx, start[1] + b * dy), color, SCALE
            )

    def arrow(self, start: Point, end: Point, skip: float, length: float, color: Color) -> None:
        """From ``skip`` away from the start towards the end, up to ``length`` from the start."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        distance = math.hypot(dx, dy)
        reach = min(distance, length)
        if reach <= skip:
            return
        ux, uy = dx / distance, dy / distance
        tip = (start[0] + reach * ux, start[1] + reach * uy)
        self.line((start[0] + skip * ux, start[1] + skip * uy), tip, color, 2 * SCALE)
        back, half = 6 * SCALE, 3.5 * SCALE
        bx, by = tip[0] - back * ux, tip[1] - back * uy
        ahead = (tip[0] + 2 * SCALE * ux, tip[1] + 2 * SCALE * uy)
        self.polygon([ahead, (bx - half * uy, by + half * ux), (bx + half * uy, by - half * ux)], color)

    def polygon(self, corners: list[Point], color: Color) -> None:
        self.draw.polygon(corners, fill=color)

    def glaze(self, corners: list[Point], color: Color, opacity: float) -> None:
        """A polygon through which one sees."""
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        left, top = math.floor(min(xs)), math.floor(min(ys))
        size = (math.ceil(max(xs)) - left + 1, math.ceil(max(ys)) - top + 1)
        mask = Image.new("L", size)
        shifted = [(x - left, y - top) for x, y in corners]
        ImageDraw.Draw(mask).polygon(shifted, fill=round(255 * opacity))
        self.image.paste(color, (left, top), mask)

    def bar(self, x: float, y: float, half: float, fraction: float, color: Color, track: Color) -> None:
        """A level gauge around (x, y), ``half`` of its length to each side."""
        height = 1.25 * SCALE
        self.draw.rectangle((x - half, y - height, x + half, y + height), fill=track)
        if fraction > 0:
            right = x - half + 2 * half * min(fraction, 1.0)
            self.draw.rectangle((x - half, y - height, right, y + height), fill=color)

    def text(self, at: Point, words: str, size: int, color: Color, anchor: str) -> float:
        """Write, ``size`` in pixels of the image; the width taken."""
        font = _font(size * SCALE)
        self.draw.text(at, words, fill=color, font=font, anchor=anchor)
        return float(self.draw.textlength(words, font=font))


def between(start: Point, end: Point, first: float, last: float) -> tuple[Point, Point] | None:
    """The part of a line between two discs of radii ``first`` and ``last`` at its ends, if there is any."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    distance = math.hypot(dx, dy)
    if distance <= first + last:
        return None
    ux, uy = dx / distance, dy / distance
    return (start[0] + first * ux, start[1] + first * uy), (end[0] - last * ux, end[1] - last * uy)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
