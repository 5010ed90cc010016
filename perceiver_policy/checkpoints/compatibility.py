"""Where Hugging Face's models compute something else than DeepMind's, from the same weights.

docs/checkpoints.md has the table. Positions of the multimodal model's queries, -1 + 2 i / n, are the same in
both; ``inclusive: true`` in the configuration corrects them.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum

from perceiver_policy.checkpoints.architecture import Architecture, architecture_of
from perceiver_policy.config import EmptyAttention
from perceiver_policy.heads.flow import FlowHeadConfig
from perceiver_policy.initialisation import Initialisation
from perceiver_policy.inputs.image import ConvStemConfig, ImageInputConfig, StemPadding
from perceiver_policy.model_config import PerceiverIOConfig


class Compatibility(StrEnum):
    """Whose model the outputs are those of."""

    HF = "hf"
    DEEPMIND = "deepmind"


GELUS = ("gelu", "gelu_tanh")
"""Exact, and as JAX computes it unless told otherwise."""
FLOW_SCALE = {Compatibility.HF: 1 / 100, Compatibility.DEEPMIND: 20 / 100}
"""DeepMind's program multiplies the model's output by 20, which makes it pixels."""


def compatible(config: PerceiverIOConfig, compat: Compatibility) -> PerceiverIOConfig:
    """The configuration with everything that the two do otherwise as one of them does it.

    Args:
        config: of one of the seven published kinds of models; the same weights fit the result.
        compat: as whom.

    Raises:
        CheckpointError: it is none of the seven.
    """
    architecture = architecture_of(config)
    hf = compat is Compatibility.HF
    assert config.decoder is not None
    gelu = "gelu" if hf else "gelu_tanh"
    activation = gelu if config.encoder.activation in GELUS else config.encoder.activation
    empty = EmptyAttention.MEAN if hf else EmptyAttention.ZEROS
    encoder = dataclasses.replace(config.encoder, empty_attention=empty, activation=activation)
    decoder = dataclasses.replace(config.decoder, activation=activation)
    if architecture is Architecture.IMAGE_LEARNED:
        decoder = dataclasses.replace(decoder, query_residual=hf)
    image, head = config.input, config.head
    if isinstance(image, ImageInputConfig) and isinstance(image.preprocessing, ConvStemConfig):
        padding = StemPadding.SYMMETRIC if hf else StemPadding.SAME
        stem = dataclasses.replace(image.preprocessing, padding=padding)
        image = dataclasses.replace(image, preprocessing=stem)
    if isinstance(head, FlowHeadConfig):
        head = dataclasses.replace(head, scale=FLOW_SCALE[compat])
    return dataclasses.replace(
        config,
        input=image,
        encoder=encoder,
        decoder=decoder,
        head=head,
        mask_queries=not hf and architecture is Architecture.MASKED_LM,
        initialisation=Initialisation.HUGGINGFACE if hf else Initialisation.DEEPMIND,
    )
