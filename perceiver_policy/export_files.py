"""Models on disk: a directory with ``config.yaml`` (the model) and ``model.safetensors`` (its weights).

Nothing is pickled: loading runs no code of the file's author. Nothing is half there: an export appears
whole or not at all. Nothing is half read: names, shapes and dtypes in the weights' header must be exactly
those the configuration calls for before a model is allocated or a single tensor is read. What is read must
be finite.

:mod:`perceiver_policy.pretrained` is the public face.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from perceiver_policy import config_files
from perceiver_policy.config import Config, ConfigError

CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
"""The model card: not part of an export, and kept when it is replaced."""
FORMAT_VERSION = "2"
_DTYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}


class Exportable(Protocol):
    """What can be exported: a module that its configuration alone makes."""

    config_class: ClassVar[type[Config]]

    @property
    def config(self) -> Config: ...

    def __init__(self, config: Any) -> None: ...

    def state_dict(self) -> Mapping[str, torch.Tensor]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...

    def optional_weights(self) -> frozenset[str]: ...

    def to(self, device: str | torch.device) -> Self: ...

    def eval(self) -> Self: ...


ModelT = TypeVar("ModelT", bound=Exportable)


class ExportError(ValueError):
    """A directory that does not hold a model this version can load; the message says what is wrong."""


def file_format(kind: type[Exportable]) -> str:
    """What the weights' header calls the format of a class."""
    return f"perceiver_policy.{kind.__name__}"


def save_model(
    model: Exportable, directory: str | Path, *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Export a model.

    Args:
        model: what to export; its weights keep their dtype.
        directory: made if need be; an export already there is replaced but for its model card, and is back
            in its place if replacing it fails.
        metadata: anything JSON can hold, such as scenario and training budget; :func:`read_metadata`
            returns it.

    Raises:
        ExportError: ``directory`` exists and holds something other than an export.
        TypeError: ``metadata`` is not JSON.
    """
    directory = Path(directory).absolute()
    refuse_foreign(directory)
    header = {
        "format": file_format(type(model)),
        "format_version": FORMAT_VERSION,
        "metadata": json.dumps(dict(metadata or {}), sort_keys=True),
    }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replaced_whole(directory) as export:
        config_files.save(model.config, export / CONFIG_FILE)
        (export / WEIGHTS_FILE).write_bytes(save(weights, metadata=header))
        if (directory / CARD_FILE).is_file():
            shutil.copy2(directory / CARD_FILE, export / CARD_FILE)


@contextlib.contextmanager
def replaced_whole(directory: Path) -> Iterator[Path]:
    """An empty folder to write into, which then takes the place of ``directory``: whole, or not at all.

    Args:
        directory: absolute. What is there is back in its place if replacing it fails.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: a rename is atomic only within one file system.
    workspace = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    old = workspace / "old"
    try:
        new = workspace / "new"
        new.mkdir()
        yield new
        if directory.exists():
            directory.replace(old)
        new.replace(directory)
    finally:
        if old.exists() and not directory.exists():
            old.replace(directory)  # should this fail too, the workspace stays: it holds the only copy
        shutil.rmtree(workspace)


def load_model(kind: type[ModelT], directory: str | Path, *, device: str | torch.device = "cpu") -> ModelT:
    """Load an export, ready for use (in evaluation mode).

    Args:
        kind: the class that was exported.
        directory: what :func:`save_model` wrote.
        device: where the weights go.

    Raises:
        ExportError: the directory or a file is missing, the configuration does not parse, the weights
            are not such a file or not this format, or a tensor is missing (but for what the class says
            older exports lack), surplus or of another shape or dtype: all found before a model is allocated
            or any tensor read. Or a weight is not finite.
    """
    directory = Path(directory)
    _require_files(directory)
    try:
        config = config_files.load(directory / CONFIG_FILE, kind.config_class)
        with torch.device("meta"):  # shapes without memory, however large the configuration says they are
            outline = kind(config)
    except (ConfigError, UnicodeDecodeError) as error:
        raise ExportError(f"{directory}: the configuration cannot be used: {error}") from error
    _check_header(
        directory / WEIGHTS_FILE, outline.state_dict(), file_format(kind), outline.optional_weights()
    )
    # Made once more, for real: buffers that are not saved are computed from the configuration.
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away: draw none of the caller's
        model = kind(config)
    weights = load_file(directory / WEIGHTS_FILE)
    _require_finite(directory / WEIGHTS_FILE, weights)
    model.load_state_dict(weights)
    return model.to(device).eval()


def read_metadata(directory: str | Path) -> dict[str, Any]:
    """What :func:`save_model` was given as ``metadata``.

    Raises:
        ExportError: no export there, or its header has no such metadata.
    """
    directory = Path(directory)
    _require_files(directory)
    path = directory / WEIGHTS_FILE
    with _open(path) as weights:
        text = _format_header(path, weights)["metadata"]
    try:
        metadata = json.loads(text)
    except json.JSONDecodeError as error:
        raise ExportError(f"{path} has metadata that is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise ExportError(f"{path} has metadata {text!r}; expected a JSON object")
    return metadata


def refuse_foreign(directory: Path) -> None:
    """Raise :class:`ExportError` if an export cannot go there, because something else is there."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise ExportError(f"{directory} is a file; an export is a directory")
    foreign = sorted({p.name for p in directory.iterdir()} - {CONFIG_FILE, WEIGHTS_FILE, CARD_FILE})
    if foreign:
        raise ExportError(
            f"{directory} holds {', '.join(foreign[:3])}, which no export does; choose another directory"
        )


def _require_files(directory: Path) -> None:
    if not directory.is_dir():
        raise ExportError(
            f"{directory} is no directory; an export is one with {CONFIG_FILE} and {WEIGHTS_FILE}"
        )
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (directory / name).is_file()]
    if missing:
        raise ExportError(f"{directory} lacks {' and '.join(missing)}; it is not an exported policy or model")


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ExportError(f"{path} is not a whole safetensors file: {error}") from error


def _format_header(path: Path, weights: Any, expected_format: str | None = None) -> dict[str, str]:
    header: dict[str, str] = weights.metadata() or {}
    found = header.get("format", "")
    if found != (expected_format or found) or not found.startswith("perceiver_policy."):
        expected = expected_format or "perceiver_policy.*"
        raise ExportError(f"{path} has format {header.get('format')!r}; this version reads {expected!r}")
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise ExportError(f"{path} has format_version {version!r}; this version reads {FORMAT_VERSION!r}")
    if "metadata" not in header:
        raise ExportError(f"{path} has no metadata in its header, where every export has {{}} at least")
    return header


def _check_header(
    path: Path, expected: Mapping[str, torch.Tensor], expected_format: str, optional: Collection[str]
) -> None:
    """Compare what the header lists with what the model needs, reading no tensor."""
    with _open(path) as weights:
        _format_header(path, weights, expected_format)
        found = {}
        for name in weights.keys():  # noqa: SIM118, not a mapping
            tensor = weights.get_slice(name)
            found[name] = (tuple(tensor.get_shape()), str(tensor.get_dtype()))
    wanted = {name: (tuple(t.shape), _DTYPES[t.dtype]) for name, t in expected.items()}
    missing = wanted.keys() - found.keys() - set(optional)
    problems = [f"missing {n}, shape {wanted[n][0]}" for n in sorted(missing)]
    problems += [f"surplus {n}, shape {found[n][0]}" for n in sorted(found.keys() - wanted.keys())]
    problems += [
        f"{n} is {found[n][0]} {found[n][1]}, the configuration calls for {wanted[n][0]} {wanted[n][1]}"
        for n in sorted(wanted.keys() & found.keys())
        if wanted[n] != found[n]
    ]
    if problems:
        raise ExportError(f"{path} does not fit {CONFIG_FILE}: " + "; ".join(problems))


def _require_finite(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    spoilt = [name for name, tensor in sorted(weights.items()) if not tensor.isfinite().all()]
    if spoilt:
        raise ExportError(f"{path} has weights that are NaN or infinite, in: {', '.join(spoilt)}")
