"""Other networks in the place of the Perceiver's encoder and decoder, with about as many weights.

All keep the policy's inputs (the same tokens of the units and the scalars), the queries with their geometry,
the heads and the critic. What differs is how a query's answer comes from the tokens:

``perceiver``
    Latents read the tokens, the queries read the latents.
``transformer``
    Layers of self-attention over the tokens, as wide as they are; the queries read the tokens, with the same
    decoder. As many layers as the Perceiver's encoder has.
``deep-sets``
    An MLP of each token, mean and maximum over the tokens (Zaheer et al. 2017, arXiv:1703.06114), and an MLP
    of query and pool together.
``mlp``
    An MLP of all tokens side by side, zeros where there is no unit, and an MLP of query and table together.
    It is of one number of rows: with other scenarios its weights have no meaning.

The last two are widened until they have as many weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from perceiver_policy.attention import MLP, AttentionLayer
from perceiver_policy.config import EncoderConfig
from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.policy_config import UnitSetPolicyConfig
from perceiver_policy.rl_module import PerceiverRLModule
from perceiver_policy.tokens import Tokens

TOLERANCE = 0.05
"""How far the numbers of weights may differ, as a part of the Perceiver's."""


def num_weights(module: nn.Module) -> int:
    """How many there are to learn."""
    return sum(parameter.numel() for parameter in module.parameters())


class TokenTransformer(nn.Module):
    """Self-attention among the tokens, each layer pre-norm with an MLP.

    Args:
        config: of the Perceiver's encoder, for its heads, layers and MLPs.
        num_channels: C, width of a token.
    """

    def __init__(self, config: EncoderConfig, num_channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            AttentionLayer(
                num_channels,
                num_heads=config.num_self_attention_heads,
                widening_factor=config.self_attention_widening_factor,
                activation=config.activation,
            )
            for _ in range(
                config.num_cross_attention_layers
                + config.num_blocks * config.num_self_attention_layers_per_block
            )
        )

    def forward(self, inputs: Tensor, mask: Tensor) -> Tokens:
        """Tokens (B, M, C) that have seen each other, with their mask, for a decoder to read."""
        for layer in self.layers:
            inputs = layer(inputs, None, mask)
        return Tokens(inputs, mask)


class PooledSet(nn.Module):
    """An MLP of each token, then mean and maximum over those that are there.

    Args:
        num_channels: C, width of a token.
        num_hidden_channels: H, of the MLP and of what it gives.
        activation: a key of ``ACTIVATIONS``.
    """

    def __init__(self, num_channels: int, num_hidden_channels: int, activation: str) -> None:
        super().__init__()
        self.mlp = MLP(num_channels, num_hidden_channels, num_hidden_channels, activation=activation)

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """(B, 1, 2 * H) from tokens (B, M, C), of which at least one is there by ``mask`` (B, M)."""
        features, there = self.mlp(inputs), mask.unsqueeze(-1)
        mean = (features * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)
        most = features.masked_fill(~there, -torch.inf).amax(1, keepdim=True)
        return torch.cat((mean, most), dim=-1)


class FlatTable(nn.Module):
    """An MLP of all tokens side by side.

    Args:
        num_tokens: M.
        num_channels: C, width of a token.
        num_hidden_channels: H, of the MLP and of what it gives.
        activation: a key of ``ACTIVATIONS``.
    """

    def __init__(self, num_tokens: int, num_channels: int, num_hidden_channels: int, activation: str) -> None:
        super().__init__()
        self.mlp = MLP(
            num_tokens * num_channels, num_hidden_channels, num_hidden_channels, activation=activation
        )

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """(B, 1, H) from tokens (B, M, C), of which those count that are there by ``mask`` (B, M)."""
        return self.mlp((inputs * mask.unsqueeze(-1)).flatten(1)).unsqueeze(1)


class JointAnswer(nn.Module):
    """In the decoder's place where there is one vector to read: query + MLP(query and vector).

    Args:
        num_query_channels: Q.
        num_channels: width of the vector.
        num_hidden_channels: H, of the MLP.
        activation: a key of ``ACTIVATIONS``.
    """

    def __init__(
        self, num_query_channels: int, num_channels: int, num_hidden_channels: int, activation: str
    ) -> None:
        super().__init__()
        self.mlp = MLP(
            num_query_channels + num_channels, num_hidden_channels, num_query_channels, activation=activation
        )

    def forward(self, queries: Tensor, vector: Tensor) -> Tensor:
        """(B, K, Q) from queries (B, K, Q) or (K, Q), and the vector (B, 1, C)."""
        queries = queries.expand(len(vector), -1, -1)
        return queries + self.mlp(torch.cat((queries, vector.expand(-1, queries.shape[1], -1)), dim=-1))


def transformer(config: UnitSetPolicyConfig, num_units: int) -> UnitSetPolicy:
    """See the module docstring. It takes any number of units."""
    del num_units
    policy = UnitSetPolicy(config)
    num_channels = config.unit_input.num_channels
    if config.encoder.num_latent_channels != num_channels:
        raise ValueError(
            f"encoder.num_latent_channels is {config.encoder.num_latent_channels} and "
            f"unit_input.num_channels {num_channels}; they must be equal: "
            "the transformer's decoder reads tokens for latents"
        )
    return _fitting(policy, TokenTransformer(config.encoder, num_channels), policy.decoder)


def deep_sets(config: UnitSetPolicyConfig, num_units: int) -> UnitSetPolicy:
    """See the module docstring. It takes any number of units."""
    del num_units
    num_channels, activation = config.unit_input.num_channels, config.encoder.activation

    def parts(width: int) -> tuple[nn.Module, nn.Module]:
        encoder = PooledSet(num_channels, width, activation)
        return encoder, JointAnswer(num_channels, 2 * width, width, activation)

    return _widened(UnitSetPolicy(config), parts)


def flat_mlp(config: UnitSetPolicyConfig, num_units: int) -> UnitSetPolicy:
    """See the module docstring. It takes exactly ``num_units`` rows."""
    num_channels, activation = config.unit_input.num_channels, config.encoder.activation

    def parts(width: int) -> tuple[nn.Module, nn.Module]:
        encoder = FlatTable(num_units + 1, num_channels, width, activation)
        return encoder, JointAnswer(num_channels, width, width, activation)

    return _widened(UnitSetPolicy(config), parts)


def _widened(policy: UnitSetPolicy, parts: Callable[[int], tuple[nn.Module, nn.Module]]) -> UnitSetPolicy:
    """With the encoder and decoder of the width that comes nearest in weights."""
    wanted = num_weights(policy.encoder) + num_weights(policy.decoder)

    def distance(width: int) -> int:
        with torch.device("meta"):
            return abs(sum(map(num_weights, parts(width))) - wanted)

    width = 1
    while distance(width + 1) < distance(width):
        width += 1
    return _fitting(policy, *parts(width))


def _fitting(policy: UnitSetPolicy, encoder: nn.Module, decoder: nn.Module) -> UnitSetPolicy:
    """The policy with other parts.

    Raises:
        ValueError: it has memory, which lives in a Perceiver's latents, or too many or too few weights.
    """
    if policy.config.memory:
        raise ValueError("memory is True; other torsos have no latents to remember")
    before = num_weights(policy)
    policy.encoder, policy.decoder = encoder, decoder  # type: ignore[assignment]
    after = num_weights(policy)
    if abs(after - before) > TOLERANCE * before:
        raise ValueError(
            f"{type(encoder).__name__} has {after:,} weights and the Perceiver {before:,}; they must be "
            f"within {TOLERANCE:.0%}: choose another model"
        )
    return policy


class TransformerRLModule(PerceiverRLModule):
    """Of :func:`transformer`."""

    def make_policy(self, config: UnitSetPolicyConfig) -> UnitSetPolicy:
        """For any number of unit rows."""
        return transformer(config, _num_units(self))


class DeepSetsRLModule(PerceiverRLModule):
    """Of :func:`deep_sets`."""

    def make_policy(self, config: UnitSetPolicyConfig) -> UnitSetPolicy:
        """For any number of unit rows."""
        return deep_sets(config, _num_units(self))


class FlatMLPRLModule(PerceiverRLModule):
    """Of :func:`flat_mlp`."""

    def make_policy(self, config: UnitSetPolicyConfig) -> UnitSetPolicy:
        """For the number of unit rows in the observation space."""
        return flat_mlp(config, _num_units(self))


def _num_units(module: PerceiverRLModule) -> int:
    """U, rows of units in a module's observation space."""
    return int(module.observation_space["units"].shape[0])


TORSOS: dict[str, type[PerceiverRLModule]] = {
    "perceiver": PerceiverRLModule,
    "transformer": TransformerRLModule,
    "deep-sets": DeepSetsRLModule,
    "mlp": FlatMLPRLModule,
}
