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

    - ``paper``: latents and learned positions are truncated normal of standard deviation 0.02 within [-2, 2]
      (Perceiver, arXiv:2103.03206, appendix C); nothing else is touched.
    - ``deepmind``: linear layers and convolutions truncated normal of variance 1 / fan-in (variance scaling),
      latents, positions and embeddings of standard deviation 0.02, truncated at two deviations.
    - ``huggingface``: all of these normal, of standard deviation 0.02.

    Layers that a head has made zero on purpose stay zero.

    Args:
        model: with the modules of this package.
        scheme: which.
    """
    for module in model.modules():
        if isinstance(module, (PerceiverEncoder, LearnedPositions, LearnedQuery)):
            name = {PerceiverEncoder: "latents", LearnedPositions: "table", LearnedQuery: "query"}
            table = getattr(module, next(n for kind, n in name.items() if isinstance(module, kind)))
            if scheme is Initialisation.PAPER:
                nn.init.trunc_normal_(table, std=STD, a=-2.0, b=2.0)
            elif scheme is Initialisation.DEEPMIND:
                _truncated_normal(table, STD)
            else:
                nn.init.normal_(table, std=STD)
        elif scheme is Initialisation.PAPER:
            continue
        elif isinstance(module, nn.Embedding):
            if scheme is Initialisation.DEEPMIND:
                _truncated_normal(module.weight, STD)
            else:
                nn.init.normal_(module.weight, std=STD)
        elif isinstance(module, (nn.Linear, nn.Conv2d)) and (module.weight.is_meta or module.weight.any()):
            if scheme is Initialisation.DEEPMIND:
                fan_in = module.weight[0].numel()
                _truncated_normal(module.weight, math.sqrt(1 / fan_in) / TRUNCATED_STD)
            else:
                nn.init.normal_(module.weight, std=STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _truncated_normal(tensor: Tensor, std: float) -> None:
    nn.init.trunc_normal_(tensor, std=std, a=-TRUNCATED_AT * std, b=TRUNCATED_AT * std)
