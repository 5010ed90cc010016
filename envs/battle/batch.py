"""Many battles stepped at once in arrays: the front every other front stands on, and the fast one.

One call gives every unit of every battle its order, runs 8 game loops, scores them, starts finished battles
afresh and fills the observations, in compiled code that releases the interpreter lock (``num_threads``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from enum import Enum, IntEnum, StrEnum
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.battle import state as battle_state
from envs.battle.advance import (
    NEXT_STEP,
    OFF,
    SAME_STEP,
    advance_battles,
    first_illegal,
    look_battles,
    reset_battles,
    restart_battles,
)
from envs.battle.command import command_battles
from envs.battle.observe import StateView, View, new_state_view, new_view, observe_team, observe_units
from envs.battle.rules import RewardWeights, compile_rules, default_rewards
from envs.battle.tactics import DEFAULT, Tactic, choices, engine_player, tactics_of
from envs.scenarios import Scenario, load_scenario
from envs.unit_set import (
    ACTOR_KEYS,
    NUM_TARGET_VERBS,
    NUM_VERBS,
    STATE_KEYS,
    action_space,
    observation_space,
    validate_orders,
)
from envs.units import num_unit_types

Observation: TypeAlias = dict[str, NDArray]


class Control(StrEnum):
    """Who observes and commands."""

    TEAM = "team"
    """One observer a side, with the sight of all its units, commanding them all."""
    UNIT = "unit"
    """Each unit its own observer, with its own sight, commanding itself."""


class AutoReset(StrEnum):
    """What happens to a battle that is over."""

    SAME_STEP = "same_step"
    """It starts afresh at once: the step that ends it returns the next battle's first observation."""
    NEXT_STEP = "next_step"
    """It starts afresh in the next step, which ignores its orders and pays no reward."""
    OFF = "off"
    """It stays over: its units no longer act and its rewards are 0."""


class Outcome(IntEnum):
    """How a battle stands. A timeout is a loss for both, but of a mission it is the regular end."""

    RUNNING = battle_state.RUNNING
    WIN_0 = battle_state.WIN_0
    WIN_1 = battle_state.WIN_1
    DRAW = battle_state.DRAW
    TIMEOUT = battle_state.TIMEOUT


_MODES = {AutoReset.SAME_STEP: SAME_STEP, AutoReset.NEXT_STEP: NEXT_STEP, AutoReset.OFF: OFF}
_NO_ORDERS = np.zeros((0, 0, 2), np.int64)


class StepResult(NamedTuple):
    """What a step did, per battle. ``outcome``, ``length`` and ``episode_return`` are of the battle stepped,
    also where it has been started afresh since. The arrays are overwritten by the next step."""

    rewards: NDArray[np.float32]  # (B, 2)
    done: NDArray[np.bool_]  # (B,)
    outcome: NDArray[np.int8]  # (B,) Outcome
    length: NDArray[np.int32]  # (B,) steps so far
    episode_return: NDArray[np.float32]  # (B, 2)


class BattleBatch:
    """B battles of one scenario.

    Args:
        scenario: a scenario, the name of a shipped one, or the path of a YAML file.
        num_battles: B, at least 1.
        builtin: per side the name of the engine's player, a tactic or a pool of :mod:`envs.battle.tactics`;
            such a side gets no orders. None: the caller plays it.
        control: one observer a team, or one a unit.
        with_state: observations also carry the ``state_*`` keys, every living unit, for a centralised critic.
        auto_reset: what happens to finished battles.
        rewards: weights of the team reward.
        seed: from which each battle's seeds derive when :meth:`reset` gets none.
        num_threads: threads the battles are spread over.

    Attributes:
        observations: per side a dict of arrays (None for a side the engine plays), with leading dimensions
            (B,) under team control and (B, n) under unit control; views of buffers that the next
            step overwrites.
        seeds: (B,) uint64, the seed each running battle was started from.

    Raises:
        ValueError: an argument is out of range, or a side without units is not left to the engine.
        ScenarioError: the scenario is unknown or wrong.
    """

    def __init__(
        self,
        scenario: Scenario | str,
        num_battles: int,
        *,
        builtin: tuple[str | None, str | None] = (None, DEFAULT),
        control: Control | str = Control.TEAM,
        with_state: bool = False,
        auto_reset: AutoReset | str = AutoReset.SAME_STEP,
        rewards: RewardWeights | None = None,
        seed: int = 0,
        num_threads: int = 1,
    ) -> None:
        for name, value in (("num_battles", num_battles), ("num_threads", num_threads)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        self.scenario = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
        self.num_battles = num_battles
        self.control = _member(Control, control)
        self.auto_reset = _member(AutoReset, auto_reset)
        self.rewards = rewards or default_rewards(self.scenario)
        self.with_state = with_state
        first, second = (None if name is None else engine_player(name) for name in builtin)
        self.builtin = (first, second)
        for side, player in enumerate(self.builtin):
            if player is None:
                require_units(self.scenario, side)
        self.num_units = self.scenario.num_units
        self.team_sizes = (self.scenario.teams[0].size, self.scenario.teams[1].size)
        self.rules = compile_rules(self.scenario)
        self.state = battle_state.new_state(num_battles, self.num_units)
        self._sequence = np.random.SeedSequence(seed)
        self.seeds = np.zeros(num_battles, np.uint64)
        self._players = choices(self.builtin)
        # attack-move gets its one order at the start; only for the others is code compiled and run each step.
        self._commanded = any(
            name is not None and tactics_of(name) != (Tactic.ATTACK_MOVE,) for name in self.builtin
        )
        self._weights = np.array(astuple(self.rewards))
        self._views = [None if self.builtin[side] is not None else self._new_view(side) for side in (0, 1)]
        self._result = StepResult(
            np.zeros((num_battles, 2), np.float32),
            np.zeros(num_battles, np.bool_),
            np.zeros(num_battles, np.int8),
            np.zeros(num_battles, np.int32),
            np.zeros((num_battles, 2), np.float32),
        )
        bounds = np.linspace(0, num_battles, min(num_threads, num_battles) + 1).astype(int)
        self._slices = [(int(lo), int(hi)) for lo, hi in pairwise(bounds)]
        self._bins = {slice_: battle_state.new_bins(self.rules) for slice_ in self._slices}
        self._pool = ThreadPoolExecutor(len(self._slices) - 1) if len(self._slices) > 1 else None
        self.observations = [None if views is None else self._as_dict(views) for views in self._views]
        self.reset()

    def observation_space(self, side: int = 0) -> gym.spaces.Dict:
        """The space of one observer's observation, unbatched."""
        slots = self.team_sizes[side] if self.control is Control.TEAM else 1
        return observation_space(
            self.num_units, slots, num_unit_types=num_unit_types(), with_state=self.with_state
        )

    def action_space(self, side: int = 0) -> gym.spaces.MultiDiscrete:
        """The space of one observer's orders, unbatched."""
        return action_space(self.num_units, self.team_sizes[side] if self.control is Control.TEAM else 1)

    @property
    def tactics(self) -> NDArray[np.int8]:
        """(B, 2): the :class:`~envs.battle.tactics.Tactic` that plays each side of each battle now, also
        where it was drawn from a pool; -1 where the engine does not play."""
        return self.state.battles["tactic"].copy()

    def reset(self, seeds: ArrayLike | None = None) -> None:
        """Start every battle afresh, from the given seeds (B,) or the constructor's; fills ``observations``.

        A battle that is later started afresh by itself takes its next seed from the one it started with.
        """
        if seeds is None:
            seeds = self._sequence.generate_state(self.num_battles, np.uint64)
        self.seeds[:] = np.asarray(seeds, dtype=np.uint64)

        def start(lo: int, hi: int) -> None:
            reset_battles(self.rules, self.state, self.seeds, self._players, self._bins[lo, hi], lo, hi)
            self._observe(lo, hi)

        self._run(start)

    def restart(self, battles: NDArray[np.bool_]) -> None:
        """Start the marked battles (B,) afresh, from the seeds that auto-reset would give them.

        Raises:
            ValueError: the marks are not (B,) bools.
        """
        battles = np.asarray(battles)
        if battles.shape != (self.num_battles,) or battles.dtype != np.bool_:
            raise ValueError(
                f"battles are marked by {battles.shape} {battles.dtype}; expected bools ({self.num_battles},)"
            )

        def start(lo: int, hi: int) -> None:
            restart_battles(
                self.rules, self.state, battles, self.seeds, self._players, self._bins[lo, hi], lo, hi
            )
            self._observe(lo, hi)

        self._run(start)

    def masks(self, side: int) -> dict[str, NDArray[np.bool_]]:
        """``verb_mask`` (B, n, V) and ``target_mask`` (B, n, V_t, U) of a side, under either control.

        Raises:
            ValueError: the engine plays that side.
        """
        views = self._views[side]
        if views is None:
            raise ValueError(f"side {side} is played by the engine and has no observations")
        view, _ = views
        b, n = self.num_battles, self.team_sizes[side]
        return {
            "verb_mask": view.verb_mask.reshape(b, n, NUM_VERBS),
            "target_mask": view.target_mask.reshape(b, n, NUM_TARGET_VERBS, self.num_units),
        }

    def refresh(self) -> None:
        """Renew sight and ``observations`` after ``state`` was edited by hand; no time passes."""

        def renew(lo: int, hi: int) -> None:
            look_battles(self.rules, self.state, lo, hi)
            self._observe(lo, hi)

        self._run(renew)

    def step(
        self,
        orders0: NDArray[np.integer] | None,
        orders1: NDArray[np.integer] | None = None,
        *,
        out: tuple[Mapping[str, NDArray] | None, Mapping[str, NDArray] | None] = (None, None),
    ) -> StepResult:
        """Run 8 game loops in every battle.

        Args:
            orders0: (B, n, 2) integers, verb and target row of the first team's n units; None if the engine
                plays it.
            orders1: the same for the second team.
            out: per side, arrays shaped like ``observations`` to write the new observations to (slices of a
                rollout buffer, say); ``observations`` then refers to them. The state, which the units of a
                battle share, is one a battle under unit control, too: (B, 1, ...).

        Raises:
            ValueError: an order is illegal (naming battle, unit, verb and reason) or misshapen. Nothing has
                moved then.
        """
        given0, given1 = self._check(0, orders0), self._check(1, orders1)
        for side, arrays in enumerate(out):
            if arrays is not None:
                self._redirect(side, arrays)

        def advance(lo: int, hi: int) -> None:
            if self._commanded:
                command_battles(self.rules, self.state, lo, hi)
            advance_battles(
                self.rules,
                self.state,
                given0,
                given1,
                self._players,
                self._weights,
                _MODES[self.auto_reset],
                self.seeds,
                *self._result,
                self._bins[lo, hi],
                lo,
                hi,
            )
            self._observe(lo, hi)

        self._run(advance)
        return self._result

    def _new_view(self, side: int) -> tuple[View, StateView]:
        own = self.team_sizes[side]
        observers, slots = (1, own) if self.control is Control.TEAM else (own, 1)
        full = new_state_view(self.num_battles if self.with_state else 0, self.num_units)
        return new_view(self.num_battles, observers, self.num_units, slots), full

    def _as_dict(self, views: tuple[View, StateView]) -> Observation:
        """The arrays under their contract names; a team's lose the observer axis, units' states gain it."""
        view, full = views
        team = self.control is Control.TEAM
        arrays: Observation = {key: array[:, 0] if team else array for key, array in view._asdict().items()}
        if self.with_state:
            for key, array in full._asdict().items():
                shape = (self.num_battles, view.units.shape[1], *array.shape[2:])
                arrays[f"state_{key}"] = array[:, 0] if team else np.broadcast_to(array, shape)
        return arrays

    def _redirect(self, side: int, arrays: Mapping[str, NDArray]) -> None:
        """Write ``side``'s observations to ``arrays`` from now on."""
        current, views = self.observations[side], self._views[side]
        if current is None or views is None:
            raise ValueError(f"side {side} has no observations that could be redirected")
        team = self.control is Control.TEAM
        for key, array in current.items():
            given = arrays[key]
            shape = array.shape if team or key not in STATE_KEYS else (len(array), 1, *array.shape[2:])
            if given.shape != shape or given.dtype != array.dtype or not given.flags.c_contiguous:
                raise ValueError(
                    f"out[{side}][{key!r}] is {given.shape} {given.dtype}; it must be a contiguous array of "
                    f"{shape} {array.dtype}"
                )

        def observers(key: str) -> NDArray:
            return arrays[key][:, None] if team else arrays[key]

        view = View(*(observers(key) for key in ACTOR_KEYS))
        full = StateView(*(observers(key) for key in STATE_KEYS)) if self.with_state else views[1]
        self._views[side] = (view, full)
        self.observations[side] = self._as_dict((view, full))

    def _check(self, side: int, orders: NDArray[np.integer] | None) -> NDArray[np.int64]:
        if (self.builtin[side] is None) == (orders is None):
            what = "needs orders" if orders is None else "is played by the engine and takes no orders"
            raise ValueError(f"side {side} {what}")
        if orders is None:
            return _NO_ORDERS
        orders = np.asarray(orders)
        masks = self.masks(side)
        expected = (*masks["verb_mask"].shape[:2], 2)
        if orders.shape != expected or orders.dtype.kind not in "iu":
            raise ValueError(
                f"orders of side {side} are {orders.shape} {orders.dtype}; expected integers {expected}"
            )
        given = np.ascontiguousarray(orders, dtype=np.int64)
        b = first_illegal(given, masks["verb_mask"], masks["target_mask"], self.state.battles["outcome"])
        if b >= 0:
            validate_orders(
                given[b],
                {key: mask[b] for key, mask in masks.items()},
                lambda index: f"battle {b}, side {side}, unit {index[0]}",
            )
        return given

    def _observe(self, lo: int, hi: int) -> None:
        observe = observe_team if self.control is Control.TEAM else observe_units
        for side, views in enumerate(self._views):
            if views is not None:
                observe(self.rules, self.state, side, views[0], views[1], lo, hi)

    def _run(self, work: Callable[[int, int], None]) -> None:
        """Do ``work(lo, hi)`` on every slice of the battles, the first one in this thread."""
        if self._pool is None:
            work(*self._slices[0])
            return
        futures = [self._pool.submit(work, lo, hi) for lo, hi in self._slices[1:]]
        work(*self._slices[0])
        for future in futures:
            future.result()


def require_units(scenario: Scenario, side: int) -> None:
    """Refuse to have a side played by anybody but the engine where it has no units: a mission's enemy.

    Raises:
        ValueError: naming the scenario and who can play.
    """
    if scenario.teams[side].size == 0:
        raise ValueError(
            f"scenario {scenario.name!r} has no units on side {side}, so there is nobody to command: play "
            f"side {1 - side} and leave the opponent at {DEFAULT!r}"
        )


def _member(kind: type[Enum], value: Enum | str) -> Any:
    """``value`` as a member of the string enum ``kind``."""
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(str(member.value) for member in kind)
        raise ValueError(f"{kind.__name__.lower()} is {value!r}; it must be one of: {names}") from None
