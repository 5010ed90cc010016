"""A model is one configuration: frozen dataclasses here, a YAML file or a plain dict elsewhere.

Sharing the file shares the model; nothing about a model lives outside it. Every value is checked when the
dataclass is made, whether by hand, from a dict or from a file, and an error names the key, the value and
what would be allowed. :mod:`perceiver_policy.config_files` reads and writes the files.

Here are what all configurations have in common and those of the core. An adapter, a query or a head has its
configuration beside its module, with a ``kind`` that names it in a file::

    input: {kind: image, ...}
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, ClassVar, TypeVar

from perceiver_policy.activation import ACTIVATIONS

ConfigT = TypeVar("ConfigT", bound="Config")

LARGEST = 65536
"""No whole number in a configuration is larger: each is a width or a count, and a file's may be a mistake."""
LARGEST_VOCABULARY = 2**24
"""Except those of a vocabulary or a context."""


class ConfigError(ValueError):
    """A configuration that cannot be built; the message names the key, the value and the allowed ones."""


class Placement(StrEnum):
    """Where the cross-attention layers of an encoder stand (Perceiver, arXiv:2103.03206, table 6)."""

    START = "start"  # all of them before the first block
    INTERLEAVED = "interleaved"  # one before every (num_blocks / num_cross_attention_layers)-th block


class Sharing(StrEnum):
    """Which cross-attention layers of an encoder have weights in common."""

    NONE = "none"
    ALL_BUT_FIRST = "all_but_first"  # the published Perceiver: 44.9 M weights for ImageNet
    ALL = "all"


class EmptyAttention(StrEnum):
    """What a query receives that may attend to nothing."""

    ZEROS = "zeros"
    MEAN = "mean"  # of all values, masked or not, as Hugging Face's implementation does


@dataclass(frozen=True)
class Config:
    """What all configurations share: checked fields, and the way to and from plain dicts."""

    kind: ClassVar[str] = ""
    """What a file calls this configuration where several are possible; empty where only one is."""
    minimum: ClassVar[Mapping[str, float]] = {}
    """Smallest allowed value by field name; numbers not listed must be at least 1."""
    maximum: ClassVar[Mapping[str, int]] = {}
    """Largest allowed whole number by field name; those not listed may be up to :data:`LARGEST`."""

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():
            where = f"{type(self).__name__}.{name}"
            value = _coerce(getattr(self, name), hint, where)
            object.__setattr__(self, name, value)
            for number in _numbers(value):
                least = self.minimum.get(name, 1)
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
        kind = {"kind": self.kind} if self.kind else {}
        return kind | {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

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

    minimum: ClassVar[Mapping[str, float]] = {"attention_dropout": 0.0}
    maximum: ClassVar[Mapping[str, int]] = {
        "num_self_attention_layers_per_block": 256,
        "num_blocks": 256,
        "num_cross_attention_layers": 256,
    }

    num_latents: int = 4
    num_latent_channels: int = 32
    num_cross_attention_layers: int = 1  # how often the inputs are read
    cross_attention_placement: Placement = Placement.INTERLEAVED
    cross_attention_sharing: Sharing = Sharing.ALL_BUT_FIRST
    num_cross_attention_heads: int = 2
    num_cross_attention_qk_channels: int | None = None
    num_cross_attention_v_channels: int | None = None
    cross_attention_widening_factor: int = 2
    cross_attention_residual: bool = True
    num_self_attention_heads: int = 2
    num_self_attention_qk_channels: int | None = None
    num_self_attention_v_channels: int | None = None
    num_self_attention_layers_per_block: int = 1
    num_blocks: int = 1  # how often a block of layers is applied
    share_blocks: bool = True  # whether it is the same block each time
    self_attention_widening_factor: int = 2
    activation: str = "relu"
    attention_dropout: float = 0.0  # probability, while training
    empty_attention: EmptyAttention = EmptyAttention.ZEROS
    activation_checkpointing: bool = False  # layers run again in the backward pass instead of being kept

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_known_activation()
        self._require(self.attention_dropout < 1, "attention_dropout", "it must be below 1")
        for kind in ("cross", "self"):
            qk = getattr(self, f"num_{kind}_attention_qk_channels") or self.num_latent_channels
            v = getattr(self, f"num_{kind}_attention_v_channels") or qk
            for channels, what in ((qk, "the query and key channels"), (v, "the value channels")):
                self._require_heads_divide(f"num_{kind}_attention_heads", channels, what)
        if self.cross_attention_placement is Placement.INTERLEAVED:
            fitting = [n for n in range(1, self.num_blocks + 1) if self.num_blocks % n == 0]
            self._require(
                self.num_cross_attention_layers in fitting,
                "num_cross_attention_layers",
                f"interleaved with num_blocks {self.num_blocks} it must divide that: one of {fitting}",
            )


@dataclass(frozen=True)
class DecoderConfig(Config):
    """The Perceiver decoder: one cross-attention from the queries to the latents. ``num_query_channels``
    is decided by the queries, so heads are checked where the two meet."""

    minimum: ClassVar[Mapping[str, float]] = {"attention_dropout": 0.0}

    num_cross_attention_heads: int = 2
    num_cross_attention_qk_channels: int | None = None
    num_cross_attention_v_channels: int | None = None
    widening_factor: int = 2
    query_residual: bool = True
    activation: str = "relu"
    attention_dropout: float = 0.0  # probability, while training

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_known_activation()
        self._require(self.attention_dropout < 1, "attention_dropout", "it must be below 1")

    def check_query_channels(self, num_query_channels: int) -> None:
        """Raise :class:`ConfigError` if the heads do not divide the width they will work on."""
        qk = self.num_cross_attention_qk_channels or num_query_channels
        v = self.num_cross_attention_v_channels or qk
        for channels, what in ((qk, "the query and key channels"), (v, "the value channels")):
            self._require_heads_divide("num_cross_attention_heads", channels, what)


def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def nearest(name: str, allowed: Iterable[str]) -> str:
    """``did you mean ...?`` if something allowed is spelled like ``name``, else all that is allowed."""
    allowed = list(allowed)
    near = difflib.get_close_matches(name, allowed, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(allowed)}"


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """The value as the type the hint asks for, or a :class:`ConfigError` naming ``where``."""
    if isinstance(hint, types.UnionType):
        if value is None and type(None) in hint.__args__:
            return None
        arms = [arm for arm in hint.__args__ if arm is not type(None)]
        return _coerce(value, arms[0] if len(arms) == 1 else _of_kind(value, arms, where), where)
    if typing.get_origin(hint) is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}; expected a mapping")
        return {
            _coerce(key, hint.__args__[0], where): _coerce(item, hint.__args__[1], f"{where}.{key}")
            for key, item in value.items()
        }
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
        if hint.kind and value.get("kind", hint.kind) != hint.kind:
            raise ConfigError(f"{where}.kind is {value['kind']!r}; expected {hint.kind!r}")
        value = {key: item for key, item in value.items() if not (hint.kind and key == "kind")}
        for key in value:
            if key not in fields:
                raise ConfigError(f"{where} has no key {key!r}; {nearest(str(key), fields)}")
        return hint(**{key: _coerce(item, fields[key], f"{where}.{key}") for key, item in value.items()})
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise ConfigError(f"{where} is {value!r}; expected {hint.__name__}")
    return value


def _of_kind(value: Any, kinds: Iterable[type[Config]], where: str) -> type[Config]:
    """The one of several configurations that ``value`` is or, by its ``kind``, describes."""
    by_kind = {kind.kind: kind for kind in kinds}
    if isinstance(value, Config):
        name: Any = value.kind
    elif isinstance(value, Mapping):
        name = value.get("kind")
    else:
        raise ConfigError(f"{where} is {value!r}; expected a mapping with a kind: {', '.join(by_kind)}")
    if name not in by_kind:
        raise ConfigError(f"{where}.kind is {name!r}; {nearest(str(name), by_kind)}")
    return by_kind[name]


def _numbers(value: Any) -> list[int | float]:
    """The numbers in a field's value: itself, or those in its tuple or dict."""
    values = value if isinstance(value, tuple) else value.values() if isinstance(value, dict) else (value,)
    return [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
