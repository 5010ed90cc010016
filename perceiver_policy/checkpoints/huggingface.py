"""Names of the weights in Hugging Face's seven classes (facts of its state dicts, transformers 5.23)."""

from __future__ import annotations

from typing import cast

from torch import nn

from perceiver_policy.checkpoints.architecture import Architecture, architecture_of
from perceiver_policy.checkpoints.names import POINTWISE, ROW, SAME, Convention, LayerNames, Weight
from perceiver_policy.model import PerceiverIO

_LAYER = LayerNames(
    query_norm="attention.self.layernorm1",
    key_value_norm="attention.self.layernorm2",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    mlp_norm="layernorm",
    mlp_in="mlp.dense1",
    mlp_out="mlp.dense2",
)
CONVENTION = Convention(".", ("weight", "bias"), SAME, ("weight", "bias"), _LAYER, _LAYER)
INPUT = "perceiver.input_preprocessor"
HEADS = "perceiver.output_postprocessor.modalities"


def names(model: PerceiverIO) -> list[Weight]:
    """All weights of a model; it may be on the meta device.

    Raises:
        CheckpointError: it is none of the seven.
    """
    architecture = architecture_of(model.config)
    assert model.decoder is not None
    of_layer, of_linear = CONVENTION.of_layer, CONVENTION.of_linear
    decoder = "perceiver.decoder" if architecture is Architecture.MASKED_LM else "perceiver.decoder.decoder"
    encoder = model.encoder
    weights = [Weight("encoder.latents", ("perceiver.embeddings.latents",))]
    weights += of_layer(
        "encoder.cross_attentions.0", "perceiver.encoder.cross_attention", encoder.cross_attentions[0]
    )
    for i, layer in enumerate(cast(nn.ModuleList, encoder.blocks[0])):
        weights += of_layer(f"encoder.blocks.0.{i}", f"perceiver.encoder.self_attends.{i}", layer)
    weights += of_layer(
        "decoder.cross_attention", f"{decoder}.decoding_cross_attention", model.decoder.cross_attention
    )
    query = Weight("query.query", (f"{decoder}.output_position_encodings.position_embeddings",))
    output = of_linear("head.linear", f"{decoder}.final_layer")
    text = [
        Weight("input.embedding.weight", (f"{INPUT}.embeddings.weight",)),
        Weight("input.positions.table", (f"{INPUT}.position_embeddings.weight",)),
    ]
    match architecture:
        case Architecture.MASKED_LM:
            return [*weights, *text, query, Weight("head.bias", ("embedding_decoder.bias",))]
        case Architecture.SEQUENCE_CLASSIFICATION:
            return [*weights, *text, query, *output]
        case Architecture.IMAGE_FOURIER:
            return [*weights, query, *output]
        case Architecture.IMAGE_LEARNED:
            return [*weights, *_learned(), query, *output]
        case Architecture.IMAGE_CONV:
            return [*weights, *_stem(), query, *output]
        case Architecture.FLOW:
            return [*weights, *of_linear("input.projection", f"{INPUT}.conv_after_patches"), *output]
        case Architecture.MULTIMODAL:
            shared = of_linear("head.shared", f"{decoder}.final_layer")
            return [*weights, *_multimodal(model), *shared]


def _learned() -> list[Weight]:
    """Pixels through a convolution of one pixel, and learned positions, projected."""
    table = f"{INPUT}.position_embeddings.position_embeddings"
    return [
        Weight("input.projection.weight", (f"{INPUT}.convnet_1x1.weight",), POINTWISE),
        Weight("input.projection.bias", (f"{INPUT}.convnet_1x1.bias",)),
        Weight("input.position.positions.table", (table,)),
        *CONVENTION.of_linear("input.position.projection", f"{INPUT}.positions_projection"),
    ]


def _stem() -> list[Weight]:
    """Convolution and batch norm."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return [
        Weight("input.stem.convolution.weight", (f"{INPUT}.convnet.conv.weight",)),
        *(Weight(f"input.stem.norm.{name}", (f"{INPUT}.convnet.batchnorm.{name}",)) for name in norm),
    ]


def _multimodal(model: PerceiverIO) -> list[Weight]:
    """What each modality has of its own, but for the layer that all answers share."""
    query = "perceiver.decoder.modalities.label.decoder.output_position_encodings.position_embeddings"
    weights = [Weight("query.providers.label.query", (query,))]
    for name in ("audio", "image", "label"):
        weights += [
            Weight(f"input.padding.vectors.{name}", (f"{INPUT}.padding.{name}",), ROW),
            Weight(f"input.mask_tokens.{name}", (f"{INPUT}.mask.{name}",), ROW),
            Weight(f"query.padding.vectors.{name}", (f"perceiver.decoder.padding.{name}",), ROW),
            *CONVENTION.of_linear(f"head.reconstruction.linears.{name}", f"{HEADS}.{name}.classifier"),
        ]
    return weights
