"""Where a policy sits in training: the scenarios, the side or sides it plays, and who plays the other."""

from __future__ import annotations

import copy
from collections import Counter
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
from envs.scenarios import Scenario, load_scenario
from envs.unit_set import STATE_KEYS, action_space, observation_space
from envs.units import num_unit_types
from training.mixture import parse_mixture
from training.rl.allocation import allocate, deal
from training.rl.sizes import BattleSize, largest

Opponent: TypeAlias = str | Agent | Callable[[], Agent]
"""What :func:`agents.roster.load_opponent` takes, an agent, or what makes one. Every seat has its own."""


@dataclass(frozen=True)
class Seat:
    """One side of some battles, and whoever plays the other."""

    battles: BattleBatch
    side: int
    opponent: Agent | None  # None: the engine
    rows: slice  # which battles these are of all seats of the same size
    scenario: int = 0  # which of the mixture

    @property
    def observation(self) -> Mapping[str, NDArray[Any]]:
        """What the side sees, (B, ...), or (B, n, ...) where each of n units sees for itself."""
        observation = self.battles.observations[self.side]
        assert observation is not None
        return observation

    def stored(self) -> Mapping[str, NDArray[Any]]:
        """The observation with one state a battle, (B, 1, ...), where its units see for themselves."""
        observation = self.observation
        if observation["controlled_mask"].ndim == 2:
            return observation
        return {key: array[:, :1] if key in STATE_KEYS else array for key, array in observation.items()}

    @property
    def size(self) -> BattleSize:
        """The arrays' sizes; seats of one size share a rollout."""
        return BattleSize.of(self.observation)

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

    scenario: str | tuple[str, ...]
    """One, or a mixture as for :func:`~training.mixture.parse_mixture`."""
    control: str = Control.TEAM.value
    opponent: Opponent = DEFAULT
    swap_sides: bool | None = None
    """Whether half of the battles are played from the second side; None: where the scenario is symmetric."""
    with_state: bool = False
    num_threads: int = 1
    rewards: Mapping[str, RewardWeights] | None = None
    """By scenario's name; None: each scenario's own."""

    @property
    def mixture(self) -> dict[str, float]:
        """The scenarios, as :func:`~envs.scenarios.load_scenario` takes them, with weights."""
        return parse_mixture(self.scenario)

    @property
    def scenarios(self) -> list[Scenario]:
        """The scenarios of the mixture, in its order."""
        return [load_scenario(name) for name in self.mixture]

    def spaces(self) -> tuple[gym.spaces.Dict, gym.spaces.MultiDiscrete]:
        """Observation and action space of one observer, large enough for every scenario; no engine is started
        for it."""
        _, slots, units = largest(self.sizes)
        return (
            observation_space(units, slots, num_unit_types=num_unit_types(), with_state=self.with_state),
            action_space(units, slots),
        )

    @property
    def sizes(self) -> tuple[BattleSize, ...]:
        """The different sizes of the scenarios."""
        sizes = []
        for scenario in self.scenarios:
            observers = self.observers(scenario)
            sizes.append(BattleSize(observers, scenario.teams[0].size // observers, scenario.num_units))
        return tuple(dict.fromkeys(sizes))

    def observers(self, scenario: Scenario) -> int:
        """O, how many observers command a side."""
        return 1 if Control(self.control) is Control.TEAM else scenario.teams[0].size

    def sides(self, scenario: Scenario) -> tuple[int, ...]:
        """The sides to play.

        Raises:
            ValueError: they are to be swapped, and the scenario is not symmetric.
        """
        if self.swap_sides and not scenario.symmetric:
            raise ValueError(f"scenario {scenario.name!r} is not symmetric; its sides cannot be swapped")
        return (0, 1) if scenario.symmetric and self.swap_sides is not False else (0,)

    def allocation(self, num_battles: int, weights: Sequence[float] | None = None) -> tuple[int, ...]:
        """How many of the battles each scenario gets; by weights other than its own, if they are given. Of
        weight 0 it gets none.

        Raises:
            ValueError: there are too few for every scenario and side to have one.
        """
        mixture = self.mixture
        if len(mixture) == 1:  # however few: both sides need not be there
            return (num_battles,)
        given = list(mixture.values()) if weights is None else weights
        played = zip(self.scenarios, given, strict=True)
        least = [len(self.sides(scenario)) if weight else 0 for scenario, weight in played]
        return allocate(given, num_battles, least)

    def seats(
        self,
        num_battles: int,
        entropy: Sequence[int] | None,
        *,
        weights: Sequence[float] | None = None,
        runner: int = 0,
        num_runners: int = 1,
    ) -> list[Seat]:
        """Start battles, spread over the scenarios and the sides to play.

        Args:
            num_battles: of all seats together.
            entropy: from which the seeds of battles and opponents derive; None: from chance.
            weights: of the scenarios, other than the mixture's own.
            runner: which of ``num_runners`` starts them, from 0; each has as many battles, and the scenarios
                are shared out over all of them.
        """
        counts = self.allocation(num_battles * num_runners, weights)
        dealt = deal(counts, runner, num_runners)
        scenarios = self.scenarios
        parts: list[tuple[int, int, int]] = []  # scenario, side, battles
        for index, (scenario, (count, first)) in enumerate(zip(scenarios, dealt, strict=True)):
            sides = self.sides(scenario)
            if count < len(sides):  # a single battle: its side alternates from runner to runner
                sides = sides[first % len(sides) :][:count]
            bounds = np.linspace(0, count, len(sides) + 1).astype(int).tolist()
            parts += [
                (index, side, high - low) for side, low, high in zip(sides, bounds, bounds[1:], strict=False)
            ]
        seeds = np.random.SeedSequence(entropy).generate_state(num_battles + len(parts), np.uint64)
        seats, begun, filled = [], 0, Counter[BattleSize]()
        for number, (index, side, count) in enumerate(parts):
            made = self.make_opponent()
            engine, opponent = (made, None) if isinstance(made, str) else (None, made)
            if opponent is not None:
                opponent.reset(int(seeds[num_battles + number]))
            scenario = scenarios[index]
            battles = BattleBatch(
                scenario,
                count,
                builtin=(None, engine) if side == 0 else (engine, None),
                control=self.control,
                with_state=self.with_state,
                rewards=None if self.rewards is None else self.rewards[scenario.name],
                num_threads=self.num_threads,
            )
            battles.reset(seeds[begun : begun + count])
            begun += count
            seen = battles.observations[side]
            assert seen is not None
            size = BattleSize.of(seen)
            rows = slice(filled[size], filled[size] + count)
            filled[size] += count
            seats.append(Seat(battles, side, opponent, rows, index))
        return seats

    def make_opponent(self) -> Agent | str:
        """An agent of one's own to play the other side, or the name of a player inside the engine.

        Raises:
            ValueError: there is no agent of that name.
        """
        if isinstance(self.opponent, str):
            return load_opponent(self.opponent)
        return self.opponent() if callable(self.opponent) else copy.deepcopy(self.opponent)
