"""The calibration: who plays whom, what the numbers are held against, and what is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from envs.battle.batch import BattleBatch, Control, Outcome
from envs.battle.tactics import Tactic
from envs.scenarios import load_scenario, scenario_groups, scenario_names
from training.benchmark.calibration import (
    LARGE,
    SCRIPTS,
    TACTICS_ON,
    Match,
    Part,
    Played,
    duel,
    plan,
    play,
)
from training.benchmark.calibration_page import (
    BEGIN,
    END,
    PUBLISHED_SCORES,
    PUBLISHED_SMACV2,
    markdown_table,
    page_text,
    render,
    with_tables,
)
from training.benchmark.orderings import SCORE_LIMITS, Claim, Verdict, judge
from training.benchmark.rows import Row
from training.cli import main
from training.evaluate import EvaluationResult

PROVENANCE = {"engine": "0123456789abcdef", "unit_table": "fedcba9876543210"}


def made_up(
    part: Part, scenario: str, agent: str, outcomes: Sequence[Outcome], scores: Sequence[float] | None = None
) -> Played:
    """Battles that nobody played."""
    games = len(outcomes)
    result = EvaluationResult(
        scenario=scenario,
        agent=agent,
        opponent="attack-move",
        seed=0,
        control=Control.TEAM,
        deterministic=True,
        outcomes=np.array(outcomes, np.int8),
        side=np.zeros(games, np.int8),
        battle_seeds=np.arange(games, dtype=np.uint64),
        lengths=np.full(games, 10, np.int32),
        returns=np.zeros(games, np.float32),
        tactics=np.zeros(games, np.int8),
        scores=None if scores is None else np.array(scores, np.float64),
    )
    return Played(Match(part, scenario, agent, "attack-move", games), result)


def won(wins: int, losses: int) -> list[Outcome]:
    return [Outcome.WIN_0] * wins + [Outcome.WIN_1] * losses


def test_plan_covers_everything() -> None:
    matches = plan(games=500)
    of = {part: [match for match in matches if match.part is part] for part in Part}
    for part in (Part.SMAC, Part.SMACV2):
        assert {match.scenario for match in of[part]} == set(scenario_groups()[part])
    assert len(of[Part.SMAC]) == 23 * len(SCRIPTS)
    assert {match.scenario for match in of[Part.MISSIONS]} == set(PUBLISHED_SCORES)
    assert {f"smacv2_{name}" for name in PUBLISHED_SMACV2} == set(scenario_groups()["smacv2"])
    symmetric = {name for name in scenario_names() if load_scenario(name).symmetric}
    assert {match.scenario for match in of[Part.MIRRORS]} == symmetric
    assert all(match.agent == match.opponent and match.swap_sides is False for match in of[Part.MIRRORS])
    assert {
        match.agent for match in of[Part.MIRRORS] if load_scenario(match.scenario).num_units >= LARGE
    } == {"attack-move"}
    assert {match.scenario: match.games for match in of[Part.MIRRORS]}["battle_200v200"] == 100
    assert len(of[Part.TACTICS]) == len(TACTICS_ON) * len(Tactic) ** 2
    assert {match.games for match in of[Part.TACTICS]} == {200}
    assert plan(games=7, parts=[Part.MISSIONS]) == plan(games=7)[: len(of[Part.MISSIONS])]


def test_a_duel_is_the_battles_it_says() -> None:
    result = duel("kite", "attack-move-easy", "2s3z", games=30, seed=4)
    batch = BattleBatch("2s3z", 30, builtin=("kite", "attack-move-easy"), auto_reset="off")
    batch.reset(result.battle_seeds)
    while not (step := batch.step(None, None)).done.all():
        pass
    np.testing.assert_array_equal(result.outcomes, step.outcome)
    np.testing.assert_array_equal(result.lengths, step.length)
    assert result.tactics.tolist() == [Tactic.ATTACK_MOVE_EASY] * 30
    assert result.wins > 20
    assert duel("attack-move-easy", "kite", "2s3z", games=30, seed=4).losses > 20


def test_pools_are_told_apart_in_a_duel() -> None:
    drawn = duel("attack-move", "black-box", "3m", games=60).tactics
    assert set(drawn.tolist()) == {Tactic.FLANK, Tactic.HIT_AND_RUN, Tactic.AMBUSH}


def test_numbers_do_not_depend_on_the_processes() -> None:
    matches = [
        Match(Part.SMAC, "3m", "scripted:random", "attack-move", 6),
        Match(Part.TACTICS, "3m", "focus-fire", "kite", 6),
        Match(Part.MIRRORS, "8m", "scripted:closest", "scripted:closest", 6, swap_sides=False),
    ]
    told: list[tuple[int, int]] = []
    one = play(matches, processes=1)
    two = play(matches, processes=2, progress=lambda done, of: told.append((done, of)))
    assert [played.match for played in two] == matches
    for first, second in zip(one, two, strict=True):
        assert first.result.to_dict() == second.result.to_dict()
        np.testing.assert_array_equal(first.result.outcomes, second.result.outcomes)
    assert told == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(ValueError, match="processes is 0"):
        play(matches, processes=0)


def test_orderings_are_judged_by_paired_tests() -> None:
    """With 5 tests a family's limit is 0.05 / 5; the sign test of 8 : 0 gives 2 / 2⁸ = 0.0078."""
    played = [
        made_up(Part.SMAC, "3s_vs_5z", "scripted:kite", won(8, 0)),
        made_up(Part.SMAC, "3s_vs_5z", "scripted:hold", won(0, 8)),
        made_up(Part.SMAC, "3s_vs_5z", "scripted:closest", won(1, 7)),
        made_up(Part.SMAC, "3s_vs_5z", "scripted:focus-fire", won(8, 0)),
        made_up(Part.SMAC, "3m", "scripted:focus-fire", won(2, 8)),
        made_up(Part.SMAC, "3m", "scripted:closest", won(10, 0)),
    ]
    verdicts = {(check.claim, check.who): check.verdict for check in judge(played)}
    assert verdicts == {
        (Claim.KITE_FIRST, "kite, hold"): Verdict.HOLDS,
        (Claim.KITE_FIRST, "kite, closest"): Verdict.HOLDS,  # 7 : 0, 2 / 2⁷ = 0.0156 < 0.05 / 3
        (Claim.KITE_FIRST, "kite, focus-fire"): Verdict.EVEN,
        (Claim.FOCUS_FIRE, "focus-fire, closest"): Verdict.DEPARTS,
    }
    stricter = judge([*played, made_up(Part.SMAC, "3s_vs_5z", "scripted:attack-move", won(8, 0))])
    by_who = {check.who: check for check in stricter}
    assert by_who["kite, closest"].verdict is Verdict.EVEN  # 0.0156 > 0.05 / 4
    assert by_who["kite, hold"].verdict is Verdict.HOLDS
    assert by_who["kite, closest"].numbers == "100.0 % and 12.5 %, p = 0.016"


def test_random_is_last() -> None:
    played = [
        made_up(Part.SMAC, "bane_vs_bane", "scripted:random", won(10, 0)),
        made_up(Part.SMAC, "bane_vs_bane", "scripted:closest", won(0, 10)),
        made_up(Part.SMAC, "8m", "scripted:random", won(0, 10)),
        made_up(Part.SMAC, "8m", "scripted:closest", won(9, 1)),
    ]
    verdicts = [(check.claim, check.scenario, check.verdict) for check in judge(played)]
    assert verdicts == [
        (Claim.RANDOM_LAST, "bane_vs_bane", Verdict.DEPARTS),
        (Claim.RANDOM_LAST, "8m", Verdict.HOLDS),
    ]


def test_mirrors_are_held_against_one_half() -> None:
    """Draws and timeouts decide nothing; 15 : 3 has p = 0.0075, one of one test and one of seven."""
    uneven = made_up(Part.MIRRORS, "8m", "kite", [*won(15, 3), Outcome.DRAW, Outcome.TIMEOUT])
    (check,) = judge([uneven])
    assert (check.claim, check.verdict) == (Claim.MIRROR, Verdict.DEPARTS)
    assert check.numbers == "15 of 18 won by the first side, p = 0.0075"
    even = [made_up(Part.MIRRORS, "8m", "closest", won(5, 5))] * 6
    assert {check.verdict for check in judge([uneven, *even])} == {Verdict.HOLDS}
    undecided = made_up(Part.MIRRORS, "8m", "kite", [Outcome.TIMEOUT] * 30)
    assert judge([undecided])[0].verdict is Verdict.HOLDS


@pytest.mark.parametrize(("score", "verdict"), [(27.0, Verdict.HOLDS), (20.0, Verdict.DEPARTS)])
def test_scores_are_held_against_limits(score: float, verdict: Verdict) -> None:
    ends = [Outcome.TIMEOUT] * 2
    played = made_up(Part.MISSIONS, "move_to_beacon", "scripted:collect", ends, [score - 1, score + 1])
    (check,) = judge([played])
    assert (check.claim, check.verdict) == (Claim.SCORE, verdict)


def test_beacons_are_reached_as_often_as_in_the_game() -> None:
    matches = [
        match for match in plan(games=100, parts=[Part.MISSIONS]) if match.scenario == "move_to_beacon"
    ]
    assert {(match.scenario, match.agent.removeprefix("scripted:")) for match in matches} == set(SCORE_LIMITS)
    assert [check.verdict for check in judge(play(matches, processes=1))] == [Verdict.HOLDS] * 2


def test_tables() -> None:
    assert markdown_table(("a", "b"), [("x", "1")]) == "| a | b |\n| --- | ---: |\n| x | 1 |"
    played = [
        made_up(Part.SMAC, "3m", f"scripted:{script}", won(i, 10 - i)) for i, script in enumerate(SCRIPTS)
    ]
    tables = render(played, judge(played), PROVENANCE)
    assert "60 battles; engine `0123456789ab`, unit table `fedcba987654`" in tables
    assert "| scenario | random | hold | attack-move | closest | focus-fire | kite |" in tables
    assert "| `3m` | 0.0 [0, 28] | 10.0 [2, 40] |" in tables
    assert "| **50.0 [24, 76]** |" in tables
    assert "| mean of 1 | 0.0 | 10.0 | 20.0 | 30.0 | 40.0 | 50.0 |" in tables
    assert tables.endswith("- none")
    mirror = [made_up(Part.MIRRORS, "3m", "closest", [*won(5, 5), Outcome.DRAW])]
    assert "| `3m` | 50.0 [24, 76] |" in render(mirror, [], PROVENANCE)


def test_payoffs_stand_under_their_names() -> None:
    labels = [tactic.label for tactic in Tactic]
    played = []
    for i, first in enumerate(labels):
        for j, second in enumerate(labels):
            one = duel_of(first, second, 10 if i < j else 0)
            played.append(one)
    tables = render(played, [], PROVENANCE)
    assert f"| {labels[0]} | 0 | {' | '.join(['100'] * 10)} | 100 |" in tables
    assert f"| {labels[-1]} (held out) | {' | '.join(['0'] * 11)} | 0 |" in tables


def duel_of(first: str, second: str, wins: int) -> Played:
    played = made_up(Part.TACTICS, "3m", first, won(wins, 10 - wins))
    result = EvaluationResult(**(played.result.__dict__ | {"opponent": second}))
    return Played(Match(Part.TACTICS, "3m", first, second, 10), result)


def test_only_what_is_between_the_markers_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nprose\n", encoding="utf-8")
    once = with_tables(page_text(page), "new")
    assert once == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nprose\n"
    assert with_tables(once, "new") == once
    for text in ("no markers", f"{END}\n{BEGIN}", f"{BEGIN}\n{BEGIN}\n{END}"):
        page.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match="put each in once"):
            page_text(page)


def test_command_writes_rows_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, file = tmp_path / "page.md", tmp_path / "rows.json"
    page.write_text(f"before\n{BEGIN}\n{END}\nafter\n", encoding="utf-8")
    arguments = ["--parts", "missions", "--games", "3", "--processes", "1"]
    assert main(["calibrate", *arguments, "--json", str(file), "--page", str(page)]) == 0
    captured = capsys.readouterr()
    assert "Missions: mean score" in captured.out
    assert "22 of 22 matches" in captured.err
    content = json.loads(file.read_text())
    assert len(content["rows"]) == 22
    row = content["rows"][1]
    assert row["name"] == "calibration/missions/move_to_beacon/scripted:collect/attack-move"
    assert {field.name for field in fields(Row)} <= row.keys()
    assert row["unit"] == "points"
    assert row["low"] < row["ours"] < row["high"]
    assert row["spread"] == pytest.approx((row["high"] - row["low"]) / row["ours"])
    assert (row["games"], row["timeouts"], row["mean_length_steps"], row["sides"]) == (3, 3, 240.0, "first")
    assert content["departures"] == sum(check["verdict"] == "departs" for check in content["checks"])
    assert {"engine", "unit_table", "command", "cores"} <= content.keys()
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert f"| `move_to_beacon` | collect | {row['ours']:.1f} [" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--games", "0"), "--games is 0; it must be at least 1"),
        (("--processes", "0"), "--processes is 0; it must be at least 1"),
        (("--seed", "-1"), "--seed is -1; it must not be negative"),
        (("--parts", "smac", "smac"), "each once"),
        (("--page", "absent.md"), "absent.md"),
        (("--json", "absent/file.json"), "does not exist"),
    ],
)
def test_bad_input_is_refused_before_anything_is_played(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_info:
        main(["calibrate", *arguments])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err
