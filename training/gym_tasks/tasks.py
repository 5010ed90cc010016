"""The tasks: an environment, how PPO is set for it, and two networks of about equal size."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

MOST_STEPS = 1000
"""An episode of MinAtar's ends here: a perfect one would have no end."""


@dataclass(frozen=True)
class Task:
    """A task and its settings. PPO's are the same for both networks."""

    name: str
    env_id: str
    steps: int
    """Environment steps of training."""
    target: float
    """A mean return of training's last episodes that counts as solved."""
    ppo: Mapping[str, Any]
    """What differs from RLlib's defaults, as arguments of ``PPOConfig.training``."""
    torso: Mapping[str, Any] = field(default_factory=dict)
    """``model_config`` of our module."""
    rllib: Mapping[str, Any] = field(default_factory=dict)
    """``model_config`` of RLlib's default module."""
    num_envs: int = 16

    def make(self, _: Any = None) -> gym.Env:
        """An environment; RLlib passes its context.

        Raises:
            TaskError: the package it is from is not installed.
        """
        if not self.env_id.startswith("MinAtar/"):
            return gym.make(self.env_id)
        if importlib.util.find_spec("minatar") is None:
            raise TaskError(f"{self.env_id} needs the package minatar: pip install 'perceiver-policy[gym]'")
        from minatar.gym import BaseEnv

        game = self.env_id.removeprefix("MinAtar/").lower()
        env: gym.Env = gym.wrappers.TimeLimit(BaseEnv(game, use_minimal_action_set=True), MOST_STEPS)
        # RLlib's convolutions take no bool.
        space = gym.spaces.Box(0.0, 1.0, env.observation_space.shape, np.float32)
        return gym.wrappers.TransformObservation(env, lambda image: image.astype(np.float32), space)


class TaskError(RuntimeError):
    """A task that cannot be played here; the message says what is missing."""


def _falling(rate: float, steps: int) -> list[list[float]]:
    """A learning rate that falls to 0 in so many steps, as RLlib takes it: what is learned then stays."""
    return [[0, rate], [steps, 0.0]]


_PPO: dict[str, Any] = {
    "use_kl_loss": False,
    "clip_param": 0.2,
    "vf_clip_param": float("inf"),
    "grad_clip": 0.5,
}

_FEW_LATENTS = {
    "num_latents": 4,
    "num_latent_channels": 64,
    "num_cross_attention_heads": 4,
    "num_self_attention_heads": 4,
}

CARTPOLE = Task(
    name="cartpole",
    env_id="CartPole-v1",
    steps=50_000,
    target=475.0,
    ppo=_PPO
    | {
        "lr": _falling(5e-4, 50_000),
        "gamma": 0.98,
        "lambda_": 0.9,
        "vf_loss_coeff": 0.01,
        "train_batch_size_per_learner": 1024,
        "minibatch_size": 128,
        "num_epochs": 6,
    },
)
BREAKOUT = Task(
    name="minatar_breakout",
    env_id="MinAtar/Breakout",
    steps=120_000,
    target=2.0,
    num_envs=32,
    # Patches of 2 x 2 pixels: a quarter of the tokens.
    torso={"input": {"most_image_tokens": 25}, "encoder": _FEW_LATENTS},
    rllib={"head_fcnet_hiddens": [128]},  # after its convolutions for 10 x 10 pixels
    ppo=_PPO
    | {
        "lr": _falling(7e-4, 120_000),
        "gamma": 0.99,
        "lambda_": 0.95,
        "vf_loss_coeff": 0.25,
        "entropy_coeff": 0.01,
        "train_batch_size_per_learner": 2048,
        "minibatch_size": 256,
        "num_epochs": 3,
    },
)
TASKS = {task.name: task for task in (CARTPOLE, BREAKOUT)}
