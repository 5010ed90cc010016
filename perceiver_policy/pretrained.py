"""Models on disk, as folders of config.yaml and model.safetensors: see :mod:`perceiver_policy.export_files`.

    save_policy(policy, "policy/", metadata={"scenario": "3m"})
    policy = load_policy("policy/")

A :class:`~perceiver_policy.model.PerceiverIO` has the same, ``model.save_pretrained("model/")`` and
``PerceiverIO.from_pretrained("model/")``, and so has a policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from perceiver_policy.export_files import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    ExportError,
    load_model,
    read_metadata,
    refuse_foreign,
    save_model,
)
from perceiver_policy.policy import UnitSetPolicy

__all__ = [
    "CARD_FILE",
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "ExportError",
    "load_model",
    "load_policy",
    "read_metadata",
    "refuse_foreign",
    "save_model",
    "save_policy",
]


def save_policy(
    policy: UnitSetPolicy, directory: str | Path, *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Export a policy; :func:`~perceiver_policy.export_files.save_model` says how."""
    save_model(policy, directory, metadata=metadata)


def load_policy(directory: str | Path, *, device: str | torch.device = "cpu") -> UnitSetPolicy:
    """Load a policy, ready to act; :func:`~perceiver_policy.export_files.load_model` says what is refused."""
    return load_model(UnitSetPolicy, directory, device=device)
