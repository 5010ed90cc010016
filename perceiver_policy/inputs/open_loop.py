"""An observation without what is to be observed: the time, and which row is whose.

SMACv2 (Ellis et al., 2023, section 4) trains policies that are told the time step and their own number alone,
to see how far a scenario can be won by heart. Here a unit's number is its row, which it also aims by. Legal
orders stay masked as in SMAC, so that a unit that is dead, or a row that cannot be aimed at, still shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def time_only(
    observation: Mapping[str, Tensor], time_columns: Sequence[int], num_unit_types: int
) -> dict[str, Tensor]:
    """The observation with empty rows; a row's number stands in for its type.

    Args:
        observation: see :mod:`perceiver_policy.policy`; ``state_*`` is left as it is.
        time_columns: of ``scalars``, to be kept; the others become 0.
        num_unit_types: capacity of the type embedding; rows past it are numbered from 0 again.

    Returns:
        What changed is new: ``units`` of zeros, ``unit_mask`` of False, ``unit_type`` and ``scalars``.
    """
    units, scalars = observation["units"], observation["scalars"]
    numbers = torch.arange(units.shape[1], device=units.device) % num_unit_types
    kept = torch.zeros_like(scalars)
    kept[:, list(time_columns)] = scalars[:, list(time_columns)]
    return {
        **observation,
        "units": torch.zeros_like(units),
        "unit_mask": torch.zeros_like(observation["unit_mask"]),
        "unit_type": numbers.expand(len(units), -1),
        "scalars": kept,
    }
