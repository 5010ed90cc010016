"""The seven kinds of published models, by what they are made of."""

from __future__ import annotations

from enum import StrEnum

from perceiver_policy.checkpoints.names import CheckpointError
from perceiver_policy.heads.classification import ClassificationHeadConfig
from perceiver_policy.heads.flow import FlowHeadConfig
from perceiver_policy.heads.multimodal import MultimodalHeadConfig
from perceiver_policy.heads.token import TiedEmbeddingHeadConfig
from perceiver_policy.inputs.flow import FlowInputConfig
from perceiver_policy.inputs.image import Conv1x1Config, ConvStemConfig, ImageInputConfig, PixelsConfig
from perceiver_policy.inputs.multimodal import MultimodalInputConfig
from perceiver_policy.inputs.text import TextInputConfig
from perceiver_policy.model_config import PerceiverIOConfig


class Architecture(StrEnum):
    """By the names of Hugging Face's classes."""

    MASKED_LM = "PerceiverForMaskedLM"
    SEQUENCE_CLASSIFICATION = "PerceiverForSequenceClassification"
    IMAGE_LEARNED = "PerceiverForImageClassificationLearned"
    IMAGE_FOURIER = "PerceiverForImageClassificationFourier"
    IMAGE_CONV = "PerceiverForImageClassificationConvProcessing"
    FLOW = "PerceiverForOpticalFlow"
    MULTIMODAL = "PerceiverForMultimodalAutoencoding"


SEVEN = ", ".join(Architecture)


def architecture_of(config: PerceiverIOConfig) -> Architecture:
    """Which of the seven a model is like; widths and the like may differ still.

    Raises:
        CheckpointError: none.
    """
    match config.input, config.head:
        case TextInputConfig(), TiedEmbeddingHeadConfig():
            return Architecture.MASKED_LM
        case TextInputConfig(), ClassificationHeadConfig():
            return Architecture.SEQUENCE_CLASSIFICATION
        case ImageInputConfig(preprocessing=Conv1x1Config()), ClassificationHeadConfig():
            return Architecture.IMAGE_LEARNED
        case ImageInputConfig(preprocessing=PixelsConfig()), ClassificationHeadConfig():
            return Architecture.IMAGE_FOURIER
        case ImageInputConfig(preprocessing=ConvStemConfig()), ClassificationHeadConfig():
            return Architecture.IMAGE_CONV
        case FlowInputConfig(), FlowHeadConfig():
            return Architecture.FLOW
        case MultimodalInputConfig(), MultimodalHeadConfig():
            return Architecture.MULTIMODAL
    head = "no head" if config.head is None else f"head {config.head.kind!r}"
    raise CheckpointError(
        f"input {config.input.kind!r} with {head} is none of the seven published models: {SEVEN}"
    )
