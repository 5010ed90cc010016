"""A core from anywhere: the encoder and decoder of one model, put into another that reads something else.

    taken = load_core(policy, "imagenet/")                 # the latents and their blocks
    taken = load_core(torso, "runs/3m/policy", parts=("latents", "cross_attention", "blocks", "decoder"))
    freeze(torso, ("blocks",))

A source is an export of a :class:`~perceiver_policy.policy.UnitSetPolicy` or of a
:class:`~perceiver_policy.model.PerceiverIO`, a folder or file that Hugging Face or DeepMind published, or one
of these on the Hub, as ``owner/name``. It is put into anything with such an ``encoder``, and ``decoder``:

=================  =================================  ==============================================
part               parameters                         depend on
=================  =================================  ==============================================
latents            encoder.latents                    the encoder's configuration
blocks             encoder.blocks                     likewise
cross_attention    encoder.cross_attentions           and the width of the inputs
decoder            decoder                            the decoder's, and the width of the queries
=================  =================================  ==============================================

Latents and blocks thus go from any inputs to any others; the rest where widths are the same too. A part fits
or it does not: nothing is loaded unless all that was asked for fits, in shape and in what it computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from perceiver_policy import config_files
from perceiver_policy.checkpoints import import_checkpoint
from perceiver_policy.config import Config, DecoderConfig, EncoderConfig, nearest
from perceiver_policy.core import PerceiverDecoder, PerceiverEncoder
from perceiver_policy.export_files import CONFIG_FILE, load_model
from perceiver_policy.hub import local_folder
from perceiver_policy.model import PerceiverIO
from perceiver_policy.model_config import PerceiverIOConfig
from perceiver_policy.policy import UnitSetPolicy
from perceiver_policy.policy_config import UnitSetPolicyConfig

PARTS = {
    "latents": "encoder.latents",
    "blocks": "encoder.blocks.",
    "cross_attention": "encoder.cross_attentions.",
    "decoder": "decoder.",
}
"""What there is to take, and how the names of its parameters begin."""
ANYWHERE = ("latents", "blocks")
"""The parts that no input's and no query's width says anything about."""
_SAME: dict[str, tuple[str, ...]] = {
    "latents": (),
    "blocks": ("num_blocks", "share_blocks", "num_self_attention_heads", "activation"),
    "cross_attention": (
        "num_cross_attention_layers",
        "cross_attention_placement",
        "cross_attention_sharing",
        "num_cross_attention_heads",
        "cross_attention_residual",
        "activation",
        "empty_attention",
    ),
    "decoder": ("num_cross_attention_heads", "query_residual", "activation"),
}
"""What a part's configurations must agree in, although the shapes do not tell."""


class CoreError(ValueError):
    """A core that cannot be taken; the message lists what does not fit."""


@dataclass(frozen=True, eq=False)
class Core:
    """An encoder and a decoder that were read."""

    source: str
    encoder: EncoderConfig
    decoder: DecoderConfig | None
    weights: Mapping[str, Tensor]  # by parameter, those of PARTS


@dataclass(frozen=True)
class Taken:
    """What was put into a module, and where it is from."""

    source: str
    parameters: tuple[str, ...]
    num_weights: int

    def __str__(self) -> str:
        return f"{len(self.parameters)} parameters, {self.num_weights:,} weights, from {self.source}"


def read_core(source: str | Path) -> Core:
    """Read the core of a model on disk or on the Hub.

    Args:
        source: see the module's docstring.

    Raises:
        CoreError: nothing there, or a model without such a core.
        ExportError: an export that cannot be loaded.
        CheckpointError: a published checkpoint that cannot be imported.
        ConfigError: a configuration that cannot be read.
    """
    path = local_folder(source)
    if not path.exists():
        raise CoreError(f"there is no core at {source}: give the folder of an exported or published model")
    model: PerceiverIO | UnitSetPolicy
    if (path / CONFIG_FILE).is_file():
        config: Config = config_files.load(path / CONFIG_FILE)
        match config:
            case UnitSetPolicyConfig():
                model = load_model(UnitSetPolicy, path)
            case PerceiverIOConfig():
                model = load_model(PerceiverIO, path)
            case _:
                raise CoreError(f"{source} is a {config.kind}, which has no such core")
    else:
        model = import_checkpoint(path)
    weights = {name: tensor.detach() for name, tensor in _of_parts(model, PARTS)}
    return Core(str(source), model.config.encoder, model.config.decoder, weights)


def load_core(module: nn.Module, source: str | Path | Core, parts: Sequence[str] = ANYWHERE) -> Taken:
    """Put a core into a module.

    Args:
        module: with an ``encoder``, and a ``decoder`` where that is asked for; :class:`PerceiverIO` and
            :class:`UnitSetPolicy` have them.
        source: as for :func:`read_core`, or what it returned.
        parts: which of :data:`PARTS`.

    Returns:
        What was taken. It has the module's dtype, on its device.

    Raises:
        CoreError: an unknown part, or something asked for does not fit; nothing is loaded then.
        ExportError, CheckpointError, ConfigError: as for :func:`read_core`.
    """
    check_parts(parts)
    core = source if isinstance(source, Core) else read_core(source)
    misfits = {part: _misfits(module, core, part) for part in PARTS}
    asked = [misfit for part in PARTS if part in parts for misfit in misfits[part]]
    if asked:
        fitting = ", ".join(part for part in PARTS if not misfits[part]) or "none"
        raise CoreError(
            f"the core of {core.source} does not fit: {'; '.join(asked)}. Parts that fit: {fitting}. Give "
            "the model the core's sizes, or ask for these parts only"
        )
    own = dict(_of_parts(module, parts))
    for name, tensor in own.items():
        tensor.data.copy_(core.weights[name])
    return Taken(core.source, tuple(own), sum(tensor.numel() for tensor in own.values()))


def freeze(module: nn.Module, parts: Sequence[str]) -> tuple[str, ...]:
    """Keep parts of a module's core as they are: no gradients, and optimisers leave them alone.

    Args:
        module: as for :func:`load_core`.
        parts: which of :data:`PARTS`.

    Returns:
        The names of their parameters.

    Raises:
        CoreError: an unknown part.
    """
    check_parts(parts)
    frozen = dict(_of_parts(module, parts))
    for parameter in frozen.values():
        parameter.requires_grad_(False)
    return tuple(frozen)


def check_parts(parts: Sequence[str]) -> None:
    """Raise :class:`CoreError` for a part there is not."""
    for part in parts:
        if part not in PARTS:
            raise CoreError(f"a core has no part {part!r}; {nearest(part, PARTS)}")


def _of_parts(module: nn.Module, parts: Sequence[str] | Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    """The parameters of some parts, by name."""
    for name, parameter in module.named_parameters():
        if any(name.startswith(PARTS[part]) for part in parts):
            yield name, parameter


def _misfits(module: nn.Module, core: Core, part: str) -> list[str]:
    """Why a part does not fit; nothing if it does."""
    theirs = core.decoder if part == "decoder" else core.encoder
    ours = _config(module, part)
    if theirs is None or ours is None:
        return [f"{core.source if theirs is None else 'the module'} has no {part}"]
    misfits = _differences(part, theirs, ours)
    own = {name: tuple(tensor.shape) for name, tensor in _of_parts(module, (part,))}
    found = {name: tuple(w.shape) for name, w in core.weights.items() if name.startswith(PARTS[part])}
    for name in sorted(own.keys() | found.keys()):
        if own.get(name) != found.get(name):
            misfits.append(f"{name} is {found.get(name, 'absent')} there and {own.get(name, 'absent')} here")
    return misfits


def _config(module: nn.Module, part: str) -> Config | None:
    """The configuration of the module's encoder or decoder."""
    if part == "decoder":
        decoder = getattr(module, "decoder", None)
        return decoder.config if isinstance(decoder, PerceiverDecoder) else None
    encoder = getattr(module, "encoder", None)
    return encoder.config if isinstance(encoder, PerceiverEncoder) else None


def _differences(part: str, theirs: Any, ours: Any) -> list[str]:
    which = "decoder" if part == "decoder" else "encoder"
    return [
        f"{which}.{name} is {getattr(theirs, name)} there and {getattr(ours, name)} here"
        for name in _SAME[part]
        if getattr(theirs, name) != getattr(ours, name)
    ]
