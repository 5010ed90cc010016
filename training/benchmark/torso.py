"""The Perceiver torso beside RLlib's own default networks: Gymnasium tasks, the same PPO, the same seeds.

The networks are of about equal size. Returns are of fresh episodes after a fixed number of steps, steps are
those of training until the mean return of its last episodes was at the task's target, and seconds are those
of a core, of training alone. All are medians over the seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from statistics import fmean

import torch

from training.benchmark.rows import Row, row_against
from training.gym_tasks.learning import Learned, learn
from training.gym_tasks.tasks import TASKS, Task
from training.rl.local_ray import local_ray

SEEDS = (0, 1, 2)


def measure(command: str) -> Iterator[Row]:
    """Each task's rows as they come. About a quarter of an hour on an idle core.

    Raises:
        TaskError: a task's package is not installed; before anything is trained.
    """
    for task in TASKS.values():
        task.make().close()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with local_ray(num_cpus=1):
            for task in TASKS.values():
                ours, rllib = [], []
                for seed in SEEDS:  # in turn, so that what else the machine does hits both
                    ours.append(learn(task, torso=True, seed=seed))
                    rllib.append(learn(task, torso=False, seed=seed))
                yield from rows(task, ours, rllib, command)
    finally:
        torch.set_num_threads(threads)


def rows(task: Task, ours: Sequence[Learned], rllib: Sequence[Learned], command: str) -> list[Row]:
    """A task's rows.

    Args:
        task: which.
        ours: what the torso learned, a seed each.
        rllib: what RLlib's network learned.
        command: that measured them.
    """
    name, rival = f"torso/{task.name}", f"RLlib {version('ray')} default network"
    reached = [sum(learned.reached for learned in side) for side in (ours, rllib)]
    never = f"{rival}; reached by {reached[0]} of {len(ours)} seeds, and {reached[1]} there"
    return [
        row_against(
            f"{name}/return",
            "return",
            [fmean(learned.returns) for learned in ours],
            command,
            rival,
            [fmean(learned.returns) for learned in rllib],
        ),
        row_against(
            f"{name}/steps_to_{task.target:g}",
            "env steps",
            [learned.steps_to_target for learned in ours],
            command,
            never,
            [learned.steps_to_target for learned in rllib],
            less_is_better=True,
        ),
        row_against(
            f"{name}/training",
            "s of a core",
            [learned.seconds for learned in ours],
            command,
            rival,
            [learned.seconds for learned in rllib],
            less_is_better=True,
        ),
        row_against(
            f"{name}/weights",
            "weights",
            [learned.num_weights for learned in ours],
            command,
            rival,
            [learned.num_weights for learned in rllib],
            less_is_better=True,
        ),
    ]
