"""Agents and opponents by what a user writes on a command line.

``scripted:NAME`` is a script of :mod:`agents.scripted`, which sees observations and can play either side.
``policy:NAME`` is a policy of :mod:`agents.box`, and a folder one that was exported or trained. A bare name
is one of the engine's own players (:mod:`envs.battle.tactics`), who play inside the engine and only as
opponents: ``focus-fire`` is not ``scripted:focus-fire``, though they are of one mind.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from agents.base import Agent
from agents.box import BOXED, boxed_policy
from agents.scripted import SCRIPTS, ScriptedAgent
from envs.battle.tactics import ENGINE_PLAYERS, engine_player, is_engine_player

SCRIPTED = "scripted:"
_SPECS = tuple(SCRIPTED + script for script in SCRIPTS)


def load_agent(spec: str, *, deterministic: bool = True, seed: int = 0) -> Agent:
    """``scripted:NAME``, ``policy:NAME``, the directory of an exported policy, or a run's with one in it.

    Args:
        spec: one of these.
        deterministic: whether a learned policy takes its likeliest orders or draws.
        seed: of the agent's draws.

    Raises:
        ValueError: there is no such agent, or the directory holds no policy that can be loaded.
    """
    if spec.startswith(SCRIPTED):
        return ScriptedAgent(spec.removeprefix(SCRIPTED), seed=seed)
    directory = policy_folder(spec)
    if directory is None:
        raise ValueError(_no_such_agent(spec))
    from agents.learned import LearnedAgent  # torch takes a second to import, and scripts do without

    name = spec if spec.startswith(BOXED) else None
    return LearnedAgent(directory, deterministic=deterministic, seed=seed, name=name)


def policy_folder(spec: str | Path) -> Path | None:
    """The export that ``policy:NAME``, an export's folder or a run's stands for; None of other names.

    Raises:
        ValueError: the box has no policy of that name.
    """
    if str(spec).startswith(BOXED):
        return boxed_policy(str(spec).removeprefix(BOXED))
    path = Path(spec)
    if not path.is_dir():
        return None
    inside = path / "policy"
    return inside if inside.is_dir() else path


def load_opponent(spec: str, *, deterministic: bool = True, seed: int = 0) -> Agent | str:
    """As :func:`load_agent`, or the name of an engine-side player, with ``builtin`` resolved.

    Raises:
        ValueError: there is no such opponent, or the directory holds no policy that can be loaded.
    """
    if is_engine_player(spec):
        return engine_player(spec)
    if not spec.startswith(SCRIPTED) and policy_folder(spec) is None:
        near = difflib.get_close_matches(spec, [*ENGINE_PLAYERS, *_SPECS], n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"it may be: {', '.join([*ENGINE_PLAYERS, *_SPECS])}"
        raise ValueError(f"no opponent {spec!r}: it is no directory of a policy, no policy:NAME; {hint}")
    return load_agent(spec, deterministic=deterministic, seed=seed)


def _no_such_agent(spec: str) -> str:
    if is_engine_player(spec):
        script = engine_player(spec)
        like = f"; {SCRIPTED}{script} plays alike" if script in SCRIPTS else ""
        return f"{spec} plays inside the engine, as an opponent only{like}"
    near = difflib.get_close_matches(spec, SCRIPTS, n=1, cutoff=0.6)
    hint = f"did you mean {SCRIPTED}{near[0]}?" if near else f"scripts: {', '.join(_SPECS)}"
    return f"no agent {spec!r}: it is no directory of a policy, no policy:NAME; {hint}"
