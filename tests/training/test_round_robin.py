"""A round robin, and the command that rates it."""

import json

import numpy as np
import pytest

from agents.scripted import ScriptedAgent
from envs.battle.batch import Control
from training import cli
from training.commands import ladder
from training.evaluate import evaluate
from training.round_robin import round_robin
from training.trained_as import TrainedAs

PLAYERS = {"hold": ScriptedAgent("hold"), "attack-move": "attack-move", "focus-fire": "focus-fire"}


@pytest.fixture(scope="module")
def tournament():
    return round_robin(PLAYERS, "3m", games=40, seed=3)


def test_tables_are_the_games(tournament):
    alone = evaluate(ScriptedAgent("hold"), "focus-fire", "3m", games=40, seed=3, swap_sides=True)
    assert (tournament.wins[0, 2], tournament.wins[2, 0]) == (alone.wins, alone.losses)
    assert tournament.draws[0, 2] == tournament.draws[2, 0] == alone.draws + alone.timeouts
    games = tournament.wins + tournament.wins.T + tournament.draws
    np.testing.assert_array_equal(games, 40 * (1 - np.eye(3)))
    points = tournament.wins + tournament.draws / 2
    np.testing.assert_array_equal(tournament.by_seed.sum(0), points)
    assert tournament.by_seed.shape == (20, 3, 3), "both games of a seed belong together"
    np.testing.assert_array_equal(
        tournament.by_seed + tournament.by_seed.transpose(0, 2, 1),
        np.broadcast_to(2 * (1 - np.eye(3)), (20, 3, 3)),
    )


def test_players_of_the_engine_meet_each_other(tournament):
    assert tournament.wins[2, 1] > tournament.wins[1, 2] > 0
    for (i, j), result in tournament.results.items():
        np.testing.assert_array_equal(result.battle_seeds, tournament.results[0, 1].battle_seeds)
        assert (result.agent, result.opponent) == (
            tournament.names[i].replace("hold", "scripted:hold"),
            tournament.names[j],
        )


def test_sides_of_an_engine_pair_are_swapped():
    """A player against itself wins as often as it loses, over both sides of every seed."""
    result = evaluate("kite", "kite", "3m", games=60, swap_sides=True)
    first, second = result.on_side(0), result.on_side(1)
    assert first[1] == second[1] == 30
    assert result.wins == result.losses
    swapped = {
        int(seed): outcome
        for seed, outcome in zip(result.battle_seeds[30:], result.outcomes[30:], strict=True)
    }
    for seed, outcome in zip(result.battle_seeds[:30], result.outcomes[:30], strict=True):
        assert {int(outcome), int(swapped[int(seed)])} in ({1, 2}, {3}, {4})


def test_the_command_rates_and_writes(tmp_path, capsys):
    file = tmp_path / "ladder.json"
    agents = ["scripted:hold", "attack-move", "focus-fire"]
    command = ["ladder", "--agents", *agents, "--games", "20", "--anchor", "attack-move", "--json", str(file)]
    assert cli.main(command) == 0
    written = json.loads(file.read_text())
    assert written["names"] == agents
    assert written["anchor"] == "attack-move"
    best, anchor, worst = written["ratings"]
    assert (best["name"], anchor["rating"]) == ("focus-fire", 1000)
    assert best["low"] < best["rating"] < best["high"]
    assert (worst["name"], worst["rating"], worst["standing"]) == ("scripted:hold", None, "below")
    assert written["backend"] == "embedded"
    shown = capsys.readouterr().out
    assert "below all numbers: lost to the anchor's company" in " ".join(shown.split())


def test_policies_of_the_box_are_asked_how_they_were_trained(monkeypatch, capsys):
    controls = {"policy:3m": Control.UNIT, "runs": Control.TEAM}
    monkeypatch.setattr(ladder, "trained_as", lambda spec: TrainedAs(controls[spec]))
    monkeypatch.setattr(ladder, "load_opponent", lambda spec, **_: ScriptedAgent("hold"))
    monkeypatch.setattr(ladder, "policy_folder", lambda spec: spec if spec in controls else None)
    with pytest.raises(SystemExit):
        cli.main(["ladder", "--agents", "policy:3m", "runs", "kite"])
    assert "some as units; give --control" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agents", "kite"], "name two or more"),
        (["--agents", "kite", "kite"], "twice"),
        (["--agents", "kite", "nobody"], "no opponent 'nobody'"),
        (["--agents", "kite", "split", "--anchor", "flank"], "--anchor is flank"),
        (["--agents", "kite", "split", "--games", "3"], "even number"),
        (["--agents", "kite", "split", "--scenario", "3s_vs_5z"], "not symmetric"),
        (["--agents", "kite", "split", "--threads", "0"], "at least 1"),
    ],
)
def test_what_cannot_be_rated_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["ladder", *arguments])
    assert left.value.code == 2
    assert message in capsys.readouterr().err
