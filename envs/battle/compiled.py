"""The decorator of the simulator's compiled functions, and where their machine code is kept between runs.

Numba's on-disk cache notices a change to a function's own file only, not to the functions and constants it
takes from other files. So the cache lives in a folder named after a digest of all sources it depends on: new
sources, new folder; the old one is removed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

_Function = TypeVar("_Function", bound=Callable)
_config: Any = numba.config
_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "_nrt": False,
}
_HERE = Path(__file__).parent
_SOURCES = (
    *(
        "records.py",
        "rules.py",
        "state.py",
        "paths.py",
        "movement.py",
        "combat.py",
        "engine.py",
        "spawn.py",
        "missions.py",
    ),
    *("advance.py", "command.py", "firing.py", "manoeuvres.py", "tactics.py", "observe.py"),
    *("path_tables.py", "compiled.py"),
    *("../unit_set.py", "../units.py", "../scenario_model.py", "../terrain.py", "../data/units.yaml"),
)


def engine_digest() -> str:
    """SHA-256 over the simulator's sources: two engines with the same digest play the same battles."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()


def _cache_folder() -> str:
    """The folder for these sources and this numba, beside the package or, where that is read-only, in the
    user's cache."""
    name = f"numba-{numba.__version__}-{engine_digest()[:16]}"
    beside = _HERE / "__pycache__"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perceiver-policy"
    for parent in (beside, home):
        try:
            (parent / name).mkdir(parents=True, exist_ok=True)
            if not os.access(parent / name, os.W_OK):
                continue
        except OSError:
            continue
        for old in parent.glob("numba-*"):
            if old.name != name:
                shutil.rmtree(old, ignore_errors=True)
        return str(parent / name)
    return tempfile.mkdtemp(prefix="perceiver-policy-")


CACHE_FOLDER = _config.CACHE_DIR or _cache_folder()


def compiled(function: _Function) -> _Function:
    """Compile with numba on the first call: no interpreter lock, inlined into callers, cached on disk.

    These functions allocate nothing, so numba's reference counting is off (``_nrt``): counting the arrays
    passed from function to function took four fifths of the time.
    """
    return _compile(function, _OPTIONS | {"forceinline": True})


def compiled_within(function: _Function) -> _Function:
    """The same for what has a single caller: compiled as a part of it, not by itself."""
    return _compile(function, _OPTIONS | {"inline": "always"})


def compiled_apart(function: _Function) -> _Function:
    """The same for functions that are large and seldom called: they are not inlined."""
    return _compile(function, _OPTIONS)


def _compile(function: _Function, options: dict[str, Any]) -> _Function:
    before, _config.CACHE_DIR = _config.CACHE_DIR, CACHE_FOLDER
    try:
        return numba.njit(**options)(function)
    finally:
        _config.CACHE_DIR = before
