"""The folder of a league, and its state, which is written whole after every turn.

::

    config.yaml, model.yaml   settings of each player's job     league.yaml   the league's own
    league.json               the state: members, payoff matrix, turns played
    players/NAME/             a learner's run: checkpoints, curves; initial/ is what it begins anew from
    snapshots/NAME/           exports of learners as they were
    payoff.json, payoff.png   the payoff matrix          policy/   the main player's export
    tensorboard/              the league's curves

``league.json`` is what counts. It names the checkpoint of each learner, and appears after everything it names
has been written: where a league was killed, the last turn that it tells of stands, with all that belongs to
it, and what lies there of a later one is removed and played again.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.battle.whole_file import write_whole
from training.checkpoint_policy import CHECKPOINTS, POLICY
from training.league.config import LeagueConfig
from training.league.members import Learner, Role, Script, Snapshot
from training.league.payoff import Payoff
from training.rl.run_folder import RunFolder, RunFolderError

STATE = "league.json"
PAYOFF = "payoff.json"
_SETTINGS = "league.yaml"


@dataclass
class LeagueState:
    """All that a league is, but weights."""

    scripts: list[Script]
    learners: dict[str, Learner]
    payoff: Payoff
    snapshots: list[Snapshot] = field(default_factory=list)
    """Oldest first."""
    turn: int = 0
    """Turns played."""

    @classmethod
    def begin(cls, config: LeagueConfig) -> LeagueState:
        """Scripts and learners that have not met yet."""
        state = cls(
            scripts=[Script(name) for name in config.scripts],
            learners={name: Learner(name, role) for name, role in config.learners()},
            payoff=Payoff(config.payoff_decay, config.payoff_min_games),
        )
        for name in [*config.scripts, *state.learners]:
            state.payoff.add_member(name)
        return state

    @property
    def frozen(self) -> list[Script | Snapshot]:
        """Those that never change."""
        return [*self.scripts, *self.snapshots]

    @property
    def env_steps(self) -> int:
        """Of all learners."""
        return sum(learner.env_steps for learner in self.learners.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "turn": self.turn,
            "scripts": [script.name for script in self.scripts],
            "learners": [dataclasses.asdict(learner) for learner in self.learners.values()],
            "snapshots": [dataclasses.asdict(snapshot) for snapshot in self.snapshots],
            "payoff": self.payoff.to_dict(),
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> LeagueState:
        """What :meth:`to_dict` gave.

        Raises:
            ValueError: it is no league's state.
        """
        try:
            learners = [Learner(**one | {"role": Role(one["role"])}) for one in plain["learners"]]
            return cls(
                scripts=[Script(name) for name in plain["scripts"]],
                learners={learner.name: learner for learner in learners},
                payoff=Payoff.from_dict(plain["payoff"]),
                snapshots=[Snapshot(**one | {"role": Role(one["role"])}) for one in plain["snapshots"]],
                turn=int(plain["turn"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"it is no league's state: {error!r}") from error


@dataclass(frozen=True)
class LeagueFolder:
    """Paths of a league, and its state."""

    path: Path

    @property
    def tensorboard(self) -> Path:
        """Folder of the event files."""
        return self.path / "tensorboard"

    @property
    def policy(self) -> Path:
        """Folder of the main player's export."""
        return self.path / POLICY

    def player(self, name: str) -> RunFolder:
        """A learner's run."""
        return RunFolder(self.path / "players" / name)

    def initial(self, name: str) -> Path:
        """A learner's state before it learned anything."""
        return self.player(name).path / "initial"

    def snapshot(self, name: str) -> Path:
        """A snapshot's export."""
        return self.path / "snapshots" / name

    def write_settings(self, config: LeagueConfig) -> None:
        """Write the league's own settings."""
        write_whole(self.path / _SETTINGS, config.to_yaml().encode())

    def read_settings(self) -> LeagueConfig | None:
        """The league's own settings; None if it was cut off before they were written.

        Raises:
            ValueError: the file is no league's.
        """
        file = self.path / _SETTINGS
        return LeagueConfig.load(file) if file.is_file() else None

    def write(self, state: LeagueState) -> None:
        """The turn's last act: from here on it stands."""
        write_whole(self.path / STATE, json.dumps(state.to_dict()).encode())
        write_whole(self.path / PAYOFF, (json.dumps(state.payoff.to_dict(), indent=1) + "\n").encode())

    def read(self) -> LeagueState | None:
        """The state of the last turn that stands; None before the first.

        Raises:
            RunFolderError: the file is no league's.
        """
        file = self.path / STATE
        if not file.is_file():
            return None
        try:
            return LeagueState.from_dict(json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise RunFolderError(f"{file} cannot be gone on from: {error}") from error

    def checkpoint(self, learner: Learner) -> Path:
        """What a learner goes on from."""
        if learner.checkpoint is None:
            return self.initial(learner.name)
        return self.player(learner.name).checkpoints / learner.checkpoint

    def remove_what_does_not_stand(self, state: LeagueState) -> None:
        """Checkpoints and snapshots of a turn that was cut off."""
        for learner in state.learners.values():
            for checkpoint in (self.player(learner.name).path / CHECKPOINTS).glob("step_*"):
                if checkpoint.name > (learner.checkpoint or ""):
                    shutil.rmtree(checkpoint)
        known = {snapshot.name for snapshot in state.snapshots}
        for snapshot in (self.path / "snapshots").glob("*"):
            if snapshot.name not in known:
                shutil.rmtree(snapshot)
