"""Replays play exactly as recorded, and say where they do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.battle import replay as replay_module
from envs.battle.batch import BattleBatch, Outcome
from envs.battle.frame import Camera, Frame
from envs.battle.replay import ReplayError, ReplayWriter, play_replay, read_replay, record_battle
from envs.battle.rules import RewardWeights
from envs.scenarios import load_scenario
from envs.unit_set import random_orders


class RandomAgent:
    """Legal random orders, seeded."""

    name = "random"

    def reset(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def act(self, observation):
        return random_orders(observation, self.generator)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "battle.jsonl"
    record_battle(path, "2s3z", (RandomAgent(), "attack-move"), seed=3)
    return path


def assert_same(first: Frame, second: Frame) -> None:
    for field in fields(Frame):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name), field.name)


PLAYERS = [
    ((RandomAgent(), "builtin"), ("random", "attack-move")),
    (("kite", RandomAgent()), ("kite", "random")),
    (("attack-move", "attack-move-easy"), ("attack-move", "attack-move-easy")),
    (("mixed", "mixed"), ("mixed 0", "mixed 1")),
    ((RandomAgent(), "black-box"), ("random", "black-box")),
]


@pytest.mark.parametrize(("players", "names"), PLAYERS)
def test_a_recorded_battle_plays_again(tmp_path: Path, players: tuple, names: tuple) -> None:
    path = tmp_path / "battle.jsonl"
    outcome = record_battle(path, "5m_vs_6m", players, seed=11)
    replay = read_replay(path)
    frames = replay.play()
    assert replay.outcome is outcome
    assert len(frames) == len(replay.orders) + 1
    assert frames[0].seconds == 0
    assert frames[0].result == "" != frames[-1].result
    assert replay.names == names


@pytest.mark.parametrize("auto_reset", ["same_step", "next_step", "off"])
@pytest.mark.parametrize("control", ["team", "unit"])
def test_any_battle_of_any_batch_plays_again_exactly(tmp_path: Path, auto_reset: str, control: str) -> None:
    """Battles 0, 3 and 6 of a batch of 7, replayed one at a time: every frame is the batch's."""
    batch = BattleBatch("2s3z", 7, builtin=(None, None), control=control, auto_reset=auto_reset, seed=5)
    camera, generator = Camera(batch), np.random.default_rng(0)
    chosen = (0, 3, 6)
    writers = {b: ReplayWriter(tmp_path / f"{b}.jsonl", batch, b) for b in chosen}
    seen = {b: [camera.frame(b)] for b in chosen}
    while writers:
        orders = []
        for side in (0, 1):
            masks = batch.observations[side]
            drawn = random_orders(masks, generator)
            orders.append(drawn.reshape(7, 5, 2))
        result = batch.step(*orders)
        for b in list(writers):
            if writers[b].step(*orders, result):
                del writers[b]
            else:
                seen[b].append(camera.frame(b))
    for b in chosen:
        frames = play_replay(tmp_path / f"{b}.jsonl")
        assert len(frames) == len(seen[b]) + 1
        for frame, expected in zip(frames[:-1], seen[b], strict=True):
            assert_same(frame, expected)


def test_a_scenario_of_ones_own_travels_with_the_replay(tmp_path: Path) -> None:
    scenario = replace(load_scenario("3m"), name="mine", step_limit=9, spawn_jitter=0.5)
    record_battle(tmp_path / "a.jsonl", scenario, (RandomAgent(), "builtin"))
    assert read_replay(tmp_path / "a.jsonl").scenario == scenario
    assert play_replay(tmp_path / "a.jsonl")[-1].title == "mine"


@pytest.mark.parametrize("control", ["team", "unit"])
def test_players_act_under_the_control_that_is_recorded(tmp_path: Path, control: str) -> None:
    slots = set()

    class Watcher(RandomAgent):
        def act(self, observation):
            slots.add(observation["verb_mask"].shape[:2])
            return super().act(observation)

    record_battle(tmp_path / "a.jsonl", "3m", (Watcher(), "builtin"), control=control)
    replay = read_replay(tmp_path / "a.jsonl")
    assert slots == {(1, 3) if control == "team" else (3, 1)}
    assert replay.control == control
    replay.play()


def test_nothing_is_written_before_the_battle_is_over(tmp_path: Path) -> None:
    batch = BattleBatch("3m", 1)
    writer = ReplayWriter(tmp_path / "a.jsonl", batch)
    orders = np.zeros((1, 3, 2), np.int64)
    while not writer.step(orders, None, batch.step(orders)):
        assert list(tmp_path.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    with pytest.raises(ValueError, match="is written"):
        writer.step(orders, None, batch.step(orders))


def test_recording_starts_at_the_start_and_leaves_out_nothing(tmp_path: Path) -> None:
    batch = BattleBatch("3m", 1)
    orders = np.zeros((1, 3, 2), np.int64)
    writer = ReplayWriter(tmp_path / "a.jsonl", batch)
    batch.step(orders)
    with pytest.raises(ValueError, match="2 steps old, but 1 steps were recorded"):
        writer.step(orders, None, batch.step(orders))
    with pytest.raises(ValueError, match="2 steps old; a replay records from the start"):
        ReplayWriter(tmp_path / "b.jsonl", batch)


def edit(path: Path, line: int, change: Callable[[dict], Any]) -> None:
    lines = path.read_text().splitlines()
    data = json.loads(lines[line])
    change(data)
    lines[line] = json.dumps(data)
    path.write_text("\n".join(lines) + "\n")


def test_a_difference_names_the_step(recorded: Path) -> None:
    edit(recorded, 5, lambda line: line.update(checksum=line["checksum"] ^ 1))
    with pytest.raises(ReplayError, match=r"battle.jsonl:6: the simulation differs .* after step 5 of"):
        play_replay(recorded)


def test_another_seed_differs_at_once(recorded: Path) -> None:
    edit(recorded, 0, lambda header: header.update(seed=4))
    with pytest.raises(ReplayError, match=r":2: "):
        play_replay(recorded)


def test_another_outcome_is_noticed(recorded: Path) -> None:
    edit(recorded, -1, lambda line: line.update(returns=[0.0, 0.0]))
    with pytest.raises(ReplayError, match="differs"):
        play_replay(recorded)


def test_another_unit_table_is_refused(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "unit_table_hash", lambda: "f" * 64)
    with pytest.raises(
        ReplayError, match=r":1: recorded with unit table [0-9a-f]{12}..., this is ffffffffffff"
    ):
        play_replay(recorded)


@pytest.mark.parametrize(
    ("line", "change", "message"),
    [
        (0, lambda d: d.update(format="x"), "1: not a replay"),
        (0, lambda d: d.update(version=1), "1: replay version 1"),
        (0, lambda d: d.pop("seed"), r"1: the header: missing keys \['seed'\]"),
        (0, lambda d: d.update(seed=-1), "1: seed is -1"),
        (0, lambda d: d.update(seed=True), "1: seed is True"),
        (0, lambda d: d.update(version=2), "1: replay version 2; this program reads version 3"),
        (
            0,
            lambda d: d.update(builtin=[False, True]),
            r"1: builtin is \[False, True\]; it must be two of: null, attack-move, .*, black-box",
        ),
        (0, lambda d: d.update(builtin=[None, "kit"]), "1: builtin is .*kit"),
        (0, lambda d: d.update(builtin=[None]), "1: builtin is .*two of"),
        (0, lambda d: d["scenario"].update(extra=1), "1: the scenario: .*extra"),
        (0, lambda d: d["scenario"].update(playable=[0, 0, 0, 9]), "1: the scenario: playable"),
        (0, lambda d: d["scenario"].update(step_limit=0), "1: the scenario: step_limit is 0"),
        (
            0,
            lambda d: d["scenario"]["teams"][0]["groups"][0].update(units=["zealott"]),
            "1: the scenario: team 1: unknown unit .*zealott.*zealot",
        ),
        (
            0,
            lambda d: d["scenario"]["teams"][0]["groups"][0].update(spawn=[1, 10**400]),
            "1: the scenario: team 1: spawn",
        ),
        (
            0,
            lambda d: d["scenario"]["teams"][0]["groups"][0].update(units=["zealot"] * 600),
            "1: the scenario: 605 units",
        ),
        (0, lambda d: d["scenario"].update(name=3), "1: the scenario: name is 3"),
        (0, lambda d: d["scenario"].update(step_limit=2**70), "1: the scenario: step_limit is 11"),
        (0, lambda d: d["scenario"].update(width=-5), "1: the scenario: map width is -5"),
        (0, lambda d: d["scenario"].update(height=32.0), "1: the scenario: map height is 32.0"),
        (0, lambda d: d["scenario"].update(spawn_jitter=17), "1: the scenario: spawn_jitter is 17"),
        (0, lambda d: d["scenario"].update(spawn_jitter="1"), "1: the scenario: spawn_jitter is '1'"),
        (0, lambda d: d["scenario"].update(playable=[0, 0, 33, 9]), "1: the scenario: playable"),
        (0, lambda d: d["scenario"].update(idle_units_attack=1), "1: the scenario: idle_units_attack is 1"),
        (
            0,
            lambda d: d["scenario"]["teams"][1]["groups"][0].update(units=[["zealot"]]),
            "1: the scenario: team 2: units",
        ),
        (
            0,
            lambda d: d["scenario"]["teams"][1]["groups"][0].update(units=3),
            "1: the scenario: team 2: units",
        ),
        (
            0,
            lambda d: d["scenario"]["teams"][0]["groups"][0].update(units=["zealot"] * 400),
            "1: the scenario: team 1: 400 units do not",
        ),
        (
            0,
            lambda d: d["scenario"]["teams"][0]["groups"][0].update(spawn=[9, 26]),
            "1: the scenario: team 1: spawn .* lies outside",
        ),
        (
            0,
            lambda d: d["scenario"]["teams"][0]["groups"][0].update(spawn=float("nan")),
            "1: the scenario: team 1: spawn is nan",
        ),
        (0, lambda d: d.update(control="army"), "1: control is 'army'; it must be one of: team, unit"),
        (0, lambda d: d.update(control=["team"]), r"1: control is \['team'\]"),
        (0, lambda d: d["rewards"].update(win="1"), "1: rewards must be numbers"),
        (0, lambda d: d["rewards"].update(win=float("nan")), "1: rewards must be numbers"),
        (0, lambda d: d["rewards"].pop("loss"), r"1: rewards: missing keys \['loss'\]"),
        (2, lambda d: d.update(orders=[None, None]), "3: side 0 must have orders"),
        (2, lambda d: d.update(orders=[[[0, 0]] * 5, [[0, 0]] * 5]), "3: side 1 is attack-move's"),
        (2, lambda d: d["orders"][0].pop(), "3: side 0 must have orders .* each of its 5"),
        (
            2,
            lambda d: d["orders"][0].__setitem__(0, [0, 2**70]),
            "3: side 0 has an order that is out of range",
        ),
        (2, lambda d: d["orders"][0].__setitem__(0, [13, 0]), "3: step 2 cannot be given: .*ABILITY"),
        (2, lambda d: d.pop("checksum"), "3: a step: missing keys"),
        (-1, lambda d: d.update(outcome="running"), "outcome is 'running'; it must be one of: win_0"),
        (-1, lambda d: d.update(outcome=[]), r"outcome is \[\]; it must be one of: win_0"),
        (-1, lambda d: d.update(steps=1), "steps is 1, but"),
    ],
)
def test_malformed_files_are_refused_with_file_and_line(
    recorded: Path, line: int, change: Callable, message: str
) -> None:
    edit(recorded, line, change)
    with pytest.raises(ReplayError, match=rf"battle\.jsonl:\d*{message}" if line >= 0 else message):
        play_replay(recorded)


@pytest.mark.parametrize("keep", [0, 10, 2000, -2])
def test_cut_off_files_are_refused(recorded: Path, keep: int) -> None:
    recorded.write_bytes(recorded.read_bytes()[:keep])
    with pytest.raises(ReplayError, match=r"battle\.jsonl:\d+: "):
        read_replay(recorded)


@pytest.mark.parametrize("data", [b"\xff\xfe\n", b"[]\n", b"[" * 100_000 + b"\n", b"{}\n"])
def test_foreign_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ReplayError, match=r"x:1: "):
        read_replay(tmp_path / "x")


def test_files_cut_at_a_line_are_refused(recorded: Path) -> None:
    lines = recorded.read_text().splitlines(keepends=True)
    for count in range(1, len(lines)):
        recorded.write_text("".join(lines[:count]))
        with pytest.raises(ReplayError, match=rf":{count}: "):
            read_replay(recorded)


def test_outcomes_are_those_of_the_batch(tmp_path: Path) -> None:
    assert record_battle(tmp_path / "a", "3m", (RandomAgent(), "builtin"), seed=0) is Outcome.WIN_1


def test_rewards_of_one_s_own_are_played_again(tmp_path: Path) -> None:
    rewards = RewardWeights(damage=0.0, win=5.0)
    batch = BattleBatch("3m", 1, builtin=("attack-move", "attack-move"), rewards=rewards, auto_reset="off")
    writer = ReplayWriter(tmp_path / "a.jsonl", batch)
    while not writer.step(None, None, batch.step(None)):
        pass
    replay = read_replay(tmp_path / "a.jsonl")
    assert replay.rewards == rewards
    replay.play()


def test_what_would_take_too_much_memory_is_refused(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, units = len(read_replay(recorded).orders), 10
    monkeypatch.setattr(replay_module, "MAX_UNIT_STEPS", steps * units)
    read_replay(recorded)
    monkeypatch.setattr(replay_module, "MAX_UNIT_STEPS", steps * units - 1)
    with pytest.raises(ReplayError, match=f":1: {steps} steps of 10 units; .* at most {steps * units - 1}"):
        read_replay(recorded)
    monkeypatch.setattr(replay_module, "MAX_BYTES", recorded.stat().st_size - 1)
    with pytest.raises(ReplayError, match=f"{recorded.stat().st_size} bytes; a replay has at most"):
        read_replay(recorded)
