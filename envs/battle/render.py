"""Pictures of battles, drawn with Pillow from :class:`Frame` values.

A unit is a disc of its true size in its team's colour with a letter for its type, hollow while the enemy does
not see it. The ring inside the disc's rim is its health, the thin ring outside its shield, the notch its
facing; below are how far its weapon has reloaded, while it does, and its energy. Lines lead to what it
attacks or heals (dashed while it closes in or reloads), arrows to where it walks; missiles are darts; the
dead fade.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from envs.battle.canvas import MARGIN, SCALE, Canvas, Layout, Point, between
from envs.battle.colors import (
    BACKGROUND,
    ENERGY,
    FAINT,
    GROUND,
    HEAL,
    NEUTRAL_COLOR,
    RING_TRACK,
    SHIELD,
    STIM,
    TEAM_COLORS,
    TEXT,
    Color,
    health_color,
    mix,
    side_color,
)
from envs.battle.frame import NEUTRAL, Frame
from envs.battle.ground import background

FADE_SECONDS = 4.0
"""Game time after which a dead unit's marker has faded to its last trace."""
BLAST_SECONDS = 0.6
"""Game time for which the area of an attack glows."""
BEACON_RADIUS = 1.0
"""Map cells from which on a neutral unit is a place to go to rather than a thing to pick up."""
CROWD = 60
"""Living units from which on lines of those that only close in are left out."""

_TINY, _TINY_IN_CROWD = 5.5, 8.0  # pixels of radius below which letters, bars and notches would only smear
_TINT, _FOG = 0.06, 0.62  # of what both teams see in their colours; over what the chosen team does not see
_SIGHT_GRAIN = 3  # pixels of the image for one of the mask of what is in sight


def draw_frame(frame: Frame, *, width: int = 960, sight: int | None = None) -> NDArray[np.uint8]:
    """The frame as an image (H, W, 3) uint8.

    Args:
        width: W in pixels, at least 320; H follows from the playable area.
        sight: the team, 0 or 1, whose sight is shown: the ground it does not see lies in fog, and so do the
            enemies there. None: everything is shown, the ground tinted faintly with who sees it.

    Raises:
        ValueError: the width is below 320, or there is no such team.
    """
    if width < 320:
        raise ValueError(f"width is {width}; it must be at least 320 pixels")
    if sight not in (None, 0, 1):
        raise ValueError(f"sight is {sight!r}; it must be 0 or 1 for a team's, or None")
    picture = _Picture(frame, width, sight)
    picture.units()
    picture.header()
    picture.footer()
    return picture.canvas.pixels()


def pixel_of(frame: Frame, point: Point, *, width: int = 960) -> tuple[int, int]:
    """The pixel (row, column) of :func:`draw_frame`'s image at which a map position lies."""
    x, y = Layout(frame.view, width).at(point)
    return int(y / SCALE), int(x / SCALE)


class _Picture:
    """One frame on its canvas. Lengths are pixels of the canvas unless said otherwise."""

    def __init__(self, frame: Frame, width: int, side: int | None) -> None:
        self.frame, self.side = frame, side
        self.layout = Layout(frame.view, width)
        self.width = width * SCALE
        ground = _shaded(frame, background(frame.view, frame.terrain, width), self.layout, side)
        self.canvas = Canvas(ground.resize((self.width, ground.height * SCALE), Image.Resampling.NEAREST))
        self.places = [self.layout.at(position) for position in frame.position]
        self.radii: list[float] = (frame.radius * self.layout.cell).tolist()
        self.hidden = frame.hidden
        self.crowded = int(frame.alive.sum()) > CROWD
        self.tiny = (_TINY_IN_CROWD if self.crowded else _TINY) * SCALE

    def units(self) -> None:
        """The dead below, then what they do, then the living, flyers last, so that nothing is hidden."""
        frame = self.frame
        shown = frame.present.copy()
        if self.side is not None:
            shown &= (frame.side == self.side) | (frame.side == NEUTRAL) | ~self.hidden | ~frame.alive
        fallen, living = np.flatnonzero(shown & ~frame.alive), np.flatnonzero(shown & frame.alive)
        for i in fallen.tolist():
            self._grave(i)
        for blast in frame.blasts:
            self._blast(blast.side, frame.seconds - blast.seconds, blast.outline)
        acting = living[frame.side[living] != NEUTRAL]
        for i in acting.tolist():
            self._order(i)
        flyers, walkers = (living[frame.flying[living] == flying].tolist() for flying in (True, False))
        for draw, units in ((self._gauges, walkers), (self._unit, walkers), (self._unit, flyers)):
            for i in units:
                draw(i)
        for i in flyers:
            self._gauges(i)
        for i, place in frame.missiles.items():
            self._missile(i, self.layout.at(place))

    def header(self) -> None:
        frame, canvas, margin, line = self.frame, self.canvas, MARGIN * SCALE, 8 * SCALE
        right = self.width - margin
        canvas.draw.rectangle((0, 0, self.width, self.layout.top - 1), fill=BACKGROUND)
        canvas.text((margin, line), frame.title, 17, TEXT, "la")
        canvas.text((right, line), f"{frame.seconds:.1f} s of {frame.limit:.0f} s", 15, FAINT, "ra")
        canvas.text((self.width / 2, line), headline(frame), 17, TEXT, "ma")
        half = self.width / 2
        for side, color in enumerate(TEAM_COLORS):
            alive, size = frame.counts(side)
            if size == 0 and not (frame.side == side).any():
                continue
            left, full = half * side + margin, half - 2 * margin
            canvas.text((left, 31 * SCALE), f"{frame.names[side]}  {alive} of {size}", 13, color, "la")
            top, bottom = 49 * SCALE, 53 * SCALE
            canvas.draw.rectangle((left, top, left + full, bottom), fill=mix(BACKGROUND, color, 0.25))
            if frame.vitality(side) > 0:
                canvas.draw.rectangle((left, top, left + full * frame.vitality(side), bottom), fill=color)

    def footer(self) -> None:
        """The types on one line, what the marks mean on the next: those that can occur in this battle."""
        frame, margin = self.frame, MARGIN * SCALE
        bottom, foot = self.canvas.image.height, self.layout.field[3] + 1
        self.canvas.draw.rectangle((0, foot, self.width, bottom), fill=BACKGROUND)
        self.canvas.text((margin, bottom - 21 * SCALE), "   ".join(type_legend(frame)), 12, TEXT, "ls")
        self.canvas.text((margin, bottom - 7 * SCALE), "   ".join(mark_legend(frame)), 10, FAINT, "ls")

    def _unit(self, i: int) -> None:
        frame, canvas = self.frame, self.canvas
        (x, y), radius = self.places[i], self.radii[i]
        if frame.side[i] == NEUTRAL:
            self._neutral(i)
            return
        color, tiny = TEAM_COLORS[frame.side[i]], radius < self.tiny
        ring = 0.25 * radius if tiny else max(0.2 * radius, 2.0 * SCALE)
        shielded = frame.max_shield[i] > 0
        outer = radius + (1.0 if tiny else 2.5) * SCALE if shielded else radius
        if frame.flying[i]:
            canvas.disc(x + 0.3 * radius, y + 0.45 * radius, outer, mix(BACKGROUND, GROUND, 0.4))
        if not tiny:
            self._notch(x, y, outer, frame.facing[i], color)
        if shielded:
            canvas.disc(x, y, outer, RING_TRACK)
            canvas.arc(
                x, y, outer, frame.shield[i] / frame.max_shield[i], SHIELD, outer - radius - 0.5 * SCALE
            )
        canvas.disc(x, y, radius, RING_TRACK)
        health = frame.health[i] / frame.max_health[i]
        # Of the tiny only the hurt have a ring: green ones all over would hide whose they are.
        rim = color if tiny and health >= 1 else health_color(health)
        canvas.arc(x, y, radius, health, rim, ring)
        canvas.disc(x, y, radius - ring, mix(GROUND, color, 0.3) if self.hidden[i] else color)
        if frame.cloaked[i]:
            canvas.dashed_ring(x, y, outer + 3 * SCALE, mix(color, TEXT, 0.5), 1.5 * SCALE)
        if frame.holding[i] and not tiny:
            side = outer + 3.5 * SCALE
            canvas.draw.rectangle((x - side, y - side, x + side, y + side), outline=color, width=SCALE)
        if frame.stimmed[i]:
            self._chevrons(x, y - outer - 2 * SCALE, 0.6 * radius)
        if not tiny:
            label = frame.labels[frame.unit_names[i]]
            size = 1.5 * (radius - ring) / SCALE / (1 if len(label) == 1 else 1.4)
            canvas.text((x, y), label, max(round(size), 7), color if self.hidden[i] else RING_TRACK, "mm")

    def _neutral(self, i: int) -> None:
        """A beacon is a ring to walk into, a shard a diamond to pick up."""
        (x, y), radius = self.places[i], self.radii[i]
        if self.frame.radius[i] >= BEACON_RADIUS:
            self.canvas.disc(x, y, radius, mix(GROUND, NEUTRAL_COLOR, 0.25))
            self.canvas.ring(x, y, radius, NEUTRAL_COLOR, 2 * SCALE)
            self.canvas.ring(x, y, 0.6 * radius, mix(GROUND, NEUTRAL_COLOR, 0.7), SCALE)
        else:
            self.canvas.polygon(_diamond(x, y, 1.1 * radius), NEUTRAL_COLOR)
            self.canvas.polygon(_diamond(x, y, 0.55 * radius), mix(NEUTRAL_COLOR, TEXT, 0.6))

    def _grave(self, i: int) -> None:
        """A cross that fades to a trace; a ring that fades away where something was picked up."""
        (x, y), frame = self.places[i], self.frame
        left = max(1.0 - frame.dead_for[i] / FADE_SECONDS, 0.0)
        if frame.side[i] == NEUTRAL:
            gone = 4 * frame.dead_for[i] / FADE_SECONDS
            if gone < 1:
                color = mix(NEUTRAL_COLOR, GROUND, gone)
                self.canvas.ring(x, y, (1 + gone) * self.radii[i], color, 2 * SCALE)
            return
        reach = 0.6 * self.radii[i]
        color = mix(GROUND, TEAM_COLORS[frame.side[i]], 0.2 + 0.6 * left)
        for sign in (1, -1):
            self.canvas.line((x - reach, y - sign * reach), (x + reach, y + sign * reach), color, 2 * SCALE)

    def _blast(self, side: int, age: float, outline: NDArray[np.float64]) -> None:
        if 0 <= age < BLAST_SECONDS:
            corners = [self.layout.at(corner) for corner in outline]
            self.canvas.glaze(corners, mix(side_color(side), TEXT, 0.3), 0.3 * (1 - age / BLAST_SECONDS))

    def _order(self, i: int) -> None:
        """A line to the target, dashed while it does not fire; or an arrow towards the goal."""
        frame, canvas = self.frame, self.canvas
        color = TEAM_COLORS[frame.side[i]]
        k = int(frame.target[i])
        if k >= 0:
            line = between(self.places[i], self.places[k], self.radii[i], self.radii[k])
            heals = frame.side[k] == frame.side[i]
            if heals and frame.firing[i]:
                self._beam(i, k)
            elif line is None or (self.crowded and not frame.firing[i]):
                return
            elif frame.firing[i]:
                thick = 1 if self.crowded or frame.missile_target[i] >= 0 else 2
                canvas.line(*line, mix(color, TEXT, 0.35), thick * SCALE)
                if frame.missile_target[i] < 0:
                    canvas.disc(*line[1], (1.5 if self.crowded else 2.5) * SCALE, TEXT)
            else:
                canvas.dashes(*line, mix(GROUND, HEAL if heals else color, 0.5))
        elif np.isfinite(frame.goal[i]).all():
            length = self.radii[i] + (0.6 if self.crowded else 1.0) * self.layout.cell
            faded = mix(GROUND, color, 0.4 if self.crowded else 0.6)
            canvas.arrow(self.places[i], self.layout.at(frame.goal[i]), self.radii[i], length, faded)

    def _beam(self, i: int, k: int) -> None:
        """From a healer to its patient, with a plus beside the patient."""
        self.canvas.line(self.places[i], self.places[k], mix(GROUND, HEAL, 0.7), 2.5 * SCALE)
        x, y = self.places[k]
        x, y, half = x + self.radii[k] + 4 * SCALE, y - self.radii[k] - 2 * SCALE, 4 * SCALE
        self.canvas.line((x - half, y), (x + half, y), HEAL, 2 * SCALE)
        self.canvas.line((x, y - half), (x, y + half), HEAL, 2 * SCALE)

    def _missile(self, i: int, place: Point) -> None:
        """A dart with a tail towards where it came from."""
        start = self.layout.at(self.frame.missile_start[i])
        color = mix(side_color(int(self.frame.side[i])), TEXT, 0.6)
        dx, dy = place[0] - start[0], place[1] - start[1]
        distance = math.hypot(dx, dy)
        if distance > 0:
            tail = min(0.6 * self.layout.cell, distance) / distance
            self.canvas.line((place[0] - tail * dx, place[1] - tail * dy), place, color, 2 * SCALE)
        self.canvas.disc(*place, (2 if self.crowded else 3) * SCALE, color)

    def _notch(self, x: float, y: float, radius: float, facing: NDArray[np.float64], color: Color) -> None:
        """A beak on the rim that points where the unit faces."""
        fx, fy = float(facing[0]), -float(facing[1])
        tip, base, half = radius + 4.5 * SCALE, 0.8 * radius, 0.5 * radius
        self.canvas.polygon(
            [
                (x + tip * fx, y + tip * fy),
                (x + base * fx - half * fy, y + base * fy + half * fx),
                (x + base * fx + half * fy, y + base * fy - half * fx),
            ],
            color,
        )

    def _chevrons(self, x: float, y: float, half: float) -> None:
        """Two arrowheads upwards: faster."""
        for lift in (0.0, 3.5 * SCALE):
            tip = (x, y - lift - 0.7 * half)
            for sign in (1, -1):
                self.canvas.line((x + sign * half, y - lift), tip, STIM, 1.5 * SCALE)

    def _gauges(self, i: int) -> None:
        """Bars below the unit: its weapon while it reloads, its energy if it has any use for it."""
        frame, (x, y), radius = self.frame, self.places[i], self.radii[i]
        if radius < self.tiny:
            return
        y += radius + 5.5 * SCALE
        if frame.readiness[i] < 1:  # False for the unarmed, whose readiness is NaN
            self.canvas.bar(x, y, radius, float(frame.readiness[i]), FAINT, RING_TRACK)
        if frame.max_energy[i] > 0:
            if not math.isnan(frame.readiness[i]):
                y += 4 * SCALE
            self.canvas.bar(x, y, radius, float(frame.energy[i] / frame.max_energy[i]), ENERGY, RING_TRACK)


def _shaded(frame: Frame, ground: Image.Image, layout: Layout, team: int | None) -> Image.Image:
    """A copy of the ground, tinted with who sees it, or with fog over what the chosen team does not see.

    At the size of the final image: there are four times fewer pixels than on the canvas.
    """
    shaded = ground.copy()
    left, top, right, bottom = (round(edge / SCALE) for edge in layout.field)
    size = (right - left, bottom - top)
    for side in (0, 1) if team is None else (team,):
        seen = _in_sight(frame, layout, side, size)
        shares = [round(_FOG * (255 - v) if team is not None else _TINT * v) for v in range(256)]
        mask = seen.point(shares).resize(size, Image.Resampling.BILINEAR)
        shaded.paste(TEAM_COLORS[side] if team is None else RING_TRACK, (left, top), mask)
    return shaded


def _in_sight(frame: Frame, layout: Layout, side: int, size: tuple[int, int]) -> Image.Image:
    """255 where the field, ``size`` pixels of the final image, is in sight of a team's units, 0 elsewhere."""
    mask = Image.new("L", (math.ceil(size[0] / _SIGHT_GRAIN), math.ceil(size[1] / _SIGHT_GRAIN)))
    draw, grain = ImageDraw.Draw(mask), _SIGHT_GRAIN * SCALE
    for i in np.flatnonzero(frame.alive & (frame.side == side) & (frame.sight > 0)).tolist():
        x, y = layout.at(frame.position[i])
        x, y, r = (x - layout.left) / grain, (y - layout.top) / grain, frame.sight[i] * layout.cell / grain
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    return mask


def headline(frame: Frame) -> str:
    """What stands in the middle of the header: the outcome, of a mission the score."""
    if frame.score is None:
        return frame.result
    score = f"score {frame.score:g}"
    return f"{score}, {frame.result}" if frame.result else score


def type_legend(frame: Frame) -> list[str]:
    """Which letter or shape stands for which type."""
    words = [f"{label} {name}" for name, label in frame.labels.items()]
    neutral = frame.side == NEUTRAL
    for name in dict.fromkeys(name for name, free in zip(frame.unit_names, neutral, strict=True) if free):
        large = frame.radius[frame.unit_names.index(name)] >= BEACON_RADIUS
        words.append(f"{'green circle' if large else 'green diamond'} {name}")
    return words


def mark_legend(frame: Frame) -> list[str]:
    """What the marks mean that can occur in this battle, and those of abilities in use."""
    words = ["ring: health"]
    words += ["outer ring: shield"] if frame.max_shield.any() else []
    words += ["line: attacks", "dashes: aims", "arrow: moves", "square: holds", "hollow: unseen by the enemy"]
    words += ["grey bar: reloads"]
    words += ["violet bar: energy", "green line: heals"] if frame.max_energy.any() else []
    words += ["chevrons: stimpack"] if frame.stimmed.any() else []
    words += ["dashed ring: cloaked"] if frame.cloaked.any() else []
    return words


def _diamond(x: float, y: float, half: float) -> list[Point]:
    return [(x, y - half), (x + 0.75 * half, y), (x, y + half), (x - 0.75 * half, y)]
