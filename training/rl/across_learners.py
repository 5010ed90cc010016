"""What several learners must agree on, so that together they do what one would do with all the data.

RLlib gives every learner a share of the packs and averages the learners' gradients. That equals the gradient
of all the data only if what is taken over a batch (a mean, a deviation, a number of minibatches) is taken
over all shares. Without several learners these functions change nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed


def num_learners() -> int:
    """How many learners take part in this one's updates, itself included."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def total(values: NDArray[np.float64], device: torch.device | str = "cpu") -> NDArray[np.float64]:
    """The sum of ``values`` over all learners; every learner must call it, in the same order.

    Args:
        values: of this learner.
        device: the learner's: gloo adds on CPUs, NCCL on GPUs.
    """
    if num_learners() == 1:
        return values
    summed = torch.as_tensor(values, dtype=torch.float64, device=device).clone()
    distributed.all_reduce(summed)
    return summed.cpu().numpy()


def weight_of_mean(mask: Tensor) -> Tensor | float:
    """By what to multiply a mean over the entries in ``mask``, so that the average over the learners is the
    mean over all learners' entries: this learner's share of them, times the number of learners.

    Args:
        mask: bool, any shape.
    """
    if num_learners() == 1:
        return 1.0
    own = mask.sum().to(torch.float32)
    everyones = own.clone()
    distributed.all_reduce(everyones)
    return own * num_learners() / everyones.clamp_min(1)
