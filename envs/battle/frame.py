"""A frame: what there is to draw of one battle at one moment, as plain values.

Pictures, films and the HTML player read frames and nothing else, so whatever can fill a frame (a running
simulation, a replay, another game) can be looked at. :class:`Camera` fills them from a :class:`BattleBatch`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.battle import state as engine_state
from envs.battle.batch import BattleBatch, Outcome
from envs.battle.blasts import Blast, blasts, victims
from envs.battle.rules import NEUTRAL, NO_ABILITY
from envs.scenario_ground import playable_terrain
from envs.terrain import Terrain
from envs.unit_set import GAME_LOOPS_PER_SECOND, LOOPS_PER_STEP

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

OWN_SIDES = (0, 1)
__all__ = ["NEUTRAL", "Camera", "Frame", "focus", "frame_at", "thin", "tween"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One battle at one moment: N units, the first team's first, then the second's, then what nobody owns.

    Positions are map cells with y growing to the north, times are seconds of game time.
    """

    title: str
    names: tuple[str, str]
    """Who plays each team."""
    playable: tuple[float, float, float, float]
    """x0, y0, x1, y1."""
    view: tuple[float, float, float, float]
    """The part of the playable area that pictures show, likewise."""
    terrain: Terrain | None
    """None: open ground."""
    seconds: float
    limit: float
    """Seconds after which the battle is called off."""
    result: str
    """How it ended, in words; empty while it runs."""
    score: float | None
    """A mission's; None where the point is to win."""
    unit_names: tuple[str, ...]
    side: Ints
    """(N,) 0, 1, or NEUTRAL."""
    radius: Floats
    sight: Floats
    max_health: Floats
    max_shield: Floats
    max_energy: Floats
    """(N,) 0 for units that have no use for energy."""
    flying: Flags
    cloaked: Flags
    present: Flags
    """(N,) on the field or fallen there; False for reinforcements that have not come yet."""
    position: Floats
    """(N, 2)."""
    facing: Floats
    """(N, 2) unit vectors."""
    health: Floats
    shield: Floats
    energy: Floats
    readiness: Floats
    """(N,) 0: the weapon has just fired, 1: it can fire. NaN: no weapon."""
    target: Ints
    """(N,) the unit an attack or a heal is aimed at, or was since the last frame; or -1."""
    firing: Flags
    """(N,) the attack or heal is under way or has landed since the last frame; otherwise the unit closes in
    or waits for its weapon."""
    goal: Floats
    """(N, 2) where a unit without a target is going; NaN: nowhere."""
    holding: Flags
    """(N,) told to hold its ground."""
    stimmed: Flags
    """(N,) under a stimpack."""
    seen: Flags
    """(N, 2) by each team."""
    dead_for: Floats
    """(N,) seconds since the unit died; 0 while it lives."""
    missile_target: Ints
    """(N,) the unit that this one's missile flies to, or has hit since the last frame; or -1."""
    missile_start: Floats
    """(N, 2) where it was fired; NaN: there is none."""
    missile_fired: Floats
    """(N,) seconds; likewise ``missile_lands``. It is in the air from the one to the other. NaN: none."""
    missile_lands: Floats
    blasts: tuple[Blast, ...]
    """Areas hit since the last frame."""

    @property
    def alive(self) -> Flags:
        """(N,) which units live."""
        return self.health > 0

    @property
    def hidden(self) -> Flags:
        """(N,) units of a team that the other team, if there is one, does not see."""
        other = 1 - self.side.clip(0, 1)
        opposed = (self.side != NEUTRAL) & np.isin(other, self.side)
        return opposed & ~self.seen[np.arange(len(self.side)), other]

    @property
    def missiles(self) -> dict[int, Floats]:
        """Where the missiles in the air are (2,), by the unit that fired them."""
        after = self.seconds - self.missile_fired
        flying = (self.missile_target >= 0) & (after >= 0) & (self.seconds < self.missile_lands)
        places = {}
        for i in np.flatnonzero(flying).tolist():
            share = after[i] / (self.missile_lands[i] - self.missile_fired[i])
            end = self.position[self.missile_target[i]]
            places[i] = self.missile_start[i] + share * (end - self.missile_start[i])
        return places

    @cached_property
    def labels(self) -> dict[str, str]:
        """A letter for each type of unit; a second one tells apart types that share the first."""
        names = sorted(
            {name for name, side in zip(self.unit_names, self.side, strict=True) if side != NEUTRAL}
        )
        firsts = [name[0] for name in names]
        labels: dict[str, str] = {}
        for name in names:
            choices = [name[0].upper() + letter for letter in name[-1] + name[1:]]
            if firsts.count(name[0]) == 1:
                choices = [name[0].upper()]
            labels[name] = next((c for c in choices if c not in labels.values()), choices[0])
        return labels

    def counts(self, side: int) -> tuple[int, int]:
        """Units of a team that live, and all it has had on the field."""
        own = (self.side == side) & self.present
        return int(self.alive[own].sum()), int(own.sum())

    def vitality(self, side: int) -> float:
        """Health and shield left to a team, as a fraction of what it can have; 0 for a team without units."""
        own = (self.side == side) & self.present
        most = float((self.max_health + self.max_shield)[own].sum())
        return float((self.health + self.shield)[own].sum()) / most if most > 0 else 0.0


class Camera:
    """Takes frames of a batch's battles.

    Args:
        batch: the battles.
        names: who plays each team, as the picture's header says it.
    """

    def __init__(self, batch: BattleBatch, names: tuple[str, str] = ("team 0", "team 1")) -> None:
        self._batch = batch
        self._names = names
        scenario, types = batch.scenario, batch.scenario.unit_types
        self._terrain = playable_terrain(scenario) if scenario.terrain is not None else None
        # By local type, as UNIT.type counts them.
        self._unit_names = [unit.name for unit in types]
        self._period = np.array([unit.weapons[0].period if unit.weapons else np.nan for unit in types])
        self._flying = np.array([unit.flying for unit in types])
        table = batch.rules.types
        self._max_energy = np.where(table["ability"] != NO_ABILITY, table["energy"], 0.0)

    def frame(self, battle: int = 0) -> Frame:
        """The battle as it stands now."""
        units, state = self._batch.state.units[battle], self._batch.state.battles[battle]
        scenario, rules = self._batch.scenario, self._batch.rules
        kind, loop, alive = units["type"], int(state["loop"]), units["alive"]
        table = rules.types[kind]
        recently = loop - LOOPS_PER_STEP
        hit, missile_hit = victims(units, recently)
        winding = alive & (units["windup"] >= 0)
        # A heal that goes on counts as landed in every loop.
        healing = alive & (units["engaged"] >= 0) & (units["struck_at"] >= recently)
        healing &= units["side"] == units["side"][units["engaged"]]
        hit = np.where(winding | healing, -1, hit)
        aim = np.where(alive, units["engaged"], -1)
        order = units["order"]
        walks = np.isin(order, (engine_state.MOVE, engine_state.ATTACK_MOVE, engine_state.PATROL))
        shot = missile_hit >= 0
        walking = alive & (aim < 0) & walks
        return Frame(
            title=scenario.name,
            names=self._names,
            playable=scenario.playable,
            view=scenario.playable,
            terrain=self._terrain,
            seconds=loop / GAME_LOOPS_PER_SECOND,
            limit=scenario.step_limit * LOOPS_PER_STEP / GAME_LOOPS_PER_SECOND,
            result=_result(int(state["outcome"]), self._names, mission=scenario.mission is not None),
            score=float(state["score"]) if scenario.mission is not None else None,
            unit_names=tuple(self._unit_names[k] for k in kind),
            side=units["side"].astype(np.int64),
            radius=table["radius"],
            sight=table["sight"],
            max_health=table["health"],
            max_shield=table["shield"],
            max_energy=self._max_energy[kind],
            flying=self._flying[kind],
            cloaked=table["cloaked"],
            # Who has not been on the field has never been hit, and who has fallen has.
            present=alive | (units["hit_at"] >= 0),
            position=_pair(units, "x", "y"),
            facing=_pair(units, "facing_x", "facing_y"),
            health=np.where(alive, units["health"], 0.0),
            shield=np.where(alive, units["shield"], 0.0),
            energy=np.where(alive, units["energy"], 0.0),
            readiness=1.0 - np.clip(units["cooldown"] / self._period[kind], 0.0, 1.0),
            target=np.where(hit >= 0, hit, aim).astype(np.int64),
            firing=winding | healing | (hit >= 0),
            goal=np.where(walking[:, None], _pair(units, "goal_x", "goal_y"), np.nan),
            holding=alive & (order == engine_state.HOLD),
            stimmed=alive & (units["stim_until"] > loop),
            seen=(units["seen"][:, None] >> np.array(OWN_SIDES) & 1).astype(bool),
            dead_for=np.where(alive, 0.0, (loop - units["hit_at"]) / GAME_LOOPS_PER_SECOND),
            missile_target=missile_hit,
            missile_start=np.where(shot[:, None], _pair(units, "missile_x", "missile_y"), np.nan),
            missile_fired=np.where(shot, units["missile_from"] / GAME_LOOPS_PER_SECOND, np.nan),
            missile_lands=np.where(shot, units["missile_at"] / GAME_LOOPS_PER_SECOND, np.nan),
            blasts=blasts(rules, units, hit, recently),
        )


def tween(frames: Sequence[Frame], between: int) -> list[Frame]:
    """The frames with ``between`` more after each but the last, in which units glide.

    Raises:
        ValueError: ``between`` is negative.
    """
    if between < 0:
        raise ValueError(f"between is {between}; it must be at least 0")
    smooth = [
        _between(now, then, k / (between + 1)) for now, then in pairwise(frames) for k in range(between + 1)
    ]
    return smooth + list(frames[-1:])


def frame_at(frames: Sequence[Frame], seconds: float) -> Frame:
    """The battle at any time: units glide between the frames given. Before the first and after the last it
    stands still."""
    k = bisect_right(frames, seconds, key=lambda frame: frame.seconds) - 1
    if k < 0 or k + 1 >= len(frames):
        return frames[max(k, 0)]
    now, then = frames[k], frames[k + 1]
    return _between(now, then, (seconds - now.seconds) / (then.seconds - now.seconds))


def thin(frames: Sequence[Frame], most: int) -> list[Frame]:
    """At most ``most`` (2 or more) of the frames, evenly spread, the first and the last among them."""
    if len(frames) <= most:
        return list(frames)
    return [frames[k] for k in np.linspace(0, len(frames) - 1, most).round().astype(int)]


def focus(frames: Sequence[Frame], margin: float = 3.0) -> list[Frame]:
    """The frames with the view narrowed to where units are in any of them, a margin in map cells around.

    The view keeps the shape of the playable area, shows at least half of its width, and is the same in all.
    """
    x0, y0, x1, y1 = frames[0].playable
    places = np.concatenate([frame.position[frame.present] for frame in frames])
    if len(places) == 0:
        return list(frames)
    low, high = places.min(0) - margin, places.max(0) + margin
    share = min(max(float(((high - low) / (x1 - x0, y1 - y0)).max()), 0.5), 1.0)
    size = np.array([x1 - x0, y1 - y0]) * share
    corner = np.clip((low + high - size) / 2, (x0, y0), (x1, y1) - size)
    view = (*corner.tolist(), *(corner + size).tolist())
    return [replace(frame, view=view) for frame in frames]


def _between(now: Frame, then: Frame, share: float) -> Frame:
    """Positions and facings glide, missiles fly, blasts come when they came; all else waits for ``then``.

    Whoever is new on the field, or was put elsewhere, does not glide there.
    """
    if share <= 0:
        return now
    seconds = now.seconds + share * (then.seconds - now.seconds)
    leap = then.alive & ~(now.alive & (np.linalg.norm(then.position - now.position, axis=-1) < LEAP))
    moved = np.where(leap[:, None], 0.0, share * (then.position - now.position))
    fired = (then.missile_target >= 0) & (then.missile_fired <= seconds)

    def missile(old: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
        return np.where(fired[:, None] if old.ndim == 2 else fired, new, old)

    return replace(
        now,
        seconds=seconds,
        position=now.position + moved,
        facing=_unit(now.facing + share * (then.facing - now.facing), now.facing),
        dead_for=np.where(now.alive, 0.0, now.dead_for + seconds - now.seconds),
        missile_target=missile(now.missile_target, then.missile_target),
        missile_start=missile(now.missile_start, then.missile_start),
        missile_fired=missile(now.missile_fired, then.missile_fired),
        missile_lands=missile(now.missile_lands, then.missile_lands),
        blasts=now.blasts + tuple(blast for blast in then.blasts if blast.seconds <= seconds),
    )


LEAP = 5.0
"""Map cells between two frames from which on a unit has not walked: a blink, or a new place in a mission."""


def _pair(units: NDArray[np.void], x: str, y: str) -> Floats:
    return np.stack([units[x], units[y]], axis=-1)


def _unit(vectors: Floats, fallback: Floats) -> Floats:
    """Vectors (N, 2) at length 1; the fallback where they have none."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-9, vectors / np.maximum(length, 1e-9), fallback)


def _result(outcome: int, names: tuple[str, str], *, mission: bool) -> str:
    if mission and outcome not in (Outcome.RUNNING, Outcome.TIMEOUT):
        return "all units lost"
    return {
        Outcome.RUNNING: "",
        Outcome.WIN_0: f"{names[0]} wins",
        Outcome.WIN_1: f"{names[1]} wins",
        Outcome.DRAW: "draw",
        Outcome.TIMEOUT: "time is up",
    }[Outcome(outcome)]
