"""DeepMind's six released checkpoints: names of the weights, and which model a file holds.

The files are pickles of Haiku's parameters: a mapping of scopes to mappings of names to arrays; the three for
ImageNet hold two such, ``params`` and ``state``. (google-deepmind/deepmind-research, perceiver/colabs)
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from torch import nn

from perceiver_policy.checkpoints.architecture import Architecture, architecture_of
from perceiver_policy.checkpoints.names import (
    CHANNELS,
    HWIO,
    HWIO_POINTWISE,
    ROW,
    TRANSPOSED,
    CheckpointError,
    Convention,
    LayerNames,
    Weight,
)
from perceiver_policy.model import PerceiverIO

_CROSS = LayerNames(
    query_norm="layer_norm",
    key_value_norm="layer_norm_1",
    query="attention/linear",
    key="attention/linear_1",
    value="attention/linear_2",
    output="attention/linear_3",
    mlp_norm="layer_norm_2",
    mlp_in="mlp/linear",
    mlp_out="mlp/linear_1",
)
_SELF = _CROSS._replace(mlp_norm="layer_norm_1")
CONVENTION = Convention("/", ("w", "b"), TRANSPOSED, ("scale", "offset"), _SELF, _CROSS)
POSITIONS = "trainable_position_encoding/pos_embs"
IMAGE = "image_preprocessor"
BATCH_NORM = f"{IMAGE}/~/conv2_d_downsample/~/batchnorm"

RELEASED = {
    "multimodal_decoder/": "perceiver-io-multimodal",
    "flow_decoder/": "perceiver-io-flow",
    "embedding_decoder/": "perceiver-io-language-bytes",
    f"{IMAGE}/~/conv2_d_downsample/": "perceiver-io-imagenet-conv",
    f"{IMAGE}/~/conv2_d/": "perceiver-io-imagenet-learned",
    "classification_decoder/": "perceiver-io-imagenet-fourier",  # last: others have one too
}
"""How the names of a model's scopes begin, and the configuration that it is."""
UNUSED = tuple(f"{BATCH_NORM}/~/{name}" for name in ("mean_ema/hidden", "var_ema/hidden", "var_ema/counter"))
"""Moving averages before their correction, which evaluation does not read."""


def released_model(found: Collection[str]) -> str:
    """The configuration of a file with these names.

    Raises:
        CheckpointError: it holds none of the six.
    """
    for prefix, name in RELEASED.items():
        if any(scope.startswith(prefix) for scope in found):
            return name
    raise CheckpointError(
        f"no names in the file are those of a released model: {', '.join(RELEASED.values())}; it begins with "
        f"{', '.join(sorted(found)[:3]) or 'nothing'}"
    )


def names(model: PerceiverIO) -> list[Weight]:
    """All weights of a model; it may be on the meta device.

    Raises:
        CheckpointError: it is none of those that DeepMind released.
    """
    architecture = architecture_of(model.config)
    assert model.decoder is not None
    of_layer, of_linear = CONVENTION.of_layer, CONVENTION.of_linear
    decoder = {
        Architecture.MASKED_LM: "basic_decoder",
        Architecture.FLOW: "flow_decoder/~/basic_decoder",
        Architecture.MULTIMODAL: "multimodal_decoder/~/basic_decoder",
    }.get(architecture, "classification_decoder/~/basic_decoder")
    scope = "encoder/~" if architecture is Architecture.MULTIMODAL else "perceiver_encoder/~"
    encoder = model.encoder
    weights = [Weight("encoder.latents", (f"{scope}/{POSITIONS}",))]
    weights += of_layer("encoder.cross_attentions.0", f"{scope}/cross_attention", encoder.cross_attentions[0])
    for i, layer in enumerate(cast(nn.ModuleList, encoder.blocks[0])):
        name = f"self_attention_{i}" if i else "self_attention"
        weights += of_layer(f"encoder.blocks.0.{i}", f"{scope}/{name}", layer)
    weights += of_layer(
        "decoder.cross_attention", f"{decoder}/cross_attention", model.decoder.cross_attention
    )
    query = Weight("query.query", (f"{decoder}/~/{POSITIONS}",))
    output = of_linear("head.linear", f"{decoder}/output")
    match architecture:
        case Architecture.MASKED_LM:
            text = [
                Weight("input.embedding.weight", ("embed/embeddings",)),
                Weight("input.positions.table", (POSITIONS,)),
                Weight("head.bias", ("embedding_decoder/bias",)),
            ]
            return [*weights, *text, query]
        case Architecture.IMAGE_FOURIER:
            return [*weights, query, *output]
        case Architecture.IMAGE_LEARNED:
            return [*weights, *_learned(), query, *output]
        case Architecture.IMAGE_CONV:
            return [*weights, *_stem(), query, *output]
        case Architecture.FLOW:
            return [*weights, *of_linear("input.projection", f"{IMAGE}/patches_linear"), *output]
        case Architecture.MULTIMODAL:
            return [*weights, *_multimodal(), *of_linear("head.shared", f"{decoder}/output")]
        case Architecture.SEQUENCE_CLASSIFICATION:
            raise CheckpointError(f"DeepMind released no {architecture}: {', '.join(RELEASED.values())}")


def _learned() -> list[Weight]:
    """Pixels through a convolution of one pixel, and learned positions, projected."""
    positions = f"{IMAGE}/~_build_network_inputs"
    projector = f"{positions}/position_encoding_projector/linear"
    return [
        Weight("input.projection.weight", (f"{IMAGE}/~/conv2_d/w",), HWIO_POINTWISE),
        Weight("input.projection.bias", (f"{IMAGE}/~/conv2_d/b",)),
        Weight("input.position.positions.table", (f"{positions}/{POSITIONS}",)),
        *CONVENTION.of_linear("input.position.projection", projector),
    ]


def _stem() -> list[Weight]:
    """Convolution and batch norm; its moving averages come from ``state``."""
    convolution = f"{IMAGE}/~/conv2_d_downsample/~/conv/w"
    return [
        Weight("input.stem.convolution.weight", (convolution,), HWIO),
        Weight("input.stem.norm.weight", (f"{BATCH_NORM}/scale",), CHANNELS),
        Weight("input.stem.norm.bias", (f"{BATCH_NORM}/offset",), CHANNELS),
        Weight("input.stem.norm.running_mean", (f"{BATCH_NORM}/~/mean_ema/average",), CHANNELS),
        Weight("input.stem.norm.running_var", (f"{BATCH_NORM}/~/var_ema/average",), CHANNELS),
        Weight("input.stem.norm.num_batches_tracked", (f"{BATCH_NORM}/~/mean_ema/counter",)),
    ]


def _multimodal() -> list[Weight]:
    """What each modality has of its own, but for the layer that all answers share."""
    heads = {
        "audio": "audio_postprocessor/linear",
        "image": "projection_postprocessor/linear",
        "label": "classification_postprocessor/linear",
    }
    query = f"classification_decoder/~/basic_decoder/~/{POSITIONS}"
    weights = [Weight("query.providers.label.query", (query,))]
    for name, head in heads.items():
        scopes = {
            f"input.padding.vectors.{name}": f"multimodal_preprocessor/{name}_padding",
            f"input.mask_tokens.{name}": f"multimodal_preprocessor/{name}_mask_token",
            f"query.padding.vectors.{name}": f"multimodal_decoder/~decoder_query/{name}_padding",
        }
        weights += [Weight(ours, (f"{scope}/pos_embs",), ROW) for ours, scope in scopes.items()]
        weights += CONVENTION.of_linear(f"head.reconstruction.linears.{name}", head)
    return weights
