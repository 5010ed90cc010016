"""Tokens: logits at every position, over labels of their own or over the vocabulary the input came in.

The second, for masked language models, reads the input's embedding as the output's weights
(arXiv:1608.05859; Perceiver IO, arXiv:2107.14795, section 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_policy.config import LARGEST_VOCABULARY, Config, ConfigError


@dataclass(frozen=True)
class TokenClassificationHeadConfig(Config):
    """How many labels."""

    kind: ClassVar[str] = "token_classification"
    maximum: ClassVar[Mapping[str, int]] = {"num_labels": LARGEST_VOCABULARY}

    num_labels: int = 2


@dataclass(frozen=True)
class TiedEmbeddingHeadConfig(Config):
    """How large the vocabulary is: by default, bytes and six special tokens."""

    kind: ClassVar[str] = "tied_embedding"
    maximum: ClassVar[Mapping[str, int]] = {"vocabulary_size": LARGEST_VOCABULARY}

    vocabulary_size: int = 262


class TokenClassificationHead(nn.Module):
    """Linear from each answer to label logits.

    Args:
        config: number of labels.
        num_query_channels: Q, width of an answer.
    """

    def __init__(self, config: TokenClassificationHeadConfig, *, num_query_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_query_channels, config.num_labels)

    def forward(self, answers: Tensor) -> Tensor:
        """(B, K, num_labels) logits from answers (B, K, Q)."""
        return self.linear(answers)


class TiedEmbeddingHead(nn.Module):
    """Vocabulary logits h Eᵀ + b, with E the weight of the input's :class:`torch.nn.Embedding`.

    E is passed at every call and is no parameter of the head, so that a model has it once: in its state
    dict, in its optimizer and in its count of parameters.

    Args:
        config: size of the vocabulary.
        num_query_channels: Q, width of an answer, which must be that of E.
    """

    def __init__(self, config: TiedEmbeddingHeadConfig, *, num_query_channels: int) -> None:
        super().__init__()
        self.weight_shape = (config.vocabulary_size, num_query_channels)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary_size))

    def forward(self, answers: Tensor, embedding: Tensor) -> Tensor:
        """(B, K, vocabulary_size) logits from answers (B, K, Q) and the embedding (vocabulary_size, Q).

        Raises:
            ConfigError: the embedding has another shape.
        """
        self.check_embedding(embedding)
        return F.linear(answers, embedding, self.bias)

    def check_embedding(self, embedding: Tensor) -> None:
        """Raise :class:`ConfigError` if the embedding is not the one the head was made for, by its shape."""
        if embedding.shape != self.weight_shape:
            raise ConfigError(
                f"the embedding has shape {tuple(embedding.shape)}; TiedEmbeddingHead was made for "
                f"{self.weight_shape}, the size of the vocabulary and the width of an answer"
            )
