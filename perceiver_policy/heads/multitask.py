"""Multitask: each task asks one query and reads its answer by an MLP of its own.

(Perceiver IO, arXiv:2107.14795, section 4.1: the "multitask query", its best way to learn all of GLUE at
once.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from perceiver_policy.attention import MLP
from perceiver_policy.config import Config, ConfigError

GLUE = {"cola": 2, "mnli": 3, "mrpc": 2, "qnli": 2, "qqp": 2, "rte": 2, "sst2": 2, "stsb": 1}
"""Outputs of the paper's eight tasks: classes, and one number for the similarity of STS-B."""


@dataclass(frozen=True)
class MultitaskHeadConfig(Config):
    """Which tasks, and how wide their answers are."""

    kind: ClassVar[str] = "multitask"

    num_outputs: dict[str, int] = field(default_factory=GLUE.copy)  # by the task's name
    num_hidden_channels: int | None = None  # of each MLP; the width of an answer if None, as in the paper

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(bool(self.num_outputs), "num_outputs", "it must name at least one task")
        for name in self.num_outputs:
            # What torch.nn.ModuleDict cannot hold: its own attributes, and names that read as paths.
            if not name or "." in name or hasattr(nn.ModuleDict(), name):
                raise ConfigError(
                    f"{type(self).__name__}.num_outputs has a task named {name!r}; that name is torch's own, "
                    "empty or has a dot in it: choose another, such as task_1"
                )


class MultitaskHead(nn.Module):
    """One two-layer tanh MLP for each task.

    Args:
        config: tasks and widths.
        num_query_channels: Q, width of an answer.
    """

    def __init__(self, config: MultitaskHeadConfig, *, num_query_channels: int) -> None:
        super().__init__()
        hidden = config.num_hidden_channels or num_query_channels
        self.mlps = nn.ModuleDict(
            {
                task: MLP(num_query_channels, hidden, width, activation="tanh")
                for task, width in config.num_outputs.items()
            }
        )

    def forward(self, answers: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Read the answers to the tasks asked.

        Args:
            answers: (B, T, Q) float, in the order of ``tasks``.
            tasks: T different names of the configuration's tasks.

        Returns:
            (B, num_outputs[task]) by task.

        Raises:
            ValueError: a task is unknown or asked twice, or there is not one answer for each.
        """
        for task in tasks:
            if task not in self.mlps:
                raise ValueError(f"unknown task {task!r}; allowed: {', '.join(self.mlps)}")
        if len(set(tasks)) != len(tasks) or len(tasks) != answers.shape[1]:
            raise ValueError(
                f"there are {answers.shape[1]} answers for the tasks {list(tasks)}; "
                "name each task once, in the order of the answers"
            )
        return {task: self.mlps[task](answers[:, i]) for i, task in enumerate(tasks)}
