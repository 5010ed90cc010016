"""The embedded battle simulator and its fronts.

=================================  ==================================================================
:class:`BattleBatch`               many battles stepped at once in arrays; the others stand on it
:class:`BattleEnv`                 Gymnasium, one battle; ``gym.make("PerceiverPolicy/Battle-v0")``
:class:`BattleVectorEnv`           Gymnasium, many battles; ``gym.make_vec(...)``
:class:`BattleParallelEnv`         PettingZoo, an agent a unit or an agent a team
:class:`BattleMultiAgentEnv`       RLlib, likewise; in :mod:`envs.battle.rllib_env`, since it needs ray
:func:`record_battle`,             replays that re-simulate exactly ...
:class:`ReplayWriter`,
:func:`play_replay`
:func:`draw_frame`,                ... and what they look like
:func:`write_html`,
:func:`write_gif`,
:func:`write_mp4`
=================================  ==================================================================

Names are imported when they are first used, so that a training process pays for no picture library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envs.battle.batch import AutoReset as AutoReset
    from envs.battle.batch import BattleBatch as BattleBatch
    from envs.battle.batch import Control as Control
    from envs.battle.batch import Outcome as Outcome
    from envs.battle.batch import StepResult as StepResult
    from envs.battle.export import write_gif as write_gif
    from envs.battle.export import write_html as write_html
    from envs.battle.export import write_mp4 as write_mp4
    from envs.battle.frame import Camera as Camera
    from envs.battle.frame import Frame as Frame
    from envs.battle.gym_env import BattleEnv as BattleEnv
    from envs.battle.gym_env import BattleVectorEnv as BattleVectorEnv
    from envs.battle.match import IllegalOrders as IllegalOrders
    from envs.battle.match import Match as Match
    from envs.battle.match import Opponent as Opponent
    from envs.battle.pettingzoo_env import BattleParallelEnv as BattleParallelEnv
    from envs.battle.pettingzoo_env import Sides as Sides
    from envs.battle.render import draw_frame as draw_frame
    from envs.battle.replay import Replay as Replay
    from envs.battle.replay import ReplayError as ReplayError
    from envs.battle.replay import ReplayWriter as ReplayWriter
    from envs.battle.replay import play_replay as play_replay
    from envs.battle.replay import read_replay as read_replay
    from envs.battle.replay import record_battle as record_battle
    from envs.battle.rules import RewardWeights as RewardWeights

_HOMES = {
    "batch": ("AutoReset", "BattleBatch", "Control", "Outcome", "StepResult"),
    "export": ("write_gif", "write_html", "write_mp4"),
    "frame": ("Camera", "Frame"),
    "gym_env": ("BattleEnv", "BattleVectorEnv"),
    "match": ("IllegalOrders", "Match", "Opponent"),
    "pettingzoo_env": ("BattleParallelEnv", "Sides"),
    "render": ("draw_frame",),
    "replay": ("Replay", "ReplayError", "ReplayWriter", "play_replay", "read_replay", "record_battle"),
    "rules": ("RewardWeights",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
