"""Random observations that obey the unit-set contract, for any batch, number of rows and slots."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from perceiver_policy import UnitSetPolicy, UnitSetPolicyConfig

NUM_FEATURES, NUM_SCALARS, NUM_VERBS, NUM_TARGET_VERBS = 32, 6, 14, 2
FIRST_TARGET_VERB = NUM_VERBS - NUM_TARGET_VERBS

Observation = dict[str, Tensor]


def random_units(generator: torch.Generator, batch: int, num_units: int, mask: Tensor) -> Tensor:
    """(batch, num_units, F): positions on a 32 x 32 map, allegiance flags, and noise elsewhere."""
    units = torch.rand(batch, num_units, NUM_FEATURES, generator=generator)
    units[..., :2] *= 32.0
    units[..., 3] *= 6.0
    side = torch.randint(0, 3, (batch, num_units), generator=generator)  # 2: neutral
    units[..., 4], units[..., 5] = (side == 0).float(), (side == 1).float()
    return units * mask.unsqueeze(-1)


def build_observation(
    batch: int = 4, num_units: int = 7, num_slots: int = 3, *, seed: int = 0
) -> Observation:
    """A batch of observations: about a third of the rows absent, slots dead where no own row is left."""
    g = torch.Generator().manual_seed(seed)
    unit_mask = torch.rand(batch, num_units, generator=g) < 0.7
    units = random_units(g, batch, num_units, unit_mask)
    # Slot a commands the a-th own row, in random order; slots beyond the own rows are dead.
    own = units[..., 4] > 0
    order = (torch.rand(batch, num_units, generator=g) - own.float()).argsort(-1)
    order = torch.nn.functional.pad(order, (0, max(0, num_slots - num_units)))[:, :num_slots]
    alive = torch.arange(num_slots) < own.sum(-1, keepdim=True)
    target_mask = torch.rand(batch, num_slots, NUM_TARGET_VERBS, num_units, generator=g) < 0.5
    target_mask &= unit_mask[:, None, None] & alive[:, :, None, None]
    verb_mask = torch.rand(batch, num_slots, NUM_VERBS, generator=g) < 0.7
    verb_mask &= alive.unsqueeze(-1)
    verb_mask[..., 0] = True
    verb_mask[..., FIRST_TARGET_VERB:] = target_mask.any(-1)
    state_mask = torch.rand(batch, num_units, generator=g) < 0.8
    return {
        "units": units,
        "unit_type": torch.randint(0, 50, (batch, num_units), generator=g) * unit_mask,
        "unit_mask": unit_mask,
        "controlled": order * alive,
        "controlled_mask": alive,
        "verb_mask": verb_mask,
        "target_mask": target_mask,
        "scalars": torch.rand(batch, NUM_SCALARS, generator=g),
        "state_units": random_units(g, batch, num_units, state_mask),
        "state_unit_type": torch.randint(0, 50, (batch, num_units), generator=g) * state_mask,
        "state_unit_mask": state_mask,
    }


@pytest.fixture
def make_observation() -> Callable[..., Observation]:
    """``make_observation(batch, num_units, num_slots, seed=0)``."""
    return build_observation


@pytest.fixture
def make_policy() -> Callable[..., UnitSetPolicy]:
    """``make_policy(seed=0, **config)``: a policy whose logits are far from uniform."""

    def make(seed: int = 0, **config: object) -> UnitSetPolicy:
        torch.manual_seed(seed)
        policy = UnitSetPolicy(UnitSetPolicyConfig.from_dict(config))
        with torch.no_grad():
            for parameter in policy.order_head.parameters():
                parameter.normal_(std=0.4)
        return policy.eval()

    return make
