"""PettingZoo front: one battle in which every unit, or every team, is an agent.

Under control "unit" agents are named ``team0_0``, ``team0_1``, ...: unit ``i`` of a team, seeing what lies in
its own sight (A = 1). Under control "team" they are ``team0`` and ``team1`` (A = team size). Every agent of a
team is paid the team's reward.

An agent whose unit dies gets a last observation (nothing is seen, only NO_OP is legal), the step's reward and
``terminated``, and leaves ``agents``. At the end of the battle so do all others; ``truncated`` is always
False, as in :mod:`envs.battle.gym_env`, where ``info`` is explained too. Nobody leaves before the end without
``leave_at_death``, nor in missions of waves, where reinforcements take the places of the fallen and an agent
that has left could not come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from envs.battle.batch import AutoReset, Control, Observation, Outcome
from envs.battle.frame import Camera
from envs.battle.gym_env import RENDER_FPS, RENDER_MODES, check_render_mode, draw_seed
from envs.battle.match import IllegalOrders, Match, Player
from envs.battle.render import draw_frame
from envs.battle.rules import RewardWeights
from envs.battle.tactics import BUILTIN, DEFAULT
from envs.scenarios import MissionKind, Scenario
from envs.unit_set import validate_orders


class Sides(StrEnum):
    """Which teams the environment's agents are."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"

    @property
    def indices(self) -> tuple[int, ...]:
        """The teams' numbers."""
        return {Sides.FIRST: (0,), Sides.SECOND: (1,), Sides.BOTH: (0, 1)}[self]


class BattleParallelEnv(ParallelEnv[str, Observation, NDArray[np.int64]]):
    """One battle, all agents acting at once.

    Args:
        scenario: a scenario, the name of a shipped one, or the path of a YAML file.
        control: "unit" (an agent a unit) or "team" (an agent a team).
        sides: whose agents these are: the "first" team's, the "second"'s or "both".
        opponent: who plays the other side: the name of an engine-side player (:mod:`envs.battle.tactics`) or
            an object with ``act(observation) -> orders``.
        illegal_orders: "raise" a ValueError, or replace them by "no_op" and count them.
        with_state: observations also carry the ``state_*`` keys for a centralised critic.
        rewards: weights of the team reward.
        leave_at_death: whether agents leave with their units, and so are paid nothing for what their team
            does afterwards. Otherwise they stay until the battle ends, see nothing and give NO_OP.
        render_mode: None or "rgb_array".

    Raises:
        ValueError: an argument is out of range.
        ScenarioError: the scenario is unknown or wrong.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "perceiver_policy_battle_v0",
        "render_modes": RENDER_MODES,
        "render_fps": RENDER_FPS,
        "is_parallelizable": True,
    }

    def __init__(
        self,
        scenario: Scenario | str = "3m",
        *,
        control: Control | str = Control.UNIT,
        sides: Sides | str = Sides.FIRST,
        opponent: Player = DEFAULT,
        illegal_orders: IllegalOrders | str = IllegalOrders.RAISE,
        with_state: bool = False,
        rewards: RewardWeights | None = None,
        leave_at_death: bool = True,
        render_mode: str | None = None,
    ) -> None:
        check_render_mode(render_mode)
        allowed = [side.value for side in Sides]
        if sides not in allowed:
            raise ValueError(f"sides is {sides!r}; it must be one of: {', '.join(allowed)}")
        if sides == Sides.BOTH and opponent not in (DEFAULT, BUILTIN):
            raise ValueError("sides is 'both', which leaves no side to the opponent; give sides or opponent")
        self.render_mode = render_mode
        self._sides = Sides(sides).indices
        external = [side in self._sides for side in (0, 1)]
        self._match = Match(
            scenario,
            1,
            players=(None if external[0] else opponent, None if external[1] else opponent),
            control=control,
            illegal_orders=illegal_orders,
            auto_reset=AutoReset.OFF,
            with_state=with_state,
            rewards=rewards,
        )
        batch = self._match.batch
        self._per_unit = batch.control is Control.UNIT
        mission = batch.scenario.mission
        revives = mission is not None and mission.kind is MissionKind.WAVES
        self._leaves = leave_at_death and not revives
        self._agents_of = {side: [f"team{side}"] for side in self._sides}
        if self._per_unit:
            for side in self._sides:
                self._agents_of[side] = [f"team{side}_{i}" for i in range(batch.team_sizes[side])]
        self.possible_agents = [agent for side in self._sides for agent in self._agents_of[side]]
        self._side_of = {agent: side for side in self._sides for agent in self._agents_of[side]}
        self.agents: list[str] = []
        self.observation_spaces = {
            agent: batch.observation_space(side) for side in self._sides for agent in self._agents_of[side]
        }
        self.action_spaces = {
            agent: batch.action_space(side) for side in self._sides for agent in self._agents_of[side]
        }
        self._camera = Camera(batch, self._match.names("team"))
        self._random: np.random.Generator | None = None

    def observation_space(self, agent: str) -> gym.Space:
        """The agent's observation space, always the same object."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space:
        """The agent's action space, always the same object."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Start the next battle. A seed fixes all battles that follow; ``options`` are ignored."""
        if seed is not None or self._random is None:
            self._random, _ = seeding.np_random(seed)
        self._match.reset(np.array([draw_seed(self._random)]))
        self.agents = list(self.possible_agents)
        return self._observations(), self._infos(Outcome.RUNNING, 0)

    def step(
        self, actions: Mapping[str, NDArray[np.integer]]
    ) -> tuple[
        dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:
        """Give every agent's orders (A, 2) and run 8 game loops.

        Returns:
            Observations, rewards, terminations, truncations and infos of the agents that acted.

        Raises:
            ValueError: an agent has no action, one not in ``agents`` has one, or an order is illegal (naming
                agent, verb and reason). Nothing has moved then.
            gymnasium.error.ResetNeeded: the battle is over or has not begun.
        """
        if not self.agents:
            raise gym.error.ResetNeeded("the battle is over or has not begun; call reset() first")
        missing, extra = set(self.agents) - set(actions), set(actions) - set(self.agents)
        if missing or extra:
            raise ValueError(
                f"actions are missing for {sorted(missing)} and given for {sorted(extra)}, which do not act; "
                f"acting: {', '.join(self.agents)}"
            )
        result = self._match.step({side: self._orders(side, actions) for side in self._sides})
        over = bool(result.done[0])
        observations = self._observations()
        infos = self._infos(int(result.outcome[0]), int(result.length[0]))
        rewards = {agent: float(result.rewards[0, self._side_of[agent]]) for agent in self.agents}
        terminated = {
            agent: over or (self._leaves and not observations[agent]["controlled_mask"].any())
            for agent in self.agents
        }
        truncated = dict.fromkeys(self.agents, False)
        self.agents = [agent for agent in self.agents if not terminated[agent]]
        return observations, rewards, terminated, truncated, infos

    def random_orders(self) -> dict[str, NDArray[np.int64]]:
        """Random legal orders for every acting agent, drawn with the environment's generator."""
        if self._random is None:
            raise gym.error.ResetNeeded("the battle has not begun; call reset() first")
        orders: dict[str, NDArray[np.int64]] = {}
        for side in self._sides:
            rows = self._match.random_orders(side, self._random)[0]
            orders |= zip(self._agents_of[side], rows[:, None] if self._per_unit else [rows], strict=True)
        return {agent: orders[agent] for agent in self.agents}

    def render(self) -> NDArray[np.uint8] | None:
        """A picture (H, W, 3) uint8 of the battle, or None without a render mode."""
        return None if self.render_mode is None else draw_frame(self._camera.frame(0))

    def _orders(self, side: int, actions: Mapping[str, NDArray[np.integer]]) -> NDArray[np.integer]:
        """The side's orders (1, n, 2), those of the dead being NO_OP."""
        size = self._match.batch.team_sizes[side]
        agents = self._agents_of[side]
        orders = np.zeros((size, 2), np.int64)
        shape = self.action_spaces[agents[0]].shape
        for i, agent in enumerate(agents):
            if agent not in actions:
                continue
            action = np.asarray(actions[agent])
            if action.shape != shape or action.dtype.kind not in "iu":
                raise ValueError(
                    f"{agent}: its action is {action.shape} {action.dtype}; expected integers {shape}"
                )
            orders[i if self._per_unit else slice(None)] = action
        if self._match.illegal_orders is IllegalOrders.RAISE:
            masks = {key: mask[0] for key, mask in self._match.batch.masks(side).items()}

            def name(index: tuple[int, ...]) -> str:
                return agents[index[0]] if self._per_unit else f"{agents[0]}, unit {index[0]}"

            validate_orders(orders, masks, name)
        return orders[None]

    def _observations(self) -> dict[str, Observation]:
        """Of the agents that acted: copies, which the next step leaves alone."""
        observations: dict[str, Observation] = {}
        for side in self._sides:
            shared = self._match.batch.observations[side]
            assert shared is not None
            copied = {key: array[0].copy() for key, array in shared.items()}
            if not self._per_unit:
                observations[self._agents_of[side][0]] = copied
                continue
            for i, agent in enumerate(self._agents_of[side]):
                observations[agent] = {key: array[i] for key, array in copied.items()}
        return {agent: observations[agent] for agent in self.agents}

    def _infos(self, outcome: int, length: int) -> dict[str, dict[str, Any]]:
        infos: dict[str, dict[str, Any]] = {}
        for side in self._sides:
            name, survivors = self._match.outcome_names(outcome, side), self._match.survivors(side)[0]
            replaced = self._match.replaced[side][0]
            for i, agent in enumerate(self._agents_of[side]):
                infos[agent] = {
                    "outcome": name,
                    "length": length,
                    "survivors": survivors,
                    "illegal_orders": int(replaced[i] if self._per_unit else replaced.sum()),
                }
                if self._match.batch.scenario.mission is not None:
                    infos[agent]["score"] = float(self._match.scores[0])
        return {agent: infos[agent] for agent in self.agents}
