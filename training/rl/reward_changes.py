"""Changes to a scenario's reward as they are written on a command line: ``win=2 kill=0.5``."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Sequence

from envs.battle.rules import RewardWeights, default_rewards
from envs.scenarios import Scenario


def change_rewards(scenario: Scenario, changes: Sequence[str]) -> RewardWeights:
    """The scenario's own reward with its changes.

    Raises:
        ValueError: a change is no KEY=NUMBER, names no weight, or leaves nothing to learn from.
    """
    names = [f.name for f in dataclasses.fields(RewardWeights)]
    given: dict[str, float] = {}
    for change in changes:
        name, _, value = change.partition("=")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
            raise ValueError(f"rewards: {change!r} names no weight; {hint}")
        if name in given:
            raise ValueError(f"rewards: {name} is given twice")
        try:
            given[name] = float(value)
        except ValueError:
            given[name] = math.nan
        if not math.isfinite(given[name]):
            raise ValueError(f"rewards: {change!r} must be {name}=NUMBER, such as {name}=0.5")
    if given.get("score") and scenario.mission is None:
        raise ValueError(f"rewards: score is paid in missions only, and {scenario.name!r} is none")
    changed = dataclasses.replace(default_rewards(scenario), **given)
    if not any(dataclasses.astuple(changed)):
        raise ValueError("rewards: every weight is 0, which leaves nothing to learn from")
    return changed
