"""What every input adapter of :class:`~perceiver_policy.model.PerceiverIO` is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_policy.tokens import Tokens


class InputAdapter(nn.Module, ABC):
    """Turns one kind of input into tokens.

    Attributes:
        num_channels: C, width of the tokens.
    """

    num_channels: int

    @abstractmethod
    def forward(self, inputs: Any, mask: Tensor | None = None) -> Tokens:
        """Make tokens.

        Args:
            inputs: as the adapter says.
            mask: (B, M) bool, True where an input is present; None when all are. An adapter that puts
                several inputs into one token takes one entry per token, or says otherwise.

        Raises:
            ValueError: inputs of another shape than the adapter takes.
        """


def require_shape(name: str, tensor: Tensor, *sizes: int | str, floating: bool = True) -> None:
    """Refuse a tensor of another shape, or of whole numbers where real ones are needed.

    Args:
        name: what the tensor is, for the message.
        tensor: to be checked.
        sizes: what each dimension must be; a letter stands for any size of at least 1.
        floating: whether the tensor must be of a floating-point type; False: of an integer type.

    Raises:
        ValueError: naming the shape or type, and the allowed one.
    """
    fits = len(sizes) == tensor.dim() and all(
        actual >= 1 if isinstance(size, str) else actual == size
        for size, actual in zip(sizes, tensor.shape, strict=True)
    )
    if not fits:
        allowed = f"({', '.join(map(str, sizes))}), each letter at least 1"
        raise ValueError(f"{name} have shape {tuple(tensor.shape)}; expected {allowed}")
    if floating and not tensor.is_floating_point():
        raise ValueError(f"{name} are {tensor.dtype}; expected floating point: convert and scale them first")
    if not floating and tensor.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} are {tensor.dtype}; expected torch.int64 or torch.int32")


def require_mask(mask: Tensor | None, *sizes: int) -> None:
    """Refuse a mask of another shape than ``sizes``, or one that is not bool.

    Raises:
        ValueError: naming the shape and type, and the allowed ones.
    """
    if mask is not None and (tuple(mask.shape) != sizes or mask.dtype != torch.bool):
        raise ValueError(f"the mask is {mask.dtype} {tuple(mask.shape)}; expected torch.bool {sizes}")
