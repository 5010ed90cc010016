"""The core: what is shared, what is read, what is not."""

from __future__ import annotations

import torch

from perceiver_policy.config import DecoderConfig, EncoderConfig
from perceiver_policy.core import PerceiverDecoder, PerceiverEncoder


def test_blocks_apply_the_same_layers_again() -> None:
    torch.manual_seed(0)
    config = EncoderConfig(num_blocks=3, num_self_attention_layers_per_block=2)
    encoder = PerceiverEncoder(config, num_input_channels=5)
    once = PerceiverEncoder(EncoderConfig(num_self_attention_layers_per_block=2), num_input_channels=5)
    assert encoder.state_dict().keys() == once.state_dict().keys()
    inputs = torch.randn(2, 7, 5)
    expected = encoder.cross_attention(encoder.latents, inputs)
    for _ in range(3):
        for layer in encoder.self_attention_block:
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
