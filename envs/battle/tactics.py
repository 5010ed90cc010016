"""The engine's own players by name: tactics, and pools of tactics of which every battle draws one.

A side that the engine plays sees what its units see and gives the orders that an agent could give, in
compiled code (command.py) and without observations. It is named wherever an opponent is named:

    attack-move         the game's own enemy in SMAC: one attack-move order, given at the start
    attack-move-easy    attack-move by units that often stray and shoot at whomever they like
    attack-move-medium  the same, less often
    attack-move-hard    closes up before contact, wastes no volley
    focus-fire          closes up, all shoot at the weakest in reach
    kite                focus-fire that keeps away from enemies of shorter range
    retreat-regroup     who is outnumbered falls back to its comrades and returns with them
    split               two prongs, spread out against splash

Held-out tactics are for evaluation alone: an agent that is to meet the unknown must not have trained on it
(SMAC-HARD's black box).

    flank               a third goes round to the enemy's rear, the rest waits for it
    hit-and-run         ranged units step back while their weapons cool down
    ambush              waits at home, then all strike at once

Two pools: "mixed" draws one of the tactics for training, "black-box" one of those held out; each battle draws
from its own random stream when it starts. "builtin" is another name for attack-move.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray


class Tactic(IntEnum):
    """How the engine plays a side. The tactics of a pool have numbers in a row."""

    ATTACK_MOVE = 0
    ATTACK_MOVE_EASY = 1
    ATTACK_MOVE_MEDIUM = 2
    ATTACK_MOVE_HARD = 3
    FOCUS_FIRE = 4
    KITE = 5
    RETREAT_REGROUP = 6
    SPLIT = 7
    FLANK = 8
    HIT_AND_RUN = 9
    AMBUSH = 10

    @property
    def label(self) -> str:
        """The name users write, such as ``attack-move-hard``."""
        return self.name.lower().replace("_", "-")


TRAINING = tuple(tactic for tactic in Tactic if tactic <= Tactic.SPLIT)
HELD_OUT = tuple(tactic for tactic in Tactic if tactic > Tactic.SPLIT)
POOLS: Mapping[str, tuple[Tactic, ...]] = MappingProxyType({"mixed": TRAINING, "black-box": HELD_OUT})
BUILTIN = "builtin"
"""Another name for attack-move."""
DEFAULT = Tactic.ATTACK_MOVE.label
"""SMAC's enemy."""
NO_TACTIC = -1
"""BATTLE.tactic of a side that the engine does not play."""

_PLAYERS: Mapping[str, tuple[Tactic, ...]] = MappingProxyType(
    {tactic.label: (tactic,) for tactic in Tactic} | dict(POOLS)
)
ENGINE_PLAYERS = tuple(_PLAYERS)
"""Every name but the alias: tactics, then pools."""


def is_engine_player(name: object) -> bool:
    """Whether this is the name of a tactic, of a pool, or the alias."""
    return isinstance(name, str) and (name == BUILTIN or name in _PLAYERS)


def engine_player(name: str) -> str:
    """The name by which results and replays call an engine-side player: the alias resolved.

    Raises:
        ValueError: there is no such player; the message lists those there are.
    """
    if name == BUILTIN:
        return DEFAULT
    if name in _PLAYERS:
        return name
    near = difflib.get_close_matches(str(name), ENGINE_PLAYERS, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"the engine has no player {name!r}{hint} It has: {', '.join(ENGINE_PLAYERS)}")


def tactics_of(name: str) -> tuple[Tactic, ...]:
    """The tactics a player draws from, one each battle.

    Raises:
        ValueError: there is no such player.
    """
    return _PLAYERS[engine_player(name)]


def choices(players: tuple[str | None, str | None]) -> NDArray[np.int64]:
    """(2, 2): of each side's player the first of its tactics and how many follow each other, 0 for None.

    Raises:
        ValueError: there is no such player.
    """
    rows = [
        (NO_TACTIC, 0) if name is None else (tactics_of(name)[0], len(tactics_of(name))) for name in players
    ]
    return np.array(rows, np.int64)
