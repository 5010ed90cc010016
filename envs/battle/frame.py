"""A frame: what there is to draw of one battle at one moment, as plain values.

Pictures, GIFs and the HTML player read frames and nothing else, so whatever can fill a frame (a running
simulation, a replay, another game) can be looked at. :class:`Camera` fills them from a :class:`BattleBatch`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from envs.battle import state as engine_state
from envs.battle.batch import BattleBatch, Outcome
from envs.unit_set import GAME_LOOPS_PER_SECOND, LOOPS_PER_STEP
from envs.units import unit_table

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Frame:
    """One battle at one moment: N units, the first team's first.

    Positions are map cells with y growing to the north, times are seconds of game time.
    """

    title: str
    names: tuple[str, str]
    """Who plays each team."""
    playable: tuple[float, float, float, float]
    """x0, y0, x1, y1."""
    seconds: float
    limit: float
    """Seconds after which the battle is called off."""
    result: str
    """How it ended, in words; empty while it runs."""
    unit_names: tuple[str, ...]
    side: NDArray[np.int64]
    """(N,) 0 or 1."""
    radius: Floats
    max_health: Floats
    max_shield: Floats
    position: Floats
    """(N, 2)."""
    facing: Floats
    """(N, 2) unit vectors."""
    health: Floats
    shield: Floats
    readiness: Floats
    """(N,) 0: the weapon has just fired, 1: it can fire. NaN: no weapon."""
    target: NDArray[np.int64]
    """(N,) the unit an attack is aimed at, or -1."""
    firing: NDArray[np.bool_]
    """(N,) the attack is under way or has landed since the last frame; otherwise the unit closes in."""
    goal: Floats
    """(N, 2) where a unit without a target is going; NaN: nowhere."""
    holding: NDArray[np.bool_]
    """(N,) told to hold its ground."""
    dead_for: Floats
    """(N,) seconds since the unit died; 0 while it lives."""

    @property
    def alive(self) -> NDArray[np.bool_]:
        """(N,) which units live."""
        return self.health > 0

    @cached_property
    def labels(self) -> dict[str, str]:
        """A letter for each type of unit, or its first and last letter where two types share the first."""
        names = sorted(set(self.unit_names))
        firsts = [name[0] for name in names]
        ends = {name: "" if firsts.count(name[0]) == 1 else name[-1] for name in names}
        return {name: name[0].upper() + ends[name] for name in names}

    def vitality(self, side: int) -> float:
        """Health and shield left to a team, as a fraction of what it can have."""
        own = self.side == side
        return float((self.health + self.shield)[own].sum() / (self.max_health + self.max_shield)[own].sum())


class Camera:
    """Takes frames of a batch's battles.

    Args:
        batch: the battles.
        names: who plays each team, as the picture's header says it.
    """

    def __init__(self, batch: BattleBatch, names: tuple[str, str] = ("team 0", "team 1")) -> None:
        self._batch = batch
        scenario = batch.scenario
        unit_names = tuple(name for team in scenario.teams for name in team.units)
        types = [unit_table()[name] for name in unit_names]
        self._period = np.array([unit.weapons[0].period if unit.weapons else np.nan for unit in types])
        nothing = np.zeros(len(types))
        self._blank = Frame(
            title=scenario.name,
            names=names,
            playable=scenario.playable,
            seconds=0.0,
            limit=scenario.step_limit * LOOPS_PER_STEP / GAME_LOOPS_PER_SECOND,
            result="",
            unit_names=unit_names,
            side=np.repeat([0, 1], batch.team_sizes),
            radius=np.array([unit.radius for unit in types]),
            max_health=np.array([unit.health for unit in types]),
            max_shield=np.array([unit.shield for unit in types]),
            position=np.zeros((len(types), 2)),
            facing=np.zeros((len(types), 2)),
            health=nothing,
            shield=nothing,
            readiness=nothing,
            target=np.full(len(types), -1),
            firing=nothing > 0,
            goal=np.full((len(types), 2), np.nan),
            holding=nothing > 0,
            dead_for=nothing,
        )

    def frame(self, battle: int = 0) -> Frame:
        """The battle as it stands now."""
        units, state = self._batch.state.units[battle], self._batch.state.battles[battle]
        loop, alive, order = int(state["loop"]), units["alive"], units["order"]
        engaged = np.where(alive, units["engaged"], -1).astype(np.int64)
        winding = alive & (units["windup"] >= 0)
        walking = alive & (engaged < 0) & ((order == engine_state.MOVE) | (order == engine_state.ATTACK_MOVE))
        return replace(
            self._blank,
            seconds=loop / GAME_LOOPS_PER_SECOND,
            result=_result(int(state["outcome"]), self._blank.names),
            position=_pair(units, "x", "y"),
            facing=_pair(units, "facing_x", "facing_y"),
            health=np.where(alive, units["health"], 0.0),
            shield=np.where(alive, units["shield"], 0.0),
            readiness=1.0 - np.clip(units["cooldown"] / self._period, 0.0, 1.0),
            target=engaged,
            firing=winding | (alive & (loop - units["struck_at"] <= LOOPS_PER_STEP)),
            goal=np.where(walking[:, None], _pair(units, "goal_x", "goal_y"), np.nan),
            holding=alive & (order == engine_state.HOLD),
            dead_for=np.where(alive, 0.0, (loop - units["hit_at"]) / GAME_LOOPS_PER_SECOND),
        )


def tween(frames: list[Frame], between: int) -> list[Frame]:
    """The frames with ``between`` more after each but the last: positions and facings glide, all else waits.

    Raises:
        ValueError: ``between`` is negative.
    """
    if between < 0:
        raise ValueError(f"between is {between}; it must be at least 0")
    smooth = []
    for now, then in pairwise(frames):
        for k in range(between + 1):
            t = k / (between + 1)
            smooth.append(
                replace(
                    now,
                    seconds=now.seconds + t * (then.seconds - now.seconds),
                    position=now.position + t * (then.position - now.position),
                    facing=_unit(now.facing + t * (then.facing - now.facing), now.facing),
                    dead_for=np.where(now.alive, 0.0, now.dead_for + t * (then.seconds - now.seconds)),
                )
            )
    return smooth + frames[-1:]


def _pair(units: NDArray[np.void], x: str, y: str) -> Floats:
    return np.stack([units[x], units[y]], axis=-1)


def _unit(vectors: Floats, fallback: Floats) -> Floats:
    """Vectors (N, 2) at length 1; the fallback where they have none."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-9, vectors / np.maximum(length, 1e-9), fallback)


def _result(outcome: int, names: tuple[str, str]) -> str:
    return {
        Outcome.RUNNING: "",
        Outcome.WIN_0: f"{names[0]} wins",
        Outcome.WIN_1: f"{names[1]} wins",
        Outcome.DRAW: "draw",
        Outcome.TIMEOUT: "time is up",
    }[Outcome(outcome)]
