"""The rival of the engine's contest: SMAX with its heuristic enemy, random legal actions, all of it compiled.

SMAX is JaxMARL's re-creation of SMAC in JAX (Rutherford et al. 2023, arXiv 2311.10090). Drawing the actions,
the enemy, auto-reset, every agent's observation and its mask are within one compiled loop over steps,
vectorised over battles; observations and masks are carried from step to step and returned, so the compiler
cannot drop them. A step is 8 of SMAX's ticks, as one of ours is 8 game loops. It runs on the CPU, with XLA's
own threads on one batch or with one XLA device a core, whichever is faster.

Run as a program it serves :mod:`training.benchmark.contest`. It needs the extra ``bench``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from importlib import metadata, util
from typing import Any

from training.benchmark.contest import Setting, Way, serve

_STEPS_A_CALL = 2048
"""Environment steps in a call of the compiled loop, at least: calls cost next to nothing then."""
_LEAST_STEPS = 2


def absence() -> str | None:
    """Why the rival cannot be run here; None if it can."""
    missing = [package for package in ("jaxmarl", "jax") if util.find_spec(package) is None]
    if missing:
        return f"{' and '.join(missing)} not installed; pip install 'perceiver-policy[bench]' brings it"
    return None


def version() -> str:
    """What to name it in a row."""
    return f"SMAX {metadata.version('jaxmarl')} on jax {metadata.version('jax')}"


def prepare(setting: Setting, num_cores: int) -> Callable[[], int]:
    """What steps the battles of ``setting`` on ``num_cores`` cores; returns how many steps it did."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={num_cores}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax  # reads both, and counts the cores it may run on

    begin, advance, num_steps = _compiled(setting, num_cores)
    carried = [jax.block_until_ready(advance(begin()))]

    def work() -> int:
        carried[0] = jax.block_until_ready(advance(carried[0]))
        return num_steps * num_cores * setting.battles

    return work


def draw_actions(key: Any, allowed: Any) -> Any:
    """A random legal action for each agent, each equally likely: (A,) integers.

    It is the first action at which the count of legal ones exceeds a random part of all of them.

    Args:
        key: JAX's.
        allowed: (A, N) booleans or 0 and 1; each agent has a legal action.
    """
    import jax
    from jax import numpy as jnp

    count = jnp.cumsum(allowed.astype(jnp.int32), axis=-1)
    part = jax.random.uniform(key, (len(allowed), 1))
    return jnp.argmax(count > jnp.floor(part * count[:, -1:]), axis=-1)


@functools.cache
def _compiled(setting: Setting, num_cores: int) -> tuple[Callable[[], Any], Callable[[Any], Any], int]:
    """What starts the battles, what steps them (its argument is used up), and how many steps that is."""
    import jax
    from jax import numpy as jnp
    from jaxmarl.environments.smax import HeuristicEnemySMAX, map_name_to_scenario

    env = HeuristicEnemySMAX(scenario=map_name_to_scenario(setting.scenario))
    apart = setting.way is Way.APART
    devices, battles = (num_cores, setting.battles) if apart else (1, num_cores * setting.battles)
    num_steps = max(_LEAST_STEPS, _STEPS_A_CALL // (devices * battles))

    def seen(observations: Any) -> Any:
        """What agents see; the state for a centralised critic need not be computed, as ours is not."""
        return {agent: observations[agent] for agent in env.agents}

    def step(key: Any, state: Any, masks: Any) -> Any:
        key_actions, key_step = jax.random.split(key)
        drawn = draw_actions(key_actions, jnp.stack([masks[agent] for agent in env.agents]))
        actions = {agent: drawn[i] for i, agent in enumerate(env.agents)}
        observations, state, rewards, done, _ = env.step(key_step, state, actions)
        return state, seen(observations), env.get_avail_actions(state), rewards, done["__all__"]

    def begin(key: Any) -> Any:
        keys = jax.random.split(key, battles + 1)
        observations, state = jax.vmap(env.reset)(keys[1:])
        masks = jax.vmap(env.get_avail_actions)(state)
        rewards = {agent: jnp.zeros(battles) for agent in env.agents}
        carried = keys[0], (state, seen(observations), masks, rewards, jnp.zeros(battles, bool))
        # Of the very types that `advance` returns, not JAX's weak ones: it would be compiled twice.
        return jax.tree.map(lambda array: jax.lax.convert_element_type(array, array.dtype), carried)

    def advance(carried: Any) -> Any:
        def body(carried: Any, _: Any) -> Any:
            key, (state, _observations, masks, _rewards, _done) = carried
            keys = jax.random.split(key, battles + 1)
            return (keys[0], jax.vmap(step)(keys[1:], state, masks)), None

        return jax.lax.scan(body, carried, None, length=num_steps)[0]

    key = jax.random.PRNGKey(0)
    if not apart:
        return lambda: jax.jit(begin)(key), jax.jit(advance, donate_argnums=0), num_steps
    keys = jax.random.split(key, devices)
    return lambda: jax.pmap(begin)(keys), jax.pmap(advance, donate_argnums=0), num_steps


if __name__ == "__main__":
    serve(prepare)
