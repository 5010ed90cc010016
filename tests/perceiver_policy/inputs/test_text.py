"""Text as tokens: against Hugging Face's preprocessor and tokenizer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import PerceiverConfig, PerceiverTokenizer
from transformers.models.perceiver.modeling_perceiver import PerceiverTextPreprocessor

from perceiver_policy.inputs.text import ByteTokenizer, SpecialToken, TextInput, TextInputConfig

TEXTS = ["", "attack", "Größe: 3 µm", "戦争と平和 🙂", "\x00\x7f\n"]


def build() -> TextInput:
    return TextInput(TextInputConfig(20, 8, 7))


@pytest.mark.parametrize("length", [1, 5, 7])
def test_equals_hugging_faces_preprocessor(length: int) -> None:
    theirs = PerceiverTextPreprocessor(PerceiverConfig(vocab_size=20, d_model=8, max_position_embeddings=7))
    ours = build()
    weights = theirs.state_dict()
    ours.load_state_dict(
        {
            "embedding.weight": weights["embeddings.weight"],
            "positions.table": weights["position_embeddings.weight"],
        }
    )
    ids = torch.randint(0, 20, (3, length))
    mask = torch.rand(3, length) < 0.5
    tokens = ours(ids, mask)
    torch.testing.assert_close(tokens.dense(), theirs(ids)[0], rtol=0, atol=0)
    assert tokens.mask is mask
    assert ours.num_channels == theirs.num_channels


def test_published_sizes() -> None:
    adapter = TextInput(TextInputConfig())
    assert adapter.num_channels == 768
    assert adapter.embedding.weight.shape == (262, 768)
    assert adapter.positions.table.shape == (2048, 768)


def test_text_beyond_the_table_of_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="8 positions are asked for, but the learned table has 7"):
        build()(torch.zeros(1, 8, dtype=torch.int64))


@pytest.mark.parametrize("ids", [torch.zeros(5, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.int64)])
def test_ids_of_another_shape_are_refused(ids: Tensor) -> None:
    with pytest.raises(ValueError, match=r"ids have shape \(.*\); expected \(B, L\)"):
        build()(ids)


def test_ids_that_are_no_whole_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ids are torch\.float32; expected torch\.int64"):
        build()(torch.zeros(2, 5))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("special_tokens", [True, False])
def test_tokenizer_equals_hugging_faces(text: str, special_tokens: bool) -> None:
    ours, theirs = ByteTokenizer(), PerceiverTokenizer()
    ids = ours.encode(text, special_tokens=special_tokens)
    assert ids == theirs(text, add_special_tokens=special_tokens).input_ids
    assert ours.decode(ids) == text
    shown = theirs.decode(ids, skip_special_tokens=False)
    assert ours.decode(torch.tensor(ids), skip_special_tokens=False) == shown
    assert ours.vocabulary_size == len(theirs.get_vocab())


def test_special_tokens_are_hugging_faces() -> None:
    theirs = PerceiverTokenizer()
    for token in SpecialToken:
        assert theirs.convert_tokens_to_ids(f"[{token.name}]") == token


def test_padding_equals_hugging_faces() -> None:
    ours, theirs = ByteTokenizer(), PerceiverTokenizer()
    for length in (None, 40):
        how = {"padding": "longest"} if length is None else {"padding": "max_length", "max_length": length}
        batch = theirs(TEXTS, return_tensors="pt", **how)
        ids, mask = ours.pad([ours.encode(text) for text in TEXTS], length)
        assert torch.equal(ids, batch.input_ids)
        assert torch.equal(mask, batch.attention_mask.bool())


def test_bytes_that_are_no_text_are_marked() -> None:
    assert ByteTokenizer().decode([0xFF + 6, ord("a") + 6]) == "\ufffda"


@pytest.mark.parametrize("index", [-1, 262])
def test_ids_of_no_byte_are_refused(index: int) -> None:
    with pytest.raises(ValueError, match=f"{index} is no id of a byte; allowed: 0 to 261"):
        ByteTokenizer().decode([70, index])


def test_padding_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="a sequence has 3 ids and is to be padded to 2"):
        ByteTokenizer().pad([[7, 8, 9]], 2)
    with pytest.raises(ValueError, match="no sequences"):
        ByteTokenizer().pad([])
