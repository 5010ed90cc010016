"""A league of self-play: a main player, exploiters, scripts and snapshots, and who wins against whom.

result = run_league(LeagueConfig(), TrainConfig(scenario="3m", run_dir=Path("runs/league")))
"""

from training.league.config import LeagueConfig
from training.league.job import LeagueResult, run_league

__all__ = ["LeagueConfig", "LeagueResult", "run_league"]
