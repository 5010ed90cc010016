"""Weights that a run starts with, where it does not start from chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE

from agents.roster import policy_folder
from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.pretrained import load_policy
from training.rl.rollout import MODULE_ID

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

    from training.rl.config import TrainConfig

_COPIES = ("policy.", "_target_policy.")
"""Where an RLModule has a policy's weights; the second is the copy that lags behind, if the algorithm has
one."""


def load_initial(config: TrainConfig) -> UnitSetPolicy | None:
    """The policy that ``config.init_from`` names; None: start from chance.

    Raises:
        ValueError: there is no such policy, or it is of another model than the job's.
    """
    if config.init_from is None:
        return None
    folder = policy_folder(config.init_from)
    if folder is None:
        raise ValueError(
            f"init_from is {config.init_from!r}, which is neither policy:NAME nor the folder of an exported "
            "policy or of a run"
        )
    policy = load_policy(folder)
    theirs, ours = policy.config.to_dict(), config.load_model().to_dict()
    other = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
    if other == ["critic"] and config.algorithm == "mappo":
        raise ValueError(
            f"init_from is {config.init_from!r}, a policy whose critic reads no state, as mappo's does; "
            "start from a policy of mappo's, or train by ppo"
        )
    if other:
        raise ValueError(
            f"init_from is {config.init_from!r}, a policy whose model differs from the job's in "
            f"{', '.join(other)}; train with --model {folder / 'config.yaml'}"
        )
    return policy


def start_from(algorithm: Algorithm, policy: UnitSetPolicy) -> None:
    """Give the learners a policy's weights; the optimizer stays as it is."""
    learner = algorithm.learner_group.get_state(components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}")
    state = learner[COMPONENT_LEARNER][COMPONENT_RL_MODULE][MODULE_ID]
    weights = {name: tensor.cpu().numpy() for name, tensor in policy.state_dict().items()}
    given = {
        prefix + name: array
        for prefix in _COPIES
        for name, array in weights.items()
        if prefix + name in state
    }
    algorithm.learner_group.set_state({COMPONENT_LEARNER: {COMPONENT_RL_MODULE: {MODULE_ID: state | given}}})
