"""The colours that pictures, films and the HTML player share."""

from __future__ import annotations

from typing import TypeAlias

Color: TypeAlias = tuple[int, int, int]

TEAM_COLORS: tuple[Color, Color] = ((74, 144, 255), (255, 138, 60))  # told apart by the colour-blind too
NEUTRAL_COLOR: Color = (94, 222, 190)
BACKGROUND: Color = (14, 17, 23)
GROUND: Color = (28, 33, 42)
HIGHEST: Color = (150, 160, 176)
"""What ground of height 10 would look like."""
WALL: Color = (9, 11, 15)
HATCH: Color = (24, 29, 37)
CLIFF: Color = (126, 137, 154)
SMOKE: Color = (84, 74, 108)
GRID: Color = (36, 42, 53)
TEXT: Color = (232, 236, 241)
FAINT: Color = (140, 149, 163)
SHIELD: Color = (196, 236, 255)
ENERGY: Color = (200, 120, 255)
HEAL: Color = (110, 255, 170)
STIM: Color = (255, 99, 146)
RING_TRACK: Color = (10, 12, 16)
HEALTH_COLORS: tuple[Color, Color, Color] = ((239, 68, 68), (250, 204, 21), (74, 222, 128))  # low, half, full
MARKS: tuple[Color, ...] = (
    *(*TEAM_COLORS, NEUTRAL_COLOR, *HEALTH_COLORS),
    *(TEXT, SHIELD, ENERGY, HEAL, STIM),
)
"""What must keep its colour where a format has few."""


def mix(first: Color, second: Color, share: float) -> Color:
    """``first`` with ``share`` of ``second``."""
    r, g, b = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return r, g, b


def side_color(side: int) -> Color:
    """The colour of a team, or of what nobody owns."""
    return (*TEAM_COLORS, NEUTRAL_COLOR)[side]


def height_color(height: int) -> Color:
    """The colour of ground of a height from 0 to 9."""
    return mix(GROUND, HIGHEST, height / 10)


def health_color(fraction: float) -> Color:
    """From red over yellow to green."""
    low, half, full = HEALTH_COLORS
    return mix(low, half, 2 * fraction) if fraction < 0.5 else mix(half, full, 2 * fraction - 1)
