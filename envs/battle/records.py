"""The records that a scenario is compiled to: what of it the engine's inner loop looks up."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Records: TypeAlias = Any
"""A record array, or one record of it: compiled code reads fields as attributes, unlike type checkers."""
MAX_RINGS = 3
"""Rings, or bounces, of an area."""

TYPE = np.dtype(
    [
        ("index", "i8"),  # in the unit table
        ("plane", "i8"),  # 0 ground, 1 air: only units of one plane collide
        ("armed", "?"),
        ("upkeep", "?"),  # regains health or energy by itself
        ("cloaked", "?"),
        ("climbs", "i8"),  # 1: crosses cliffs
        ("tall", "?"),  # seen over cliffs and smoke, like a flyer
        ("explodes", "?"),  # its weapon kills itself, and goes off when it is killed
        ("ability", "i8"),
        ("ability_cost", "f8"),  # health
        ("health", "f8"),
        ("shield", "f8"),
        ("energy", "f8"),
        ("energy_start", "f8"),
        ("regeneration", "f8"),  # health a loop
        ("energy_regeneration", "f8"),  # a loop
        ("armor", "f8"),
        ("radius", "f8"),
        ("separation", "f8"),
        ("clearance", "f8"),  # from walls
        ("speed", "f8"),  # cells a loop
        ("sight", "f8"),
        ("notice", "f8"),  # distance of centres beyond which it looks for no target
        ("detection", "f8"),
        ("aim2", "f8"),  # square of the distance of centres within which it may be told to attack
    ],
    align=True,
)
PAIR = np.dtype(
    [
        ("apart", "f8"),  # distance of centres at which they touch; 0 if they do not collide
        ("can_attack", "?"),
        ("can_heal", "?"),
        ("threat", "i8"),  # how much the target worries the attacker: 2 can hit back, 1 armed, 0 harmless
        # Squared distances of centres: in range, still in range for a begun attack, noticed, too near.
        ("range2", "f8"),
        ("slop2", "f8"),
        ("scan2", "f8"),
        ("near2", "f8"),
        ("range", "f8"),  # of centres
        ("hits", "i8"),
        ("damage", "f8"),  # of one hit, bonus included, armour not
        ("period", "f8"),
        ("damage_point", "f8"),
        ("backswing", "f8"),
        ("missile_speed", "f8"),
        ("area", "i8"),  # index of areas, or -1
        ("contact", "f8"),  # distance of centres at which the bodies touch
    ],
    align=True,
)
AREA = np.dtype(
    [
        ("shape", "i8"),
        ("rings", "i8"),
        ("radius", "f8", MAX_RINGS),
        ("fraction", "f8", MAX_RINGS),
        ("length", "f8"),
        ("width", "f8"),  # of a cone: cosine of half its angle
        ("friendly", "?"),
    ],
    align=True,
)
SIDE = np.dtype(
    [
        ("first", "i8"),  # index of its first unit
        ("last", "i8"),  # one past its last
        ("start", "i8"),  # one past the last that is on the field at the start
        ("first_group", "i8"),
        ("last_group", "i8"),
        ("home_x", "f8"),
        ("home_y", "f8"),
        ("has_attack_point", "?"),
        ("attack_x", "f8"),
        ("attack_y", "f8"),
        ("arrival", "f8"),  # distance at which a unit has arrived at its attack point
    ],
    align=True,
)
GROUP = np.dtype(
    [("first", "i8"), ("last", "i8"), ("x", "f8"), ("y", "f8"), ("spacing", "f8")],
    align=True,
)
WORLD = np.dtype(
    [
        ("x0", "f8"),
        ("y0", "f8"),
        ("x1", "f8"),
        ("y1", "f8"),
        ("jitter", "f8"),
        ("reach", "f8"),  # farther than any two units touch, both having moved in the loop
        ("widest2", "f8"),  # square of the largest distance at which two units touch
        ("fastest", "f8"),  # cells a loop
        ("bin", "f8"),  # bins a map cell, for finding neighbours
        ("bins_x", "i8"),
        ("bins_y", "i8"),
        ("step_limit", "i8"),
        ("idle_units_attack", "?"),
        ("terrain", "?"),
        ("hidden", "?"),  # heights, smoke or cloaks: nearness alone does not tell what is seen
        ("smac", "?"),  # four directions, attacks within SMAC's shooting range only
        ("draws", "?"),  # unit types are drawn at every reset
        ("placement", "i8"),
    ],
    align=True,
)
MISSION = np.dtype(
    [
        ("kind", "i8"),
        ("x0", "f8"),
        ("y0", "f8"),
        ("x1", "f8"),
        ("y1", "f8"),
        ("apart", "f8"),
        ("spread", "f8"),
        ("collect", "f8"),
        ("kill", "f8"),
        ("loss", "f8"),
        ("reinforcements", "i8"),
        ("near", "i8"),
        ("near_from", "f8"),
        ("near_to", "f8"),
        ("far", "f8"),
    ],
    align=True,
)
CHOICE = np.dtype([("type", "i8"), ("up_to", "f8"), ("never_alone", "?")], align=True)
