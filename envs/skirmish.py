"""Fights of any size by name: ``marine_5v6`` is five marines against six on the ground of SMAC's 3m.

``UNIT_NvM`` names one, for any unit that fights; ``marine_3v3`` is 3m and ``marine_8v8`` is 8m but for the
name. A range names several: ``marine_2-8`` are the even fights from 2 to 8 a side, ``marine_2-8v+1`` those
against one more.

SMAC gives 3m 60 steps and 8m 120; in between and beyond, a fight here has 15 for each unit of the larger
team, but no fewer than 60 and, as the longest of SMAC's marine fights, no more than 180.
"""

from __future__ import annotations

import re

from envs.scenario_limits import ScenarioError
from envs.scenario_model import Group, Scenario, Team
from envs.units import unit_table

_NAME = re.compile(r"([a-z_]+)_(\d+)v(\d+)")
_RANGE = re.compile(r"([a-z_]+)_(\d+)-(\d+)(?:v\+(\d+))?")
_SPAWNS = ((9.0, 16.0), (23.0, 16.0))
_STEPS_PER_UNIT, _LEAST_STEPS, _MOST_STEPS = 15, 60, 180
_LARGEST = 1000  # above what any map holds; bounds what a range names


def skirmish(name: str) -> Scenario | None:
    """The fight of that name; None if it names none.

    Raises:
        ScenarioError: the units do not fight, or so many do not fit.
    """
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in unit_table():
        return None
    sizes = min(int(match[2]), _LARGEST), min(int(match[3]), _LARGEST)
    first, second = (Group((match[1],) * size, spawn) for size, spawn in zip(sizes, _SPAWNS, strict=True))
    return Scenario(
        name=name,
        width=32,
        height=32,
        playable=(0.0, 7.0, 32.0, 25.0),
        teams=(Team((first,), _SPAWNS[1]), Team((second,), _SPAWNS[0])),
        step_limit=min(max(_STEPS_PER_UNIT * max(sizes), _LEAST_STEPS), _MOST_STEPS),
        spawn_jitter=0.0,
    )


def skirmish_range(name: str) -> tuple[str, ...]:
    """The names of the fights that a range names; none if it is no range of a known unit.

    Raises:
        ScenarioError: the range is empty or out of reason.
    """
    match = _RANGE.fullmatch(name)
    if match is None or match[1] not in unit_table():
        return ()
    low, high, more = int(match[2]), int(match[3]), int(match[4] or 0)
    if not 1 <= low <= high <= _LARGEST or more > _LARGEST:
        raise ScenarioError(f"{name}: a range goes from 1 or more to as many or more, such as {match[1]}_2-8")
    return tuple(f"{match[1]}_{size}v{size + more}" for size in range(low, high + 1))
