"""The networks that ours is measured beside, as pip brings them and run eagerly.

- **huggingface**: transformers' Perceiver. The same network, with equal weights: its outputs are ours.
- **lucidrains**: perceiver-pytorch's. The nearest network it can be set to; :data:`DIFFERENCES` says what
  differs. Its outputs are others, its sizes are ours.
- **TransformerEncoder**: torch's own, over all inputs.
"""

from __future__ import annotations

from importlib import metadata, util
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from perceiver_policy.attention import AttentionLayer
from perceiver_policy.core import PerceiverEncoder
from perceiver_policy.model import PerceiverIO

if TYPE_CHECKING:
    from transformers import PerceiverConfig

PACKAGES = {"huggingface": "transformers", "lucidrains": "perceiver-pytorch", "TransformerEncoder": "torch"}
"""By rival, the package it comes from."""
DIFFERENCES = {
    "huggingface": "equal weights",
    "lucidrains": "nearest sizes: gated MLPs of four times the width, keys as wide as values, fewer biases",
    "TransformerEncoder": "3 layers of 256 channels, 2 heads, 1024 hidden",
}
"""By rival, what it computes."""
TOLERANCE = 1e-4
"""Largest difference of outputs that are to be equal."""


def absence(rival: str) -> str | None:
    """Why the rival cannot be run here; None if it can."""
    package = PACKAGES[rival]
    if util.find_spec(package.replace("-", "_")) is None:
        return f"{package} is not installed; pip install 'perceiver-policy[bench]' brings it"
    return None


def label(rival: str) -> str:
    """What to name it in a row."""
    package = PACKAGES[rival]
    if absence(rival):
        return package
    name = "nn.TransformerEncoder, torch" if package == "torch" else package
    return f"{name} {metadata.version(package)}, {DIFFERENCES[rival]}"


def require_equal(ours: Tensor, theirs: Tensor) -> None:
    """Both sides do the same work.

    Raises:
        RuntimeError: they do not.
    """
    largest = (ours - theirs).abs().max().item()
    if not largest <= TOLERANCE:
        raise RuntimeError(f"outputs that are to be equal differ by {largest:.2g}: nothing to compare")


class HuggingFaceEncoder(nn.Module):
    """transformers' encoder with its latents.

    Args:
        encoder: whose weights to take.
        num_input_channels: C.
    """

    def __init__(self, encoder: PerceiverEncoder, num_input_channels: int) -> None:
        super().__init__()
        from transformers.models.perceiver import modeling_perceiver as perceiver

        self.latents = nn.Parameter(encoder.latents.detach().clone())
        self.encoder = perceiver.PerceiverEncoder(_configuration(encoder), kv_dim=num_input_channels)
        _copy_encoder(encoder, self.encoder)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, M, C) float to latents (B, N, D)."""
        latents = self.latents.expand(len(inputs), -1, -1)
        return cast(Tensor, self.encoder(latents, inputs=inputs).last_hidden_state)


class HuggingFaceEntities(nn.Module):
    """transformers' layers put together as ``perceiver-io-starcraft``.

    Args:
        ours: whose weights to take.
    """

    def __init__(self, ours: PerceiverIO) -> None:
        super().__init__()
        from transformers.models.perceiver import modeling_perceiver as perceiver

        assert ours.query is not None
        assert ours.decoder is not None
        assert ours.config.decoder is not None
        self.encoder = HuggingFaceEncoder(ours.encoder, ours.input.num_channels)
        self.query = nn.Linear(ours.input.num_channels, ours.query.num_channels)
        decoder = ours.decoder.cross_attention.attention
        self.decoder = perceiver.PerceiverLayer(
            _configuration(ours.encoder),
            is_cross_attention=True,
            qk_channels=decoder.num_qk_channels,
            v_channels=decoder.num_v_channels,
            num_heads=decoder.num_heads,
            q_dim=ours.query.num_channels,
            kv_dim=ours.encoder.config.num_latent_channels,
            widening_factor=ours.config.decoder.widening_factor,
        )
        _copy_layer(ours.decoder.cross_attention, self.decoder)
        self.query.load_state_dict(cast(nn.Module, ours.query.projection).state_dict())

    def forward(self, units: Tensor) -> Tensor:
        """(B, M, C) float to (B, M, Q)."""
        return cast(Tensor, self.decoder(self.query(units), inputs=self.encoder(units))[0])


class HuggingFaceImages(nn.Module):
    """transformers' preprocessor of pixels and encoder.

    Args:
        encoder: whose weights to take.
        size: pixels along a side.
        num_layers: of the encoder's self-attention layers; 0 leaves the cross-attention alone.
    """

    def __init__(self, encoder: PerceiverEncoder, size: int, num_layers: int) -> None:
        super().__init__()
        from transformers.models.perceiver import modeling_perceiver as perceiver

        fourier = {"num_bands": 64, "max_resolution": (size, size), "concat_pos": True, "sine_only": False}
        config = _configuration(encoder)
        config.num_blocks, config.num_self_attends_per_block = 1, num_layers
        self.input = perceiver.PerceiverImagePreprocessor(
            config, prep_type="pixels", spatial_downsample=1, fourier_position_encoding_kwargs=fourier
        )
        self.latents = nn.Parameter(encoder.latents.detach().clone())
        self.encoder = perceiver.PerceiverEncoder(config, kv_dim=self.input.num_channels)
        _copy_encoder(encoder, self.encoder)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float to latents (B, N, D)."""
        inputs, _, _ = self.input(images)
        latents = self.latents.expand(len(images), -1, -1)
        return cast(Tensor, self.encoder(latents, inputs=inputs).last_hidden_state)


class HuggingFaceText(nn.Module):
    """transformers' masked language model, whole.

    Args:
        ours: whose weights to take.
    """

    def __init__(self, ours: PerceiverIO) -> None:
        super().__init__()
        from transformers import PerceiverForMaskedLM

        assert ours.decoder is not None
        config = _configuration(ours.encoder)
        state = ours.state_dict()
        config.d_model, config.vocab_size = state["input.embedding.weight"].shape[::-1]
        config.max_position_embeddings = len(state["input.positions.table"])
        self.model = PerceiverForMaskedLM(config)
        perceiver = self.model.perceiver
        _copy_encoder(ours.encoder, perceiver.encoder)
        _copy_layer(ours.decoder.cross_attention, perceiver.decoder.decoding_cross_attention)
        with torch.no_grad():
            for theirs, name in (
                (perceiver.embeddings.latents, "encoder.latents"),
                (perceiver.input_preprocessor.embeddings.weight, "input.embedding.weight"),
                (perceiver.input_preprocessor.position_embeddings.weight, "input.positions.table"),
                (perceiver.decoder.output_position_encodings.position_embeddings, "query.query"),
                (self.model.embedding_decoder.bias, "head.bias"),
            ):
                theirs.copy_(state[name])

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) int64 to logits (B, L, V)."""
        return cast(Tensor, self.model(ids).logits)


class LucidrainsEntities(nn.Module):
    """perceiver-pytorch's nearest to ``perceiver-io-starcraft``. Its decoder has no query residual.

    Args:
        ours: whose sizes to take.
    """

    def __init__(self, ours: PerceiverIO) -> None:
        super().__init__()
        from perceiver_pytorch import PerceiverIO as Lucidrains

        assert ours.query is not None
        self.query = nn.Linear(ours.input.num_channels, ours.query.num_channels)
        self.model = Lucidrains(
            dim=ours.input.num_channels,
            queries_dim=ours.query.num_channels,
            decoder_ff=True,
            **_lucidrains_sizes(ours.encoder),
        )

    def forward(self, units: Tensor) -> Tensor:
        """(B, M, C) float to (B, M, Q)."""
        return cast(Tensor, self.model(units, queries=self.query(units)))


class LucidrainsImages(nn.Module):
    """perceiver-pytorch's Perceiver with Fourier features, reading the pixels once.

    Args:
        encoder: whose sizes to take.
        size: pixels along a side.
        num_layers: self-attention layers that follow.
    """

    def __init__(self, encoder: PerceiverEncoder, size: int, num_layers: int) -> None:
        super().__init__()
        from perceiver_pytorch import Perceiver

        sizes = _lucidrains_sizes(encoder) | {"depth": 1, "self_per_cross_attn": num_layers}
        self.model = Perceiver(num_freq_bands=64, max_freq=size, final_classifier_head=False, **sizes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float to latents (B, N, D)."""
        return cast(Tensor, self.model(images.movedim(1, -1)))


class LucidrainsText(nn.Module):
    """perceiver-pytorch's example of a language model. Its queries are the embedded text.

    Args:
        ours: whose sizes to take.
    """

    def __init__(self, ours: PerceiverIO) -> None:
        super().__init__()
        from perceiver_pytorch.perceiver_io import PerceiverLM

        vocabulary, channels = ours.state_dict()["input.embedding.weight"].shape
        self.model = PerceiverLM(
            dim=channels,
            num_tokens=vocabulary,
            max_seq_len=len(ours.state_dict()["input.positions.table"]),
            decoder_ff=True,
            **_lucidrains_sizes(ours.encoder),
        )

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) int64 to logits (B, L, V)."""
        return cast(Tensor, self.model(ids))


def transformer(num_channels: int) -> nn.TransformerEncoder:
    """AlphaStar's in size: 3 layers, 2 heads, 1024 hidden (arXiv:2107.14795, appendix B)."""
    layer = nn.TransformerEncoderLayer(num_channels, 2, 1024, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 3)


def _configuration(encoder: PerceiverEncoder) -> PerceiverConfig:
    from transformers import PerceiverConfig

    config, cross = encoder.config, cast(AttentionLayer, encoder.cross_attentions[0]).attention
    inner = cast(AttentionLayer, cast(nn.ModuleList, encoder.blocks[0])[0]).attention
    alike = (inner.num_qk_channels, inner.num_v_channels) == (cross.num_qk_channels, cross.num_v_channels)
    return PerceiverConfig(
        num_latents=config.num_latents,
        d_latents=config.num_latent_channels,
        num_blocks=config.num_blocks,
        num_self_attends_per_block=config.num_self_attention_layers_per_block,
        num_self_attention_heads=config.num_self_attention_heads,
        num_cross_attention_heads=config.num_cross_attention_heads,
        qk_channels=cross.num_qk_channels if alike else None,
        v_channels=cross.num_v_channels if alike else None,
        cross_attention_shape_for_attention="kv",
        cross_attention_widening_factor=config.cross_attention_widening_factor,
        self_attention_widening_factor=config.self_attention_widening_factor,
        hidden_act=config.activation,
        attention_probs_dropout_prob=0.0,
    )


def _lucidrains_sizes(encoder: PerceiverEncoder) -> dict[str, Any]:
    """Arguments for a network of about the encoder's sizes; values are as wide as ours."""
    config, cross = encoder.config, cast(AttentionLayer, encoder.cross_attentions[0]).attention
    return {
        "depth": config.num_self_attention_layers_per_block,
        "num_latents": config.num_latents,
        "latent_dim": config.num_latent_channels,
        "cross_heads": cross.num_heads,
        "cross_dim_head": cross.num_v_channels // cross.num_heads,
        "latent_heads": config.num_self_attention_heads,
        "latent_dim_head": config.num_latent_channels // config.num_self_attention_heads,
    }


@torch.no_grad()
def _copy_encoder(ours: PerceiverEncoder, theirs: nn.Module) -> None:
    """One cross-attention, then a block of layers."""
    _copy_layer(cast(AttentionLayer, ours.cross_attentions[0]), cast(nn.Module, theirs.cross_attention))
    for i, layer in enumerate(cast(nn.ModuleList, theirs.self_attends)):
        _copy_layer(cast(AttentionLayer, cast(nn.ModuleList, ours.blocks[0])[i]), layer)


@torch.no_grad()
def _copy_layer(ours: AttentionLayer, theirs: nn.Module) -> None:
    attention = ours.attention
    widths = [attention.num_qk_channels, attention.num_v_channels]
    state = {}
    for kind in ("weight", "bias"):
        if attention.is_self_attention:
            fused = getattr(attention.query_key_value, kind)
            query, key, value = fused.split([widths[0], *widths])
        else:
            query = getattr(attention.query, kind)
            key, value = getattr(attention.key_value, kind).split(widths)
            state[f"attention.self.layernorm2.{kind}"] = getattr(ours.key_value_norm, kind)
        state |= {
            f"attention.self.layernorm1.{kind}": getattr(ours.query_norm, kind),
            f"attention.self.query.{kind}": query,
            f"attention.self.key.{kind}": key,
            f"attention.self.value.{kind}": value,
            f"attention.output.dense.{kind}": getattr(attention.output, kind),
            f"layernorm.{kind}": getattr(ours.mlp_norm, kind),
            f"mlp.dense1.{kind}": getattr(ours.mlp[0], kind),
            f"mlp.dense2.{kind}": getattr(ours.mlp[2], kind),
        }
    theirs.load_state_dict(state)
