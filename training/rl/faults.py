"""What goes wrong while training, and what is done about it.

=============================== =====================================================================
what happens                    what follows
=============================== =====================================================================
an env runner dies              Ray restarts it, RLlib gives it the weights; the others go on
all env runners die             training waits for them, for :data:`PATIENCE_S` at most
a learner dies                  the job builds itself anew from the last checkpoint
a gradient is not finite        the step is not taken, what it came from is kept, training stops
a checkpoint cannot be written  the one before stays; training goes on and tries again
=============================== =====================================================================
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED

from training.rl.config import TrainConfig
from training.rl.finite_gradients import Failure
from training.rl.post_mortem import save_failures
from training.rl.run_folder import Progress, RunFolder

PATIENCE_S = 900.0
"""How long training waits for an env runner before it gives up: a cluster may be fetching a machine."""
RECOVERIES_IN_A_ROW = 3
"""How often a job is built anew from one checkpoint, learner after learner lost, before it gives up."""
_ANSWER_S = 20.0


class TrainingFaultError(RuntimeError):
    """Training stopped by itself; the message says why and how to go on, in one sentence."""


class LearnerLostError(RuntimeError):
    """A learner's process is gone, and what it had learned since the last checkpoint."""


class NonFiniteError(RuntimeError):
    """A gradient was not finite.

    Attributes:
        failures: what the learners computed it from.
    """

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__("a gradient is not finite")
        self.failures = failures


def resume_command(run_dir: Path) -> str:
    """What to type to go on with a run."""
    return f"perceiver-policy train --run-dir {shlex.quote(str(run_dir))} --resume"


def iterate(algorithm: Algorithm) -> Mapping[str, Any]:
    """One iteration of RLlib's, and what it means if it fails.

    Raises:
        NonFiniteError: a learner refused a step.
        LearnerLostError: a learner does not answer any more.
        Exception: anything else, as it came.
    """
    try:
        return algorithm.train()
    except Exception as error:
        # One that refused a step is out of service for RLlib, but there: back into it, as what it has learned
        # is to be exported.
        answers = algorithm.learner_group.foreach_learner(
            lambda learner: learner.failure, healthy_only=False, mark_healthy=True, timeout_seconds=_ANSWER_S
        ).result_or_errors
        alive = [answer.get() for answer in answers if answer.ok]
        if len(alive) < max(algorithm.config.num_learners, 1):
            raise LearnerLostError("a learner died") from error
        if failures := [failure for failure in alive if failure is not None]:
            raise NonFiniteError(failures) from error
        raise


def post_mortem(error: NonFiniteError, folder: RunFolder, config: TrainConfig, progress: Progress) -> str:
    """Keep what a gradient came from, and say so in a sentence."""
    place = folder.failures / f"step_{progress.env_steps:012d}"
    try:
        save_failures(error.failures, place, config)
        kept = f"the minibatch and the weights it came from are in {place}"
    except OSError as full:
        kept = f"the minibatch it came from could not be kept ({full.strerror or full})"
    return (
        f"{error} at {progress.env_steps:,} steps, so training stopped before that step; {kept}; go on from "
        f"the last checkpoint, with a smaller lr perhaps, with: {resume_command(config.run_dir)}"
    )


class Recoveries:
    """Where a job goes on that lost a learner.

    Args:
        folder: of the run.
        say: tells the user.
    """

    def __init__(self, folder: RunFolder, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._from: int | None = None
        self._times = 0

    def checkpoint_after(self, lost: Exception) -> tuple[Path, Progress] | None:
        """The newest checkpoint; None: begin anew.

        Args:
            lost: how it was noticed.

        Raises:
            TrainingFaultError: it has been gone on from too often.
        """
        checkpoint = self._folder.latest_checkpoint()
        steps = checkpoint[1].env_steps if checkpoint else 0
        self._times = self._times + 1 if steps == self._from else 1
        self._from = steps
        if self._times > RECOVERIES_IN_A_ROW:
            raise TrainingFaultError(
                f"a learner died {self._times} times without a checkpoint in between, so training stopped; "
                f"once its machine is well, go on with: {resume_command(self._folder.path)}"
            ) from lost
        where = f"the checkpoint at {steps:,} steps" if checkpoint else "the beginning"
        self._say(f"A learner died; training goes on from {where}.")
        return checkpoint


class RunnerWatch:
    """Tells when env runners go and come, and gives up when none has sampled for long.

    Args:
        num_runners: how many there should be; 0: this process samples, and there is nothing to watch.
        run_dir: of the run.
        say: tells the user.
    """

    def __init__(self, num_runners: int, run_dir: Path, say: Callable[[str], None]) -> None:
        self._num_runners = self._healthy = num_runners
        self._run_dir = run_dir
        self._say = say
        self._sampled_at = time.monotonic()

    def sampled(self, result: Mapping[str, Any]) -> bool:
        """Whether anything was sampled in an iteration.

        Raises:
            TrainingFaultError: nothing was, for :data:`PATIENCE_S`.
        """
        steps = result.get(ENV_RUNNER_RESULTS, {}).get(NUM_ENV_STEPS_SAMPLED, math.nan)
        some = bool(steps > 0)  # False of NaN, RLlib's word for an iteration without samples
        if self._num_runners:
            self._tell(int(result["fault_tolerance"]["num_healthy_workers"]), some)
        if some:
            self._sampled_at = time.monotonic()
        elif time.monotonic() - self._sampled_at > PATIENCE_S:
            raise TrainingFaultError(
                f"no env runner has answered for {PATIENCE_S / 60:.0f} minutes, so training stopped; go on "
                f"with: {resume_command(self._run_dir)}"
            )
        return some

    def _tell(self, healthy: int, some: bool) -> None:
        if healthy != self._healthy:
            back = healthy == self._num_runners
            going = "training goes on" if some else "training waits for them"
            rest = "." if back else f", the others are restarted; {going}."
            self._say(f"{healthy} of {self._num_runners} env runners are there{rest}")
            self._healthy = healthy
