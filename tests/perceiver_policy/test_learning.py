"""A small problem is learned from rewards alone: point at the nearest enemy."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.unit_set import FEATURE_INDEX, NUM_SCALARS, NUM_UNIT_FEATURES, NUM_VERBS, Verb
from perceiver_policy import UnitSetPolicy, UnitSetPolicyConfig, load_named

NUM_OWN, NUM_ENEMIES, BATCH = 2, 4, 128


def skirmishes(
    generator: torch.Generator, num_enemies: int = NUM_ENEMIES
) -> tuple[dict[str, Tensor], Tensor]:
    """Own units and enemies strewn over 16 x 16 cells, and the row of the enemy nearest to each own unit."""
    num_units = NUM_OWN + num_enemies
    own = torch.arange(num_units) < NUM_OWN
    units = torch.zeros(BATCH, num_units, NUM_UNIT_FEATURES)
    units[..., :2] = 16.0 * torch.rand(BATCH, num_units, 2, generator=generator)
    units[..., FEATURE_INDEX["radius"]] = 0.375
    units[..., FEATURE_INDEX["weapon_range"]] = 5.0
    units[..., FEATURE_INDEX["own"]] = own.float()
    units[..., FEATURE_INDEX["enemy"]] = (~own).float()
    verb_mask = torch.zeros(BATCH, NUM_OWN, NUM_VERBS, dtype=torch.bool)
    verb_mask[..., [Verb.STOP, Verb.ATTACK]] = True
    target_mask = torch.zeros(BATCH, NUM_OWN, 2, num_units, dtype=torch.bool)
    target_mask[:, :, 0] = ~own
    observation = {
        "units": units,
        "unit_type": torch.ones(BATCH, num_units, dtype=torch.int64),
        "unit_mask": torch.ones(BATCH, num_units, dtype=torch.bool),
        "controlled": torch.arange(NUM_OWN).expand(BATCH, -1),
        "controlled_mask": torch.ones(BATCH, NUM_OWN, dtype=torch.bool),
        "verb_mask": verb_mask,
        "target_mask": target_mask,
        "scalars": torch.zeros(BATCH, NUM_SCALARS),
    }
    distance = torch.cdist(units[:, :NUM_OWN, :2], units[:, NUM_OWN:, :2])
    return observation, distance.argmin(-1) + NUM_OWN


def accuracy(policy: UnitSetPolicy, generator: torch.Generator, num_enemies: int = NUM_ENEMIES) -> float:
    observation, nearest = skirmishes(generator, num_enemies)
    orders = policy.act(observation, deterministic=True).orders
    return ((orders[..., 0] == Verb.ATTACK) & (orders[..., 1] == nearest)).float().mean().item()


def test_policy_gradients_learn_to_attack_the_nearest_enemy() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    policy = UnitSetPolicy(load_named("unit_set_small", UnitSetPolicyConfig))
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    assert accuracy(policy, generator) < 0.5
    for _ in range(300):
        observation, nearest = skirmishes(generator)
        orders = policy.act(observation, deterministic=False, generator=generator).orders
        reward = ((orders[..., 0] == Verb.ATTACK) & (orders[..., 1] == nearest)).float()
        evaluation = policy.evaluate_orders(observation, orders)
        advantage = reward - evaluation.value.detach().unsqueeze(-1)
        value_loss = (evaluation.value - reward.mean(-1)).square().mean()
        loss = -(advantage * evaluation.log_prob + 0.01 * evaluation.entropy).mean() + 0.5 * value_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert accuracy(policy, generator) > 0.9
    assert accuracy(policy, generator, num_enemies=9) > 0.75, "more units than it was ever trained on"
