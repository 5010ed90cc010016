"""The core: what is shared, what is read, what is not."""

from __future__ import annotations

import pytest
import torch

from perceiver_policy.config import (
    ConfigError,
    DecoderConfig,
    EmptyAttention,
    EncoderConfig,
    Placement,
    Sharing,
)
from perceiver_policy.core import PerceiverDecoder, PerceiverEncoder


def test_blocks_apply_the_same_layers_again() -> None:
    torch.manual_seed(0)
    config = EncoderConfig(num_blocks=3, num_self_attention_layers_per_block=2)
    encoder = PerceiverEncoder(config, num_input_channels=5)
    once = PerceiverEncoder(EncoderConfig(num_self_attention_layers_per_block=2), num_input_channels=5)
    assert encoder.state_dict().keys() == once.state_dict().keys()
    inputs = torch.randn(2, 7, 5)
    expected = encoder.cross_attentions[0](encoder.latents, inputs)
    for _ in range(3):
        for layer in encoder.blocks[0]:
            expected = layer(expected)
    torch.testing.assert_close(encoder(inputs), expected)


def test_masked_inputs_are_not_read() -> None:
    torch.manual_seed(0)
    encoder = PerceiverEncoder(EncoderConfig(), num_input_channels=5)
    inputs = torch.randn(2, 7, 5)
    mask = torch.tensor([True, True, False, True, False, True, True]).expand(2, -1)
    kept = encoder(inputs[:, mask[0]])
    torch.testing.assert_close(encoder(inputs, mask), kept)
    assert (encoder(inputs) - kept).abs().max() > 1e-3


def test_each_query_is_answered_on_its_own() -> None:
    torch.manual_seed(0)
    decoder = PerceiverDecoder(DecoderConfig(), num_query_channels=8, num_latent_channels=6)
    queries, latents = torch.randn(2, 4, 8), torch.randn(2, 3, 6)
    torch.testing.assert_close(decoder(queries[:, 2:3], latents), decoder(queries, latents)[:, 2:3])


def test_query_residual() -> None:
    torch.manual_seed(0)
    queries, latents = torch.randn(2, 4, 8), torch.randn(2, 3, 6)
    with_residual = PerceiverDecoder(DecoderConfig(), 8, 6)
    without = PerceiverDecoder(DecoderConfig(query_residual=False), 8, 6)
    for decoder in (with_residual, without):
        torch.nn.init.zeros_(decoder.cross_attention.attention.output.weight)
        torch.nn.init.zeros_(decoder.cross_attention.attention.output.bias)
        torch.nn.init.zeros_(decoder.cross_attention.mlp.last.weight)
        torch.nn.init.zeros_(decoder.cross_attention.mlp.last.bias)
    assert torch.equal(with_residual(queries, latents), queries)
    assert (without(queries, latents) == 0).all()


@pytest.mark.parametrize("sharing", list(Sharing))
@pytest.mark.parametrize(
    ("placement", "before"), [("start", [3, 0, 0, 0, 0, 0]), ("interleaved", [1, 0] * 3)]
)
def test_inputs_are_read_again(sharing: Sharing, placement: str, before: list[int]) -> None:
    """Three cross-attentions and six blocks, written out: ``before`` says how many come before each block."""
    torch.manual_seed(0)
    config = EncoderConfig(
        num_blocks=6,
        num_cross_attention_layers=3,
        cross_attention_placement=Placement(placement),
        cross_attention_sharing=sharing,
        share_blocks=sharing is not Sharing.NONE,
    )
    encoder = PerceiverEncoder(config, num_input_channels=5)
    distinct = {Sharing.NONE: [0, 1, 2], Sharing.ALL_BUT_FIRST: [0, 1, 1], Sharing.ALL: [0, 0, 0]}[sharing]
    assert len(encoder.cross_attentions) == len(set(distinct))
    assert len(encoder.blocks) == (6 if sharing is Sharing.NONE else 1)
    inputs = torch.randn(2, 7, 5)
    x, reads = encoder.latents, iter(distinct)
    stages = []
    for block in range(6):
        for _ in range(before[block]):
            x = encoder.cross_attentions[next(reads)](x, inputs)
        (layer,) = encoder.blocks[block if sharing is Sharing.NONE else 0]
        x = layer(x)
        stages.append(x)
    torch.testing.assert_close(encoder(inputs), x)
    torch.testing.assert_close(torch.stack(list(encoder.stages(inputs))), torch.stack(stages))


def test_interleaved_reads_divide_the_blocks() -> None:
    with pytest.raises(ConfigError, match=r"num_cross_attention_layers is 4; .*num_blocks 6.*\[1, 2, 3, 6\]"):
        EncoderConfig(num_blocks=6, num_cross_attention_layers=4)
    EncoderConfig(num_blocks=6, num_cross_attention_layers=4, cross_attention_placement=Placement.START)


def test_latents_may_be_given() -> None:
    torch.manual_seed(0)
    encoder = PerceiverEncoder(EncoderConfig(), num_input_channels=5)
    inputs = torch.randn(2, 7, 5)
    learned = encoder.latents.expand(2, -1, -1)
    torch.testing.assert_close(encoder(inputs, latents=learned), encoder(inputs))
    other = encoder(inputs, latents=torch.randn(2, 4, 32))
    assert (other - encoder(inputs)).abs().max() > 0.1
    for shape in ((2, 4, 31), (2, 7, 32), (1, 4, 32), (4, 32)):
        with pytest.raises(ValueError, match=r"expected \(2, 4, 32\)"):
            encoder(inputs, latents=torch.zeros(shape))


def test_nothing_to_read_gives_finite_latents_and_gradients() -> None:
    torch.manual_seed(0)
    encoder = PerceiverEncoder(EncoderConfig(num_cross_attention_heads=1), num_input_channels=5)
    inputs = torch.randn(2, 7, 5, requires_grad=True)
    mask = torch.tensor([[False] * 7, [True] * 7])
    latents = encoder(inputs, mask)
    latents.square().sum().backward()
    assert latents.isfinite().all()
    assert inputs.grad is not None
    assert (inputs.grad[0] == 0).all()
    assert (inputs.grad[1] != 0).any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    no_inputs = encoder(torch.zeros(2, 0, 5))
    torch.testing.assert_close(no_inputs, encoder(inputs, torch.zeros(2, 7, dtype=torch.bool)))


def test_checkpointed_activations_change_no_gradient() -> None:
    torch.manual_seed(0)
    plain = PerceiverEncoder(EncoderConfig(num_blocks=2), num_input_channels=5)
    checkpointed = PerceiverEncoder(EncoderConfig(num_blocks=2, activation_checkpointing=True), 5)
    checkpointed.load_state_dict(plain.state_dict())
    inputs = torch.randn(2, 7, 5)
    saved: dict[bool, int] = {}
    for encoder in (plain, checkpointed):
        kept = 0

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = encoder(inputs)
            saved[encoder.config.activation_checkpointing] = kept
        output.square().sum().backward()
    assert saved[True] < saved[False] / 2
    for p, q in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_what_is_configured_reaches_the_layers() -> None:
    config = EncoderConfig(
        num_cross_attention_qk_channels=6,
        num_cross_attention_v_channels=10,
        cross_attention_residual=False,
        num_self_attention_qk_channels=8,
        num_self_attention_v_channels=12,
        activation="gelu",
        attention_dropout=0.25,
        empty_attention=EmptyAttention.MEAN,
    )
    encoder = PerceiverEncoder(config, num_input_channels=5)
    (cross,), ((own,),) = encoder.cross_attentions, encoder.blocks
    decoder_config = DecoderConfig(
        num_cross_attention_qk_channels=6,
        num_cross_attention_v_channels=10,
        widening_factor=3,
        activation="gelu",
        attention_dropout=0.25,
    )
    decoder = PerceiverDecoder(decoder_config, num_query_channels=8, num_latent_channels=6).cross_attention
    for layer, widths in ((cross, (6, 10)), (own, (8, 12)), (decoder, (6, 10))):
        assert (layer.attention.num_qk_channels, layer.attention.num_v_channels) == widths
        assert layer.attention.dropout == 0.25
        assert isinstance(layer.mlp[1], torch.nn.GELU)
    assert cross.attention.empty is EmptyAttention.MEAN
    assert not cross.attention_residual
    assert decoder.mlp[0].out_features == 24
