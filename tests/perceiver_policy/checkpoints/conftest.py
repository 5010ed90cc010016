"""Tiny models of Hugging Face's seven classes, with weights that hide nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

PERTURBATION = 0.05

SMALL: dict[str, Any] = {
    "num_latents": 5,
    "d_latents": 24,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 3,
    "num_cross_attention_heads": 1,
    "self_attention_widening_factor": 2,
    "cross_attention_widening_factor": 3,
    "attention_probs_dropout_prob": 0.1,
}
TEXT = {"d_model": 16, "vocab_size": 30, "max_position_embeddings": 12, "num_cross_attention_heads": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    # Heads of 8, and values as wide as latents, but queries and keys narrower: as published.
    "PerceiverForMaskedLM": TEXT | {"qk_channels": 12, "v_channels": 24},
    "PerceiverForSequenceClassification": TEXT | {"num_labels": 3, "use_query_residual": False},
    "PerceiverForImageClassificationLearned": {"image_size": 6, "num_labels": 4, "num_blocks": 2},
    "PerceiverForImageClassificationFourier": {"num_labels": 4, "num_blocks": 2, "hidden_act": "relu"},
    "PerceiverForImageClassificationConvProcessing": {"num_labels": 4, "num_blocks": 2},
    "PerceiverForOpticalFlow": {"train_size": [6, 5], "cross_attention_shape_for_attention": "q"},
    "PerceiverForMultimodalAutoencoding": {
        "num_labels": 7,
        "num_frames": 2,
        "audio_samples_per_frame": 8,
        "samples_per_patch": 4,
        "image_size": 3,
        "output_shape": [1, 2, 8, 8],
        "output_num_channels": 10,
        "_label_trainable_num_channels": 20,
        "num_blocks": 2,
    },
}


def make_huggingface(name: str, **changes: Any) -> transformers.PreTrainedModel:
    """One of the seven in evaluation mode: every weight perturbed, the statistics of batch norm drawn."""
    torch.manual_seed(1)
    config = transformers.PerceiverConfig(**(SMALL | SETTINGS[name] | changes))
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=PERTURBATION)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
                module.num_batches_tracked.fill_(17)
    return model


@pytest.fixture
def huggingface_folder(tmp_path: Path) -> Callable[..., tuple[transformers.PreTrainedModel, Path]]:
    """Makes one of the seven and saves it as Hugging Face does."""

    def make(name: str, **changes: Any) -> tuple[transformers.PreTrainedModel, Path]:
        model = make_huggingface(name, **changes)
        model.save_pretrained(tmp_path / "theirs")
        return model, tmp_path / "theirs"

    return make
