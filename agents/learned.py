"""An exported policy as an agent, for any program::

    agent = LearnedAgent("runs/3m/policy")
    orders = agent.act(observation)  # one battle's observation, or a batch of them

It needs torch and numpy, and never imports ray.
"""

from __future__ import annotations

from pathlib import Path

import torch
from numpy.typing import NDArray

from agents.base import Observation, Orders
from agents.box import BOXED, boxed_policy
from envs.unit_set import NUM_SCALARS, NUM_TARGET_VERBS, NUM_UNIT_FEATURES, NUM_VERBS, SCALARS
from envs.units import num_unit_types
from perceiver_policy.policy import ACTOR_KEYS, UnitSetPolicy
from perceiver_policy.policy_config import UnitSetPolicyConfig
from perceiver_policy.pretrained import ExportError, load_policy

UNITS_TOGETHER = 4096
"""Units of all observations in one forward pass: what then passes between layers stays within the caches."""


_ELAPSED = next(column for column, feature in enumerate(SCALARS) if feature.name == "elapsed")


class LearnedAgent:
    """Acts by a policy; leaves torch's threads and its global random state alone.

    A policy with memory remembers each battle from step to step, by its place in the observation, and forgets
    it where a battle begins, which is where no time has elapsed.

    Args:
        policy: an export's directory, or a policy in memory.
        deterministic: the likeliest orders, instead of drawn ones.
        seed: of the draws.
        name: what results call it; default: the directory.
        device: where the policy runs; one in memory is moved there.

    Raises:
        ExportError: the directory holds no policy that can be loaded, or the policy, an export's or one in
            memory, is for observations of other sizes than these environments give.
    """

    def __init__(
        self,
        policy: str | Path | UnitSetPolicy,
        *,
        deterministic: bool = True,
        seed: int = 0,
        name: str | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if isinstance(policy, UnitSetPolicy):
            self.policy = policy.to(device)
            self.name = name or "policy"
        else:
            self.policy = load_policy(policy, device=device)
            self.name = name or str(policy)
        _require_contract(self.policy.config, self.name)
        self.deterministic = deterministic
        self.remembers = self.policy.config.memory
        self._device = torch.device(device)
        self._generator = torch.Generator(device=self._device)
        self.reset(seed)

    @classmethod
    def from_name(cls, name: str, *, deterministic: bool = True, seed: int = 0) -> LearnedAgent:
        """A policy that comes with the package, by its name in :mod:`agents.box`.

        Raises:
            ValueError: there is none of that name.
        """
        return cls(boxed_policy(name), deterministic=deterministic, seed=seed, name=BOXED + name)

    def reset(self, seed: int) -> None:
        """Forget all battles and draw from ``seed`` from now on."""
        self._generator.manual_seed(seed % 2**64)
        self._state: torch.Tensor | None = None

    @torch.inference_mode()
    def act(self, observation: Observation) -> Orders:
        """Orders (..., A, 2) for an observation with leading dimensions (...), none included.

        Raises:
            ValueError: the policy has memory, and there are more or fewer battles than at the step before.
        """
        leading = observation["controlled_mask"].shape[:-1]
        rows = {key: self._rows(observation[key], len(leading)) for key in ACTOR_KEYS}
        count, num_units = rows["unit_mask"].shape
        together = max(UNITS_TOGETHER // num_units, 1)
        state = self._remembered(rows["scalars"][:, _ELAPSED] == 0)
        answers = [
            self.policy.act(
                {key: tensor[start : start + together] for key, tensor in rows.items()},
                deterministic=self.deterministic,
                generator=self._generator,
                state=None if state is None else state[start : start + together],
            )
            for start in range(0, count, together)
        ]
        if state is not None:
            self._state = torch.cat([answer.state for answer in answers if answer.state is not None])
        return torch.cat([answer.orders for answer in answers]).cpu().numpy().reshape(*leading, -1, 2)

    def _remembered(self, begins: torch.Tensor) -> torch.Tensor | None:
        """The state of each battle, (B, N, D); ``begins`` (B,) bool says where there is none yet. None: no
        memory."""
        initial = self.policy.initial_state(len(begins))
        if initial is None or self._state is None or begins.all():
            return initial
        if len(self._state) != len(begins):
            raise ValueError(
                f"{self.name} has a memory of {len(self._state)} battles, and is shown {len(begins)}; show "
                "the same ones at every step, or call reset() to begin anew"
            )
        return torch.where(begins[:, None, None], initial, self._state)

    def _rows(self, array: NDArray, leading: int) -> torch.Tensor:
        """The array with all leading dimensions made one."""
        return torch.as_tensor(array.reshape(-1, *array.shape[leading:]), device=self._device)


def _require_contract(config: UnitSetPolicyConfig, name: str) -> None:
    """Raise :class:`ExportError` if a policy of this configuration cannot read the unit-set contract."""
    contract = {
        "num_unit_features": NUM_UNIT_FEATURES,
        "num_scalars": NUM_SCALARS,
        "num_verbs": NUM_VERBS,
        "num_target_verbs": NUM_TARGET_VERBS,
    }
    problems = [
        f"{key} {getattr(config, key)}, the environments have {size}"
        for key, size in contract.items()
        if getattr(config, key) != size
    ]
    if config.num_unit_types < num_unit_types():
        problems.append(
            f"num_unit_types {config.num_unit_types}, the environments have {num_unit_types()}: "
            "at least as many are needed"
        )
    if problems:
        raise ExportError(f"{name} is a policy for other observations: " + "; ".join(problems))
