"""Queries of several modalities as one sequence, of which any part can be asked.

Each modality's queries come from a provider of its own, are brought to one width by channels of the
modality, and follow one another in the order of the sorted names. (Perceiver IO, arXiv:2107.14795,
section 4.3.) A query has two numbers: its own within the modality, and its place in the whole sequence, the
flat index, of which decoding in chunks takes one stretch after another::

    sizes  {"audio": 3, "image": 2}
    own     0 1 2        0 1
    flat    0 1 2        3 4
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from torch import Tensor

from perceiver_policy.config import Config, nearest
from perceiver_policy.modalities import ChannelPadding, by_name, check_names
from perceiver_policy.queries.input import InputQueryConfig
from perceiver_policy.queries.learned import LearnedQueryConfig
from perceiver_policy.queries.position import PositionQueryConfig
from perceiver_policy.queries.provider import QueryProvider
from perceiver_policy.queries.task import TaskQueryConfig
from perceiver_policy.tokens import Tokens

ModalityQueryConfig = LearnedQueryConfig | PositionQueryConfig | InputQueryConfig | TaskQueryConfig
"""What a modality of :class:`MultimodalQueryConfig` may be."""


@dataclass(frozen=True)
class MultimodalQueryConfig(Config):
    """The modalities' queries, by name."""

    kind: ClassVar[str] = "multimodal"
    minimum: ClassVar[Mapping[str, float]] = {"min_padding": 0}

    modalities: dict[str, ModalityQueryConfig] = field(
        default_factory=lambda: {"label": LearnedQueryConfig()}
    )
    min_padding: int = 2  # fewest channels appended to a modality's queries
    num_channels: int | None = None  # width of a query; None: the widest modality's and min_padding

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.modalities, f"{type(self).__name__}.modalities")


class MultimodalQuery(QueryProvider):
    """Queries of several modalities, in the order of their sorted names.

    A modality that is also one of the input's gets that modality's tokens alone, not all of them.

    Args:
        config: modalities and widths.
        providers: the modalities' own, as configured.

    Raises:
        ConfigError: other providers than the configuration names, or too few channels for the widest.
    """

    def __init__(self, config: MultimodalQueryConfig, providers: Mapping[str, QueryProvider]) -> None:
        super().__init__()
        self.providers = by_name(providers, config.modalities, "query providers")
        self.padding = ChannelPadding(
            {name: provider.num_channels for name, provider in providers.items()},
            min_padding=config.min_padding,
            num_channels=config.num_channels,
            where=type(config).__name__,
        )
        self.num_channels = self.padding.num_channels

    def sizes(self, tokens: Tokens) -> dict[str, int]:
        """Queries of each modality."""
        return {
            name: cast(QueryProvider, provider).num_queries(tokens.of_modality(name))
            for name, provider in self.providers.items()
        }

    def num_queries(self, tokens: Tokens) -> int:
        """Queries of all modalities."""
        return sum(self.sizes(tokens).values())

    def forward(self, tokens: Tokens, index: Tensor | None = None) -> Tensor:
        """Ask.

        Args:
            tokens: what the encoder read.
            index: (k,) int64, flat; :func:`flatten_index` makes it from each modality's own.

        Returns:
            (B, k, Q) float, or (k, Q) where no modality's queries depend on the example.

        Raises:
            ValueError: an index out of range.
        """
        if index is None:
            return _join([self._ask(name, tokens, None) for name in self.providers])
        places, parts = [], []
        for name, (place, own) in locate(self.sizes(tokens), index).items():
            places.append(place)
            parts.append(self._ask(name, tokens, own))
        if len(parts) == 1:
            return parts[0]
        if not parts:  # nothing is asked, of any modality
            return self._ask(next(iter(self.providers)), tokens, index)
        return _join(parts)[..., torch.cat(places).argsort(), :]

    def _ask(self, name: str, tokens: Tokens, own: Tensor | None) -> Tensor:
        return self.padding(name, self.providers[name](tokens.of_modality(name), own))


def _join(parts: list[Tensor]) -> Tensor:
    """(B, K, Q) of all parts (B, k, Q) or (k, Q); (K, Q) if all are alike for every example."""
    batch = next((part.shape[:1] for part in parts if part.dim() == 3), ())
    return torch.cat([part.expand(*batch, *part.shape[-2:]) for part in parts], dim=-2)


def flatten_index(sizes: Mapping[str, int], index: Mapping[str, Tensor | None]) -> Tensor:
    """The flat index of some queries of some modalities.

    Args:
        sizes: queries of each modality, as :meth:`MultimodalQuery.sizes` gives them.
        index: which queries of a modality, (k,) int64; None for all of them. A modality left out is not
            asked.

    Returns:
        (K,) int64, modality after modality in the order of their sorted names.

    Raises:
        ValueError: an unknown modality, or an index out of range.
    """
    for name, own in index.items():
        if name not in sizes:
            raise ValueError(f"unknown modality {name!r}; {nearest(name, sorted(sizes))}")
        if own is not None:
            check_range(own, sizes[name], f"modality {name!r}")
    device = next((own.device for own in index.values() if own is not None), None)
    parts, start = [torch.empty(0, dtype=torch.int64, device=device)], 0
    for name in sorted(sizes):
        if name in index:
            own = index[name]
            parts.append(start + (torch.arange(sizes[name], device=device) if own is None else own))
        start += sizes[name]
    return torch.cat(parts)


def locate(sizes: Mapping[str, int], index: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What a flat index asks of each modality: the way back from :func:`flatten_index`.

    Args:
        sizes: queries of each modality.
        index: (K,) int64, flat, in any order.

    Returns:
        For each modality that is asked anything, in the order of the names: at which places of ``index``,
        (k,) int64, ascending; and which of the modality's own queries these are, (k,) int64.

    Raises:
        ValueError: an index out of range.
    """
    check_range(index, sum(sizes.values()), f"the modalities {dict(sorted(sizes.items()))}")
    located, start = {}, 0
    for name in sorted(sizes):
        stop = start + sizes[name]
        place = ((index >= start) & (index < stop)).nonzero().squeeze(1)
        if len(place):
            located[name] = (place, index[place] - start)
        start = stop
    return located


def split(answers: Tensor, sizes: Mapping[str, int], index: Tensor | None = None) -> dict[str, Tensor]:
    """Answers by modality.

    Args:
        answers: (B, K, Q) float.
        sizes: queries of each modality.
        index: (K,) int64, flat, which of the queries were answered; None for all.

    Returns:
        (B, k, Q) float for each modality that was asked anything, in the order in which it was asked.

    Raises:
        ValueError: not one answer for each query, or an index out of range.
    """
    asked = sum(sizes.values()) if index is None else len(index)
    if answers.shape[1] != asked:
        raise ValueError(
            f"there are {answers.shape[1]} answers to {asked} queries; "
            "pass the sizes and the index that the queries were made with"
        )
    if index is None:
        names = sorted(sizes)
        parts = answers.split([sizes[name] for name in names], dim=1)
        return {name: part for name, part in zip(names, parts, strict=True) if part.shape[1]}
    return {name: answers[:, place] for name, (place, _) in locate(sizes, index).items()}


def check_range(index: Tensor, size: int, what: str) -> None:
    """Raise :class:`ValueError` if ``index`` (k,) int64 asks for others than ``what`` has: 0 to size - 1."""
    wrong = index[(index < 0) | (index >= size)]
    if len(wrong):
        raise ValueError(f"query {int(wrong[0])} is asked of {what}; allowed: 0 to {size - 1}")
