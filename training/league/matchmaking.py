"""Who plays whom, and who is frozen or begins anew: the rules of AlphaStar's league.

Vinyals et al. 2019, "Grandmaster level in StarCraft II using multi-agent reinforcement learning", Nature 575,
Methods, "Multi-agent learning", and the pseudocode in its supplementary data. Ours differs in that scripts
are members, too, that there is one main player, and in the numbers, which are a machine's of two cores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.league.config import LeagueConfig
from training.league.members import MAIN, Learner, Role, Script, Snapshot
from training.league.payoff import Payoff
from training.league.pfsp import Weighting, pfsp

WORTH_LEARNING_FROM = 0.2
"""Against a main player that it beats less often, a main exploiter climbs up over its snapshots instead."""
FORGOTTEN = 0.7
"""A main player that beats an old snapshot of itself less often has forgotten how to."""
STRONG_EXPLOITER = 0.3
"""A main player that beats an exploiter less often is exploited by it."""


class Matchmaker:
    """Draws opponents for learners.

    Args:
        config: shares and weightings.
        payoff: who wins how often.
        members: scripts and snapshots, oldest first, and the learners.
        rng: all draws are from it.
    """

    def __init__(
        self,
        config: LeagueConfig,
        payoff: Payoff,
        members: Sequence[Script | Snapshot | Learner],
        rng: np.random.Generator,
    ) -> None:
        self._config, self._payoff, self._rng = config, payoff, rng
        self._frozen = [member.name for member in members if not isinstance(member, Learner)]
        self._snapshots = [member for member in members if isinstance(member, Snapshot)]

    def opponent(self, learner: Learner) -> str:
        """The name of a member for a learner to play against; its own: itself, as it is now."""
        match learner.role:
            case Role.MAIN:
                return self._for_main(learner.name)
            case Role.MAIN_EXPLOITER:
                return self._for_main_exploiter(learner.name)
            case Role.LEAGUE_EXPLOITER:
                return self._draw(learner.name, self._frozen) or MAIN

    def _for_main(self, name: str) -> str:
        coin, config = self._rng.random(), self._config
        if coin < config.self_play_share:
            return name
        drawn = None
        if coin < config.self_play_share + config.verification_share:
            drawn = self._for_verification(name)
        else:
            drawn = self._draw(name, self._frozen)
        return drawn or name

    def _for_verification(self, name: str) -> str | None:
        """An exploiter that is strong against it, or a snapshot of itself that it no longer beats."""
        exploiters = self._of(Role.MAIN_EXPLOITER, Role.LEAGUE_EXPLOITER)
        if exploiters and self._payoff.win_rates(name, exploiters).min() < STRONG_EXPLOITER:
            return self._draw(name, exploiters)
        own = forgotten(self._payoff, name, self._of(Role.MAIN))
        return self._draw(name, own)

    def _for_main_exploiter(self, name: str) -> str:
        past = self._of(Role.MAIN)
        rate = self._payoff.win_rates(name, [MAIN])[0]
        if rate < WORTH_LEARNING_FROM and past and self._rng.random() < 0.5:
            return self._draw(name, past, Weighting.VARIANCE) or MAIN
        return MAIN

    def _of(self, *roles: Role) -> list[str]:
        return [snapshot.name for snapshot in self._snapshots if snapshot.role in roles]

    def _draw(self, name: str, among: Sequence[str], weighting: Weighting | None = None) -> str | None:
        """By prioritised fictitious self-play; None if there is nobody."""
        if not among:
            return None
        probabilities = pfsp(
            self._payoff.win_rates(name, among), weighting or self._config.weighting, self._config.exponent
        )
        return str(self._rng.choice(list(among), p=probabilities))


def forgotten(payoff: Payoff, name: str, past: Sequence[str]) -> list[str]:
    """Those of a player's own snapshots, given oldest first, among which are some that it no longer beats.

    The newest are nearly as strong as it is, and no rate against them is a sign of anything: from the end,
    they are left out for as long as rates fall from one to the next. What remains is returned, if against any
    of them the rate is below :data:`FORGOTTEN`.
    """
    if not past:
        return []
    rates = payoff.win_rates(name, past)
    end = len(rates)
    while end > 1 and rates[end - 2] >= rates[end - 1]:
        end -= 1
    return list(past[:end]) if end > 1 and rates[:end].min() < FORGOTTEN else []


def snapshot_is_due(config: LeagueConfig, payoff: Payoff, learner: Learner, frozen: Sequence[str]) -> bool:
    """Whether a learner is to be frozen into the league now.

    The main player at regular intervals; exploiters when they win enough of their games (against the main
    player, or against everybody who is frozen), or have had their time.
    """
    steps = learner.env_steps - learner.last_snapshot
    if learner.role is Role.MAIN:
        return steps >= config.snapshot_steps
    if steps >= config.exploiter_steps:
        return True
    beaten = [MAIN] if learner.role is Role.MAIN_EXPLOITER else list(frozen)
    enough = payoff.recent_games(learner.name, beaten) >= max(payoff.min_games, 1)
    return bool(enough.all() and payoff.win_rates(learner.name, beaten).min() > config.exploiter_win_rate)


def begins_anew(config: LeagueConfig, learner: Learner, rng: np.random.Generator) -> bool:
    """Whether a learner that was just frozen goes back to its initial weights: main exploiters always, league
    exploiters by chance."""
    match learner.role:
        case Role.MAIN:
            return False
        case Role.MAIN_EXPLOITER:
            return True
        case Role.LEAGUE_EXPLOITER:
            return bool(rng.random() < config.reset_probability)
