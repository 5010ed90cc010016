"""What a league is: its players, whom they meet, and when they are frozen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from agents.roster import load_opponent
from envs.scenarios import Scenario
from training.league.members import MAIN, Role
from training.league.pfsp import Weighting
from training.rl.config import TrainConfig


@dataclass(frozen=True)
class LeagueConfig:
    """A league of self-play. Steps are environment steps of 8 game loops, of one battle."""

    scripts: tuple[str, ...] = ("attack-move", "focus-fire", "kite")
    """Members that never learn: players inside the engine, scripted:NAME, or folders of policies."""
    main_exploiters: int = 1
    """Players that learn to beat the main player as it is now."""
    league_exploiters: int = 1
    """Players that learn to beat everybody in the league."""

    turn_steps: int = 256
    """Steps of each battle in a player's turn; players train in turns. More than a battle may last."""
    opponents: int = 4
    """Drawn for a turn, each for as many of the battles."""
    self_play_share: float = 0.35
    """Chance that the main player's opponent is itself."""
    verification_share: float = 0.15
    """Chance that it is an exploiter's snapshot that is strong against it, or a snapshot of its own that it
    no longer beats; where there is none, itself."""
    weighting: Literal["hard", "variance", "even"] = "hard"
    """How all other opponents are drawn, by the chance p to beat them: hard (1-p)^exponent, variance p(1-p),
    even 1. Scripts and all snapshots take part."""
    exponent: float = 2.0
    """Of the weighting hard."""
    payoff_decay: float = 0.999
    """Factor of a game's weight in the win rates with every later game of the pair."""
    payoff_min_games: float = 10.0
    """Below so many recent games a win rate counts as one half."""

    snapshot_steps: int = 50_000
    """Steps of the main player between its snapshots."""
    exploiter_steps: int = 100_000
    """Steps after which an exploiter is frozen at the latest."""
    exploiter_win_rate: float = 0.7
    """Win rate above which it is frozen at once: against the main player, or against every frozen member.
    Main exploiters then begin anew."""
    reset_probability: float = 0.25
    """Chance that a league exploiter begins anew, too."""

    def __post_init__(self) -> None:
        if len(set(self.scripts)) < len(self.scripts):
            raise ValueError(f"scripts is {' '.join(self.scripts)!r}; name each once")
        for name in ("turn_steps", "opponents", "snapshot_steps", "exploiter_steps"):
            self._require(name, getattr(self, name) >= 1, "it must be at least 1")
        for name in ("main_exploiters", "league_exploiters"):
            self._require(name, getattr(self, name) >= 0, "it must not be negative")
        for name in ("self_play_share", "verification_share", "exploiter_win_rate", "reset_probability"):
            self._require(name, 0 <= getattr(self, name) <= 1, "it must be from 0 to 1")
        shares = self.self_play_share + self.verification_share
        self._require("verification_share", shares <= 1, "with self_play_share it must not be above 1")
        self._require("weighting", self.weighting in list(Weighting), f"known: {', '.join(Weighting)}")
        self._require("exponent", self.exponent > 0, "it must be above 0")
        self._require("payoff_decay", 0 < self.payoff_decay <= 1, "it must be above 0 and at most 1")
        self._require("payoff_min_games", self.payoff_min_games >= 0, "it must not be negative")

    def _require(self, name: str, condition: bool, rule: str) -> None:
        if not condition:
            raise ValueError(f"{name} is {getattr(self, name)!r}; {rule}")

    def learners(self) -> list[tuple[str, Role]]:
        """Names and roles, in the order of their turns."""
        exploiters = [
            (f"{role.value}-{number + 1}", role)
            for role, count in (
                (Role.MAIN_EXPLOITER, self.main_exploiters),
                (Role.LEAGUE_EXPLOITER, self.league_exploiters),
            )
            for number in range(count)
        ]
        return [(MAIN, Role.MAIN), *exploiters]

    def to_yaml(self) -> str:
        """All settings, for :meth:`load` to read."""
        plain = {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()
        }
        return yaml.safe_dump(plain, sort_keys=False)

    @classmethod
    def load(cls, path: Path) -> LeagueConfig:
        """Read a file of :meth:`to_yaml`'s.

        Raises:
            ValueError: the file does not hold a league's settings.
        """
        try:
            plain: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
            return cls(**plain | {"scripts": tuple(plain["scripts"])})
        except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, ValueError) as error:
            raise ValueError(
                f"{path} does not hold a league's settings: {' '.join(str(error).split())}"
            ) from error


def require_league(league: LeagueConfig, job: TrainConfig) -> None:
    """Refuse what cannot be played.

    Raises:
        ScenarioError: unknown or wrong scenario.
        ValueError: the scenario is not symmetric or a mission, a script is unknown, or settings of the job do
            not go with a league.
    """
    for scenario in job.scenarios:
        _require_scenario(league, scenario)
    sides = 2 * len(job.scenarios)
    of_opponent = job.num_battles // max(job.num_env_runners, 1) // league.opponents
    if of_opponent < sides:
        raise ValueError(
            f"opponents is {league.opponents}, and num_battles = {job.num_battles} leave {of_opponent} for "
            f"each, in each env runner; both sides of every scenario need {sides}"
        )
    if job.algorithm in ("appo", "impala"):
        raise ValueError(
            f"algorithm is {job.algorithm!r}, whose runners do not stop when a turn ends; a league trains "
            "by ppo or mappo"
        )
    for script in league.scripts:
        load_opponent(script)
    default = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
    for name, instead in _NOT_IN_A_LEAGUE.items():
        if getattr(job, name) != default[name]:
            raise ValueError(f"{name} is {getattr(job, name)!r}; {instead}")


def _require_scenario(league: LeagueConfig, scenario: Scenario) -> None:
    if not scenario.symmetric or scenario.mission is not None:
        raise ValueError(
            f"scenario {scenario.name!r} is not symmetric, and in a league everybody plays both sides; play "
            "one with equal sides, such as 3m, 8m, 2s3z or 3s5z"
        )
    if league.turn_steps <= scenario.step_limit:
        raise ValueError(
            f"turn_steps is {league.turn_steps}, but a battle of {scenario.name} may last "
            f"{scenario.step_limit} steps, and a turn counts only those that surely end in it; give more, "
            "best several times that"
        )


_NOT_IN_A_LEAGUE = {
    "swap_sides": "in a league everybody plays both sides; leave it out",
    "curriculum": "a league plays its scenarios by their weights; leave it out",
    "opponent": "a league's opponents are named by --scripts",
    "target_win_rate": "in a league the opponents get better, too: leave it out, and give a budget",
    "evaluation_interval": "a league is not evaluated as it trains; `perceiver-policy ladder` does it after",
    "evaluation_games": "a league is not evaluated as it trains; `perceiver-policy ladder` does it after",
}
