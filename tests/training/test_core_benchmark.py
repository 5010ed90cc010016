"""The core's benchmark: rivals compute what they are said to, rows are whole, growth is drawn.

No test says how fast anything is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from perceiver_policy.config_files import load_named
from perceiver_policy.model import PerceiverIO
from perceiver_policy.model_config import PerceiverIOConfig
from training.benchmark import core_contest, core_growth, core_memory
from training.benchmark import core_rivals as rivals
from training.benchmark.core_contest import ImageRead, Workload, contest
from training.benchmark.rows import rates_in_turn, row, row_against

PASSES = ("forward", "forward_backward")


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's models become the small ones of the same kind."""
    load = load_named
    monkeypatch.setattr(core_contest, "load_named", lambda name, kind: load(f"{name}-small", kind))


def noisy(name: str, **encoder: object) -> PerceiverIO:
    torch.manual_seed(0)
    config = load_named(name, PerceiverIOConfig)
    model = PerceiverIO(replace(config, encoder=replace(config.encoder, **encoder)))
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return model.eval()


def entities() -> tuple[nn.Module, nn.Module, torch.Tensor]:
    ours = noisy("perceiver-io-starcraft-small")
    return ours, rivals.HuggingFaceEntities(ours), torch.randn(2, 9, ours.input.num_channels)


def image(num_layers: int) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    model = noisy("perceiver-io-imagenet-fourier", num_latents=3, num_latent_channels=16)
    theirs = rivals.HuggingFaceImages(model.encoder, 224, num_layers)
    return ImageRead(model, num_layers), theirs, torch.randn(1, 3, 224, 224)


def text() -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """Of the decoder's sizes there is no choice: transformers writes them into its code."""
    sizes = {"num_latents": 3, "num_latent_channels": 64, "num_self_attention_layers_per_block": 2}
    values = dict.fromkeys(("num_cross_attention_v_channels", "num_self_attention_v_channels"), 64)
    ours = noisy("perceiver-io-language-bytes", **sizes, **values)
    return ours, rivals.HuggingFaceText(ours), torch.randint(262, (1, 2048))


@pytest.mark.parametrize("make", [entities, lambda: image(0), lambda: image(2), text])
def test_transformers_computes_the_same(
    make: Callable[[], tuple[nn.Module, nn.Module, torch.Tensor]],
) -> None:
    ours, theirs, inputs = make()
    with torch.inference_mode():
        rivals.require_equal(ours(inputs), theirs.eval()(inputs))
        one = next(theirs.parameters())
        one += 0.1 * torch.randn_like(one)
        with pytest.raises(RuntimeError, match="differ by"):
            rivals.require_equal(ours(inputs), theirs(inputs))


def test_perceiver_pytorch_has_our_shapes() -> None:
    pytest.importorskip("perceiver_pytorch")
    for make, rival in (
        (entities, rivals.LucidrainsEntities),
        (text, rivals.LucidrainsText),
    ):
        ours, _, inputs = make()
        assert rival(ours)(inputs).shape == ours(inputs).shape
    ours, _, images = image(2)
    assert rivals.LucidrainsImages(ours.encoder, 224, 2)(images).shape == ours(images).shape


def test_a_row_for_each_pass_and_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, inputs = entities()
    built = {"huggingface": lambda: theirs, "lucidrains": lambda: nn.Linear(1, 1)}
    monkeypatch.setitem(rivals.PACKAGES, "lucidrains", "no-such-package")
    workload = Workload("starcraft/batch_2", inputs, ours, built, seconds=0.0)
    rows = {made.name: made for made in contest(workload, "command", repeats=2)}
    names = [f"core/starcraft/batch_2/{kind}/{rival}" for kind in PASSES for rival in built]
    assert list(rows) == names
    for made in rows.values():
        if made.name.endswith("huggingface"):
            assert made.ratio == pytest.approx(made.ours / made.rival)
            assert made.rival_name.startswith("transformers 5.")
        else:
            assert made.rival is None
            assert "no-such-package is not installed" in made.rival_name


def test_a_rival_that_computes_something_else_is_not_measured() -> None:
    ours, theirs, inputs = entities()
    with torch.no_grad():
        theirs.encoder.latents[0, 0] += 1.0
    workload = Workload("starcraft/batch_2", inputs, ours, {"huggingface": lambda: theirs}, seconds=0.0)
    with pytest.raises(RuntimeError, match="nothing to compare"):
        next(contest(workload, "command"))


def test_turns_are_taken() -> None:
    """All warm up, then A, B, A, B, ..."""
    calls: list[str] = []
    works = [lambda: calls.append("a") or 2, lambda: calls.append("b") or 3]
    ticks = iter(range(1000))  # a second passes from each look at the clock to the next
    measured = rates_in_turn(works, seconds=1.0, repeats=3, clock=lambda: next(ticks))
    assert calls == list("ab" + "ab" * 3)
    assert measured == [[2.0] * 3, [3.0] * 3]


def test_less_can_be_better() -> None:
    made = row_against("a", "MB", [10.0], "command", "other", [30.0], less_is_better=True)
    assert (made.ours, made.rival, made.ratio) == (10.0, 30.0, 3.0)


def test_peak_memory_is_of_the_pass(small_models: None) -> None:
    """At least the pixels' queries of one chunk, at most what 50,176 rows of 261 channels would take."""
    assert 0 <= core_memory.peak("ours") < 50_176 * 261 * 4 / 2**20


@pytest.mark.usefixtures("small_models")
def test_rows_of_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_growth, "FIT_FROM", 8)
    monkeypatch.setattr(core_growth, "LONGEST", 0.0)
    (*sizes,) = core_growth.measure("command", sizes=(8, 16), seconds=0.0, repeats=1)
    assert [made.rival is None for made in sizes] == [False, True], "too long at 8, not tried at 16"
    assert "a pass over 8 inputs took" in sizes[1].rival_name
    monkeypatch.setattr(core_growth, "LONGEST", 60.0)
    *_, exponent = core_growth.measure("command", sizes=(8, 16), seconds=0.0, repeats=2)
    assert exponent.name == "core/growth/exponent/forward/TransformerEncoder"
    assert exponent.ratio == pytest.approx(exponent.rival / exponent.ours)


def test_growth_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row("core/3m/batch_512/act", "observations/s", [1.0], "command"),
        row_against("core/growth/inputs_64/forward/x", "passes/s", [200.0], "command", "x", [100.0]),
        row("core/growth/inputs_128/forward/x", "passes/s", [100.0], "command"),
    ]
    file = tmp_path / "core.png"
    assert core_growth.plot(rows[:1], file) == "no plot: there are no rows of growth"
    assert core_growth.plot(rows, file) is None
    assert file.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(core_growth.util, "find_spec", lambda name: None)
    assert "matplotlib is not installed" in core_growth.plot(rows, file)
