"""Where bad input is turned away: one line on standard error and exit code 2, before work starts."""

from __future__ import annotations

import contextlib
import difflib
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn


@contextlib.contextmanager
def door() -> Iterator[None]:
    """Within it, a ValueError or an OSError means that the user gave us something we cannot use.

    Only checks of the input belong inside: an error in the work itself should keep its traceback.

    Raises:
        SystemExit: with code 2, for such an error.
    """
    try:
        yield
    except OSError as error:
        refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except ValueError as error:
        refuse(str(error))


def refuse(message: str) -> NoReturn:
    """Say on standard error why the input is no good, and leave with exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def nearest(name: str, known: Iterable[str]) -> str:
    """``nearest: ...`` if something known is spelled like ``name``, else ``known: ...`` with all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known)}"


def require_writable(path: Path | None) -> None:
    """Refuse, before work starts, a file that could not be written after it.

    Raises:
        ValueError: the folder is missing or takes no files, or the path is a folder.
    """
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist; make it, or choose another place for {path.name}")
    try:  # permissions do not tell: of root, and of file systems that take no files
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written to ({error.strerror}); choose another place for {path.name}"
        ) from error
