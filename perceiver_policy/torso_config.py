"""Configuration of a policy for any observation space: a Perceiver IO that is asked two questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from perceiver_policy.config import Config, DecoderConfig, EncoderConfig
from perceiver_policy.heads.multitask import MultitaskHeadConfig
from perceiver_policy.initialisation import Initialisation
from perceiver_policy.inputs.multimodal import MultimodalInputConfig
from perceiver_policy.model_config import PerceiverIOConfig
from perceiver_policy.queries.task import TaskQueryConfig
from perceiver_policy.spaces import SpaceInputConfig
from perceiver_policy.transfer_core import ANYWHERE, check_parts

POLICY, VALUE = "policy", "value"
"""The two questions, the tasks of the model's query."""


def _encoder() -> EncoderConfig:
    return EncoderConfig(
        num_latents=8, num_latent_channels=64, num_cross_attention_heads=4, num_self_attention_heads=4
    )


def _decoder() -> DecoderConfig:
    return DecoderConfig(num_cross_attention_heads=4)


@dataclass(frozen=True)
class TorsoConfig(Config):
    """The policy, where the spaces do not say it, and where its core is from."""

    minimum: ClassVar[Mapping[str, float]] = {"initial_policy_scale": 0.0}

    input: SpaceInputConfig = field(default_factory=SpaceInputConfig)
    encoder: EncoderConfig = field(default_factory=_encoder)
    decoder: DecoderConfig = field(default_factory=_decoder)
    num_query_channels: int = 64  # of the two queries, and of the answers to them
    num_hidden_channels: int = 64  # of the MLPs that read the answers
    # PyTorch's own weights, those of "paper", make attention nearly even at first, and the one pixel that
    # counts is long lost among the others. DeepMind's are wider.
    initialisation: Initialisation = Initialisation.DEEPMIND
    initial_policy_scale: float = 0.01  # of the policy's last weights: small starts near the uniform policy
    core: str | None = None  # where to take the core from, see transfer_core; None: nowhere
    core_parts: tuple[str, ...] = ANYWHERE  # what of it
    freeze: tuple[str, ...] = ()  # parts of the core that training leaves as they are

    def __post_init__(self) -> None:
        super().__post_init__()
        check_parts((*self.core_parts, *self.freeze))
        self.decoder.check_query_channels(self.num_query_channels)

    def model(self, modalities: MultimodalInputConfig, num_policy_outputs: int) -> PerceiverIOConfig:
        """The whole model, for observations of these modalities and so many inputs of the distribution."""
        return PerceiverIOConfig(
            input=modalities,
            encoder=self.encoder,
            query=TaskQueryConfig((POLICY, VALUE), self.num_query_channels),
            decoder=self.decoder,
            head=MultitaskHeadConfig({POLICY: num_policy_outputs, VALUE: 1}, self.num_hidden_channels),
            initialisation=self.initialisation,
        )
