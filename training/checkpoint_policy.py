"""The policy inside a run's checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path

from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE

from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.rl_module import PerceiverRLModule
from training.rl.rollout import MODULE_ID
from training.rl.run_folder import RunFolder


def policy_of_newest_checkpoint(run: Path) -> UnitSetPolicy:
    """The policy as it was when the run was last saved.

    Raises:
        ValueError: the run has no checkpoint.
    """
    found = RunFolder(run).latest_checkpoint()
    if found is None:
        raise ValueError(f"{run} holds no checkpoint; one is written within a minute of training")
    checkpoint, _ = found
    path = checkpoint / COMPONENT_LEARNER_GROUP / COMPONENT_LEARNER / COMPONENT_RL_MODULE / MODULE_ID
    logging.disable(logging.WARNING)  # RLlib warns of what it does itself
    try:
        return PerceiverRLModule.from_checkpoint(path).policy.eval()
    finally:
        logging.disable(logging.NOTSET)
