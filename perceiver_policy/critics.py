"""Critics of :class:`~perceiver_policy.policy.UnitSetPolicy`: from what the actor sees, or from everything.

Their values are in the units of the reward. Inside they may be normalised: the last layer gives
n = (V − μ) / σ, and V = σ n + μ. μ and σ, the buffers ``mean`` and ``std``, are 0 and 1 unless a training
job moves them with :meth:`ValueFunction.rescale`, which leaves every value as it was (PopArt: van Hasselt et
al. 2016, arXiv:1602.07714, section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from perceiver_policy.attention import MLP
from perceiver_policy.core import PerceiverDecoder, PerceiverEncoder
from perceiver_policy.inputs.unit_set import UnitSetInput
from perceiver_policy.policy_config import UnitSetPolicyConfig
from perceiver_policy.queries.learned import LearnedQuery, LearnedQueryConfig

STATE_KEYS = ("state_units", "state_unit_type", "state_unit_mask")


class ValueFunction(nn.Module):
    """A value head with the statistics it is normalised by.

    Weights saved before there were any lack the three buffers; they load as they were made, with mean 0,
    deviation 1 and no update.

    Attributes:
        mean: () float, μ, in the units of the reward.
        std: () float, σ, likewise, above 0.
        num_updates: () int64, how often the statistics were brought up to date.
    """

    mean: Tensor
    std: Tensor
    num_updates: Tensor

    def __init__(self, config: UnitSetPolicyConfig) -> None:
        super().__init__()
        num_channels = config.unit_input.num_channels
        self.query = LearnedQuery(LearnedQueryConfig(1, num_channels))
        self.head = MLP(num_channels, num_channels, 1, activation=config.order_head.activation)
        for name, buffer in self.initial_statistics().items():
            self.register_buffer(name, buffer)
        self.register_load_state_dict_pre_hook(_fill_in_statistics)

    @staticmethod
    def initial_statistics() -> dict[str, Tensor]:
        """The buffers of a value function that is not normalised."""
        return {
            "mean": torch.zeros(()),
            "std": torch.ones(()),
            "num_updates": torch.zeros((), dtype=torch.int64),
        }

    def normalize(self, values: Tensor) -> Tensor:
        """(V − μ) / σ of values or returns of any shape."""
        return (values - self.mean) / self.std

    @torch.no_grad()
    def rescale(self, mean: Tensor, std: Tensor) -> None:
        """Take new statistics () and change the last layer so that no value changes: w ← w σ / σ′ and
        b ← (σ b + μ − μ′) / σ′. Counts as an update."""
        last = cast(nn.Linear, self.head[-1])
        last.weight.mul_(self.std / std)
        last.bias.copy_((self.std * last.bias + self.mean - mean) / std)
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.num_updates.add_(1)

    def _value(self, answer: Tensor) -> Tensor:
        """(B,) float, in the units of the reward, from the answer (B, C) to the query."""
        return self.std * self.head(answer).squeeze(-1) + self.mean


class ObservationCritic(ValueFunction):
    """A value from the actor's own latents: one more query, and what becomes of the answer."""

    def forward(self, answer: Tensor) -> Tensor:
        """(B,) float from the answer (B, C) to the query."""
        return self._value(answer)


class StateCritic(ValueFunction):
    """A value from the full unit set, with weights of its own; the actor never meets it."""

    def __init__(self, config: UnitSetPolicyConfig) -> None:
        super().__init__(config)
        num_channels = config.unit_input.num_channels
        self.own_column = config.geometry.own
        self.unit_input = UnitSetInput.of_policy(config)
        self.encoder = PerceiverEncoder(config.encoder, num_channels)
        self.decoder = PerceiverDecoder(config.decoder, num_channels, config.encoder.num_latent_channels)

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """(B,) float from ``state_units``, ``state_unit_type``, ``state_unit_mask`` and ``scalars``.

        Raises:
            ValueError: a key is missing.
        """
        missing = [key for key in STATE_KEYS if key not in observation]
        if missing:
            raise ValueError(
                f"critic 'state' needs {missing}, which the observation lacks: "
                "let the environment add the state, or use critic 'observation'"
            )
        units, unit_type, unit_mask = (observation[key] for key in STATE_KEYS)
        own = ((units[..., self.own_column] > 0) & unit_mask).to(units.dtype)
        centre = torch.einsum("bu,buf->bf", own, units) / own.sum(1, keepdim=True).clamp_min(1)
        _, inputs, mask = self.unit_input(units, unit_type, unit_mask, observation["scalars"], centre)
        return self._value(self.decoder(self.query(), self.encoder(inputs, mask))[:, 0])


def _fill_in_statistics(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """A hook of ``load_state_dict``: the statistics of weights that were saved without any."""
    for name, buffer in cast(ValueFunction, module).initial_statistics().items():
        state_dict.setdefault(prefix + name, buffer)
