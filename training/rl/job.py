"""The training job: PPO from the first battle to the exported policy, in a folder that can be resumed.

::

    train(TrainConfig(scenario="3m", run_dir=Path("runs/3m")))
"""

from __future__ import annotations

import contextlib
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.core.learner.learner import ENTROPY_KEY
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
)
from rich.console import Console

from agents.learned import LearnedAgent
from envs.scenarios import load_scenario
from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.pretrained import save_policy
from training.checkpoint_policy import POLICY
from training.evaluate import Measure
from training.evaluate import evaluate as play
from training.rl.config import TrainConfig, build_ppo_config
from training.rl.interrupt import StopOnSignal
from training.rl.learner import APPROXIMATE_KL
from training.rl.learner_connector import EXPLAINED_VARIANCE
from training.rl.local_ray import local_ray
from training.rl.monitor import IterationReport, Monitor, Verdict
from training.rl.rollout import MODULE_ID, NUM_ILLEGAL_ORDERS, NUM_WINS
from training.rl.run_folder import Progress, RunFolder, open_run
from training.rl.seats import BattleSetup, Opponent

Evaluate = Callable[[UnitSetPolicy], Verdict]


class StoppedBy(Enum):
    """Why training ended."""

    TARGET = "target"
    STEP_LIMIT = "step limit"
    TIME_LIMIT = "time limit"
    SIGNAL = "signal"


@dataclass(frozen=True)
class TrainResult:
    """How a call of :func:`train` ended."""

    progress: Progress  # of the whole run
    evaluation: Verdict | None  # the last one of this call
    stopped_by: StoppedBy
    policy: Path  # the exported policy


def train(
    config: TrainConfig,
    *,
    opponent: Opponent | None = None,
    evaluate: Evaluate | None = None,
    console: Console | None = None,
) -> TrainResult:
    """Train until the target is met, the budget is spent or a signal comes; then save and export.

    The exported policy is the best one evaluated; without evaluations, the last. A run that is resumed with
    its budget spent or its target met trains no more.

    Args:
        config: the job.
        opponent: an agent, or what makes one, in place of the one that ``config`` names.
        evaluate: judges a policy on fresh battles at every call; default: :func:`greedy_evaluation`.
        console: where to report; default: standard error.

    Raises:
        RunFolderError: the run folder does not fit or cannot be written to.
        ScenarioError, ConfigError, ValueError: as :func:`build_ppo_config`, before anything is written.
    """
    console = console or Console(stderr=True)
    folder, config = open_run(config)
    ppo = build_ppo_config(config, opponent=opponent)
    checkpoint = folder.latest_checkpoint() if config.resume else None
    progress = checkpoint[1] if checkpoint else Progress()
    if not config.resume:
        folder.write_settings(config)
    torch.set_num_threads(config.torch_threads)
    mission = load_scenario(config.scenario).mission is not None
    measure = Measure.SCORE if mission else Measure.WIN_RATE
    evaluate = evaluate or greedy_evaluation(
        BattleSetup(**ppo.env_config), games=config.evaluation_games, seed=(config.seed, progress.env_steps)
    )
    with local_ray(num_cpus=1 + config.num_env_runners), _built(ppo) as algorithm:
        if checkpoint:
            restore(algorithm, checkpoint[0], env_steps=progress.env_steps)
        with (
            StopOnSignal(lambda: console.print("Finishing this iteration. Again to quit at once.")) as stop,
            Monitor(folder.tensorboard, console, progress.env_steps, measure) as monitor,
        ):
            result = _Job(config, folder, algorithm, evaluate, monitor, progress, measure).run(stop)
    if result.stopped_by is StoppedBy.SIGNAL:
        message = f"Saved. Go on with: {resume_command(config.run_dir)}"
        console.print(message, highlight=False, markup=False, soft_wrap=True)
    return result


def resume_command(run_dir: Path) -> str:
    """What to type to go on with a run."""
    return f"perceiver-policy train --run-dir {shlex.quote(str(run_dir))} --resume"


def greedy_evaluation(setup: BattleSetup, *, games: int, seed: Sequence[int]) -> Evaluate:
    """A judge of policies: ``games`` battles with greedy orders, other ones at every call."""
    opponent = setup.make_opponent()
    sequence = np.random.SeedSequence(seed)

    def judge(policy: UnitSetPolicy) -> Verdict:
        (fresh,) = sequence.spawn(1)
        return play(
            LearnedAgent(policy),
            opponent,
            setup.scenario,
            games=games,
            seed=int(fresh.generate_state(1)[0]),
            control=setup.control,
            swap_sides=len(setup.sides()) == 2,
            num_threads=setup.num_threads,
        )

    return judge


def restore(algorithm: PPO, checkpoint: Path, *, env_steps: int) -> None:
    """Go on from a checkpoint of the same config: weights, optimizer and counters, also in remote runners.

    RLlib's own push of the restored weights may get lost where the push of the initial ones is still under
    way (Ray 2.60), and remote runners would sample with those. A push that is waited for does not.
    """
    algorithm.restore_from_path(str(checkpoint))
    learner = algorithm.learner_group.get_state(
        components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
    )[COMPONENT_LEARNER]
    weights = ray.put(learner[COMPONENT_RL_MODULE])
    state = {COMPONENT_RL_MODULE: weights, NUM_ENV_STEPS_SAMPLED_LIFETIME: env_steps}
    algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.set_state(state))


class _Job:
    """The loop, and what it keeps."""

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        algorithm: PPO,
        evaluate: Evaluate,
        monitor: Monitor,
        progress: Progress,
        measure: Measure = Measure.WIN_RATE,
    ) -> None:
        self.measure = measure
        self.config = config
        self.folder = folder
        self.algorithm = algorithm
        self.evaluate = evaluate
        self.monitor = monitor
        self.progress = progress
        self.verdict: Verdict | None = None
        self._steps_before, self._seconds_before = progress.env_steps, progress.train_seconds
        self._began = self._saved = time.monotonic()

    def run(self, stop: StopOnSignal) -> TrainResult:
        """Iterate, evaluate, save, until there is a reason to stop."""
        stopped_by = self._spent()
        while stopped_by is None:
            self._iterate()
            if self._evaluation_is_due() and self._meets_target():
                self.progress = replace(self.progress, target_met=self.config.target_win_rate)
            stopped_by = self._spent()
            if stop.requested:
                stopped_by = StoppedBy.SIGNAL
            if stopped_by or time.monotonic() - self._saved >= self.config.checkpoint_interval_s:
                self._save()
        if self.progress.best_low is None:  # an export that is there is older than these weights
            self._export(self.folder.policy)
        return TrainResult(self.progress, self.verdict, stopped_by, self.folder.policy)

    @property
    def _policy(self) -> UnitSetPolicy:
        return self.algorithm.get_module(MODULE_ID).policy

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _iterate(self) -> None:
        began = time.monotonic()
        result = self.algorithm.train()
        sampled, learned = result[ENV_RUNNER_RESULTS], result[LEARNER_RESULTS][MODULE_ID]
        new_steps = int(sampled[NUM_ENV_STEPS_SAMPLED])
        self.progress = replace(
            self.progress,
            iteration=self.progress.iteration + 1,
            env_steps=self.progress.env_steps + new_steps,
            train_seconds=self._seconds_before + self._elapsed,
        )
        report = IterationReport(
            env_steps=self.progress.env_steps,
            steps_per_second=new_steps / (time.monotonic() - began),
            win_rate=self._win_rate(sampled),
            episode_return=sampled.get(EPISODE_RETURN_MEAN, math.nan),
            episode_length=sampled.get(EPISODE_LEN_MEAN, math.nan),
            entropy=float(learned[ENTROPY_KEY]),
            kl=float(learned[APPROXIMATE_KL]),
            explained_variance=learned[EXPLAINED_VARIANCE],
            illegal_orders=int(sampled[NUM_ILLEGAL_ORDERS]),
        )
        fraction = self._fraction()
        left = self._elapsed * (1 / fraction - 1) if fraction else None
        self.monitor.iteration(report, fraction=fraction, seconds_left=left)

    def _win_rate(self, sampled: Mapping[str, float]) -> float:
        """Of the battles that ended in an iteration; NaN if there were none, and of missions."""
        if self.measure is Measure.SCORE or not sampled[NUM_EPISODES]:
            return math.nan
        return sampled[NUM_WINS] / sampled[NUM_EPISODES]

    def _evaluation_is_due(self) -> bool:
        interval = self.config.evaluation_interval
        return interval > 0 and self.progress.iteration % interval == 0

    def _meets_target(self) -> bool:
        """Evaluate; above the target once more, as the first to cross it was picked for its luck, too."""
        target = self.config.target_win_rate
        for _ in range(2):
            self.verdict = self.evaluate(self._policy)
            self.monitor.evaluation(self.verdict, self.progress.env_steps)
            best, low = self.progress.best_low, self.verdict.interval[0]
            if best is None or low >= best:
                self._export(self.folder.policy)
                self.progress = replace(self.progress, best_low=low)
            if target is None or low < target:
                return False
        return True

    def _fraction(self) -> float:
        """Of the budget spent by this call, by whichever limit is nearer; 0 without a limit."""
        config, fractions = self.config, [0.0]
        if config.time_limit_s is not None:
            fractions.append(self._elapsed / config.time_limit_s)
        if config.max_env_steps is not None:
            done = self.progress.env_steps - self._steps_before
            fractions.append(done / (config.max_env_steps - self._steps_before))
        return max(fractions)

    def _spent(self) -> StoppedBy | None:
        config, met = self.config, self.progress.target_met
        if config.target_win_rate is not None and met is not None and met >= config.target_win_rate:
            return StoppedBy.TARGET
        if config.max_env_steps is not None and self.progress.env_steps >= config.max_env_steps:
            return StoppedBy.STEP_LIMIT
        if config.time_limit_s is not None and self._elapsed >= config.time_limit_s:
            return StoppedBy.TIME_LIMIT
        return None

    def _export(self, to: Path) -> None:
        config = self.config
        metadata = {
            "scenario": config.scenario,
            "control": config.control,
            "swap_sides": config.swap_sides,
            "env_steps": self.progress.env_steps,
        }
        save_policy(self._policy, to, metadata=metadata)

    def _save(self) -> None:
        self.monitor.flush()
        self.folder.save_checkpoint(self.progress, self._write_checkpoint)
        self._saved = time.monotonic()

    def _write_checkpoint(self, to: str) -> None:
        """RLlib's state, to go on from, and the policy as an export, to take out without unpickling."""
        self.algorithm.save_to_path(to)
        self._export(Path(to) / POLICY)


@contextlib.contextmanager
def _built(ppo: PPOConfig) -> Iterator[PPO]:
    """The algorithm, stopped in the end, and without the empty folder that RLlib makes in one's home."""
    algorithm = ppo.build_algo()
    try:
        yield algorithm
    finally:
        algorithm.stop()
        with contextlib.suppress(OSError):
            Path(algorithm.logdir).rmdir()
