"""Modules of :class:`~perceiver_policy.model.PerceiverIO` from their configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from perceiver_policy.config import Config
from perceiver_policy.heads import classification, flow, multitask, token
from perceiver_policy.heads import multimodal as multimodal_head
from perceiver_policy.inputs import audio, categories, features, image, label, points, text, vectors, video
from perceiver_policy.inputs import flow as flow_input
from perceiver_policy.inputs import multimodal as multimodal_input
from perceiver_policy.inputs.adapter import InputAdapter
from perceiver_policy.queries import input as input_query
from perceiver_policy.queries import learned, position, task
from perceiver_policy.queries import multimodal as multimodal_query
from perceiver_policy.queries.provider import QueryProvider

_INPUTS: dict[type[Config], Callable[[Any], InputAdapter]] = {
    vectors.VectorsInputConfig: vectors.VectorsInput,
    image.ImageInputConfig: image.ImageInput,
    flow_input.FlowInputConfig: flow_input.FlowInput,
    video.VideoInputConfig: video.VideoInput,
    audio.AudioInputConfig: audio.AudioInput,
    audio.MelInputConfig: audio.MelInput,
    text.TextInputConfig: text.TextInput,
    points.PointsInputConfig: points.PointsInput,
    label.LabelInputConfig: label.LabelInput,
    features.FeaturesInputConfig: features.FeaturesInput,
    categories.CategoriesInputConfig: categories.CategoriesInput,
}
_QUERIES: dict[type[Config], Callable[[Any], QueryProvider]] = {
    learned.LearnedQueryConfig: learned.LearnedQuery,
    position.PositionQueryConfig: position.PositionQuery,
    task.TaskQueryConfig: task.TaskQuery,
}
_HEADS: dict[type[Config], Callable[..., nn.Module]] = {
    classification.ClassificationHeadConfig: classification.ClassificationHead,
    token.TokenClassificationHeadConfig: token.TokenClassificationHead,
    token.TiedEmbeddingHeadConfig: token.TiedEmbeddingHead,
    multitask.MultitaskHeadConfig: multitask.MultitaskHead,
    flow.FlowHeadConfig: flow.FlowHead,
    multimodal_head.MultimodalHeadConfig: multimodal_head.MultimodalHead,
}


def build_input(config: Config) -> InputAdapter:
    """The adapter of one of ``model_config.InputConfig``."""
    if isinstance(config, multimodal_input.MultimodalInputConfig):
        adapters = {name: build_input(modality) for name, modality in config.modalities.items()}
        return multimodal_input.MultimodalInput(config, adapters)
    return _INPUTS[type(config)](config)


def build_query(config: Config, adapter: InputAdapter) -> QueryProvider:
    """The query of one of ``model_config.QueryConfig``, for tokens of an adapter."""
    if isinstance(config, multimodal_query.MultimodalQueryConfig):
        providers = {name: build_query(modality, adapter) for name, modality in config.modalities.items()}
        return multimodal_query.MultimodalQuery(config, providers)
    if isinstance(config, input_query.InputQueryConfig):
        return input_query.InputQuery(config, num_input_channels=adapter.num_channels)
    return _QUERIES[type(config)](config)


def build_head(config: Config, *, num_channels: int) -> nn.Module:
    """The head of one of ``model_config.HeadConfig``, for answers or latents of ``num_channels``."""
    if isinstance(config, classification.PooledClassificationHeadConfig):
        return classification.PooledClassificationHead(config, num_latent_channels=num_channels)
    return _HEADS[type(config)](config, num_query_channels=num_channels)
