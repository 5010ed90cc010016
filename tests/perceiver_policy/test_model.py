"""PerceiverIO from its configurations: what every model does, and what the parts make together."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from perceiver_policy.config import ConfigError
from perceiver_policy.config_files import load_named, named
from perceiver_policy.model import PerceiverIO
from perceiver_policy.model_config import PerceiverIOConfig
from perceiver_policy.queries.task import TaskQuery

SMALL = [name for name in named() if name.endswith("-small")]
TEXT = {"kind": "text", "num_channels": 16, "max_length": 40}
PAPERS = [name.removesuffix("-small") for name in SMALL]


def make(name: str) -> PerceiverIO:
    """A model with weights large enough to show what it does."""
    torch.manual_seed(0)
    model = PerceiverIO(load_named(name, PerceiverIOConfig))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


def example(name: str, batch: int = 2) -> Any:
    """Inputs of a small model, seeded."""
    g = torch.Generator().manual_seed(1)
    if "language" in name or "glue" in name:
        return torch.randint(6, 262, (batch, 40), generator=g)
    if "flow" in name:
        return torch.randn(batch, 2, 3, 12, 20, generator=g)
    if "multimodal" in name:
        return {
            "audio": torch.randn(batch, 1024, generator=g),
            "image": torch.randn(batch, 4, 3, 32, 32, generator=g),
            "label": torch.zeros(batch, 10),
        }
    if "audioset" in name:
        return {
            "audio": torch.randn(batch, 1024, generator=g),
            "video": torch.randn(batch, 4, 3, 32, 32, generator=g),
        }
    if "modelnet" in name:
        return torch.randn(batch, 50, 3, generator=g)
    if "starcraft" in name:
        return torch.randn(batch, 9, 32, generator=g)
    return torch.randn(batch, 3, 32, 32, generator=g)


def tensors(output: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    return output if isinstance(output, dict) else {"": output}


def assert_same(ours: Any, theirs: Any, atol: float = 1e-5) -> None:
    ours, theirs = tensors(ours), tensors(theirs)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=atol)


def test_every_model_of_the_papers_has_a_small_one() -> None:
    assert set(PAPERS) <= set(named())
    assert set(PAPERS) == {
        "perceiver-imagenet",
        *(f"perceiver-io-imagenet-{kind}" for kind in ("fourier", "learned", "conv")),
        *(f"perceiver-io-language-{kind}" for kind in ("bytes", "tokens")),
        *(f"perceiver-io-{kind}" for kind in ("flow", "multimodal", "starcraft", "audioset", "glue")),
        "perceiver-modelnet",
    }


@pytest.mark.parametrize("name", SMALL)
def test_examples_do_not_meet_in_a_batch(name: str) -> None:
    model, inputs = make(name), example(name)
    whole = tensors(model(inputs))
    first = {key: value[:1] for key, value in inputs.items()} if isinstance(inputs, dict) else inputs[:1]
    assert_same({key: value[:1] for key, value in whole.items()}, tensors(model(first)))


@pytest.mark.parametrize("name", [name for name in SMALL if name.startswith("perceiver-io")])
def test_decoding_in_chunks_equals_decoding_at_once(name: str) -> None:
    model = make(name)
    encoding = model.encode(example(name))
    whole = model.decode(encoding)
    for chunk_size in (1, 7, 1000) if "multimodal" not in name else (101, 1000):
        assert_same(model.decode(encoding, chunk_size=chunk_size), whole)


@pytest.mark.parametrize("name", SMALL)
def test_compiles_whole(name: str) -> None:
    """``fullgraph``: a break in the graph is an error. The backend runs what was traced as it is."""
    model, inputs = make(name), example(name)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert_same(compiled(inputs), model(inputs))


def test_compiles_whole_for_sizes_that_vary() -> None:
    """From the second size on, torch compiles for any, and sizes are symbols."""
    model = make("perceiver-io-imagenet-fourier-small").train()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for batch, height in ((2, 32), (3, 24)):
        images = torch.randn(batch, 3, height, 16)
        logits = compiled(images)
        assert_same(logits, model(images))
        logits.sum().backward()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_runs_in_16_bits(name: str, dtype: torch.dtype) -> None:
    model, inputs = make(name), example(name)
    expected = tensors(model(inputs))
    with torch.autocast("cpu", dtype=dtype):
        output = tensors(model(inputs))
    for key, value in output.items():
        assert value.isfinite().all()
        error = (value.float() - expected[key]).abs().mean() / expected[key].abs().mean()
        assert error < (0.1 if dtype is torch.bfloat16 else 0.02)


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_learns(name: str) -> None:
    model, inputs = make(name).train(), example(name, batch=8)  # of which dropout leaves some
    model.requires_grad_()
    sum(value.square().sum() for value in tensors(model(inputs)).values()).backward()
    untouched = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    if "multimodal" in name:  # what masks, and is masked for certain, in the released model
        assert untouched == {
            "input.mask_tokens.audio",
            "input.mask_tokens.image",
            "input.padding.vectors.label",
        }
    else:  # text is shorter than the longest there may be
        assert untouched == set()


def test_any_size_of_image_and_of_flow() -> None:
    fourier = make("perceiver-io-imagenet-fourier-small")
    learned = make("perceiver-io-imagenet-learned-small")
    conv = make("perceiver-io-imagenet-conv-small")
    for model in (fourier, learned, conv):
        assert model(torch.randn(1, 3, 23, 41)).shape == (1, 10)
    assert make("perceiver-io-flow-small")(torch.randn(1, 2, 3, 9, 14)).shape == (1, 9, 14, 2)


def test_flow_with_learned_positions_has_the_shape_of_its_images() -> None:
    config = load_named("perceiver-io-flow-small", PerceiverIOConfig).to_dict()
    config["input"]["position"] = {"kind": "learned", "shape": [8, 8], "num_channels": 34}
    model = PerceiverIO(PerceiverIOConfig.from_dict(config))
    assert model(torch.randn(1, 2, 3, 9, 14)).shape == (1, 9, 14, 2)


def test_as_many_answers_as_text_and_padding_changes_none() -> None:
    model = make("perceiver-io-language-bytes-small")
    text = example("language")
    logits = model(text)
    assert logits.shape == (2, 40, 262)
    padded = torch.nn.functional.pad(text, (0, 20))
    mask = torch.arange(60).expand(2, -1) < 40
    assert_same(model(padded, mask)[:, :40], logits)
    with pytest.raises(ValueError, match="513"):
        model(torch.zeros(1, 513, dtype=torch.int64))


def test_some_outputs_only() -> None:
    flow = make("perceiver-io-flow-small")
    pairs = example("flow")
    index = torch.tensor([3, 100, 0])
    torch.testing.assert_close(flow(pairs, index=index), flow(pairs).flatten(1, 2)[:, index])
    video = make("perceiver-io-multimodal-small")
    inputs = example("multimodal")
    asked = {"image": torch.tensor([5, 4000]), "label": None}
    some, whole = video(inputs, index=asked), video(inputs)
    assert some.keys() == {"image", "label"}
    torch.testing.assert_close(some["image"], whole["image"][:, [5, 4000]])
    torch.testing.assert_close(some["label"], whole["label"])
    with pytest.raises(ValueError, match="unknown modality 'sound'"):
        video(inputs, index={"sound": None})
    with pytest.raises(ValueError, match="needs a multimodal query"):
        flow(pairs, index={"image": None})


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([240], "query 240 is asked of the model; allowed: 0 to 239"),
        ([0, -1], "query -1 is asked of the model; allowed: 0 to 239"),
        ([0.0], r"torch.float32 \(1,\); expected int64 \(k,\)"),
        ([[0]], r"torch.int64 \(1, 1\); expected int64 \(k,\)"),
    ],
)
def test_outputs_there_are_not(index: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("perceiver-io-flow-small")(example("flow"), index=torch.tensor(index))


def test_queries_of_ones_own_are_not_masked_by_the_inputs() -> None:
    torch.manual_seed(0)
    model = PerceiverIO(PerceiverIOConfig.from_dict({"query": {"kind": "input"}, "mask_queries": True}))
    inputs, mask = torch.randn(2, 6, 32), torch.arange(6).expand(2, -1) < 4
    encoding = model.encode(inputs, mask)
    own = torch.randn(6, 32)
    first = model.decode(encoding, queries=own[:1])
    for queries, chunk_size in ((own[:3], None), (own, None), (own, 4)):
        answers = model.decode(encoding, queries=queries, chunk_size=chunk_size)
        torch.testing.assert_close(answers[:, :1], first)
    assert model.decoder is not None
    torch.testing.assert_close(answers, model.decoder(own, encoding.latents))
    assert (model.decode(encoding) - model.decode(encoding, queries=inputs))[~mask].abs().max() > 1e-3


def test_flow_at_positions_of_ones_own() -> None:
    query = {"kind": "position", "shape": [5, 6]}
    head = {"kind": "flow"}
    model = PerceiverIO(
        PerceiverIOConfig.from_dict({"input": {"kind": "flow"}, "query": query, "head": head})
    )
    pairs = torch.randn(1, 2, 3, 4, 3)
    flow = model(pairs)
    assert flow.shape == (1, 5, 6, 2)
    torch.testing.assert_close(flow.flatten(1, 2)[:, [7]], model(pairs, index=torch.tensor([7])))


def test_some_tasks_only() -> None:
    model = make("perceiver-io-glue-small")
    assert isinstance(model.query, TaskQuery)
    text = example("glue")
    some, whole = model(text, index=model.query.index("stsb", "cola")), model(text)
    assert {name: tuple(value.shape) for name, value in some.items()} == {"stsb": (2, 1), "cola": (2, 2)}
    assert_same(some, {name: whole[name] for name in ("stsb", "cola")})


def test_queries_of_ones_own() -> None:
    model = make("perceiver-io-starcraft-small")
    units = example("starcraft")
    encoding = model.encode(units)
    assert model.query is not None
    queries = model.query(encoding.tokens)
    torch.testing.assert_close(model.decode(encoding, queries=queries), model.decode(encoding))
    torch.testing.assert_close(
        model.decode(encoding, queries=queries[0, :5], chunk_size=2),
        model.decode(encoding, queries=queries[:1, :5].expand(2, -1, -1)),
    )
    for shape in ((2, 9, 15), (3, 9, 16), (1, 2, 9, 16)):
        with pytest.raises(ValueError, match=rf"{re.escape(str(shape))}; expected \(2, K, 16\) or \(K, 16\)"):
            model.decode(encoding, queries=torch.zeros(shape))
    with pytest.raises(ValueError, match="queries and index"):
        model.decode(encoding, queries=queries, index=torch.tensor([0]))
    with pytest.raises(ValueError, match="chunk_size is 0"):
        model.decode(encoding, chunk_size=0)
    pooled = make("perceiver-imagenet-small")
    with pytest.raises(ValueError, match="no decoder"):
        pooled(example("image"), index=torch.tensor([0]))


def test_units_in_any_order_and_absent_ones() -> None:
    model = make("perceiver-io-starcraft-small")
    units, mask = example("starcraft"), torch.arange(9).expand(2, -1) < 6
    output = model(units, mask)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(units[:, order], mask[:, order]), output[:, order])
    torch.testing.assert_close(model(units[:, :6]), output[:, :6])
    other = torch.where(mask.unsqueeze(-1), units, 7.0)
    torch.testing.assert_close(model(other, mask)[:, :6], output[:, :6])
    assert model(units, torch.zeros(2, 9, dtype=torch.bool)).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": None}, "decoder is None; query and decoder go together"),
        ({"head": {"kind": "pooled_classification"}}, "a pooled_classification head reads latents"),
        ({"head": {"kind": "tied_embedding"}}, "needs a text input"),
        ({"head": {"kind": "multitask"}}, "needs a task query"),
        ({"head": {"kind": "multimodal"}}, "needs a multimodal query"),
        (
            {"query": {"kind": "task", "tasks": ["cola", "sst"]}, "head": {"kind": "multitask"}},
            r"query\.tasks names 'sst', which the head does not read; did you mean sst2",
        ),
        (
            {
                "query": {"kind": "multimodal", "modalities": {"sound": {"kind": "learned"}}},
                "head": {"kind": "multimodal"},
            },
            r"query\.modalities names 'sound', which the head does not read; allowed: audio, image, label",
        ),
        (
            {"input": TEXT, "query": {"kind": "learned", "num_queries": 39, "one_per_input": True}},
            r"query\.num_queries is 39; with one_per_input it must be at least input\.max_length, 40",
        ),
        ({"head": {"kind": "clasification"}}, r"head\.kind is 'clasification'; did you mean classification"),
        ({"input": {"kind": "xyz"}}, r"input\.kind is 'xyz'; allowed: vectors, image"),
        ({"input": {"num_channels": 3}}, r"input\.kind is None"),
        ({"mask_queries": True}, "mask_queries is True; queries that follow the inputs"),
        ({"initialisation": "kaiming"}, r"'kaiming'; allowed: \['paper', 'deepmind', 'huggingface'\]"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PerceiverIOConfig.from_dict(changes)


@pytest.mark.parametrize(("width", "size"), [(18, 262), (16, 300)])
def test_a_tied_embedding_of_another_shape_is_refused(width: int, size: int) -> None:
    query = {"kind": "learned", "num_queries": 40, "num_channels": width, "one_per_input": True}
    head = {"kind": "tied_embedding", "vocabulary_size": size}
    config = PerceiverIOConfig.from_dict({"input": TEXT, "query": query, "head": head})
    with pytest.raises(ConfigError, match=rf"shape \(262, 16\); .* made for \({size}, {width}\)"):
        PerceiverIO(config)


def test_heads_must_divide_the_queries() -> None:
    config = PerceiverIOConfig.from_dict(
        {"query": {"kind": "learned", "num_channels": 30}, "decoder": {"num_cross_attention_heads": 4}}
    )
    with pytest.raises(ConfigError, match=r"num_cross_attention_heads is 4; it must divide .* 30"):
        PerceiverIO(config)
