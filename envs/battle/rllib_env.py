"""RLlib front: :class:`BattleParallelEnv` as a ``MultiAgentEnv``. Needs ray.

::

    PPOConfig().environment(BattleMultiAgentEnv, env_config={"scenario": "3m"}, disable_env_checking=True)

RLlib's own environment check samples actions without masks: switch it off as above, or set
``illegal_orders`` to "no_op". For speed, train on the batched front instead: this one steps one battle at a
time.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from envs.battle.batch import Observation
from envs.battle.pettingzoo_env import BattleParallelEnv

CONFIG_KEYS = tuple(inspect.signature(BattleParallelEnv).parameters)
"""What an ``env_config`` may hold: the parameters of :class:`BattleParallelEnv`."""


class BattleMultiAgentEnv(MultiAgentEnv):
    """One battle in which every unit, or every team, is an agent; ready for ``ray.tune.register_env``.

    Args:
        config: RLlib's ``env_config``, with keys as in :data:`CONFIG_KEYS`. Battles differ between env
            runners: the runner's ``worker_index`` becomes part of every seed.

    Raises:
        ValueError: a key is unknown (with the nearest known one), or a value is out of range.
        ScenarioError: the scenario is unknown or wrong.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        config = config or {}
        for key in config:
            if key not in CONFIG_KEYS:
                near = difflib.get_close_matches(str(key), CONFIG_KEYS, n=1, cutoff=0.4)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(CONFIG_KEYS)}"
                raise ValueError(f"unknown key {key!r} in env_config; {hint}")
        self._battle = BattleParallelEnv(**config)
        self._worker = int(getattr(config, "worker_index", 0) or 0)
        self.render_mode = self._battle.render_mode
        self.metadata = self._battle.metadata
        self.possible_agents = list(self._battle.possible_agents)
        self.agents = list(self.possible_agents)
        self.observation_spaces = self._battle.observation_spaces
        self.action_spaces = self._battle.action_spaces

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Start the next battle; see :meth:`BattleParallelEnv.reset`."""
        if seed is not None and self._worker:
            # RLlib seeds runner w's environment i with seed + w + i, so without this runners share battles.
            seed = int(np.random.SeedSequence([seed, self._worker]).generate_state(1)[0])
        result = self._battle.reset(seed=seed, options=options)
        self.agents = list(self._battle.agents)
        return result

    def step(
        self, action_dict: Mapping[str, NDArray[np.integer]]
    ) -> tuple[
        dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:
        """Run 8 game loops; see :meth:`BattleParallelEnv.step`. ``"__all__"``: the battle is over."""
        observations, rewards, terminated, truncated, infos = self._battle.step(action_dict)
        self.agents = list(self._battle.agents)
        return (
            observations,
            rewards,
            terminated | {"__all__": not self.agents},
            truncated | {"__all__": False},
            infos,
        )

    def render(self) -> NDArray[np.uint8] | None:
        """A picture (H, W, 3) uint8 of the battle, or None without a render mode."""
        return self._battle.render()
