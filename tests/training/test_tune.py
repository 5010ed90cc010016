"""The search: what is drawn, what is refused, what comes out; the search itself is among the slow ones."""

import json
import math

import pytest
import yaml

from training.cli import main
from training.commands.settings_file import job_from_file
from training.rl.config import TrainConfig
from training.rl.run_folder import RunFolder
from training.tune import Search, SearchSpace, _bundles, load_search, run_search

TINY_MODEL = ("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": (1e-2, 1e-3)}, "lr is 0.01 to 0.001; it must be LOW HIGH"),
        ({"clip": (0.0, 0.3)}, "clip is 0 to 0.3.*above 0"),
        ({"gamma": (0.9, 1.0)}, "gamma is up to 1; it must be below 1"),
        ({"num_epochs": ()}, "num_epochs is empty"),
    ],
)
def test_spaces_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "trials is 0; it must be at least 1"),
        ({"reduction_factor": 1}, "reduction_factor is 1; it must be at least 2"),
        ({"job": TrainConfig(max_env_steps=None)}, "max_env_steps is none"),
        ({"grace_env_steps": 300_001}, "grace_env_steps is 300001.*300000"),
        ({"space": SearchSpace(minibatch_size=(4096,))}, "minibatch_size is 4096"),
    ],
)
def test_searches_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Search(**{"job": TrainConfig()} | changes)


def test_what_is_drawn_lies_in_the_space_and_makes_a_job(tmp_path):
    space = SearchSpace(num_epochs=(2,), gamma=(0.97, 0.97))
    search = Search(TrainConfig(lr=4e-3, lr_end=2e-4), space)
    for _ in range(50):
        values = {name: sampler.sample() for name, sampler in space.samplers().items()}
        config = search.settings(values, tmp_path / "trial")
        assert space.lr[0] <= config.lr <= space.lr[1]
        assert config.lr_end == pytest.approx(config.lr / 20)
        assert config.entropy_coeff_end == pytest.approx(config.entropy_coeff / 10)
        assert config.gamma == pytest.approx(0.97)
        assert config.num_epochs == 2
        assert config.minibatch_size in space.minibatch_size
        steps = config.evaluation_interval * config.num_battles * config.rollout_steps
        assert steps == pytest.approx(search.evaluation_env_steps, abs=config.num_battles * 16)
        assert not config.resume
    RunFolder(tmp_path / "trial").write_settings(config)
    assert search.settings(values, tmp_path / "trial").resume, "a trial that had begun goes on"


def test_a_file_of_settings_is_the_default_and_options_win(tmp_path):
    file = tmp_path / "best.yaml"
    file.write_text(TrainConfig(lr=1e-3, num_epochs=5, run_dir=tmp_path / "old", resume=True).to_yaml())
    job = job_from_file(["--seed", "3", "--config", str(file)], TrainConfig())
    assert job == TrainConfig(lr=1e-3, num_epochs=5)
    assert job_from_file(["--lr", "1"], TrainConfig(seed=4)) == TrainConfig(seed=4)


def test_train_takes_a_file_of_settings(tmp_path, monkeypatch):
    file = tmp_path / "best.yaml"
    file.write_text(TrainConfig(lr=1e-3, num_epochs=5).to_yaml())
    ran = []
    monkeypatch.setattr("training.commands.train.run", lambda args: ran.append(args.job) or 0)
    assert main(["train", "--config", str(file), "--num-epochs", "4", "--run-dir", str(tmp_path / "x")]) == 0
    assert ran == [TrainConfig(lr=1e-3, num_epochs=4, run_dir=tmp_path / "x")]


@pytest.mark.parametrize("content", ["lr: 3", "a: [", "lr: wrong\nrun_dir: x"])
def test_a_wrong_file_of_settings_is_refused_in_one_line(tmp_path, capsys, content):
    (tmp_path / "bad.yaml").write_text(content)
    for command in ("train", "tune"):
        for file in ("bad.yaml", "missing.yaml"):
            with pytest.raises(SystemExit) as left:
                main([command, "--config", str(tmp_path / file)])
            assert left.value.code == 2
            error = capsys.readouterr().err
            assert error.startswith("error: ")
            assert error.count("\n") == 1
            assert file in error


def test_a_folder_without_a_search_is_not_gone_on_with(tmp_path):
    with pytest.raises(ValueError, match="holds no search"):
        load_search(tmp_path, concurrent=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_finds_settings_and_goes_on(tmp_path):
    job = TrainConfig(
        run_dir=tmp_path / "search",
        num_battles=16,
        minibatch_size=32,
        max_env_steps=512,
        evaluation_games=10,
        model_overrides=TINY_MODEL,
    )
    space = SearchSpace(minibatch_size=(32, 64), rollout_steps=(4, 8))
    search = Search(job, space, trials=3, grace_env_steps=128, reduction_factor=2, evaluation_env_steps=128)
    result = run_search(search)
    assert not result.interrupted
    assert [trial.state for trial in result.trials] == ["done"] * 3
    means = [trial.mean for trial in result.trials]
    assert means == sorted(means, reverse=True)
    assert max(trial.env_steps for trial in result.trials) == 512
    names = {path.name for path in (job.run_dir / "trials").iterdir() if path.is_dir()}
    assert names == {trial.name for trial in result.trials}
    stored = json.loads((job.run_dir / "results.json").read_text())
    assert [trial["name"] for trial in stored] == [trial.name for trial in result.trials]
    best = TrainConfig.load(result.best)
    assert best.lr == pytest.approx(result.trials[0].values["lr"])
    assert (best.max_env_steps, best.run_dir) == (512, TrainConfig.run_dir)
    assert yaml.safe_load(result.best.read_text())["resume"] is False

    again = run_search(Search(job), resume=True)
    assert again.trials == result.trials, "all were done"
    assert not any(math.isnan(trial.mean) for trial in again.trials)


def test_every_process_of_a_trial_has_its_place():
    job = {"num_battles": 128, "num_env_runners": 2, "num_cpus_per_env_runner": 2}
    runners = [{"CPU": 2}, {"CPU": 2}]
    assert _bundles(TrainConfig()) == [{"CPU": 1}]
    assert _bundles(TrainConfig(**job)) == [{"CPU": 1}, *runners]
    assert _bundles(TrainConfig(**job, num_learners=2)) == [{"CPU": 1}, *runners, {"CPU": 1}, {"CPU": 1}]
    on_gpu = TrainConfig(**job, num_learners=1, num_gpus_per_learner=1)
    assert _bundles(on_gpu) == [{"CPU": 1}, *runners, {"GPU": 1}]
    assert _bundles(TrainConfig(num_gpus_per_learner=0.5)) == [{"CPU": 1, "GPU": 0.5}]
