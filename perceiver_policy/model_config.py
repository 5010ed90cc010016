"""Configuration of :class:`~perceiver_policy.model.PerceiverIO`: input, encoder, query, decoder and head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from perceiver_policy.config import Config, ConfigError, DecoderConfig, EncoderConfig, nearest
from perceiver_policy.heads.classification import ClassificationHeadConfig, PooledClassificationHeadConfig
from perceiver_policy.heads.flow import FlowHeadConfig
from perceiver_policy.heads.multimodal import MultimodalHeadConfig
from perceiver_policy.heads.multitask import MultitaskHeadConfig
from perceiver_policy.heads.token import TiedEmbeddingHeadConfig, TokenClassificationHeadConfig
from perceiver_policy.initialisation import Initialisation
from perceiver_policy.inputs.multimodal import ModalityInputConfig, MultimodalInputConfig
from perceiver_policy.inputs.text import TextInputConfig
from perceiver_policy.inputs.vectors import VectorsInputConfig
from perceiver_policy.queries.input import InputQueryConfig
from perceiver_policy.queries.learned import LearnedQueryConfig
from perceiver_policy.queries.multimodal import ModalityQueryConfig, MultimodalQueryConfig
from perceiver_policy.queries.task import TaskQueryConfig

InputConfig = ModalityInputConfig | MultimodalInputConfig
QueryConfig = ModalityQueryConfig | MultimodalQueryConfig
HeadConfig = (
    ClassificationHeadConfig
    | PooledClassificationHeadConfig
    | TokenClassificationHeadConfig
    | TiedEmbeddingHeadConfig
    | MultitaskHeadConfig
    | FlowHeadConfig
    | MultimodalHeadConfig
)


@dataclass(frozen=True)
class PerceiverIOConfig(Config):
    """A Perceiver or Perceiver IO model, whole.

    Query and decoder stay away together, for a head that reads the latents themselves; a head may stay away,
    and the model's output is the decoder's answers, or the latents.
    """

    kind: ClassVar[str] = "perceiver_io"

    input: InputConfig = field(default_factory=VectorsInputConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    query: QueryConfig | None = field(default_factory=LearnedQueryConfig)
    decoder: DecoderConfig | None = field(default_factory=DecoderConfig)
    head: HeadConfig | None = None
    mask_queries: bool = False  # whether the query of an absent input gets nothing from the latents
    initialisation: Initialisation = Initialisation.PAPER

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            (self.query is None) == (self.decoder is None), "decoder", "query and decoder go together"
        )
        pooled = isinstance(self.head, PooledClassificationHeadConfig)
        rule = "a pooled_classification head reads latents: it goes without query and decoder, others with"
        self._require(self.head is None or pooled == (self.decoder is None), "head", rule)
        tied = isinstance(self.head, TiedEmbeddingHeadConfig)
        rule = "a tied_embedding head needs a text input, whose embedding it reads"
        self._require(not tied or isinstance(self.input, TextInputConfig), "head", rule)
        multimodal = isinstance(self.head, MultimodalHeadConfig)
        rule = "a multimodal head needs a multimodal query"
        self._require(not multimodal or isinstance(self.query, MultimodalQueryConfig), "head", rule)
        multitask = isinstance(self.head, MultitaskHeadConfig)
        rule = "a multitask head needs a task query"
        self._require(not multitask or isinstance(self.query, TaskQueryConfig), "head", rule)
        match self.query, self.head:
            case MultimodalQueryConfig(modalities=names), MultimodalHeadConfig(reconstruction=read):
                self._require_read(names, read.widths(), "query.modalities")
            case TaskQueryConfig(tasks=names), MultitaskHeadConfig(num_outputs=read):
                self._require_read(names, read, "query.tasks")
        if isinstance(self.input, TextInputConfig) and isinstance(self.query, LearnedQueryConfig):
            longest, count = self.input.max_length, self.query.num_queries
            if self.query.one_per_input and count < longest:
                raise ConfigError(
                    f"{type(self).__name__}.query.num_queries is {count}; with one_per_input it must be at "
                    f"least input.max_length, {longest}"
                )
        rule = "queries that follow the inputs, of kind input or with one_per_input, can be masked with them"
        follows = isinstance(self.query, InputQueryConfig) or getattr(self.query, "one_per_input", False)
        self._require(not self.mask_queries or follows, "mask_queries", rule)

    def _require_read(self, names: Iterable[str], readable: Iterable[str], where: str) -> None:
        for name in names:
            if name not in readable:
                raise ConfigError(
                    f"{type(self).__name__}.{where} names {name!r}, which the head does not read; "
                    f"{nearest(name, readable)}"
                )
