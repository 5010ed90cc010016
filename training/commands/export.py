"""``perceiver-policy export``: a run's policy as a folder that loads anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from perceiver_policy.pretrained import CONFIG_FILE, WEIGHTS_FILE, load_policy, read_metadata, save_policy
from training.checkpoint_policy import CHECKPOINTS, POLICY, newest_checkpoints_policy
from training.commands.door import door


@dataclass(frozen=True)
class Args:
    """Write a run's policy as config.yaml and model.safetensors, which load without Ray."""

    run: tyro.conf.Positional[Path]
    """The run's folder, or an exported policy."""
    out: Path
    """Where the export goes; an export that is there is replaced."""
    checkpoint: bool = False
    """Take the newest checkpoint's weights, not those of the best policy evaluated."""


def run(args: Args) -> int:
    """Copy the run's export, or that in a checkpoint. Nothing is unpickled: the run may be a stranger's."""
    with door():
        if not args.run.is_dir():
            raise ValueError(f"{args.run} is no folder of a run")
        inside = args.run / POLICY
        source = inside if inside.is_dir() or (args.run / CHECKPOINTS).is_dir() else args.run
        if args.checkpoint or not source.is_dir():
            source = newest_checkpoints_policy(args.run)
        save_policy(load_policy(source), args.out, metadata=read_metadata(source))
    print(f"{args.out} holds {CONFIG_FILE} and {WEIGHTS_FILE}; load it with LearnedAgent({str(args.out)!r})")
    return 0
