"""Cores go from model to model, as they are or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from perceiver_policy import hub
from perceiver_policy.autoregressive import PerceiverAR
from perceiver_policy.autoregressive_config import PerceiverARConfig
from perceiver_policy.checkpoints import import_checkpoint
from perceiver_policy.config import DecoderConfig, EncoderConfig
from perceiver_policy.inputs.vectors import VectorsInputConfig
from perceiver_policy.model import PerceiverIO
from perceiver_policy.model_config import PerceiverIOConfig
from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.pretrained import save_model, save_policy
from perceiver_policy.queries.learned import LearnedQueryConfig
from perceiver_policy.transfer_core import PARTS, Core, CoreError, freeze, load_core, read_core

CORE = EncoderConfig(num_latents=3, num_latent_channels=16, num_blocks=2, share_blocks=False)


def io(width: int = 5, encoder: EncoderConfig = CORE, num_query_channels: int = 8) -> PerceiverIO:
    torch.manual_seed(1)
    return PerceiverIO(
        PerceiverIOConfig(
            input=VectorsInputConfig(width),
            encoder=encoder,
            query=LearnedQueryConfig(1, num_query_channels),
            decoder=DecoderConfig(),
        )
    )


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.fixture
def policy(make_policy: Callable[..., UnitSetPolicy]) -> UnitSetPolicy:
    return make_policy(encoder=CORE.to_dict())


def test_from_a_policy_to_a_model_of_another_input(policy: UnitSetPolicy, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "policy")
    model = io()
    before = copies(model)
    taken = load_core(model, tmp_path / "policy")
    weights = policy.state_dict()
    expected = {name for name in before if name.startswith(("encoder.latents", "encoder.blocks."))}
    assert set(taken.parameters) == expected
    assert all(torch.equal(model.state_dict()[name], weights[name]) for name in expected)
    assert taken.num_weights == sum(weights[name].numel() for name in expected)
    untouched = before.keys() - expected
    assert not changed(model, before) & untouched
    assert str(tmp_path / "policy") in str(taken)


def test_from_a_model_to_a_policy_and_whole_where_widths_agree(policy: UnitSetPolicy, tmp_path: Path) -> None:
    """Policy tokens and queries are 32 channels wide."""
    model = io(width=32, num_query_channels=32)
    model.save_pretrained(tmp_path / "model")
    taken = load_core(policy, tmp_path / "model", parts=tuple(PARTS))
    for name in taken.parameters:
        assert torch.equal(policy.state_dict()[name], model.state_dict()[name]), name
    mine = {name for name, _ in model.named_parameters() if name.startswith(("encoder.", "decoder."))}
    assert set(taken.parameters) == mine
    queries, tokens = torch.rand(2, 4, 32), torch.rand(2, 6, 32)
    answers = [m.decoder(queries, m.encoder(tokens)) for m in (policy, model)]
    torch.testing.assert_close(*answers, rtol=0, atol=0)


def test_what_does_not_fit_is_listed_and_nothing_is_loaded() -> None:
    source = io(width=7, encoder=EncoderConfig(num_latents=4, num_latent_channels=16, num_blocks=2))
    core = read_core_of(source)
    model = io()
    before = copies(model)
    with pytest.raises(CoreError) as error:
        load_core(model, core, parts=tuple(PARTS))
    for part in (
        "encoder.latents is (4, 16) there and (3, 16) here",
        "encoder.share_blocks is True there and False here",
        "encoder.blocks.1.0.attention.output.weight is absent there and (16, 16) here",
        "encoder.cross_attentions.0.key_value_norm.weight is (7,) there and (5,) here",
        "Parts that fit: decoder.",
    ):
        assert part in str(error.value)
    assert not changed(model, before)
    load_core(model, core, parts=("decoder",))
    assert changed(model, before) == {name for name in before if name.startswith("decoder.")}


def read_core_of(model: PerceiverIO) -> Core:
    """A core without a folder, of other weights than ``model`` has now."""
    weights = {name: torch.rand_like(p) for name, p in model.named_parameters() if p.dim()}
    kept = {name: w for name, w in weights.items() if name.startswith(("encoder.", "decoder."))}
    return Core("elsewhere", model.config.encoder, model.config.decoder, kept)


def test_equal_shapes_that_compute_something_else_do_not_fit() -> None:
    heads = EncoderConfig(**CORE.to_dict() | {"num_self_attention_heads": 4})
    with pytest.raises(CoreError, match=r"encoder\.num_self_attention_heads is 4 there and 2 here"):
        load_core(io(), read_core_of(io(encoder=heads)))


def test_a_published_checkpoint_gives_its_core(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.PerceiverConfig(
        num_latents=5,
        d_latents=24,
        num_self_attends_per_block=2,
        num_self_attention_heads=3,
        num_cross_attention_heads=2,
        d_model=16,
        vocab_size=30,
        max_position_embeddings=12,
        qk_channels=12,
        v_channels=24,
    )
    transformers.PerceiverForMaskedLM(config).save_pretrained(tmp_path / "published")
    published = import_checkpoint(tmp_path / "published")
    core = read_core(tmp_path / "published")
    model = io(encoder=core.encoder)
    load_core(model, core)
    assert torch.equal(model.encoder.latents, published.encoder.latents)
    torch.testing.assert_close(
        model.encoder.blocks.state_dict(), published.encoder.blocks.state_dict(), rtol=0, atol=0
    )


def test_a_repository_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io().save_pretrained(tmp_path / "snapshot")

    def download(name: str, **_: object) -> str:
        assert name == "somebody/something"
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert read_core("somebody/something").encoder == CORE


def test_no_core_there(tmp_path: Path) -> None:
    with pytest.raises(CoreError, match=r"there is no core at .*nowhere"):
        read_core(tmp_path / "nowhere")
    config = PerceiverARConfig(vocabulary_size=9, max_context=8, num_latents=4, num_channels=64)
    save_model(PerceiverAR(config), tmp_path / "ar")
    with pytest.raises(CoreError, match="perceiver_ar"):
        read_core(tmp_path / "ar")
    with pytest.raises(CoreError, match="no part 'block'; did you mean blocks"):
        load_core(io(), read_core_of(io()), parts=("block",))
    with pytest.raises(CoreError, match="the module has no latents"):
        load_core(nn.Linear(2, 2), read_core_of(io()))


def test_frozen_parts_stay() -> None:
    model = io()
    frozen = freeze(model, ("latents", "blocks"))
    before = copies(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model(torch.rand(2, 4, 5)).square().sum().backward()
    optimiser.step()
    names = {name for name, _ in model.named_parameters()}
    assert set(frozen) == {n for n in names if n.startswith(("encoder.latents", "encoder.blocks."))}
    assert changed(model, before) == names - set(frozen)
