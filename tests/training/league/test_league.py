"""The league's turns, its folder, and that it goes on after a kill as if there had been none."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import ray
from PIL import Image
from rich.console import Console
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import training.league.folder
from perceiver_policy.pretrained import read_metadata
from training import cli
from training.league import LeagueConfig, run_league
from training.league.display import matrix_image
from training.league.folder import LeagueFolder
from training.league.payoff import Game, Payoff, Result
from training.rl.config import TrainConfig
from training.rl.job import StoppedBy
from training.rl.run_folder import RunFolder, RunFolderError

LEAGUE = LeagueConfig(
    scripts=("attack-move", "scripted:hold"),
    league_exploiters=0,
    turn_steps=64,
    opponents=2,
    snapshot_steps=512,
    exploiter_steps=512,
    payoff_min_games=2,
)


def job(run_dir: Path, **changes) -> TrainConfig:
    settings = {
        "run_dir": run_dir,
        "num_battles": 8,
        "rollout_steps": 32,
        "minibatch_size": 128,
        "num_epochs": 1,
        "max_env_steps": 1536,
        "model_overrides": (
            "encoder.num_latents=2",
            "encoder.num_latent_channels=8",
            "unit_input.num_channels=8",
        ),
    }
    return TrainConfig(**settings | changes)


@pytest.fixture(scope="module")
def local_ray():
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


def quiet() -> Console:
    return Console(file=io.StringIO())


@pytest.fixture(scope="module")
def played(local_ray, tmp_path_factory):
    """A league of three turns each, and what it said."""
    console = quiet()
    path = tmp_path_factory.mktemp("league") / "run"
    return run_league(LEAGUE, job(path), console=console), LeagueFolder(path), console.file.getvalue()


def weights(folder: LeagueFolder) -> dict[str, np.ndarray]:
    """Of everybody."""
    return {
        f"{file.parent.name}/{name}": array
        for pattern in ("snapshots/*/model.safetensors", "policy/model.safetensors")
        for file in sorted(folder.path.glob(pattern))
        for name, array in load_file(file).items()
    }


def comparable(folder: LeagueFolder) -> dict:
    """The state without what is the clock's."""
    state = folder.read().to_dict()
    for learner in state["learners"]:
        learner.pop("train_seconds")
    return state


def test_players_train_in_turns_and_join_the_league(played):
    result, folder, said = played
    state = result.state
    assert result.stopped_by is StoppedBy.STEP_LIMIT
    assert {name: learner.env_steps for name, learner in state.learners.items()} == {
        "main": 1536,
        "main-exploiter-1": 1024,
    }
    assert [snapshot.name for snapshot in state.snapshots] == [
        "main.1",
        "main-exploiter-1.1",
        "main.2",
        "main-exploiter-1.2",
        "main.3",
    ]
    assert state.learners["main-exploiter-1"].checkpoint is None, "it began anew"
    assert state.learners["main-exploiter-1"].life_began == 1024
    assert state.payoff.counts.sum() > 0
    assert state.payoff.counts[:, :, Result.WIN].sum() == state.payoff.counts[:, :, Result.LOSS].sum()
    metadata = read_metadata(folder.snapshot("main.2"))
    assert (metadata["league"], metadata["env_steps"]) == ("main", 1024)
    assert "main-exploiter-1.1 joins the league after 512 steps; main-exploiter-1 begins anew" in said


def test_the_payoff_matrix_is_an_artefact(played):
    result, folder, _ = played
    written = json.loads((folder.path / "payoff.json").read_text())
    assert written == result.state.payoff.to_dict()
    assert written["names"] == result.state.payoff.names
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    image = Image.open(io.BytesIO(events.Images("payoff")[-1].encoded_image_string))
    np.testing.assert_array_equal(np.asarray(image), matrix_image(result.state.payoff))
    assert "main/worst_win_rate" in events.Tags()["scalars"]
    assert (folder.path / "players/main/tensorboard").is_dir()


def test_the_picture_is_the_matrix():
    payoff = Payoff(decay=1.0)
    for name in "ab":
        payoff.add_member(name)
    payoff.record("a", [Game("b", Result.WIN)])
    image = matrix_image(payoff)
    assert image.shape == (32, 32, 3)
    assert image[0, 31].tolist() == [0, 0, 255], "always won: blue"
    assert image[31, 0].tolist() == [255, 0, 0], "always lost: red"
    assert image[0, 0].tolist() == [191, 191, 191], "never met: grey"


def test_a_killed_league_goes_on_as_if_it_had_not_been(played, tmp_path, monkeypatch):
    """Killed thrice, where most is half done: the same draws, games, snapshots and weights come out."""
    folder = LeagueFolder(tmp_path / "run")
    plan = {
        ("training.league.folder.write_whole", 2): "before the first turn stands",
        ("training.league.job.save_policy", 2): "as a snapshot is written",
        ("training.rl.run_folder.whole_checkpoints", 9): "as a checkpoint is put in its place",
    }
    reached = []
    for name, calls in plan:
        module, function = name.rsplit(".", 1)
        original = getattr(__import__(module, fromlist=["_"]), function)
        left = [calls]

        def dying(*args, original=original, left=left, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise SystemExit
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(name, dying)
            resume = folder.path.exists()
            with pytest.raises(SystemExit):
                run_league(LEAGUE, job(folder.path, resume=resume), console=quiet())
        state = folder.read()
        reached.append(state.turn if state else 0)
    assert reached[0] == 0
    assert reached == sorted(reached)
    assert 0 < reached[-1] < 5
    run_league(LEAGUE, job(folder.path, resume=True), console=quiet())
    assert comparable(folder) == comparable(played[1])
    expected, found = weights(played[1]), weights(folder)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_what_a_killed_turn_left_is_removed(played, tmp_path):
    folder = LeagueFolder(tmp_path / "run")
    shutil.copytree(played[1].path, folder.path)
    state = folder.read()
    (folder.player("main").checkpoints / "step_000000009999").mkdir()
    folder.snapshot("main.4").mkdir()
    folder.remove_what_does_not_stand(state)
    assert {path.name for path in (folder.path / "snapshots").iterdir()} == {
        snapshot.name for snapshot in state.snapshots
    }
    assert folder.checkpoint(state.learners["main"]).is_dir()
    assert not (folder.player("main").checkpoints / "step_000000009999").exists()


def test_a_resumed_league_keeps_its_settings(played):
    folder = played[1]
    with pytest.raises(RunFolderError, match=r"opponents is 3.*has 2"):
        run_league(LeagueConfig(opponents=3), job(folder.path, resume=True))
    with pytest.raises(RunFolderError, match="--resume"):
        run_league(LEAGUE, job(folder.path))
    again = run_league(LeagueConfig(), TrainConfig(run_dir=folder.path, resume=True), console=quiet())
    assert again.state.turn == played[0].state.turn, "its budget is spent"


def test_bad_settings_leave_no_folder(tmp_path):
    for changes in ({"scenario": "3s_vs_5z"}, {"target_win_rate": 0.5}, {"model": "no_such"}):
        with pytest.raises(ValueError, match=r"symmetric|target|model"):
            run_league(LEAGUE, job(tmp_path / "run", **changes))
        assert not (tmp_path / "run").exists()


def test_a_state_that_cannot_be_read_is_refused(tmp_path):
    folder = LeagueFolder(tmp_path)
    RunFolder(tmp_path).write_settings(job(tmp_path))
    for content in ("{", "[]", '{"turn": 1}'):
        (tmp_path / training.league.folder.STATE).write_text(content)
        with pytest.raises(RunFolderError, match="cannot be gone on from"):
            folder.read()


def test_the_report(played, capsys):
    folder = played[1]
    assert cli.main(["league", "report", str(folder.path), "--anchor", "main"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "main = 1000" in shown
    assert f"perceiver-policy ladder --agents attack-move scripted:hold {folder.snapshot('main.1')}" in shown
    assert Image.open(folder.path / "payoff.png").size[0] > 300


def test_a_report_on_nothing_is_refused(tmp_path, capsys):
    for arguments in (["report", str(tmp_path)], ["train", str(tmp_path)], ["--scenario", "3s_vs_5z"]):
        with pytest.raises(SystemExit) as left:
            cli.main(["league", *arguments])
        assert left.value.code == 2
    assert "not symmetric" in capsys.readouterr().err
