"""``perceiver-policy import-perceiver``: a published checkpoint as a model of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from perceiver_policy.checkpoints import import_checkpoint
from perceiver_policy.pretrained import CONFIG_FILE, WEIGHTS_FILE, refuse_foreign, save_model
from training.commands.door import door


@dataclass(frozen=True)
class Args:
    """Read a Perceiver that Hugging Face or DeepMind published; write config.yaml and model.safetensors."""

    checkpoint: tyro.conf.Positional[Path]
    """A folder of Hugging Face's, with config.json; or DeepMind's file, or a folder with one such file."""
    out: Path
    """Where the model goes; an export that is there is replaced."""
    compat: Literal["hf", "deepmind"] | None = None
    """Whose outputs it gives where the two differ; None: those of whom the checkpoint is from."""
    model: str | None = None
    """Of DeepMind's file: the configuration it is for; None: told by the names in it."""


def run(args: Args) -> int:
    """Read, check and write. No code in the checkpoint is run."""
    with door():
        refuse_foreign(args.out)
        model = import_checkpoint(args.checkpoint, compat=args.compat, model=args.model)
        save_model(model, args.out, metadata={"imported": args.checkpoint.name})
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{args.out} holds {CONFIG_FILE} and {WEIGHTS_FILE}, {count:,} weights; load it with")
    print(f"PerceiverIO.from_pretrained({str(args.out)!r})")
    return 0
