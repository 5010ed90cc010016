"""Inputs and heads of several modalities, and masking and dropout counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from perceiver_policy.config import ConfigError, EncoderConfig
from perceiver_policy.core import PerceiverEncoder
from perceiver_policy.heads.multimodal import MultimodalHead, MultimodalHeadConfig
from perceiver_policy.heads.reconstruction import ReconstructionHeadConfig
from perceiver_policy.inputs.audio import AudioInput, AudioInputConfig
from perceiver_policy.inputs.grid import FourierPositionConfig
from perceiver_policy.inputs.label import LabelInput, LabelInputConfig
from perceiver_policy.inputs.multimodal import MultimodalInput, MultimodalInputConfig
from perceiver_policy.inputs.text import TextInputConfig
from perceiver_policy.inputs.vectors import VectorsInput, VectorsInputConfig
from perceiver_policy.inputs.video import VideoInput, VideoInputConfig

WIDTHS = {"audio": 3, "image": 6, "label": 5}
COUNTS = {"audio": 4, "image": 2, "label": 1}


def config(**fields: Any) -> MultimodalInputConfig:
    return MultimodalInputConfig(
        {name: VectorsInputConfig(width) for name, width in WIDTHS.items()}, **fields
    )


def vectors(widths: dict[str, int]) -> dict[str, VectorsInput]:
    return {name: VectorsInput(VectorsInputConfig(width)) for name, width in widths.items()}


def build(**fields: Any) -> MultimodalInput:
    torch.manual_seed(0)
    return MultimodalInput(config(**fields), vectors(WIDTHS))


def rows(batch: int = 2) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {name: torch.randn(batch, COUNTS[name], WIDTHS[name], generator=g) for name in WIDTHS}


def test_modalities_are_padded_and_follow_one_another() -> None:
    adapter, inputs = build(), rows()
    tokens = adapter(inputs)
    assert adapter.num_channels == 6 + 4
    assert tokens.mask is None
    assert tokens.ranges == {"audio": range(4), "image": range(4, 6), "label": range(6, 7)}
    for name, where in tokens.ranges.items():
        part = tokens.content[:, where.start : where.stop]
        assert torch.equal(part[..., : WIDTHS[name]], inputs[name])
        padding: Tensor = adapter.padding.vectors[name]  # type: ignore[assignment]
        assert torch.equal(part[..., WIDTHS[name] :], padding.expand(2, COUNTS[name], -1))
        assert torch.equal(tokens.of_modality(name).content, part)
    assert sum(p.numel() for p in adapter.parameters()) == 7 + 4 + 5


def test_the_order_of_the_dictionary_changes_nothing() -> None:
    one, inputs = build(), rows()
    other = MultimodalInput(
        MultimodalInputConfig(dict(reversed(one.config.modalities.items()))),
        vectors(dict(reversed(WIDTHS.items()))),
    )
    assert list(one.state_dict()) == list(other.state_dict())
    other.load_state_dict(one.state_dict())
    expected = one(inputs)
    result = other(dict(reversed(inputs.items())))
    assert torch.equal(result.content, expected.content)
    assert result.ranges == expected.ranges


def test_a_wider_sequence_if_configured() -> None:
    assert build(num_channels=16)(rows()).content.shape == (2, 7, 16)
    assert build(min_padding=0)(rows()).content.shape == (2, 7, 6)
    with pytest.raises(ConfigError, match="num_channels is 9; it must be at least 10, the 6 channels"):
        build(num_channels=9)


def test_agrees_with_hugging_face() -> None:
    from transformers import PerceiverConfig
    from transformers.models.perceiver import modeling_perceiver as peer

    peer_config = PerceiverConfig(samples_per_patch=4)
    peer_config.num_labels = 5
    torch.manual_seed(0)
    audio = peer.PerceiverAudioPreprocessor(
        peer_config,
        samples_per_patch=4,
        fourier_position_encoding_kwargs={"num_bands": 6, "max_resolution": (24,)},
    )
    image = peer.PerceiverImagePreprocessor(
        peer_config,
        prep_type="patches",
        spatial_downsample=4,
        temporal_downsample=1,
        position_encoding_type="fourier",
        fourier_position_encoding_kwargs={"num_bands": 2, "max_resolution": (2, 8, 8)},
    )
    theirs = peer.PerceiverMultimodalPreprocessor(
        modalities={
            "label": peer.PerceiverOneHotPreprocessor(peer_config),
            "audio": audio,
            "image": image,
        },
        mask_probs={"image": 0.0, "audio": 0.0, "label": 1.0},
        min_padding_size=4,
    ).eval()
    modalities = {
        "label": LabelInputConfig(5),
        "audio": AudioInputConfig(4, FourierPositionConfig((24,), num_bands=6)),
        "image": VideoInputConfig(position=FourierPositionConfig((2, 8, 8), num_bands=2)),
    }
    ours = MultimodalInput(
        MultimodalInputConfig(
            modalities,
            mask_probability={"image": 0.0, "audio": 0.0, "label": 1.0},
            mask_in_evaluation=("label",),
        ),
        {
            "label": LabelInput(modalities["label"]),
            "audio": AudioInput(modalities["audio"]),
            "image": VideoInput(modalities["image"]),
        },
    ).eval()
    assert ours.num_channels == theirs.num_channels
    with torch.no_grad():
        for name in WIDTHS:
            ours.padding.vectors[name].copy_(theirs.padding[name][0])
            ours.mask_tokens[name].copy_(theirs.mask[name][0])
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    inputs = {
        "audio": torch.randn(2, 24),
        "image": torch.randn(2, 2, 3, 8, 8),
        "label": torch.rand(2, 5),
    }
    expected, sizes, _ = theirs(inputs | {"audio": inputs["audio"].unsqueeze(-1)})
    tokens = ours(inputs)
    assert torch.equal(tokens.content, expected)
    assert {name: len(where) for name, where in tokens.ranges.items()} == sizes


def test_released_widths() -> None:
    widths = {"audio": 16 + 385, "image": 48 + 195, "label": 700}
    adapter = MultimodalInput(config(), vectors(widths))
    assert adapter.num_channels == 704
    assert {name: len(vector) for name, vector in adapter.padding.vectors.items()} == {
        "audio": 303,
        "image": 461,
        "label": 4,
    }


@pytest.mark.parametrize("unit", ["example", "token"])
def test_masking_replaces_by_the_mask_token_as_often_as_configured(unit: str) -> None:
    adapter = build(mask_probability={"audio": 0.3, "label": 0.0}, mask_unit=unit)
    inputs = rows(2000)
    plain = adapter.eval()(inputs).content
    masked = adapter.train()(inputs).content
    token: Tensor = adapter.mask_tokens["audio"]  # type: ignore[assignment]
    replaced = (masked[:, :4] == token).all(-1)
    assert torch.equal(masked[:, :4][~replaced], plain[:, :4][~replaced])
    assert torch.equal(masked[:, 4:], plain[:, 4:])
    together = (replaced == replaced[:, :1]).all(1).double().mean()
    if unit == "example":
        assert together == 1
        assert 0.26 < replaced[:, 0].double().mean() < 0.34
    else:
        assert 0.28 < replaced.double().mean() < 0.32
        assert 0.20 < together < 0.30  # 0.3⁴ + 0.7⁴ = 0.248


def test_masking_in_evaluation_is_for_those_named() -> None:
    adapter = build(mask_probability={"audio": 1.0, "label": 1.0}, mask_in_evaluation=("label",))
    content = adapter.eval()(rows()).content
    assert torch.equal(content[:, 6:], adapter.mask_tokens["label"].expand(2, 1, -1))
    assert torch.equal(content[..., :4, :3], rows()["audio"])
    assert torch.equal(adapter.train()(rows()).content[0, 0], adapter.mask_tokens["audio"])


def test_dropout_takes_a_modality_out_of_some_examples_while_training() -> None:
    adapter = build(dropout={"image": 0.3})
    inputs = rows(2000)
    given = {"image": torch.tensor([True, False]).expand(2000, -1)}
    assert adapter.eval()(inputs).mask is None
    mask = adapter.train()(inputs, given).mask
    assert mask is not None
    assert mask[:, :4].all()
    assert mask[:, 6].all()
    assert not mask[:, 5].any()  # absent to begin with
    assert 0.66 < mask[:, 4].double().mean() < 0.74
    no_label = torch.tensor([True] * 6 + [False]).expand(2000, -1)
    mask = adapter(inputs, no_label).mask
    assert not mask[:, 6].any()
    assert 0.66 < mask[:, 4].double().mean() < 0.74
    both = adapter(inputs).mask
    assert torch.equal(both[:, 4], both[:, 5])


def test_an_encoder_reads_what_is_there() -> None:
    adapter, inputs = build(optional=("image",)).eval(), rows()
    encoder = PerceiverEncoder(EncoderConfig(), adapter.num_channels).eval()
    tokens = adapter({name: inputs[name] for name in ("label", "audio")})
    assert tokens.ranges == {"audio": range(4), "image": range(4, 4), "label": range(4, 5)}
    masked = adapter(inputs, {"image": torch.zeros(2, 2, dtype=torch.bool)})
    torch.testing.assert_close(encoder(tokens), encoder(masked))
    assert (encoder(adapter(inputs)) - encoder(masked)).abs().max() > 1e-3


def test_masks_by_modality_or_of_all_tokens() -> None:
    adapter, inputs = build(), rows()
    audio = torch.tensor([[True, False, True, True], [True, True, True, False]])
    expected = torch.cat((audio, torch.ones(2, 3, dtype=torch.bool)), 1)
    assert torch.equal(adapter(inputs, {"audio": audio}).mask, expected)
    assert torch.equal(adapter(inputs, expected).mask, expected)
    with pytest.raises(ValueError, match=r"bool \(2, 4\); expected torch.bool \(2, 7\)"):
        adapter(inputs, audio)
    with pytest.raises(ValueError, match="a mask for modality 'depth' and no input; given: audio, image"):
        adapter(inputs, {"depth": audio})
    with pytest.raises(ValueError, match=r"the mask is torch.int64 \(2, 7\); expected torch.bool"):
        adapter(inputs, expected.long())
    with pytest.raises(ValueError, match="inputs are a Tensor; expected a dict of modalities: audio, "):
        adapter(inputs["audio"])


def test_missing_and_unknown_modalities() -> None:
    adapter, inputs = build(optional=("image",)), rows()
    with pytest.raises(ValueError, match="unknown modality 'smell'; allowed: audio, image, label"):
        adapter(inputs | {"smell": inputs["audio"]})
    with pytest.raises(ValueError, match=r"modality 'label' is missing; given: audio\. Pass it, or name"):
        adapter({"audio": inputs["audio"]})
    with pytest.raises(ValueError, match="no modality is given; allowed: audio, image, label"):
        build(optional=("image", "audio", "label"))({})
    with pytest.raises(ValueError, match=r"batches differ in size: {'audio': 3, 'image': 2, 'label': 2}"):
        adapter(inputs | {"audio": torch.zeros(3, 4, 3)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"mask_probability": {"adio": 0.5}},
            "mask_probability names modality 'adio'; allowed: audio",
        ),
        ({"dropout": {"video": 0.3}}, "dropout names modality 'video'; allowed: audio, image, label"),
        ({"optional": ("video",)}, "optional names modality 'video'; allowed: audio, image, label"),
        ({"mask_in_evaluation": ("label",)}, "mask_in_evaluation names modality 'label'; allowed: none"),
        ({"mask_probability": {"audio": 1.5}}, "mask_probability is .*; probabilities are at most 1"),
        ({"dropout": {"audio": -0.1}}, "dropout is -0.1; it must be at least 0"),
    ],
)
def test_refuses_configurations_of_what_is_not_there(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**fields)


def test_refuses_adapters_of_other_names() -> None:
    with pytest.raises(ConfigError, match=r"adapters for \['audio'\]; the configuration's modalities are"):
        MultimodalInput(config(), {"audio": VectorsInput(VectorsInputConfig(3))})
    with pytest.raises(ConfigError, match="choose another, such as modality_1"):
        MultimodalInputConfig({"values": VectorsInputConfig(3)})


def test_configuration_comes_back_from_a_plain_dict() -> None:
    original = MultimodalInputConfig(
        {"text": TextInputConfig(), "label": LabelInputConfig(3)},
        mask_probability={"label": 0.5},
        mask_unit="token",
        dropout={"text": 0.25},
    )
    assert MultimodalInputConfig.from_dict(original.to_dict()) == original


def test_labels_are_one_token() -> None:
    labels = torch.eye(5)[:3]
    tokens = LabelInput(LabelInputConfig(5))(labels)
    assert torch.equal(tokens.dense(), labels.view(3, 1, 5))
    for wrong in (torch.zeros(3, 4), torch.zeros(3, 1, 5), torch.zeros(5)):
        with pytest.raises(ValueError, match=r"expected \(B, 5\)"):
            LabelInput(LabelInputConfig(5))(wrong)


SIZES = {"label": 1, "image": 6, "audio": 3}


def head(num_shared_channels: int | None = 6) -> MultimodalHead:
    torch.manual_seed(0)
    reconstruction = ReconstructionHeadConfig(num_audio_samples_per_patch=4, num_labels=5)
    return MultimodalHead(MultimodalHeadConfig(num_shared_channels, reconstruction), num_query_channels=8)


def test_head_agrees_with_hugging_face() -> None:
    from transformers import PerceiverConfig
    from transformers.models.perceiver import modeling_perceiver as peer

    peer_config = PerceiverConfig(samples_per_patch=4)
    peer_config.num_labels = 5
    theirs = peer.PerceiverMultimodalPostprocessor(
        modalities={
            "audio": peer.PerceiverAudioPostprocessor(peer_config, in_channels=6),
            "image": peer.PerceiverProjectionPostprocessor(in_channels=6, out_channels=3),
            "label": peer.PerceiverClassificationPostprocessor(peer_config, in_channels=6),
        }
    )
    ours = head()
    for name, module in theirs.modalities.items():
        ours.reconstruction.linears[name].load_state_dict(module.classifier.state_dict())
    answers = torch.randn(2, 10, 8)
    assert ours.shared is not None
    expected = theirs(answers @ ours.shared.weight.T + ours.shared.bias, modality_sizes=SIZES)
    points = ours(answers, SIZES)
    torch.testing.assert_close(points["audio"].flatten(1), expected["audio"])
    torch.testing.assert_close(points["image"], expected["image"])
    torch.testing.assert_close(points["label"], expected["label"])


@pytest.mark.parametrize("shared", [6, None])
def test_chunks_that_straddle_modalities_read_as_the_whole(shared: int | None) -> None:
    module, answers = head(shared), torch.randn(2, 10, 8)
    whole = module(answers, SIZES)
    chunks = [module(answers[:, chunk], SIZES, chunk) for chunk in torch.arange(10).split(4)]
    assert [set(chunk) for chunk in chunks] == [{"audio", "image"}, {"image"}, {"image", "label"}]
    for name in ("audio", "image"):
        joined = torch.cat([chunk[name] for chunk in chunks if name in chunk], 1)
        torch.testing.assert_close(joined, whole[name])
    torch.testing.assert_close(chunks[2]["label"], whole["label"])
    with pytest.raises(ValueError, match="unknown modality 'depth'; allowed: audio, image, label"):
        module(answers, {"depth": 10})
