"""Task queries: one learned question for each task of a multitask model.

(Perceiver IO, arXiv:2107.14795, section 4.1: the "multitask query", with which one model learns all of
GLUE.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from perceiver_policy.config import Config, nearest
from perceiver_policy.heads.multitask import GLUE
from perceiver_policy.queries.learned import LearnedQuery, LearnedQueryConfig


@dataclass(frozen=True)
class TaskQueryConfig(Config):
    """Which tasks, and how wide their queries are."""

    kind: ClassVar[str] = "task"

    tasks: tuple[str, ...] = tuple(GLUE)
    num_channels: int = 768

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(bool(self.tasks), "tasks", "it must name at least one task")
        self._require(len(set(self.tasks)) == len(self.tasks), "tasks", "it must name each task once")


class TaskQuery(LearnedQuery):
    """A trainable query for each task, numbered in the order of the configuration.

    Args:
        config: tasks and width.
    """

    def __init__(self, config: TaskQueryConfig) -> None:
        super().__init__(LearnedQueryConfig(len(config.tasks), config.num_channels))
        self.tasks = config.tasks

    def index(self, *tasks: str) -> Tensor:
        """Numbers of the queries of some tasks, in the order given: (len(tasks),) int64.

        Raises:
            ValueError: a task the model does not have.
        """
        for task in tasks:
            if task not in self.tasks:
                raise ValueError(f"unknown task {task!r}; {nearest(task, self.tasks)}")
        return torch.tensor([self.tasks.index(task) for task in tasks], device=self.query.device).long()
