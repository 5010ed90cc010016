"""Task queries: named rows of a table."""

from __future__ import annotations

import pytest
import torch

from perceiver_policy.config import ConfigError
from perceiver_policy.heads.multitask import MultitaskHeadConfig
from perceiver_policy.queries.task import TaskQuery, TaskQueryConfig
from perceiver_policy.tokens import Tokens

TOKENS = Tokens(torch.zeros(2, 3, 4))


def test_tasks_are_asked_by_name_in_any_order() -> None:
    query = TaskQuery(TaskQueryConfig(("parse", "rank", "tag"), num_channels=6))
    index = query.index("tag", "parse")
    assert index.tolist() == [2, 0]
    assert torch.equal(query(TOKENS, index), query.query[[2, 0]])
    assert torch.equal(query(TOKENS), query.query)
    assert query(TOKENS, query.index()).shape == (0, 6)


def test_a_task_learns_its_own_query_alone() -> None:
    query = TaskQuery(TaskQueryConfig(("parse", "rank", "tag"), num_channels=6))
    query(TOKENS, query.index("rank")).sum().backward()
    assert query.query.grad is not None
    assert query.query.grad.any(1).tolist() == [False, True, False]


def test_by_default_the_eight_tasks_the_head_reads() -> None:
    tasks = TaskQueryConfig().tasks
    assert len(tasks) == 8
    assert tasks == tuple(MultitaskHeadConfig().num_outputs)


def test_unknown_and_unusable_names() -> None:
    query = TaskQuery(TaskQueryConfig(("parse", "rank"), num_channels=6))
    with pytest.raises(ValueError, match=r"unknown task 'rnk'; did you mean rank\?"):
        query.index("rnk")
    with pytest.raises(ConfigError, match="it must name each task once"):
        TaskQueryConfig(("parse", "parse"))
    with pytest.raises(ConfigError, match="it must name at least one task"):
        TaskQueryConfig(())
