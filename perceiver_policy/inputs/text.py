"""Text as tokens: bytes or pieces of words, embedded, plus learned positions.

    token_l = E[id_l] + p_l

Perceiver IO, arXiv:2107.14795, reads UTF-8 bytes, 262 symbols, for which no vocabulary need be learned:
:class:`ByteTokenizer`. Any other tokenizer's ids do as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import torch
from torch import Tensor, nn

from perceiver_policy.config import LARGEST_VOCABULARY, Config
from perceiver_policy.inputs.adapter import InputAdapter, require_mask, require_shape
from perceiver_policy.position import LearnedPositions
from perceiver_policy.tokens import Tokens

EMBEDDING_INIT_STD = 0.02


class SpecialToken(IntEnum):
    """Ids of :class:`ByteTokenizer` that are no bytes."""

    PAD = 0
    BOS = 1
    EOS = 2
    MASK = 3
    CLS = 4
    SEP = 5


@dataclass(frozen=True)
class TextInputConfig(Config):
    """Text."""

    kind: ClassVar[str] = "text"
    maximum: ClassVar[Mapping[str, int]] = {
        "vocabulary_size": LARGEST_VOCABULARY,
        "max_length": LARGEST_VOCABULARY,
    }

    vocabulary_size: int = 262
    num_channels: int = 768
    max_length: int = 2048  # rows of the table of positions


class TextInput(InputAdapter):
    """Ids to tokens.

    Args:
        config: sizes.

    Attributes:
        embedding: the table of ids, (vocabulary_size, num_channels), for a head that shares it.
    """

    def __init__(self, config: TextInputConfig) -> None:
        super().__init__()
        self.config = config
        self.num_channels = config.num_channels
        self.embedding = nn.Embedding(config.vocabulary_size, config.num_channels)
        nn.init.trunc_normal_(self.embedding.weight, std=EMBEDDING_INIT_STD)
        self.positions = LearnedPositions(config.max_length, config.num_channels)

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tokens:
        """Make tokens.

        Args:
            inputs: (B, L) int64 in [0, vocabulary_size), L at most max_length.
            mask: (B, L) bool, True where a token is present, False on padding.

        Raises:
            ValueError: another shape or type, or a text longer than the table of positions.
            IndexError: an id beyond the vocabulary, on the CPU.
        """
        require_shape("ids", inputs, "B", "L", floating=False)
        require_mask(mask, *inputs.shape)
        return Tokens(self.embedding(inputs) + self.positions(inputs.shape[1]), mask)


class ByteTokenizer:
    """UTF-8 bytes as ids: byte b is b + 6, below that are the :class:`SpecialToken`.

    Nothing in a text is special: "[MASK]" is six bytes. To mask, put ``SpecialToken.MASK`` among the ids.
    """

    vocabulary_size = len(SpecialToken) + 256

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """The ids of a text.

        Args:
            text: any.
            special_tokens: whether CLS comes before it and SEP after it, as the published model was trained.
        """
        ids = [byte + len(SpecialToken) for byte in text.encode()]
        return [SpecialToken.CLS.value, *ids, SpecialToken.SEP.value] if special_tokens else ids

    def pad(self, sequences: Sequence[Sequence[int]], length: int | None = None) -> tuple[Tensor, Tensor]:
        """Sequences of ids as one batch.

        Args:
            sequences: B of them.
            length: L; that of the longest if None.

        Returns:
            ids (B, L) int64, PAD where a sequence has ended; mask (B, L) bool, True where it has not.

        Raises:
            ValueError: no sequences, or one longer than ``length``.
        """
        if not sequences:
            raise ValueError("there are no sequences to pad; give at least one")
        longest = max(map(len, sequences))
        length = longest if length is None else length
        if longest > length:
            raise ValueError(
                f"a sequence has {longest} ids and is to be padded to {length}; shorten it first"
            )
        ids = torch.full((len(sequences), length), SpecialToken.PAD.value)
        mask = torch.zeros(len(sequences), length, dtype=torch.bool)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.int64)
            mask[row, : len(sequence)] = True
        return ids, mask

    def decode(self, ids: Iterable[int] | Tensor, *, skip_special_tokens: bool = True) -> str:
        """The text of ids; bytes that are no valid UTF-8 become U+FFFD.

        Args:
            ids: (L,) in [0, 262).
            skip_special_tokens: False writes them as ``[MASK]`` and the like.

        Raises:
            ValueError: an id out of range.
        """
        text = bytearray()
        for index in ids.tolist() if isinstance(ids, Tensor) else ids:
            if not 0 <= index < self.vocabulary_size:
                raise ValueError(f"{index} is no id of a byte; allowed: 0 to {self.vocabulary_size - 1}")
            if index >= len(SpecialToken):
                text.append(index - len(SpecialToken))
            elif not skip_special_tokens:
                text += f"[{SpecialToken(index).name}]".encode()
        return text.decode(errors="replace")
