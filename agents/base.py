"""What can play a side of a battle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Observation: TypeAlias = Mapping[str, NDArray]
"""The arrays of the unit-set contract (``envs/unit_set.py``), all with the same leading dimensions."""

Orders: TypeAlias = NDArray[np.int64]
"""(..., A, 2): a verb and a target row for every controlled slot."""


class Agent(Protocol):
    """Answers observations with orders: either side, any number of units, any leading dimensions.

    The answer to one battle's observation does not depend on the battles beside it, except through the
    draws of agents that draw.
    """

    name: str
    """What results and tables call it."""
    deterministic: bool
    """Whether it answers the same observation always alike."""
    remembers: bool
    """Whether answers depend on earlier steps: it must then be shown the same battles, in the same places, at
    every step."""

    def reset(self, seed: int) -> None:
        """Start afresh and draw from ``seed`` from now on."""

    def act(self, observation: Observation) -> Orders:
        """Legal orders for every controlled slot; a slot without a living unit gets NO_OP."""
