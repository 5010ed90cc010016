"""How fast the network is: the shipped small policy on real observations, one thread of torch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from envs.battle.batch import BattleBatch
from envs.unit_set import Verb
from perceiver_policy.config_files import load_named
from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.policy_config import UnitSetPolicyConfig
from training.benchmark.rows import Row, rates, row

MODEL = "unit_set_small"
BATCHES = {"3m": 512, "8m": 512, "27m_vs_30m": 64}
"""Observations in a pass, by scenario."""


def measure(command: str) -> list[Row]:
    """Observations a second: drawing orders, and a pass with gradients as a training step makes it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [row_ for scenario in BATCHES for row_ in _measure_on(scenario, command)]
    finally:
        torch.set_num_threads(threads)


def _measure_on(scenario: str, command: str) -> list[Row]:
    policy = UnitSetPolicy(load_named(MODEL, UnitSetPolicyConfig))
    observation = _in_contact(scenario, BATCHES[scenario])
    name, unit = f"core/{scenario}/batch_{BATCHES[scenario]}", "observations/s"
    return [
        row(f"{name}/act", unit, rates(_acting(policy, observation)), command),
        row(f"{name}/forward_backward", unit, rates(_learning(policy, observation)), command),
    ]


def _in_contact(scenario: str, num_battles: int) -> dict[str, torch.Tensor]:
    """Observations from the middle of the fight."""
    batch = BattleBatch(scenario, num_battles)
    for _ in range(12):
        observation = batch.observations[0]
        assert observation is not None
        orders = observation["controlled_mask"][..., None] * [Verb.ATTACK_MOVE, 0]
        batch.step(orders)
    observation = batch.observations[0]
    assert observation is not None
    return {key: torch.from_numpy(array.copy()) for key, array in observation.items()}


def _acting(policy: UnitSetPolicy, observation: dict[str, torch.Tensor]) -> Callable[[], int]:
    def work() -> int:
        with torch.inference_mode():
            policy.act(observation, deterministic=False)
        return len(observation["units"])

    return work


def _learning(policy: UnitSetPolicy, observation: dict[str, torch.Tensor]) -> Callable[[], int]:
    orders = policy.act(observation, deterministic=False).orders

    def work() -> int:
        policy.zero_grad(set_to_none=True)
        evaluation = policy.evaluate_orders(observation, orders)
        loss = evaluation.log_prob.mean() + evaluation.entropy.mean() + evaluation.value.mean()
        loss.backward()
        return len(observation["units"])

    return work
