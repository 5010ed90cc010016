"""``perceiver-policy export-perceiver``: a model of ours as a folder that transformers loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from perceiver_policy.checkpoints import export_huggingface
from perceiver_policy.checkpoints.architecture import architecture_of
from perceiver_policy.model import PerceiverIO
from perceiver_policy.pretrained import load_model
from training.commands.door import door


@dataclass(frozen=True)
class Args:
    """Write a model like one of Hugging Face's seven as config.json and model.safetensors."""

    model: tyro.conf.Positional[Path]
    """A folder with config.yaml and model.safetensors."""
    out: Path
    """Where it goes; such a folder that is there is replaced."""
    ignore_differences: bool = False
    """Write it, too, if Hugging Face's class computes something else from these weights."""


def run(args: Args) -> int:
    """Read, check and write."""
    with door():
        model = load_model(PerceiverIO, args.model)
        export_huggingface(model, args.out, ignore_differences=args.ignore_differences)
    print(f"{args.out} holds config.json and model.safetensors; load it with")
    print(f"transformers.{architecture_of(model.config)}.from_pretrained({str(args.out)!r})")
    return 0
