"""PPO on RLlib's new API stack, sampled in arrays.

A job with its run folder, and RLlib's own config to do with as one likes::

    result = train(TrainConfig(scenario="3m", run_dir=Path("runs/3m")))
    algorithm = build_algorithm_config(TrainConfig(scenario="3m")).build_algo()
"""

from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.job import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "build_algorithm_config", "train"]
