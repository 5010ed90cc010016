"""A Perceiver IO as RLModule for any observation space: Gymnasium tasks, with a core from anywhere.

    config = PPOConfig().environment("CartPole-v1").rl_module(
        rl_module_spec=RLModuleSpec(module_class=PerceiverTorsoRLModule)
    )

Every part of an observation is a modality of the input (:mod:`perceiver_policy.spaces`); policy and value are
two queries of the decoder; RLlib's own distributions are made from the answer to the first::

    observation → modalities → tokens → encoder → latents ┐
                            "policy", "value" queries  →  → decoder → MLPs → logits, value

Action spaces: Discrete (categorical), MultiDiscrete (one categorical for each entry) and Box (diagonal
Gaussian; RLlib's connectors scale and clip to the bounds).

``model_config`` takes the fields of :class:`~perceiver_policy.torso_config.TorsoConfig`. With ``core``, the
encoder's configuration is that of the core unless ``encoder`` says something else::

    model_config = {"core": "runs/3m/policy", "freeze": ["blocks"]}

It serves PPO, IMPALA and APPO. The model is a plain :class:`~perceiver_policy.model.PerceiverIO`:
``module.model.save_pretrained("model/")`` is a core for others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import gymnasium as gym
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchMultiCategorical,
)
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis import (
    TARGET_NETWORK_ACTION_DIST_INPUTS,
    InferenceOnlyAPI,
    TargetNetworkAPI,
    ValueFunctionAPI,
)
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.typing import NetworkType
from torch import Tensor

from perceiver_policy.attention import MLP
from perceiver_policy.heads.multitask import MultitaskHead
from perceiver_policy.model import PerceiverIO
from perceiver_policy.queries.task import TaskQuery
from perceiver_policy.rl_module import ADDED_BY_RLLIB
from perceiver_policy.spaces import SpaceError, SpaceInput
from perceiver_policy.torso_config import POLICY, VALUE, TorsoConfig
from perceiver_policy.transfer_core import Taken, freeze, load_core, read_core


class PerceiverTorsoRLModule(TorchRLModule, ValueFunctionAPI, TargetNetworkAPI, InferenceOnlyAPI):
    """See the module's docstring.

    Attributes:
        read: observations to the model's inputs.
        model: the network, the thing to export.
        taken: what of a core was taken; None without.
    """

    read: SpaceInput
    model: PerceiverIO
    taken: Taken | None

    def setup(self) -> None:
        """Build the model from the spaces and ``model_config``, and take its core.

        Raises:
            SpaceError: a part of the observation space has no modality, or the action space no distribution.
            ConfigError: ``model_config`` has an unknown key or a value that is not allowed.
            CoreError: there is no core where ``core`` says, or it does not fit.
        """
        given = self.model_config or {}
        fields = {key: value for key, value in given.items() if key not in ADDED_BY_RLLIB}
        core = read_core(fields["core"]) if fields.get("core") is not None else None
        if core is not None:
            fields.setdefault("encoder", core.encoder)
        self._config = TorsoConfig.from_dict(fields)
        self.action_dist_cls, num_policy_outputs = _distribution(self.action_space)
        self.read = SpaceInput(self.observation_space, self._config.input)
        self.model = PerceiverIO(self._config.model(self.read.config, num_policy_outputs))
        assert isinstance(self.model.head, MultitaskHead)
        last = cast(MLP, self.model.head.mlps[POLICY]).last
        with torch.no_grad():
            last.weight.mul_(self._config.initial_policy_scale)
            last.bias.zero_()
        self.taken = None if core is None else load_core(self.model, core, self._config.core_parts)
        freeze(self.model, self._config.freeze)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What a checkpoint makes the module from again: its sizes, not the core's folder, which may be gone
        and whose weights the checkpoint has."""
        args, kwargs = super().get_ctor_args_and_kwargs()
        return args, kwargs | {"model_config": self._config.to_dict() | {"core": None}}

    @torch.no_grad()
    def _forward(self, batch: Mapping[str, Any], **_: Any) -> dict[str, Tensor]:
        return {Columns.ACTION_DIST_INPUTS: self._ask(self.model, batch, POLICY)[POLICY]}

    def _forward_train(self, batch: Mapping[str, Any], **_: Any) -> dict[str, Tensor]:
        answers = self._ask(self.model, batch, POLICY, VALUE)
        return {
            Columns.ACTION_DIST_INPUTS: answers[POLICY],
            Columns.EMBEDDINGS: answers[VALUE].squeeze(-1),
        }

    def compute_values(self, batch: Mapping[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """Values of the observations in ``batch``.

        Args:
            batch: holds the observations (B, ...).
            embeddings: what ``_forward_train`` gave as such, the values themselves.

        Returns:
            (B,).
        """
        if embeddings is not None:
            return embeddings
        return self._ask(self.model, batch, VALUE)[VALUE].squeeze(-1)

    def make_target_networks(self) -> None:
        """Copy the model. APPO's learner asks for it, and lets the copy lag behind."""
        self._target_model = make_target_network(self.model)

    def get_target_network_pairs(self) -> list[tuple[NetworkType, NetworkType]]:
        """The model and its copy."""
        return [(self.model, self._target_model)]

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The copy's inputs of the distribution, (B, ...)."""
        return {TARGET_NETWORK_ACTION_DIST_INPUTS: self._ask(self._target_model, batch, POLICY)[POLICY]}

    def get_non_inference_attributes(self) -> list[str]:
        """The copy: modules that only act receive and keep none."""
        return ["_target_model"]

    def _ask(self, model: PerceiverIO, batch: Mapping[str, Any], *tasks: str) -> dict[str, Tensor]:
        """The answers to some of the questions, (B, n) each."""
        assert isinstance(model.query, TaskQuery)
        index = None if len(tasks) == len(model.query.tasks) else model.query.index(*tasks)
        answers = model(self.read(batch[Columns.OBS]), index=index)
        assert isinstance(answers, dict)
        return answers


def _distribution(space: gym.Space) -> tuple[Any, int]:
    """RLlib's class of distributions over an action space, and how many inputs it takes.

    Raises:
        SpaceError: there is none that this module serves.
    """
    match space:
        case gym.spaces.Discrete(start=0):
            return TorchCategorical, int(space.n)
        case gym.spaces.MultiDiscrete() if space.nvec.ndim == 1 and not space.start.any():
            sizes = [int(n) for n in space.nvec]
            return TorchMultiCategorical.get_partial_dist_cls(space=space, input_lens=sizes), sum(sizes)
        case gym.spaces.Box() if len(space.shape) == 1:
            return TorchDiagGaussian, TorchDiagGaussian.required_input_dim(space)
    raise SpaceError(
        f"the action space is {space}; PerceiverTorsoRLModule serves Discrete and MultiDiscrete of one axis, "
        "both from 0 on, and Box of one axis: bring it to one of these with "
        "gymnasium.wrappers.TransformAction"
    )
