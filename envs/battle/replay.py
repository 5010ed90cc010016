"""Replays: a battle's scenario, seed and orders as JSON lines, from which it is simulated again exactly.

::

    {"format": "perceiver-policy-replay", "version": 3, "scenario": {...}, "seed": 7,
     "builtin": [null, "attack-move"], "control": "team", "rewards": {"damage": 1.0, ...},
     "names": ["me", "attack-move"], "unit_table": "<sha256>", "versions": {...}}
    {"orders": [[[12, 4], [3, 0]], null], "checksum": 2921342012}      a line a step; null: the engine plays
    ...
    {"outcome": "win_0", "steps": 23, "returns": [1.62, 0.15]}

The scenario is written out in full, so a replay of a scenario file of one's own plays anywhere. ``checksum``
is a CRC-32 of the units after the step; the last step has none, because a batch may have started the next
battle by then: there the outcome is compared. A file appears when its battle is over, whole or not at all.
"""

from __future__ import annotations

import json
import platform
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from envs.battle.batch import AutoReset, BattleBatch, Control, Outcome, StepResult
from envs.battle.compiled import engine_digest
from envs.battle.frame import Camera, Frame
from envs.battle.match import Match, Player
from envs.battle.rules import RewardWeights
from envs.battle.tactics import ENGINE_PLAYERS
from envs.battle.whole_file import write_whole
from envs.scenarios import Scenario, ScenarioError, scenario_from_json
from envs.units import unit_table_hash

FORMAT, VERSION = "perceiver-policy-replay", 3
_OUTCOMES = {outcome.name.lower(): outcome for outcome in Outcome if outcome is not Outcome.RUNNING}
_CHECKED = ("x", "y", "facing_x", "facing_y", "health", "shield", "energy", "cooldown", "windup", "alive")
_VERSIONED = ("perceiver-policy", "numba", "numpy")
MAX_BYTES = 64 << 20
"""Of a replay file."""
MAX_UNIT_STEPS = 2_000_000
"""Steps times units of a replay: all its frames are kept when it is played."""


class ReplayError(ValueError):
    """A replay file is malformed or does not play as recorded; the message names the file and the line."""


class ReplayWriter:
    """Records one battle of a batch, from its start to its end.

    Args:
        path: the file to write when the battle is over.
        batch: the battles; the one recorded must just have been started.
        battle: which of them.
        names: who plays each side.

    Raises:
        ValueError: the battle has already begun.
    """

    def __init__(
        self,
        path: str | Path,
        batch: BattleBatch,
        battle: int = 0,
        *,
        names: tuple[str, str] = ("team 0", "team 1"),
    ) -> None:
        steps = int(batch.state.battles["steps"][battle])
        if steps:
            raise ValueError(f"battle {battle} is {steps} steps old; a replay records from the start")
        self.path = Path(path)
        self._batch, self._battle = batch, battle
        header = {
            "format": FORMAT,
            "version": VERSION,
            "scenario": asdict(batch.scenario),
            "seed": int(batch.seeds[battle]),
            "builtin": list(batch.builtin),
            "control": batch.control.value,
            "rewards": asdict(batch.rewards),
            "names": list(names),
            "unit_table": unit_table_hash(),
            "versions": _versions(),
        }
        self._lines = [header]
        self._steps = 0
        self._written = False

    def step(
        self, orders0: NDArray[np.integer] | None, orders1: NDArray[np.integer] | None, result: StepResult
    ) -> bool:
        """Record a step: call it after every ``batch.step(orders0, orders1)``, with what that returned.

        Returns:
            True once the battle is over and the file stands. The writer is then done.

        Raises:
            ValueError: a step was left out, or the replay is already written.
        """
        b = self._battle
        if self._written:
            raise ValueError(f"{self.path} is written; a battle that follows needs its own ReplayWriter")
        self._steps += 1
        if int(result.length[b]) != self._steps:
            raise ValueError(
                f"battle {b} is {result.length[b]} steps old, but {self._steps} steps were recorded"
            )
        line: dict[str, Any] = {"orders": [None if o is None else o[b].tolist() for o in (orders0, orders1)]}
        self._lines.append(line)
        if not result.done[b]:
            line["checksum"] = checksum(self._batch, b)
            return False
        self._lines.append(_ending(result, b))
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in self._lines)
        write_whole(self.path, text.encode())
        self._written = True
        return True


def record_battle(
    path: str | Path,
    scenario: Scenario | str,
    players: tuple[Player, Player],
    *,
    seed: int = 0,
    control: Control | str = Control.TEAM,
) -> Outcome:
    """Play one battle and write its replay.

    Args:
        path: the replay file.
        scenario: a scenario, the name of a shipped one, or the path of a YAML file.
        players: for each side the name of an engine-side player (:mod:`envs.battle.tactics`), or an object
            with ``act(observation) -> orders``.
        seed: the battle's, from 0 to 2**64 - 1.
        control: what the players observe and command: a "team" with its shared sight, or each "unit" by
            itself, the units being the rows of the batch that ``act`` is given.

    Raises:
        ValueError: an argument is out of range or a player gives an illegal order.
        ScenarioError: the scenario is unknown or wrong.
    """
    match = Match(scenario, 1, players=players, control=control, auto_reset=AutoReset.OFF)
    match.reset(np.array([seed], np.uint64))
    writer = ReplayWriter(path, match.batch, names=match.names("agent"))
    while True:
        orders = match.collect({})
        result = match.batch.step(*orders)
        if writer.step(*orders, result):
            return Outcome(int(result.outcome[0]))


@dataclass(frozen=True)
class Replay:
    """A replay file's content, checked for form; :meth:`play` checks that it plays as recorded."""

    path: str
    scenario: Scenario
    seed: int
    builtin: tuple[str | None, str | None]
    """The engine's players by name (:mod:`envs.battle.tactics`), None where orders are recorded."""
    control: Control
    rewards: RewardWeights
    names: tuple[str, str]
    unit_table: str
    versions: Mapping[str, str]
    orders: tuple[tuple[NDArray[np.int64] | None, NDArray[np.int64] | None], ...]
    """Per step and side (n, 2)."""
    checksums: tuple[int | None, ...]
    """After each step; None after the last."""
    ending: Mapping[str, Any]
    """``outcome``, ``steps`` and ``returns``."""

    @property
    def outcome(self) -> Outcome:
        """How the battle ended."""
        return _OUTCOMES[self.ending["outcome"]]

    def play(self) -> list[Frame]:
        """Simulate the battle again: a frame at its start and one after each step.

        Raises:
            ReplayError: the simulation differs from the recording (naming the first step that does).
        """
        if self.unit_table != unit_table_hash():
            raise ReplayError(
                f"{self.path}:1: recorded with unit table {self.unit_table[:12]}..., this is "
                f"{unit_table_hash()[:12]}...; install the version it was recorded with: "
                + _versions_in_words(self.versions)
            )
        batch = BattleBatch(
            self.scenario,
            1,
            builtin=self.builtin,
            control=self.control,
            auto_reset=AutoReset.OFF,
            rewards=self.rewards,
        )
        batch.reset(np.array([self.seed], np.uint64))
        camera = Camera(batch, self.names)
        frames = [camera.frame()]
        for step, (orders, expected) in enumerate(zip(self.orders, self.checksums, strict=True), start=1):
            try:
                result = batch.step(*(None if o is None else o[None] for o in orders))
            except ValueError as error:
                raise ReplayError(f"{self.path}:{step + 1}: step {step} cannot be given: {error}") from error
            frames.append(camera.frame())
            if expected is not None and (result.done[0] or checksum(batch, 0) != expected):
                self._differs(step)
        if not result.done[0] or _ending(result, 0) != self.ending:
            self._differs(len(self.orders))
        return frames

    def _differs(self, step: int) -> NoReturn:
        raise ReplayError(
            f"{self.path}:{step + 1}: the simulation differs from the recording after step {step} of "
            f"{len(self.orders)}; recorded with {_versions_in_words(self.versions)}; played with "
            + _versions_in_words(_versions())
        )


def read_replay(path: str | Path) -> Replay:
    """Read and check a replay file, without playing it.

    Raises:
        ReplayError: it is not a replay, or a line is malformed.
        OSError: the file cannot be read.
    """
    size = Path(path).stat().st_size
    if size > MAX_BYTES:
        raise ReplayError(f"{path}: {size} bytes; a replay has at most {MAX_BYTES}")
    return _Reader(str(path)).replay(Path(path).read_bytes())


def play_replay(path: str | Path) -> list[Frame]:
    """The frames of a replay, simulated again and compared with the recording.

    Raises:
        ReplayError: the file is malformed or does not play as recorded.
        OSError: the file cannot be read.
    """
    return read_replay(path).play()


def checksum(batch: BattleBatch, battle: int) -> int:
    """CRC-32 of everything about a battle's units that can be seen or felt."""
    units = batch.state.units[battle]
    crc = 0
    for name in _CHECKED:
        crc = zlib.crc32(units[name].tobytes(), crc)
    return crc


class _Reader:
    """Takes a replay apart; every refusal names file and line."""

    def __init__(self, file: str) -> None:
        self.file = file

    def replay(self, data: bytes) -> Replay:
        lines = data.split(b"\n")
        if not data or lines.pop():
            self.fail(max(len(lines), 1), "the replay breaks off; its last line is not complete")
        header = self.object(lines, 1)
        if header.get("format") != FORMAT:
            self.fail(1, f"not a replay: format is {header.get('format')!r}, not {FORMAT!r}")
        if header.get("version") != VERSION:
            self.fail(1, f"replay version {header.get('version')!r}; this program reads version {VERSION}")
        names = ("format", "version", "scenario", "seed", "builtin", "control", "rewards", "names")
        self.keys(header, (*names, "unit_table", "versions"), 1, "the header")
        seed, builtin, players, versions = (header[key] for key in ("seed", "builtin", "names", "versions"))
        if type(seed) is not int or not 0 <= seed < 2**64:
            self.fail(1, f"seed is {seed!r}; it must be a whole number from 0 to 2**64 - 1")
        good = isinstance(builtin, list) and len(builtin) == 2
        good = good and all(name is None or name in ENGINE_PLAYERS for name in builtin)
        known = ", ".join(ENGINE_PLAYERS)
        self.check(good, 1, f"builtin is {builtin!r}; it must be two of: null, {known}")
        self.check(_is_list(players, str, 2), 1, "names must be two strings")
        self.check(isinstance(header["unit_table"], str), 1, "unit_table must be a string")
        good = isinstance(versions, dict) and all(isinstance(version, str) for version in versions.values())
        self.check(good, 1, "versions must map names to strings")
        control, weights = header["control"], header["rewards"]
        controls = [member.value for member in Control]
        self.check(
            control in controls, 1, f"control is {control!r}; it must be one of: {', '.join(controls)}"
        )
        self.keys(weights, tuple(field.name for field in fields(RewardWeights)), 1, "rewards")
        self.check(_are_numbers(list(weights.values()), len(weights)), 1, "rewards must be numbers")
        scenario = self.scenario(header["scenario"])
        if len(lines) < 3:
            self.fail(len(lines), "the replay breaks off; it has no outcome")
        steps = range(2, len(lines))
        if len(steps) * scenario.num_units > MAX_UNIT_STEPS:
            self.fail(
                1,
                f"{len(steps)} steps of {scenario.num_units} units; each takes memory when played, so steps "
                f"times units may be at most {MAX_UNIT_STEPS}",
            )
        if len(steps) > scenario.step_limit:
            self.fail(steps[scenario.step_limit], f"more steps than the limit of {scenario.step_limit}")
        end = self.object(lines, len(lines))
        if "orders" in end:
            self.fail(len(lines), "the replay breaks off; it has no outcome")
        read = [
            self.step(self.object(lines, number), number, scenario, builtin, number == steps[-1])
            for number in steps
        ]
        return Replay(
            path=self.file,
            scenario=scenario,
            seed=seed,
            builtin=(builtin[0], builtin[1]),
            control=Control(control),
            rewards=RewardWeights(**weights),
            names=(players[0], players[1]),
            unit_table=header["unit_table"],
            versions=versions,
            orders=tuple(orders for orders, _ in read),
            checksums=tuple(crc for _, crc in read),
            ending=self.ending(end, len(lines), len(steps)),
        )

    def scenario(self, data: Any) -> Scenario:
        """The scenario, whose values :class:`Scenario` checks itself."""
        try:
            return scenario_from_json(data)
        except ScenarioError as error:
            self.fail(1, f"the scenario: {error}")

    def step(
        self, data: dict[str, Any], line: int, scenario: Scenario, builtin: list[str | None], last: bool
    ) -> tuple[tuple[NDArray[np.int64] | None, NDArray[np.int64] | None], int | None]:
        self.keys(data, ("orders",) if last else ("orders", "checksum"), line, "a step")
        given, crc = data["orders"], data.get("checksum")
        self.check(isinstance(given, list) and len(given) == 2, line, "orders must be a list of two sides")
        self.check(last or type(crc) is int, line, "checksum must be a whole number")
        orders = [self.orders(given[side], line, side, scenario, builtin[side]) for side in (0, 1)]
        return (orders[0], orders[1]), crc

    def orders(
        self, given: Any, line: int, side: int, scenario: Scenario, builtin: str | None
    ) -> NDArray[np.int64] | None:
        if builtin is not None:
            self.check(given is None, line, f"side {side} is {builtin}'s and must have null orders")
            return None
        size = scenario.teams[side].size
        good = _is_list(given, list, size) and all(_is_list(order, int, 2) for order in given)
        self.check(good, line, f"side {side} must have orders [verb, target] for each of its {size} units")
        try:
            return np.array(given, np.int64)
        except OverflowError:
            self.fail(line, f"side {side} has an order that is out of range")

    def ending(self, data: dict[str, Any], line: int, steps: int) -> dict[str, Any]:
        self.keys(data, ("outcome", "steps", "returns"), line, "the last line")
        outcome = data["outcome"]
        if not isinstance(outcome, str) or outcome not in _OUTCOMES:
            self.fail(line, f"outcome is {outcome!r}; it must be one of: {', '.join(_OUTCOMES)}")
        right = data["steps"] == steps
        self.check(right, line, f"steps is {data['steps']!r}, but {steps} steps are recorded")
        self.check(_are_numbers(data["returns"], 2), line, "returns must be two numbers")
        return data

    def object(self, lines: list[bytes], line: int) -> dict[str, Any]:
        try:
            value = json.loads(lines[line - 1])
        except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError too
            self.fail(line, f"not JSON: {error}")
        if not isinstance(value, dict):
            self.fail(line, f"expected an object, not {type(value).__name__}")
        return value

    def keys(self, data: Any, expected: tuple[str, ...], line: int, what: str) -> None:
        if not isinstance(data, dict):
            self.fail(line, f"{what} must be an object")
        missing, extra = sorted(set(expected) - set(data)), sorted(set(data) - set(expected))
        if missing or extra:
            self.fail(line, f"{what}: missing keys {missing}, unknown keys {extra}")

    def check(self, good: bool, line: int, message: str) -> None:
        if not good:
            self.fail(line, message)

    def fail(self, line: int, message: str) -> NoReturn:
        raise ReplayError(f"{self.file}:{line}: {message}")


def _ending(result: StepResult, b: int) -> dict[str, Any]:
    return {
        "outcome": Outcome(int(result.outcome[b])).name.lower(),
        "steps": int(result.length[b]),
        "returns": [float(value) for value in result.episode_return[b]],
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in _VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source tree that was never installed
            versions[name] = "unknown"
    return versions | {"engine": engine_digest()[:16], "machine": platform.machine()}


def _versions_in_words(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _is_list(value: Any, kind: type, length: int | None = None) -> bool:
    """Whether value is a list of exactly this type (a bool is no int), and as long as said."""
    good = isinstance(value, list) and length in (None, len(value))
    return good and all(type(item) is kind for item in value)


def _are_numbers(value: Any, length: int) -> bool:
    good = isinstance(value, list) and len(value) == length
    return good and all(type(item) in (int, float) and abs(item) < 1e9 for item in value)
