"""Folders that are no checkpoint of ours to read or to write."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from perceiver_policy.checkpoints import (
    CheckpointError,
    Compatibility,
    compatible,
    export_huggingface,
    import_checkpoint,
)
from perceiver_policy.checkpoints.architecture import Architecture
from perceiver_policy.config import ConfigError
from perceiver_policy.config_files import load_named
from perceiver_policy.model import PerceiverIO
from perceiver_policy.model_config import PerceiverIOConfig

HuggingFaceFolder = Callable[..., tuple[transformers.PreTrainedModel, Path]]
FLOW = "PerceiverForOpticalFlow"


@pytest.fixture
def folder(huggingface_folder: HuggingFaceFolder) -> Path:
    return huggingface_folder(FLOW)[1]


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))


def refused(path: Path, **arguments: Any) -> str:
    with pytest.raises(CheckpointError) as error:
        import_checkpoint(path, **arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_tensor_that_does_not_fit_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    layer = "perceiver.encoder.self_attends.1"
    del tensors[f"{layer}.attention.self.key.weight"], tensors[f"{layer}.layernorm.bias"]
    tensors["perceiver.extra"] = torch.zeros(2, 3)
    tensors["perceiver.embeddings.latents"] = torch.zeros(24, 5)
    tensors[f"{layer}.mlp.dense1.bias"] = tensors[f"{layer}.mlp.dense1.bias"].double()
    tensors[f"{layer}.mlp.dense2.bias"][3] = torch.inf
    save_file(tensors, path)
    message = refused(folder)
    for part in (
        f"missing {layer}.attention.self.key.weight, shape (24, 24)",
        f"missing {layer}.layernorm.bias, shape (24,)",
        "surplus perceiver.extra, shape (2, 3)",
        "perceiver.embeddings.latents is (24, 5), the model calls for (5, 24)",
        f"{layer}.mlp.dense1.bias is torch.float64, the model calls for torch.float32",
        f"{layer}.mlp.dense2.bias has values that are NaN or infinite",
    ):
        assert part in message
    assert message.count(";") == 5, "nothing else is wrong"


def test_no_folder(tmp_path: Path) -> None:
    assert "nowhere does not exist" in refused(tmp_path / "nowhere")


def test_a_folder_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    message = refused(folder)
    assert "holds neither config.json nor a pickle" in message
    assert all(architecture in message for architecture in Architecture)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "lacks the weights, model.safetensors or pytorch_model.bin" in refused(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "{", "\xff", "[]"])
def test_a_config_that_is_none(text: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(text.encode("latin1"))
    assert "config.json" in refused(folder)


@pytest.mark.parametrize("architectures", [["PerceiverModel"], ["BertForMaskedLM"], [], None, "Perceiver"])
def test_other_architectures(architectures: Any, folder: Path) -> None:
    change_config(folder, architectures=architectures)
    message = refused(folder)
    assert all(architecture in message for architecture in Architecture)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prep_type": "conv"}, "has prep_type 'conv'; it is not supported"),
        ({"spatial_downsample": 2}, "has spatial_downsample 2; it is not supported"),
        ({"cross_attention_shape_for_attention": "v"}, "for_attention is 'v'; allowed: kv, q"),
        ({"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'; allowed: gelu"),
        ({"v_channels": 12}, "v_channels is 12; self-attention's values must be as wide as d_latents 24"),
        ({"num_self_attention_heads": 7}, "num_self_attention_heads is 7; it must divide"),
        ({"num_latents": "many"}, "num_latents is 'many'; expected int"),
        ({"d_latents": 10**9}, "d_latents is 1000000000; it must be at most"),
        ({"train_size": [1, 2, 3]}, "train_size is (1, 2, 3); give height and width"),
        ({"attention_probs_dropout_prob": 1.5}, "attention_dropout is 1.5"),
    ],
)
def test_settings_that_are_not_supported(changes: dict[str, Any], message: str, folder: Path) -> None:
    change_config(folder, **changes)
    assert message in refused(folder)


def test_a_model_too_large_is_never_allocated(folder: Path) -> None:
    change_config(folder, num_latents=65536, d_latents=65536, num_self_attention_heads=8, v_channels=...)
    assert "perceiver.embeddings.latents is (5, 24), the model calls for (65536, 65536)" in refused(folder)


@pytest.mark.parametrize("kept", [0, 100, -5])
def test_truncated_weights(kept: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "is not a whole file of tensors" in refused(folder)


def test_a_bin_file_that_runs_code(folder: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "trace",)

    (folder / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")
    assert "is not a whole file of tensors" in refused(folder)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 3}])
def test_a_bin_file_of_something_else(content: Any, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    assert "something else than dense tensors" in refused(folder)


def test_bin_files_of_tensors_that_hold_no_numbers(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    name = "perceiver.embeddings.latents"
    for other in (tensors[name].to_sparse(), tensors[name].to("meta")):
        torch.save(tensors | {name: other}, folder / "pytorch_model.bin")
        assert "something else than dense tensors by name" in refused(folder)
    torch.save(tensors | {1: torch.zeros(2)}, folder / "pytorch_model.bin")
    assert "something else than dense tensors by name" in refused(folder)


def test_changed_bytes_of_a_bin_file_are_refused_or_harmless(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(tensors, path)
    whole = path.read_bytes()
    generator = random.Random(0)
    for _ in range(60):
        changed = bytearray(whole)
        changed[generator.choice((generator.randrange(9000), -generator.randrange(1, 9000)))] ^= 0xFF
        path.write_bytes(changed)
        with contextlib.suppress(CheckpointError):
            assert isinstance(import_checkpoint(folder), PerceiverIO)


def test_arguments_that_do_not_go_together(folder: Path) -> None:
    assert "compat is 'jax'; allowed: hf, deepmind" in refused(folder, compat="jax")
    assert "says what model it is" in refused(folder, model="perceiver-io-flow")
    (folder / "config.json").unlink()
    (folder / "x.pickle").write_bytes(b"\x80\x04}.")
    with pytest.raises(ConfigError, match="no configuration is named 'perceiver-io-flw'"):
        import_checkpoint(folder, model="perceiver-io-flw")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("perceiver-imagenet-small", "input 'image' with head 'pooled_classification' is none of the seven"),
        ("perceiver-io-starcraft-small", "input 'vectors' with no head is none of the seven"),
        ("perceiver-io-flow-small", "num_bands is 8, Hugging Face's is 64"),
        ("perceiver-io-multimodal-small", "do not fit there"),
    ],
)
def test_models_that_transformers_does_not_have(name: str, message: str, tmp_path: Path) -> None:
    model = PerceiverIO(load_named(name, PerceiverIOConfig))
    with pytest.raises(CheckpointError, match=message):
        export_huggingface(model, tmp_path / "out", ignore_differences=True)
    assert not list(tmp_path.iterdir())


def test_a_model_that_computes_otherwise(folder: Path, tmp_path: Path) -> None:
    model = import_checkpoint(folder, compat="deepmind")
    with pytest.raises(CheckpointError) as error:
        export_huggingface(model, tmp_path / "out")
    assert "head.scale is 0.2, Hugging Face's is 0.01" in str(error.value)
    assert "encoder.empty_attention is 'zeros', Hugging Face's is 'mean'" in str(error.value)
    assert "activation" not in str(error.value), "transformers has either kind of GELU"
    assert not (tmp_path / "out").exists()
    export_huggingface(model, tmp_path / "out", ignore_differences=True)
    written = import_checkpoint(tmp_path / "out")
    assert compatible(written.config, Compatibility.DEEPMIND) == model.config


def test_an_export_replaces_its_like_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    model = import_checkpoint(folder)
    export_huggingface(model, tmp_path / "out")
    export_huggingface(model, tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"holds notes\.txt"):
        export_huggingface(model, tmp_path / "out")
    with pytest.raises(CheckpointError, match="holds no folder"):
        export_huggingface(model, tmp_path / "out" / "notes.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "theirs"]
