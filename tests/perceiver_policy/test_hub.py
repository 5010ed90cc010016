"""``save_pretrained`` and ``from_pretrained``: config.yaml, model.safetensors; folders and the Hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from perceiver_policy import ExportError, UnitSetPolicy, hub, load_policy
from perceiver_policy.autoregressive import PerceiverAR
from perceiver_policy.autoregressive_config import PerceiverARConfig
from perceiver_policy.config_files import load_named
from perceiver_policy.initialisation import Initialisation
from perceiver_policy.model import PerceiverIO
from perceiver_policy.model_config import PerceiverIOConfig

MODELS = ("imagenet-conv", "language-bytes", "multimodal")


def made(name: str = "imagenet-conv") -> PerceiverIO:
    torch.manual_seed(0)
    return PerceiverIO(load_named(f"perceiver-io-{name}-small", PerceiverIOConfig))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub.hub_mixin, "hf_hub_download", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = made(name)
    for tensor in model.buffers():
        if tensor.dtype == torch.int64:
            tensor.fill_(5)
    model.save_pretrained(tmp_path / "model")
    files = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert files == ["README.md", "config.yaml", "model.safetensors"]
    loaded = PerceiverIO.from_pretrained(tmp_path / "model")
    assert not loaded.training
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for key, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key]), key
    assert not caplog.records


@pytest.mark.usefixtures("no_network")
def test_token_sequences_too(tmp_path: Path) -> None:
    config = PerceiverARConfig(vocabulary_size=9, max_context=8, num_latents=4, num_channels=64)
    model = PerceiverAR(config).eval()
    model.save_pretrained(tmp_path / "model")
    loaded = PerceiverAR.from_pretrained(tmp_path / "model")
    tokens = torch.arange(7).unsqueeze(0)
    assert torch.equal(loaded(tokens), model(tokens))
    with pytest.raises(ExportError, match="kind is 'perceiver_ar'; expected 'perceiver_io'"):
        PerceiverIO.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("scheme", Initialisation)
def test_however_the_weights_were_drawn(scheme: Initialisation, tmp_path: Path) -> None:
    config = PerceiverIOConfig.from_dict({"initialisation": scheme.value})
    PerceiverIO(config).save_pretrained(tmp_path / "model")
    assert PerceiverIO.from_pretrained(tmp_path / "model").config == config


def test_saved_again_with_a_card_of_ones_own(tmp_path: Path) -> None:
    made().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("Mine")
    other = made("language-bytes")
    other.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "README.md").read_text() == "Mine"
    assert PerceiverIO.from_pretrained(tmp_path / "model").config == other.config


@pytest.mark.usefixtures("no_network")
def test_a_policy_has_the_same(make_policy: Callable[..., UnitSetPolicy], tmp_path: Path) -> None:
    policy = make_policy()
    policy.save_pretrained(tmp_path / "policy")
    for loaded in (UnitSetPolicy.from_pretrained(tmp_path / "policy"), load_policy(tmp_path / "policy")):
        assert loaded.config == policy.config
        assert all(torch.equal(x, y) for x, y in zip(loaded.parameters(), policy.parameters(), strict=True))
    with pytest.raises(ExportError, match="kind is 'unit_set_policy'; expected 'perceiver_io'"):
        PerceiverIO.from_pretrained(tmp_path / "policy")


def test_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made()
    model.save_pretrained(tmp_path / "snapshot")
    asked: list[Any] = []

    def download(repository: str, **options: Any) -> str:
        asked.append((repository, options["revision"], options["allow_patterns"]))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(hub, "snapshot_download", download)
    loaded = PerceiverIO.from_pretrained("somebody/model", revision="v1")
    assert loaded.config == model.config
    assert asked == [("somebody/model", "v1", ["config.yaml", "model.safetensors"])]


@pytest.mark.usefixtures("no_network")
def test_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="nowhere is no directory"):
        PerceiverIO.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="num_latents"):
        PerceiverIO.from_pretrained(tmp_path, num_latents=3)
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ExportError, match=r"holds thesis\.tex"):
        made().save_pretrained(tmp_path)
