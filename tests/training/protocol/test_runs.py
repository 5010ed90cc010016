"""Which algorithm, scenario and seed a folder is of."""

import pytest

from training.protocol.experiment import experiment_jobs, note_algorithms, noted_algorithms
from training.protocol.runs import RunsError, read_runs
from training.rl.run_folder import RunFolder
from training.suite.recipes import group_recipe


def test_algorithms_are_named_by_what_differs(make_run, tmp_path):
    for seed in (0, 1):
        make_run(f"a{seed}", seed=seed, gamma=0.99, max_env_steps=1000 + seed)
        make_run(f"b{seed}", seed=seed, gamma=0.99, model_overrides=("sight=time",))
    make_run("c", gamma=0.99, clip=0.1, scenario="8m")
    runs = read_runs([str(tmp_path)])
    tiny = "encoder.num_latents=2 encoder.num_latent_channels=8 unit_input.num_channels=8"
    assert [(run.algorithm, run.scenario, run.config.seed) for run in runs] == [
        (f"ppo {tiny}", "3m", 0),
        (f"ppo {tiny}", "3m", 1),
        (f"ppo {tiny} sight=time", "3m", 0),
        (f"ppo {tiny} sight=time", "3m", 1),
        (f"ppo {tiny} clip=0.1", "8m", 0),
    ]
    assert [run.open_loop for run in runs] == [False, False, True, True, False]


def test_runs_alike_are_called_by_the_algorithm(make_run):
    folders = [str(make_run(f"seed{seed}", seed=seed, gamma=0.9)) for seed in (0, 1)]
    assert {run.algorithm for run in read_runs(folders)} == {"ppo"}


def test_where_a_run_was_computed_makes_no_algorithm(make_run):
    elsewhere = {"num_env_runners": 2, "num_learners": 2, "num_cpus_per_env_runner": 2, "ray_address": "auto"}
    folders = [str(make_run("here")), str(make_run("there", seed=1, **elsewhere))]
    assert {run.algorithm for run in read_runs(folders)} == {"ppo"}


def test_a_run_on_a_mixture_is_refused_by_its_folder(make_run):
    mixture = make_run("a", wins=(), scenario=("3m", "8m"))
    with pytest.raises(RunsError, match=r"a was trained on 2 scenarios.*evaluate"):
        read_runs([str(mixture)])


def test_a_name_given_counts_more(make_run, tmp_path):
    make_run("a"), make_run("b")
    runs = read_runs([f"first={tmp_path / 'a'}", f"second={tmp_path / 'b'}"])
    assert [run.algorithm for run in runs] == ["first", "second"]


def test_two_of_the_same_are_refused(make_run, tmp_path):
    make_run("a"), make_run("b")
    with pytest.raises(RunsError, match=r"a and .*b are both ppo on 3m, seed 0; .*NAME=.*b"):
        read_runs([str(tmp_path)])


def test_what_is_no_run_is_refused(make_run, tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(RunsError, match="holds no run"):
            read_runs([str(folder)])
    run = make_run("a")
    (run / "policy").rename(run / "no_policy")
    with pytest.raises(RunsError, match="no policy yet"):
        read_runs([str(run)])
    with pytest.raises(RunsError, match="no commas"):
        read_runs([f"a,b={run}"])


def test_the_curve_leaves_out_what_was_only_to_confirm(make_run):
    path = make_run("a", wins=(2, 9))
    folder = RunFolder(path)
    point = folder.evaluations.points()[0]
    folder.evaluations.add(point.result, env_steps=2000, train_seconds=2.0)
    (run,) = read_runs([str(path)])
    assert [(point.env_steps, point.result.wins) for point in run.points] == [(1000, 2), (2000, 9)]


# Experiments


def test_an_experiment_is_every_algorithm_scenario_and_seed():
    jobs = experiment_jobs(
        ["ppo", "blind:model_overrides=[sight=time];gamma=0.9"],
        ["3m", "8m@smac"],
        2,
        changes=["max_env_steps=100", "gamma=0.95"],
    )
    assert [job.name for job in jobs["blind"]] == [
        "blind_3m_seed0",
        "blind_3m_seed1",
        "blind_8m@smac_seed0",
        "blind_8m@smac_seed1",
    ]
    configs = [job.config for job in jobs["blind"]]
    assert [config.seed for config in configs] == [0, 1, 0, 1]
    assert {config.model_overrides for config in configs} == {("sight=time",)}
    assert {(config.gamma, config.max_env_steps) for config in configs} == {(0.9, 100)}
    assert {job.config.gamma for job in jobs["ppo"]} == {0.95}


def test_an_experiment_takes_a_recipe_but_no_weights():
    (job,) = experiment_jobs(["ppo"], ["25m"], 1, recipe=group_recipe("smac"))["ppo"]
    assert job.config.init_from is None
    assert job.config.max_env_steps == group_recipe("smac").scenarios["25m"]["max_env_steps"]


def test_a_wrong_experiment_is_refused():
    for algorithms, scenarios, seeds, message in (
        ([], ["3m"], 1, "algorithms are"),
        (["a"], ["3m", "3m"], 1, "each once"),
        (["a"], ["3m"], 0, "seeds is 0"),
        (["a:gamma=0.9", "a:gamma=0.8"], ["3m"], 1, "a name of its own"),
        (["a:gama=0.9"], ["3m"], 1, "did you mean gamma"),
        (["a:gamma=2"], ["3m"], 1, "gamma is 2"),
        (["a"], ["4m"], 1, "4m"),
    ):
        with pytest.raises(ValueError, match=message):
            experiment_jobs(algorithms, scenarios, seeds)


def test_a_folder_remembers_the_algorithms(make_run, tmp_path):
    jobs = experiment_jobs(["one", "two:gamma=0.9"], ["3m"], 1)
    assert noted_algorithms(tmp_path) == {}
    note_algorithms(tmp_path, jobs)
    note_algorithms(tmp_path, experiment_jobs(["three"], ["3m"], 1))
    for job in [*jobs["one"], *jobs["two"]]:
        make_run(job.name, gamma=job.config.gamma)
    assert [run.algorithm for run in read_runs([str(tmp_path)])] == ["one", "two"]
    assert read_runs([f"mine={tmp_path / 'one_3m_seed0'}"])[0].algorithm == "mine"
    (tmp_path / "experiment.json").write_text("[]")
    with pytest.raises(ValueError, match="does not tell the algorithms"):
        read_runs([str(tmp_path)])
