"""Makes pysc2 4.0 importable under today's protobuf and Python, and its messages fast to parse.

    sc2_env = import_pysc2("pysc2.env.sc2_env")

Two things stand in the way of a plain ``import``:

* The messages of the game's API (distribution ``s2clientprotocol``) are code that protoc 3.0 generated.
  protobuf 4 and later refuse to run it ("Descriptors cannot be created directly") unless told to fall back to
  its pure Python backend, which takes over a hundred times longer to parse an observation. Each such file
  carries its ``.proto`` in serialised form, so its module is built anew from that: the text of the file is
  parsed, never run. Code of a newer protoc (distribution ``pys2clientprotocol``, which owns the same package
  folder) imports as it is; the decision is made file by file.
* ``pysc2.lib.colors`` calls ``random.shuffle(palette, lambda: 0.5)``, an argument Python 3.11 dropped.

Both are dealt with for the duration of an import only: what stays behind is the imported modules.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from absl import flags
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.internal import api_implementation, builder

_PACKAGE = "s2clientprotocol"
_ROOT_MESSAGES = f"{_PACKAGE}.sc2api_pb2"  # Request and Response, which reach every other file
_lock = threading.RLock()


class GeneratedCodeError(ImportError):
    """A file of s2clientprotocol is neither of the kinds of generated code known here."""


def import_pysc2(module: str = "pysc2") -> ModuleType:
    """pysc2, or a module of it by its full name, ready for use; plain imports of pysc2 work from here on.

    Also parses absl's flags with their defaults if the program has not: pysc2's environments read them.
    A program that uses ``absl.app`` parses its command line afterwards as always.

    Raises:
      ValueError: ``module`` is not of pysc2.
      ModuleNotFoundError: pysc2, or this module of it, is not installed.
      GeneratedCodeError: the installed s2clientprotocol cannot be read.
    """
    if module.partition(".")[0] != "pysc2":
        raise ValueError(f"{module!r} is not a module of pysc2; name one such as 'pysc2.lib.features'")
    with _lock:
        install()
        with _shuffle_of_python_3_10(), _no_greeting():
            importlib.import_module("pysc2.lib.features")  # asks colors for its palettes as it is imported
            imported = importlib.import_module(module)
        if not flags.FLAGS.is_parsed():
            flags.FLAGS(["perceiver-policy"])
    return imported


def install() -> None:
    """Import all of s2clientprotocol, so that ``from s2clientprotocol import sc2api_pb2`` works from here on.

    Once per process: one that unpickles messages needs it as much as one that makes them.

    Raises:
      ModuleNotFoundError: s2clientprotocol is not installed.
      GeneratedCodeError: it is, but is neither of the two kinds of generated code described above.
    """
    finder = _GeneratedCodeFinder()
    with _lock:
        sys.meta_path.insert(0, finder)
        try:
            importlib.import_module(_ROOT_MESSAGES)
        finally:
            sys.meta_path.remove(finder)


def protobuf_backend() -> str:
    """What parses messages in this process: "upb" (C, fast), "cpp" or "python" (over a hundred times slower).

    "python" means that protobuf has no wheel for this machine, or that the environment variable
    PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION asks for it.
    """
    return str(api_implementation.Type())


class _GeneratedCodeFinder(MetaPathFinder):
    """Claims the modules of s2clientprotocol whose files are code of an old protoc, and no others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != _PACKAGE or not name.endswith("_pb2"):
            return None
        found = PathFinder.find_spec(fullname, path, target)
        if found is None or not isinstance(found.loader, InspectLoader):
            return None
        source = found.loader.get_source(fullname)
        serialized = None if source is None else _serialized_file(source, found.origin or fullname)
        if serialized is None:
            return None
        spec = ModuleSpec(fullname, _DescriptorLoader(serialized), origin=found.origin)
        spec.has_location = True
        return spec


class _DescriptorLoader(Loader):
    """Fills a module with the messages and enums of one serialised ``FileDescriptorProto``."""

    def __init__(self, serialized: bytes) -> None:
        self._serialized = serialized

    def exec_module(self, module: ModuleType) -> None:
        file = descriptor_pb2.FileDescriptorProto.FromString(self._serialized)
        for dependency in file.dependency:  # such as "s2clientprotocol/common.proto"
            importlib.import_module(dependency.removesuffix(".proto").replace("/", ".") + "_pb2")
        descriptor = descriptor_pool.Default().AddSerializedFile(self._serialized)
        contents: dict[str, Any] = vars(module)
        contents["DESCRIPTOR"] = descriptor
        builder.BuildMessageAndEnumDescriptors(descriptor, contents)
        builder.BuildTopDescriptorsAndMessages(descriptor, module.__name__, contents)


def _serialized_file(source: str, where: str) -> bytes | None:
    """The ``serialized_pb`` argument of an old protoc's ``DESCRIPTOR = FileDescriptor(...)``.

    None if ``source`` assigns no such thing: it is of a newer protoc, or not generated at all.

    Raises:
      GeneratedCodeError: there is one, but not as a literal.
    """
    for statement in ast.parse(source, filename=where).body:
        match statement:
            case ast.Assign(
                targets=[ast.Name(id="DESCRIPTOR")],
                value=ast.Call(func=ast.Attribute(attr="FileDescriptor"), keywords=keywords),
            ):
                arguments = {keyword.arg: keyword.value for keyword in keywords}
                return _bytes_literal(arguments.get("serialized_pb"), where)
    return None


def _bytes_literal(value: ast.expr | None, where: str) -> bytes:
    """The bytes that ``b'...'``, or ``_b('...')`` as protoc up to 3.7 wrote it, stands for."""
    match value:
        case ast.Constant(value=bytes(serialized)):
            return serialized
        case ast.Call(func=ast.Name(id="_b"), args=[ast.Constant(value=str(text))]):
            return text.encode("latin1")
    raise GeneratedCodeError(
        f"{where} was generated by an old protoc, but holds no serialized_pb literal to read; "
        "reinstall s2clientprotocol, or put pys2clientprotocol in its place"
    )


@contextlib.contextmanager
def _shuffle_of_python_3_10() -> Iterator[None]:
    """``random.shuffle`` with the second argument it had up to Python 3.10: a source of numbers in [0, 1)."""
    shuffle = random.shuffle

    def shuffle_with_source(x: MutableSequence[Any], source: Callable[[], float] | None = None) -> None:
        if source is None:
            shuffle(x)
            return
        for i in reversed(range(1, len(x))):  # Fisher-Yates, drawing as Python 3.10 did: same palette
            j = int(source() * (i + 1))
            x[i], x[j] = x[j], x[i]

    random.shuffle = shuffle_with_source
    try:
        yield
    finally:
        random.shuffle = shuffle


@contextlib.contextmanager
def _no_greeting() -> Iterator[None]:
    """Keeps pygame, which ``pysc2.env.sc2_env`` imports, from printing its greeting to standard output."""
    variable = "PYGAME_HIDE_SUPPORT_PROMPT"
    before = os.environ.get(variable)
    os.environ[variable] = before or "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
