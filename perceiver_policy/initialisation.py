"""How weights are drawn before training."""

from __future__ import annotations

import math
from enum import StrEnum

from torch import Tensor, nn

from perceiver_policy.core import PerceiverEncoder
from perceiver_policy.position import LearnedPositions
from perceiver_policy.queries.learned import LearnedQuery

STD = 0.02
TRUNCATED_AT = 2.0  # standard deviations
TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal variable truncated at two."""


class Initialisation(StrEnum):
    """Whose habits; all have latents and learned positions of standard deviation 0.02."""

    PAPER = "paper"  # what the papers say; where they are silent, PyTorch's own
    DEEPMIND = "deepmind"  # the released code: other weights by the width of their input, biases 0
    HUGGINGFACE = "huggingface"  # a standard deviation of 0.02 everywhere, biases 0


def initialise(model: nn.Module, scheme: Initialisation) -> None:
    """Draw a model's weights anew.

    - ``paper``: nothing is drawn; modules come with latents and learned positions of a truncated normal of
      standard deviation 0.02 within [-2, 2] (Perceiver, arXiv:2103.03206, appendix C), and with PyTorch's own
      linear layers.
    - ``deepmind``: linear layers and convolutions truncated normal of variance 1 / fan-in (variance scaling),
      latents, positions and embeddings of standard deviation 0.02, truncated at two deviations.
    - ``huggingface``: all of these normal, of standard deviation 0.02.

    Layers that a head has made zero on purpose stay zero.

    Args:
        model: with the modules of this package.
        scheme: which.
    """
    if scheme is Initialisation.PAPER:
        return
    for module in model.modules():
        match module:
            case PerceiverEncoder():
                _draw(module.latents, scheme)
            case LearnedPositions():
                _draw(module.table, scheme)
            case LearnedQuery():
                _draw(module.query, scheme)
            case nn.Embedding():
                _draw(module.weight, scheme)
            case nn.Linear() | nn.Conv2d() if module.weight.is_meta or module.weight.any():
                fan_in = module.weight[0].numel()
                _draw(module.weight, scheme, math.sqrt(1 / fan_in) / TRUNCATED_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _draw(weight: Tensor, scheme: Initialisation, deepmind_std: float = STD) -> None:
    if scheme is Initialisation.DEEPMIND:
        nn.init.trunc_normal_(
            weight, std=deepmind_std, a=-TRUNCATED_AT * deepmind_std, b=TRUNCATED_AT * deepmind_std
        )
    else:
        nn.init.normal_(weight, std=STD)
