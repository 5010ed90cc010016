"""A finished run's report holds together."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from agents import ScriptedAgent
from envs.battle.batch import Control
from perceiver_policy import UnitSetPolicy, UnitSetPolicyConfig
from perceiver_policy.pretrained import save_policy
from training import report
from training.evaluate import evaluate
from training.report import Report, finish_run
from training.results import result_table


def test_finish_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "ELSEWHERE", ("3m", "5m_vs_6m"))
    torch.manual_seed(0)
    save_policy(UnitSetPolicy(UnitSetPolicyConfig()), tmp_path / "policy")
    finished = finish_run(
        tmp_path,
        scenario="3m",
        games=20,
        command="perceiver-policy train",
        training={"env_steps": 5},
        console=Console(width=120),
    )
    content = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert content["games"] == 20
    assert content["orders"] == "greedy"
    assert content["scripts"].keys() == {"hold", "random", "attack-move", "closest", "focus-fire", "kite"}
    assert content["scripts"][finished.best_script]["wins"] == max(
        s["wins"] for s in content["scripts"].values()
    )
    assert content["other_scenarios"].keys() == {"5m_vs_6m"}
    assert content["training"] == {"env_steps": 5}
    assert {"result.json", "replay.jsonl", "battle.html", "battle.gif"} <= {
        p.name for p in tmp_path.iterdir()
    }
    printed = capsys.readouterr().out
    assert "scripted:focus-fire" in printed
    assert "battle.html" in printed


def test_a_policy_is_judged_as_it_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under its control, from its sides, unless the call says otherwise."""
    monkeypatch.setattr(report, "ELSEWHERE", ("3m", "8m", "5m_vs_6m"))
    monkeypatch.setattr(report, "baselines", lambda scenario: ("hold",))
    torch.manual_seed(0)
    metadata = {"scenario": "3m", "control": "unit", "swap_sides": False}
    save_policy(UnitSetPolicy(UnitSetPolicyConfig()), tmp_path / "policy", metadata=metadata)

    def finish(**asked: object) -> Report:
        finished = finish_run(tmp_path, scenario="3m", games=4, console=Console(quiet=True), **asked)
        assert {result.control for result in finished.elsewhere.values()} == {finished.greedy.control}
        return finished

    trained = finish()
    assert trained.greedy.control is Control.UNIT
    assert {trained.greedy.side.max(), trained.scripts["hold"].side.max()} == {0}
    assert trained.elsewhere["8m"].side.max() == 0
    asked = finish(control="team", swap_sides=True)
    assert asked.greedy.control is Control.TEAM
    assert (asked.greedy.side.max(), asked.elsewhere["8m"].side.max()) == (1, 1)
    assert asked.elsewhere["5m_vs_6m"].side.max() == 0


def test_a_missions_report_is_of_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "ELSEWHERE", ("3m",))
    monkeypatch.setattr(report, "baselines", lambda scenario: ("hold", "collect"))
    torch.manual_seed(0)
    save_policy(UnitSetPolicy(UnitSetPolicyConfig()), tmp_path / "policy")
    console = Console(width=120, record=True, file=io.StringIO())
    finished = finish_run(tmp_path, scenario="move_to_beacon@smac", games=4, console=console)
    content = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert finished.best_script == "collect"
    assert content["scenario"] == "move_to_beacon@smac"
    assert content["opponent"] == "nobody"
    assert "win_rate" not in content
    collect = content["scripts"]["collect"]
    assert collect["score_low"] < collect["score_mean"] < collect["score_high"]
    assert collect["score_mean"] > 10
    assert collect["timeouts"] == 4
    assert collect["paired_p_value"] == pytest.approx(2 * 0.5**4)
    assert content["scripts"]["hold"]["score_mean"] == 0
    assert content["other_scenarios"]["3m"].keys() >= {"win_rate", "wins"}
    printed = console.export_text()
    assert "nobody" in printed
    assert "The policy's interval does not lie above that of the best script, collect." in printed


def test_names_and_titles_are_printed_as_they_are() -> None:
    result = evaluate(ScriptedAgent("hold"), None, "3m", games=2)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(result_table("on [bold]maps/[v1].yaml", {"runs/[v2]/policy": result}))
    printed = console.export_text()
    assert "runs/[v2]/policy" in printed
    assert "on [bold]maps/[v1].yaml" in printed
