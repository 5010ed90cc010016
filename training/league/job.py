"""The league's job: players train in turns, each with the training job's own loop, until the budget is spent.

::

    run_league(LeagueConfig(), TrainConfig(scenario="3m", run_dir=Path("runs/league")))

A turn: draw opponents for the player whose turn it is, let it train against them for some rollouts, enter the
games into the payoff matrix, freeze it if it is due, and write all of that down. Everything drawn in a turn
derives from the league's seed and the turn's number: a league that was killed goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import functools
import math
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from rich.console import Console

from agents.learned import LearnedAgent
from agents.roster import load_opponent
from perceiver_policy.export_files import replaced_whole
from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.pretrained import load_policy, save_policy
from training.league.config import LeagueConfig, require_league
from training.league.display import LeagueDisplay, PlayerMonitor
from training.league.folder import LeagueFolder, LeagueState
from training.league.matchmaking import Matchmaker, begins_anew, snapshot_is_due
from training.league.members import MAIN, Learner, Role, Snapshot
from training.league.payoff import Game
from training.league.runner import LeagueEnvRunner
from training.league.seats import Match
from training.rl.algorithm_life import built, restore, save
from training.rl.algorithms import build_algorithm_config, resources
from training.rl.config import TrainConfig
from training.rl.faults import LearnerLostError, TrainingFaultError
from training.rl.initial_weights import load_initial, start_from
from training.rl.interrupt import StopOnSignal
from training.rl.job import Job, StoppedBy
from training.rl.local_ray import local_ray
from training.rl.monitor import Monitor
from training.rl.rollout import MODULE_ID
from training.rl.run_folder import Progress, RunFolderError, open_run
from training.rl.seats import Opponent

_SEED_STREAM = 0x6C656167  # "leag": a league's draws are not those of a run with the same seed


@dataclass(frozen=True)
class LeagueResult:
    """How a call of :func:`run_league` ended."""

    state: LeagueState
    stopped_by: StoppedBy
    policy: Path
    """The main player's export."""
    signal: int | None = None
    """The number of the signal that asked to stop."""


def run_league(league: LeagueConfig, job: TrainConfig, *, console: Console | None = None) -> LeagueResult:
    """Train a league until the main player's steps or the time are spent, or a signal comes.

    Args:
        league: the league.
        job: of each player. ``run_dir`` is the league's folder; ``max_env_steps`` are the main player's, and
            ``time_limit_s`` is of this call and of all players. With ``resume`` both are read from the
            folder, as :func:`~training.rl.run_folder.open_run` does it.
        console: where to report; default: standard error.

    Raises:
        RunFolderError: the folder does not fit or cannot be written to.
        ConnectionError: there is no cluster at ``job.ray_address``.
        TrainingFaultError: training cannot go on by itself; the last turn before stands.
        ScenarioError, ConfigError, ValueError: as :func:`require_league` and
            :func:`~training.rl.algorithms.build_algorithm_config`, before anything is written.
    """
    console = console or Console(stderr=True)
    folder, league, job = open_league(league, job)
    state = folder.read() if job.resume else None
    if not job.resume:
        open_run(job)[0].write_settings(job)
    folder.write_settings(league)
    state = state or LeagueState.begin(league)
    folder.remove_what_does_not_stand(state)
    torch.set_num_threads(job.torch_threads)
    num_cpus = 1 + len(state.learners) * resources(job)["CPU"]
    with local_ray(num_cpus, address=job.ray_address), contextlib.ExitStack() as stack:
        display = stack.enter_context(LeagueDisplay(folder.tensorboard, console, state.env_steps))
        display.say(f"{len(state.learners)} learners: {', '.join(state.learners)}")
        players = {
            name: stack.enter_context(_player(folder, league, job, learner, index, display.say))
            for index, (name, learner) in enumerate(state.learners.items())
        }
        stop = stack.enter_context(StopOnSignal(lambda: display.say("Finishing this turn's iteration.")))
        result = _League(league, job, folder, state, players, display).run(stop)
    if result.stopped_by is StoppedBy.SIGNAL:
        message = f"Saved. Go on with: {resume_command(job.run_dir)}"
        console.print(message, highlight=False, markup=False, soft_wrap=True)
    return result


def open_league(league: LeagueConfig, job: TrainConfig) -> tuple[LeagueFolder, LeagueConfig, TrainConfig]:
    """The folder and the settings that hold; nothing is written.

    Raises:
        RunFolderError: as :func:`~training.rl.run_folder.open_run`; or a league is resumed with other
            settings than it has.
        ScenarioError, ConfigError, ValueError: it cannot be played.
    """
    _, job = open_run(job)
    folder = LeagueFolder(job.run_dir)
    stored = folder.read_settings() if job.resume else None
    if stored is not None:
        default = LeagueConfig()
        for name, asked in vars(league).items():
            kept = getattr(stored, name)
            if asked not in (kept, getattr(default, name)):
                raise RunFolderError(
                    f"{name} is {asked!r}, but the league in {folder.path} has {kept!r}: a resumed league "
                    "keeps its settings; leave it out, or start a league in another folder"
                )
        league = stored
    require_league(league, job)
    build_algorithm_config(job)
    if not all(folder.initial(name).is_dir() for name, _ in league.learners()):
        load_initial(job)  # else it was read when they began
    folder.read()
    return folder, league, job


def resume_command(run_dir: Path) -> str:
    """What to type to go on with a league."""
    return f"perceiver-policy league --run-dir {shlex.quote(str(run_dir))} --resume"


@dataclass(frozen=True)
class _Player:
    """A learner's algorithm, and what its turns need."""

    config: TrainConfig
    algorithm: Algorithm
    monitor: Monitor

    @property
    def policy(self) -> UnitSetPolicy:
        return self.algorithm.get_module(MODULE_ID).policy


@contextlib.contextmanager
def _player(
    folder: LeagueFolder,
    league: LeagueConfig,
    job: TrainConfig,
    learner: Learner,
    index: int,
    say: Callable[[str], None],
) -> Iterator[_Player]:
    """Build a learner's algorithm, as it was when the last turn ended."""
    config = _own_config(folder, league, job, learner, index)
    run = folder.player(learner.name)
    if not run.begun:
        run.write_settings(config)
    ppo = build_algorithm_config(config).env_runners(env_runner_cls=LeagueEnvRunner)
    monitor = PlayerMonitor(run.tensorboard, learner, say)
    with built(ppo) as algorithm, monitor:
        initial = folder.initial(learner.name)
        if not initial.is_dir():
            given = load_initial(config)
            if given is not None:
                start_from(algorithm, given)
            with replaced_whole(initial.absolute()) as place:
                save(algorithm, str(place), num_learners=config.num_learners)
        restore(algorithm, folder.checkpoint(learner).absolute(), env_steps=learner.env_steps)
        yield _Player(config, algorithm, monitor)


def _own_config(
    folder: LeagueFolder, league: LeagueConfig, job: TrainConfig, learner: Learner, index: int
) -> TrainConfig:
    """The job of one learner. Its step size falls over the main player's budget; a main exploiter's over a
    life."""
    steps = job.max_env_steps
    if steps is not None and learner.role is Role.MAIN_EXPLOITER:
        steps = league.exploiter_steps
    seed = np.random.SeedSequence([job.seed, _SEED_STREAM, index]).generate_state(1)
    return replace(
        job,
        run_dir=folder.player(learner.name).path,
        resume=False,
        seed=int(seed[0]),
        max_env_steps=steps,
        time_limit_s=None,
        evaluation_interval=0,
        checkpoint_interval_s=math.inf,  # a turn ends with the one checkpoint that counts
    )


def _no_evaluation(_: UnitSetPolicy) -> NoReturn:
    raise AssertionError("a league does not evaluate as it trains")


class _League:
    """The turns, and what they share."""

    def __init__(
        self,
        league: LeagueConfig,
        job: TrainConfig,
        folder: LeagueFolder,
        state: LeagueState,
        players: dict[str, _Player],
        display: LeagueDisplay,
    ) -> None:
        self.league, self.job, self.folder, self.state = league, job, folder, state
        self.players, self.display = players, display
        self._began, self._steps_before = time.monotonic(), state.learners[MAIN].env_steps
        self._load_snapshot = functools.cache(lambda name: load_policy(folder.snapshot(name)))

    def run(self, stop: StopOnSignal) -> LeagueResult:
        """Turn after turn, until there is a reason to stop."""
        stopped_by = self._spent()
        while stopped_by is None:
            with self._faults():
                self._turn(stop)
            stopped_by = StoppedBy.SIGNAL if stop.requested else self._spent()
        self._export_main()
        self.display.payoff(self.state)
        return LeagueResult(self.state, stopped_by, self.folder.policy, signal=stop.requested or None)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """What goes wrong in a turn costs that turn; the message tells how to go on.

        Raises:
            TrainingFaultError: in place of a player's, of a lost learner, and of a disk that takes no more.
        """
        turn, go_on = self.state.turn + 1, resume_command(self.job.run_dir)
        try:
            yield
        except TrainingFaultError as fault:
            raise TrainingFaultError(f"turn {turn}: {fault}; the league goes on with: {go_on}") from fault
        except (LearnerLostError, OSError) as error:
            raise TrainingFaultError(f"turn {turn} is lost: {error}; go on with: {go_on}") from error

    def _turn(self, stop: StopOnSignal) -> None:
        state = self.state
        learner = list(state.learners.values())[state.turn % len(state.learners)]
        seeds = np.random.SeedSequence([self.job.seed, _SEED_STREAM, state.turn, len(state.learners)])
        rng = np.random.default_rng(seeds)
        members = [*state.frozen, *state.learners.values()]
        matchmaker = Matchmaker(self.league, state.payoff, members, rng)
        drawn = Counter(matchmaker.opponent(learner) for _ in range(self.league.opponents))
        learner, games = self._train(learner, drawn, int(rng.integers(2**31)), stop)
        state.payoff.record(learner.name, games)
        self.display.turn(state, learner, drawn, games, self._fraction(), self._elapsed)
        if snapshot_is_due(self.league, state.payoff, learner, [one.name for one in state.frozen]):
            learner = self._freeze(learner, rng)
        state.learners[learner.name] = learner
        state.turn += 1
        self.folder.write(state)

    def _train(
        self, learner: Learner, drawn: Counter[str], seed: int, stop: StopOnSignal
    ) -> tuple[Learner, list[Game]]:
        """Let a learner play its turn: the learner after it, and its games."""
        player, run = self.players[learner.name], self.folder.player(learner.name)
        matches = tuple(
            Match(name, None if name == learner.name else self._opponent(name), weight)
            for name, weight in sorted(drawn.items())
        )
        begin = functools.partial(_begin, matches=matches, env_steps=learner.env_steps, seed=seed)
        player.algorithm.env_runner_group.foreach_env_runner(begin)
        left = None if self.job.time_limit_s is None else max(self.job.time_limit_s - self._elapsed, 1e-3)
        budget = replace(
            player.config,
            max_env_steps=learner.env_steps + self.league.turn_steps * self.job.num_battles,
            time_limit_s=left,
        )
        progress = Progress(learner.iteration, learner.env_steps, learner.train_seconds)
        trained = Job(budget, run, player.algorithm, _no_evaluation, player.monitor, progress).run(stop)
        if not trained.saved:
            raise OSError(f"{run.checkpoints} takes no checkpoint")
        games = player.algorithm.env_runner_group.foreach_env_runner(_games)
        checkpoint = run.latest_checkpoint()
        assert checkpoint is not None, "a turn ends with one"
        learner = replace(
            learner,
            env_steps=trained.progress.env_steps,
            iteration=trained.progress.iteration,
            train_seconds=trained.progress.train_seconds,
            checkpoint=checkpoint[0].name,
        )
        return learner, [game for of_runner in games for game in of_runner]

    def _opponent(self, name: str) -> Opponent:
        """Who plays under a member's name, for a runner to set up."""
        if name in self.state.learners:
            policy = self.players[name].policy
        elif any(name == script.name for script in self.state.scripts):
            return load_opponent(name, deterministic=False)
        else:
            policy = self._load_snapshot(name)
        return functools.partial(LearnedAgent, policy, deterministic=False, name=name)

    def _freeze(self, learner: Learner, rng: np.random.Generator) -> Learner:
        """A snapshot of a learner becomes a member; the learner after it, which may begin anew."""
        number = learner.snapshots + 1
        snapshot = Snapshot(f"{learner.name}.{number}", learner.name, learner.role, learner.env_steps)
        self._export(learner, self.folder.snapshot(snapshot.name))
        self.state.snapshots.append(snapshot)
        self.state.payoff.add_member(snapshot.name)
        learner = replace(learner, snapshots=number, last_snapshot=learner.env_steps)
        anew = begins_anew(self.league, learner, rng)
        if anew:
            learner = replace(learner, checkpoint=None, life_began=learner.env_steps)
            initial = self.folder.initial(learner.name).absolute()
            restore(self.players[learner.name].algorithm, initial, env_steps=learner.env_steps)
            self.state.payoff.forget(learner.name)
        self.display.snapshot(snapshot, anew)
        self.display.payoff(self.state)
        return learner

    def _export(self, learner: Learner, to: Path) -> None:
        metadata = {
            "scenario": self.job.scenario if isinstance(self.job.scenario, str) else list(self.job.scenario),
            "control": self.job.control,
            "swap_sides": self.job.swap_sides,
            "env_steps": learner.env_steps,
            "league": learner.name,
        }
        save_policy(self.players[learner.name].policy, to, metadata=metadata)

    def _export_main(self) -> None:
        self._export(self.state.learners[MAIN], self.folder.policy)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _fraction(self) -> float:
        """Of the budget spent by this call, by whichever limit is nearer; 0 without a limit."""
        fractions, main = [0.0], self.state.learners[MAIN].env_steps
        if self.job.time_limit_s is not None:
            fractions.append(self._elapsed / self.job.time_limit_s)
        if self.job.max_env_steps is not None:
            to_do = max(self.job.max_env_steps - self._steps_before, 1)
            fractions.append((main - self._steps_before) / to_do)
        return min(max(fractions), 1.0)

    def _spent(self) -> StoppedBy | None:
        limit, seconds = self.job.max_env_steps, self.job.time_limit_s
        if limit is not None and self.state.learners[MAIN].env_steps >= limit:
            return StoppedBy.STEP_LIMIT
        if seconds is not None and self._elapsed >= seconds:
            return StoppedBy.TIME_LIMIT
        return None


def _begin(runner: LeagueEnvRunner, *, matches: tuple[Match, ...], env_steps: int, seed: int) -> None:
    runner.play_against(matches, env_steps=env_steps, seed=seed)


def _games(runner: LeagueEnvRunner) -> list[Game]:
    return runner.games()
