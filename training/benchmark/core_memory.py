"""Peak memory of one forward pass for an image: each network in a process of its own.

What counts is the growth of the process' resident memory over the built model, by the kernel's own account of
the peak (Linux: ``clear_refs`` and ``VmHWM`` of proc(5)). The network reads 224 x 224 pixels and applies one
block of 6 self-attention layers. The forward pass is the process' first.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import nn

from training.benchmark import core_rivals as rivals
from training.benchmark.core_contest import IMAGE_SIZE, ImageRead, build, images
from training.benchmark.rows import Row, row, row_against

NUM_LAYERS = 6
RIVALS = ("huggingface", "lucidrains")
UNIT = "MB"
_PROCESS = Path("/proc/self")


def measure(command: str, *, repeats: int = 3) -> Iterator[Row]:
    """Megabytes of ours and of each rival.

    Args:
        command: what to run to get the rows again.
        repeats: processes of each side.
    """
    ours = _peaks("ours", repeats)
    for rival in RIVALS:
        name = f"core/imagenet/batch_1/forward_peak_memory/{rival}"
        if reason := rivals.absence(rival):
            absent = f"{rival}, not measured: {reason}"
            yield replace(row(name, UNIT, ours, command), rival_name=absent)
        else:
            theirs = _peaks(rival, repeats)
            yield row_against(name, UNIT, ours, command, rivals.label(rival), theirs, less_is_better=True)


def peak(side: str) -> float:
    """Megabytes by which this process grows at most in a forward pass.

    Args:
        side: ``ours`` or a rival.
    """
    torch.set_num_threads(1)
    model = build("perceiver-io-imagenet-fourier")
    network: nn.Module
    match side:
        case "ours":
            network = ImageRead(model, NUM_LAYERS)
        case "huggingface":
            network = rivals.HuggingFaceImages(model.encoder, IMAGE_SIZE, NUM_LAYERS)
        case _:
            network = rivals.LucidrainsImages(model.encoder, IMAGE_SIZE, NUM_LAYERS)
    network.eval()
    inputs = images()
    gc.collect()
    (_PROCESS / "clear_refs").write_text("5", encoding="ascii")  # the peak starts over from here
    before = _kilobytes("VmRSS")
    with torch.inference_mode():
        network(inputs)
    return (_kilobytes("VmHWM") - before) / 1024


def _kilobytes(what: str) -> int:
    lines = (_PROCESS / "status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def _peaks(side: str, repeats: int) -> Sequence[float]:
    program = [sys.executable, "-m", "training.benchmark.core_memory", side]
    answers = [subprocess.run(program, capture_output=True, text=True, check=True) for _ in range(repeats)]
    peaks = [float(answer.stdout) for answer in answers]
    assert median(peaks) > 0
    return peaks


if __name__ == "__main__":
    print(peak(sys.argv[1]))
