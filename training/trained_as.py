"""How a policy was trained, as its export tells: what to evaluate it under unless told otherwise.

A policy that learned to command units each by its own sight does worse under a team's, which it never saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agents.roster import policy_folder
from envs.battle.batch import Control


@dataclass(frozen=True)
class TrainedAs:
    """What an export's metadata says of the training. The defaults are for agents that were not trained."""

    control: Control = Control.TEAM
    first_side_only: bool = False

    def swap_sides(self, asked: bool | None) -> bool | None:
        """What :func:`training.evaluate.evaluate` takes: what was asked for, else as in training."""
        return False if asked is None and self.first_side_only else asked


def trained_as(agent: str | Path) -> TrainedAs:
    """How an agent was trained.

    Args:
        agent: as for :func:`agents.roster.load_agent`; scripts were not trained.

    Raises:
        ValueError: the folder holds no export, or one that speaks of a control that does not exist.
    """
    folder = policy_folder(agent)
    if folder is None:
        return TrainedAs()
    from perceiver_policy.pretrained import read_metadata  # torch takes a second, and scripts do without

    metadata = read_metadata(folder)
    control = metadata.get("control", Control.TEAM.value)
    if control not in list(Control):
        raise ValueError(f"{agent} was trained under control {control!r}; known: {', '.join(Control)}")
    return TrainedAs(Control(control), first_side_only=metadata.get("swap_sides") is False)
