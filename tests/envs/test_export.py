"""Pages and films hold every frame, need nothing from anywhere, and are written whole or not at all."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from envs.battle.blasts import Blast
from envs.battle.colors import HEAL
from envs.battle.export import MissingExtra, require_film, write_film, write_gif, write_html, write_mp4
from envs.battle.frame import Frame
from envs.battle.replay import play_replay, record_battle


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> list[Frame]:
    """A battle with missiles, shields and kills."""
    path = tmp_path_factory.mktemp("replay") / "battle.jsonl"
    record_battle(path, "2s3z", ("builtin", "builtin"), seed=3)
    return play_replay(path)


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text()
    return json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.DOTALL).group(1))


def table_of(data: dict[str, Any]) -> dict[str, np.ndarray]:
    """The page's table as (unit, frame) by column: the player's own unpacking, said in numpy."""
    words = np.frombuffer(zlib.decompress(base64.b64decode(data["table"])), "<u2")
    words = words.reshape(len(data["columns"]), len(data["side"]), len(data["frames"]))
    raw = np.cumsum(words, axis=-1, dtype=np.uint16)
    return {
        name: np.where(column == 65535, np.nan, column / factor - added)
        for (name, factor, added), column in zip(data["columns"], raw, strict=True)
    }


def test_the_page_needs_nothing_from_anywhere_and_escapes_everything(
    played: list[Frame], tmp_path: Path
) -> None:
    wicked = "</script><script>alert(1)</script>"
    write_html(
        [replace(frame, title=wicked, names=("<b>", "&")) for frame in played], tmp_path / "battle.html"
    )
    page = (tmp_path / "battle.html").read_text()
    assert not re.search(r"(https?:)?//[\w.-]+\.\w|\bsrc=|\bhref=|@import|url\(|fetch\(|XMLHttpRequest", page)
    assert page.count("<script") == page.count("</script>") == 2
    assert wicked not in page
    assert "&lt;/script&gt;" in page
    data = data_of(tmp_path / "battle.html")
    assert data["title"] == wicked
    assert data["names"] == ["<b>", "&"]


def test_the_page_holds_what_the_frames_say(played: list[Frame], tmp_path: Path) -> None:
    write_html(played, tmp_path / "battle.html")
    data = data_of(tmp_path / "battle.html")
    table = table_of(data)
    assert len(data["frames"]) == len(played)
    for k, frame in enumerate(played):
        np.testing.assert_allclose(table["x"][:, k], frame.position[:, 0], atol=0.006)
        np.testing.assert_allclose(table["y"][:, k], frame.position[:, 1], atol=0.006)
        assert ((table["health"][:, k] > 0) == frame.alive).all()
        np.testing.assert_allclose(table["health"][:, k], frame.health, atol=0.25)
        np.testing.assert_allclose(table["shield"][:, k], frame.shield, atol=0.13)
        np.testing.assert_array_equal(np.nan_to_num(table["target"][:, k], nan=-1), frame.target)
        np.testing.assert_allclose(np.cos(table["facing"][:, k]), frame.facing[:, 0], atol=0.002)
        flags = table["flags"][:, k].astype(int)
        for bit, values in enumerate(
            (frame.present, frame.firing, frame.holding, frame.stimmed, frame.hidden)
        ):
            np.testing.assert_array_equal(flags >> bit & 1, values)
        fired = table["missileFired"][:, k] + frame.seconds
        np.testing.assert_allclose(fired, frame.missile_fired, atol=0.006)
    assert np.isfinite(table["missileLands"]).any()


def test_a_page_of_a_large_battle_is_small(frame: Frame, tmp_path: Path) -> None:
    """400 units that all wander about for 400 steps."""
    generator = np.random.default_rng(0)
    n = 400
    many = {
        name: np.resize(value, (n, *value.shape[1:]))
        for name, value in vars(frame).items()
        if isinstance(value, np.ndarray)
    }
    large = replace(frame, **many, unit_names=("marine",) * n)
    positions = 8 + np.cumsum(generator.normal(0, 0.3, (400, n, 2)), axis=0)
    health = np.clip(45 - np.cumsum(generator.random((400, n)) < 0.05, axis=0), 1, 45)
    frames = [
        replace(
            large, position=p, health=h.astype(float), facing=p / np.linalg.norm(p, axis=-1, keepdims=True)
        )
        for p, h in zip(positions, health, strict=True)
    ]
    write_html(frames, tmp_path / "large.html")
    assert (tmp_path / "large.html").stat().st_size < 2.5e6
    write_html([replace(f, seconds=float(k)) for k, f in enumerate(frames * 3)], tmp_path / "long.html")
    data = data_of(tmp_path / "long.html")
    assert len(data["frames"]) == 1000
    assert data["frames"][-1]["seconds"] == 1199


# A browser of a few lines: elements that remember, a pen that refuses numbers that are none, a clock.
BROWSER = """
const page = require("fs").readFileSync(process.argv[1], "utf8");
const data = page.match(/json">([^]*?)<\\/script>/)[1], code = page.match(/<script>([^]*?)<\\/script>/)[1];
let strokes = 0, queue = [], elements = {}, sight = process.argv[2];
const refuse = (name, numbers) => {
  if (numbers.some(n => typeof n === "number" && !Number.isFinite(n))) throw new Error(name + numbers);
};
const pen = new Proxy({}, {
  set: (_, name, value) => { refuse(name, [value]); return true; },
  get: (_, name) => (...numbers) => { refuse(name, numbers); strokes += 1; },
});
class Path2D {
  arc(...numbers) { refuse("arc", numbers); }
  moveTo(...numbers) { refuse("moveTo", numbers); }
  rect(...numbers) { refuse("rect", numbers); }
}
const element = id => elements[id] ??= {
  on: {}, style: {}, clientWidth: 800, value: id === "sight" ? sight : "1",
  textContent: id === "battle" ? data : "",
  getContext: () => pen, addEventListener(name, listener) { this.on[name] = listener; },
};
const document = { getElementById: element, addEventListener() {} };
const window = { innerHeight: 600, addEventListener() {} };
const start = new Function("document", "window", "requestAnimationFrame", "Path2D", code);
start(document, window, f => queue.push(f), Path2D);
setTimeout(function play() {
  if (!queue.length) { setTimeout(play, 20); return; }
  for (let stamp = 0; queue.length; stamp += 50) queue.shift()(stamp);
  element("field").on.mousemove({ offsetX: 400, offsetY: 300 });
  console.log(JSON.stringify({ strokes, time: element("scrub").value, button: element("play").textContent }));
}, 20);
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
@pytest.mark.parametrize(
    ("scenario", "sight"),
    [("2s3z", "tint"), ("choke_8v8", "0"), ("MMM", "circles"), ("defeat_roaches", "none")],
)
def test_the_page_plays_to_the_end(scenario: str, sight: str, tmp_path: Path) -> None:
    record_battle(tmp_path / "battle.jsonl", scenario, ("builtin", "builtin"), seed=3)
    frames = play_replay(tmp_path / "battle.jsonl")[:60]
    write_html(frames, tmp_path / "battle.html")
    command = ["node", "-e", BROWSER, str(tmp_path / "battle.html"), sight]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert said["strokes"] > 100 * len(frames)
    assert said["time"] == pytest.approx(frames[-1].seconds, abs=1e-3)
    assert said["button"] == "Play"


def test_the_gif_has_every_frame_and_keeps_time(played: list[Frame], tmp_path: Path) -> None:
    write_gif(played[:6], tmp_path / "battle.gif", between=1, width=320)
    with Image.open(tmp_path / "battle.gif") as gif:
        assert gif.n_frames == 11
        durations = []
        for k in range(gif.n_frames):
            gif.seek(k)
            durations.append(gif.info["duration"])
    assert sum(durations[:-1]) == pytest.approx(5 * 8 / 22.4 * 1000, abs=10)
    assert durations[-1] == 2000


def test_a_gif_keeps_the_colours_of_rare_marks(frame: Frame, tmp_path: Path) -> None:
    """A heal that none of the pictures shows from which the palette is taken."""
    heals = replace(frame, target=np.array([-1, 2, -1]), firing=np.arange(3) == 1)
    frames = [replace(heals if k == 1 else frame, seconds=float(k)) for k in range(5)]
    write_gif(frames, tmp_path / "battle.gif", between=0)
    with Image.open(tmp_path / "battle.gif") as gif:
        gif.seek(1)
        pixels = np.asarray(gif.convert("RGB")).reshape(-1, 3).astype(int)
    assert (np.abs(pixels - HEAL).max(-1) <= 4).any()


def test_a_long_gif_has_a_bounded_number_of_pictures(
    frame: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envs.battle.export._GIF_PICTURES", 12)
    # Something differs in each: equal pictures are merged into one.
    frames = [replace(frame, seconds=float(k), health=frame.health - k) for k in range(20)]
    for count, expected in ((3, 9), (6, 11), (20, 12)):
        write_gif(frames[:count], tmp_path / "battle.gif", width=320)
        with Image.open(tmp_path / "battle.gif") as gif:
            assert gif.n_frames == expected


def decoded(path: Path) -> tuple[list[np.ndarray], Any]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [picture.to_ndarray(format="rgb24") for picture in container.decode(stream)], stream


def test_the_mp4_decodes_again(played: list[Frame], tmp_path: Path) -> None:
    write_mp4(played[:6], tmp_path / "battle.mp4", rate=10, width=333)
    pictures, stream = decoded(tmp_path / "battle.mp4")
    seconds = 5 * 8 / 22.4
    assert len(pictures) == int(np.ceil(seconds * 10)) + 20  # and two seconds of the end
    assert stream.codec_context.name == "h264"
    assert stream.codec_context.pix_fmt == "yuv420p"
    assert stream.average_rate == 10
    height, width = pictures[0].shape[:2]
    assert width == 332  # even
    assert height % 2 == 0
    # The film shows the battle: its first and last pictures are those of the first and last frame.
    write_gif(played[:6], tmp_path / "battle.gif", between=0, width=333)
    with Image.open(tmp_path / "battle.gif") as gif:
        for k, picture in ((0, pictures[0]), (5, pictures[-1])):
            gif.seek(k)
            still = np.asarray(gif.convert("RGB"))[:height, :width].astype(int)
            assert np.abs(still - picture).mean() < 4
    assert np.abs(pictures[0].astype(int) - pictures[-1]).mean() > 1


def test_an_mp4_may_be_slow_and_long_ones_have_fewer_pictures(
    frame: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [replace(frame, seconds=float(k)) for k in range(3)]
    write_mp4(frames, tmp_path / "slow.mp4", speed=0.5, width=320)
    pictures, stream = decoded(tmp_path / "slow.mp4")
    assert stream.average_rate == 25
    assert len(pictures) == 4 * 25 + 2 * 25
    monkeypatch.setattr("envs.battle.export._MP4_PICTURES", 40)
    write_mp4([frame, replace(frame, seconds=5.5)], tmp_path / "long.mp4", width=320)
    pictures, stream = decoded(tmp_path / "long.mp4")
    assert stream.average_rate == 10
    assert len(pictures) == 4 * 10 + 2 * 10
    for wrong in ({"rate": 0}, {"rate": 61}, {"speed": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            write_mp4(frames, tmp_path / "wrong.mp4", **wrong)
    assert not (tmp_path / "wrong.mp4").exists()


def test_films_are_chosen_by_the_files_ending(played: list[Frame], tmp_path: Path) -> None:
    for name, magic in (("a.gif", b"GIF89a"), ("b.mp4", b"ftyp"), ("c.MP4", b"ftyp")):
        write_film(played[:2], tmp_path / name)
        assert magic in (tmp_path / name).read_bytes()[:12]
    with pytest.raises(ValueError, match=r"'.avi'; a film ends in one of: .gif, .mp4"):
        write_film(played[:2], tmp_path / "d.avi")


def test_the_missing_extra_is_named(
    played: list[Frame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"pip install 'perceiver-policy\[video\]'"):
        write_mp4(played[:2], tmp_path / "a.mp4")
    with pytest.raises(MissingExtra):
        require_film("a.mp4")
    require_film("a.gif")
    assert list(tmp_path.iterdir()) == []


def test_blasts_are_in_the_page(frame: Frame, tmp_path: Path) -> None:
    square = np.array([[7.0, 4.0], [9.0, 4.0], [9.0, 6.0], [7.0, 6.0]])
    write_html(
        [frame, replace(frame, seconds=2.0, blasts=(Blast(1, 1.75, square),))], tmp_path / "battle.html"
    )
    frames = data_of(tmp_path / "battle.html")["frames"]
    assert [moment["blasts"] for moment in frames] == [[], [[1, 1.75, square.tolist()]]]


def test_exports_refuse_nothing_to_show(tmp_path: Path) -> None:
    for write in (write_html, write_gif, write_mp4):
        with pytest.raises(ValueError, match="no frame"):
            write([], tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [write_html, write_gif, write_mp4])
def test_a_failed_write_leaves_the_old_file(
    write: Any, tmp_path: Path, played: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    target.write_text("old")

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(played[:1], target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
