"""The core beside the other implementations: the same work, in one process, in turns.

Three workloads, each forward (under inference mode, modules in evaluation) and forward with backward (to
weights, not to inputs):

- **starcraft**: 512 units of 256 channels, 32 latents, 128 channels for each unit out; and its encoder alone.
- **imagenet**: from 224 x 224 pixels through the first cross-attention layer, 512 latents of 1024 channels.
- **language**: 2048 bytes through the masked language model, 256 latents of 1280 channels, 26 layers.

Time is that of the core (CPU time of the one thread of torch), so that what else the machine does hardly
changes it. Weights are random. No unit or byte is masked away.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from perceiver_policy.config_files import load_named
from perceiver_policy.model import PerceiverIO
from perceiver_policy.model_config import PerceiverIOConfig
from perceiver_policy.tokens import Tokens
from training.benchmark import core_rivals as rivals
from training.benchmark.rows import REPEATS, Row, rates_in_turn, row, row_against

UNIT = "passes/s"
IMAGE_SIZE = 224
NUM_UNITS = 512
NUM_BYTES = 2048
WEIGHT_NOISE = 0.02
"""Added to weights, of which some start as ones or zeros: outputs that are equal then say something."""


@dataclass(frozen=True)
class Workload:
    """Something to compute, and networks that do."""

    name: str
    inputs: Tensor
    ours: nn.Module
    rivals: dict[str, Callable[[], nn.Module]]
    """By name, what builds them."""
    seconds: float
    """Least duration of a turn."""


class ImageRead(nn.Module):
    """Images to latents: the input adapter and the first cross-attention layer, then ``num_layers`` more.

    Args:
        model: what they are parts of.
        num_layers: self-attention layers of the first block that follow.
    """

    def __init__(self, model: PerceiverIO, num_layers: int) -> None:
        super().__init__()
        self.input = model.input
        self.encoder = model.encoder
        self.num_layers = num_layers

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float to latents (B, N, D)."""
        tokens: Tokens = self.input(images)
        x: Tensor = self.encoder.cross_attentions[0](self.encoder.latents, tokens)
        block = self.encoder.blocks[0]
        assert isinstance(block, nn.ModuleList)
        for layer in block[: self.num_layers]:
            x = layer(x)
        return x


def measure(command: str, *, names: Sequence[str] = ("starcraft", "imagenet", "language")) -> Iterator[Row]:
    """Passes a second of ours and of each rival.

    Args:
        command: what to run to get the rows again.
        names: of workloads.
    """
    for name in names:
        for workload in {"starcraft": _starcraft, "imagenet": _imagenet, "language": _language}[name]():
            yield from contest(workload, command)
            del workload
            gc.collect()


def contest(workload: Workload, command: str, *, repeats: int = REPEATS) -> Iterator[Row]:
    """A row for each pass and rival.

    Args:
        workload: what to compute.
        command: what to run to get the rows again.
        repeats: turns of each side.

    Raises:
        RuntimeError: transformers computes something else.
    """
    absent = {rival: reason for rival in workload.rivals if (reason := rivals.absence(rival))}
    networks = {"ours": workload.ours}
    networks |= {rival: build() for rival, build in workload.rivals.items() if rival not in absent}
    if "huggingface" in networks:
        with torch.inference_mode():
            pair = [networks[side].eval()(workload.inputs) for side in ("ours", "huggingface")]
        rivals.require_equal(*pair)
    for kind, make in (("forward", forward), ("forward_backward", forward_backward)):
        works = [make(network, workload.inputs) for network in networks.values()]
        measured = rates_in_turn(works, seconds=workload.seconds, repeats=repeats, clock=time.thread_time)
        rates = dict(zip(networks, measured, strict=True))
        for rival in workload.rivals:
            name = f"core/{workload.name}/{kind}/{rival}"
            if rival in absent:
                reason = f"{rival}, not measured: {absent[rival]}"
                yield replace(row(name, UNIT, rates["ours"], command), rival_name=reason)
            else:
                label = rivals.label(rival)
                yield row_against(name, UNIT, rates["ours"], command, label, rates[rival])
    for network in networks.values():
        network.zero_grad(set_to_none=True)


def forward(network: nn.Module, inputs: Tensor) -> Callable[[], int]:
    """A forward pass in evaluation; returns 1, for one pass."""

    network.eval()

    def work() -> int:
        with torch.inference_mode():
            network(inputs)
        return 1

    return work


def forward_backward(network: nn.Module, inputs: Tensor) -> Callable[[], int]:
    """A forward and a backward pass, of a fixed gradient of the outputs, in training; returns 1."""
    with torch.inference_mode():
        shape = network(inputs).shape
    gradient = torch.randn(shape)
    network.train()

    def work() -> int:
        network.zero_grad(set_to_none=True)
        network(inputs).backward(gradient)
        return 1

    return work


def build(name: str) -> PerceiverIO:
    """A model of the repository's, with weights unlike those it starts training with."""
    torch.manual_seed(0)
    model = PerceiverIO(load_named(name, PerceiverIOConfig))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=WEIGHT_NOISE)
    return model


def imagenet() -> PerceiverIO:
    """The model for images, built as one block: the published one applies it eight times."""
    return build("perceiver-io-imagenet-fourier")


def images() -> Tensor:
    """(1, 3, H, W) float."""
    return torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE)


def _starcraft() -> Iterator[Workload]:
    ours = build("perceiver-io-starcraft")
    built: dict[str, Callable[[], nn.Module]] = {
        "huggingface": lambda: rivals.HuggingFaceEntities(ours),
        "lucidrains": lambda: rivals.LucidrainsEntities(ours),
        "TransformerEncoder": lambda: rivals.transformer(ours.input.num_channels),
    }
    encoders: dict[str, Callable[[], nn.Module]] = {
        "huggingface": lambda: rivals.HuggingFaceEncoder(ours.encoder, ours.input.num_channels),
        "TransformerEncoder": built["TransformerEncoder"],
    }
    for batch, seconds in ((1, 0.3), (32, 2.0)):
        units = torch.randn(batch, NUM_UNITS, ours.input.num_channels)
        yield Workload(f"starcraft/batch_{batch}", units, ours, built, seconds)
        yield Workload(f"starcraft_encoder/batch_{batch}", units, ours.encoder, encoders, seconds)


def _imagenet() -> Iterator[Workload]:
    model = imagenet()
    built: dict[str, Callable[[], nn.Module]] = {
        "huggingface": lambda: rivals.HuggingFaceImages(model.encoder, IMAGE_SIZE, 0),
        "lucidrains": lambda: rivals.LucidrainsImages(model.encoder, IMAGE_SIZE, 0),
    }
    yield Workload("imagenet/batch_1", images(), ImageRead(model, 0), built, 2.0)


def _language() -> Iterator[Workload]:
    ours = build("perceiver-io-language-bytes")
    built: dict[str, Callable[[], nn.Module]] = {
        "huggingface": lambda: rivals.HuggingFaceText(ours),
        "lucidrains": lambda: rivals.LucidrainsText(ours),
    }
    yield Workload("language/batch_1", torch.randint(262, (1, NUM_BYTES)), ours, built, 3.0)
