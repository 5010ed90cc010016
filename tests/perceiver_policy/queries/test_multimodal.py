"""Queries of several modalities: flat indices by hand, parts against the whole, and the peers' queries."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perceiver_policy.config import ConfigError, DecoderConfig
from perceiver_policy.core import PerceiverDecoder
from perceiver_policy.inputs.grid import FourierPositionConfig
from perceiver_policy.queries.input import InputQuery, InputQueryConfig
from perceiver_policy.queries.learned import LearnedQuery, LearnedQueryConfig
from perceiver_policy.queries.multimodal import (
    MultimodalQuery,
    MultimodalQueryConfig,
    flatten_index,
    locate,
    split,
)
from perceiver_policy.queries.position import PositionQuery, PositionQueryConfig
from perceiver_policy.queries.provider import QueryProvider
from perceiver_policy.tokens import Tokens

SIZES = {"label": 1, "image": 4, "audio": 3}  # audio 0-2, image 3-6, label 7
UNITS = range(2, 5)
TOKENS = Tokens(
    torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0)),
    ranges={"map": range(2), "units": UNITS},
)


def build(**modalities: LearnedQueryConfig | PositionQueryConfig | InputQueryConfig) -> MultimodalQuery:
    torch.manual_seed(0)
    providers: dict[str, QueryProvider] = {}
    for name, config in modalities.items():
        if isinstance(config, LearnedQueryConfig):
            providers[name] = LearnedQuery(config)
        elif isinstance(config, PositionQueryConfig):
            providers[name] = PositionQuery(config)
        else:
            providers[name] = InputQuery(config, num_input_channels=6)
    return MultimodalQuery(MultimodalQueryConfig(dict(modalities)), providers)


def audiovisual(inclusive: bool = True) -> MultimodalQuery:
    return build(
        label=LearnedQueryConfig(1, 20),
        image=PositionQueryConfig((2, 3, 4), FourierPositionConfig((2, 3, 4), num_bands=2), inclusive),
        audio=PositionQueryConfig((7,), FourierPositionConfig((28,), num_bands=3), inclusive),
    )


def test_flat_indices_by_hand() -> None:
    index = {"image": torch.tensor([3, 1]), "label": None}
    assert flatten_index(SIZES, index).tolist() == [6, 4, 7]
    assert flatten_index(SIZES, {"label": None, "audio": None}).tolist() == [0, 1, 2, 7]
    assert flatten_index(SIZES, {}).tolist() == []
    located = locate(SIZES, torch.tensor([7, 4, 0, 6, 2]))
    assert list(located) == ["audio", "image", "label"]
    assert {name: (place.tolist(), own.tolist()) for name, (place, own) in located.items()} == {
        "audio": ([2, 4], [0, 2]),
        "image": ([1, 3], [1, 3]),
        "label": ([0], [0]),
    }
    assert list(locate(SIZES, torch.tensor([4]))) == ["image"]


def test_answers_come_back_by_modality() -> None:
    index = torch.tensor([7, 4, 0, 6, 2])
    answers = index.double().view(1, 5, 1).expand(2, -1, 3)
    parts = split(answers, SIZES, index)
    assert {name: part[1, :, 2].tolist() for name, part in parts.items()} == {
        "audio": [0, 2],
        "image": [4, 6],
        "label": [7],
    }
    whole = split(torch.arange(8.0).view(1, 8, 1), SIZES)
    assert {name: part.flatten().tolist() for name, part in whole.items()} == {
        "audio": [0, 1, 2],
        "image": [3, 4, 5, 6],
        "label": [7],
    }


@pytest.mark.parametrize("inclusive", [True, False])
def test_parts_that_straddle_modalities_equal_their_rows_of_the_whole(inclusive: bool) -> None:
    query = audiovisual(inclusive)
    whole = query(TOKENS)
    assert whole.shape == (7 + 24 + 1, 20 + 2)
    assert query.num_queries(TOKENS) == 32
    chunks = [query(TOKENS, chunk) for chunk in torch.arange(32).split(5)]
    assert torch.equal(torch.cat(chunks), whole)
    index = torch.tensor([31, 3, 30, 8, 3, 0])
    assert torch.equal(query(TOKENS, index), whole[index])
    assert query(TOKENS, torch.arange(0)).shape == (0, 22)


def test_decoding_in_chunks_equals_decoding_at_once() -> None:
    query = build(units=InputQueryConfig(), text=LearnedQueryConfig(5, 4))
    decoder = PerceiverDecoder(DecoderConfig(), num_query_channels=8, num_latent_channels=6)
    latents = torch.randn(2, 3, 6)
    whole = decoder(query(TOKENS), latents)
    chunks = [decoder(query(TOKENS, chunk), latents) for chunk in torch.arange(8).split(3)]
    torch.testing.assert_close(torch.cat(chunks, 1), whole)


def test_each_modality_is_its_provider_and_its_padding() -> None:
    query = audiovisual()
    rows = split(query(TOKENS).unsqueeze(0), query.sizes(TOKENS))
    for name, provider in query.providers.items():
        expected = provider(TOKENS)
        width = expected.shape[-1]
        assert torch.equal(rows[name][0, :, :width], expected)
        padding: Tensor = query.padding.vectors[name]  # type: ignore[assignment]
        assert torch.equal(rows[name][0, :, width:], padding.expand(len(expected), -1))
    rows["image"].sum().backward()
    grads = {name: bool(vector.grad.any()) for name, vector in query.padding.vectors.items()}
    assert grads == {"audio": False, "image": True, "label": False}


def test_a_modality_of_the_input_asks_with_its_own_tokens() -> None:
    query = build(units=InputQueryConfig(), text=LearnedQueryConfig(5, 4))
    assert query.sizes(TOKENS) == {"text": 5, "units": 3}
    whole = query(TOKENS)
    assert whole.shape == (2, 8, 8)
    assert torch.equal(whole[:, 5:, :6], TOKENS.content[:, 2:])
    assert torch.equal(whole[0, :5], whole[1, :5])
    index = torch.tensor([7, 1, 5])
    assert torch.equal(query(TOKENS, index), whole[:, index])
    missing = TOKENS._replace(ranges={"map": range(5), "units": range(5, 5)})
    assert query.sizes(missing) == {"text": 5, "units": 0}
    assert torch.equal(query(missing), whole[:, :5])


def test_the_order_of_the_dictionary_changes_nothing() -> None:
    configs = {"text": LearnedQueryConfig(5, 4), "move": LearnedQueryConfig(2, 3)}
    one, other = build(**configs), build(**dict(reversed(configs.items())))
    assert list(one.state_dict()) == list(other.state_dict())
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(TOKENS), other(TOKENS))
    assert torch.equal(one(TOKENS)[:2, :3], one.providers["move"](TOKENS))


def test_released_widths() -> None:
    query = build(
        label=LearnedQueryConfig(1, 1024),
        image=PositionQueryConfig((16, 224, 224), FourierPositionConfig((16, 56, 56), num_bands=32)),
        audio=PositionQueryConfig((1920,), FourierPositionConfig((30720,), num_bands=192)),
    )
    assert query.num_channels == 1026
    assert {name: len(vector) for name, vector in query.padding.vectors.items()} == {
        "audio": 641,
        "image": 831,
        "label": 2,
    }
    assert query.num_queries(TOKENS) == 1920 + 16 * 224 * 224 + 1
    last_sound, first_pixel = query(TOKENS, torch.tensor([1919, 1920]))
    assert last_sound[0] == 1
    assert first_pixel[:3].tolist() == [-1, -1, -1]


def test_agrees_with_hugging_face() -> None:
    from transformers import PerceiverConfig
    from transformers.models.perceiver import modeling_perceiver as peer

    config = PerceiverConfig(d_latents=8, num_labels=5)
    plain = {"concat_preprocessed_input": False, "use_query_residual": False, "position_encoding_only": True}
    fourier = {"position_encoding_type": "fourier", "output_num_channels": 6}
    audio_encoding = {"num_bands": 3, "max_resolution": (28,)}
    image_encoding = {"num_bands": 2, "max_resolution": (2, 8, 8)}
    torch.manual_seed(0)
    theirs = peer.PerceiverMultimodalDecoder(
        config,
        modalities={
            "label": peer.PerceiverClassificationDecoder(
                config,
                trainable_position_encoding_kwargs={"num_channels": 20, "index_dims": 1},
                **plain,
            ),
            "audio": peer.PerceiverBasicDecoder(
                config,
                output_index_dims=(7,),
                fourier_position_encoding_kwargs=audio_encoding,
                **plain,
                **fourier,
            ),
            "image": peer.PerceiverBasicVideoAutoencodingDecoder(
                config,
                output_shape=[1, 2, 3, 4],
                fourier_position_encoding_kwargs=image_encoding,
                **plain,
                **fourier,
            ),
        },
        num_outputs=None,
        output_num_channels=6,
    )
    ours = build(
        label=LearnedQueryConfig(1, 20),
        image=PositionQueryConfig((2, 3, 4), FourierPositionConfig((2, 8, 8), num_bands=2), False),
        audio=PositionQueryConfig((7,), FourierPositionConfig((28,), num_bands=3), False),
    )
    assert ours.num_channels == theirs.num_query_channels
    label = theirs.modalities["label"].decoder.output_position_encodings.position_embeddings
    with torch.no_grad():
        ours.providers["label"].query.copy_(label)
        for name, vector in ours.padding.vectors.items():
            vector.copy_(theirs.padding[name][0])
    subset = {"audio": torch.tensor([6, 0, 2]), "image": torch.tensor([23, 5]), "label": None}
    expected = theirs.decoder_query(
        torch.zeros(1, 32, 4), {"audio": 7, "image": 24, "label": 1}, subsampled_points=subset
    )
    assert torch.equal(ours(TOKENS, flatten_index(ours.sizes(TOKENS), subset)), expected[0])


def test_refuses_what_is_not_asked_for_anything() -> None:
    query = audiovisual()
    with pytest.raises(ValueError, match=r"query 32 is asked of the modalities .*; allowed: 0 to 31"):
        query(TOKENS, torch.tensor([3, 32]))
    with pytest.raises(ValueError, match="query -1 is asked"):
        query(TOKENS, torch.tensor([-1]))
    with pytest.raises(ValueError, match=r"unknown modality 'adio'; did you mean audio\?"):
        flatten_index(SIZES, {"adio": None})
    with pytest.raises(ValueError, match="query 4 is asked of modality 'image'; allowed: 0 to 3"):
        flatten_index(SIZES, {"image": torch.tensor([4])})
    with pytest.raises(ValueError, match="there are 7 answers to 8 queries"):
        split(torch.zeros(1, 7, 2), SIZES)
    with pytest.raises(ValueError, match="there are 7 answers to 2 queries"):
        split(torch.zeros(1, 7, 2), SIZES, torch.tensor([0, 1]))


def test_refuses_configurations_that_fit_nothing() -> None:
    label = LearnedQueryConfig(1, 20)
    with pytest.raises(ConfigError, match="num_channels is 21; it must be at least 22, the 20 channels"):
        MultimodalQuery(
            MultimodalQueryConfig({"label": label}, num_channels=21), {"label": LearnedQuery(label)}
        )
    with pytest.raises(ConfigError, match=r"query providers for \['audio'\]; .* modalities are \['label'\]"):
        MultimodalQuery(MultimodalQueryConfig({"label": label}), {"audio": LearnedQuery(label)})
    with pytest.raises(ConfigError, match="modalities is empty"):
        MultimodalQueryConfig({})
    for name in ("", "a.b", "keys", "training"):
        with pytest.raises(ConfigError, match="choose another, such as modality_1"):
            MultimodalQueryConfig({name: label})


def test_configuration_comes_back_from_a_plain_dict() -> None:
    config = MultimodalQueryConfig(
        {"units": InputQueryConfig(3), "image": PositionQueryConfig((2, 3)), "label": LearnedQueryConfig()}
    )
    data = config.to_dict()
    assert data["modalities"]["image"]["kind"] == "position"
    assert MultimodalQueryConfig.from_dict(data) == config
