"""One training of one network on one task, by RLlib's stock PPO, and how good what it learned is."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EPISODE_RETURN_MEAN, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.registry import register_env

from perceiver_policy.rl_torso import PerceiverTorsoRLModule
from training.gym_tasks.tasks import Task

NUM_GAMES = 32
"""Fresh episodes that what was learned is tried on."""
UNSEEN = 1_000_000
"""Added to a training's seed it is that of the first of these."""


@dataclass(frozen=True)
class Learned:
    """What came of a training."""

    returns: tuple[float, ...]
    """Of fresh episodes, with the likeliest action."""
    steps_to_target: int
    """Environment steps until RLlib's mean return of the last episodes was at the target; all of them if it
    never was."""
    reached: bool
    seconds: float
    """Of a core, which counts what this process computed and not what others did meanwhile."""
    num_weights: int


def config_for(task: Task, *, torso: bool, seed: int) -> PPOConfig:
    """RLlib's PPO for a task, in this process, with our module or RLlib's own."""
    name = f"perceiver_policy/{task.name}"
    register_env(name, task.make)
    config = (
        PPOConfig()
        .environment(name)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=task.num_envs)
        .training(**task.ppo)
        .debugging(seed=seed)
    )
    if not torso:
        return config.rl_module(model_config=dict(task.rllib))
    spec = RLModuleSpec(module_class=PerceiverTorsoRLModule, model_config=dict(task.torso))
    return config.rl_module(rl_module_spec=spec)


def learn(task: Task, *, torso: bool, seed: int) -> Learned:
    """Train, and try what was learned. Needs a running Ray, see :func:`~training.rl.local_ray.local_ray`.

    Args:
        task: what.
        torso: our module; else RLlib's own.
        seed: of the environments, the weights and the actions; fresh episodes have others.
    """
    algorithm = config_for(task, torso=torso, seed=seed).build_algo()
    try:
        steps, reached_at, began = 0, None, time.process_time()
        while steps < task.steps:
            results = algorithm.train()[ENV_RUNNER_RESULTS]
            steps = int(results[NUM_ENV_STEPS_SAMPLED_LIFETIME])
            # No episode has ended before the first return.
            if reached_at is None and results.get(EPISODE_RETURN_MEAN, -math.inf) >= task.target:
                reached_at = steps
        seconds = time.process_time() - began
        module = algorithm.get_module()
        # The learner's: the module that acts may go without a critic.
        learner = algorithm.learner_group.get_state(components="learner/rl_module")["learner"]
        num_weights = sum(array.size for array in learner["rl_module"][DEFAULT_MODULE_ID].values())
        returns = play(task, module, seed=UNSEEN + seed)
        return Learned(tuple(returns), reached_at or steps, reached_at is not None, seconds, num_weights)
    finally:
        algorithm.stop()
        with contextlib.suppress(OSError):  # empty, unless a callback wrote something
            Path(algorithm.logdir).rmdir()


def play(task: Task, module: RLModule, *, seed: int, num_games: int = NUM_GAMES) -> NDArray[np.float64]:
    """Returns of fresh episodes, (num_games,), with the likeliest action.

    Args:
        task: with actions of a Discrete space.
        module: acts on observations as the environment gives them.
        seed: of the first; the others follow.
        num_games: how many.
    """
    envs: gym.vector.VectorEnv = gym.vector.SyncVectorEnv([task.make] * num_games)
    try:
        observations, _ = envs.reset(seed=seed)
        returns, playing = np.zeros(num_games), np.ones(num_games, bool)
        while playing.any():
            batch = {Columns.OBS: torch.from_numpy(observations)}
            logits = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
            observations, rewards, ended, stopped, _ = envs.step(logits.argmax(-1).numpy())
            returns += rewards * playing
            playing &= ~(ended | stopped)
        return returns
    finally:
        envs.close()
