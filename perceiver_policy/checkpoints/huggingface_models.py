"""The seven models as Hugging Face's classes make them from their settings.

Much of them stands in the classes' code, not in ``config.json``: the widths of the image models' inputs, the
heads of decoders, the bands of Fourier features. What stands in the file is :class:`HuggingFaceConfig`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from perceiver_policy.checkpoints.architecture import Architecture
from perceiver_policy.checkpoints.compatibility import FLOW_SCALE, Compatibility
from perceiver_policy.config import LARGEST_VOCABULARY, Config, DecoderConfig, EmptyAttention, EncoderConfig
from perceiver_policy.heads.classification import ClassificationHeadConfig
from perceiver_policy.heads.flow import FlowHeadConfig
from perceiver_policy.heads.multimodal import MultimodalHeadConfig
from perceiver_policy.heads.reconstruction import ReconstructionHeadConfig
from perceiver_policy.heads.token import TiedEmbeddingHeadConfig
from perceiver_policy.initialisation import Initialisation
from perceiver_policy.inputs.audio import AudioInputConfig
from perceiver_policy.inputs.flow import FlowInputConfig
from perceiver_policy.inputs.grid import FourierPositionConfig, LearnedPositionConfig
from perceiver_policy.inputs.image import (
    Conv1x1Config,
    ConvStemConfig,
    ImageInputConfig,
    PixelsConfig,
    StemPadding,
)
from perceiver_policy.inputs.label import LabelInputConfig
from perceiver_policy.inputs.multimodal import MultimodalInputConfig
from perceiver_policy.inputs.text import TextInputConfig
from perceiver_policy.inputs.video import VideoInputConfig
from perceiver_policy.model_config import HeadConfig, InputConfig, PerceiverIOConfig, QueryConfig
from perceiver_policy.queries.input import InputQueryConfig
from perceiver_policy.queries.learned import LearnedQueryConfig
from perceiver_policy.queries.multimodal import MultimodalQueryConfig
from perceiver_policy.queries.position import PositionQueryConfig

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
    "relu2": "squared_relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
"""Ours by Hugging Face's names; of several, the first is written."""
SHAPE_FOR_ATTENTION = ("kv", "q")
MLM_HEADS, MLM_QK_CHANNELS = 8, 256
IMAGE_CHANNELS = 256
AUDIO_BANDS, IMAGE_BANDS, VIDEO_BANDS = 192, 64, 32


@dataclass(frozen=True)
class HuggingFaceConfig(Config):
    """The settings of a ``config.json`` that a model depends on, with Hugging Face's names and defaults."""

    minimum: ClassVar[Mapping[str, float]] = {"attention_probs_dropout_prob": 0.0}
    maximum: ClassVar[Mapping[str, int]] = {
        "vocab_size": LARGEST_VOCABULARY,
        "max_position_embeddings": LARGEST_VOCABULARY,
    }

    num_latents: int = 256
    d_latents: int = 1280
    d_model: int = 768
    num_blocks: int = 1
    num_self_attends_per_block: int = 26
    num_self_attention_heads: int = 8
    num_cross_attention_heads: int = 8
    qk_channels: int | None = None
    v_channels: int | None = None
    cross_attention_shape_for_attention: str = "kv"
    self_attention_widening_factor: int = 1
    cross_attention_widening_factor: int = 1
    hidden_act: str = "gelu"
    attention_probs_dropout_prob: float = 0.1
    use_query_residual: bool = True
    vocab_size: int = 262
    max_position_embeddings: int = 2048
    image_size: int = 56
    train_size: tuple[int, ...] = (368, 496)
    num_frames: int = 16
    audio_samples_per_frame: int = 1920
    samples_per_patch: int = 16
    output_shape: tuple[int, ...] = (1, 16, 224, 224)
    output_num_channels: int = 512
    _label_trainable_num_channels: int = 1024
    num_labels: int = 2  # in the file, as many as id2label has

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = f"allowed: {', '.join(SHAPE_FOR_ATTENTION)}"
        name = "cross_attention_shape_for_attention"
        self._require(getattr(self, name) in SHAPE_FOR_ATTENTION, name, allowed)
        self._require(self.hidden_act in ACTIVATIONS, "hidden_act", f"allowed: {', '.join(ACTIVATIONS)}")
        self._require(len(self.train_size) == 2, "train_size", "give height and width")
        self._require(len(self.output_shape) == 4, "output_shape", "give batch, frames, height and width")
        width = self.v_channels or self.qk_channels or self.d_latents
        rule = f"self-attention's values must be as wide as d_latents {self.d_latents}, and are {width}"
        self._require(width == self.d_latents, "v_channels", rule)

    @property
    def num_audio_samples(self) -> int:
        """Of a whole recording."""
        return self.num_frames * self.audio_samples_per_frame


def build_config(architecture: Architecture, hf: HuggingFaceConfig) -> PerceiverIOConfig:
    """The model of a class with these settings, as Hugging Face computes it.

    Raises:
        ConfigError: settings that do not fit each other.
    """
    return _BUILDERS[architecture](hf)


def _model(
    hf: HuggingFaceConfig,
    adapter: InputConfig,
    num_input_channels: int,
    query: QueryConfig,
    decoder: DecoderConfig,
    head: HeadConfig,
) -> PerceiverIOConfig:
    by_keys = hf.cross_attention_shape_for_attention == "kv"
    cross_qk = hf.qk_channels or (num_input_channels if by_keys else hf.d_latents)
    encoder = EncoderConfig(
        num_latents=hf.num_latents,
        num_latent_channels=hf.d_latents,
        num_cross_attention_heads=hf.num_cross_attention_heads,
        num_cross_attention_qk_channels=cross_qk,
        num_cross_attention_v_channels=hf.v_channels or cross_qk,
        cross_attention_widening_factor=hf.cross_attention_widening_factor,
        cross_attention_residual=hf.use_query_residual,
        num_self_attention_heads=hf.num_self_attention_heads,
        num_self_attention_qk_channels=hf.qk_channels or hf.d_latents,
        num_self_attention_v_channels=hf.d_latents,
        num_self_attention_layers_per_block=hf.num_self_attends_per_block,
        num_blocks=hf.num_blocks,
        self_attention_widening_factor=hf.self_attention_widening_factor,
        activation=ACTIVATIONS[hf.hidden_act],
        attention_dropout=hf.attention_probs_dropout_prob,
        empty_attention=EmptyAttention.MEAN,
    )
    return PerceiverIOConfig(
        adapter, encoder, query, decoder, head, initialisation=Initialisation.HUGGINGFACE
    )


def _decoder(hf: HuggingFaceConfig, num_query_channels: int, *, residual: bool) -> DecoderConfig:
    """The decoder of all classes but the first."""
    by_keys = hf.cross_attention_shape_for_attention == "kv"
    width = hf.d_latents if by_keys else num_query_channels
    return DecoderConfig(
        num_cross_attention_heads=1,
        num_cross_attention_qk_channels=width,
        num_cross_attention_v_channels=width,
        widening_factor=1,
        query_residual=residual,
        activation=ACTIVATIONS[hf.hidden_act],
        attention_dropout=hf.attention_probs_dropout_prob,
    )


def _text(hf: HuggingFaceConfig) -> TextInputConfig:
    return TextInputConfig(hf.vocab_size, hf.d_model, hf.max_position_embeddings)


def _masked_lm(hf: HuggingFaceConfig) -> PerceiverIOConfig:
    query = LearnedQueryConfig(hf.max_position_embeddings, hf.d_model, one_per_input=True)
    decoder = DecoderConfig(
        num_cross_attention_heads=MLM_HEADS,
        num_cross_attention_qk_channels=MLM_QK_CHANNELS,
        num_cross_attention_v_channels=hf.d_model,
        widening_factor=1,
        query_residual=False,
        activation=ACTIVATIONS[hf.hidden_act],
        attention_dropout=hf.attention_probs_dropout_prob,
    )
    return _model(hf, _text(hf), hf.d_model, query, decoder, TiedEmbeddingHeadConfig(hf.vocab_size))


def _classifier(hf: HuggingFaceConfig, adapter: InputConfig, num_input_channels: int) -> PerceiverIOConfig:
    query = LearnedQueryConfig(1, hf.d_latents)
    decoder = _decoder(hf, hf.d_latents, residual=True)
    return _model(hf, adapter, num_input_channels, query, decoder, ClassificationHeadConfig(hf.num_labels))


def _sequence_classification(hf: HuggingFaceConfig) -> PerceiverIOConfig:
    return _classifier(hf, _text(hf), hf.d_model)


def _image_learned(hf: HuggingFaceConfig) -> PerceiverIOConfig:
    shape = (hf.image_size, hf.image_size)
    position = LearnedPositionConfig(shape, IMAGE_CHANNELS, IMAGE_CHANNELS)
    adapter = ImageInputConfig(preprocessing=Conv1x1Config(IMAGE_CHANNELS), position=position)
    return _classifier(hf, adapter, 2 * IMAGE_CHANNELS)


def _image_fourier(hf: HuggingFaceConfig) -> PerceiverIOConfig:
    position = FourierPositionConfig((224, 224), IMAGE_BANDS)
    adapter = ImageInputConfig(preprocessing=PixelsConfig(), position=position)
    return _classifier(hf, adapter, 3 + _width(position))


def _image_conv(hf: HuggingFaceConfig) -> PerceiverIOConfig:
    stem, position = ConvStemConfig(64, StemPadding.SYMMETRIC), FourierPositionConfig((56, 56), IMAGE_BANDS)
    adapter = ImageInputConfig(preprocessing=stem, position=position)
    return _classifier(hf, adapter, stem.num_channels + _width(position))


def _flow(hf: HuggingFaceConfig) -> PerceiverIOConfig:
    position = FourierPositionConfig(hf.train_size, IMAGE_BANDS)
    adapter = FlowInputConfig(num_channels=64, position=position)
    num_channels = adapter.num_channels + _width(position)
    decoder = _decoder(hf, num_channels, residual=False)
    head = FlowHeadConfig(FLOW_SCALE[Compatibility.HF])
    return _model(hf, adapter, num_channels, InputQueryConfig(), decoder, head)


def _multimodal(hf: HuggingFaceConfig) -> PerceiverIOConfig:
    num_samples, video = (hf.num_audio_samples,), (hf.num_frames, hf.image_size, hf.image_size)
    audio_position = FourierPositionConfig(num_samples, AUDIO_BANDS)
    video_position = FourierPositionConfig(video, VIDEO_BANDS)
    adapter = MultimodalInputConfig(
        {
            "audio": AudioInputConfig(hf.samples_per_patch, audio_position),
            "image": VideoInputConfig(position=video_position),
            "label": LabelInputConfig(hf.num_labels),
        },
        mask_probability={"audio": 0.0, "image": 0.0, "label": 1.0},
        mask_in_evaluation=("label",),
    )
    num_patches = hf.num_audio_samples // hf.samples_per_patch
    query = MultimodalQueryConfig(
        {
            "audio": PositionQueryConfig((num_patches,), audio_position, inclusive=False),
            "image": PositionQueryConfig(hf.output_shape[1:], video_position, inclusive=False),
            "label": LearnedQueryConfig(1, hf._label_trainable_num_channels),
        }
    )
    num_patch_channels = 4 * 4 * 3
    widths = (
        hf.samples_per_patch + _width(audio_position),
        num_patch_channels + _width(video_position),
        hf.num_labels,
    )
    query_widths = (_width(audio_position), _width(video_position), hf._label_trainable_num_channels)
    decoder = _decoder(hf, max(query_widths) + query.min_padding, residual=False)
    head = MultimodalHeadConfig(
        hf.output_num_channels, ReconstructionHeadConfig(hf.samples_per_patch, 3, hf.num_labels)
    )
    return _model(hf, adapter, max(widths) + adapter.min_padding, query, decoder, head)


_BUILDERS: dict[Architecture, Callable[[HuggingFaceConfig], PerceiverIOConfig]] = {
    Architecture.MASKED_LM: _masked_lm,
    Architecture.SEQUENCE_CLASSIFICATION: _sequence_classification,
    Architecture.IMAGE_LEARNED: _image_learned,
    Architecture.IMAGE_FOURIER: _image_fourier,
    Architecture.IMAGE_CONV: _image_conv,
    Architecture.FLOW: _flow,
    Architecture.MULTIMODAL: _multimodal,
}


def _width(position: FourierPositionConfig) -> int:
    """Channels of Fourier features."""
    return len(position.max_resolution) * (2 * position.num_bands + 1)
