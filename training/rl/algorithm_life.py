"""RLlib's algorithm from its making to its end: checkpoints of it, and its weights in all its processes.

RLlib's own ways, and what they leave undone where processes are several (Ray 2.60).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.core.learner.learner import Learner
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.rllib.utils.typing import StateDict


@contextlib.contextmanager
def built(config: AlgorithmConfig) -> Iterator[Algorithm]:
    """The algorithm, stopped in the end, and without the empty folder that RLlib makes in one's home."""
    algorithm = config.build_algo()
    try:
        yield algorithm
    finally:
        algorithm.stop()
        with contextlib.suppress(OSError):
            Path(algorithm.logdir).rmdir()


def save(algorithm: Algorithm, folder: str, *, num_learners: int) -> None:
    """Write a checkpoint, RLlib's.

    Args:
        algorithm: whose state to write.
        folder: absolute.
        num_learners: in processes of their own.

    Raises:
        OSError: it cannot be written, or only in part.
    """
    algorithm.save_to_path(folder)
    # A learner in a process of its own writes its part itself. If it cannot, RLlib keeps silent, and takes
    # the learner out of service besides.
    if not num_learners:
        return
    group = algorithm.learner_group
    if sum(answer.ok for answer in group.foreach_learner(lambda learner: None)) < num_learners:
        group.foreach_learner(lambda learner: None, healthy_only=False, mark_healthy=True)
        raise OSError(f"a learner could not write its part of {folder}")


def restore(algorithm: Algorithm, checkpoint: Path, *, env_steps: int) -> None:
    """Go on from a checkpoint of the same config: weights, optimizer and counters, also in remote runners.

    Battles under way are not in it, nor the state of torch's generator: a run that goes on plays other
    battles than one that was never stopped, and two that go on from one checkpoint play the same.
    """
    algorithm.restore_from_path(str(checkpoint))
    push_weights(algorithm, env_steps=env_steps)
    sampled = int(algorithm.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))
    algorithm.learner_group.foreach_learner(partial(_catch_up, env_steps=sampled))


def _catch_up(learner: Learner, *, env_steps: int) -> None:
    """Bring the entropy bonus to where it was. RLlib restores the step size, with the optimizer, but would go
    on for an iteration with the bonus that the learner happens to have: a new one the first."""
    for module_id in learner.module.keys():  # noqa: SIM118 (it is no dict: iterating it gives no ids)
        learner.entropy_coeff_schedulers_per_module[module_id].update(timestep=env_steps)


def push_weights(algorithm: Algorithm, *, env_steps: int = 0) -> None:
    """Give all runners the learner's weights, and the steps that the run has behind it.

    RLlib's own push of weights that were set may get lost where the push of the initial ones is still under
    way (Ray 2.60), and remote runners would sample with those. A push that is waited for does not.
    """
    weights = ray.put(learned_weights(algorithm))
    state = {COMPONENT_RL_MODULE: weights, NUM_ENV_STEPS_SAMPLED_LIFETIME: env_steps}
    algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.set_state(state))


def learned_weights(algorithm: Algorithm) -> StateDict:
    """The learner's weights by module, what acting needs of them."""
    state = algorithm.learner_group.get_state(
        components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
    )
    return state[COMPONENT_LEARNER][COMPONENT_RL_MODULE]
