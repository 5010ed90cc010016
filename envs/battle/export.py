"""Battles to look at: a self-contained HTML page, an animated GIF, or an MP4, from a list of frames."""

from __future__ import annotations

import html
import importlib
import io
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from importlib import resources
from itertools import chain
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs.battle import colors, render
from envs.battle.frame import Frame, focus, frame_at, thin, tween
from envs.battle.page import page_data
from envs.battle.whole_file import write_whole

FILMS = (".gif", ".mp4")
"""Endings of the files that :func:`write_film` writes."""

_GIF_UNIT = 0.01
"""Seconds: GIF durations are whole multiples of it."""
_LAST_FRAME_SECONDS = 2.0
_GIF_PICTURES = 400
"""Most pictures a GIF has unless asked for more: a viewer holds all of them in memory."""
_PAGE_MOMENTS = 400_000
"""Most units times frames that a page holds; longer battles lose frames."""
_MP4_PICTURES, _MP4_RATES = 1000, (8, 25)
"""Pictures a second of an MP4: so that there are no more than so many in all, but within these bounds."""
_H264 = {"crf": "20", "preset": "veryfast"}  # the quality of the default preset at half its time


class MissingExtra(ValueError):
    """Writing this kind of file needs a package that is not installed; the message names it."""


def write_html(frames: Sequence[Frame], path: str | Path) -> None:
    """Write a page that plays the battle: play and pause, a bar to scrub, speed, sight. It loads nothing.

    Args:
        frames: of one battle, in order, at least one. Of battles so long that the page would grow beyond a
            few megabytes, not all are kept.

    Raises:
        ValueError: there is no frame.
        OSError: the file cannot be written; whole or not at all.
    """
    _check(frames)
    title = f"{frames[0].title}: {frames[0].names[0]} against {frames[0].names[1]}"
    shown = thin(focus(frames), max(_PAGE_MOMENTS // max(len(frames[0].side), 1), 2))
    # In a script element only "<" can end the element or open a comment; JSON may spell it otherwise.
    data = json.dumps(page_data(shown), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = resources.files("envs.battle").joinpath("player.html").read_text(encoding="utf-8")
    before, rest = page.split("{{TITLE}}")
    middle, after = rest.split("{{BATTLE}}")
    write_whole(path, (before + html.escape(title) + middle + data + after).encode())


def write_film(frames: Sequence[Frame], path: str | Path, *, sight: int | None = None) -> None:
    """Write a GIF or an MP4, as the file's ending says.

    Args:
        sight: see :func:`~envs.battle.render.draw_frame`.

    Raises:
        MissingExtra: see :func:`require_film`.
        ValueError: the ending is neither, or there is no frame.
        OSError: the file cannot be written; whole or not at all.
    """
    require_film(path)
    write = write_gif if Path(path).suffix.lower() == ".gif" else write_mp4
    write(frames, path, sight=sight)


def require_film(path: str | Path) -> None:
    """Check, before there is anything to show, that :func:`write_film` can write such a file.

    Raises:
        MissingExtra: it is an MP4 and PyAV is not installed.
        ValueError: the ending is neither .gif nor .mp4.
    """
    ending = Path(path).suffix.lower()
    if ending not in FILMS:
        raise ValueError(f"{path} ends in {ending!r}; a film ends in one of: {', '.join(FILMS)}")
    if ending == ".mp4":
        _pyav()


def write_gif(
    frames: Sequence[Frame],
    path: str | Path,
    *,
    speed: float = 1.0,
    between: int | None = None,
    width: int = 640,
    sight: int | None = None,
) -> None:
    """Write an animated GIF that loops, the end held for two seconds.

    Args:
        frames: of one battle, in order, at least one.
        speed: 1 is game time ("Faster"), 0.5 half as fast.
        between: pictures put between two frames, in which units glide. None: 3, but fewer, and not even all
            frames, where there would be more than 400 pictures.
        width: of the picture, in pixels.
        sight: see :func:`~envs.battle.render.draw_frame`.

    Raises:
        ValueError: there is no frame, or an argument is out of range.
        OSError: the file cannot be written; whole or not at all.
    """
    _check(frames, speed)
    focused = focus(frames)
    if between is None:
        focused = thin(focused, _GIF_PICTURES)
        between = min(3, max(_GIF_PICTURES // len(focused) - 1, 0))
    shown = tween(focused, between)
    # Rounding the times, not the durations, keeps the whole in time.
    ticks = np.round(np.array([frame.seconds for frame in shown]) / speed / _GIF_UNIT)
    durations = [*np.maximum(np.diff(ticks), 2).tolist(), _LAST_FRAME_SECONDS / _GIF_UNIT]
    pictures = [Image.fromarray(render.draw_frame(frame, width=width, sight=sight)) for frame in shown]
    palette = _palette([np.asarray(pictures[k]) for k in (0, len(pictures) // 2, -1)])
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


def write_mp4(
    frames: Sequence[Frame],
    path: str | Path,
    *,
    speed: float = 1.0,
    rate: int | None = None,
    width: int = 960,
    sight: int | None = None,
) -> None:
    """Write an MP4 (H.264, yuv420p: what every player and browser shows), the end held for two seconds.

    Args:
        frames: of one battle, in order, at least one.
        speed: 1 is game time ("Faster"), 0.5 half as fast.
        rate: pictures a second, from 1 to 60. None: 25, for battles over 40 seconds fewer, down to 8.
        width: of the picture, in pixels, rounded down to an even number, as its height is.
        sight: see :func:`~envs.battle.render.draw_frame`.

    Raises:
        MissingExtra: PyAV is not installed.
        ValueError: there is no frame, or an argument is out of range.
        OSError: the file cannot be written; whole or not at all.
    """
    _check(frames, speed)
    av = _pyav()
    seconds = (frames[-1].seconds - frames[0].seconds) / speed
    if rate is None:
        rate = int(np.clip(_MP4_PICTURES / max(seconds, 1.0), *_MP4_RATES))
    if not 1 <= rate <= 60:
        raise ValueError(f"rate is {rate}; it must be from 1 to 60 pictures a second")
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"  # a file, because the index that ends up in front is written last
        with av.open(str(film), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(rate), options=_H264)
            stream.pix_fmt = "yuv420p"
            pictures = _pictures(focus(frames), seconds, rate, speed, width, sight)
            first = next(pictures)
            stream.height, stream.width = first.shape[:2]
            for picture in chain([first], pictures):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        write_whole(path, film.read_bytes())


def _palette(samples: list[NDArray[np.uint8]]) -> Image.Image:
    """One palette for all pictures: no flicker, and the file holds differences only. Marks that are rare in
    the samples have their place in it all the same."""
    common = Image.fromarray(np.concatenate(samples)).quantize(128 - len(colors.MARKS)).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*common, *chain.from_iterable(colors.MARKS)])
    return palette


def _pictures(
    frames: Sequence[Frame], seconds: float, rate: int, speed: float, width: int, sight: int | None
) -> Iterator[NDArray[np.uint8]]:
    """A picture every 1 / ``rate`` seconds, sides even, then the last one for as long as it is held."""
    for k in range(math.ceil(seconds * rate)):
        at = frame_at(frames, frames[0].seconds + k / rate * speed)
        yield _even(render.draw_frame(at, width=width, sight=sight))
    last = _even(render.draw_frame(frames[-1], width=width, sight=sight))
    for _ in range(round(_LAST_FRAME_SECONDS * rate)):
        yield last


def _even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture less a last row or column if it has an odd number of them: yuv420p halves both."""
    height, width = picture.shape[:2]
    return np.ascontiguousarray(picture[: height // 2 * 2, : width // 2 * 2])


def _pyav() -> ModuleType:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingExtra(
            "writing .mp4 needs PyAV, which is not installed: pip install 'perceiver-policy[video]', or "
            "choose a .gif"
        ) from error


def _check(frames: Sequence[Frame], speed: float = 1.0) -> None:
    if not frames:
        raise ValueError("there is no frame to show; give at least one")
    if not 0 < speed <= 100:
        raise ValueError(f"speed is {speed}; it must be above 0 and at most 100")
