"""Where a run keeps its policies: the best one in ``policy/``, the last ones in its checkpoints.

Both are exports of :mod:`perceiver_policy.pretrained`. RLlib's own files in a checkpoint are pickles, which
run whatever code their author put in; to take a policy out of a run, nobody has to read them, nor import Ray.
"""

from __future__ import annotations

from pathlib import Path

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints in a run's."""
POLICY = "policy"
"""Folder of the exported policy, in a run's and in a checkpoint's."""
CURRICULUM = "curriculum.json"
"""How the scenarios of a mixture have fared, in a checkpoint's folder."""
PROGRESS = "progress.json"
"""A checkpoint's last file: with it, the checkpoint is whole."""


def whole_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first; unfinished ones do not count."""
    return sorted(path for path in (run / CHECKPOINTS).glob("step_*") if (path / PROGRESS).is_file())


def newest_checkpoints_policy(run: Path) -> Path:
    """The export of the policy as it was when the run was last saved.

    Raises:
        ValueError: the run has no checkpoint.
    """
    checkpoints = whole_checkpoints(run)
    if not checkpoints:
        raise ValueError(f"{run} holds no checkpoint; one is written within a minute of training")
    return checkpoints[-1] / POLICY
