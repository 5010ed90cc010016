"""Builders of small battles with everything in known places."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from envs.battle.batch import BattleBatch
from envs.battle.frame import Frame
from envs.scenarios import Group, Scenario, Team


def open_field(first: dict[str, int], second: dict[str, int], **changes) -> Scenario:
    """A battle on an open 64 x 64 map without jitter."""
    teams = tuple(
        Team(
            (Group(tuple(name for name, count in units.items() for _ in range(count)), spawn),), attack_point
        )
        for units, spawn, attack_point in (
            (first, (16.0, 32.0), (48.0, 32.0)),
            (second, (48.0, 32.0), (16.0, 32.0)),
        )
    )
    settings = {"step_limit": 1000, "spawn_jitter": 0.0} | changes
    return Scenario("test", 64, 64, (0.0, 0.0, 64.0, 64.0), (teams[0], teams[1]), **settings)


@pytest.fixture
def battle() -> Callable[..., BattleBatch]:
    """``battle({"marine": 1}, {"zealot": 1}, at=[(x, y), (x, y)])``: both sides external, placed as said."""

    def build(first, second, *, at=None, battles=1, changes=None, **settings) -> BattleBatch:
        settings = {"builtin": (None, None), "auto_reset": "off"} | settings
        batch = BattleBatch(open_field(first, second, **(changes or {})), battles, **settings)
        if at is not None:
            batch.state.units["x"], batch.state.units["y"] = np.array(at, dtype=float).T
            batch.refresh()
        return batch

    return build


@pytest.fixture
def give() -> Callable[..., None]:
    """``give(batch, first, second, steps)``: step with the same order (verb, target) for all of a side."""

    def run(batch: BattleBatch, first, second=(0, 0), steps: int = 1) -> None:
        for _ in range(steps):
            orders: list[np.ndarray | None] = []
            for side, order in enumerate((first, second)):
                given = np.zeros((batch.num_battles, batch.team_sizes[side], 2), np.int64)
                given[:] = order
                observation = batch.observations[side]
                if observation is not None:
                    alive = observation["controlled_mask"].reshape(batch.num_battles, -1)
                    verb = given[..., :1]
                    allowed = np.take_along_axis(
                        observation["verb_mask"].reshape(*given.shape[:2], -1), verb, -1
                    )[..., 0]
                    given[~(alive & allowed)] = 0
                orders.append(None if batch.builtin[side] else given)
            batch.step(*orders)

    return run


@pytest.fixture
def frame() -> Frame:
    """A marine of the first team in the west, two zealots of the second in the east, unhurt, idle, seen by
    all, themselves seeing nothing."""
    nothing, nowhere = np.zeros(3), np.full((3, 2), np.nan)
    return Frame(
        title="made up",
        names=("ours", "theirs"),
        playable=(0.0, 0.0, 16.0, 10.0),
        view=(0.0, 0.0, 16.0, 10.0),
        terrain=None,
        seconds=1.5,
        limit=20.0,
        result="",
        score=None,
        unit_names=("marine", "zealot", "zealot"),
        side=np.array([0, 1, 1]),
        radius=np.array([0.375, 0.5, 0.5]),
        sight=nothing,
        max_health=np.array([45.0, 100.0, 100.0]),
        max_shield=np.array([0.0, 50.0, 50.0]),
        max_energy=nothing,
        flying=nothing > 0,
        cloaked=nothing > 0,
        present=nothing == 0,
        position=np.array([[3.0, 5.0], [12.0, 7.0], [12.0, 3.0]]),
        facing=np.array([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]),
        health=np.array([45.0, 100.0, 100.0]),
        shield=np.array([0.0, 50.0, 50.0]),
        energy=nothing,
        readiness=np.ones(3),
        target=np.full(3, -1),
        firing=nothing > 0,
        goal=nowhere,
        holding=nothing > 0,
        stimmed=nothing > 0,
        seen=np.ones((3, 2), bool),
        dead_for=nothing,
        missile_target=np.full(3, -1),
        missile_start=nowhere,
        missile_fired=np.full(3, np.nan),
        missile_lands=np.full(3, np.nan),
        blasts=(),
    )
