"""Where a policy sits in training: the scenario, the side or sides it plays, and who plays the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from agents.base import Agent
from agents.roster import load_opponent
from envs.battle.batch import BattleBatch, Control, Outcome, StepResult
from envs.battle.rules import RewardWeights
from envs.battle.tactics import DEFAULT
from envs.scenarios import load_scenario
from envs.unit_set import action_space, observation_space
from envs.units import num_unit_types

Opponent: TypeAlias = str | Agent | Callable[[], Agent]
"""What :func:`agents.roster.load_opponent` takes, an agent, or what makes one. Every seat has its own."""


@dataclass(frozen=True)
class Seat:
    """One side of some battles, and whoever plays the other."""

    battles: BattleBatch
    side: int
    opponent: Agent | None  # None: the engine
    rows: slice  # which battles of all seats these are

    @property
    def observation(self) -> Mapping[str, NDArray[Any]]:
        """What the side sees, (B, ...), or (B, n, ...) where each of n units sees for itself."""
        observation = self.battles.observations[self.side]
        assert observation is not None
        return observation

    @property
    def victory(self) -> Outcome:
        """The outcome that is a win here."""
        return (Outcome.WIN_0, Outcome.WIN_1)[self.side]

    @property
    def defeat(self) -> Outcome:
        """The outcome that is a loss here."""
        return (Outcome.WIN_1, Outcome.WIN_0)[self.side]

    def step(self, orders: NDArray[np.int64], out: Mapping[str, NDArray[Any]] | None = None) -> StepResult:
        """Step the battles with the side's orders (B, n, 2); ``out`` takes its next observation."""
        given: list[NDArray[np.int64] | None] = [orders, None]
        seen = self.battles.observations[1 - self.side]
        if self.opponent is not None and seen is not None:
            given[1] = self.opponent.act(seen).reshape(self.battles.num_battles, -1, 2)
        if self.side == 0:
            return self.battles.step(given[0], given[1], out=(out, None))
        return self.battles.step(given[1], given[0], out=(None, out))


@dataclass(frozen=True)
class BattleSetup:
    """The battles of a runner: the keys of RLlib's ``env_config``."""

    scenario: str
    control: str = Control.TEAM.value
    opponent: Opponent = DEFAULT
    swap_sides: bool | None = None
    """Whether half of the battles are played from the second side; None: where the scenario is symmetric."""
    with_state: bool = False
    num_threads: int = 1
    rewards: RewardWeights | None = None
    """None: the scenario's own."""

    def spaces(self) -> tuple[gym.spaces.Dict, gym.spaces.MultiDiscrete]:
        """Observation and action space of one observer; no engine is started for it."""
        scenario = load_scenario(self.scenario)
        sizes = scenario.num_units, scenario.teams[0].size // self.observers()
        return (
            observation_space(*sizes, num_unit_types=num_unit_types(), with_state=self.with_state),
            action_space(*sizes),
        )

    def observers(self) -> int:
        """O, how many observers command a side."""
        return 1 if Control(self.control) is Control.TEAM else load_scenario(self.scenario).teams[0].size

    def sides(self) -> tuple[int, ...]:
        """The sides to play.

        Raises:
            ValueError: they are to be swapped, and the scenario is not symmetric.
        """
        symmetric = load_scenario(self.scenario).symmetric
        if self.swap_sides and not symmetric:
            raise ValueError(f"scenario {self.scenario!r} is not symmetric; its sides cannot be swapped")
        return (0, 1) if symmetric and self.swap_sides is not False else (0,)

    def seats(self, num_battles: int, entropy: Sequence[int] | None) -> list[Seat]:
        """Start battles, spread over the sides to play.

        Args:
            num_battles: of all seats together.
            entropy: from which the seeds of battles and opponents derive; None: from chance.
        """
        sides = self.sides()[:num_battles]
        bounds = np.linspace(0, num_battles, len(sides) + 1).astype(int).tolist()
        seeds = np.random.SeedSequence(entropy).generate_state(num_battles + len(sides), np.uint64)
        seats = []
        for side, low, high in zip(sides, bounds, bounds[1:], strict=False):
            made = self.make_opponent()
            engine, opponent = (made, None) if isinstance(made, str) else (None, made)
            if opponent is not None:
                opponent.reset(int(seeds[num_battles + side]))
            battles = BattleBatch(
                self.scenario,
                high - low,
                builtin=(None, engine) if side == 0 else (engine, None),
                control=self.control,
                with_state=self.with_state,
                rewards=self.rewards,
                num_threads=self.num_threads,
            )
            battles.reset(seeds[low:high])
            seats.append(Seat(battles, side, opponent, slice(low, high)))
        return seats

    def make_opponent(self) -> Agent | str:
        """An agent of one's own to play the other side, or the name of a player inside the engine.

        Raises:
            ValueError: there is no agent of that name.
        """
        if isinstance(self.opponent, str):
            return load_opponent(self.opponent)
        return self.opponent() if callable(self.opponent) else copy.deepcopy(self.opponent)
