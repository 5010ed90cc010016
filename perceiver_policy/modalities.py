"""What inputs and queries of several modalities have in common: their names, and one width for all.

Vectors of different widths become a single sequence by trainable channels appended to each, which are
different for each modality and so also say which it is. (Perceiver IO, arXiv:2107.14795, section 3.2.)
Wherever modalities follow one another, they do so in the order of their sorted names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from perceiver_policy.config import ConfigError

PADDING_INIT_STD = 0.02


def check_names(names: Iterable[str], where: str) -> None:
    """Raise :class:`ConfigError`, saying ``where``, if there are no names or one cannot name a module."""
    names = list(names)
    if not names:
        raise ConfigError(f"{where} is empty; it must name at least one modality")
    for name in names:
        # torch.nn's dicts hold their entries as attributes beside their own.
        if not name or "." in name or hasattr(nn.ModuleDict(), name) or hasattr(nn.ParameterDict(), name):
            raise ConfigError(
                f"{where} has a modality named {name!r}; that name is torch's own, empty or has a dot in "
                "it: choose another, such as modality_1"
            )


def by_name(parts: Mapping[str, nn.Module], names: Iterable[str], what: str) -> nn.ModuleDict:
    """The parts of each modality, in the order of their sorted names.

    Args:
        parts: as they were built.
        names: the configuration's modalities.
        what: what an error calls the parts.

    Raises:
        ConfigError: other parts than the configuration names.
    """
    if set(parts) != set(names):
        raise ConfigError(
            f"there are {what} for {sorted(parts)}; the configuration's modalities are {sorted(names)}"
        )
    return nn.ModuleDict({name: parts[name] for name in sorted(parts)})


class ChannelPadding(nn.Module):
    """Brings every modality to one width, by trainable channels of its own.

    Args:
        widths: channels of each modality.
        min_padding: fewest channels appended to any of them.
        num_channels: C, the common width; None: the widest modality and ``min_padding``.
        where: what the errors call the configuration.

    Raises:
        ConfigError: ``num_channels`` does not hold the widest modality and its padding.
    """

    def __init__(
        self, widths: Mapping[str, int], *, min_padding: int, num_channels: int | None, where: str
    ) -> None:
        super().__init__()
        needed = max(widths.values()) + min_padding
        if num_channels is not None and num_channels < needed:
            raise ConfigError(
                f"{where}.num_channels is {num_channels}; it must be at least {needed}, the "
                f"{max(widths.values())} channels of the widest modality and {min_padding} of padding"
            )
        self.num_channels = needed if num_channels is None else num_channels
        self.vectors = nn.ParameterDict(
            {name: torch.empty(self.num_channels - widths[name]) for name in sorted(widths)}
        )
        for vector in self.vectors.values():
            nn.init.trunc_normal_(cast(Tensor, vector), std=PADDING_INIT_STD)

    def forward(self, name: str, rows: Tensor) -> Tensor:
        """(..., C) from a modality's (..., width) float."""
        vector = self.vectors[name]
        return torch.cat((rows, vector.to(rows.dtype).expand(*rows.shape[:-1], -1)), dim=-1)
