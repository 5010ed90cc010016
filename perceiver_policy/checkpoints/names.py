"""Weights under other names: which of ours is which of theirs, and in what form.

A :class:`Weight` says it for one tensor of ours, a :class:`Convention` makes those of whole layers, and the
same list serves both ways. What one implementation keeps apart, ours keeps in one tensor: the projections to
queries, keys and values of a layer, one after another along the first axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from perceiver_policy.attention import Attention, AttentionLayer

FLOATING = (torch.float32, torch.float16, torch.bfloat16)
"""What float32 holds exactly."""
INTEGER = (torch.int64, torch.int32)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or a model that cannot be written as one; the message says why."""


class Form(NamedTuple):
    """How a tensor of theirs becomes one of ours, and back."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


SAME = Form(lambda x: x, lambda x: x)
TRANSPOSED = Form(lambda x: x.mT, lambda x: x.mT)
"""Haiku's linear layers: (in, out)."""
HWIO = Form(lambda x: x.permute(3, 2, 0, 1), lambda x: x.permute(2, 3, 1, 0))
"""Haiku's convolutions: (height, width, in, out)."""
HWIO_POINTWISE = Form(lambda x: x[0, 0].mT, lambda x: x.mT[None, None])
"""Haiku's convolution of one pixel, a linear layer here."""
POINTWISE = Form(lambda x: x[:, :, 0, 0], lambda x: x[:, :, None, None])
"""PyTorch's convolution of one pixel, a linear layer here."""
ROW = Form(lambda x: x[0], lambda x: x[None])
"""A table of one row."""
CHANNELS = Form(lambda x: x[0, 0, 0], lambda x: x[None, None, None])
"""Haiku's batch norm: (1, 1, 1, channels)."""


@dataclass(frozen=True)
class Weight:
    """One tensor of ours."""

    ours: str
    theirs: tuple[str, ...]  # several: one after another along our first axis
    form: Form = SAME  # of each
    sizes: tuple[int, ...] = ()  # of each along our first axis, where there are several


class LayerNames(NamedTuple):
    """What the parts of an :class:`~perceiver_policy.attention.AttentionLayer` are called."""

    query_norm: str
    key_value_norm: str
    query: str
    key: str
    value: str
    output: str
    mlp_norm: str
    mlp_in: str
    mlp_out: str


@dataclass(frozen=True)
class Convention:
    """How an implementation names its layers' weights."""

    separator: str
    linear: tuple[str, str]  # weight and bias of a linear layer
    linear_form: Form
    norm: tuple[str, str]  # of layer norm
    self_attention: LayerNames
    cross_attention: LayerNames

    def of_linear(self, ours: str, *theirs: str, sizes: tuple[int, ...] = ()) -> list[Weight]:
        """A linear layer of ours, which may be several of theirs."""
        weight, bias = (tuple(self.separator.join((t, name)) for t in theirs) for name in self.linear)
        form = self.linear_form
        return [Weight(f"{ours}.weight", weight, form, sizes), Weight(f"{ours}.bias", bias, SAME, sizes)]

    def of_norm(self, ours: str, theirs: str) -> list[Weight]:
        """A layer norm."""
        weight, bias = (self.separator.join((theirs, name)) for name in self.norm)
        return [Weight(f"{ours}.weight", (weight,)), Weight(f"{ours}.bias", (bias,))]

    def of_layer(self, ours: str, theirs: str, layer: nn.Module) -> list[Weight]:
        """An attention layer."""
        layer = cast(AttentionLayer, layer)
        attention: Attention = layer.attention
        qk, v = attention.num_qk_channels, attention.num_v_channels
        crossing = not attention.is_self_attention
        names = self.cross_attention if crossing else self.self_attention
        names = LayerNames(*(self.separator.join((theirs, name)) for name in names))
        weights = self.of_norm(f"{ours}.query_norm", names.query_norm)
        if crossing:
            weights += self.of_norm(f"{ours}.key_value_norm", names.key_value_norm)
            weights += self.of_linear(f"{ours}.attention.query", names.query)
            weights += self.of_linear(f"{ours}.attention.key_value", names.key, names.value, sizes=(qk, v))
        else:
            projections = (names.query, names.key, names.value)
            weights += self.of_linear(f"{ours}.attention.query_key_value", *projections, sizes=(qk, qk, v))
        weights += self.of_linear(f"{ours}.attention.output", names.output)
        weights += self.of_norm(f"{ours}.mlp_norm", names.mlp_norm)
        return (
            weights
            + self.of_linear(f"{ours}.mlp.0", names.mlp_in)
            + self.of_linear(f"{ours}.mlp.2", names.mlp_out)
        )


def to_theirs(weights: Iterable[Weight], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under their names and in their form. All of ours must be in the list."""
    theirs: dict[str, Tensor] = {}
    for weight in weights:
        tensor = ours[weight.ours]
        parts = tensor.split(weight.sizes) if weight.sizes else (tensor,)
        theirs |= {name: weight.form.to_theirs(part) for name, part in zip(weight.theirs, parts, strict=True)}
    return theirs


def to_ours(
    weights: Sequence[Weight], theirs: Mapping[str, Tensor], outline: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Their tensors under our names, in our form and type.

    Args:
        weights: what is what.
        theirs: a checkpoint's tensors.
        outline: our tensors' shapes and types; on the meta device will do.
        source: what the error calls the checkpoint.

    Raises:
        CheckpointError: tensors that are missing, surplus, misshapen, of a type that does not fit into ours,
            NaN or infinite: all of them, with both shapes.
    """
    expected = to_theirs(weights, outline)
    problems = [
        f"missing {name}, shape {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() - theirs.keys())
    ]
    problems += [
        f"surplus {name}, shape {tuple(theirs[name].shape)}"
        for name in sorted(theirs.keys() - expected.keys())
    ]
    for name in sorted(expected.keys() & theirs.keys()):
        tensor, wanted = theirs[name], expected[name]
        if tensor.shape != wanted.shape:
            shapes = f"{tuple(tensor.shape)}, the model calls for {tuple(wanted.shape)}"
            problems.append(f"{name} is {shapes}")
        elif tensor.dtype not in (FLOATING if wanted.is_floating_point() else INTEGER):
            problems.append(f"{name} is {tensor.dtype}, the model calls for {wanted.dtype}")
        elif not tensor.isfinite().all():
            problems.append(f"{name} has values that are NaN or infinite")
    if problems:
        raise CheckpointError(f"{source} does not fit the model: " + "; ".join(problems))
    ours = {}
    for weight in weights:
        parts = [weight.form.to_ours(theirs[name]) for name in weight.theirs]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        ours[weight.ours] = tensor.to(outline[weight.ours].dtype).contiguous()
    return ours
