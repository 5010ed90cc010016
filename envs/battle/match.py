"""A batch of battles with somebody on each side: what the Gymnasium, PettingZoo and RLlib fronts share.

A side is played by the caller, by one of the engine's own players, or by an opponent object. Here orders are
collected from whoever plays, illegal ones refused or replaced, and outcomes named from a side's point of
view. Nothing here knows an environment API.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from envs.battle.batch import AutoReset, BattleBatch, Control, Outcome, StepResult
from envs.battle.rules import RewardWeights
from envs.battle.tactics import ENGINE_PLAYERS, engine_player, is_engine_player
from envs.scenarios import Scenario
from envs.unit_set import Verb, illegal_orders, random_orders


@runtime_checkable
class Opponent(Protocol):
    """Anything that answers observations with orders; ``reset(seed)`` is called too where it has one.

    It answers each observation by itself: it is not told when one battle of many starts afresh.
    """

    def act(self, observation: Mapping[str, NDArray]) -> NDArray[np.integer]:
        """Contract arrays with one leading batch dimension (B, ...) to legal orders (B, A, 2)."""


Player: TypeAlias = Opponent | str
"""An opponent object, or the name of one of the engine's own players (:mod:`envs.battle.tactics`)."""


class IllegalOrders(StrEnum):
    """What to do with an order the masks forbid."""

    RAISE = "raise"
    """Refuse it with a ValueError before anything moves."""
    NO_OP = "no_op"
    """Replace it by NO_OP, or by STOP where a unit may not do nothing (SMAC's preset), and count it: for
    agents that sample from action spaces without masks."""


_OUTCOME_NAMES = np.array(
    [
        ["running", "win", "loss", "draw", "timeout"],
        ["running", "loss", "win", "draw", "timeout"],
    ],
    dtype=object,
)
"""Per side, the names of the Outcome values as that side sees them."""


class Match:
    """B battles of one scenario and who plays them.

    Args:
        scenario: a scenario, the name of a shipped one, or the path of a YAML file.
        num_battles: B.
        players: per side, None for the caller, else an opponent object or the name of an engine-side player:
            a tactic or a pool of :mod:`envs.battle.tactics`, such as "attack-move" or "mixed".
        control: one observer a team, or one a unit; an opponent observes under the same control.
        illegal_orders: what to do with the caller's illegal orders. An opponent's are always refused.
        auto_reset, with_state, rewards, num_threads: as for :class:`BattleBatch`.

    Attributes:
        batch: the battles; its ``observations`` are current.
        replaced: per side, (B, n) bool: which of the last step's orders were illegal and replaced.

    Raises:
        ValueError: an argument is out of range or a player is neither of the above.
        ScenarioError: the scenario is unknown or wrong.
    """

    def __init__(
        self,
        scenario: Scenario | str,
        num_battles: int,
        *,
        players: tuple[Player | None, Player | None],
        control: Control | str = Control.TEAM,
        illegal_orders: IllegalOrders | str = IllegalOrders.RAISE,
        auto_reset: AutoReset | str = AutoReset.OFF,
        with_state: bool = False,
        rewards: RewardWeights | None = None,
        num_threads: int = 1,
    ) -> None:
        for player in players:
            if not (player is None or is_engine_player(player) or isinstance(player, Opponent)):
                raise ValueError(
                    f"the opponent is {player!r}; it must be an object with act(observation) -> orders or "
                    f"one of: {', '.join(ENGINE_PLAYERS)}"
                )
        modes = [mode.value for mode in IllegalOrders]
        if illegal_orders not in modes:
            raise ValueError(f"illegal_orders is {illegal_orders!r}; it must be one of: {', '.join(modes)}")
        first, second = (engine_player(player) if isinstance(player, str) else player for player in players)
        self.players = (first, second)
        self.illegal_orders = IllegalOrders(illegal_orders)
        self.batch = BattleBatch(
            scenario,
            num_battles,
            builtin=(first if isinstance(first, str) else None, second if isinstance(second, str) else None),
            control=control,
            with_state=with_state,
            auto_reset=auto_reset,
            rewards=rewards,
            num_threads=num_threads,
        )
        self.replaced = tuple(np.zeros((num_battles, size), np.bool_) for size in self.batch.team_sizes)

    def reset(self, seeds: NDArray[np.uint64]) -> None:
        """Start every battle afresh from its seed (B,) uint64; opponents are reset with the first."""
        for replaced in self.replaced:
            replaced[:] = False
        for player in self.players:
            reset = getattr(player, "reset", None)
            if reset is not None:
                reset(int(seeds[0]))
        self.batch.reset(seeds)

    def step(self, orders: Mapping[int, NDArray[np.integer]]) -> StepResult:
        """Run 8 game loops in every battle.

        Args:
            orders: for each side the caller plays, (B, n, 2) integers: verb and target row of its n units.

        Raises:
            ValueError: an order is illegal or misshapen; nothing has moved then.
        """
        return self.batch.step(*self.collect(orders))

    def collect(
        self, orders: Mapping[int, NDArray[np.integer]]
    ) -> tuple[NDArray[np.integer] | None, NDArray[np.integer] | None]:
        """What ``step`` hands to the batch: both sides' orders, None for a side the engine plays."""
        return self._orders(0, orders.get(0)), self._orders(1, orders.get(1))

    def random_orders(self, side: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Random legal orders (B, n, 2) for a side, drawn as by :func:`envs.unit_set.random_orders`."""
        return random_orders(self.batch.masks(side), generator)

    def names(self, caller: str) -> tuple[str, str]:
        """Who plays each side, ``caller`` being the caller's; numbered where both are called the same."""

        def name(player: Player | None) -> str:
            if player is None or isinstance(player, str):
                return player or caller
            return str(getattr(player, "name", "opponent"))

        first, second = name(self.players[0]), name(self.players[1])
        return (f"{first} 0", f"{second} 1") if first == second else (first, second)

    def outcome_names(self, outcome: NDArray[np.int8] | int, side: int) -> Any:
        """ "running", "win", "loss", "draw" or "timeout" as ``side`` sees an outcome, or an array of them."""
        return _OUTCOME_NAMES[side][outcome]

    @property
    def scores(self) -> NDArray[np.float64]:
        """(B,): a mission's points so far, those of the first side; 0 in battles."""
        return self.batch.state.battles["score"].copy()

    def survivors(self, side: int) -> NDArray[np.int64]:
        """(B, 2): living units of ``side`` and of its enemy."""
        alive = self.batch.state.units["alive"]
        first, second = self.batch.team_sizes
        counts = np.stack([alive[:, :first].sum(1), alive[:, first : first + second].sum(1)], axis=1)
        return counts if side == 0 else counts[:, ::-1]

    def _orders(self, side: int, given: NDArray[np.integer] | None) -> NDArray[np.integer] | None:
        player = self.players[side]
        if player is None:
            return given if given is None else self._legal(side, np.asarray(given))
        return None if isinstance(player, str) else self._ask(player, side)

    def _legal(self, side: int, orders: NDArray[np.integer]) -> NDArray[np.integer]:
        """The caller's orders, illegal ones replaced if that is wanted."""
        masks = self.batch.masks(side)
        well_formed = orders.shape == (*masks["verb_mask"].shape[:2], 2) and orders.dtype.kind in "iu"
        if self.illegal_orders is IllegalOrders.RAISE or not well_formed:
            return orders  # the batch refuses what is wrong with it
        running = self.batch.state.battles["outcome"] == Outcome.RUNNING
        bad = illegal_orders(orders, masks["verb_mask"], masks["target_mask"]) & running[:, None]
        self.replaced[side][:] = bad
        # SMAC's units may do nothing only once they are dead; STOP is legal wherever NO_OP is not.
        instead = np.zeros_like(orders)
        instead[..., 0] = np.where(masks["verb_mask"][..., Verb.NO_OP], Verb.NO_OP, Verb.STOP)
        return np.where(bad[..., None], instead, orders)

    def _ask(self, player: Opponent, side: int) -> NDArray[np.integer]:
        observation = self.batch.observations[side]
        assert observation is not None
        b, n = self.batch.num_battles, self.batch.team_sizes[side]
        if self.batch.control is Control.UNIT:  # every unit is a row of the opponent's batch
            observation = {key: array.reshape(b * n, *array.shape[2:]) for key, array in observation.items()}
        return np.asarray(player.act(observation)).reshape(b, n, 2)
