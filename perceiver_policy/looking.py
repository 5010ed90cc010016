"""Looking inside: what every attention layer attends to, the latents after every block, what reaches outputs.

    with record(model) as recording:
        model(inputs)
    recording.of("encoder.cross_attentions.0")      # (B, heads, N, M)
    input_attention(recording)                       # (B, K, M): each output's share of each input

Attention is computed a second time, from the inputs that a layer is called with, because the model itself
may never form it: its outputs stay as they are, bit for bit. :mod:`perceiver_policy.pictures` draws what is
found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import Tensor, nn

from perceiver_policy.attention import AttentionLayer
from perceiver_policy.cache import KeyValueCache
from perceiver_policy.config import nearest
from perceiver_policy.core import PerceiverDecoder, PerceiverEncoder
from perceiver_policy.rotary import Rotation
from perceiver_policy.tokens import Tokens

MAX_ENTRIES = 2**28
"""Attention weights that a recording holds unless told otherwise: 1 GiB of float32."""


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """What one call of one layer attended to.

    Attributes:
        name: the layer's path in the model.
        call: which call of this layer it was, from 0: layers that blocks share are called several times.
        probabilities: (B, heads, M, N) float: M queries over N inputs; before dropout. A query that may
            attend to nothing, or that is masked, has zeros.
        is_cross: whether it is cross-attention.
        residual: whether the queries are added to what attention returns.
    """

    name: str
    call: int
    probabilities: Tensor
    is_cross: bool
    residual: bool


@dataclass(eq=False)
class Recording:
    """What :func:`record` found.

    Attributes:
        model: what was recorded.
        layers: paths of the layers recorded.
        attention: in the order of the calls.
        latents: by the path of an encoder in the model, (B, N, D) after each block.
    """

    model: nn.Module
    layers: tuple[str, ...]
    attention: list[LayerAttention] = field(default_factory=list)
    latents: dict[str, list[Tensor]] = field(default_factory=dict)

    def of(self, name: str, call: int = 0) -> Tensor:
        """(B, heads, M, N): what one call of the layer at path ``name`` attended to.

        Raises:
            ValueError: no such layer was recorded, or it was not called so often.
        """
        if name not in self.layers:
            raise ValueError(f"no layer {name!r} was recorded; {nearest(name, self.layers)}")
        calls = [entry.probabilities for entry in self.attention if entry.name == name]
        if not 0 <= call < len(calls):
            raise ValueError(f"call is {call}, but {name} was called {len(calls)} times; calls count from 0")
        return calls[call]

    def clear(self) -> None:
        """Forget what was recorded, to go on with the next pass."""
        self.attention.clear()
        self.latents.clear()


@contextlib.contextmanager
def record(
    model: nn.Module, *, layers: str | Sequence[str] | None = None, max_entries: int = MAX_ENTRIES
) -> Iterator[Recording]:
    """Record the attention of every layer, and the latents after every block, of what the model does within.

    Works with and without gradients; recorded tensors have none. Backward passes belong after the block,
    because activation checkpointing calls layers again.

    Args:
        model: any module with :class:`~perceiver_policy.attention.AttentionLayer` in it.
        layers: paths of the layers whose attention to record, or patterns such as ``"encoder.*"``; None: all.
        max_entries: most attention weights to hold, over all calls.

    Raises:
        ValueError: the model has no attention layer, or none that a pattern names. In the block: a call
            would bring the recording above ``max_entries``, or attends to cached keys.
    """
    modules = {name: module for name, module in model.named_modules() if isinstance(module, AttentionLayer)}
    recording = Recording(model, _chosen(tuple(modules), layers, type(model).__name__))
    handles = []
    try:
        for name in recording.layers:
            hook = _AttentionHook(recording, name, max_entries)
            handles.append(modules[name].register_forward_pre_hook(hook, with_kwargs=True))
        for name, encoder in model.named_modules():
            if isinstance(encoder, PerceiverEncoder):
                for block in encoder.blocks:
                    last = cast(nn.ModuleList, block)[-1]
                    handles.append(last.register_forward_hook(_LatentsHook(recording, name)))
        yield recording
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _AttentionHook:
    recording: Recording
    name: str
    max_entries: int

    def __call__(self, layer: nn.Module, args: tuple, kwargs: Mapping) -> None:
        self._keep(cast(AttentionLayer, layer), *args, **kwargs)

    @torch.no_grad()
    def _keep(
        self,
        layer: AttentionLayer,
        x: Tensor,
        keys_values: Tensor | Tokens | None = None,
        mask: Tensor | None = None,
        query_mask: Tensor | None = None,
        *,
        rotations: tuple[Rotation, Rotation] | None = None,
        cache: KeyValueCache | None = None,
    ) -> None:
        """Record one call; arguments as for the layer's ``forward``."""
        if cache is not None:
            raise ValueError(
                f"{self.name} attends to cached keys, which cannot be recorded; generate with use_cache=False"
            )
        read = x if keys_values is None else keys_values
        content = read.content if isinstance(read, Tokens) else read
        shape = (content.shape[0], layer.attention.num_heads, x.shape[-2], content.shape[-2])
        kept = sum(entry.probabilities.numel() for entry in self.recording.attention)
        entries = torch.Size(shape).numel()
        if kept + entries > self.max_entries:
            raise ValueError(
                f"the attention of {self.name} is {' x '.join(map(str, shape))} (batch, heads, queries, "
                f"inputs), {entries:,} weights beside {kept:,} recorded already; max_entries is "
                f"{self.max_entries:,}: raise it, choose some layers, or give a smaller batch"
            )
        probabilities = layer.probabilities(x, keys_values, mask, rotations=rotations)
        if query_mask is not None:
            probabilities = probabilities * query_mask[:, None, :, None]
        call = sum(entry.name == self.name for entry in self.recording.attention)
        is_cross = layer.key_value_norm is not None
        self.recording.attention.append(
            LayerAttention(self.name, call, probabilities, is_cross, layer.attention_residual)
        )


@dataclass(frozen=True)
class _LatentsHook:
    recording: Recording
    name: str

    def __call__(self, layer: nn.Module, args: tuple, output: Tensor) -> None:
        self.recording.latents.setdefault(self.name, []).append(output.detach())


def input_attention(
    recording: Recording, *, encoder: str | None = None, decoder: str | None = None, residual: float = 0.5
) -> Tensor:
    """What outputs attend to in the inputs, by attention rollout (Abnar and Zuidema, arXiv:2005.00928).

    With R what the latents hold of the inputs, and W̄ a layer's attention averaged over its heads::

        R ← W̄                   the first time the inputs are read
        R ← r R + (1 - r) W̄     when they are read again
        R ← (r I + (1 - r) W̄) R  in latent self-attention
        outputs: W̄ R             in the decoder

    where r is ``residual``, the share that the residual connection is taken to carry, and 0 for layers
    without one. What latents and queries hold of themselves is left out. Rows are then scaled to sum to 1.

    Args:
        recording: of one pass through the model, with all layers of the encoder and the decoder.
        encoder: path of the encoder in the model; None: the one that was called.
        decoder: path of the decoder; None: the one that was called, if any was.
        residual: r, from 0 to below 1.

    Returns:
        (B, K, M) float: for each of K outputs its share of each of M inputs, 0 for masked ones; without a
        decoder, for each latent. An output that reads nothing has zeros. The outputs of several calls of the
        decoder follow each other.

    Raises:
        ValueError: no encoder or several were called, layers were left out, or the recording holds several
            passes.
    """
    if not 0 <= residual < 1:
        raise ValueError(f"residual is {residual}; it must be from 0 to below 1")
    encoder = _only_called(recording, PerceiverEncoder, encoder)
    if encoder is None:
        raise ValueError(
            "no layer of an encoder was recorded; call the model in record()'s block, all layers"
        )
    decoder = _only_called(recording, PerceiverDecoder, decoder)
    _require_one_pass(recording, encoder)
    rolled: Tensor | None = None
    answers = []
    for entry in recording.attention:
        weights = entry.probabilities.mean(1)
        share = residual if entry.residual else 0.0
        if decoder is not None and _inside(entry.name, decoder):
            if rolled is None:
                raise ValueError(f"{decoder!r} was called before {encoder!r}; record them in one block")
            answers.append(weights @ rolled)
        elif not _inside(entry.name, encoder):
            continue
        elif rolled is None:
            rolled = weights
        else:
            rolled = share * rolled + (1 - share) * (weights if entry.is_cross else weights @ rolled)
    assert rolled is not None
    if answers:
        rolled = torch.cat(answers, dim=1)
    total = rolled.sum(-1, keepdim=True)
    return rolled / torch.where(total > 0, total, 1.0)


def modality_shares(weights: Tensor, ranges: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """What share of the attention each modality receives.

    Args:
        weights: (..., M) float, attention over M inputs.
        ranges: by name, the first input of a modality and the one after its last.

    Returns:
        By name (...) float.

    Raises:
        ValueError: a range is empty, goes beyond the inputs, or overlaps another.
    """
    num_inputs, end = weights.shape[-1], 0
    for name, (start, stop) in sorted(ranges.items(), key=lambda item: item[1]):
        if not 0 <= start < stop <= num_inputs:
            raise ValueError(
                f"the range of {name!r} is {start} to {stop}; weights {tuple(weights.shape)} allow ranges "
                f"from 0 to {num_inputs}, the start below the stop"
            )
        if start < end:
            raise ValueError(f"the range of {name!r}, {start} to {stop}, overlaps one that ends at {end}")
        end = stop
    return {name: weights[..., start:stop].sum(-1) for name, (start, stop) in ranges.items()}


def principal_plane(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The plane in which vectors vary most: principal component analysis, with signs that do not depend on
    the machine: of each direction's entries, the largest in size is positive.

    Args:
        vectors: (..., D) float.

    Returns:
        (..., 2) float64: coordinates in the plane, from the mean; (2,) float64: the shares of the variance.
    """
    flat = vectors.detach().double().reshape(-1, vectors.shape[-1])
    flat = flat - flat.mean(0)
    variance, directions = torch.linalg.eigh(flat.T @ flat)  # ascending
    variance, directions = variance[-2:].flip(0).clamp_min(0), directions[:, -2:].flip(1)
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    points = flat @ (directions * largest.sign())
    shares = variance / flat.square().sum().clamp_min(torch.finfo(torch.float64).tiny)
    missing = 2 - points.shape[-1]  # vectors of one number have a line only
    points, shares = (nn.functional.pad(x, (0, missing)) for x in (points, shares))
    return points.reshape(*vectors.shape[:-1], 2), shares


def _chosen(names: tuple[str, ...], layers: str | Sequence[str] | None, model: str) -> tuple[str, ...]:
    """The names that any of the patterns fits."""
    if not names:
        raise ValueError(f"{model} has no AttentionLayer to record")
    if layers is None:
        return names
    patterns = [layers] if isinstance(layers, str) else list(layers)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"layers names {pattern!r}, which no layer fits; {nearest(pattern, names)}")
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


def _inside(name: str, module: str) -> bool:
    return not module or name == module or name.startswith(f"{module}.")


def _only_called(recording: Recording, kind: type[nn.Module], path: str | None) -> str | None:
    """The path of the one module of a kind that was called, None if none was; or the path that is asked for,
    if it was called."""
    called = {entry.name for entry in recording.attention}
    if path is not None:
        if not any(_inside(name, path) for name in called):
            raise ValueError(f"nothing was recorded in {path!r}; {nearest(path, sorted(called))}")
        return path
    modules = [name for name, module in recording.model.named_modules() if isinstance(module, kind)]
    found = [name for name in modules if any(_inside(layer, name) for layer in called)]
    if len(found) > 1:
        word = kind.__name__.removeprefix("Perceiver").lower()
        raise ValueError(f"several were called: {', '.join(found)}; name one, as {word}=")
    return found[0] if found else None


def _require_one_pass(recording: Recording, path: str) -> None:
    """Raise ValueError if the calls of an encoder's layers are not all there, or not those of one pass."""
    module = recording.model.get_submodule(path)
    inside = [name for name, layer in module.named_modules(prefix=path) if isinstance(layer, AttentionLayer)]
    left_out = [name for name in inside if name not in recording.layers]
    if left_out:
        raise ValueError(f"{', '.join(left_out)} of {path!r} was not recorded; record without layers=")
    calls = [entry for entry in recording.attention if _inside(entry.name, path)]
    if not calls[0].is_cross:
        raise ValueError(f"{path!r} did not begin by reading inputs, but with {calls[0].name}")
    if isinstance(module, PerceiverEncoder):
        config = module.config
        most = {
            True: config.num_cross_attention_layers,
            False: config.num_blocks * config.num_self_attention_layers_per_block,
        }
        for is_cross, limit in most.items():
            count = sum(entry.is_cross is is_cross for entry in calls)
            if count > limit:
                raise ValueError(
                    f"the recording holds several passes: {count} calls of {path!r}'s "
                    f"{'cross' if is_cross else 'self'}-attention, where one pass makes {limit}; record each "
                    "by itself, or clear() the recording between them"
                )
