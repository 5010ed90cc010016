"""Generalised advantage estimation over rollouts of many battles, as pure functions on arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def generalized_advantages(
    r_t: NDArray[np.float32],
    v_t: NDArray[np.float32],
    done_t: NDArray[np.bool_],
    *,
    gamma: float,
    lambda_: float,
) -> NDArray[np.float32]:
    """Advantages of every step of a rollout (Schulman et al. 2016, arXiv:1506.02438, equations 11 to 16).

    δₜ = rₜ + γ(1 − dₜ)Vₜ₊₁ − Vₜ
    Âₜ = δₜ + γλ(1 − dₜ)Âₜ₊₁,  Â_T = 0

    Nothing flows across the end of an episode, so episodes may end and begin anywhere in the rollout. The
    λ-returns, which are the targets of the value function, are Âₜ + Vₜ.

    Args:
        r_t: (T, B) rewards of the steps.
        v_t: (T + 1, B) values of the observations before each step, and of the one after the last.
        done_t: (T, B) True where the step ended its episode.
        gamma: γ, discount of a step.
        lambda_: λ, weight of longer over shorter returns.

    Returns:
        (T, B) float32.

    Raises:
        ValueError: shapes that do not belong together.
    """
    if r_t.shape != done_t.shape or v_t.shape != (len(r_t) + 1, *r_t.shape[1:]):
        raise ValueError(
            f"rewards {r_t.shape}, values {v_t.shape} and dones {done_t.shape} do not belong together; "
            "expected (T, B), (T + 1, B) and (T, B)"
        )
    continues_t = gamma * ~done_t
    delta_t = r_t + continues_t * v_t[1:] - v_t[:-1]
    advantages = np.empty(r_t.shape, np.float32)
    following = np.zeros(r_t.shape[1:], np.float32)
    for t in reversed(range(len(r_t))):
        following = delta_t[t] + lambda_ * continues_t[t] * following
        advantages[t] = following
    return advantages


def vtrace(
    r_t: NDArray[np.float32],
    v_t: NDArray[np.float32],
    done_t: NDArray[np.bool_],
    rho_t: NDArray[np.float32],
    *,
    gamma: float,
    lambda_: float,
    clip: float = 1.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Value errors and advantages of the present policy, from steps of an older one (V-trace, Espeholt et al.
    2018, arXiv:1802.01561, section 4.1 and remark 2).

    ρ̄ₜ = min(ρₜ, clip),  cₜ = λ min(ρₜ, 1),  γₜ = γ(1 − dₜ)
    δₜ = ρ̄ₜ(rₜ + γₜVₜ₊₁ − Vₜ)
    eₜ = δₜ + γₜcₜeₜ₊₁,  e_T = 0;  the value's target is vₜ = Vₜ + eₜ
    Âₜ = ρ̄ₜ(rₜ + γₜ(Vₜ₊₁ + λeₜ₊₁) − Vₜ)

    With all ratios 1 both are :func:`generalized_advantages`.

    Args:
        r_t: (T, ...) rewards of the steps.
        v_t: (T + 1, ...) the present values of the observations before each step, and after the last.
        done_t: (T, ...) True where the step ended its episode.
        rho_t: (T, ...) ρ, the present probability of the action over that when it was sampled.
        gamma: γ, discount of a step.
        lambda_: λ.
        clip: the largest ρ that counts.

    Returns:
        Errors e and advantages Â, (T, ...) float32.
    """
    rho_bar_t, c_t = np.minimum(rho_t, clip), lambda_ * np.minimum(rho_t, 1.0)
    gamma_t = gamma * ~done_t
    delta_t = rho_bar_t * (r_t + gamma_t * v_t[1:] - v_t[:-1])
    errors, advantages = np.empty(rho_t.shape, np.float32), np.empty(rho_t.shape, np.float32)
    following = np.zeros(rho_t.shape[1:], np.float32)
    for t in reversed(range(len(r_t))):
        advantages[t] = delta_t[t] + rho_bar_t[t] * gamma_t[t] * lambda_ * following
        following = delta_t[t] + gamma_t[t] * c_t[t] * following
        errors[t] = following
    return errors, advantages


def standardize(
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    total: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda sums: sums,
) -> NDArray[np.float32]:
    """``values`` shifted and scaled to mean 0 and deviation 1 over the entries in ``mask``; 0 elsewhere.

    Deviations below 1e-4 are taken as 1e-4, so that a batch of equal values becomes zeros. An empty mask
    gives zeros.

    Args:
        values: any shape.
        mask: of that shape.
        total: adds up sums over several learners, for mean and deviation of the values of them all.
    """
    chosen = values[mask].astype(np.float64)
    summed, count = total(np.array([chosen.sum(), chosen.size], np.float64))
    mean = summed / max(count, 1)
    (squares,) = total(np.array([((chosen - mean) ** 2).sum()]))
    scaled = (values - mean) / max(float(np.sqrt(squares / max(count, 1))), 1e-4)
    return np.where(mask, scaled, 0).astype(np.float32)


def explained_variance(targets: NDArray[np.float32], predictions: NDArray[np.float32]) -> float:
    """1 − Var[target − prediction] / Var[target]: 1 for a perfect value function, 0 for a constant one.

    NaN where the targets do not vary.
    """
    variance = float(targets.var())
    return 1.0 - float((targets - predictions).var()) / variance if variance > 0 else float("nan")
