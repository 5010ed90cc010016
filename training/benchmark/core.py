"""How fast the network is: the small policy on real observations, and the core beside other implementations.

All of it with one thread of torch, run eagerly. The core's contest is :mod:`training.benchmark.core_contest`,
its memory :mod:`training.benchmark.core_memory`, its growth :mod:`training.benchmark.core_growth`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from envs.battle.batch import BattleBatch
from envs.unit_set import Verb
from perceiver_policy.config_files import load_named
from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.policy_config import UnitSetPolicyConfig
from training.benchmark import core_contest, core_growth, core_memory
from training.benchmark.rows import Row, rates, row

MODEL = "unit_set_small"
BATCHES = {"3m": 512, "8m": 512, "27m_vs_30m": 64}
"""Observations in a pass, by scenario."""


def measure(command: str) -> Iterator[Row]:
    """The policy's observations a second; the core's passes a second, growth and memory beside its rivals'.

    With the rivals installed this takes about ten minutes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for scenario in BATCHES:
            yield from _measure_on(scenario, command)
        yield from core_contest.measure(command)
        yield from core_growth.measure(command)
        yield from core_memory.measure(command)
    finally:
        torch.set_num_threads(threads)


def plot(rows: Sequence[Row], file: Path) -> str | None:
    """Draw the growth as a PNG; returns why not, if it cannot."""
    return core_growth.plot(rows, file)


def _measure_on(scenario: str, command: str) -> list[Row]:
    """Drawing orders, and a pass with gradients as a training step makes it."""
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
