"""The unit-set contract: what every backend shows a policy and what a policy answers.

One observation, whichever backend made it (embedded simulator, StarCraft II) and whoever reads it
(a team controller with A = team size, or a single unit with A = 1). All arrays may carry the same
leading batch dimensions.

===================  ====================  ==========================================================
key                  shape, dtype          meaning
===================  ====================  ==========================================================
``units``            (U, F) float32        one row per visible unit, columns as in :data:`UNIT_FEATURES`
``unit_type``        (U,) int64            index into the unit table's vocabulary (0: unknown)
``unit_mask``        (U,) bool             True where a row holds a unit the observer sees
``controlled``       (A,) int64            the rows this agent commands (0 where not ``controlled_mask``)
``controlled_mask``  (A,) bool             True where ``controlled`` names a living unit
``verb_mask``        (A, V) bool           verbs each controlled unit may use now
``target_mask``      (A, V_t, U) bool      rows each targeting verb may point at
``scalars``          (S,) float32          columns as in :data:`SCALARS`
``state_units`` ...  as above              optional, the full unit set (``state_units``,
                                           ``state_unit_type``, ``state_unit_mask``) for a centralised
                                           critic; an actor never reads it
===================  ====================  ==========================================================

What is guaranteed: row order carries no meaning; rows that are not ``unit_mask`` are all zero, their
``unit_type`` too; a slot commands a row of its own side, no two the same one; a slot that is not
``controlled_mask`` may only use ``NO_OP``; a targeting verb is allowed exactly when at least one row is a
legal target; a legal target is a visible row.

An action is ``(A, 2)`` int64: a :class:`Verb` and a target row, which verbs without a target ignore.

Positions are map cells with y growing to the north, times are game loops (22.4 a second).
Padding sizes U and A belong to the environment; no weight of a network depends on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

GAME_LOOPS_PER_SECOND = 22.4  # StarCraft II at "Faster", the speed ladder games and SMAC use
LOOPS_PER_STEP = 8  # SMAC's step multiplier


class Verb(IntEnum):
    """What a unit can be told to do. Targeting verbs come last."""

    NO_OP = 0  # go on with the current order
    STOP = 1
    HOLD = 2  # stand, shoot what comes into range
    MOVE_NORTH = 3
    MOVE_NORTHEAST = 4
    MOVE_EAST = 5
    MOVE_SOUTHEAST = 6
    MOVE_SOUTH = 7
    MOVE_SOUTHWEST = 8
    MOVE_WEST = 9
    MOVE_NORTHWEST = 10
    ATTACK_MOVE = 11  # towards the scenario's attack point, fighting what is met
    ATTACK = 12  # the unit at the target row
    ABILITY = 13  # heal, or the unit's own ability, on the unit at the target row


NUM_VERBS = len(Verb)
TARGET_VERBS = (Verb.ATTACK, Verb.ABILITY)
NUM_TARGET_VERBS = len(TARGET_VERBS)
FIRST_TARGET_VERB = int(TARGET_VERBS[0])
MOVE_VERBS = tuple(v for v in Verb if v.name.startswith("MOVE_"))
_DIAGONAL = float(np.sqrt(0.5))
MOVE_DIRECTIONS: NDArray[np.float64] = np.array(
    [
        [0, 1],
        [_DIAGONAL, _DIAGONAL],
        [1, 0],
        [_DIAGONAL, -_DIAGONAL],
        [0, -1],
        [-_DIAGONAL, -_DIAGONAL],
        [-1, 0],
        [-_DIAGONAL, _DIAGONAL],
    ],
)
"""Unit vectors (dx, dy) of the eight move verbs, shape (8, 2), in the order of :data:`MOVE_VERBS`."""


@dataclass(frozen=True)
class Feature:
    """One column: its name, the physical unit it is measured in, the divisor applied to it."""

    name: str
    unit: str
    scale: float = 1.0
    own_only: bool = False  # the game does not tell this of enemies: 0 there


UNIT_FEATURES: tuple[Feature, ...] = (
    # Geometry, unscaled: adapters compute with these four.
    Feature("x", "map cells"),
    Feature("y", "map cells"),
    Feature("radius", "map cells"),
    Feature("weapon_range", "map cells"),
    # Allegiance: neutral units have neither flag.
    Feature("own", "flag"),
    Feature("enemy", "flag"),
    # Vitality.
    Feature("health", "hit points", 100.0),
    Feature("shield", "shield points", 100.0),
    Feature("energy", "energy points", 100.0),
    Feature("health_ratio", "fraction of maximum"),
    Feature("shield_ratio", "fraction of maximum"),
    Feature("energy_ratio", "fraction of maximum"),
    # Weapon and body, from the unit table.
    Feature("facing_cos", "cosine of the facing"),
    Feature("facing_sin", "sine of the facing"),
    Feature("weapon_cooldown", "game loops until the next attack", 16.0, own_only=True),
    Feature("weapon_period", "game loops", 16.0),
    Feature("volley", "damage of one volley before bonus and armour", 20.0),
    Feature("armor", "damage taken off each hit", 2.0),
    Feature("speed", "map cells per 8 game loops", 2.0),
    Feature("sight", "map cells", 10.0),
    Feature("light", "flag"),
    Feature("armored", "flag"),
    Feature("biological", "flag"),
    Feature("mechanical", "flag"),
    Feature("massive", "flag"),
    Feature("flying", "flag"),
    # Orders, told of own units only, and what they add up to on any row.
    Feature("order_hold", "flag", own_only=True),
    Feature("order_move", "flag", own_only=True),
    Feature("order_attack", "flag", own_only=True),
    Feature("order_attack_move", "flag", own_only=True),
    Feature("winding_up", "flag: an attack has begun and has not hit yet", own_only=True),
    Feature("engaged_by", "own units whose attack is aimed at this row", 4.0),
)
NUM_UNIT_FEATURES = len(UNIT_FEATURES)
FEATURE_INDEX: dict[str, int] = {f.name: i for i, f in enumerate(UNIT_FEATURES)}

SCALARS: tuple[Feature, ...] = (
    Feature("elapsed", "game minutes since the start"),
    Feature("time_left", "fraction of the episode's limit"),
    Feature("own_units", "log(1 + count)", 4.0),
    Feature("seen_enemies", "log(1 + count)", 4.0),
    Feature("own_vitality", "log(1 + (health + shield) / 100), summed over the team", 4.0),
    Feature("seen_enemy_vitality", "log(1 + (health + shield) / 100), summed over the enemies seen", 4.0),
)
NUM_SCALARS = len(SCALARS)

ACTOR_KEYS = (
    "units",
    "unit_type",
    "unit_mask",
    "controlled",
    "controlled_mask",
    "verb_mask",
    "target_mask",
    "scalars",
)
STATE_KEYS = ("state_units", "state_unit_type", "state_unit_mask")


class ContractError(ValueError):
    """An observation or an order breaks a rule of the contract; the message says which."""


def observation_space(
    num_units: int, num_controlled: int, *, num_unit_types: int, with_state: bool = False
) -> gym.spaces.Dict:
    """The space of one observation.

    Args:
        num_units: U, unit rows including padding, at least 1.
        num_controlled: A, controlled slots including padding, at least 1.
        num_unit_types: size of the unit-type vocabulary.
        with_state: also the ``state_*`` keys, over the same U.

    Raises:
        ValueError: a size is below 1.
    """
    for name, size in (
        ("num_units", num_units),
        ("num_controlled", num_controlled),
        ("num_unit_types", num_unit_types),
    ):
        if size < 1:
            raise ValueError(f"{name} is {size}; it must be at least 1")
    u, a = num_units, num_controlled

    def mask(*shape: int) -> gym.Space:
        return gym.spaces.Box(0, 1, shape, dtype=np.bool_)  # type: ignore[arg-type]

    def real(*shape: int) -> gym.Space:
        return gym.spaces.Box(-np.inf, np.inf, shape, dtype=np.float32)

    def index(limit: int, *shape: int) -> gym.Space:
        return gym.spaces.Box(0, limit - 1, shape, dtype=np.int64)

    spaces: dict[str, gym.Space] = {
        "units": real(u, NUM_UNIT_FEATURES),
        "unit_type": index(num_unit_types, u),
        "unit_mask": mask(u),
        "controlled": index(u, a),
        "controlled_mask": mask(a),
        "verb_mask": mask(a, NUM_VERBS),
        "target_mask": mask(a, NUM_TARGET_VERBS, u),
        "scalars": real(NUM_SCALARS),
    }
    if with_state:
        spaces |= {f"state_{key}": spaces[key] for key in ("units", "unit_type", "unit_mask")}
    return gym.spaces.Dict(spaces)


def action_space(num_units: int, num_controlled: int) -> gym.spaces.MultiDiscrete:
    """(A, 2) int64: verb and target row for each controlled slot."""
    return gym.spaces.MultiDiscrete(np.tile([NUM_VERBS, num_units], (num_controlled, 1)), dtype=np.int64)


def validate_observation(observation: Mapping[str, NDArray], space: gym.spaces.Dict) -> None:
    """Check one unbatched observation against its space and every rule of the contract.

    Raises:
        ContractError: naming the key, the row or slot, and the rule that is broken.
    """
    missing, extra = space.spaces.keys() - observation.keys(), observation.keys() - space.spaces.keys()
    if missing or extra:
        raise ContractError(f"observation keys: missing {sorted(missing)}, not in the space {sorted(extra)}")
    for key, sub in space.spaces.items():
        value = np.asarray(observation[key])
        if value.shape != sub.shape or value.dtype != sub.dtype:
            raise ContractError(
                f"{key!r} is {value.shape} {value.dtype}; the space says {sub.shape} {sub.dtype}"
            )
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ContractError(f"{key!r} holds a value that is not finite at {_first(~np.isfinite(value))}")
        if value.dtype.kind == "i" and not sub.contains(value):
            raise ContractError(f"{key!r} holds an index outside [0, {int(np.max(sub.high))}]")  # type: ignore[attr-defined]
    o = {key: np.asarray(value) for key, value in observation.items()}
    _rule(o["units"].any(-1) & ~o["unit_mask"], "row {} of 'units' is not masked in and must be zero")
    _rule((o["unit_type"] != 0) & ~o["unit_mask"], "row {} of 'unit_type' is not masked in and must be zero")
    slots = o["controlled_mask"]
    _rule((o["controlled"] != 0) & ~slots, "slot {} commands no unit, so its 'controlled' must be 0")
    _rule(
        slots & ~o["unit_mask"][o["controlled"]],
        "slot {} commands a row that 'unit_mask' does not hold",
    )
    owned = o["units"][o["controlled"], FEATURE_INDEX["own"]] == 1
    _rule(slots & ~owned, "slot {} commands a row that is not its own unit")
    rows = o["controlled"][slots]
    if len(np.unique(rows)) != len(rows):
        raise ContractError(f"two slots command the same row: {rows.tolist()}")
    only_no_op = np.arange(NUM_VERBS) == Verb.NO_OP
    _rule(
        ~slots & (o["verb_mask"] != only_no_op).any(-1),
        "slot {} commands no unit, so its 'verb_mask' must allow NO_OP alone",
    )
    _rule(slots & ~o["verb_mask"].any(-1), "slot {} has no verb to choose from")
    _rule(
        (o["target_mask"] & ~o["unit_mask"]).any((-1, -2)),
        "slot {} may target a row that 'unit_mask' does not hold",
    )
    _rule(
        (o["target_mask"].any(-1) != o["verb_mask"][:, FIRST_TARGET_VERB:]).any(-1),
        "slot {} has a targeting verb without targets, or targets without the verb",
    )


def validate_orders(
    orders: NDArray[np.integer],
    observation: Mapping[str, NDArray],
    agent_name: Callable[[tuple[int, ...]], str] = lambda index: f"slot {index[-1]}",
) -> None:
    """Check orders (..., A, 2) against the masks of the observation (..., A, ...) they answer.

    Args:
        orders: verb and target row for each slot.
        observation: needs ``verb_mask`` and ``target_mask``.
        agent_name: turns the index (..., slot) of an offender into the name used in the message.

    Raises:
        ValueError: naming the agent, the verb and why it is refused.
    """
    verb_mask, target_mask = observation["verb_mask"], observation["target_mask"]
    orders = np.asarray(orders)
    if orders.shape != (*verb_mask.shape[:-1], 2) or orders.dtype.kind not in "iu":
        raise ValueError(
            f"orders are {orders.shape} {orders.dtype}; expected integers {(*verb_mask.shape[:-1], 2)}"
        )
    bad = _first(illegal_orders(orders, verb_mask, target_mask))
    if bad is None:
        return
    verb, target = (int(n) for n in orders[bad])
    who = agent_name(bad)
    if not 0 <= verb < NUM_VERBS:
        raise ValueError(f"{who}: verb {verb} does not exist; verbs are 0 to {NUM_VERBS - 1}")
    allowed = ", ".join(Verb(int(v)).name for v in np.flatnonzero(verb_mask[bad]))
    if not verb_mask[bad][verb]:
        raise ValueError(f"{who}: {Verb(verb).name} is not available now; available: {allowed}")
    rows = np.flatnonzero(target_mask[bad][verb - FIRST_TARGET_VERB]).tolist()
    raise ValueError(
        f"{who}: {Verb(verb).name} cannot target row {target}; rows that can be targeted: {rows}"
    )


def illegal_orders(
    orders: NDArray[np.integer], verb_mask: NDArray[np.bool_], target_mask: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which orders (..., A, 2) the masks forbid: (..., A) bool. Indices out of range are illegal."""
    verb, target = orders[..., 0], orders[..., 1]
    known = (verb >= 0) & (verb < NUM_VERBS)
    legal = known & np.take_along_axis(verb_mask, np.where(known, verb, 0)[..., None], -1)[..., 0]
    targeting = known & (verb >= FIRST_TARGET_VERB)
    in_range = (target >= 0) & (target < target_mask.shape[-1])
    which = np.where(targeting, verb - FIRST_TARGET_VERB, 0)[..., None, None]
    rows = np.take_along_axis(target_mask, which, -2)[..., 0, :]
    pointed = in_range & np.take_along_axis(rows, np.where(in_range, target, 0)[..., None], -1)[..., 0]
    return ~(legal & (~targeting | pointed))


def random_orders(observation: Mapping[str, NDArray], generator: np.random.Generator) -> NDArray[np.int64]:
    """Uniformly random legal orders (..., A, 2): a verb of those allowed, then a target of those allowed."""
    verb_mask, target_mask = observation["verb_mask"], observation["target_mask"]
    orders = np.zeros((*verb_mask.shape[:-1], 2), np.int64)
    orders[..., 0] = np.where(verb_mask, generator.random(verb_mask.shape), -1.0).argmax(-1)
    targeting = orders[..., 0] >= FIRST_TARGET_VERB
    which = np.where(targeting, orders[..., 0] - FIRST_TARGET_VERB, 0)[..., None, None]
    rows = np.take_along_axis(target_mask, which, -2)[..., 0, :]
    orders[..., 1] = np.where(targeting, np.where(rows, generator.random(rows.shape), -1.0).argmax(-1), 0)
    return orders


def _first(flags: NDArray[np.bool_]) -> tuple[int, ...] | None:
    found = np.argwhere(flags)
    return tuple(int(i) for i in found[0]) if len(found) else None


def _rule(broken: NDArray[np.bool_], message: str) -> None:
    where: Sequence[int] | None = _first(broken)
    if where is not None:
        raise ContractError(message.format(where[0]))
