"""Model configurations on disk: YAML files, and the ones that ship with the package.

    config = load("model.yaml")                        # or load_named("unit_set_small")
    config = dataclasses.replace(config, critic="state")
    save(config, "model.yaml")

A file's ``kind`` says what it configures: ``unit_set_policy``, ``perceiver_io`` or ``perceiver_ar``. It
may be left out where the caller expects one of them.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from perceiver_policy.autoregressive_config import PerceiverARConfig
from perceiver_policy.config import Config, ConfigError, nearest
from perceiver_policy.model_config import PerceiverIOConfig
from perceiver_policy.policy_config import UnitSetPolicyConfig

ConfigT = TypeVar("ConfigT", bound=Config)

_KINDS: dict[str, type[Config]] = {
    cls.kind: cls for cls in (UnitSetPolicyConfig, PerceiverIOConfig, PerceiverARConfig)
}


def from_dict(data: Any, expected: type[ConfigT] = Config) -> ConfigT:  # type: ignore[assignment]
    """The configuration that a plain dict describes, by its ``kind``.

    Args:
        data: the dict.
        expected: of what class it must be, and is where no ``kind`` says so; any by default.

    Raises:
        ConfigError: no mapping, no known kind, not the class expected, or a value that is not allowed.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"expected a mapping with a kind: {', '.join(_KINDS)}; got {data!r}")
    kind = data.get("kind", expected.kind or None)
    if kind not in _KINDS:
        raise ConfigError(f"kind is {kind!r}; {nearest(str(kind), _KINDS)}")
    if not issubclass(_KINDS[kind], expected):
        raise ConfigError(f"kind is {kind!r}; expected {expected.kind!r}")
    return cast(ConfigT, _KINDS[kind].from_dict(data))


def load(path: str | Path, expected: type[ConfigT] = Config) -> ConfigT:  # type: ignore[assignment]
    """Read a model's configuration from a YAML file.

    Args:
        path: the file.
        expected: of what class it must be; any by default.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: not YAML, not a configuration or not the one expected; the message starts with the path.
    """
    path = Path(path)
    return _parse(path.read_text(encoding="utf-8"), str(path), expected)


def load_named(name: str, expected: type[ConfigT] = Config) -> ConfigT:  # type: ignore[assignment]
    """Read a configuration that ships with the package, such as ``unit_set_small``.

    Args:
        name: see :func:`named`.
        expected: of what class it must be; any by default.

    Raises:
        ConfigError: no configuration of that name, the message lists the nearest; or not the one expected.
    """
    names = named()
    if name not in names:
        raise ConfigError(f"no configuration is named {name!r}; {nearest(name, names)}")
    return _parse((_folder() / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml", expected)


def named() -> list[str]:
    """Names of the configurations that ship with the package."""
    return sorted(f.name.removesuffix(".yaml") for f in _folder().iterdir() if f.name.endswith(".yaml"))


def save(config: Config, path: str | Path) -> None:
    """Write a configuration as YAML, every value spelled out."""
    Path(path).write_text(yaml.safe_dump(config.to_dict(), sort_keys=False), encoding="utf-8")


def _folder() -> Traversable:
    return importlib.resources.files("perceiver_policy") / "configs"


def _parse(text: str, source: str, expected: type[ConfigT]) -> ConfigT:
    try:
        return from_dict(yaml.safe_load(text), expected)
    except (yaml.YAMLError, ConfigError) as error:
        raise ConfigError(f"{source}: {error}") from error
