"""Benchmarks: rows and their keys, two programs taking turns, growth with the units, the command around them.

No test says how fast anything is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from envs.battle.batch import BattleBatch
from envs.battle.random_play import draw_orders
from envs.battle.state import BATTLE, UNIT
from envs.scenarios import formation_radius
from envs.unit_set import validate_orders
from training.benchmark import engine, growth, smax
from training.benchmark.contest import Contestant, ContestError, Setting, Way, take_turns
from training.benchmark.rows import Row, rates, row, row_against
from training.benchmark.stepping import prepare
from training.cli import INTERRUPTED, main

ROW_KEYS = {"name", "unit", "ours", "rival", "rival_name", "ratio", "spread", "command"}
ROOT = Path(__file__).parents[2]
CORE = min(os.sched_getaffinity(0))
PROGRAM = """
import os, sys
from training.benchmark.contest import serve

def prepare(setting, num_cores):
    print("a library talks")
    if setting.scenario == "refuse":
        raise ValueError(f"{num_cores} cores, on {os.sched_getaffinity(0)}\\nand more")
    if setting.scenario == "die":
        sys.exit("out of memory")
    return lambda: setting.battles

if __name__ == "__main__":
    serve(prepare)
"""


class Scripted(Contestant):
    """Has the rates it is given, and notes when it was asked for which."""

    def __init__(self, by_setting: dict[Setting, float], num_cores: int, asked: list | None = None) -> None:
        self.num_cores = num_cores
        self.by_setting = by_setting
        self.asked = [] if asked is None else asked

    def rate(self, setting: Setting, seconds: float) -> float:
        self.asked.append(setting)
        return self.by_setting[setting]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Contestant]:
    (tmp_path / "a_program.py").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    with Contestant("a_program", [CORE]) as contestant:
        yield contestant


def test_rows() -> None:
    measured = rates(lambda: 10, seconds=0.001, repeats=3)
    assert len(measured) == 3
    content = row("a/b", "things/s", [1.0, 2.0, 4.0], "perceiver-policy benchmark engine").to_dict()
    assert content.keys() == ROW_KEYS
    assert (content["ours"], content["spread"], content["rival"]) == (2.0, 1.5, None)


def test_a_row_beside_a_rival() -> None:
    """Medians, their ratio, and the spread of the side that varies more."""
    for ours, rival in (([8.0, 10.0, 12.0], [4.0, 5.0, 5.5]), ([10.0, 10.0, 11.0], [4.0, 5.0, 6.0])):
        content = row_against("a", "things/s", ours, "command", "other 1.0", rival).to_dict()
        assert content.keys() == ROW_KEYS
        assert (content["ours"], content["rival"], content["ratio"]) == (10.0, 5.0, 2.0)
        assert content["spread"] == pytest.approx(0.4)
        assert content["rival_name"] == "other 1.0"


def test_orders_drawn_are_legal_and_of_all_kinds() -> None:
    batch = BattleBatch("3s_vs_5z", 64)
    observation = batch.observations[0]
    orders = np.zeros((64, 3, 2), np.int64)
    random = np.arange(1, batch.num_battles + 1, dtype=np.uint64)
    given = []
    for _ in range(30):
        draw_orders(observation["verb_mask"], observation["target_mask"], random, orders)
        validate_orders(orders, observation)
        given.append(orders[..., 0].copy())
        batch.step(orders)
    assert len(np.unique(given)) == 13  # all but ABILITY, which no unit here has


@pytest.mark.parametrize(("way", "num_cores"), [(Way.TOGETHER, 1), (Way.TOGETHER, 2), (Way.APART, 2)])
def test_our_side_counts_the_steps_of_all_cores(way: Way, num_cores: int) -> None:
    work = prepare(Setting("3m", 3, way), num_cores)
    assert work() == 16 * 3 * num_cores


def test_a_program_answers_and_refuses(program: Contestant) -> None:
    """What libraries print does not come between; a refusal is one line, and the program goes on after it."""
    assert program.rate(Setting("3m", 5), 0.001) > 0
    with pytest.raises(ContestError, match=rf"ValueError: 1 cores, on \{{{CORE}\}}$"):
        program.rate(Setting("refuse", 5), 0.001)
    assert program.rate(Setting("3m", 5), 0.001) > 0


def test_a_program_that_dies_says_why(program: Contestant) -> None:
    for _ in range(2):
        with pytest.raises(ContestError, match="exit code 1: out of memory") as error:
            program.rate(Setting("die", 5), 0.001)
        assert error.value.contestant is program


def test_an_interrupted_contest_leaves_no_process() -> None:
    with pytest.raises(KeyboardInterrupt):
        with Contestant("training.benchmark.stepping", [CORE]) as contestant:
            raise KeyboardInterrupt
    assert contestant._process.returncode is not None


def test_the_best_setting() -> None:
    """Both ways are tried on several cores, each until larger batches have become clearly worse."""
    together = {Setting("3m", size): rate for size, rate in ((8, 10.0), (16, 7.0), (32, 99.0))}
    apart = {Setting("3m", size, Way.APART): rate for size, rate in ((8, 9.0), (16, 20.0), (32, 18.0))}
    contestant = Scripted(together | apart, num_cores=2)
    assert contestant.best("3m", (8, 16, 32), 1.0) == Setting("3m", 16, Way.APART)
    assert contestant.asked == [*list(together)[:2], *apart]
    assert Scripted(together, num_cores=1).best("3m", (8, 16), 1.0) == Setting("3m", 8)


@pytest.mark.parametrize(
    ("setting", "num_cores", "name"),
    [
        (Setting("3m", 8), 1, "8"),
        (Setting("3m", 8), 2, "16"),
        (Setting("3m", 8, Way.APART), 2, "2x8"),
    ],
)
def test_how_a_batch_is_named(setting: Setting, num_cores: int, name: str) -> None:
    assert setting.batch(num_cores) == name


def test_sides_take_turns() -> None:
    ours, rival = Setting("3m", 1), Setting("3m", 2)
    asked: list[Setting] = []
    sides = [(Scripted({rival: 5.0}, 1, asked), rival), (Scripted({ours: 7.0}, 1, asked), ours)]
    assert take_turns(sides, seconds=0.1, repeats=3) == [[5.0] * 3, [7.0] * 3]
    assert asked == [rival, ours] * 3


def speeds() -> Row:
    options = {"scenarios": ("3m",), "sizes": (4,), "rival_sizes": (4,), "seconds": 0.01, "repeats": 2}
    (measured,) = engine.speeds("a command", [CORE], **options)
    assert measured.name == "engine/3m/1_core/batch_4"
    assert measured.ours > 0
    return measured


def test_without_the_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smax.util, "find_spec", lambda name: None)
    measured = speeds()
    assert (measured.rival, measured.ratio) == (None, None)
    assert "jaxmarl and jax not installed" in measured.rival_name
    assert "perceiver-policy[bench]" in measured.rival_name


def test_with_a_rival_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation does not cost our own numbers."""
    (tmp_path / "jax.py").write_text("raise ImportError('no such processor')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setattr(smax, "absence", lambda: None)
    measured = speeds()
    assert measured.rival is None
    assert measured.rival_name == "SMAX, not measured: ImportError: no such processor"


def test_actions_of_the_rival_are_legal_and_equally_likely() -> None:
    jax = pytest.importorskip("jax")
    allowed = np.array([[0, 1, 0, 1], [1, 0, 0, 0]] * 500)
    actions = np.asarray(smax.draw_actions(jax.random.PRNGKey(0), jax.numpy.asarray(allowed)))
    assert allowed[np.arange(1000), actions].all()
    assert 200 < np.count_nonzero(actions[::2] == 1) < 300


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_beside_the_rival() -> None:
    pytest.importorskip("jaxmarl")
    measured = speeds()
    assert measured.ratio == pytest.approx(measured.ours / measured.rival)
    assert measured.rival_name.startswith("SMAX 0.2")


def test_armies_keep_their_density() -> None:
    """Four times the units on discs of twice the radius, and as far from each other's edge."""
    small, large = growth.armies(100), growth.armies(400)
    assert (small.num_units, large.num_units) == (100, 400)
    assert small.symmetric
    assert large.symmetric
    radius = {army: formation_radius(army.teams[0].units) for army in (small, large)}
    assert radius[large] == pytest.approx(2 * radius[small])
    for army in (small, large):
        (left, _), (right, _) = (team.spawn for team in army.teams)
        assert 12 <= right - left - 2 * radius[army] < 13


def test_exponent() -> None:
    assert growth.exponent((50, 100, 200), [3 * n**1.25 for n in (50, 100, 200)]) == pytest.approx(1.25)


def test_memory() -> None:
    state, observation = growth.memory(10)
    assert state == 10 * UNIT.itemsize + BATTLE.itemsize + 2 * 8  # and two float64 returns
    space = BattleBatch(growth.armies(10), 1).observation_space()
    assert observation == sum(np.prod(part.shape, dtype=int) * part.dtype.itemsize for part in space.values())


@pytest.mark.parametrize("observing", [False, True])
def test_a_fight_is_timed_over_the_same_steps_each_time(observing: bool) -> None:
    fight = growth.Fight(20, observing)
    ends = []
    for _ in range(2):
        assert fight.seconds_a_loop(1e-9) > 0
        ends.append(fight._batch.state.units.copy())
    assert np.array_equal(*ends)
    assert 0.25 < np.mean(ends[0]["alive"]) <= 0.5
    assert np.mean(fight._moment[0]["alive"]) > 0.6


def test_rows_of_growth() -> None:
    rows = {made.name: made for made in growth.measure("c", sizes=(10, 20), seconds=0.001, repeats=2)}
    assert len(rows) == 2 * (2 + 1) + 2 * 2
    assert rows["engine/memory/20_units/state"].ours > rows["engine/memory/10_units/state"].ours
    assert np.isfinite(rows["engine/growth/exponent/observed"].ours)


def test_the_command_writes_all_rows_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [
        row_against(
            "engine/27m_vs_30m/64_cores/batch_64x512", "env steps/s", [123456.0], "c", "other", [65432.0]
        ),
        Row("engine/first step, nothing compiled", "s", 3.25, 0.0, "c", rival_name="SMAX, not measured: why"),
    ]
    file = tmp_path / "rows.json"

    def interrupted(command: str) -> Iterator[Row]:
        yield made[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "measure", interrupted)
    assert main(["benchmark", "engine", "--json", str(file)]) == INTERRUPTED
    assert "Interrupted; the same command starts over" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

    monkeypatch.setattr(engine, "measure", lambda command: made)
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["benchmark", "engine", "--json", str(file)]) == 0
    printed = capsys.readouterr()
    for number in ("123,456", "65,432", "1.89", "3.25", "SMAX, not measured: why"):
        assert number in printed.out
    assert "load 1000.0" in printed.err
    assert json.loads(file.read_text(encoding="utf-8")) == [item.to_dict() for item in made]
