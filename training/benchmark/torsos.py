"""The Perceiver beside a Transformer, Deep Sets and a flat MLP of about as many weights
(:mod:`training.benchmark.torso_networks`): the same job, inputs, heads, PPO settings and seeds.

Every seed trains for the same number of steps, with evaluations of greedy orders on the way, and the torsos
take turns. Steps and seconds are those of training until the first evaluation whose Wilson 95 % lower bound
is at least 0.95; seeds that never are have no such rows. Seconds are those of sampling and learning, without
start-up, evaluations and saving.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import util
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from envs.battle.whole_file import write_whole
from envs.scenarios import load_scenario
from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.rl_module import PerceiverRLModule
from training.benchmark.rows import CURVE, REPEATS, Row, rates_in_turn, row, row_against
from training.benchmark.torso_networks import TORSOS, num_weights
from training.rl import TrainConfig, build_algorithm_config, train
from training.rl.algorithms import resources
from training.rl.local_ray import local_ray
from training.rl.monitor import Verdict
from training.rl.rollout import MODULE_ID
from training.rl.run_folder import Progress
from training.rl.seats import BattleSetup
from training.suite.recipes import parse_changes

TARGET = 0.95
GAMES = 1000
INTERVAL = 8
"""Iterations between evaluations."""
_NEVER_S = 1e9
"""Seconds between checkpoints: nothing is resumed here."""
OURS = "perceiver"


@dataclass(frozen=True)
class Point:
    """An evaluation on the way."""

    env_steps: int
    train_seconds: float
    win_rate: float
    wilson_low: float


Learn = Callable[[TrainConfig, type[PerceiverRLModule]], list[Point]]


def torso_configs(scenarios: Sequence[str], seeds: int, changes: Sequence[str] = ()) -> list[TrainConfig]:
    """The jobs, for each torso the same: ``train``'s own settings, seeds 0, 1, ...

    Args:
        scenarios: names or files.
        seeds: how many.
        changes: KEY=VALUE of :class:`~training.rl.config.TrainConfig`.

    Raises:
        ScenarioError: an unknown scenario.
        ConfigError: wrong changes to the model.
        ValueError: no seeds, settings that TrainConfig refuses, or a model that has no torso of equal size.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; it must be at least 1")
    settings: dict[str, Any] = {
        "evaluation_games": GAMES,
        "evaluation_interval": INTERVAL,
        "checkpoint_interval_s": _NEVER_S,
        **parse_changes(changes),
    }
    configs = [
        TrainConfig(scenario=scenario, **settings | {"seed": seed})
        for scenario in scenarios
        for seed in range(seeds)
    ]
    for config in configs[::seeds]:
        for module_class in TORSOS.values():
            _policy(config, module_class)
    return configs


def measure(
    command: str,
    *,
    configs: Sequence[TrainConfig],
    learn: Learn | None = None,
    repeats: int = REPEATS,
    console: Console | None = None,
) -> Iterator[Row]:
    """Sizes and costs of a scenario's torsos, then the seeds as they come.

    Args:
        command: what made them.
        configs: of :func:`torso_configs`.
        learn: trains; default: :func:`training.rl.train`.
        repeats: of the costs.
        console: where to report; default: standard error.
    """
    console = console or Console(stderr=True)
    with contextlib.ExitStack() as stack:
        if learn is None:  # one Ray for all, where each training would start its own
            cpus = 1 + max(resources(config)["CPU"] for config in configs)
            stack.enter_context(local_ray(num_cpus=cpus, address=configs[0].ray_address))
        yield from _measure(command, configs, learn or _learn, repeats, console)


def _measure(
    command: str, configs: Sequence[TrainConfig], learn: Learn, repeats: int, console: Console
) -> Iterator[Row]:
    for scenario in dict.fromkeys(config.only_scenario for config in configs):
        jobs = [config for config in configs if config.only_scenario == scenario]
        name = f"torsos/{load_scenario(scenario).name}"
        yield from costs(name, jobs[0], command, repeats=repeats)
        reached = dict.fromkeys(TORSOS, 0)
        for config in jobs:
            for torso, module_class in TORSOS.items():
                console.print(f"{scenario}, seed {config.seed}: {torso}", highlight=False, markup=False)
                points = learn(config, module_class)
                of_seed = list(rows(f"{name}/{torso}/seed_{config.seed}", points, command))
                reached[torso] += any("/steps_to_" in made.name for made in of_seed)
                yield from of_seed
        for torso, number in reached.items():
            yield Row(f"{name}/{torso}/seeds", f"of {len(jobs)} got there", number, 0.0, command)


def rows(name: str, points: Sequence[Point], command: str) -> Iterator[Row]:
    """What one seed of one torso amounts to, and its curve."""
    for point in points:
        at = f"{name}{CURVE}{point.env_steps}_steps"
        yield Row(f"{at}/win_rate", "win rate", point.win_rate, 0.0, command)
        yield Row(f"{at}/seconds", "s of training", point.train_seconds, 0.0, command)
    if points:
        yield Row(f"{name}/win_rate", "win rate at the end", points[-1].win_rate, 0.0, command)
        yield Row(f"{name}/training", "s of training", points[-1].train_seconds, 0.0, command)
    first = next((point for point in points if point.wilson_low >= TARGET), None)
    if first is not None:
        yield Row(f"{name}/steps_to_{TARGET}", "env steps", first.env_steps, 0.0, command)
        yield Row(f"{name}/seconds_to_{TARGET}", "s of training", first.train_seconds, 0.0, command)


def costs(name: str, config: TrainConfig, command: str, *, repeats: int = REPEATS) -> Iterator[Row]:
    """Weights; and passes a second, forward alone and with backward, of a minibatch of the job's, beside the
    Perceiver's. One thread of torch, in turn."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.torch_threads)
    try:
        policies = {torso: _policy(config, module_class) for torso, module_class in TORSOS.items()}
        for torso, policy in policies.items():
            yield Row(f"{name}/{torso}/weights", "weights", num_weights(policy), 0.0, command)
        observation = _observation(config)
        for what, work in (("forward", _forward), ("forward_backward", _forward_backward)):
            works = [work(policy, observation) for policy in policies.values()]
            measured = dict(zip(policies, rates_in_turn(works, repeats=repeats), strict=True))
            unit = f"passes/s of {config.minibatch_size} steps"
            ours = measured.pop(OURS)
            yield row(f"{name}/{what}", unit, ours, command)
            for torso, rates in measured.items():
                yield row_against(f"{name}/{what}", unit, ours, command, torso, rates)
    finally:
        torch.set_num_threads(threads)


def _policy(config: TrainConfig, module_class: type[PerceiverRLModule]) -> UnitSetPolicy:
    """With the job's weights at the start, as RLlib would make them."""
    spec = build_algorithm_config(config, module_class=module_class).rl_module_spec
    torch.manual_seed(config.seed)
    module = spec.rl_module_specs[MODULE_ID].build()
    assert isinstance(module, PerceiverRLModule)
    return module.policy


def _observation(config: TrainConfig) -> dict[str, torch.Tensor]:
    """Of a minibatch of battles at their start."""
    setup = BattleSetup(config.only_scenario, swap_sides=False, with_state=False)
    (seat,) = setup.seats(config.minibatch_size, (config.seed,))
    return {key: torch.from_numpy(np.array(array)) for key, array in seat.observation.items()}


def _forward(policy: UnitSetPolicy, observation: dict[str, torch.Tensor]) -> Callable[[], int]:
    def work() -> int:
        with torch.inference_mode():
            output = policy(observation)
            output.choose(deterministic=True)
            _ = output.value
        return 1

    return work


def _forward_backward(policy: UnitSetPolicy, observation: dict[str, torch.Tensor]) -> Callable[[], int]:
    orders = policy.act(observation, deterministic=False).orders

    def work() -> int:
        policy.zero_grad()
        given = policy.evaluate_orders(observation, orders)
        (given.log_prob.mean() + given.entropy.mean() + given.value.mean()).backward()
        return 1

    return work


def _learn(config: TrainConfig, module_class: type[PerceiverRLModule]) -> list[Point]:
    """Train in a folder that does not stay."""
    points: list[Point] = []

    def note(progress: Progress, verdict: Verdict) -> None:
        points.append(Point(progress.env_steps, progress.train_seconds, verdict.mean, verdict.interval[0]))

    with tempfile.TemporaryDirectory(prefix="torsos-") as folder:
        train(replace(config, run_dir=Path(folder) / "run"), module_class=module_class, on_evaluation=note)
    return points


def plot(rows: Sequence[Row], file: Path) -> str | None:
    """Draw win rates over steps and over seconds, a line a seed.

    Args:
        rows: of :func:`measure`.
        file: where the PNG goes; it appears whole or not at all.

    Returns:
        Why there is none; None if there is.
    """
    if util.find_spec("matplotlib") is None:
        return "no plot: matplotlib is not installed"
    curves = _curves(rows)
    if not curves:
        return "no plot: there are no curves"
    from matplotlib.figure import Figure

    scenarios = list(dict.fromkeys(scenario for scenario, _, _ in curves))
    figure = Figure(figsize=(9, 3.5 * len(scenarios)), layout="constrained")
    panels = figure.subplots(len(scenarios), 2, squeeze=False, sharey=True)
    labelled: set[tuple[str, str]] = set()
    for (scenario, torso, _), points in curves.items():
        for column, axes in enumerate(panels[scenarios.index(scenario)]):
            label = torso if column == 0 and (scenario, torso) not in labelled else None
            axes.plot(
                [point[column] for point in points],
                [point[2] for point in points],
                color=f"C{list(TORSOS).index(torso)}",
                label=label,
                alpha=0.8,
            )
        labelled.add((scenario, torso))
    for scenario, (over_steps, over_seconds) in zip(scenarios, panels, strict=True):
        over_steps.set(xlabel="environment steps", ylabel=f"{scenario}: greedy win rate")
        over_seconds.set(xlabel="seconds of training")
        over_steps.legend()
        for axes in (over_steps, over_seconds):
            axes.grid(alpha=0.3)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_whole(file, buffer.getvalue())
    return None


def _curves(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[tuple[int, float, float]]]:
    """(steps, seconds, win rate) by scenario, torso and seed."""
    values = {made.name: made.ours for made in rows}
    curves: dict[tuple[str, str, str], list[tuple[int, float, float]]] = {}
    for name, win_rate in values.items():
        if CURVE not in name or not name.endswith("/win_rate"):
            continue
        at = name.removesuffix("/win_rate")
        whose, _, steps = at.partition(CURVE)
        _, scenario, torso, seed = whose.rsplit("/", 3)
        point = (int(steps.removesuffix("_steps")), values[f"{at}/seconds"], win_rate)
        curves.setdefault((scenario, torso, seed), []).append(point)
    return curves
