"""What the HTML player draws, as JSON values; ``player.html`` reads them."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.battle import colors, render
from envs.battle.frame import LEAP, NEUTRAL, Frame
from envs.battle.ground import edges

# Columns of the page's table: name, factor, what is added before it. A value v is the whole number
# round((v + added) * factor) below 65535, which stands for none.
_COLUMNS = (
    ("x", 100.0, 64.0),
    ("y", 100.0, 64.0),
    ("facing", 1000.0, 4.0),
    ("health", 4.0, 0.0),
    ("shield", 4.0, 0.0),
    ("energy", 4.0, 0.0),
    ("readiness", 100.0, 0.0),
    ("target", 1.0, 0.0),
    ("goalX", 100.0, 64.0),
    ("goalY", 100.0, 64.0),
    ("flags", 1.0, 0.0),
    ("deadFor", 100.0, 0.0),
    ("missileTarget", 1.0, 0.0),
    ("missileX", 100.0, 64.0),
    ("missileY", 100.0, 64.0),
    ("missileFired", 100.0, 64.0),  # relative to the frame's time
    ("missileLands", 100.0, 64.0),
)
_NONE = 65535
_FLAGS = ("present", "firing", "holding", "stimmed", "hidden")


def page_data(frames: Sequence[Frame]) -> dict[str, Any]:
    """Constants once, a table of all that changes, and little a frame.

    Args:
        frames: of one battle, in order, at least one.
    """
    first = frames[0]
    return {
        "title": first.title,
        "names": first.names,
        "view": first.view,
        "terrain": _ground(first),
        "limit": first.limit,
        "labels": [first.labels.get(name, "") for name in first.unit_names],
        "types": first.unit_names,
        "legend": render.type_legend(first),
        "marks": render.mark_legend(first),
        "side": first.side.tolist(),
        "radius": _rounded(first.radius, 4),
        "sight": _rounded(first.sight),
        "maxHealth": _rounded(first.max_health),
        "maxShield": _rounded(first.max_shield),
        "maxEnergy": _rounded(first.max_energy),
        "flying": first.flying.astype(int).tolist(),
        "cloaked": first.cloaked.astype(int).tolist(),
        "neutral": NEUTRAL,
        "fadeSeconds": render.FADE_SECONDS,
        "blastSeconds": render.BLAST_SECONDS,
        "beaconRadius": render.BEACON_RADIUS,
        "crowd": render.CROWD,
        "leap": LEAP,
        "colors": {
            "teams": [_css(color) for color in (*colors.TEAM_COLORS, colors.NEUTRAL_COLOR)],
            "health": [_css(color) for color in colors.HEALTH_COLORS],
            "heights": [_css(colors.height_color(height)) for height in range(10)],
            "background": _css(colors.BACKGROUND),
            "ground": _css(colors.GROUND),
            "wall": _css(colors.WALL),
            "hatch": _css(colors.HATCH),
            "cliff": _css(colors.CLIFF),
            "smoke": _css(colors.SMOKE),
            "grid": _css(colors.GRID),
            "text": _css(colors.TEXT),
            "faint": _css(colors.FAINT),
            "shield": _css(colors.SHIELD),
            "energy": _css(colors.ENERGY),
            "heal": _css(colors.HEAL),
            "stim": _css(colors.STIM),
            "track": _css(colors.RING_TRACK),
        },
        "columns": _COLUMNS,
        "flags": _FLAGS,
        "table": _table(frames),
        "frames": [
            {
                "seconds": round(frame.seconds, 3),
                "headline": render.headline(frame),
                "blasts": [
                    [blast.side, round(blast.seconds, 3), _rounded(blast.outline)] for blast in frame.blasts
                ],
            }
            for frame in frames
        ],
    }


def _table(frames: Sequence[Frame]) -> str:
    """All that changes of the units: base64 of zlib of little-endian uint16 (column, unit, frame), each the
    difference to the frame before, modulo 65536."""
    table = np.full((len(_COLUMNS), len(frames[0].side), len(frames)), _NONE, np.uint16)
    for k, frame in enumerate(frames):
        table[:, :, k] = _row(frame)
    # Unsigned differences wrap, and so do the sums that undo them.
    differences = np.diff(table, axis=-1, prepend=np.uint16(0)).astype("<u2")
    return base64.b64encode(zlib.compress(differences.tobytes(), 9)).decode()


def _row(frame: Frame) -> NDArray[np.uint16]:
    """One frame's values (column, unit)."""
    flags = (frame.present, frame.firing, frame.holding, frame.stimmed, frame.hidden)
    flying = frame.missile_target >= 0
    values = (
        *frame.position.T,
        np.arctan2(frame.facing[:, 1], frame.facing[:, 0]),
        np.where(frame.alive, np.maximum(frame.health, 0.25), 0.0),
        frame.shield,
        frame.energy,
        frame.readiness,
        np.where(frame.target >= 0, frame.target, np.nan),
        *frame.goal.T,
        sum(flag.astype(int) << bit for bit, flag in enumerate(flags)),
        frame.dead_for,
        np.where(flying, frame.missile_target, np.nan),
        *np.where(flying, frame.missile_start.T, np.nan),
        np.where(flying, frame.missile_fired - frame.seconds, np.nan),
        np.where(flying, frame.missile_lands - frame.seconds, np.nan),
    )
    factors, added = np.array([column[1:] for column in _COLUMNS]).T[:, :, None]
    whole = np.round((np.stack(values) + added) * factors)
    return np.where(np.isnan(whole), _NONE, np.clip(whole, 0, _NONE - 1)).astype(np.uint16)


def _ground(frame: Frame) -> dict[str, Any] | None:
    """The cells from south to north, and the edges that the player draws along cliffs and walls."""
    if frame.terrain is None:
        return None
    return {
        "heights": frame.terrain.heights.tolist(),
        "smoke": frame.terrain.smoke.astype(int).tolist(),
        "edges": [[*cell, *way, drop] for cell, way, drop in edges(frame.terrain)],
    }


def _rounded(values: NDArray[np.float64], digits: int = 2) -> list[Any]:
    rounded = np.round(values, digits).astype(object)
    rounded[~np.isfinite(values)] = None
    return rounded.tolist()


def _css(color: colors.Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
