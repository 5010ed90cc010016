"""A learner's guard: gradients are clipped, and one that is not finite stops training with its cause kept.

A step with such a gradient is not taken, so the weights stay what they were. What it was computed from waits
on the learner, every learner its own part, until the job fetches it (:mod:`training.rl.post_mortem`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.metrics import ALL_MODULES
from ray.rllib.utils.typing import ParamDict
from torch import Tensor

GRADIENT_NORM = "gradient_norm"


class NonFiniteGradientError(RuntimeError):
    """A gradient is infinite or no number; the step was not taken."""


@dataclass(frozen=True)
class Failure:
    """What one learner's gradient was computed from, on the CPU. Keys begin with the module's id."""

    learner: int
    weights: dict[str, Tensor]
    """Before the step, by ``module/name``."""
    minibatch: dict[str, Tensor]
    """By ``module/column``, in groups ``module/group/column``."""
    gradients: tuple[str, ...]
    """Parameters whose gradient is not finite; of several learners, the mean gradient."""
    entropy_coeff: dict[str, float]
    """By module, as its schedule had it."""


class FiniteGradients(TorchLearner):
    """Mix into a torch learner, before RLlib's class.

    Attributes:
        failure: what the step that failed was computed from; None as long as none did.
    """

    failure: Failure | None = None

    def _uncompiled_update(self, batch: dict[str, Any], **kwargs: Any) -> tuple[Any, Any, Any]:
        """RLlib's step, on a minibatch that is at hand should it fail."""
        self._minibatch = batch
        return super()._uncompiled_update(batch, **kwargs)

    def postprocess_gradients(self, gradients_dict: ParamDict) -> ParamDict:
        """Clip by global norm over all gradients in one go; other ways of clipping are RLlib's.

        Raises:
            NonFiniteGradientError: a gradient is not finite.
        """
        gradients = [gradient for gradient in gradients_dict.values() if gradient is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if not norm.isfinite():
            self.failure = self._failure(gradients_dict)
            raise NonFiniteGradientError(f"the norm of the gradient is {norm.item()}")
        if self.config.grad_clip is None or self.config.grad_clip_by != "global_norm":
            return super().postprocess_gradients(gradients_dict)
        torch.nn.utils.clip_grads_with_norm_(gradients_dict.keys(), self.config.grad_clip, norm, foreach=True)
        self.metrics.log_value((ALL_MODULES, GRADIENT_NORM), norm, window=1)
        return gradients_dict

    def _failure(self, gradients_dict: ParamDict) -> Failure:
        modules = {module_id: self.module[module_id].unwrapped() for module_id in self._minibatch}
        named = {
            f"{module_id}/{name}": parameter
            for module_id, module in modules.items()
            for name, parameter in module.named_parameters()
        }
        entropy = self.entropy_coeff_schedulers_per_module
        return Failure(
            learner=int(self._learner_index),
            weights=flat({module_id: module.state_dict() for module_id, module in modules.items()}),
            minibatch=flat(self._minibatch),
            gradients=tuple(
                name
                for name, parameter in named.items()
                if (gradient := gradients_dict.get(parameter)) is not None and not gradient.isfinite().all()
            ),
            entropy_coeff={key: float(entropy[key].get_current_value()) for key in modules},
        )


def flat(tensors: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Copies on the CPU of the tensors in nested mappings, by ``key/key``; what is no tensor is left out."""
    copies: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if isinstance(value, Tensor):
            copies[prefix + key] = value.detach().cpu().clone().contiguous()
        elif isinstance(value, Mapping):
            copies |= flat(value, f"{prefix}{key}/")
    return copies


def nested(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The reverse of :func:`flat`."""
    groups: dict[str, Any] = {}
    for path, tensor in tensors.items():
        *parents, key = path.split("/")
        place = groups
        for parent in parents:
            place = place.setdefault(parent, {})
        place[key] = tensor
    return groups
