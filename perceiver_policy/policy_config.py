"""Configuration of :class:`~perceiver_policy.policy.UnitSetPolicy`: the whole policy, and its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from perceiver_policy.config import Config, ConfigError, DecoderConfig, EncoderConfig


class Critic(StrEnum):
    """What the value is computed from."""

    OBSERVATION = "observation"  # what the actor sees, sharing the actor's latents
    STATE = "state"  # the full unit set (``state_*``), with an encoder of its own


class Sight(StrEnum):
    """What the actor reads of an observation."""

    UNITS = "units"  # the unit set
    TIME = "time"  # the time and its own row's number: an open loop, the baseline of SMACv2


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

    kind: ClassVar[str] = "unit_set_policy"
    minimum: ClassVar[Mapping[str, float]] = {"time_columns": 0}

    num_unit_features: int = 32  # F, columns of ``units``
    num_scalars: int = 6  # S
    num_verbs: int = 14  # V
    num_target_verbs: int = 2  # V_t, the last V_t of the verbs
    num_unit_types: int = 256  # capacity of the type embedding; larger indices are refused by the lookup
    critic: Critic = Critic.OBSERVATION
    memory: bool = False  # whether latents are carried from step to step
    sight: Sight = Sight.UNITS
    time_columns: tuple[int, ...] = (0, 1)  # of ``scalars``, which an actor that sees the time alone keeps
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
        for i, column in enumerate(self.time_columns):
            if column >= self.num_scalars:
                allowed = f"num_scalars {self.num_scalars} allows 0 to {self.num_scalars - 1}"
                raise ConfigError(f"{type(self).__name__}.time_columns[{i}] is {column}; {allowed}")
        self.decoder.check_query_channels(self.unit_input.num_channels)
