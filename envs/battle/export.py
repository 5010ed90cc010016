"""Battles to look at: a self-contained HTML page, or an animated GIF, from a list of frames."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs.battle import render
from envs.battle.frame import Frame, tween
from envs.battle.whole_file import write_whole

_GIF_UNIT = 0.01
"""Seconds: GIF durations are whole multiples of it."""
_LAST_FRAME_SECONDS = 2.0


def write_html(frames: Sequence[Frame], path: str | Path) -> None:
    """Write a page that plays the battle: play and pause, a bar to scrub, speed. It loads nothing.

    Args:
        frames: of one battle, in order, at least one.

    Raises:
        ValueError: there is no frame.
        OSError: the file cannot be written; whole or not at all.
    """
    _check(frames)
    title = f"{frames[0].title}: {frames[0].names[0]} against {frames[0].names[1]}"
    # In a script element only "<" can end the element or open a comment; JSON may spell it otherwise.
    data = json.dumps(_battle(frames), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = resources.files("envs.battle").joinpath("player.html").read_text(encoding="utf-8")
    before, rest = page.split("{{TITLE}}")
    middle, after = rest.split("{{BATTLE}}")
    write_whole(path, (before + html.escape(title) + middle + data + after).encode())


def write_gif(
    frames: Sequence[Frame], path: str | Path, *, speed: float = 1.0, between: int = 3, width: int = 640
) -> None:
    """Write an animated GIF that loops, the end held for two seconds.

    Args:
        frames: of one battle, in order, at least one.
        speed: 1 is game time ("Faster"), 0.5 half as fast.
        between: pictures put between two frames, in which units glide.
        width: of the picture, in pixels.

    Raises:
        ValueError: there is no frame, or an argument is out of range.
        OSError: the file cannot be written; whole or not at all.
    """
    _check(frames)
    if not 0 < speed <= 100:
        raise ValueError(f"speed is {speed}; it must be above 0 and at most 100")
    shown = tween(list(frames), between)
    # Rounding the times, not the durations, keeps the whole in time.
    ticks = np.round(np.array([frame.seconds for frame in shown]) / speed / _GIF_UNIT)
    durations = [*np.maximum(np.diff(ticks), 2).tolist(), _LAST_FRAME_SECONDS / _GIF_UNIT]
    pictures = [Image.fromarray(render.draw_frame(frame, width=width)) for frame in shown]
    # One palette for all, from start, middle and end: no flicker, and the file holds differences only.
    samples = [np.asarray(pictures[k]) for k in (0, len(pictures) // 2, -1)]
    palette = Image.fromarray(np.concatenate(samples)).quantize(128)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=[round(1000 * _GIF_UNIT * ticks) for ticks in durations],
        loop=0,
        disposal=1,
    )
    write_whole(path, buffer.getvalue())


def _check(frames: Sequence[Frame]) -> None:
    if not frames:
        raise ValueError("there is no frame to show; give at least one")


def _battle(frames: Sequence[Frame]) -> dict[str, Any]:
    """What the player draws, as JSON values: constants once, then a row a frame. NaN is null."""
    first = frames[0]
    return {
        "title": first.title,
        "names": first.names,
        "playable": first.playable,
        "limit": first.limit,
        "labels": [first.labels[name] for name in first.unit_names],
        "types": first.unit_names,
        "side": first.side.tolist(),
        "radius": _rounded(first.radius, 4),
        "maxHealth": _rounded(first.max_health),
        "maxShield": _rounded(first.max_shield),
        "fadeSeconds": render.FADE_SECONDS,
        "colors": {
            "teams": [_css(color) for color in render.TEAM_COLORS],
            "health": [_css(color) for color in render.HEALTH_COLORS],
            "background": _css(render.BACKGROUND),
            "ground": _css(render.GROUND),
            "grid": _css(render.GRID),
            "text": _css(render.TEXT),
            "faint": _css(render.FAINT),
            "shield": _css(render.SHIELD),
            "track": _css(render.RING_TRACK),
        },
        "frames": [
            {
                "seconds": round(frame.seconds, 3),
                "result": frame.result,
                "position": _rounded(frame.position),
                "facing": _rounded(frame.facing),
                "health": _rounded(frame.health, 1),
                "shield": _rounded(frame.shield, 1),
                "readiness": _rounded(frame.readiness),
                "target": frame.target.tolist(),
                "firing": frame.firing.astype(int).tolist(),
                "goal": _rounded(frame.goal),
                "holding": frame.holding.astype(int).tolist(),
                "deadFor": _rounded(frame.dead_for),
            }
            for frame in frames
        ],
    }


def _rounded(values: NDArray[np.float64], digits: int = 2) -> list[Any]:
    rounded = np.round(values, digits).astype(object)
    rounded[~np.isfinite(values)] = None
    return rounded.tolist()


def _css(color: render.Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
