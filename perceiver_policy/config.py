"""A model is one configuration: frozen dataclasses here, a YAML file or a plain dict elsewhere.

Sharing the file shares the model; nothing about a model lives outside it. Every value is checked when the
dataclass is made, whether by hand, from a dict or from a file, and an error names the key, the value and
what would be allowed.

    config = load("model.yaml")                        # or load_named("unit_set_small")
    config = dataclasses.replace(config, critic="state")
    save(config, "model.yaml")
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml

from perceiver_policy.attention import ACTIVATIONS

ConfigT = TypeVar("ConfigT", bound="Config")

LARGEST = 65536
"""No whole number in a configuration is larger: each is a width or a count, and a file's may be a mistake."""


class ConfigError(ValueError):
    """A configuration that cannot be built; the message names the key, the value and the allowed ones."""


class Critic(StrEnum):
    """What the value is computed from."""

    OBSERVATION = "observation"  # what the actor sees, sharing the actor's latents
    STATE = "state"  # the full unit set (``state_*``), with an encoder of its own


@dataclass(frozen=True)
class Config:
    """What all configurations share: checked fields, and the way to and from plain dicts."""

    minimum: ClassVar[Mapping[str, float]] = {}
    """Smallest allowed value by field name; numbers not listed must be at least 1."""
    maximum: ClassVar[Mapping[str, int]] = {}
    """Largest allowed whole number by field name; those not listed may be up to :data:`LARGEST`."""

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():
            where = f"{type(self).__name__}.{name}"
            value = _coerce(getattr(self, name), hint, where)
            object.__setattr__(self, name, value)
            for number in value if isinstance(value, tuple) else (value,):
                least = self.minimum.get(name, 1)
                if isinstance(number, bool) or not isinstance(number, (int, float)):
                    continue
                if not number >= least:
                    raise ConfigError(f"{where} is {number!r}; it must be at least {least}")
                most = self.maximum.get(name, LARGEST)
                if isinstance(number, int) and number > most:
                    raise ConfigError(f"{where} is {number!r}; it must be at most {most}")

    @classmethod
    def from_dict(cls: type[ConfigT], data: Mapping[str, Any]) -> ConfigT:
        """Build from a plain dict; keys left out keep their defaults.

        Raises:
            ConfigError: an unknown key, or a value of the wrong type or out of range.
        """
        return typing.cast(ConfigT, _coerce(data, cls, cls.__name__))

    def to_dict(self) -> dict[str, Any]:
        """A dict of plain numbers, strings, lists and dicts; :meth:`from_dict` gives the same config back."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def _require(self, condition: bool, name: str, rule: str) -> None:
        if not condition:
            raise ConfigError(f"{type(self).__name__}.{name} is {getattr(self, name)!r}; {rule}")

    def _require_heads_divide(self, heads: str, channels: int, what: str) -> None:
        number = getattr(self, heads)
        fitting = [n for n in range(1, channels + 1) if channels % n == 0]
        self._require(number in fitting, heads, f"it must divide {what} {channels}: one of {fitting}")

    def _require_known_activation(self) -> None:
        rule = f"allowed: {', '.join(ACTIVATIONS)}"
        self._require(getattr(self, "activation") in ACTIVATIONS, "activation", rule)  # noqa: B009


@dataclass(frozen=True)
class EncoderConfig(Config):
    """The Perceiver encoder, in the paper's names. Widths left None are as in ``attention.Attention``,
    and heads are checked against ``num_latent_channels`` then."""

    maximum: ClassVar[Mapping[str, int]] = {"num_self_attention_layers_per_block": 256, "num_blocks": 256}

    num_latents: int = 4
    num_latent_channels: int = 32
    num_cross_attention_heads: int = 2
    num_cross_attention_qk_channels: int | None = None
    num_cross_attention_v_channels: int | None = None
    cross_attention_widening_factor: int = 2
    cross_attention_residual: bool = True
    num_self_attention_heads: int = 2
    num_self_attention_qk_channels: int | None = None
    num_self_attention_v_channels: int | None = None
    num_self_attention_layers_per_block: int = 1
    num_blocks: int = 1  # how often the same block of layers is applied
    self_attention_widening_factor: int = 2
    activation: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_known_activation()
        for kind in ("cross", "self"):
            qk = getattr(self, f"num_{kind}_attention_qk_channels") or self.num_latent_channels
            v = getattr(self, f"num_{kind}_attention_v_channels") or qk
            for channels, what in ((qk, "the query and key channels"), (v, "the value channels")):
                self._require_heads_divide(f"num_{kind}_attention_heads", channels, what)


@dataclass(frozen=True)
class DecoderConfig(Config):
    """The Perceiver decoder: one cross-attention from the queries to the latents. ``num_query_channels``
    is decided by the queries, so heads are checked where the two meet."""

    num_cross_attention_heads: int = 2
    num_cross_attention_qk_channels: int | None = None
    num_cross_attention_v_channels: int | None = None
    widening_factor: int = 2
    query_residual: bool = True
    activation: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_known_activation()

    def check_query_channels(self, num_query_channels: int) -> None:
        """Raise :class:`ConfigError` if the heads do not divide the width they will work on."""
        qk = self.num_cross_attention_qk_channels or num_query_channels
        v = self.num_cross_attention_v_channels or qk
        for channels, what in ((qk, "the query and key channels"), (v, "the value channels")):
            self._require_heads_divide("num_cross_attention_heads", channels, what)


@dataclass(frozen=True)
class GeometryColumns(Config):
    """Which columns of ``units`` hold what geometry and the pooling over own and enemy rows need."""

    minimum: ClassVar[Mapping[str, float]] = {
        "x": 0,
        "y": 0,
        "radius": 0,
        "weapon_range": 0,
        "own": 0,
        "enemy": 0,
    }

    x: int = 0  # map cells
    y: int = 1  # map cells
    radius: int = 2  # map cells
    weapon_range: int = 3  # map cells
    own: int = 4  # flag
    enemy: int = 5  # flag


@dataclass(frozen=True)
class UnitInputConfig(Config):
    """Unit rows to tokens."""

    minimum: ClassVar[Mapping[str, float]] = {"length_scale": 1e-6}

    num_channels: int = 32  # width of a token, and of the unit queries made from it
    num_hidden_channels: int = 64
    num_frequency_bands: int = 4
    max_frequency: float = 4.0  # half cycles per length_scale
    length_scale: float = 8.0  # map cells that count as distance 1
    activation: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_known_activation()


@dataclass(frozen=True)
class PairConfig(Config):
    """Geometry from each controlled unit to each row."""

    minimum: ClassVar[Mapping[str, float]] = {"row_columns": 0}

    num_channels: int = 16
    # Columns of the row that a unit compares rows by: vitality, weapon, speed, how many attack it already.
    row_columns: tuple[int, ...] = (6, 7, 9, 10, 14, 16, 18, 31)


@dataclass(frozen=True)
class OrderHeadConfig(Config):
    """Verb logits and the pointer."""

    minimum: ClassVar[Mapping[str, float]] = {"init_gain": 0.0}

    num_verb_hidden_channels: int = 32
    num_key_channels: int = 32  # width of pointer queries and keys
    init_gain: float = 0.05  # of the last layers: small starts near the uniform policy
    activation: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_known_activation()


@dataclass(frozen=True)
class UnitSetPolicyConfig(Config):
    """A policy over unit sets, whole. Sizes are those of the observations it reads."""

    num_unit_features: int = 32  # F, columns of ``units``
    num_scalars: int = 6  # S
    num_verbs: int = 14  # V
    num_target_verbs: int = 2  # V_t, the last V_t of the verbs
    num_unit_types: int = 256  # capacity of the type embedding; larger indices are refused by the lookup
    critic: Critic = Critic.OBSERVATION
    geometry: GeometryColumns = field(default_factory=GeometryColumns)
    unit_input: UnitInputConfig = field(default_factory=UnitInputConfig)
    pair: PairConfig = field(default_factory=PairConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    order_head: OrderHeadConfig = field(default_factory=OrderHeadConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            self.num_target_verbs < self.num_verbs,
            "num_target_verbs",
            f"it must be below num_verbs, {self.num_verbs}: verb 0 is the order that needs no target",
        )
        allowed = f"num_unit_features {self.num_unit_features} allows 0 to {self.num_unit_features - 1}"
        columns = {f"geometry.{name}": column for name, column in self.geometry.to_dict().items()}
        columns |= {f"pair.row_columns[{i}]": column for i, column in enumerate(self.pair.row_columns)}
        for name, column in columns.items():
            if column >= self.num_unit_features:
                raise ConfigError(f"{type(self).__name__}.{name} is {column}; {allowed}")
        self.decoder.check_query_channels(self.unit_input.num_channels)


def load(path: str | Path) -> UnitSetPolicyConfig:
    """Read a policy's configuration from a YAML file.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: not YAML, or not a configuration; the message starts with the path.
    """
    path = Path(path)
    return _parse(path.read_text(encoding="utf-8"), str(path))


def load_named(name: str) -> UnitSetPolicyConfig:
    """Read a configuration that ships with the package, such as ``unit_set_small``.

    Raises:
        ConfigError: no configuration of that name; the message lists the nearest.
    """
    folder = importlib.resources.files("perceiver_policy") / "configs"
    names = named()
    if name not in names:
        raise ConfigError(f"no configuration is named {name!r}; {_nearest(name, names)}")
    return _parse((folder / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml")


def named() -> list[str]:
    """Names of the configurations that ship with the package."""
    folder = importlib.resources.files("perceiver_policy") / "configs"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def save(config: Config, path: str | Path) -> None:
    """Write a configuration as YAML, every value spelled out."""
    Path(path).write_text(yaml.safe_dump(config.to_dict(), sort_keys=False), encoding="utf-8")


def _parse(text: str, source: str) -> UnitSetPolicyConfig:
    try:
        return UnitSetPolicyConfig.from_dict(yaml.safe_load(text))
    except (yaml.YAMLError, ConfigError) as error:
        raise ConfigError(f"{source}: {error}") from error


def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _nearest(name: str, allowed: typing.Iterable[str]) -> str:
    allowed = list(allowed)
    near = difflib.get_close_matches(name, allowed, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(allowed)}"


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """The value as the type the hint asks for, or a :class:`ConfigError` naming ``where``."""
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        return _coerce(value, next(arm for arm in hint.__args__ if arm is not type(None)), where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} is {value!r}; expected a list of {hint.__args__[0].__name__}")
        return tuple(_coerce(item, hint.__args__[0], f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            raise ConfigError(f"{where} is {value!r}; allowed: {[m.value for m in hint]}") from None
    if isinstance(hint, type) and issubclass(hint, Config):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}; expected a mapping of {hint.__name__} keys")
        fields = _hints(hint)
        for key in value:
            if key not in fields:
                raise ConfigError(f"{where} has no key {key!r}; {_nearest(str(key), fields)}")
        return hint(**{key: _coerce(item, fields[key], f"{where}.{key}") for key, item in value.items()})
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise ConfigError(f"{where} is {value!r}; expected {hint.__name__}")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple) else value
