"""The batched runner with opponents that change: between two rollouts, on a call from the league."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils.debug import update_global_seed_if_necessary
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from agents.learned import LearnedAgent
from training.league.payoff import Game
from training.league.seats import Match, MatchSetup, finished_games
from training.rl.rollout import MODULE_ID, BatchedEnvRunner


class LeagueEnvRunner(BatchedEnvRunner):
    """Plays against whom it is told to, and tells who won.

    A learner's opponents act by drawn orders, as it does itself, all battles of a seat in one forward pass
    without gradients. Weights of other players come in the call (and travel to remote runners with it).
    """

    def __init__(self, config: AlgorithmConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.setup: MatchSetup = MatchSetup(**self.config.env_config)

    def play_against(self, matches: Sequence[Match], *, env_steps: int, seed: int) -> None:
        """Begin all battles anew, against these. What the last rollout bootstrapped from is in its pack, so
        nothing is lost by that but the battles under way.

        Args:
            matches: the opponents; the first ones keep their place where shares are rounded.
            env_steps: steps of the run so far, from which battles are seeded.
            seed: of everything drawn in this process from here on.
        """
        itself = partial(LearnedAgent, self.module[MODULE_ID].policy, deterministic=False, name="itself")
        known = tuple(match._replace(opponent=match.opponent or itself) for match in matches)
        self.setup = dataclasses.replace(self.setup, matches=known)
        self.set_state({NUM_ENV_STEPS_SAMPLED_LIFETIME: env_steps})
        self.env = None
        update_global_seed_if_necessary(self.config.framework_str, seed + self.worker_index)

    def games(self) -> list[Game]:
        """How the battles since the last call of :meth:`play_against` ended; see :func:`finished_games`."""
        return finished_games(self.env or ())
