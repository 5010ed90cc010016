"""Agents by what a user writes on a command line."""

from __future__ import annotations

import difflib
from pathlib import Path

from agents.base import Agent
from agents.scripted import SCRIPTS, ScriptedAgent

BUILTIN = "builtin"
"""The engine's own enemy. It is no agent: it plays inside the engine and only as an opponent."""
SCRIPTED = "scripted:"


def load_agent(spec: str, *, deterministic: bool = True, seed: int = 0) -> Agent:
    """``scripted:NAME``, the directory of an exported policy, or a run folder with a policy in it.

    Args:
        spec: one of these.
        deterministic: whether a learned policy takes its likeliest orders or draws.
        seed: of the agent's draws.

    Raises:
        ValueError: there is no such agent, or the directory holds no policy that can be loaded.
    """
    if spec.startswith(SCRIPTED):
        return ScriptedAgent(spec.removeprefix(SCRIPTED), seed=seed)
    path = Path(spec)
    if not path.is_dir():
        raise ValueError(_no_such_agent(spec))
    from agents.learned import LearnedAgent  # torch takes a second to import, and scripts do without

    inside = path / "policy"
    directory = inside if inside.is_dir() else path
    return LearnedAgent(directory, deterministic=deterministic, seed=seed)


def load_opponent(spec: str, *, deterministic: bool = True, seed: int = 0) -> Agent | None:
    """As :func:`load_agent`; None for ``builtin``."""
    return None if spec == BUILTIN else load_agent(spec, deterministic=deterministic, seed=seed)


def _no_such_agent(spec: str) -> str:
    if spec == BUILTIN:
        return (
            "builtin plays inside the engine, as an opponent only; scripted:attack-move gives the same orders"
        )
    near = difflib.get_close_matches(spec, SCRIPTS, n=1, cutoff=0.6)
    hint = (
        f"did you mean {SCRIPTED}{near[0]}?"
        if near
        else f"scripts: {', '.join(SCRIPTED + s for s in SCRIPTS)}"
    )
    return f"no agent {spec!r}: it is no directory of a policy; {hint}"
