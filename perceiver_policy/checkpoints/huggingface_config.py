"""Hugging Face's ``config.json`` as a configuration of ours, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from perceiver_policy.checkpoints.architecture import SEVEN, Architecture, architecture_of
from perceiver_policy.checkpoints.huggingface_models import (
    ACTIVATIONS,
    SHAPE_FOR_ATTENTION,
    HuggingFaceConfig,
    build_config,
)
from perceiver_policy.checkpoints.names import CheckpointError
from perceiver_policy.config import ConfigError, EncoderConfig
from perceiver_policy.heads.classification import ClassificationHeadConfig
from perceiver_policy.heads.flow import FlowHeadConfig
from perceiver_policy.heads.multimodal import MultimodalHeadConfig
from perceiver_policy.initialisation import Initialisation
from perceiver_policy.inputs.audio import AudioInputConfig
from perceiver_policy.inputs.flow import FlowInputConfig
from perceiver_policy.inputs.grid import FourierPositionConfig, LearnedPositionConfig
from perceiver_policy.inputs.image import (
    ImageInputConfig,
)
from perceiver_policy.inputs.label import LabelInputConfig
from perceiver_policy.inputs.multimodal import MultimodalInputConfig
from perceiver_policy.inputs.text import TextInputConfig
from perceiver_policy.inputs.video import VideoInputConfig
from perceiver_policy.model_config import PerceiverIOConfig
from perceiver_policy.queries.learned import LearnedQueryConfig
from perceiver_policy.queries.multimodal import MultimodalQueryConfig
from perceiver_policy.queries.position import PositionQueryConfig

UNSUPPORTED = (
    "prep_type",
    "spatial_downsample",
    "temporal_downsample",
    "position_encoding_type",
    "concat_or_add_pos",
    "project_pos_dim",
    "conv_after_patching",
    "conv2d_use_batchnorm",
    "final_project",
    "concat_preprocessed_input",
)
"""Arguments of the parts of Hugging Face's models, which none of the seven reads from its file."""


def read_config(data: Any) -> tuple[Architecture, PerceiverIOConfig]:
    """What a ``config.json`` describes, as Hugging Face computes it.

    Args:
        data: the file's contents.

    Raises:
        CheckpointError: none of the seven architectures, a setting that is not supported, or one of the wrong
            type or size.
    """
    if not isinstance(data, Mapping):
        raise CheckpointError(f"config.json holds {type(data).__name__}; expected an object")
    architectures = data.get("architectures") or []
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    if named not in list(Architecture):
        raise CheckpointError(f"config.json has architecture {named!r}; supported: {SEVEN}")
    for name in UNSUPPORTED:
        if name in data:
            raise CheckpointError(
                f"config.json has {name} {data[name]!r}; it is not supported: none of the seven reads it"
            )
    settings = {f.name: data[f.name] for f in dataclasses.fields(HuggingFaceConfig) if f.name in data}
    labels = data.get("id2label")
    if isinstance(labels, Mapping) and labels:
        settings["num_labels"] = len(labels)
    try:
        hf = HuggingFaceConfig.from_dict(settings)
        return Architecture(named), build_config(Architecture(named), hf)
    except ConfigError as error:
        raise CheckpointError(f"config.json: {error}") from error


def write_config(config: PerceiverIOConfig) -> tuple[dict[str, Any], list[str]]:
    """A model's ``config.json``.

    Returns:
        The file's contents; and in what Hugging Face's model of it differs from the configuration.

    Raises:
        CheckpointError: the model is none of the seven.
    """
    architecture, ours = architecture_of(config), _spelled_out(config).to_dict()
    candidates = []
    for shape in SHAPE_FOR_ATTENTION:
        try:
            hf = HuggingFaceConfig.from_dict(
                _settings(config) | {"cross_attention_shape_for_attention": shape}
            )
            theirs = _spelled_out(build_config(architecture, hf)).to_dict()
        except ConfigError as error:
            raise CheckpointError(f"Hugging Face's classes have no such model: {error}") from error
        candidates.append((_differences(ours, theirs), hf))
    differences, hf = min(candidates, key=lambda candidate: len(candidate[0]))
    settings = {f.name: getattr(hf, f.name) for f in dataclasses.fields(hf) if f.name != "num_labels"}
    labels = [f"LABEL_{i}" for i in range(hf.num_labels)]
    data = {
        "architectures": [architecture.value],
        "model_type": "perceiver",
        **{name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()},
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }
    return data, differences


def _settings(config: PerceiverIOConfig) -> dict[str, Any]:
    """What of a configuration stands in Hugging Face's file."""
    encoder, image, head = config.encoder, config.input, config.head
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == encoder.activation)
    qk = encoder.num_self_attention_qk_channels or encoder.num_latent_channels
    settings: dict[str, Any] = {
        "num_latents": encoder.num_latents,
        "d_latents": encoder.num_latent_channels,
        "num_blocks": encoder.num_blocks,
        "num_self_attends_per_block": encoder.num_self_attention_layers_per_block,
        "num_self_attention_heads": encoder.num_self_attention_heads,
        "num_cross_attention_heads": encoder.num_cross_attention_heads,
        "self_attention_widening_factor": encoder.self_attention_widening_factor,
        "cross_attention_widening_factor": encoder.cross_attention_widening_factor,
        "hidden_act": activation,
        "attention_probs_dropout_prob": encoder.attention_dropout,
        "use_query_residual": encoder.cross_attention_residual,
    }
    cross_qk = encoder.num_cross_attention_qk_channels or encoder.num_latent_channels
    cross_v = encoder.num_cross_attention_v_channels or cross_qk
    if qk == cross_qk:  # one setting for both kinds of attention, or one for none
        settings["qk_channels"] = qk
    if cross_v != cross_qk or "qk_channels" in settings:
        settings["v_channels"] = cross_v
    if isinstance(image, TextInputConfig):
        settings["d_model"] = image.num_channels
        settings["vocab_size"] = image.vocabulary_size
        settings["max_position_embeddings"] = image.max_length
    if isinstance(image, ImageInputConfig) and isinstance(image.position, LearnedPositionConfig):
        settings["image_size"] = image.position.shape[0]
    if isinstance(image, FlowInputConfig) and isinstance(image.position, FourierPositionConfig):
        settings["train_size"] = image.position.max_resolution
    if isinstance(head, ClassificationHeadConfig):
        settings["num_labels"] = head.num_classes
    if isinstance(image, MultimodalInputConfig):
        settings |= _multimodal_settings(config)
    return settings


def _multimodal_settings(config: PerceiverIOConfig) -> dict[str, Any]:
    """What of a multimodal model stands in the file, as far as it is like the published one."""
    settings: dict[str, Any] = {}
    image, query, head = config.input, config.query, config.head
    assert isinstance(image, MultimodalInputConfig)
    assert isinstance(query, MultimodalQueryConfig)
    assert isinstance(head, MultimodalHeadConfig)
    match image.modalities.get("image"):
        case VideoInputConfig(position=FourierPositionConfig(max_resolution=(num_frames, image_size, _))):
            settings |= {"num_frames": num_frames, "image_size": image_size}
    match image.modalities.get("audio"):
        case AudioInputConfig(samples, FourierPositionConfig(max_resolution=(num_samples,))):
            settings["samples_per_patch"] = samples
            settings["audio_samples_per_frame"] = max(num_samples // settings.get("num_frames", 1), 1)
    match image.modalities.get("label"):
        case LabelInputConfig(num_classes):
            settings["num_labels"] = num_classes
    match query.modalities.get("image"):
        case PositionQueryConfig(shape=shape):
            settings["output_shape"] = (1, *shape)
    match query.modalities.get("label"):
        case LearnedQueryConfig(num_channels=num_channels):
            settings["_label_trainable_num_channels"] = num_channels
    if head.num_shared_channels is not None:
        settings["output_num_channels"] = head.num_shared_channels
    return settings


def _spelled_out(config: PerceiverIOConfig) -> PerceiverIOConfig:
    """The same model, written in one way: no width left to a default, nothing that only matters in training
    from scratch."""
    encoder, decoder = config.encoder, config.decoder
    assert decoder is not None
    qk = encoder.num_cross_attention_qk_channels or encoder.num_latent_channels
    self_qk = encoder.num_self_attention_qk_channels or encoder.num_latent_channels
    default = EncoderConfig()
    reads_once = encoder.num_cross_attention_layers == 1
    encoder = dataclasses.replace(
        encoder,
        num_cross_attention_qk_channels=qk,
        num_cross_attention_v_channels=encoder.num_cross_attention_v_channels or qk,
        num_self_attention_qk_channels=self_qk,
        num_self_attention_v_channels=encoder.num_self_attention_v_channels or self_qk,
        share_blocks=encoder.share_blocks or encoder.num_blocks == 1,
        cross_attention_placement=default.cross_attention_placement
        if reads_once
        else encoder.cross_attention_placement,
        cross_attention_sharing=default.cross_attention_sharing
        if reads_once
        else encoder.cross_attention_sharing,
        activation_checkpointing=False,
    )
    head = config.head
    if isinstance(head, FlowHeadConfig):
        head = dataclasses.replace(head, zero_init=False)
    return dataclasses.replace(config, encoder=encoder, head=head, initialisation=Initialisation.PAPER)


def _differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Where two plain dicts differ, key by key."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        keys = [*ours, *(key for key in theirs if key not in ours)]
        found = [
            _differences(ours.get(key), theirs.get(key), f"{where}.{key}" if where else key) for key in keys
        ]
        return [difference for differences in found for difference in differences]
    return [] if ours == theirs else [f"{where} is {ours!r}, Hugging Face's is {theirs!r}"]
