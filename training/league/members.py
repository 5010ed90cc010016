"""Who is in a league: scripts, learners, and frozen snapshots of learners."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAIN = "main"
"""The main player's name."""


class Role(StrEnum):
    """What a learner is for (Vinyals et al. 2019, Methods, "Multi-agent learning")."""

    MAIN = "main"
    """To win against everybody: it is what the league is run for."""
    MAIN_EXPLOITER = "main-exploiter"
    """To find what the main player is weak against now."""
    LEAGUE_EXPLOITER = "league-exploiter"
    """To find what the whole league is weak against."""


@dataclass(frozen=True)
class Script:
    """A player that never changes, as :func:`agents.roster.load_opponent` knows it."""

    name: str


@dataclass(frozen=True)
class Snapshot:
    """A learner as it was; its export lies in the league's folder under its name."""

    name: str
    learner: str
    role: Role
    env_steps: int
    """Of the learner, when it was taken."""


@dataclass(frozen=True)
class Learner:
    """A player that trains, and how far it is."""

    name: str
    role: Role
    env_steps: int = 0
    """Of all its lives."""
    checkpoint: str | None = None
    """Name of the checkpoint it goes on from; None: its weights are the initial ones."""
    life_began: int = 0
    """``env_steps`` when it began anew for the last time."""
    last_snapshot: int = 0
    """``env_steps`` at its last snapshot, or its life's begin."""
    snapshots: int = 0
    """Taken so far."""
    iteration: int = 0
    """Of all its lives."""
    train_seconds: float = 0.0
