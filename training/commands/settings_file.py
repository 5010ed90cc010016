"""``--config FILE``: a job's settings from a file, as defaults that options on the command line override."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from training.rl import TrainConfig


def job_from_file(argv: Sequence[str], default: TrainConfig) -> TrainConfig:
    """The settings in the file that ``argv`` names with ``--config``, or the default ones.

    The run folder is not taken from the file: what it describes has been run already, there.

    Args:
        argv: options of a command.
        default: where there is no ``--config``; and the run folder.

    Raises:
        OSError: the file cannot be read.
        ValueError: it does not hold the settings of a run.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", type=Path)
    try:
        path = parser.parse_known_args(argv)[0].config
    except argparse.ArgumentError:  # --config without a file: the command's own parser says so
        return default
    if path is None:
        return default
    return dataclasses.replace(TrainConfig.load(path), run_dir=default.run_dir, resume=False)
