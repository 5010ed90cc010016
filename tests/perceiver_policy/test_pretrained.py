"""Exports: the same policy comes back, or a clear refusal."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from torch import Tensor

from perceiver_policy import (
    ExportError,
    UnitSetPolicy,
    UnitSetPolicyConfig,
    export_files,
    load_policy,
    pretrained,
    read_metadata,
    save_policy,
)

MakeObservation = Callable[..., dict[str, Tensor]]
MakePolicy = Callable[..., UnitSetPolicy]

FORMAT = export_files.file_format(UnitSetPolicy)


@pytest.fixture
def export(make_policy: MakePolicy, tmp_path: Path) -> Path:
    save_policy(make_policy(), tmp_path / "policy")
    return tmp_path / "policy"


def rewrite(export: Path, change: Callable[[dict[str, Tensor]], None], **header: str) -> None:
    """Write the weights again after ``change``, with a valid header."""
    path = export / pretrained.WEIGHTS_FILE
    weights = safetensors.torch.load_file(path)
    change(weights)
    metadata = {"format": FORMAT, "format_version": export_files.FORMAT_VERSION, "metadata": "{}"}
    safetensors.torch.save_file(weights, path, metadata={**metadata, **header})


@pytest.mark.parametrize("critic", ["observation", "state"])
def test_round_trip(
    make_policy: MakePolicy, make_observation: MakeObservation, tmp_path: Path, critic: str
) -> None:
    policy = make_policy(critic=critic, encoder={"num_latents": 3})
    save_policy(policy, tmp_path / "runs" / "policy", metadata={"scenario": "3m", "steps": 7})
    loaded = load_policy(tmp_path / "runs" / "policy")
    assert loaded.config == policy.config
    assert not loaded.training
    observation = make_observation(8, 9, 4)
    orders = policy.act(observation, deterministic=True).orders
    assert dict(policy.named_buffers()).keys() == dict(loaded.named_buffers()).keys()
    for (name, made), kept in zip(loaded.named_buffers(), policy.buffers(), strict=True):
        assert torch.equal(made, kept), name
    for x, y in zip(
        policy.evaluate_orders(observation, orders), loaded.evaluate_orders(observation, orders), strict=True
    ):
        assert torch.equal(x, y)
    assert read_metadata(tmp_path / "runs" / "policy") == {"scenario": "3m", "steps": 7}
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["policy"], "nothing left over"
    assert sorted(p.name for p in (tmp_path / "runs" / "policy").iterdir()) == [
        pretrained.CONFIG_FILE,
        pretrained.WEIGHTS_FILE,
    ]


def test_loading_draws_no_random_numbers(export: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    load_policy(export)
    assert torch.equal(torch.rand(1), expected)


def test_an_export_is_replaced_whole(make_policy: MakePolicy, export: Path) -> None:
    save_policy(make_policy(seed=1, encoder={"num_latents": 3}), export)
    assert load_policy(export).config.encoder.num_latents == 3


def test_a_failed_save_leaves_the_old_export(
    make_policy: MakePolicy, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        save_policy(make_policy(encoder={"num_latents": 3}), export)
    assert load_policy(export).config == make_policy().config
    assert [p.name for p in export.parent.iterdir()] == [export.name]


def test_a_failed_replacement_brings_the_old_export_back(
    make_policy: MakePolicy, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError("no rename")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no rename"):
        save_policy(make_policy(encoder={"num_latents": 3}), export)
    assert load_policy(export).config == make_policy().config
    assert [p.name for p in export.parent.iterdir()] == [export.name]


def test_the_only_copy_is_kept_where_it_cannot_be_brought_back(
    make_policy: MakePolicy, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if self != export:
            raise OSError("no rename")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no rename"):
        save_policy(make_policy(encoder={"num_latents": 3}), export)
    (workspace,) = export.parent.iterdir()
    assert load_policy(workspace / "old").config == make_policy().config


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(export: Path, value: float) -> None:
    def change(weights: dict[str, Tensor]) -> None:
        weights["encoder.latents"][1, 2] = value

    rewrite(export, change)
    with pytest.raises(ExportError, match=r"NaN or infinite, in: encoder\.latents$"):
        load_policy(export)


def test_saving_over_something_else_is_refused(make_policy: MakePolicy, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ExportError, match=r"holds thesis\.tex"):
        save_policy(make_policy(), tmp_path)
    with pytest.raises(ExportError, match=r"thesis\.tex is a file"):
        save_policy(make_policy(), tmp_path / "thesis.tex")


@pytest.fixture
def no_tensor_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(export_files, "load_file", refuse)


@pytest.mark.usefixtures("no_tensor_is_read")
class TestRefused:
    """Each before any tensor is read."""

    def test_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match=r"nowhere is no directory"):
            load_policy(tmp_path / "nowhere")

    @pytest.mark.parametrize("name", [pretrained.CONFIG_FILE, pretrained.WEIGHTS_FILE])
    def test_missing_file(self, export: Path, name: str) -> None:
        (export / name).unlink()
        with pytest.raises(ExportError, match=f"lacks {name}"):
            load_policy(export)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("encoder: [", "configuration cannot be used"),
            ("encodr: {}", "did you mean encoder"),
            ("", "None"),
        ],
    )
    def test_bad_config(self, export: Path, text: str, message: str) -> None:
        (export / pretrained.CONFIG_FILE).write_text(text)
        with pytest.raises(ExportError, match=message):
            load_policy(export)

    def test_binary_config(self, export: Path) -> None:
        (export / pretrained.CONFIG_FILE).write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ExportError, match="configuration cannot be used"):
            load_policy(export)

    @pytest.mark.parametrize("kept", [0, 5, 200, -100])
    def test_truncated_weights(self, export: Path, kept: int) -> None:
        path = export / pretrained.WEIGHTS_FILE
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(ExportError, match="not a whole safetensors file"):
            load_policy(export)

    def test_pickle(self, export: Path) -> None:
        torch.save({"weight": torch.zeros(3)}, export / pretrained.WEIGHTS_FILE)
        with pytest.raises(ExportError, match="not a whole safetensors file"):
            load_policy(export)

    def test_header_that_lies_about_offsets(self, export: Path) -> None:
        path = export / pretrained.WEIGHTS_FILE
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        header["encoder.latents"]["data_offsets"] = [0, 10**12]
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        with pytest.raises(ExportError, match="not a whole safetensors file"):
            load_policy(export)

    def test_foreign_format(self, export: Path) -> None:
        rewrite(export, lambda weights: None, format="pt")
        with pytest.raises(ExportError, match="has format 'pt'; this version reads"):
            load_policy(export)
        with pytest.raises(ExportError, match="has format 'pt'"):
            read_metadata(export)

    def test_later_version(self, export: Path) -> None:
        rewrite(export, lambda weights: None, format_version="99")
        with pytest.raises(ExportError, match="has format_version '99'"):
            load_policy(export)

    def test_no_metadata(self, export: Path) -> None:
        path = export / pretrained.WEIGHTS_FILE
        header = {"format": FORMAT, "format_version": export_files.FORMAT_VERSION}
        safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata=header)
        for load in (load_policy, read_metadata):
            with pytest.raises(ExportError, match="has no metadata"):
                load(export)

    @pytest.mark.parametrize("metadata", ["{", "[]"])
    def test_metadata_that_is_no_json_object(self, export: Path, metadata: str) -> None:
        rewrite(export, lambda weights: None, metadata=metadata)
        with pytest.raises(ExportError, match="has metadata"):
            read_metadata(export)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_unit_types": 10**15}, "num_unit_types is 10+; it must be at most"),
            # Within the limits and still 17 GB: refused without being allocated.
            (
                {"num_unit_types": 65536, "unit_input": {"num_hidden_channels": 65536}},
                r"the configuration calls for \(65536, 65536\)",
            ),
        ],
    )
    def test_a_model_too_large_is_never_allocated(
        self, export: Path, changes: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build = UnitSetPolicy.__init__

        def build_outline(self: UnitSetPolicy, config: UnitSetPolicyConfig) -> None:
            assert torch.get_default_device().type == "meta", "a model was allocated"
            build(self, config)

        monkeypatch.setattr(UnitSetPolicy, "__init__", build_outline)
        (export / pretrained.CONFIG_FILE).write_text(yaml.safe_dump(changes))
        with pytest.raises(ExportError, match=message):
            load_policy(export)

    def test_every_wrong_tensor_is_named(self, export: Path) -> None:
        def change(weights: dict[str, Tensor]) -> None:
            del weights["observation_critic.query.query"]
            weights["extra"] = torch.zeros(3, 4)
            weights["encoder.latents"] = torch.zeros(5, 32)
            weights["order_head.key.weight"] = weights["order_head.key.weight"].half()

        rewrite(export, change)
        with pytest.raises(ExportError) as error:
            load_policy(export)
        message = str(error.value)
        assert "missing observation_critic.query.query, shape (1, 32)" in message
        assert "surplus extra, shape (3, 4)" in message
        assert "encoder.latents is (5, 32) F32, the configuration calls for (4, 32) F32" in message
        assert "order_head.key.weight is (32, 32) F16, the configuration calls for (32, 32) F32" in message
