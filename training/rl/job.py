"""The training job: from the first battle to the exported policy, in a folder that can be resumed.

::

    train(TrainConfig(scenario="3m", run_dir=Path("runs/3m")))
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from ray.exceptions import RayActorError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.learner.learner import ENTROPY_KEY
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED,
    NUM_EPISODES,
)
from rich.console import Console

from agents.learned import LearnedAgent
from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.pretrained import save_policy
from perceiver_policy.rl_module import PerceiverRLModule
from training.checkpoint_policy import CURRICULUM, POLICY
from training.evaluate import EvaluationResult, Measure
from training.mixture import parse_mixture
from training.mixture_result import evaluate_mixture
from training.rl.algorithm_life import built, learned_weights, push_weights, restore, save
from training.rl.algorithms import build_algorithm_config, resources
from training.rl.config import TrainConfig
from training.rl.curriculum import Curriculum
from training.rl.faults import (
    LearnerLostError,
    NonFiniteError,
    Recoveries,
    RunnerWatch,
    TrainingFaultError,
    iterate,
    post_mortem,
    resume_command,
)
from training.rl.initial_weights import load_initial, start_from
from training.rl.interrupt import StopOnSignal
from training.rl.learner import APPROXIMATE_KL
from training.rl.learner_connector import EXPLAINED_VARIANCE
from training.rl.local_ray import local_ray, shortage
from training.rl.monitor import IterationReport, Monitor, Verdict
from training.rl.rollout import MIXTURE_WEIGHTS, MODULE_ID, NUM_ILLEGAL_ORDERS, NUM_WINS, SCENARIOS
from training.rl.run_folder import Progress, RunFolder, RunFolderError, open_run
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
    startup_seconds: float = 0.0  # of this call, until the first battle was stepped
    saved: bool = True  # whether the run's last checkpoint is of its last step
    signal: int | None = None  # which one stopped it


def train(
    config: TrainConfig,
    *,
    opponent: Opponent | None = None,
    module_class: type[PerceiverRLModule] = PerceiverRLModule,
    evaluate: Evaluate | None = None,
    on_evaluation: Callable[[Progress, Verdict], None] | None = None,
    console: Console | None = None,
) -> TrainResult:
    """Train until the target is met, the budget is spent or a signal comes; then save and export.

    The exported policy is the best one evaluated; without evaluations, the last. A run that is resumed with
    its budget spent or its target met trains no more.

    Args:
        config: the job.
        opponent: an agent, or what makes one, in place of the one that ``config`` names.
        module_class: of the policy's module.
        evaluate: judges a policy on fresh battles at every call; default: :func:`greedy_evaluation`.
        on_evaluation: told how far the run is and how an evaluation came out, each time.
        console: where to report; default: standard error.

    Raises:
        RunFolderError: the run folder does not fit or cannot be written to.
        ConnectionError: there is no cluster at ``config.ray_address``.
        TrainingFaultError: training cannot go on by itself; :mod:`training.rl.faults` tells when that is.
        ScenarioError, ConfigError, ValueError: as :func:`build_algorithm_config`, before anything is written.
    """
    began = time.monotonic()
    console = console or Console(stderr=True)
    folder, config = open_run(config)
    rllib = build_algorithm_config(config, opponent=opponent, module_class=module_class)
    checkpoint = folder.latest_checkpoint() if config.resume else None
    initial = None if checkpoint else load_initial(config)
    progress = checkpoint[1] if checkpoint else Progress()
    if not config.resume:
        folder.write_settings(config)
    torch.set_num_threads(config.torch_threads)
    mission = config.scenarios[0].mission is not None
    measure = Measure.SCORE if mission else Measure.WIN_RATE
    evaluate = evaluate or greedy_evaluation(
        BattleSetup(**rllib.env_config), games=config.evaluation_games, seed=(config.seed, progress.env_steps)
    )

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    since: float | None = None

    def attempt(checkpoint: tuple[Path, Progress] | None) -> TrainResult:
        nonlocal since
        progress = checkpoint[1] if checkpoint else Progress()
        curriculum = _curriculum(config, checkpoint[0] if checkpoint else None)
        with built(rllib) as algorithm:
            if checkpoint:
                restore(algorithm, checkpoint[0], env_steps=progress.env_steps)
            elif initial is not None:
                start_from(algorithm, initial)
                push_weights(algorithm)
            folder.evaluations.forget_after(progress.env_steps)
            since = since or time.monotonic()
            with (
                StopOnSignal(lambda: say("Finishing this iteration. Again to quit at once.")) as stop,
                Monitor(folder.tensorboard, console, progress.env_steps, measure) as monitor,
            ):
                job = Job(
                    config, folder, algorithm, evaluate, monitor, progress, measure, curriculum, since=since
                )
                job.on_evaluation = on_evaluation
                return replace(job.run(stop), startup_seconds=since - began)

    recoveries, result = Recoveries(folder, say), None
    needed = resources(config)
    with local_ray(num_cpus=1 + needed["CPU"], address=config.ray_address):
        if lacking := shortage(needed):
            say(lacking)
        while result is None:
            try:
                result = attempt(checkpoint)
            except (LearnerLostError, RayActorError) as lost:  # env runners that die raise nothing
                checkpoint = recoveries.checkpoint_after(lost)
    if not result.saved:
        say(f"The last steps are not saved. What is, goes on with: {resume_command(config.run_dir)}")
    elif result.stopped_by is StoppedBy.SIGNAL:
        say(f"Saved. Go on with: {resume_command(config.run_dir)}")
    return result


def greedy_evaluation(setup: BattleSetup, *, games: int, seed: Sequence[int]) -> Evaluate:
    """A judge of policies: ``games`` battles with greedy orders, other ones at every call; of a mixture they
    are shared out evenly, rounded up."""
    opponent = setup.make_opponent()
    scenarios = setup.scenarios
    sequence = np.random.SeedSequence(seed)

    def judge(policy: UnitSetPolicy) -> Verdict:
        (fresh,) = sequence.spawn(1)
        mixture = evaluate_mixture(
            LearnedAgent(policy),
            opponent,
            scenarios,
            games=math.ceil(games / len(scenarios)),
            seed=int(fresh.generate_state(1)[0]),
            control=setup.control,
            swap_sides=setup.swap_sides,
            num_threads=setup.num_threads,
        )
        return mixture if len(scenarios) > 1 else mixture.worst

    return judge


def _curriculum(config: TrainConfig, checkpoint: Path | None) -> Curriculum | None:
    """Of a mixture, as it was at the checkpoint if there is one; None for a single scenario.

    Raises:
        RunFolderError: the checkpoint's cannot be gone on with.
    """
    mixture = parse_mixture(config.scenario)
    if len(mixture) == 1:
        return None
    names = (scenario.name for scenario in config.scenarios)
    curriculum = Curriculum(config.curriculum, dict(zip(names, mixture.values(), strict=True)))
    if checkpoint is not None:
        file = checkpoint / CURRICULUM
        try:
            curriculum.restore(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{file} does not tell how the scenarios fared: {error}") from error
    return curriculum


class Job:
    """The loop, and what it keeps."""

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        algorithm: Algorithm,
        evaluate: Evaluate,
        monitor: Monitor,
        progress: Progress,
        measure: Measure = Measure.WIN_RATE,
        curriculum: Curriculum | None = None,
        *,
        since: float | None = None,
    ) -> None:
        self.measure = measure
        self.config = config
        self.folder = folder
        self.algorithm = algorithm
        self.evaluate = evaluate
        self.monitor = monitor
        self.progress = progress
        self.verdict: Verdict | None = None
        self.curriculum = curriculum
        self._shares: Mapping[str, float] = {}
        self._steps_before = progress.env_steps
        self._saved_at = time.monotonic()
        self._began = since or self._saved_at  # of this call, which may have lost a learner before
        self._saved = True
        self.on_evaluation: Callable[[Progress, Verdict], None] | None = None
        self._runners = RunnerWatch(config.num_env_runners, config.run_dir, monitor.say)

    def run(self, stop: StopOnSignal) -> TrainResult:
        """Iterate, evaluate, save, until there is a reason to stop."""
        self._reweight()
        stopped_by = self._spent()
        while stopped_by is None:
            if self._iterate() and self._evaluation_is_due() and self._meets_target():
                self.progress = replace(self.progress, target_met=self.config.target_win_rate)
            stopped_by = self._spent()
            if stop.requested:
                stopped_by = StoppedBy.SIGNAL
            if stopped_by or time.monotonic() - self._saved_at >= self.config.checkpoint_interval_s:
                self._save()
        self._export_unless_better()
        return TrainResult(
            self.progress,
            self.verdict,
            stopped_by,
            self.folder.policy,
            saved=self._saved,
            signal=stop.requested or None,
        )

    @property
    def _policy(self) -> UnitSetPolicy:
        """With the learner's weights, which asynchronous algorithms hand to the remote runners only."""
        module = self.algorithm.get_module(MODULE_ID)
        if self.config.algorithm != "ppo":
            module.set_state(learned_weights(self.algorithm)[MODULE_ID])
        return module.policy

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _iterate(self) -> bool:
        """Sample and learn. False: there was no env runner to sample.

        Raises:
            LearnerLostError: a learner died.
            TrainingFaultError: a gradient is not finite; what it came from is kept, and a policy exported.
        """
        began = time.monotonic()
        try:
            result = iterate(self.algorithm)
        except NonFiniteError as error:
            self._export_unless_better()
            raise TrainingFaultError(post_mortem(error, self.folder, self.config, self.progress)) from error
        if not self._runners.sampled(result):
            return False
        seconds = time.monotonic() - began
        sampled = result[ENV_RUNNER_RESULTS]
        # A learner in a process of its own may not have learned anything since the last iteration.
        learned = result.get(LEARNER_RESULTS, {}).get(MODULE_ID, {})
        new_steps = int(sampled[NUM_ENV_STEPS_SAMPLED])
        self.progress = replace(
            self.progress,
            iteration=self.progress.iteration + 1,
            env_steps=self.progress.env_steps + new_steps,
            train_seconds=self.progress.train_seconds + seconds,
        )
        if self.curriculum is not None:
            self.curriculum.note(sampled.get(SCENARIOS, {}))
            if self.progress.iteration % self.config.curriculum_interval == 0:
                self._reweight()
        report = IterationReport(
            env_steps=self.progress.env_steps,
            steps_per_second=new_steps / seconds,
            win_rate=self._win_rate(sampled),
            episode_return=sampled.get(EPISODE_RETURN_MEAN, math.nan),
            episode_length=sampled.get(EPISODE_LEN_MEAN, math.nan),
            entropy=float(learned.get(ENTROPY_KEY, math.nan)),
            kl=float(learned.get(APPROXIMATE_KL, math.nan)),
            explained_variance=float(learned.get(EXPLAINED_VARIANCE, math.nan)),
            illegal_orders=int(sampled[NUM_ILLEGAL_ORDERS]),
            scenarios=self.curriculum.tallies if self.curriculum else {},
            shares=self._shares,
        )
        fraction = self._fraction()
        left = self._elapsed * (1 / fraction - 1) if fraction else None
        self.monitor.iteration(report, fraction=fraction, seconds_left=left)
        return True

    def _reweight(self) -> None:
        """Have the battles played that the curriculum now prefers."""
        if self.curriculum is None:
            return
        state = {MIXTURE_WEIGHTS: self.curriculum.weights()}
        self.algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.set_state(state))
        counts = self.algorithm.env_runner.allocation
        names = self.curriculum.tallies
        self._shares = {name: count / sum(counts) for name, count in zip(names, counts, strict=True)}

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
            self.verdict = self._judged()
            self.monitor.evaluation(self.verdict, self.progress.env_steps)
            if self.on_evaluation is not None:
                self.on_evaluation(self.progress, self.verdict)
            best, low = self.progress.best_low, self.verdict.interval[0]
            if (best is None or low >= best) and self._export_policy():
                self.progress = replace(self.progress, best_low=low)
            if target is None or low < target:
                return False
        return True

    def _judged(self) -> Verdict:
        """Evaluate, and keep what came out battle by battle."""
        began = time.monotonic()
        verdict, progress = self.evaluate(self._policy), self.progress
        spent = progress.evaluation_seconds + time.monotonic() - began
        self.progress = replace(progress, evaluation_seconds=spent)
        if isinstance(verdict, EvaluationResult):  # a judge of one's own may have no battles to keep
            self._written(
                "The evaluation",
                lambda: self.folder.evaluations.add(
                    verdict, env_steps=progress.env_steps, train_seconds=progress.train_seconds
                ),
            )
        return verdict

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
            "scenario": config.scenario if isinstance(config.scenario, str) else list(config.scenario),
            "control": config.control,
            "swap_sides": config.swap_sides,
            "env_steps": self.progress.env_steps,
        }
        save_policy(self._policy, to, metadata=metadata)

    def _export_policy(self) -> bool:
        return self._written("The exported policy", lambda: self._export(self.folder.policy))

    def _export_unless_better(self) -> None:
        """Without an evaluation to say which policy was best, the last one is exported."""
        if self.progress.best_low is None:  # an export that is there is older than these weights
            self._export_policy()

    def _save(self) -> None:
        self.monitor.flush()
        self._saved = self._written(
            "The checkpoint", lambda: self.folder.save_checkpoint(self.progress, self._write_checkpoint)
        )
        self._saved_at = time.monotonic()

    def _write_checkpoint(self, to: str) -> None:
        """RLlib's state, to go on from, and the policy as an export, to take out without unpickling."""
        save(self.algorithm, to, num_learners=self.config.num_learners)
        self._export(Path(to) / POLICY)
        if self.curriculum is not None:
            content = json.dumps(self.curriculum.to_dict(), indent=2)
            (Path(to) / CURRICULUM).write_text(content, encoding="utf-8")

    def _written(self, what: str, write: Callable[[], object]) -> bool:
        """Write what training can do without for a while, and say so if the disk does not take it."""
        try:
            write()
        except OSError as error:
            at, reason = f"at {self.progress.env_steps:,} steps", error.strerror or error
            self.monitor.say(f"{what} {at} could not be written ({reason}); the one before stays.")
            return False
        return True
