"""Pickles that are up to something."""

from __future__ import annotations

import codecs
import collections
import os
import pickle
import pickletools
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perceiver_policy.checkpoints import CheckpointError, import_checkpoint
from perceiver_policy.checkpoints.restricted_pickle import load_arrays

ONES = np.ones((2, 3), np.float32)


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> Any:
        return self.function, self.args


def load(tmp_path: Path, content: Any, protocol: int = 4) -> dict[str, Any]:
    path = tmp_path / "file.pickle"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return load_arrays(path)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        ONES,
        np.arange(24, dtype=np.int64).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
        np.arange(6, dtype=">f8").reshape(3, 2),
        np.array(7, np.int32),
        np.float32(2.5),
        np.zeros((0, 4), np.float32),
        np.array([True, False]),
        np.arange(4, dtype=np.uint8)[::2],
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays(array: Any, protocol: int, tmp_path: Path) -> None:
    loaded = load(tmp_path, {"scope": {"w": array}, "step": 3, "name": "x", "more": [1.5, None]}, protocol)
    assert loaded["scope"]["w"].shape == array.shape
    assert np.array_equal(loaded["scope"]["w"].numpy(), np.asarray(array))
    assert (loaded["step"], loaded["name"], loaded["more"]) == (3, "x", [1.5, None])


def test_an_array_met_twice_is_made_once(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"a": ONES, "b": ONES})
    assert loaded["a"] is loaded["b"]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("where", ["file", "state", "scope", "key"])
def test_code_is_not_run(where: str, protocol: int, tmp_path: Path) -> None:
    evil = Calls(os.system, f"touch {tmp_path / 'trace'}")
    tree: Any = {
        "file": evil,
        "state": {"params": {"flow_decoder/x": {"w": ONES}}, "state": evil},
        "scope": {"scope": {"w": evil}},
        "key": {"scope": {"w": ONES}, "other": [(evil, 1)]},
    }[where]
    path = tmp_path / "evil.pystate"
    path.write_bytes(pickle.dumps(tree, protocol))
    with pytest.raises(CheckpointError, match=r"evil\.pystate calls for posix\.system; refused"):
        import_checkpoint(path)
    assert not (tmp_path / "trace").exists()
    pickle.loads(path.read_bytes())  # made a few lines above, and all it runs is touch
    assert (tmp_path / "trace").exists(), "any other reader would have run it"


@pytest.mark.parametrize(
    ("function", "args", "refused"),
    [
        (eval, ("1",), "builtins.eval"),
        (__import__, ("antigravity",), "builtins.__import__"),
        (getattr, ("", "join"), "builtins.getattr"),
        (np.load, ("/dev/null",), "numpy.load"),
        (np.zeros, (10**12,), "numpy.zeros"),
        (torch.load, ("/dev/null",), "torch.serialization.load"),
        (bytearray, (10**12,), "builtins.bytearray"),
    ],
)
def test_other_functions_are_refused(
    function: Callable[..., Any], args: tuple[Any, ...], refused: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=f"calls for {refused.replace('.', '[.]')}; refused"):
        load(tmp_path, {"scope": Calls(function, *args)})


class Plain:
    """A class of someone's."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": np.array([object()], dtype=object)}, "instruction NEWOBJ"),
        ({"a": np.array(["x", None], dtype=object)}, "array of type"),
        ({"a": np.zeros(2, dtype=[("x", "f4")])}, "array of records"),
        ({"a": np.array(["text"])}, "array of type"),
        ({"a": np.zeros(2, np.complex64)}, "array of type"),
        ({"a": np.array(["2020-01-01"], dtype="datetime64[D]")}, "array"),
        ({"a": np.zeros((1,) * 9, np.float32)}, "of at most 8 sizes"),
        ({"a": Plain()}, "instruction NEWOBJ"),
        ({"a": {1, 2}}, "instruction EMPTY_SET"),
        ({"a": b"bytes"}, "holds bytes"),
        ({"a": 1j}, "builtins.complex"),
        ({1: ONES}, "a key that is no string"),
        ([ONES], "holds list"),
        ({"a": {"b": {"c": {"d": {"e": 1}}}}}, "4 deep"),
        ({"a": [0] * 100_001}, "more than 100000 values"),
    ],
)
def test_other_contents_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path, content)


def test_a_file_that_holds_itself(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(CheckpointError, match="deep"):
        load(tmp_path, endless)
    wide: Any = 0
    for _ in range(4):
        wide = [wide] * 1000
    with pytest.raises(CheckpointError, match="values"):
        load(tmp_path, {"a": wide})


def doubled(start: Any, levels: int, *, tuples: bool) -> Any:
    """Something that holds 2 ** levels of what it starts with, in a few bytes for each level."""
    for _ in range(levels):
        start = (start, start) if tuples else [start, start]
    return start


@pytest.mark.timeout(20)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_small_files_that_would_take_forever(protocol: int, tmp_path: Path) -> None:
    """To hash, to write into a message, or to unfold."""
    wide = doubled((), 60, tuples=True)
    with pytest.raises(CheckpointError, match="4 deep"):
        load(tmp_path, {"a": wide}, protocol)
    bomb = doubled("x", 60, tuples=False)
    contents = {
        "values": {"a": bomb},
        "type is of list": {"a": array_of((2, 3), bomb, b"")},
        "without a shape": {"a": array_of(bomb, "f4", b"")},
        "other sizes": {"a": array_of((bomb, 3), "f4", b"")},
        "in list bytes": {"a": array_of((2, 3), "f4", bomb)},
        "makes a mapping of list": {"a": Calls(collections.OrderedDict, bomb)},
        "latin1": {"a": Calls(codecs.encode, bomb, bomb)},
    }
    for message, content in contents.items():
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path, content, protocol)


@pytest.mark.parametrize(
    "program",
    [
        b"}" + b")" + b"\x85" * 1_000_000 + b"Ns.",
        b"}(" + b")" + b"\x85" * 1_000_000 + b"Nu.",
        b"(" + b")" + b"\x85" * 1_000_000 + b"Nd.",
        b"})" + b"q\x01h\x01\x86" * 60 + b"Ns.",
    ],
    ids=["SETITEM", "SETITEMS", "DICT", "twice"],
)
@pytest.mark.timeout(20)
def test_keys_that_cannot_be_hashed(program: bytes, tmp_path: Path) -> None:
    """Python would run out of the machine's stack, and be ended by the operating system; or take for ever."""
    with pytest.raises(CheckpointError, match="a key that is no string"):
        load(tmp_path, b"\x80\x02" + program)


LONG = b"X" + (100_000).to_bytes(4, "little") + b"<" + b"a" * 99_999


@pytest.mark.parametrize(
    "calls",
    [
        b"c_codecs\nencode\nq\x00" + LONG + b"q\x01U\x06latin1q\x02" + b"h\x00h\x01h\x02\x86R" * 2000,
        b"cnumpy\ndtype\nq\x00" + LONG + b"q\x01" + b"h\x00h\x01\x85R" * 2000,
        b"ccollections\nOrderedDict\nq\x00}q\x01("
        + b"".join(b"U\x04%04dN" % i for i in range(10_000))
        + b"u"
        + b"h\x00h\x01\x85R" * 2000,
    ],
    ids=["bytes", "types", "mappings"],
)
def test_nothing_is_copied_by_calls(calls: bytes, tmp_path: Path) -> None:
    """Each of many calls, of a few bytes in the file, is given the same long value."""
    program = b"\x80\x02](" + calls + b"e."
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="holds list"):
            load(tmp_path, program)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(program)


def test_arrays_of_the_same_bytes(tmp_path: Path) -> None:
    content = b"\0" * 4000
    arrays = [array_of((1000,), "f4", content) for _ in range(100)]
    with pytest.raises(CheckpointError, match="arrays of more than its own"):
        load(tmp_path, {"a": arrays})


def array_of(shape: Any, dtype: Any, content: Any) -> Any:
    """An array whose parts need not fit."""

    class Array:
        def __reduce__(self) -> Any:
            function, args, state = ONES.__reduce__()
            kind = np.dtype(dtype) if isinstance(dtype, str) else Calls(np.dtype, dtype)
            return function, args, (state[0], shape, kind, False, content)

    return Array()


@pytest.mark.parametrize(
    ("shape", "content"),
    [((2, 3), b"\0" * 23), ((2, 3), b"\0" * 25), ((10**9, 10**9), b"\0" * 4), ((2, -3), b""), ((2, 3), [1])],
)
def test_sizes_that_do_not_fit(shape: Any, content: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="array of shape"):
        load(tmp_path, {"a": array_of(shape, "f4", content)})


def test_functions_cannot_be_changed(tmp_path: Path) -> None:
    """BUILD would set attributes of whatever is below it; here of the function that makes arrays."""
    change = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}U\x0c__defaults__K\x01s\x86b.",
        b"\x80\x02cnumpy\nndarray\n}U\x05_callK\x01sb.",
        b"\x80\x02cnumpy\ndtype\n}U\x07resolveK\x01sb.",
    )
    for program in change:
        pickletools.dis(program, out=open(os.devnull, "w"))  # noqa: SIM115, PTH123
        with pytest.raises(CheckpointError, match="sets the state of a function"):
            load(tmp_path, program)
    assert torch.equal(load(tmp_path, {"a": ONES})["a"], torch.ones(2, 3))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", "LONG_BINPUT 2147483647 at byte 3, beyond the file"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.", "beyond the file"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f\0.", "not a whole pickle"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f\0.", "not a whole pickle"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"Pid\n.", "instruction PERSID"),
        (b"\x80\x02K\x01Q.", "instruction BINPERSID"),
        (b"(ios\nsystem\n.", "instruction INST"),
        (b"\x80\x02(cos\nsystem\no.", "instruction OBJ"),
        (b"\x80\x02cos\nsystem\n)\x81.", "instruction NEWOBJ"),
        (b"", "not a whole pickle"),
        (b"PK\x03\x04", "has the instruction|not a whole pickle"),
        (b"\x80\x04}", "not a whole pickle"),
        (b".", "not a whole pickle"),
        (b"0000.", "instruction POP"),
        (b"\x80\x02]2e.", "instruction DUP"),
        (b"\x80\x02h\x05.", "BINGET 5 at byte 2, where nothing is"),
        (b"\x80\x02}(K\x01.", "not a whole pickle|holds"),
    ],
)
def test_broken_programs(program: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path, program)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = pickle.dumps({"scope": {"w": ONES}}, 4)
    for length in range(len(whole)):
        with pytest.raises(CheckpointError):
            load(tmp_path, whole[:length])


def test_every_changed_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    whole = pickle.dumps({"scope": {"w": ONES}}, 4)
    generator = np.random.default_rng(0)
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] = (changed[position] + generator.integers(1, 256)) % 256
        try:
            loaded = load(tmp_path, bytes(changed))
        except CheckpointError:
            continue
        assert isinstance(loaded, dict)


def test_a_file_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceiver_policy.checkpoints.restricted_pickle.LARGEST_FILE", 10)
    with pytest.raises(CheckpointError, match="at most 10 are read"):
        load(tmp_path, {"a": ONES})
