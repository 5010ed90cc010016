"""The RLlib adapter: :class:`~perceiver_policy.policy.UnitSetPolicy` as an RLModule of the new API stack.

Usable in anyone's algorithm config, on any environment whose spaces follow the unit-set contract::

    model_config = {"encoder": {"num_latents": 16}}
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=PerceiverRLModule, model_config=model_config))

It serves PPO, IMPALA and APPO: it has values and target networks. With ``memory: true`` the latents are its
state from step to step, and training unrolls sequences of ``max_seq_len`` steps (RLlib's key, 20 by default).
A batch then has time as its second dimension, or is flat: sequences of equal length, row after row, as many
as there are states, with :data:`BEGINS` to say where in a sequence a battle begins.

``model_config`` takes the fields of the policy's config; sizes that the spaces tell may be left out. Two more
keys belong to the adapter:

``per_unit_ratio`` (default False)
    How PPO's ratio is formed where an agent commands several units. False: one ratio for all the orders an
    agent gives in a step, log-probabilities and values are (B,), as stock RLlib expects. True: a ratio for
    each unit, log-probabilities, entropies and the values seen by the loss are (B, A); the learner connector
    must then provide advantages, value targets and the loss mask as (B, A) too.

``normalize_values`` (default False)
    Whether the learner is to keep statistics of the returns in the critic and to take the value loss of
    normalised values; :class:`training.rl.learner.OrderPPOLearner` does. What the module returns is in the
    units of the reward either way.

It samples orders itself (a target is drawn given the verb) and is teacher-forced in training: the logits of
the targets are those given the verb that was taken, so that a ratio with unchanged weights is exactly 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.distribution import Distribution
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

from perceiver_policy.heads import categorical
from perceiver_policy.heads.pointer import NO_TARGET
from perceiver_policy.policy import ACTOR_KEYS, PolicyOutput, UnitSetPolicy
from perceiver_policy.policy_config import UnitSetPolicyConfig

LATENTS = "latents"
"""What the state of a policy with memory is called."""
BEGINS = "begins"
"""Column of flat batches, (B,) bool: a battle begins here, and nothing from before it is remembered."""
ADDED_BY_RLLIB = ("vf_share_layers", "max_seq_len")
"""Keys that algorithms merge into every ``model_config`` and that mean nothing here."""


class OrderDistribution(Distribution):
    """The verb and, given the verb that was taken, the target of each of A units.

    Made from logits (..., A, V + U): V verb logits, then U target logits conditioned on the verb taken (all
    on row 0 where that verb has no target). Masked entries are -1e9.

    ``logp``, ``entropy`` and ``kl`` are (..., A) with ``per_unit``, else sums over the units, (...).

    The joint entropy of an order is H(v) + Σ_v p(v) H(t | v). ``entropy`` is H(v) + H(t | v taken), which
    costs one pass of the pointer instead of one for each verb. In value it is unbiased where v was drawn
    from p, that is on-policy; after some steps on the same data, v is from the older p. Its gradient is not
    the joint entropy's: it leaves out Σ_v ∇p(v) H(t | v), since the verb taken is a constant. An entropy
    bonus thus spreads the verbs, and the targets of a verb once taken, but does not reward p for choosing
    verbs whose targets are open. ``kl`` is estimated likewise, and its gradient lacks nothing where v was
    drawn from ``self`` and only ``other`` has one, as in PPO.
    """

    def __init__(self, logits: Tensor, *, num_verbs: int, num_target_verbs: int, per_unit: bool) -> None:
        super().__init__()
        self.logits = logits
        self._num_verbs = num_verbs
        self._first_target_verb = num_verbs - num_target_verbs
        self._per_unit = per_unit

    @classmethod
    def from_logits(
        cls,
        logits: Tensor,
        *,
        num_verbs: int,
        num_target_verbs: int,
        per_unit: bool = False,
        **_: Any,
    ) -> OrderDistribution:
        """The distribution over the orders that ``logits`` (..., A, V + U) describe."""
        return cls(logits, num_verbs=num_verbs, num_target_verbs=num_target_verbs, per_unit=per_unit)

    def logp(self, value: Tensor, **_: Any) -> Tensor:
        """Log-probability of orders (..., A, 2), integers of any width."""
        orders = value.long()
        verb = orders[..., 0]
        target = orders[..., 1].masked_fill(verb < self._first_target_verb, NO_TARGET)
        verb_logits, target_logits = self._parts
        verb_log_prob = categorical.log_prob_and_entropy(verb_logits, verb)[0]
        target_log_prob = categorical.log_prob_and_entropy(target_logits, target)[0]
        return self._reduce(verb_log_prob + target_log_prob)

    def entropy(self, **_: Any) -> Tensor:
        """Entropy of the verb plus that of the target given the verb taken; see the class on its gradient."""
        verb_logits, target_logits = self._parts
        return self._reduce(categorical.entropy(verb_logits) + categorical.entropy(target_logits))

    def kl(self, other: OrderDistribution, **_: Any) -> Tensor:
        """KL(self ‖ other), both conditioned on the same verbs taken."""
        pairs = zip(self._parts, other._parts, strict=True)
        verb, target = (categorical.kl_divergence(mine, others) for mine, others in pairs)
        return self._reduce(verb + target)

    def sample(self, **_: Any) -> NoReturn:
        """Refused: the logits hold the targets of one verb only, a pair drawn from them would be wrong.

        Raises:
            NotImplementedError: always; take the orders that the module's forward passes return.
        """
        raise NotImplementedError(
            "orders are not sampled from logits, whose targets belong to the verb already taken; "
            "take Columns.ACTIONS from PerceiverRLModule.forward_exploration() or forward_inference()"
        )

    rsample = sample

    @staticmethod
    def required_input_dim(space: gym.Space, **_: Any) -> int:
        """V + U for an action space (A, 2) of verb and target row."""
        assert isinstance(space, gym.spaces.MultiDiscrete)
        return int(space.nvec.reshape(-1, 2)[0].sum())

    @property
    def _parts(self) -> tuple[Tensor, Tensor]:
        """Logits of verbs (..., A, V) and of targets (..., A, U)."""
        return self.logits[..., : self._num_verbs], self.logits[..., self._num_verbs :]

    def _reduce(self, per_unit: Tensor) -> Tensor:
        return per_unit if self._per_unit else per_unit.sum(-1)


class PerceiverRLModule(TorchRLModule, ValueFunctionAPI, TargetNetworkAPI, InferenceOnlyAPI):
    """:class:`UnitSetPolicy` under RLlib; see the module's docstring.

    Attributes:
        policy: the network, the thing to export.
        per_unit_ratio: whether each unit has its own PPO ratio.
        normalize_values: whether the learner normalises values in its loss.
    """

    policy: UnitSetPolicy
    per_unit_ratio: bool
    normalize_values: bool

    def setup(self) -> None:
        """Build the policy from the spaces and ``model_config``.

        Raises:
            ValueError: the spaces do not follow the contract, ``model_config`` disagrees with them or has an
                unknown key.
        """
        given = self.model_config or {}
        fields = {key: value for key, value in given.items() if key not in ADDED_BY_RLLIB}
        self.per_unit_ratio = bool(fields.pop("per_unit_ratio", False))
        self.normalize_values = bool(fields.pop("normalize_values", False))
        config = policy_config(self.observation_space, self.action_space, fields)
        self.policy = self.make_policy(config)
        self.action_dist_cls = OrderDistribution.get_partial_dist_cls(
            num_verbs=config.num_verbs, num_target_verbs=config.num_target_verbs, per_unit=self.per_unit_ratio
        )

    def make_policy(self, config: UnitSetPolicyConfig) -> UnitSetPolicy:
        """The network for these sizes. Subclasses may return one with other layers inside."""
        return UnitSetPolicy(config)

    def get_initial_state(self) -> dict[str, Any]:
        """``latents`` (N, D) float32 of zeros with memory; empty, RLlib's sign for none, without."""
        state = self.policy.initial_state(1)
        return {} if state is None else {LATENTS: state[0].cpu().numpy()}

    def train(self, mode: bool = True) -> PerceiverRLModule:
        """As every module's, but free where nothing changes: RLlib asks before each forward pass."""
        return self if mode == self.training else super().train(mode)

    @torch.no_grad()
    def _forward_inference(self, batch: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        read = _Reading(self.policy, batch)
        taken = read.output.choose(deterministic=True)
        return {Columns.ACTIONS: read.by_step(taken.orders), **read.state_out()}

    @torch.no_grad()
    def _forward_exploration(self, batch: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        read = _Reading(self.policy, batch)
        taken = read.output.choose(deterministic=False)
        log_prob = taken.log_prob if self.per_unit_ratio else taken.log_prob.sum(-1)
        return {
            Columns.ACTIONS: read.by_step(taken.orders),
            Columns.ACTION_LOGP: read.by_step(log_prob),
            Columns.ACTION_DIST_INPUTS: read.by_step(torch.cat((taken.verb_logits, taken.target_logits), -1)),
            Columns.VF_PREDS: read.by_step(read.output.value),
            **read.state_out(),
        }

    def _forward_train(self, batch: Mapping[str, Any], **_: Any) -> dict[str, Tensor]:
        read = _Reading(self.policy, batch)
        return {
            Columns.ACTION_DIST_INPUTS: read.logits_given(batch[Columns.ACTIONS]),
            Columns.EMBEDDINGS: read.by_step(read.output.value),
        }

    def make_target_networks(self) -> None:
        """Copy the policy. APPO's learner asks for it, and lets the copy lag behind."""
        self._target_policy = make_target_network(self.policy)

    def get_target_network_pairs(self) -> list[tuple[NetworkType, NetworkType]]:
        """The policy and its copy."""
        return [(self.policy, self._target_policy)]

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The copy's logits (B, A, V + U) for the orders in ``batch``, teacher-forced as in training."""
        read = _Reading(self._target_policy, batch)
        return {TARGET_NETWORK_ACTION_DIST_INPUTS: read.logits_given(batch[Columns.ACTIONS])}

    def get_non_inference_attributes(self) -> list[str]:
        """The copy: modules that only act receive and keep none."""
        return ["_target_policy"]

    def compute_values(self, batch: Mapping[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """Values of the observations in ``batch``.

        Args:
            batch: holds the observations (B, ...).
            embeddings: what ``_forward_train`` gave as such, the values (B,) themselves: the loss passes it.

        Returns:
            (B,); with ``embeddings`` under ``per_unit_ratio`` (B, A), one copy a unit, to meet its targets.
        """
        if embeddings is None:
            steps = _Steps(self.policy, batch)
            return steps.by_step(self.policy.value(steps.observation, steps.state, **steps.time))
        if not self.per_unit_ratio:
            return embeddings
        return embeddings.unsqueeze(-1).expand(batch[Columns.OBS]["controlled_mask"].shape)


class _Steps:
    """A batch of RLlib as the policy takes it: where it has memory, (B, T, ...) becomes (B * T, ...)."""

    def __init__(self, policy: UnitSetPolicy, batch: Mapping[str, Any]) -> None:
        self.observation: Mapping[str, Tensor] = batch[Columns.OBS]
        self.sequences: tuple[int, int] | None = None
        self.state: Tensor | None = None
        self.time: dict[str, Any] = {}
        if not policy.config.memory:
            return
        self.state = batch[Columns.STATE_IN][LATENTS]
        self.flat = self.observation["controlled_mask"].ndim == 2
        if not self.flat:
            self.observation = {key: tensor.flatten(0, 1) for key, tensor in self.observation.items()}
        num_sequences = len(self.state)
        self.sequences = (num_sequences, len(self.observation["controlled_mask"]) // num_sequences)
        self.time = {"num_steps": self.sequences[1], "begins": batch.get(BEGINS)}

    def by_step(self, rows: Tensor) -> Tensor:
        """(B * T, ...) to (B, T, ...), if that is how the batch came."""
        return rows if self.sequences is None or self.flat else rows.unflatten(0, self.sequences)


class _Reading(_Steps):
    """A batch of RLlib, and what the policy makes of it."""

    def __init__(self, policy: UnitSetPolicy, batch: Mapping[str, Any]) -> None:
        super().__init__(policy, batch)
        self.output: PolicyOutput = policy(self.observation, self.state, **self.time)

    def state_out(self) -> dict[str, dict[str, Tensor]]:
        """The state after the last step; nothing without memory."""
        if self.sequences is None:
            return {}
        return {Columns.STATE_OUT: {LATENTS: self.output.latents.unflatten(0, self.sequences)[:, -1]}}

    def logits_given(self, orders: Tensor) -> Tensor:
        """(B, A, V + U) or (B, T, A, V + U): of verbs, and of targets given the verbs of ``orders``."""
        verbs = orders[..., 0].long().flatten(0, orders.ndim - 3)
        target_logits = self.output.target_logits(verbs)
        return self.by_step(torch.cat((self.output.verb_logits, target_logits), -1))


def policy_config(
    observation_space: gym.Space, action_space: gym.Space, fields: Mapping[str, Any]
) -> UnitSetPolicyConfig:
    """The config of a policy for these spaces.

    Args:
        observation_space: of the unit-set contract, unbatched.
        action_space: (A, 2), verb and target row.
        fields: fields of the config, nested as in its file. Sizes left out are taken from the spaces.

    Raises:
        ValueError: the spaces are not the contract's, or a size in ``fields`` is not theirs.
        ConfigError: a field is unknown or out of range.
    """
    spaces = getattr(observation_space, "spaces", {})
    missing = [key for key in ACTOR_KEYS if key not in spaces]
    if missing:
        raise ValueError(
            f"PerceiverRLModule needs a Dict observation space of the unit-set contract; missing: {missing}"
        )
    if not isinstance(action_space, gym.spaces.MultiDiscrete) or action_space.shape[-1:] != (2,):
        raise ValueError(
            f"PerceiverRLModule needs a MultiDiscrete action space (A, 2), verb and row; got {action_space}"
        )
    sizes = {
        "num_unit_features": spaces["units"].shape[-1],
        "num_scalars": spaces["scalars"].shape[-1],
        "num_verbs": spaces["verb_mask"].shape[-1],
        "num_target_verbs": spaces["target_mask"].shape[-2],
    }
    for name, size in sizes.items():
        if fields.get(name, size) != size:
            raise ValueError(f"model_config has {name} {fields[name]}, but the observation space has {size}")
    config = UnitSetPolicyConfig.from_dict({**fields, **sizes})
    num_unit_types = int(np.max(spaces["unit_type"].high)) + 1
    if num_unit_types > config.num_unit_types:
        raise ValueError(
            f"the observation space has {num_unit_types} unit types, the model {config.num_unit_types}; "
            "raise num_unit_types in model_config"
        )
    return config
