"""How fast training is: RLlib's PPO with the batched EnvRunner, as ``perceiver-policy train`` sets it up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED

from training.benchmark.rows import Row, rates, row
from training.rl import TrainConfig, build_ppo_config
from training.rl.local_ray import local_ray

SCENARIOS = ("3m", "8m")


def measure(command: str) -> list[Row]:
    """Environment steps a second: sampled, and sampled and learned from."""
    threads = torch.get_num_threads()
    torch.set_num_threads(TrainConfig().torch_threads)
    try:
        with local_ray(num_cpus=1):
            return [row_ for scenario in SCENARIOS for row_ in _measure_on(scenario, command)]
    finally:
        torch.set_num_threads(threads)


def _measure_on(scenario: str, command: str) -> list[Row]:
    algorithm = build_ppo_config(TrainConfig(scenario=scenario)).build_algo()
    try:
        return [
            row(f"rollout/{scenario}/sampling", "env steps/s", rates(_sampling(algorithm)), command),
            row(f"rollout/{scenario}/training", "env steps/s", rates(_training(algorithm)), command),
        ]
    finally:
        algorithm.stop()
        folder = Path(algorithm.logdir)
        if not any(folder.iterdir()):
            folder.rmdir()


def _sampling(algorithm: PPO) -> Callable[[], int]:
    runner = algorithm.env_runner
    assert runner is not None

    def work() -> int:
        return sum(len(pack) for pack in runner.sample())

    return work


def _training(algorithm: PPO) -> Callable[[], int]:
    def work() -> int:
        return int(algorithm.train()[ENV_RUNNER_RESULTS][NUM_ENV_STEPS_SAMPLED])

    return work
