"""PerceiverIO: any input, any output, from one configuration.

    inputs → input adapter → tokens → encoder → latents ┐
                             query  →         → decoder → answers → head → outputs

    model = PerceiverIO(load_named("perceiver-io-imagenet-fourier", PerceiverIOConfig))
    logits = model(images)

What inputs and outputs look like is said by the input adapter and the head of the configuration. Latents and
answers can be had apart (:meth:`PerceiverIO.encode`, :meth:`PerceiverIO.decode`): to ask several times, for
some outputs only, with queries of one's own, or to start from the latents of the time step before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from perceiver_policy.builders import build_head, build_input, build_query
from perceiver_policy.config import Config
from perceiver_policy.core import PerceiverDecoder, PerceiverEncoder
from perceiver_policy.heads.flow import FlowHead
from perceiver_policy.heads.multimodal import MultimodalHead
from perceiver_policy.heads.multitask import MultitaskHead
from perceiver_policy.heads.token import TiedEmbeddingHead
from perceiver_policy.hub import HubModel
from perceiver_policy.initialisation import initialise
from perceiver_policy.inputs.text import TextInput
from perceiver_policy.model_config import PerceiverIOConfig
from perceiver_policy.queries.input import InputQuery
from perceiver_policy.queries.multimodal import MultimodalQuery, check_range, flatten_index
from perceiver_policy.queries.position import PositionQuery
from perceiver_policy.queries.provider import QueryProvider
from perceiver_policy.queries.task import TaskQuery
from perceiver_policy.tokens import Tokens

Index = Tensor | Mapping[str, Tensor | None]
"""Which outputs: numbers (k,) int64, or such numbers by modality (None: all of it) for multimodal queries."""
Output = Tensor | dict[str, Tensor]
"""What a head gives: one tensor, or one for each task or modality."""


class Encoding(NamedTuple):
    """Inputs that were read."""

    latents: Tensor  # (B, N, D)
    tokens: Tokens


class PerceiverIO(nn.Module, HubModel):
    """A Perceiver or Perceiver IO model; see the module docstring.

    Args:
        config: the whole model.

    Raises:
        ConfigError: parts that do not fit each other.
    """

    config_class: ClassVar[type[Config]] = PerceiverIOConfig

    def __init__(self, config: PerceiverIOConfig) -> None:
        super().__init__()
        self.config = config
        self.input = build_input(config.input)
        self.encoder = PerceiverEncoder(config.encoder, self.input.num_channels)
        num_latent_channels = num_answer_channels = config.encoder.num_latent_channels
        self.query: QueryProvider | None = None
        self.decoder: PerceiverDecoder | None = None
        self.head: nn.Module | None = None
        if config.query is not None and config.decoder is not None:
            self.query = build_query(config.query, self.input)
            num_answer_channels = self.query.num_channels
            config.decoder.check_query_channels(num_answer_channels)
            self.decoder = PerceiverDecoder(config.decoder, num_answer_channels, num_latent_channels)
        if config.head is not None:
            self.head = build_head(config.head, num_channels=num_answer_channels)
        if isinstance(self.head, TiedEmbeddingHead) and isinstance(self.input, TextInput):
            self.head.check_embedding(self.input.embedding.weight)
        initialise(self, config.initialisation)

    def forward(
        self,
        inputs: Any,
        mask: Tensor | None = None,
        *,
        queries: Tensor | None = None,
        index: Index | None = None,
        chunk_size: int | None = None,
        latents: Tensor | None = None,
    ) -> Output:
        """Read inputs and give outputs. Arguments as for :meth:`encode` and :meth:`decode`."""
        encoding = self.encode(inputs, mask, latents)
        return self.decode(encoding, queries=queries, index=index, chunk_size=chunk_size)

    def encode(self, inputs: Any, mask: Tensor | None = None, latents: Tensor | None = None) -> Encoding:
        """Read inputs.

        Args:
            inputs: as the input adapter takes them.
            mask: (B, M) bool, True where an input is present; None when all are.
            latents: (B, N, D) float to start from; None: the learned ones.

        Raises:
            ValueError: inputs that the adapter does not take, or latents of another shape.
        """
        tokens = self.input(inputs, mask)
        return Encoding(self.encoder(tokens, latents=latents), tokens)

    def decode(
        self,
        encoding: Encoding,
        *,
        queries: Tensor | None = None,
        index: Index | None = None,
        chunk_size: int | None = None,
    ) -> Output:
        """Give outputs.

        Args:
            encoding: what :meth:`encode` returned.
            queries: (B, K, Q) or (K, Q) float of one's own, instead of the model's.
            index: which of the model's outputs; None: all.
            chunk_size: how many at a time, which bounds memory and changes nothing else; None: all at once.

        Returns:
            What the head makes of the answers (B, K, Q); the answers where there is no head; what is made of
            the latents, or they themselves, where there is no decoder.

        Raises:
            ValueError: queries of another shape, queries and an index, an index of outputs there are not, a
                chunk size below 1, or queries or an index without a decoder.
        """
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1, or None for all at once")
        if self.decoder is None or self.query is None:
            if queries is not None or index is not None:
                raise ValueError("the model has no decoder: it gives one output, without queries or index")
            return encoding.latents if self.head is None else self.head(encoding.latents)
        flat = self._flat(index, encoding.tokens)
        if queries is not None:
            self._require_queries(queries, flat, len(encoding.latents))
            count = queries.shape[-2]
        else:
            count = self.query.num_queries(encoding.tokens) if flat is None else len(flat)
        if chunk_size is None or count <= chunk_size:
            output = self._answer(encoding, queries, flat)
        else:
            parts = []
            numbers = torch.arange(count, device=encoding.latents.device) if flat is None else flat
            for start in range(0, count, chunk_size):
                part = slice(start, start + chunk_size)
                if queries is None:
                    parts.append(self._answer(encoding, None, numbers[part]))
                else:
                    parts.append(self._answer(encoding, queries[..., part, :], None))
            output = _join(parts)
        whole = queries is None and flat is None
        return self._shape(output, encoding.tokens) if whole else output

    def _answer(self, encoding: Encoding, queries: Tensor | None, index: Tensor | None) -> Output:
        """The head's outputs for some queries, point by point."""
        latents, tokens = encoding
        assert self.query is not None
        assert self.decoder is not None
        query_mask = None
        if queries is None:
            queries = self.query(tokens, index)
            if self.config.mask_queries and tokens.mask is not None:
                query_mask = tokens.mask if index is None else tokens.mask[:, index]
        answers = self.decoder(queries, latents, query_mask)
        match self.head:
            case None:
                return answers
            case TiedEmbeddingHead():
                assert isinstance(self.input, TextInput)
                return self.head(answers, self.input.embedding.weight)
            case MultitaskHead():
                assert isinstance(self.query, TaskQuery)
                tasks = self.query.tasks if index is None else [self.query.tasks[i] for i in index.tolist()]
                return self.head(answers, tasks)
            case MultimodalHead():
                assert isinstance(self.query, MultimodalQuery)
                return self.head(answers, self.query.sizes(tokens), index)
            case _:
                return self.head(answers)

    def _shape(self, output: Output, tokens: Tokens) -> Output:
        """All of a grid's points, in its shape."""
        if not isinstance(self.head, FlowHead):
            return output
        assert isinstance(output, Tensor)
        if isinstance(self.query, PositionQuery):
            return output.unflatten(1, self.query.shape)
        if isinstance(self.query, InputQuery) and tokens.shape is not None:
            return output.unflatten(1, tokens.shape)
        return output

    def _flat(self, index: Index | None, tokens: Tokens) -> Tensor | None:
        """The index as one tensor."""
        assert self.query is not None
        if isinstance(index, Mapping):
            if not isinstance(self.query, MultimodalQuery):
                raise ValueError("an index by modality needs a multimodal query; give numbers (k,) int64")
            return flatten_index(self.query.sizes(tokens), index).to(tokens.content.device)
        if index is not None:
            if index.dim() != 1 or index.dtype not in (torch.int64, torch.int32):
                raise ValueError(f"the index is {index.dtype} {tuple(index.shape)}; expected int64 (k,)")
            if not torch.compiler.is_compiling():  # to look at the numbers would break the graph
                check_range(index, self.query.num_queries(tokens), "the model")
        return index

    def _require_queries(self, queries: Tensor, index: Tensor | None, batch: int) -> None:
        assert self.query is not None
        if index is not None:
            raise ValueError("queries and index are given; an index chooses among the model's own queries")
        if isinstance(self.head, (MultitaskHead, MultimodalHead)):
            raise ValueError(
                f"a {type(self.head).__name__} needs to know what each query asks for: it takes no queries "
                "from outside; use index, or a model without head"
            )
        width = self.query.num_channels
        fits = queries.dim() == 2 or (queries.dim() == 3 and len(queries) == batch)
        if not fits or queries.shape[-1] != width:
            raise ValueError(
                f"queries have shape {tuple(queries.shape)}; expected ({batch}, K, {width}) or (K, {width})"
            )


def _join(parts: list[Output]) -> Output:
    """Outputs of chunks one after another, (B, K, ...) each; or so by task or modality."""
    if isinstance(parts[0], Tensor):
        return torch.cat([part for part in parts if isinstance(part, Tensor)], dim=1)
    by_name: dict[str, list[Tensor]] = {}
    for part in parts:
        assert isinstance(part, dict)
        for name, tensor in part.items():
            by_name.setdefault(name, []).append(tensor)
    return {name: t[0] if len(t) == 1 else torch.cat(t, dim=1) for name, t in by_name.items()}
