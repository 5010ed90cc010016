"""Battles of different sizes in one train batch: padded to the largest, and cut to their own before the
network.

A train batch is one array a column, so that every row in it has the largest battle's slots and unit rows.
:data:`SIZE` says what each row really has; :func:`by_size` takes a (mini)batch apart by it and cuts every
part to its size, so that nothing is computed for padding: a row of 3m never pays for the 57 units of
27m_vs_30m.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

SIZE = "battle_size"
"""Column (N,) int64 of batches of a setup with several sizes: which of them each row has."""


class BattleSize(NamedTuple):
    """What the shapes of a battle's arrays depend on."""

    observers: int
    """O, that command a side: 1 under team control."""
    slots: int
    """A, units an observer commands."""
    units: int
    """U, rows of units an observer sees."""

    @classmethod
    def of(cls, observation: Mapping[str, NDArray[Any]]) -> BattleSize:
        """Of observations (B, ...) under team control, or (B, O, ...)."""
        *observers, slots = observation["controlled_mask"].shape[1:]
        return cls(observers[0] if observers else 1, slots, observation["unit_mask"].shape[-1])


def largest(sizes: Iterable[BattleSize]) -> BattleSize:
    """The smallest size that all of these fit into."""
    return BattleSize(*(max(counts) for counts in zip(*sizes, strict=True)))


_SLOTS, _UNITS = "slots", "units"
_AXES: dict[str, dict[int, str]] = {
    "units": {-2: _UNITS},
    "unit_type": {-1: _UNITS},
    "unit_mask": {-1: _UNITS},
    "controlled": {-1: _SLOTS},
    "controlled_mask": {-1: _SLOTS},
    "verb_mask": {-2: _SLOTS},
    "target_mask": {-3: _SLOTS, -1: _UNITS},
    "scalars": {},
    "state_units": {-2: _UNITS},
    "state_unit_type": {-1: _UNITS},
    "state_unit_mask": {-1: _UNITS},
    Columns.ACTIONS: {-2: _SLOTS},
    Columns.ACTION_DIST_INPUTS: {-2: _SLOTS, -1: _UNITS},
}
"""Which axis of a key counts what."""
_PER_SLOT = (Columns.ACTION_LOGP, Postprocessing.ADVANTAGES, Postprocessing.VALUE_TARGETS, Columns.LOSS_MASK)
"""Columns whose last axis counts slots where each unit has a ratio of its own."""
_MASKED_LOGIT = -1e9


def padded(
    key: str, array: NDArray[Any], *, size: BattleSize, to: BattleSize, per_unit: bool
) -> NDArray[Any]:
    """An array of one size, enlarged at the end of its axes: empty slots and unit rows.

    Args:
        key: of an observation, or a column.
        array: (N, ...).
        size: what it has.
        to: what it is to have.
        per_unit: whether each unit has a ratio of its own.
    """
    more = {_SLOTS: to.slots - size.slots, _UNITS: to.units - size.units}
    widths = [(0, 0)] * array.ndim
    for axis, counts in _axes(key, per_unit=per_unit).items():
        if array.shape[axis]:  # logits that are not kept have no last axis to enlarge
            widths[axis] = (0, more[counts])
    fill = _MASKED_LOGIT if key == Columns.ACTION_DIST_INPUTS else 0
    return np.pad(array, widths, constant_values=fill) if any(map(any, widths)) else array


def by_size(
    batch: Mapping[str, Any],
    sizes: Sequence[BattleSize],
    *,
    per_unit: bool,
    total: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda sums: sums,
) -> Iterator[tuple[float, dict[str, Any]]]:
    """A (mini)batch with :data:`SIZE` in parts of one size each, cut to it, with the weight of each part's
    loss.

    A loss is a mean over the living units of a part, or its observers. Its weight is the part's share of the
    battles' steps, so that a step counts the same whatever the number of units: under unit control it makes
    as many rows as there are units. With several learners the weights are such that the average over the
    learners is the one over all their steps.

    Args:
        batch: columns (N, ...), observations under ``Columns.OBS``; states one for each sequence of rows.
        sizes: what :data:`SIZE` counts.
        per_unit: whether each unit has a ratio of its own.
        total: adds up sums over several learners.
    """
    which, mask = batch[SIZE], batch[Columns.LOSS_MASK]
    rows = np.bincount(which.cpu().numpy(), minlength=len(sizes))
    steps = rows / np.array([size.observers for size in sizes])
    entries = np.bincount(which.cpu().numpy(), mask.reshape(len(mask), -1).sum(1).cpu().numpy(), len(sizes))
    summed = total(np.stack([steps, entries]).astype(np.float64))
    share = summed[0] / summed[0].sum()
    learners = total(np.ones(1))[0]
    own = learners * entries / np.maximum(summed[1], 1)
    full = BattleSize(
        1, batch[Columns.OBS]["controlled_mask"].shape[-1], batch[Columns.OBS]["unit_mask"].shape[-1]
    )
    for number in np.flatnonzero(entries).tolist():
        chosen = torch.nonzero(which == number).squeeze(-1)
        cut = functools.partial(_cut, full=full, size=sizes[number], per_unit=per_unit)
        part = {key: _taken(key, column, chosen, len(which)) for key, column in batch.items() if key != SIZE}
        part = {key: column if isinstance(column, dict) else cut(key, column) for key, column in part.items()}
        part[Columns.OBS] = {key: cut(key, column) for key, column in part[Columns.OBS].items()}
        yield float(share[number] * own[number]), part


def _taken(key: str, column: Any, rows: Tensor, num_rows: int) -> Any:
    """Some rows of a column, or of each column in it; of states, those of their sequences."""
    if isinstance(column, Mapping):
        return {name: _taken(key, inner, rows, num_rows) for name, inner in column.items()}
    if key == Columns.STATE_IN:
        length = num_rows // len(column)
        return column[rows[::length] // length]
    return column[rows]


def _cut(key: str, rows: Tensor, *, full: BattleSize, size: BattleSize, per_unit: bool) -> Tensor:
    """Rows without the padding at the end of their axes."""
    less = {_SLOTS: full.slots - size.slots, _UNITS: full.units - size.units}
    for axis, counts in _axes(key, per_unit=per_unit).items():
        if rows.shape[axis]:
            rows = rows.narrow(axis, 0, rows.shape[axis] - less[counts])
    return rows


def _axes(key: str, *, per_unit: bool) -> Mapping[int, str]:
    if key in _PER_SLOT:
        return {-1: _SLOTS} if per_unit else {}
    return _AXES.get(key, {})
