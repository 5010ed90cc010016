"""A gradient that was not finite, on disk: what it was computed from, and how to see it happen again.

A run keeps it in ``failures/step_N/learner_K/``, one folder for each learner:

::

    failure.json            which gradients, weights and columns are not finite; what a schedule had moved
    failure.safetensors     weights/… before the step, minibatch/…
    config.yaml, model.yaml the job's settings

Nothing in it is pickled: it is safe to send to somebody else. To see the failure again::

    from training.rl.post_mortem import reproduce

    print(reproduce("runs/3m/failures/step_000000012288/learner_0"))
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from envs.battle.tactics import DEFAULT
from perceiver_policy import config_files
from perceiver_policy.export_files import replaced_whole
from training.rl.algorithms import build_algorithm_config
from training.rl.config import TrainConfig
from training.rl.finite_gradients import Failure, NonFiniteGradientError, nested

_FACTS, _TENSORS, _SETTINGS, _MODEL = "failure.json", "failure.safetensors", "config.yaml", "model.yaml"


def save_failures(failures: Sequence[Failure], folder: Path, config: TrainConfig) -> None:
    """Write what the learners kept, whole or not at all.

    Args:
        failures: one of each learner.
        folder: made; each learner's goes into one below it.
        config: the job.

    Raises:
        OSError: it cannot be written; nothing is there then.
    """
    with replaced_whole(folder.absolute()) as new:
        for failure in failures:
            place = new / f"learner_{failure.learner}"
            place.mkdir()
            tensors = {f"weights/{name}": tensor for name, tensor in failure.weights.items()}
            tensors |= {f"minibatch/{name}": tensor for name, tensor in failure.minibatch.items()}
            save_file(tensors, place / _TENSORS)
            facts = {
                "learner": failure.learner,
                "non_finite": {
                    "gradients": failure.gradients,
                    "weights": _non_finite(failure.weights),
                    "minibatch": _non_finite(failure.minibatch),
                },
                "entropy_coeff": failure.entropy_coeff,
            }
            (place / _FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            (place / _SETTINGS).write_text(config.to_yaml(), encoding="utf-8")
            config_files.save(config.load_model(), place / _MODEL)


def load_failure(folder: str | Path) -> Failure:
    """What :func:`save_failures` wrote of one learner.

    Raises:
        FileNotFoundError: it did not write there.
    """
    folder = Path(folder)
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    tensors = load_file(folder / _TENSORS)
    return Failure(
        learner=facts["learner"],
        weights=_below("weights/", tensors),
        minibatch=_below("minibatch/", tensors),
        gradients=tuple(facts["non_finite"]["gradients"]),
        entropy_coeff=facts["entropy_coeff"],
    )


def load_job(folder: str | Path) -> TrainConfig:
    """The settings of the job that failed.

    Raises:
        ValueError: they are not there, or not such settings.
    """
    folder = Path(folder)
    config = TrainConfig.load(folder / _SETTINGS)
    return dataclasses.replace(config, model=str(folder / _MODEL), model_overrides=())


def reproduce(folder: str | Path) -> Failure | None:
    """Take the step again: same weights, same minibatch, same settings, on one learner, without Ray.

    Returns:
        What fails now; None if nothing does. Of several learners, whose gradients are averaged, it is those
        with a failure of their own that broke the mean.

    Raises:
        FileNotFoundError: nothing was kept there.
    """
    kept = load_failure(folder)
    # The enemy plays no part in a step, and may be a folder that is not here; nor do the other learners.
    job = dataclasses.replace(
        load_job(folder), opponent=DEFAULT, num_learners=0, num_gpus_per_learner=0, init_from=None
    )
    (coefficient,) = set(kept.entropy_coeff.values())
    config = build_algorithm_config(job).training(entropy_coeff=coefficient)
    learner = config.learner_class(config=config, module_spec=config.get_multi_rl_module_spec())
    learner.build()
    for module_id in kept.entropy_coeff:
        weights = _below(f"{module_id}/", kept.weights)
        learner.module[module_id].unwrapped().load_state_dict(weights)
    try:
        learner._uncompiled_update(nested(kept.minibatch))
    except NonFiniteGradientError:
        return learner.failure
    return None


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
