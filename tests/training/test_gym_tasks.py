"""Gymnasium tasks: both networks are trained alike, and what is said of them is what came out."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec

from perceiver_policy.rl_torso import PerceiverTorsoRLModule
from training.benchmark.torso import rows
from training.gym_tasks.learning import Learned, config_for, learn, play
from training.gym_tasks.tasks import BREAKOUT, CARTPOLE, TASKS, TaskError
from training.rl.local_ray import local_ray


class Fixed:
    """Acts as a function of the observation says."""

    def __init__(self, choose: Any) -> None:
        self.choose = choose

    def forward_inference(self, batch: dict[str, Any]) -> dict[str, Any]:
        actions = torch.as_tensor(self.choose(batch[Columns.OBS])).long()
        return {Columns.ACTION_DIST_INPUTS: torch.nn.functional.one_hot(actions, 2).float()}


def test_play_counts_one_episode_of_each() -> None:
    """Against episodes played one by one."""

    def lean(observations: Any) -> Any:
        return observations[..., 2] + observations[..., 3] > 0

    def alone(seed: int) -> float:
        env = gym.make("CartPole-v1")
        observation, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            observation, reward, ended, stopped, _ = env.step(int(lean(observation)))
            total, over = total + float(reward), ended or stopped
        return total

    returns = play(CARTPOLE, Fixed(lean), seed=7, num_games=3)  # type: ignore[arg-type]
    assert returns.tolist() == [alone(seed) for seed in (7, 8, 9)]
    worst = play(CARTPOLE, Fixed(lambda o: o[:, 2] < 0), seed=7, num_games=3)  # type: ignore[arg-type]
    assert worst.max() < 12


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_both_networks_are_trained_alike(task: Any) -> None:
    ours, rllib = (config_for(task, torso=torso, seed=3).to_dict() for torso in (True, False))
    network = {"_rl_module_spec", "_model_config"}
    differing = {key for key in ours if key not in network and str(ours[key]) != str(rllib[key])}
    assert not differing
    assert (ours["seed"], ours["lr"]) == (3, task.ppo["lr"])


def test_the_image_task_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(TaskError, match=r"minatar: pip install 'perceiver-policy\[gym\]'"):
        BREAKOUT.make()


def test_the_image_task_gives_numbers() -> None:
    pytest.importorskip("minatar")
    env = BREAKOUT.make()
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation.dtype == np.float32
    assert set(np.unique(observation)) == {0.0, 1.0}


def test_rows_say_which_side_is_better() -> None:
    ours = [Learned((500.0, 400.0), 10_000, True, 20.0, 100)]
    rllib = [Learned((300.0,), 20_000, False, 10.0, 100)]
    by_name = {row.name: row for row in rows(CARTPOLE, ours, rllib, "command")}
    ratios = {name.removeprefix("torso/cartpole/"): row.ratio for name, row in by_name.items()}
    assert ratios == {"return": 1.5, "steps_to_475": 2.0, "training": 0.5, "weights": 1.0}
    rival = by_name["torso/cartpole/steps_to_475"].rival_name
    assert rival is not None
    assert rival.endswith("reached by 1 of 1 seeds, and 0 there")


@pytest.mark.slow
def test_learning_is_measured() -> None:
    """A short training of each: what is learned is better than what it began with."""
    task = replace(CARTPOLE, steps=4_000, target=35.0)
    with local_ray(num_cpus=1):
        for torso in (True, False):
            learned = learn(task, torso=torso, seed=0)
            assert np.mean(learned.returns) > 40  # a random policy has 22
            assert learned.reached
            assert learned.steps_to_target < 6_000
            assert 110_000 < learned.num_weights < 140_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "algorithm",
    [
        partial(PPOConfig().training, minibatch_size=100, num_epochs=1),
        APPOConfig().training,
        IMPALAConfig().training,
    ],
    ids=["PPO", "APPO", "IMPALA"],
)
def test_the_torso_in_a_job_of_several_processes(algorithm: Any, tmp_path: Path) -> None:
    """As a plain user has it, and back from disk: whole, and as a module without Ray."""
    config = (
        algorithm(train_batch_size_per_learner=200)
        .environment("CartPole-v1")
        .env_runners(num_env_runners=1, num_envs_per_env_runner=2)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=PerceiverTorsoRLModule))
    )

    def weights(job: Algorithm) -> dict[str, Any]:
        state: dict[str, Any] = job.learner_group.get_state()["learner"]["rl_module"][DEFAULT_MODULE_ID]
        return state

    with local_ray(num_cpus=3), ExitStack() as stopping:
        job = config.build_algo()
        stopping.callback(job.stop)
        untrained = weights(job)
        while not job.train().get("learners", {}).get(DEFAULT_MODULE_ID):
            pass  # asynchronous ones learn when enough has come in
        job.save_to_path(tmp_path / "job")
        restored = Algorithm.from_checkpoint(tmp_path / "job")
        stopping.callback(restored.stop)
        again = weights(restored)
    assert not np.array_equal(again["model.query.query"], untrained["model.query.query"])
    module = RLModule.from_checkpoint(tmp_path / "job/learner_group/learner/rl_module" / DEFAULT_MODULE_ID)
    saved = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    assert saved.keys() == again.keys()
    for name, expected in saved.items():
        np.testing.assert_array_equal(again[name], expected)
