"""PPO on RLlib's new API stack, sampled in arrays.

A job with its run folder, and RLlib's own config to do with as one likes::

    result = train(TrainConfig(scenario="3m", run_dir=Path("runs/3m")))
    algorithm = build_ppo_config(TrainConfig(scenario="3m")).build_algo()
"""

from training.rl.config import TrainConfig, build_ppo_config
from training.rl.job import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "build_ppo_config", "train"]
