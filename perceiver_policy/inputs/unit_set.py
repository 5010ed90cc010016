"""A unit set as tokens, and the geometry between its rows.

Positions arrive in map cells. :class:`UnitSetInput` makes them relative to the observer's centre, so that
a fight looks the same anywhere on the map; :class:`PairGeometry` gives what each commanded unit needs to
know of every row: where it is, how far beyond whose weapon range, how healthy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_policy.activation import ACTIVATIONS
from perceiver_policy.pairs import Pairs
from perceiver_policy.policy_config import (
    GeometryColumns,
    PairConfig,
    UnitInputConfig,
    UnitSetPolicyConfig,
)
from perceiver_policy.position import FourierEncoding

TYPE_INIT_STD = 0.1


class UnitSetInput(nn.Module):
    """Rows to tokens: a small MLP over a row's columns, its Fourier-encoded position and its type.
    The scalars make one more token, so the set the encoder reads is never empty.

    Args:
        config: widths and scales.
        geometry: columns of ``units``.
        num_unit_features: F.
        num_unit_types: capacity of the type embedding.
        num_scalars: S.
    """

    is_position: Tensor
    column_scale: Tensor

    def __init__(
        self,
        config: UnitInputConfig,
        geometry: GeometryColumns,
        *,
        num_unit_features: int,
        num_unit_types: int,
        num_scalars: int,
    ) -> None:
        super().__init__()
        self.position_columns = [geometry.x, geometry.y]
        is_position, column_scale = torch.zeros(num_unit_features), torch.ones(num_unit_features)
        is_position[self.position_columns] = 1.0
        column_scale[[geometry.x, geometry.y, geometry.radius, geometry.weapon_range]] /= config.length_scale
        self.register_buffer("is_position", is_position, persistent=False)
        self.register_buffer("column_scale", column_scale, persistent=False)
        self.position = FourierEncoding(
            config.num_frequency_bands, [config.max_frequency] * 2, concat_position=False
        )
        self.features = nn.Linear(num_unit_features + self.position.num_channels, config.num_hidden_channels)
        self.unit_type = nn.Embedding(num_unit_types, config.num_hidden_channels)
        nn.init.normal_(self.unit_type.weight, std=TYPE_INIT_STD)
        self.activation = ACTIVATIONS[config.activation]()
        self.token = nn.Linear(config.num_hidden_channels, config.num_channels)
        self.scalars = nn.Linear(num_scalars, config.num_channels)

    @classmethod
    def of_policy(cls, config: UnitSetPolicyConfig) -> UnitSetInput:
        """The input that a policy's configuration describes."""
        return cls(
            config.unit_input,
            config.geometry,
            num_unit_features=config.num_unit_features,
            num_unit_types=config.num_unit_types,
            num_scalars=config.num_scalars,
        )

    def forward(
        self, units: Tensor, unit_type: Tensor, unit_mask: Tensor, scalars: Tensor, centre: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Make tokens.

        Args:
            units: (B, U, F) float.
            unit_type: (B, U) int64, in [0, num_unit_types).
            unit_mask: (B, U) bool, True where a row holds a unit.
            scalars: (B, S) float.
            centre: (B, F) float, a row whose position columns are the observer's centre.

        Returns:
            The rows' tokens (B, U, C); the whole set (B, U + 1, C), scalars last; its mask (B, U + 1) bool.
        """
        rows = (units - (centre * self.is_position).unsqueeze(1)) * self.column_scale
        features = torch.cat((rows, self.position(rows[..., self.position_columns])), dim=-1)
        tokens = self.token(self.activation(self.features(features) + self.unit_type(unit_type)))
        inputs = torch.cat((tokens, self.scalars(scalars).unsqueeze(1)), dim=1)
        mask = torch.cat((unit_mask, unit_mask.new_ones(len(unit_mask), 1)), dim=1)
        return tokens, inputs, mask


class PairGeometry(nn.Module):
    """Geometry from each controlled unit to each row, embedded.

    Ten features, then the row's columns named by the configuration: offset (dx, dy), distance, direction
    (dx, dy over distance), edge-to-edge distance beyond the unit's own weapon range and beyond the row's,
    whether each is in the other's range, whether the row is the unit itself. Lengths are divided by
    ``length_scale``.

    Args:
        config: width and columns.
        geometry: columns of ``units``.
        length_scale: map cells that count as distance 1.
    """

    NUM_FEATURES = 10
    columns: Tensor

    def __init__(self, config: PairConfig, geometry: GeometryColumns, length_scale: float) -> None:
        super().__init__()
        self.length_scale = length_scale
        g = geometry
        columns = [g.x, g.y, g.radius, g.weapon_range, g.own, g.enemy, *config.row_columns]
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.embed = nn.Linear(self.NUM_FEATURES + len(columns) - 4, config.num_channels)

    def features(self, units: Tensor, controlled: Tensor, is_self: Tensor) -> Tensor:
        """(G, B, A, U) float: the features of pairs. Arguments as for :meth:`forward`."""
        # One plane per feature: planes are written whole, and concatenate without interleaving.
        scale = 1.0 / self.length_scale
        columns = self.columns[:4]
        rows = units.index_select(-1, columns).movedim(-1, 0).unsqueeze(2)  # (4, B, 1, U)
        own = controlled.index_select(-1, columns).movedim(-1, 0).unsqueeze(-1)  # (4, B, A, 1)
        offset = (rows[:2] - own[:2]) * scale
        distance = torch.hypot(offset[0], offset[1]).unsqueeze(0)
        gap = distance - (rows[2] + own[2]) * scale
        beyond = torch.cat((gap - own[3] * scale, gap - rows[3] * scale))
        direction = offset / distance.clamp_min(1e-3)
        in_range = (beyond <= 0).to(units.dtype)
        return torch.cat((offset, distance, direction, beyond, in_range, is_self.unsqueeze(0)))

    def forward(self, units: Tensor, unit_mask: Tensor, controlled: Tensor, is_self: Tensor) -> Pairs:
        """Embed the geometry.

        Args:
            units: (B, U, F) float.
            unit_mask: (B, U) bool, True where a row holds a unit.
            controlled: (B, A, F) float, the controlled units' rows.
            is_self: (B, A, U) float, 1 where a row is the controlled unit itself.
        """
        of_pairs, of_rows = self.embed.weight.tensor_split([self.NUM_FEATURES], dim=1)
        rows = F.linear(units.index_select(-1, self.columns[4:]), of_rows, self.embed.bias)
        return Pairs(rows, self.features(units, controlled, is_self), of_pairs.T, unit_mask)
