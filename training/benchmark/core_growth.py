"""How the encoder's time grows with its inputs, beside a Transformer that attends among all of them.

Ours: the encoder of ``perceiver-io-starcraft``, 32 latents. The rival: ``nn.TransformerEncoder`` of as many
layers. Forward, a batch of one, CPU time of one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import util
from io import BytesIO
from pathlib import Path
from statistics import median
from time import thread_time

import torch

from envs.battle.whole_file import write_whole
from perceiver_policy.attention import AttentionLayer
from training.benchmark import core_rivals as rivals
from training.benchmark.core_contest import UNIT, build, forward
from training.benchmark.growth import exponent
from training.benchmark.rows import Row, rates_in_turn, row, row_against

NUM_INPUTS = (64, 256, 1024, 2048, 4096, 8192, 16384)
FIT_FROM = 1024
"""Inputs from which on the exponent is fitted: before, the latents' own layers are most of our work."""
LONGEST = 6.0
"""Seconds of CPU time: after a size at which a pass takes longer, the rival is not measured."""
RIVAL = "TransformerEncoder"
_GROWTH = "core/growth/"


def measure(
    command: str, *, sizes: Sequence[int] = NUM_INPUTS, seconds: float = 0.2, repeats: int = 3
) -> Iterator[Row]:
    """Passes a second by number of inputs, and the exponents with which the time grows.

    Args:
        command: what to run to get the rows again.
        sizes: numbers of inputs, ascending.
        seconds: least duration of a turn.
        repeats: turns of each side.
    """
    encoder = build("perceiver-io-starcraft").encoder
    layer = encoder.cross_attentions[0]
    assert isinstance(layer, AttentionLayer)
    channels = layer.attention.key_value.in_features
    transformer = rivals.transformer(channels)
    times: dict[int, tuple[Sequence[float], Sequence[float]]] = {}
    too_long = ""
    for size in sizes:
        inputs = torch.randn(1, size, channels)
        works: list[Callable[[], int]] = [forward(encoder, inputs)]
        if not too_long:
            works.append(forward(transformer, inputs))
        rates = rates_in_turn(works, seconds=seconds, repeats=repeats, clock=thread_time)
        name = f"{_GROWTH}inputs_{size}/forward/{RIVAL}"
        if too_long:
            yield replace(row(name, UNIT, rates[0], command), rival_name=too_long)
            continue
        yield row_against(name, UNIT, rates[0], command, rivals.label(RIVAL), rates[1])
        times[size] = (rates[0], rates[1])
        if 1 / median(rates[1]) > LONGEST:
            too_long = f"{RIVAL}, not measured: a pass over {size} inputs took {1 / median(rates[1]):.0f} s"
    fitted = [size for size in times if size >= FIT_FROM]
    if len(fitted) > 1:
        sides = [
            [exponent(fitted, [1 / times[size][side][i] for size in fitted]) for i in range(repeats)]
            for side in (0, 1)
        ]
        name = f"{_GROWTH}exponent/forward/{RIVAL}"
        yield row_against(
            name, "exponent", sides[0], command, rivals.label(RIVAL), sides[1], less_is_better=True
        )


def plot(rows: Sequence[Row], file: Path) -> str | None:
    """Draw time against inputs.

    Args:
        rows: of :func:`measure`; others are passed over.
        file: where the PNG goes; it appears whole or not at all.

    Returns:
        Why there is none; None if there is.
    """
    if util.find_spec("matplotlib") is None:
        return "no plot: matplotlib is not installed"
    from matplotlib.figure import Figure

    points = [
        (int(r.name.split("_")[1].split("/")[0]), r) for r in rows if r.name.startswith(f"{_GROWTH}inputs_")
    ]
    if not points:
        return "no plot: there are no rows of growth"
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(
        xscale="log", yscale="log", xlabel="inputs", ylabel="forward pass, ms of CPU time, one thread"
    )
    axes.plot(
        [n for n, _ in points], [1e3 / r.ours for _, r in points], marker="o", label="Perceiver encoder"
    )
    rival = [(n, 1e3 / r.rival) for n, r in points if r.rival is not None]
    axes.plot([n for n, _ in rival], [t for _, t in rival], marker="s", label="nn.TransformerEncoder")
    axes.set_xticks([n for n, _ in points], [str(n) for n, _ in points])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_whole(file, buffer.getvalue())
    return None
