"""Arrays out of a pickle, and nothing else.

A pickle is a program: it may call any function of any installed module. Here it may call those few that
arrays and Haiku's mappings are made by, and each is a stand-in of this file that only keeps its arguments. An
array is made from them at the end, of a type from a short list, if its bytes are exactly as many as its shape
calls for. No other name is looked up, let alone imported or called.

What the program may do is checked before it runs: instructions beyond these are refused, and so are lengths
and places in its memory that are beyond the file's, and keys that are no strings. No stand-in copies what it
is given, and the arrays together are not larger than the file: a small file does not become large.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from perceiver_policy.checkpoints.names import CheckpointError

LARGEST_FILE = 2**32
"""Bytes; the largest that was released has 0.8 GB."""
MAX_DIMENSIONS = 8
MAX_DEPTH, MAX_VALUES = 4, 100_000
DTYPES = frozenset(f"{kind}{size}" for kind in "iuf" for size in (2, 4, 8)) | {"i1", "u1", "b1"}
"""Of arrays, without the byte order."""
ORDERS = ("<", ">", "=", "|")
INSTRUCTIONS = frozenset(
    """
    PROTO FRAME STOP MARK MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8
    SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS
    GLOBAL STACK_GLOBAL REDUCE BUILD
    """.split()  # noqa: SIM905, a list of forty strings is no easier to read
)
"""What a pickle of arrays in mappings consists of. Not among them: instances of classes, references to what
is outside of the file, buffers of its own."""
STORES, FETCHES = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")
SILENT = ("PROTO", "FRAME", "MEMOIZE", *STORES)
"""These leave what is on top of the stack."""
STRINGS = {
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
}
KEYS = {"SETITEM": slice(1, 2), "SETITEMS": slice(1, None, 2), "DICT": slice(0, None, 2)}
"""Which of the values that an instruction takes are keys."""


def load_arrays(path: Path) -> dict[str, Any]:
    """The mappings of a pickle with its arrays as tensors.

    Args:
        path: the file. Its size is needed in memory about three times over.

    Returns:
        Nested dicts with strings as keys. Their values are tensors, or else numbers, strings, None, or lists
        of such.

    Raises:
        CheckpointError: the file is too large or no whole pickle, calls for anything that is not about arrays
            in mappings, or has an array of objects or of a size that does not fit its shape.
    """
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise CheckpointError(f"{path} has {size} bytes; at most {LARGEST_FILE} are read")
    data = path.read_bytes()
    try:
        _check_instructions(data)
        content = _Unpickler(io.BytesIO(data), encoding="latin1").load()
        if not isinstance(content, dict):
            raise CheckpointError(f"holds {type(content).__name__}, not a mapping of names to arrays")
        plain: dict[str, Any] = _Reader(len(data)).plain(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from None
    except Exception as error:  # a broken program fails in any way it likes
        raise CheckpointError(f"{path} is not a whole pickle of arrays: {error}") from error
    return plain


def _check_instructions(data: bytes) -> None:
    """Refuse instructions that arrays do not need, and what would take time or memory out of all proportion.

    The unpickler's memory is a list as long as the largest place in it, whatever lies between. And keys are
    hashed: of tuples within tuples that can take for ever, or more of the machine's own stack than there is.
    """
    memory: dict[int, str] = {}
    stack: list[str] = []  # which instruction made each value
    for opcode, argument, position in pickletools.genops(io.BytesIO(data)):
        name = opcode.name
        if name not in INSTRUCTIONS:
            raise CheckpointError(f"has the instruction {name} at byte {position}; refused")
        place = argument if isinstance(argument, int) else len(memory)
        if name in (*STORES, "FRAME") and place > len(data):
            raise CheckpointError(f"has {name} {place} at byte {position}, beyond the file; refused")
        if name in FETCHES and place not in memory:
            raise CheckpointError(f"has {name} {place} at byte {position}, where nothing is; refused")
        if name in (*STORES, "MEMOIZE"):
            memory[place] = stack[-1]
        if name in SILENT:
            continue
        taken = _take(stack, opcode.stack_before)
        if not STRINGS.issuperset(taken[KEYS.get(name, slice(0))]):
            raise CheckpointError(f"has a key that is no string, at byte {position}; refused")
        stack += [memory[place] if name in FETCHES else name] * len(opcode.stack_after)


def _take(stack: list[str], before: list[pickletools.StackObject]) -> list[str]:
    """Remove from a stack what an instruction takes, the mark aside, and return it."""
    above = []
    if pickletools.markobject in before:
        mark = len(stack) - 1
        while stack[mark] != "MARK":
            mark -= 1
        above = stack[mark + 1 :]
        del stack[mark:]
        before = before[: before.index(pickletools.markobject)]
    start = len(stack) - len(before)
    taken = stack[start:] + above
    del stack[start:]
    return taken


class _StandIn:
    """What a name in a pickle is replaced by: it can be called, and changed in no way.

    Args:
        call: what happens then.
    """

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise CheckpointError("sets attributes of a function; refused")

    def __setstate__(self, state: Any) -> NoReturn:
        raise CheckpointError("sets the state of a function; refused")


class _DType:
    """A type of array elements, by its name and byte order."""

    __slots__ = ("name", "order")

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str):
            raise CheckpointError(f"has an array whose type is of {type(name).__name__}; refused")
        self.name = name
        self.order: Any = "<"

    def __setstate__(self, state: Any) -> None:
        if any(part is not None for part in state[2:5]):
            raise CheckpointError("has an array of records; refused")
        self.order = state[1]

    def resolve(self) -> np.dtype[Any]:
        """NumPy's."""
        name = self.name.lstrip("".join(ORDERS))
        if name not in DTYPES or not isinstance(self.order, str) or self.order not in ORDERS:
            raise CheckpointError(f"has an array of type {name:.40}; allowed: {', '.join(sorted(DTYPES))}")
        return np.dtype(self.order + name)


class _Array:
    """An array's bytes, as it was pickled."""

    __slots__ = ("made", "state")

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, Any, bool, Any] | None = None
        self.made: Tensor | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.state = (shape, dtype, bool(fortran), content)

    def tensor(self) -> Tensor:
        """The array, made once however often a pickle refers to it."""
        if self.made is None:
            self.made = self._make()
        return self.made

    def _make(self) -> Tensor:
        if self.state is None:
            raise CheckpointError("has an array without content; refused")
        shape, dtype, fortran, content = self.state
        if not isinstance(dtype, _DType):
            raise CheckpointError("has an array without a type; refused")
        kind = dtype.resolve()
        if isinstance(content, str):  # bytes under protocols that have none
            content = content.encode("latin1")
        if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
            raise CheckpointError(f"has an array without a shape of at most {MAX_DIMENSIONS} sizes; refused")
        if not all(type(n) is int and 0 <= n <= LARGEST_FILE for n in shape):
            raise CheckpointError(f"has an array of shape with other sizes than 0 to {LARGEST_FILE}; refused")
        if not isinstance(content, (bytes, bytearray)) or len(content) != math.prod(shape) * kind.itemsize:
            found = len(content) if isinstance(content, (bytes, bytearray)) else type(content).__name__
            raise CheckpointError(f"has an array of shape {shape} and type {kind} in {found} bytes; refused")
        array = np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")
        return torch.from_numpy(array.astype(kind.newbyteorder("="), order="C"))


def _reconstruct(*_: Any) -> _Array:
    """NumPy's function for an empty array, whose state comes later."""
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """NumPy's function of protocol 5."""
    array = _Array()
    array.state = (shape, dtype, order == "F", content)
    return array


def _scalar(dtype: Any, content: Any) -> _Array:
    """NumPy's function for a number."""
    array = _Array()
    array.state = ((), dtype, False, content)
    return array


def _from_jax(function: Any, args: Any, state: Any, *_: Any) -> _Array:
    """JAX's function: what NumPy's would be called with, and what is of no use here."""
    array = _Array()
    array.__setstate__(state)
    return array


def _mapping(content: Any = None) -> dict[Any, Any]:
    """Haiku's mappings, from a dict, or empty, to be filled."""
    if not isinstance(content, (dict, type(None))):
        raise CheckpointError(f"makes a mapping of {type(content).__name__}; refused")
    return {} if content is None else content


def _encode(text: Any, encoding: Any) -> str:
    """Bytes, as Python 3 writes them under protocol 2, and still as text."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise CheckpointError("encodes something else than bytes as latin1; refused")
    return text


def _empty() -> bytes:
    """Bytes of length 0, as Python 3 writes them under protocol 2."""
    return b""


_NAMES = {
    **{
        (f"numpy.{core}.{module}", name): _StandIn(call)
        for core in ("core", "_core")
        for module, name, call in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
    ("numpy", "ndarray"): _StandIn(_reconstruct),
    ("numpy", "dtype"): _StandIn(_DType),
    ("_codecs", "encode"): _StandIn(_encode),
    ("__builtin__", "bytes"): _StandIn(_empty),
    **{
        (module, name): _StandIn(_from_jax)
        for module, name in (
            ("jax._src.device_array", "reconstruct_device_array"),
            ("jax._src.device_array", "_reconstruct_device_array"),
            ("jax._src.array", "_reconstruct_array"),
            ("jax.interpreters.xla", "_reconstruct_device_array"),
        )
    },
    **{
        (module, name): _StandIn(_mapping)
        for module, name in (
            ("haiku._src.data_structures", "FlatMapping"),
            ("haiku._src.data_structures", "FlatMap"),
            ("haiku._src.data_structures", "frozendict"),
            ("collections", "OrderedDict"),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    """Looks up the names above, and nothing anywhere else."""

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in _NAMES:
            raise CheckpointError(f"calls for {module}.{name}; refused: only arrays in mappings are read")
        return _NAMES[module, name]


class _Reader:
    """Puts tensors in the place of arrays. It counts what it meets, how deep it is, and the arrays' bytes, as
    a small file can hold itself many times over, or endlessly.

    Args:
        max_bytes: of all arrays; one that is met many times counts once.
    """

    def __init__(self, max_bytes: int) -> None:
        self.num_values = 0
        self.left = self.max_bytes = max_bytes

    def plain(self, value: Any, depth: int = 0) -> Any:
        """The value without anything of the pickle's own."""
        self.num_values += 1
        if depth > MAX_DEPTH or self.num_values > MAX_VALUES:
            raise CheckpointError(
                f"has more than {MAX_VALUES} values, or mappings more than {MAX_DEPTH} deep; refused"
            )
        if isinstance(value, _Array):
            if value.made is None:
                self.left -= value.tensor().nbytes
            if self.left < 0:
                raise CheckpointError(f"has arrays of more than its own {self.max_bytes} bytes; refused")
            return value.tensor()
        if isinstance(value, dict):
            return {key: self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(item, depth + 1) for item in value]
        if value is None or isinstance(value, (int, float, str)):
            return value
        raise CheckpointError(f"holds {type(value).__name__.strip('_')}; refused: only arrays are read")
