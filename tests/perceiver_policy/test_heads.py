"""The simple heads, against their equations written out and, where there is one, Hugging Face's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from perceiver_policy.config import Config, ConfigError
from perceiver_policy.heads.classification import (
    ClassificationHead,
    ClassificationHeadConfig,
    PooledClassificationHead,
    PooledClassificationHeadConfig,
)
from perceiver_policy.heads.flow import FlowHead, FlowHeadConfig
from perceiver_policy.heads.multitask import GLUE, MultitaskHead, MultitaskHeadConfig
from perceiver_policy.heads.reconstruction import (
    ReconstructionHead,
    ReconstructionHeadConfig,
    frames,
    waveform,
)
from perceiver_policy.heads.token import (
    TiedEmbeddingHead,
    TiedEmbeddingHeadConfig,
    TokenClassificationHead,
    TokenClassificationHeadConfig,
)

CONFIGS = {
    "classification": ClassificationHeadConfig(num_classes=3),
    "pooled_classification": PooledClassificationHeadConfig(num_classes=3),
    "token_classification": TokenClassificationHeadConfig(num_labels=4),
    "tied_embedding": TiedEmbeddingHeadConfig(vocabulary_size=9),
    "multitask": MultitaskHeadConfig(num_outputs={"likeness": 1, "sst-2": 2}, num_hidden_channels=5),
    "flow": FlowHeadConfig(scale=0.2, zero_init=True),
    "reconstruction": ReconstructionHeadConfig(num_audio_samples_per_patch=None, num_labels=5),
}


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("kind", CONFIGS)
def test_configurations_come_back_from_plain_dicts(kind: str) -> None:
    config: Config = CONFIGS[kind]
    data = config.to_dict()
    assert data["kind"] == kind
    assert type(config).from_dict(data) == config
    assert type(config)() != config


def test_classification_reads_one_answer() -> None:
    head = ClassificationHead(ClassificationHeadConfig(num_classes=3), num_query_channels=6)
    answers = normal(2, 1, 6)
    expected = torch.einsum("bq,cq->bc", answers.squeeze(1), head.linear.weight) + head.linear.bias
    torch.testing.assert_close(head(answers), expected)
    with pytest.raises(ValueError, match="there are 2 answers; ClassificationHead reads 1"):
        head(normal(2, 2, 6))


def test_pooled_classification_reads_the_mean_latent() -> None:
    head = PooledClassificationHead(PooledClassificationHeadConfig(num_classes=3), num_latent_channels=6)
    latents = normal(2, 5, 6)
    mean = torch.stack([latents[:, n] for n in range(5)]).sum(0) / 5
    torch.testing.assert_close(head(latents), F.linear(mean, head.linear.weight, head.linear.bias))
    # Perceiver, arXiv:2103.03206: 1.03 M of the ImageNet model's 44.9 M.
    paper = PooledClassificationHead(PooledClassificationHeadConfig(), num_latent_channels=1024)
    assert sum(p.numel() for p in paper.parameters()) == 1_025_000


def test_token_classification_reads_each_answer_alone() -> None:
    head = TokenClassificationHead(TokenClassificationHeadConfig(num_labels=4), num_query_channels=6)
    answers = normal(2, 5, 6)
    logits = head(answers)
    for k in range(5):
        torch.testing.assert_close(
            logits[:, k], F.linear(answers[:, k], head.linear.weight, head.linear.bias)
        )


def test_tied_embedding_has_a_bias_only_and_trains_the_embedding() -> None:
    head = TiedEmbeddingHead(TiedEmbeddingHeadConfig(vocabulary_size=9), num_query_channels=6)
    embedding = torch.nn.Embedding(9, 6)
    assert {name: p.shape for name, p in head.named_parameters()} == {"bias": (9,)}
    torch.nn.init.normal_(head.bias)
    answers = normal(2, 5, 6)
    logits = head(answers, embedding.weight)
    expected = torch.stack([answers @ row for row in embedding.weight], -1) + head.bias
    torch.testing.assert_close(logits, expected)
    logits[:, :, 3].sum().backward()
    assert embedding.weight.grad is not None
    torch.testing.assert_close(embedding.weight.grad[3], answers.sum((0, 1)))
    with pytest.raises(ValueError, match=r"shape \(9, 7\); TiedEmbeddingHead was made for \(9, 6\)"):
        head(answers, normal(9, 7))


def test_multitask_reads_each_answer_by_its_task() -> None:
    config = MultitaskHeadConfig(num_outputs={"likeness": 1, "sst-2": 2, "mnli": 3})
    head = MultitaskHead(config, num_query_channels=6)
    answers = normal(4, 2, 6)
    read = head(answers, ["mnli", "likeness"])
    assert list(read) == ["mnli", "likeness"]
    state = head.state_dict()
    for i, task in enumerate(read):
        w1, b1, w2, b2 = (state[f"mlps.{task}.{p}"] for p in ("0.weight", "0.bias", "2.weight", "2.bias"))
        assert w1.shape == (6, 6)  # as wide as the answer
        torch.testing.assert_close(read[task], torch.tanh(answers[:, i] @ w1.T + b1) @ w2.T + b2)
        assert read[task].shape == (4, config.num_outputs[task])
    with pytest.raises(ValueError, match="unknown task 'rte'; allowed: likeness, sst-2, mnli"):
        head(answers, ["mnli", "rte"])
    for tasks in (["mnli"], ["mnli", "mnli"]):
        with pytest.raises(ValueError, match="there are 2 answers for the tasks"):
            head(answers, tasks)


def test_multitask_configurations() -> None:
    assert MultitaskHeadConfig().num_outputs == GLUE
    assert MultitaskHeadConfig().num_outputs is not GLUE
    for name in ("", "a.b", "keys", "train", "training"):
        with pytest.raises(ConfigError, match=f"has a task named '{name}'; that name is torch's own"):
            MultitaskHeadConfig(num_outputs={name: 2})
    with pytest.raises(ConfigError, match=r"num_outputs is \{\}; it must name at least one task"):
        MultitaskHeadConfig(num_outputs={})
    with pytest.raises(ConfigError, match="num_outputs is 0; it must be at least 1"):
        MultitaskHeadConfig(num_outputs={"cola": 0})


def test_flow_is_scaled() -> None:
    head = FlowHead(FlowHeadConfig(), num_query_channels=6)
    scaled = FlowHead(FlowHeadConfig(scale=0.2), num_query_channels=6)
    scaled.load_state_dict(head.state_dict())
    answers = normal(2, 3 * 4, 6)
    flow = head(answers)
    torch.testing.assert_close(flow, (answers @ head.linear.weight.T + head.linear.bias) / 100)
    torch.testing.assert_close(scaled(answers), 20 * flow)


def test_flow_can_start_from_no_motion() -> None:
    head = FlowHead(FlowHeadConfig(zero_init=True), num_query_channels=6)
    assert (head(normal(2, 12, 6)) == 0).all()
    head(normal(2, 12, 6)).sum().backward()
    assert head.linear.weight.grad is not None
    assert (head.linear.weight.grad != 0).all()
    with pytest.raises(ConfigError, match=r"scale is 0\.0; it must be at least"):
        FlowHeadConfig(scale=0.0)


def test_reconstruction_agrees_with_hugging_face() -> None:
    from transformers import PerceiverConfig
    from transformers.models.perceiver import modeling_perceiver as peer

    config = PerceiverConfig(samples_per_patch=4)
    config.num_labels = 5
    audio = peer.PerceiverAudioPostprocessor(config, in_channels=6)
    image = peer.PerceiverProjectionPostprocessor(in_channels=6, out_channels=3)
    label = peer.PerceiverClassificationPostprocessor(config, in_channels=6)
    head = ReconstructionHead(
        ReconstructionHeadConfig(num_audio_samples_per_patch=4, num_labels=5), num_query_channels=6
    )
    for name, theirs in (("audio", audio), ("image", image), ("label", label)):
        head.linears[name].load_state_dict(theirs.classifier.state_dict())
    answers = {"audio": normal(2, 7, 6), "image": normal(2, 2 * 3 * 4, 6), "label": normal(2, 1, 6)}
    points = head(answers)
    torch.testing.assert_close(waveform(points["audio"]), audio(answers["audio"]))
    torch.testing.assert_close(points["image"], image(answers["image"]))
    torch.testing.assert_close(points["label"], label(answers["label"]))


def test_reconstruction_arranges_what_is_whole() -> None:
    head = ReconstructionHead(ReconstructionHeadConfig(), num_query_channels=6)
    answers = normal(2, 2 * 3 * 4, 6)
    chunks = [head({"image": part})["image"] for part in answers.split(5, 1)]
    video = frames(torch.cat(chunks, 1), (2, 3, 4))
    assert video.shape == (2, 2, 3, 4, 3)
    linear = head.linears["image"]
    for t, y, x in ((0, 0, 0), (0, 2, 1), (1, 0, 3), (1, 2, 3)):
        torch.testing.assert_close(video[:, t, y, x], linear(answers[:, 12 * t + 4 * y + x]))
    patches = head({"audio": answers})["audio"]
    sound = waveform(patches)
    assert sound.shape == (2, 24 * 16)
    torch.testing.assert_close(sound[:, 16 * 5 + 3], patches[:, 5, 3])
    with pytest.raises(ValueError, match=r"size \(2, 3, 5\) has 30 pixels and 24 were decoded"):
        frames(torch.cat(chunks, 1), (2, 3, 5))


def test_reconstruction_of_some_modalities() -> None:
    head = ReconstructionHead(ReconstructionHeadConfig(num_labels=None), num_query_channels=6)
    assert set(head.linears) == {"audio", "image"}
    with pytest.raises(ValueError, match="unknown modality 'label'; allowed: audio, image"):
        head({"label": normal(2, 1, 6)})
    whole = ReconstructionHead(ReconstructionHeadConfig(), num_query_channels=6)
    with pytest.raises(ValueError, match="there are 3 answers for the label; decode one query"):
        whole({"label": normal(2, 3, 6)})
    with pytest.raises(ConfigError, match="leaves every modality out; set one of num_audio"):
        ReconstructionHeadConfig(num_audio_samples_per_patch=None, num_image_channels=None, num_labels=None)
