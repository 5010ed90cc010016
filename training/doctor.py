"""What an installation needs, looked at part by part. Nothing here repairs anything."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "numpy",
    "numba",
    "gymnasium",
    "pettingzoo",
    "torch",
    "safetensors",
    "ray",
    "pysc2",
    "protobuf",
    "tyro",
)
OLDEST_PYTHON, FIRST_TOO_NEW = (3, 11), (3, 14)
_SC2_BINARY = "SC2_x64"


class Status(Enum):
    """What a check found."""

    GOOD = "ok"
    NOTE = "note"
    """Works, but not as well as it could, or something optional is missing."""
    BAD = "missing"


@dataclass(frozen=True)
class Check:
    """One part of the installation."""

    name: str
    status: Status
    detail: str
    remedy: str = ""
    """What to do about it; empty where all is well."""


def examine() -> list[Check]:
    """All checks, in the order in which things are needed. Takes some seconds: Ray and torch are imported."""
    examinations = (_torch, _engine, _ray, _pysc2, _starcraft)
    return [_python(), *_packages(), *(_guarded(examination) for examination in examinations)]


def next_step(checks: Sequence[Check]) -> str:
    """The one thing to do now."""
    for status in (Status.BAD, Status.NOTE):
        for check in checks:
            if check.status is status and check.remedy:
                return check.remedy
    return "perceiver-policy train"


def _guarded(examination: Callable[[], Check]) -> Check:
    """A check that fails in a way it did not foresee is a finding, too."""
    try:
        return examination()
    except Exception as error:
        name = examination.__name__.removeprefix("_")
        return Check(f"{name} works", Status.BAD, f"{type(error).__name__}: {error}", "make setup")


def _python() -> Check:
    good = OLDEST_PYTHON <= sys.version_info[:2] < FIRST_TOO_NEW
    oldest, too_new = (".".join(map(str, version)) for version in (OLDEST_PYTHON, FIRST_TOO_NEW))
    remedy = "" if good else f"install a Python from {oldest} on, before {too_new}"
    return Check(
        "python",
        Status.GOOD if good else Status.BAD,
        f"{platform.python_version()}, {sys.executable}",
        remedy,
    )


def _packages() -> list[Check]:
    checks = []
    for package in PACKAGES:
        try:
            checks.append(Check(package, Status.GOOD, metadata.version(package)))
        except metadata.PackageNotFoundError:
            checks.append(Check(package, Status.BAD, "not installed", f"pip install {package}"))
    return checks


def _torch() -> Check:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA, the CPU is used"
    return Check(
        "torch works", Status.GOOD, f"{torch.get_num_threads()} threads of {os.cpu_count()} cores; {device}"
    )


def _engine() -> Check:
    from envs.battle.batch import BattleBatch
    from envs.battle.compiled import CACHE_FOLDER

    began = time.perf_counter()
    batch = BattleBatch("3m", 1, builtin=("attack-move", "attack-move"))
    batch.step(None, None)
    seconds = time.perf_counter() - began
    cached = f"compiled code is kept in {CACHE_FOLDER}"
    if not os.access(CACHE_FOLDER, os.W_OK):
        remedy = "set NUMBA_CACHE_DIR to a folder that can be written to"
        return Check(
            "simulator",
            Status.NOTE,
            f"{CACHE_FOLDER} cannot be written to: it compiles anew each time",
            remedy,
        )
    return Check("simulator", Status.GOOD, f"a battle begins {seconds:.1f} s after the import; {cached}")


def _ray() -> Check:
    import ray

    return Check("ray works", Status.GOOD, f"{ray.__version__} imports")


def _pysc2() -> Check:
    from google.protobuf.internal import api_implementation

    from envs.starcraft.protocol import import_pysc2

    began = time.perf_counter()
    import_pysc2("pysc2.env.sc2_env")
    backend = api_implementation.Type()
    detail = f"imports in {time.perf_counter() - began:.1f} s; protobuf parses with its {backend} backend"
    if backend == "python":
        remedy = "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION: pure Python parses a hundred times slower"
        return Check("pysc2 works", Status.NOTE, detail, remedy)
    return Check("pysc2 works", Status.GOOD, detail)


def _starcraft() -> Check:
    folder = Path(os.environ.get("SC2PATH", "~/StarCraftII")).expanduser()
    binaries = sorted(folder.glob(f"Versions/Base*/{_SC2_BINARY}"))
    if binaries:
        return Check("StarCraft II", Status.GOOD, str(binaries[-1]))
    if "SC2PATH" in os.environ:
        remedy = f"point SC2PATH at a folder with Versions/Base*/{_SC2_BINARY}, or unset it"
        return Check("StarCraft II", Status.NOTE, f"SC2PATH is {folder}, which holds no game", remedy)
    return Check(
        "StarCraft II", Status.GOOD, "not installed, nor needed: battles run on the embedded simulator"
    )
