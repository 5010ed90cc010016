"""From run folders to tables, JSON, marl-eval's file and pictures."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from training.evaluate import paired_p_value
from training.protocol import final
from training.protocol.final import Plan, Played, prepare
from training.protocol.marl_eval import marl_eval_json
from training.protocol.report import Report, over_runs
from training.protocol.runs import read_runs
from training.protocol.tables import print_report

QUIET = Console(file=io.StringIO())


def said(report: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_report(console, report)
    return console.file.getvalue()


@pytest.fixture
def two_algorithms(make_run, tmp_path):
    """Two seeds of each on two scenarios; the second's curves are the better ones."""
    for seed in (0, 1):
        for scenario in ("3m", "8m"):
            make_run(f"a_{scenario}_{seed}", wins=(1, 3 + seed), seed=seed, scenario=scenario)
            make_run(f"b_{scenario}_{seed}", wins=(5, 9), seed=seed, scenario=scenario, gamma=0.9)
    return read_runs([f"{name}={path}" for name in "ab" for path in sorted(tmp_path.glob(f"{name}_*"))])


def hand_made(runs, outcome_of) -> Played:
    """The best policies of a won 40 to 43 of 100, those of b 80 to 83; the script wins 50."""
    played = Played()
    for place, run in enumerate(runs):
        wins = {"a": 40, "b": 80}[run.algorithm] + 2 * (run.scenario == "8m") + run.config.seed
        played.absolute[place] = played.compared[place] = outcome_of(wins, 100, run.scenario)
        played.unseen[place] = {"flank": outcome_of(wins // 2, 100, run.scenario)}
        played.elsewhere[place] = {"25m": outcome_of(7, 100, "25m")}
    for scenario in ("3m", "8m", "25m"):
        played.scripts[scenario, "attack-move", "team"] = {
            "hold": outcome_of(0, 100, scenario),
            "closest": outcome_of(50, 100, scenario),
        }
    return played


@pytest.fixture
def report(two_algorithms, outcome_of):
    return Report(two_algorithms, hand_made(two_algorithms, outcome_of), Plan(games=100, unseen=("flank",)))


def test_scores_and_aggregates(report):
    assert report.tasks == ["3m", "8m"]
    assert [task.tolist() for task in report.scores("a")] == [[0.40, 0.41], [0.42, 0.43]]
    a, b = (report.aggregates[name] for name in "ab")
    assert a["iqm"].value == pytest.approx((0.41 + 0.42) / 2)  # the middle two of .40 .41 .42 .43
    assert b["optimality_gap"].value == pytest.approx(1 - 0.815)
    assert report.improvements["a", "b"].value == 0.0


def test_the_curve_is_the_iqm_along_training(report):
    curve = report.curves["a"]
    assert (curve.env_steps[0], curve.env_steps[-1]) == (1000, 2000)
    values = [one.value for one in curve.estimates]
    assert values[0] == pytest.approx(0.1)
    # On each scenario the two seeds end at 3 and 4 of 10: the middle half of .3 .3 .4 .4
    assert values[-1] == pytest.approx(0.35)
    assert np.all(np.diff(values) > 0)
    assert curve.estimates[-1].low == pytest.approx(0.3)


def test_a_script_is_compared_on_the_same_seeds(report, outcome_of):
    name, script = report.best_script(0)
    assert (name, script.wins) == ("closest", 50)
    entry = report.to_dict()["runs"][0]["best_script"]
    assert entry["paired_p_value"] == paired_p_value(outcome_of(40, 100), outcome_of(50, 100))
    assert "closest" in said(report)
    assert "0 of 2" in said(report), "no run of a is above the script"
    assert "2 of 2" in said(report), "both runs of b are"


def test_algorithms_are_compared_in_pairs(report):
    pairs = report.to_dict()["paired"]
    assert [(pair["scenario"], pair["seed"]) for pair in pairs] == [
        ("3m", 0),
        ("3m", 1),
        ("8m", 0),
        ("8m", 1),
    ]
    assert all((pair["of"], pair["over"]) == ("a", "b") for pair in pairs)
    assert [pair["difference"] for pair in pairs] == pytest.approx([-0.4] * 4)
    assert pairs[0]["p_value"] == 2 * 0.5**40  # b won 40 battles that a lost, and none the other way


def test_the_report_is_json(report):
    text = json.dumps(report.to_dict(), allow_nan=False)
    content = json.loads(text)
    assert content["tasks"] == ["3m", "8m"]
    assert content["runs"][0]["unseen"]["flank"]["wins"] == 20
    assert content["runs"][0]["env_steps"] == 2000
    assert content["performance_profiles"]["b"]["share"][80] == 0.75, "one of four reached 0.80 and no more"
    assert "unit_table" in content


def test_the_tables_have_unseen_opponents_and_other_scenarios(report):
    text = said(report)
    assert "flank" in text
    assert "25m" in text
    assert "best script there" in text
    assert "40.5 [40.0, 41.0]" in text, "the mean of two seeds"
    assert "A run of a does better than one of b with probability 0.00" in text


def test_one_run_has_its_interval_over_battles(outcome_of):
    single = outcome_of(40, 100)
    one = over_runs([single])
    assert (one.low, one.high) == single.interval
    two = over_runs([single, outcome_of(60, 100)])
    assert (two.value, two.low, two.high) == (0.5, 0.4, 0.6)


def test_a_scenario_that_one_lacks_is_left_out(two_algorithms, outcome_of):
    runs = [run for run in two_algorithms if (run.algorithm, run.scenario) != ("b", "8m")]
    report = Report(runs, hand_made(runs, outcome_of), Plan())
    assert report.tasks == ["3m"]
    assert "Not in the aggregates: 8m" in said(report)


def test_smacv2_wants_an_open_loop(make_run, outcome_of):
    scenario = "smacv2_terran_5v5"
    runs = read_runs([str(make_run("a", scenario=scenario))])
    played = Played(absolute={0: outcome_of(4, 10, scenario)}, compared={0: outcome_of(4, 10, scenario)})
    played.unseen, played.elsewhere = {0: {}}, {0: {}}
    assert f"{scenario} has no open-loop baseline" in said(Report(runs, played, Plan()))
    blind = make_run("b", scenario=scenario, model_overrides=("sight=time",))
    runs = read_runs([f"a={runs[0].path}", f"b={blind}"])
    played.absolute[1] = played.compared[1] = outcome_of(1, 10, scenario)
    played.unseen[1], played.elsewhere[1] = {}, {}
    text = said(Report(runs, played, Plan()))
    assert "has no open-loop" not in text
    assert "b (open loop)" in text


# marl-eval


def test_marl_evals_layout(report, two_algorithms):
    content = json.loads(json.dumps(marl_eval_json(two_algorithms, report.played.absolute)))
    assert list(content) == ["perceiver_policy"]
    tasks = content["perceiver_policy"]
    assert {task: {name: list(runs) for name, runs in by.items()} for task, by in tasks.items()} == {
        task: {"a": ["run_0", "run_1"], "b": ["run_0", "run_1"]} for task in ("3m", "8m")
    }
    run = tasks["8m"]["a"]["run_1"]
    assert list(run) == ["step_1", "step_2", "absolute_metrics"]
    assert run["step_2"]["step_count"] == 2000
    assert run["step_2"]["win_rate"] == [1.0] * 4 + [0.0] * 6
    assert set(run["step_1"]) - {"step_count"} == set(run["absolute_metrics"])
    assert {len(values) for values in run["absolute_metrics"].values()} == {100}
    assert sum(run["absolute_metrics"]["win_rate"]) == 43
    assert run["step_1"]["return"] == pytest.approx(np.linspace(0, 1, 10))
    assert run["step_1"]["episode_length"] == [20] * 10


def test_runs_that_stopped_early_are_as_long_as_the_others(make_run, outcome_of):
    short, long = make_run("a", wins=(9,), seed=0), make_run("b", wins=(1, 2, 3), seed=1)
    runs = read_runs([str(short), str(long)])
    content = marl_eval_json(runs, {0: outcome_of(1, 10), 1: outcome_of(1, 10)})
    first, second = (content["perceiver_policy"]["3m"]["ppo"][f"run_{seed}"] for seed in (0, 1))
    assert list(first) == list(second) == ["step_1", "step_2", "step_3", "absolute_metrics"]
    assert [first[f"step_{i}"]["step_count"] for i in (1, 2, 3)] == [1000, 2000, 3000]
    assert [sum(first[f"step_{i}"]["win_rate"]) for i in (1, 2, 3)] == [9, 9, 9]


def test_without_a_curve_there_is_no_marl_eval_file(make_run, outcome_of):
    runs = read_runs([str(make_run("a", wins=()))])
    with pytest.raises(ValueError, match="--evaluation-interval above 0"):
        marl_eval_json(runs, {0: outcome_of(1, 10)})


# What is played


def test_everything_is_played_once(make_run, monkeypatch):
    runs = read_runs([str(make_run("a")), str(make_run("b", seed=1))])
    plan = Plan(games=4, unseen=("flank",), elsewhere=("2m_vs_1z", "3m"))
    games = []
    play = final.evaluate

    def counting(*args, **kwargs):
        result = play(*args, **kwargs)
        games.append((result.agent, result.scenario, result.opponent, result.games))
        return result

    monkeypatch.setattr(final, "evaluate", counting)
    played = prepare(runs, plan).work(QUIET)
    assert games.count(("policy", "3m", "attack-move", 40)) == 2, "ten times an evaluation in training"
    assert games.count(("policy", "3m", "attack-move", 4)) == 2
    assert games.count(("policy", "3m", "flank", 4)) == 2
    assert games.count(("policy", "2m_vs_1z", "attack-move", 4)) == 2
    scripts = [game for game in games if game[0].startswith("scripted:")]
    assert len(scripts) == len(set(scripts)), "each script once, though there are two runs"
    assert set(played.elsewhere[0]) == {"2m_vs_1z"}, "home is not elsewhere"
    assert set(played.compared[0].battle_seeds) == set(played.unseen[1]["flank"].battle_seeds)

    made = len(games)
    again = prepare(runs, plan).work(QUIET)
    assert len(games) == made, "the second time nothing is played"
    assert np.array_equal(again.absolute[1].outcomes, played.absolute[1].outcomes)
    assert again.scripts.keys() == played.scripts.keys()


def test_a_changed_policy_plays_anew(make_run):
    run = make_run("a")
    plan = Plan(absolute_games=4, games=4, unseen=(), scripts=False)
    files = lambda: set((run / "evaluations" / "final").glob("*.npz"))  # noqa: E731
    prepare(read_runs([str(run)]), plan).work(QUIET)
    before = files()
    weights = run / "policy" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    prepare(read_runs([str(run)]), plan).work(QUIET)
    assert files() > before


def test_a_wrong_plan_is_refused_before_anything_is_played(make_run):
    runs = read_runs([str(make_run("a"))])
    for plan, message in (
        (Plan(games=0), "games is 0"),
        (Plan(absolute_games=-1), "absolute_games is -1"),
        (Plan(seed=-1), "seed is -1"),
        (Plan(unseen=("flanc",)), "flank"),
        (Plan(elsewhere=("4m",)), "4m"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(runs, plan)
    assert not (runs[0].path / "evaluations" / "final").exists()


def test_missions_have_scores_and_no_unseen_opponents(make_run):
    run = make_run("a", wins=(), scenario="move_to_beacon")
    runs = read_runs([str(run)])
    played = prepare(runs, Plan(absolute_games=2, games=2, unseen=("flank",))).work(QUIET)
    report = Report(runs, played, Plan(games=2))
    assert played.unseen[0] == {}
    assert report.tasks == []
    assert report.to_dict()["aggregates"] == {}
    assert "Not in the aggregates: move_to_beacon" in said(report)
    assert math.isfinite(report.to_dict()["runs"][0]["absolute"]["score_mean"])
