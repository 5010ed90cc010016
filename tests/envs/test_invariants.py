"""What holds of every scenario, whoever plays: legal states, the same battles everywhere, no favoured side.

``pytest -m slow tests/envs/test_invariants.py`` plays the ten million environment steps (one battle, 8 game
loops each) that the short version samples.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from envs.battle.batch import BattleBatch, Outcome
from envs.battle.random_play import draw_orders
from envs.battle.replay import ReplayWriter
from envs.scenarios import load_scenario, scenario_names
from envs.unit_set import Verb
from tests.envs.conftest import open_field
from tests.envs.invariants import play_checked

ALL = scenario_names()
SYMMETRIC = [name for name in ALL if load_scenario(name).symmetric and load_scenario(name).num_units <= 50]
WAYS = (  # the preset, and who plays the second team: random orders, or the engine
    *(("native", None), ("native", "mixed"), ("native", "black-box")),
    *(("smac", None), ("smac", "attack-move")),
)
STEPS = 10_000_000


def plan(name: str) -> tuple[int, int]:
    """Battles and steps of each of a scenario's five ways: large battles get fewer, as they take longer."""
    units = load_scenario(name).num_units
    battles = 256 if units <= 50 else 16
    return battles, -(-600_000 // (units * battles))


def players(name: str, second: str | None = None) -> tuple[None, str | None]:
    """Random orders against ``second``; where the second team has no units, only the engine can play it."""
    return None, second if load_scenario(name).teams[1].size else "attack-move"


def test_the_long_version_is_as_long_as_it_says():
    assert sum(len(WAYS) * np.prod(plan(name)) for name in ALL) >= STEPS


@pytest.mark.parametrize("name", ALL)
def test_random_play_keeps_every_rule(name):
    control = "unit" if load_scenario(name).num_units <= 50 else "team"
    play_checked(BattleBatch(name, 3, builtin=players(name), control=control, with_state=True), 25)
    play_checked(BattleBatch(f"{name}@smac", 3, seed=1), 25)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ALL)
def test_ten_million_random_steps_keep_every_rule(name):
    battles, steps = plan(name)
    for seed, (preset, second) in enumerate(WAYS):
        batch = BattleBatch(
            f"{name}@{preset}", battles, builtin=players(name, second), seed=seed, num_threads=2
        )
        play_checked(batch, steps, seed)


def trajectory(name, battles, threads, steps, shown):
    """The state records of the first ``shown`` battles after each step of random play; each battle draws
    from its own stream."""
    batch = BattleBatch(name, battles, builtin=players(name), num_threads=threads)
    batch.reset(np.arange(1, battles + 1, dtype=np.uint64) * 1_000_003)
    streams = np.random.SeedSequence(9).generate_state(256, np.uint64)[:battles] | np.uint64(1)
    orders: list[np.ndarray | None] = [
        np.zeros((battles, n, 2), np.int64) if player is None else None
        for n, player in zip(batch.team_sizes, batch.builtin, strict=True)
    ]
    states = []
    for _ in range(steps):
        for side, given in enumerate(orders):
            if given is not None:
                masks = batch.masks(side)
                draw_orders(masks["verb_mask"], masks["target_mask"], streams, given)
        rewards = batch.step(*orders).rewards[:shown]
        states.append((batch.state.units[:shown].tobytes(), rewards.tobytes()))
    return states


@pytest.mark.parametrize("name", ["3m", "corridor", "MMM2@smac", "smacv2_zerg_10v11", "defeat_roaches"])
def test_the_same_seeds_give_the_same_battles_bit_for_bit(name):
    """Batches of 1, 7 and 256 on 1, 2, 3 and 5 threads, over auto-resets."""
    seven = trajectory(name, 7, 2, 40, 7)
    assert trajectory(name, 7, 3, 40, 7) == seven
    assert trajectory(name, 256, 5, 40, 7) == seven
    one = trajectory(name, 7, 1, 40, 1)
    assert trajectory(name, 1, 1, 40, 1) == one


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ALL)
def test_every_scenario_s_battles_are_the_same_bit_for_bit(name):
    many = 256 if load_scenario(name).num_units <= 50 else 16
    assert trajectory(name, many, 2, 80, 7) == trajectory(name, 7, 1, 80, 7)
    assert trajectory(name, many, 2, 80, 1) == trajectory(name, 1, 1, 80, 1)


def test_a_battle_of_a_threaded_batch_replays_in_a_fresh_process(tmp_path: Path):
    """Battle 5 of 7 on two threads, the second that its row plays; its states agree to the last bit."""
    batch = BattleBatch("MMM", 7, builtin=(None, None), num_threads=2, seed=4)
    streams = np.arange(1, 8, dtype=np.uint64)
    orders = [np.zeros((7, 10, 2), np.int64) for _ in (0, 1)]
    path = tmp_path / "battle.jsonl"
    writer, over = None, False
    while not over:
        if writer is None and batch.seeds[5] != first_seed(batch, 5):
            writer = ReplayWriter(path, batch, 5)
        last = batch.state.units[5].copy()
        for side in (0, 1):
            masks = batch.masks(side)
            draw_orders(masks["verb_mask"], masks["target_mask"], streams, orders[side])
        result = batch.step(*orders)
        over = writer is not None and writer.step(*orders, result)
    script = (
        "import sys; from envs.battle.replay import play_replay; frame = play_replay(sys.argv[1])[-2];"
        "print(frame.position.tobytes().hex(), frame.health.tobytes().hex())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    alive = last["alive"]
    position, health = (np.frombuffer(bytes.fromhex(word)) for word in done.stdout.split())
    np.testing.assert_array_equal(position.reshape(-1, 2)[alive, 0], last["x"][alive])
    np.testing.assert_array_equal(health[alive], last["health"][alive])


def first_seed(batch: BattleBatch, b: int) -> int:
    """The seed that a batch's battle ``b`` started from at first."""
    return int(BattleBatch(batch.scenario, batch.num_battles, seed=4).seeds[b])


class TestMirroredSides:
    def turned(self, first, second, places, steps, seed):
        """A battle, and the same one turned by half round the map's centre, with turned orders."""
        both = [
            BattleBatch(open_field(first, second), 1, builtin=(None, None), auto_reset="off", seed=seed)
            for _ in range(2)
        ]
        for k, batch in enumerate(both):
            x, y = np.array(places, dtype=float).T
            batch.state.units["x"], batch.state.units["y"] = (64 - x, 64 - y) if k else (x, y)
            batch.rules.sides["attack_x"][:2] = (16, 48) if k else (48, 16)
            batch.state.units["facing_x"] *= -1 if k else 1
            batch.refresh()
        random = np.array([seed + 1], np.uint64)
        tracks = [[], []]
        for _ in range(steps):
            orders = [np.zeros((1, n, 2), np.int64) for n in both[0].team_sizes]
            for side in (0, 1):
                masks = both[0].masks(side)
                draw_orders(masks["verb_mask"], masks["target_mask"], random, orders[side])
            both[0].step(*orders)
            for given in orders:
                moves = (given[..., 0] >= Verb.MOVE_NORTH) & (given[..., 0] <= Verb.MOVE_NORTHWEST)
                given[..., 0] = np.where(moves, (given[..., 0] - 3 + 4) % 8 + 3, given[..., 0])
            both[1].step(*orders)
            for track, batch in zip(tracks, both, strict=True):
                units = batch.state.units[0]
                track.append(np.stack([units[f] for f in ("x", "y", "health", "shield", "cooldown")]))
        return np.array(tracks[0]), np.array(tracks[1])

    @pytest.mark.parametrize("seed", range(4))
    def test_a_battle_turned_by_half_goes_the_same_way(self, seed):
        """Up to rounding: no direction of the map is favoured."""
        places = [(28, 30), (28, 33), (29, 36), (27, 27), (35, 31), (35, 34), (36, 28), (37, 38)]
        team = {"marine": 2, "zealot": 1, "stalker": 1}
        here, there = self.turned(team, team, places, 25, seed)
        np.testing.assert_allclose(here[:, 2:], there[:, 2:], atol=1e-6)
        np.testing.assert_allclose(here[:, :2], 64 - there[:, :2], atol=1e-6)

    @pytest.mark.parametrize("name", SYMMETRIC)
    def test_the_engine_against_itself_wins_half(self, name):
        battles = 256 if load_scenario(name).num_units < 30 else 128
        both = ("attack-move", "attack-move")
        batch = BattleBatch(name, battles, builtin=both, seed=11, auto_reset="off", num_threads=2)
        while (batch.state.battles["outcome"] == Outcome.RUNNING).any():
            batch.step(None)
        wins = np.bincount(batch.state.battles["outcome"], minlength=5)
        decided = int(wins[1] + wins[2])
        assert decided > 0.3 * battles, "half of bane_vs_bane ends with both teams' last banelings"
        assert binomtest(int(wins[1]), decided).pvalue > 1e-4
