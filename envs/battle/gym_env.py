"""Gymnasium fronts: one battle (:class:`BattleEnv`) and many at once (:class:`BattleVectorEnv`).

One agent commands a team: observations and actions are those of :mod:`envs.unit_set` with A = team size.

Every end is ``terminated``; ``truncated`` is always False. A timeout is part of the game, not a cut: it
counts as a loss and the time left is observed, so there is nothing to bootstrap from. A mission is not won:
its score is the return under its default reward, "timeout" is how it ends, "loss" or "draw" if one's units
are gone before.

``info`` (arrays over the battles in the vector environment) carries

=================  ===============================================================================
``outcome``        "running", then "win", "loss", "draw" or "timeout", as the learner's side sees it
``length``         steps of this battle so far
``survivors``      (2,) living units: own, enemy
``illegal_orders`` orders of this step that were illegal and became NO_OP (STOP where that is not allowed)
``score``          of missions only: points so far, the first side's
=================  ===============================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.battle.batch import AutoReset, Control, Observation, Outcome
from envs.battle.frame import Camera
from envs.battle.match import IllegalOrders, Match, Player
from envs.battle.render import draw_frame
from envs.battle.rules import RewardWeights
from envs.battle.tactics import DEFAULT
from envs.scenarios import Scenario
from envs.unit_set import GAME_LOOPS_PER_SECOND, LOOPS_PER_STEP

RENDER_MODES = ["rgb_array"]
RENDER_FPS = GAME_LOOPS_PER_SECOND / LOOPS_PER_STEP  # real time
_AUTO_RESET = {AutoresetMode.NEXT_STEP: AutoReset.NEXT_STEP, AutoresetMode.SAME_STEP: AutoReset.OFF}


def draw_seed(generator: np.random.Generator) -> np.uint64:
    """A battle's seed."""
    return generator.integers(2**64, dtype=np.uint64)


def check_render_mode(render_mode: str | None) -> None:
    """Refuse a render mode that does not exist.

    Raises:
        ValueError: naming the modes there are.
    """
    if render_mode is not None and render_mode not in RENDER_MODES:
        modes = ", ".join(RENDER_MODES)
        raise ValueError(f"render_mode is {render_mode!r}; it must be None or one of: {modes}")


class BattleEnv(gym.Env[Observation, NDArray]):
    """One battle, one agent commanding a team.

    Args:
        scenario: a scenario, the name of a shipped one, or the path of a YAML file.
        opponent: the name of an engine-side player (:mod:`envs.battle.tactics`) or an object with
            ``act(observation) -> orders`` (:class:`envs.battle.match.Opponent`).
        side: the team the agent commands, 0 or 1.
        control: "team"; environments with an agent a unit are the PettingZoo and RLlib fronts.
        illegal_orders: "raise" a ValueError, or replace them by "no_op" and count them.
        with_state: observations also carry the ``state_*`` keys for a centralised critic.
        rewards: weights of the reward.
        render_mode: None or "rgb_array".

    Raises:
        ValueError: an argument is out of range.
        ScenarioError: the scenario is unknown or wrong.
    """

    metadata = {"render_modes": RENDER_MODES, "render_fps": RENDER_FPS}  # noqa: RUF012 (declared so by gym.Env)

    def __init__(
        self,
        scenario: Scenario | str = "3m",
        *,
        opponent: Player = DEFAULT,
        side: int = 0,
        control: Control | str = Control.TEAM,
        illegal_orders: IllegalOrders | str = IllegalOrders.RAISE,
        with_state: bool = False,
        rewards: RewardWeights | None = None,
        render_mode: str | None = None,
    ) -> None:
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self.side = side
        self._match = _new_match(
            scenario,
            1,
            opponent=opponent,
            side=side,
            control=control,
            illegal_orders=illegal_orders,
            auto_reset=AutoReset.OFF,
            with_state=with_state,
            rewards=rewards,
        )
        self.observation_space = self._match.batch.observation_space(side)
        self.action_space = self._match.batch.action_space(side)
        self._camera = Camera(self._match.batch, self._match.names("agent"))
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the next battle. A seed fixes all battles that follow; ``options`` are ignored."""
        super().reset(seed=seed)
        self._match.reset(np.array([draw_seed(self.np_random)]))
        self._over = False
        return self._observation(), self._info(Outcome.RUNNING, 0)

    def step(self, action: NDArray[np.integer]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Give orders (A, 2) and run 8 game loops.

        Raises:
            ValueError: an order is illegal or misshapen; nothing has moved then.
            gymnasium.error.ResetNeeded: the battle is over or has not begun.
        """
        if self._over:
            raise gym.error.ResetNeeded("the battle is over or has not begun; call reset() first")
        result = self._match.step({self.side: np.asarray(action)[None]})
        self._over = bool(result.done[0])
        info = self._info(int(result.outcome[0]), int(result.length[0]))
        return self._observation(), float(result.rewards[0, self.side]), self._over, False, info

    def random_orders(self) -> NDArray[np.int64]:
        """Random legal orders (A, 2), drawn with the environment's generator."""
        return self._match.random_orders(self.side, self.np_random)[0]

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """A picture (H, W, 3) uint8 of the battle, or None without a render mode."""
        return None if self.render_mode is None else draw_frame(self._camera.frame(0))

    def _observation(self) -> Observation:
        observation = self._match.batch.observations[self.side]
        assert observation is not None
        return {key: array[0].copy() for key, array in observation.items()}

    def _info(self, outcome: int, length: int) -> dict[str, Any]:
        return {
            "outcome": self._match.outcome_names(outcome, self.side),
            "length": length,
            "survivors": self._match.survivors(self.side)[0],
            "illegal_orders": int(self._match.replaced[self.side].sum()),
        } | ({} if self._match.batch.scenario.mission is None else {"score": float(self._match.scores[0])})


class BattleVectorEnv(VectorEnv[Observation, NDArray, NDArray]):
    """``num_envs`` battles in one batch, an agent commanding a team in each, stepped without a Python loop.

    Environment ``i`` after ``reset(seed=s)`` plays the battle that :class:`BattleEnv` plays after
    ``reset(seed=s + i)``; battles that follow by autoreset are seeded from the one before.

    Args:
        num_envs: battles.
        autoreset_mode: NEXT_STEP (the step after the last ignores its action and starts the next battle) or
            SAME_STEP (the last step starts it; ``infos["final_obs"]`` and ``infos["final_info"]`` keep the
            end). Also by value: "NextStep", "SameStep".
        copy: False returns the engine's live arrays, which the next step overwrites.
        num_threads: threads the battles are spread over.
        scenario, opponent, side, control, illegal_orders, with_state, rewards, render_mode: as for
            :class:`BattleEnv`. The opponent acts on all battles at once.

    Raises:
        ValueError: an argument is out of range.
        ScenarioError: the scenario is unknown or wrong.
    """

    def __init__(
        self,
        num_envs: int = 1,
        scenario: Scenario | str = "3m",
        *,
        opponent: Player = DEFAULT,
        side: int = 0,
        control: Control | str = Control.TEAM,
        illegal_orders: IllegalOrders | str = IllegalOrders.RAISE,
        with_state: bool = False,
        rewards: RewardWeights | None = None,
        render_mode: str | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        num_threads: int = 1,
    ) -> None:
        check_render_mode(render_mode)
        modes = {mode.value: mode for mode in _AUTO_RESET}
        mode = autoreset_mode if isinstance(autoreset_mode, AutoresetMode) else modes.get(autoreset_mode)
        if mode not in _AUTO_RESET:
            raise ValueError(f"autoreset_mode is {autoreset_mode!r}; it must be one of: {', '.join(modes)}")
        self.metadata = {"render_modes": RENDER_MODES, "render_fps": RENDER_FPS, "autoreset_mode": mode}
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.side = side
        self.copy = copy
        self._same_step = mode is AutoresetMode.SAME_STEP
        self._match = _new_match(
            scenario,
            num_envs,
            opponent=opponent,
            side=side,
            control=control,
            illegal_orders=illegal_orders,
            auto_reset=_AUTO_RESET[mode],
            with_state=with_state,
            rewards=rewards,
            num_threads=num_threads,
        )
        self.single_observation_space = self._match.batch.observation_space(side)
        self.single_action_space = self._match.batch.action_space(side)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._camera = Camera(self._match.batch, self._match.names("agent"))

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start every battle afresh. An integer seed gives environment ``i`` the seed ``seed + i``.

        Raises:
            ValueError: a list of seeds has another length than ``num_envs``.
        """
        if seed is None or isinstance(seed, int):
            super().reset(seed=seed)
            seeds: list[int | None] = [None if seed is None else seed + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(
                f"{len(seeds)} seeds for {self.num_envs} environments; give one each, or one integer"
            )
        generators = (self.np_random if s is None else seeding.np_random(s)[0] for s in seeds)
        self._match.reset(np.array([draw_seed(generator) for generator in generators]))
        zeros = np.zeros(self.num_envs, np.int32)
        return self._observations(), self._infos(zeros.astype(np.int8), zeros)

    def step(
        self, actions: NDArray[np.integer]
    ) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Give orders (num_envs, A, 2) and run 8 game loops in every battle.

        Raises:
            ValueError: an order is illegal or misshapen; nothing has moved then.
        """
        result = self._match.step({self.side: actions})
        rewards, terminated = result.rewards[:, self.side].copy(), result.done.copy()
        infos = self._infos(result.outcome, result.length)
        if self._same_step and terminated.any():
            infos = self._restart(terminated, infos)
        return self._observations(), rewards, terminated, np.zeros_like(terminated), infos

    def random_orders(self) -> NDArray[np.int64]:
        """Random legal orders (num_envs, A, 2), drawn with the environment's generator."""
        return self._match.random_orders(self.side, self.np_random)

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:  # type: ignore[override]
        """A picture (H, W, 3) uint8 of each battle, or None without a render mode."""
        if self.render_mode is None:
            return None
        return tuple(draw_frame(self._camera.frame(b)) for b in range(self.num_envs))

    def _observations(self) -> Observation:
        observation = self._match.batch.observations[self.side]
        assert observation is not None
        return {key: array.copy() for key, array in observation.items()} if self.copy else observation

    def _infos(self, outcome: NDArray[np.int8], length: NDArray[np.int32]) -> dict[str, Any]:
        """One step's infos: each key with its mask of the environments that have it."""
        every = np.ones(self.num_envs, np.bool_)
        infos: dict[str, Any] = {
            "outcome": self._match.outcome_names(outcome, self.side),
            "length": length.copy(),
            "survivors": self._match.survivors(self.side),
            "illegal_orders": self._match.replaced[self.side].sum(1),
        }
        if self._match.batch.scenario.mission is not None:
            infos["score"] = self._match.scores
        return infos | {f"_{key}": every.copy() for key in infos}

    def _restart(self, done: NDArray[np.bool_], last: dict[str, Any]) -> dict[str, Any]:
        """Start the ``done`` battles afresh; returns the infos, with what ``last`` said of those as final."""
        observation = self._match.batch.observations[self.side]
        assert observation is not None
        final_obs = np.full(self.num_envs, None, dtype=object)
        for b in np.flatnonzero(done):
            final_obs[b] = {key: array[b].copy() for key, array in observation.items()}
        final_info = {key: done.copy() if key.startswith("_") else value for key, value in last.items()}
        self._match.batch.restart(done)
        infos = dict(last)
        infos["outcome"] = np.where(done, "running", last["outcome"])
        infos["length"] = np.where(done, 0, last["length"])
        infos["survivors"] = self._match.survivors(self.side)
        infos["illegal_orders"] = np.where(done, 0, last["illegal_orders"])
        if "score" in last:
            infos["score"] = np.where(done, 0.0, last["score"])
        return infos | {
            "final_obs": final_obs,
            "_final_obs": done.copy(),
            "final_info": final_info,
            "_final_info": done.copy(),
        }


def _new_match(
    scenario: Scenario | str,
    num_battles: int,
    *,
    opponent: Player,
    side: int,
    control: Control | str,
    **options: Any,
) -> Match:
    if side not in (0, 1):
        raise ValueError(f"side is {side!r}; it must be 0 or 1")
    if control != Control.TEAM:
        raise ValueError(
            f"control is {control!r}; a Gymnasium environment has one agent, which commands a team ('team'). "
            "For an agent a unit use BattleParallelEnv (PettingZoo) or BattleMultiAgentEnv (RLlib)"
        )
    players = (None, opponent) if side == 0 else (opponent, None)
    return Match(scenario, num_battles, players=players, control=control, **options)
