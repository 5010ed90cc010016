"""How fast sampling and training are: RLlib's PPO with the batched EnvRunner, as ``perceiver-policy train``
sets it up, beside two rivals that have the same network, battles and settings:

``stock``
    RLlib's own path (:mod:`training.benchmark.stock`), with the number of environments that samples fastest.
``raw-torch``
    A loop of PyTorch without RLlib (:mod:`training.benchmark.raw_ppo`).

All are in this process, one core and one thread of torch, and take turns. All play the first side. A step
of an agent is that of a commanded unit's slot in a battle's step, under either control, also of a unit that
fell. Training is sampling and learning, whole iterations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED

from envs.scenarios import load_scenario
from training.benchmark.contest import NOT_WORTH_MORE
from training.benchmark.raw_ppo import RawPPO
from training.benchmark.rows import REPEATS, Row, rates, rates_in_turn, row, row_against
from training.benchmark.stock import stock_config
from training.rl import TrainConfig, build_algorithm_config
from training.rl.algorithm_life import built
from training.rl.local_ray import local_ray

SCENARIOS = ("3m", "8m")
NUM_ENVS = (4, 8, 16, 32)
"""What the stock path is tried with."""
STOCK, RAW = "stock", "raw-torch"

Work = Callable[[], int]
"""Does some, and tells how many environment steps it was."""


class Side(NamedTuple):
    """One way to train."""

    sampling: Work
    training: Work


def measure(
    command: str,
    *,
    configs: Sequence[TrainConfig] | None = None,
    num_envs: Sequence[int] = NUM_ENVS,
    seconds: float = 1.0,
    repeats: int = REPEATS,
) -> Iterator[Row]:
    """Steps a second: sampled, and sampled and learned from. About ten minutes on an idle core.

    Args:
        command: what made the rows.
        configs: the jobs; default: those of :data:`SCENARIOS` under team control, and under unit control,
            where every unit is an agent of RLlib's; the raw loop has none of that.
        num_envs: as :data:`NUM_ENVS`.
        seconds: least duration of a turn.
        repeats: turns of each.
    """
    if configs is None:
        configs = [
            TrainConfig(scenario=scenario, control=control, swap_sides=False)
            for control in ("team", "unit")
            for scenario in SCENARIOS
        ]
    threads = torch.get_num_threads()
    torch.set_num_threads(TrainConfig().torch_threads)
    try:
        with local_ray(num_cpus=1):
            for config in configs:
                yield from _measure_on(config, command, num_envs, seconds, repeats)
    finally:
        torch.set_num_threads(threads)


def _measure_on(
    config: TrainConfig, command: str, num_envs: Sequence[int], seconds: float, repeats: int
) -> Iterator[Row]:
    scenario = load_scenario(config.only_scenario)
    name = f"rollout/{scenario.name}" if config.control == "team" else f"rollout/{scenario.name}/unit_control"
    with contextlib.ExitStack() as stack:
        best = best_stock(config, num_envs, seconds)
        yield Row(f"{name}/{STOCK}", "environments", best, 0.0, command)
        sides = {"ours": batched(stack.enter_context(built(build_algorithm_config(config))))}
        sides[STOCK] = stock(stack.enter_context(built(stock_config(config, best))))
        if config.control == "team":
            sides[RAW] = raw(RawPPO(config))
        for what, works in (
            ("sampling", {side: works.sampling for side, works in sides.items()}),
            ("training", {side: works.training for side, works in sides.items()}),
        ):
            turns = rates_in_turn(list(works.values()), seconds=seconds, repeats=repeats)
            measured = dict(zip(works, turns, strict=True))
            yield from rows(f"{name}/{what}", measured, scenario.teams[0].size, command)


def rows(name: str, measured: Mapping[str, Sequence[float]], num_agents: int, command: str) -> Iterator[Row]:
    """Rows of one kind of work beside each rival, in steps of agents and, ``name/env_steps``, of battles.

    Args:
        name: of the row.
        measured: environment steps a second, once a repeat, of "ours" and of each rival by its name.
        num_agents: units that are commanded in a battle.
        command: what made them.
    """
    for label, unit, factor in (
        (name, "agent steps/s", num_agents),
        (f"{name}/env_steps", "env steps/s", 1),
    ):
        sides = {side: [factor * rate for rate in repeats] for side, repeats in measured.items()}
        ours = sides.pop("ours")
        for rival, theirs in sides.items():
            yield row_against(label, unit, ours, command, rival, theirs)
        if not sides:
            yield row(label, unit, ours, command)


def best_stock(config: TrainConfig, num_envs: Sequence[int], seconds: float) -> int:
    """The number of environments with which the stock path samples fastest.

    More are not tried once one is clearly slower than the best before.
    """
    measured: dict[int, float] = {}
    for number in num_envs:
        with built(stock_config(config, number)) as algorithm:
            measured[number] = median(rates(stock(algorithm).sampling, seconds=seconds, repeats=1))
        if measured[number] < NOT_WORTH_MORE * max(measured.values()):
            break
    return max(measured, key=lambda number: measured[number])


def batched(algorithm: Algorithm) -> Side:
    """Ours."""
    runner = algorithm.env_runner
    assert runner is not None
    return Side(lambda: sum(len(pack) for pack in runner.sample()), _iteration(algorithm))


def stock(algorithm: Algorithm) -> Side:
    """RLlib's own."""
    runner = algorithm.env_runner
    assert runner is not None
    return Side(lambda: sum(episode.env_steps() for episode in runner.sample()), _iteration(algorithm))


def raw(ppo: RawPPO) -> Side:
    """Without RLlib."""

    def iteration() -> int:
        rollout = ppo.sample()
        ppo.learn(rollout)
        return rollout.env_steps

    return Side(lambda: ppo.sample().env_steps, iteration)


def _iteration(algorithm: Algorithm) -> Work:
    return lambda: int(algorithm.train()[ENV_RUNNER_RESULTS][NUM_ENV_STEPS_SAMPLED])
