"""The world: the unit-set contract, scenarios, and the backends that follow the contract.

Importing this package registers ``PerceiverPolicy/Battle-v0`` with Gymnasium, single and vectorised; nothing
heavy is imported until an environment is made.
"""

import gymnasium as gym

gym.register(
    id="PerceiverPolicy/Battle-v0",
    entry_point="envs.battle.gym_env:BattleEnv",
    vector_entry_point="envs.battle.gym_env:BattleVectorEnv",
)
