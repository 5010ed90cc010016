"""Reconstruction of video with its sound and label: each modality's answers, through a linear layer of its
own. (Perceiver IO, arXiv:2107.14795, section 4.3: autoencoding Kinetics-700.)

:class:`ReconstructionHead` reads any part of a modality's answers, for training on a sample of the points
and for decoding in chunks. :func:`waveform` and :func:`frames` arrange the points once all are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from perceiver_policy.config import Config, ConfigError

AUDIO, IMAGE, LABEL = "audio", "image", "label"


@dataclass(frozen=True)
class ReconstructionHeadConfig(Config):
    """Width of a point of each modality; None leaves the modality out."""

    kind: ClassVar[str] = "reconstruction"

    num_audio_samples_per_patch: int | None = 16
    num_image_channels: int | None = 3
    num_labels: int | None = 700

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.widths():
            raise ConfigError(
                f"{type(self).__name__} leaves every modality out; set one of num_audio_samples_per_patch, "
                "num_image_channels and num_labels"
            )

    def widths(self) -> dict[str, int]:
        """Outputs for each point, by modality."""
        widths = {
            AUDIO: self.num_audio_samples_per_patch,
            IMAGE: self.num_image_channels,
            LABEL: self.num_labels,
        }
        return {name: width for name, width in widths.items() if width is not None}


class ReconstructionHead(nn.Module):
    """One linear layer for each modality.

    Args:
        config: modalities and widths.
        num_query_channels: Q, width of an answer.
    """

    def __init__(self, config: ReconstructionHeadConfig, *, num_query_channels: int) -> None:
        super().__init__()
        self.linears = nn.ModuleDict(
            {name: nn.Linear(num_query_channels, width) for name, width in config.widths().items()}
        )

    def forward(self, answers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Read the answers.

        Args:
            answers: (B, K, Q) float by modality, those of the head or some of them. K is 1 for the label.

        Returns:
            ``audio``: (B, K, samples per patch); ``image``: (B, K, channels); ``label``: (B, labels) logits.

        Raises:
            ValueError: a modality the head does not have, or not exactly one answer for the label.
        """
        points = {}
        for name, answer in answers.items():
            if name not in self.linears:
                raise ValueError(f"unknown modality {name!r}; allowed: {', '.join(self.linears)}")
            points[name] = self.linears[name](answer)
        if LABEL in points:
            if points[LABEL].shape[1] != 1:
                raise ValueError(
                    f"there are {points[LABEL].shape[1]} answers for the label; decode one query"
                )
            points[LABEL] = points[LABEL][:, 0]
        return points


def waveform(patches: Tensor) -> Tensor:
    """(B, T) samples from all the patches of a recording in their order, (B, K, samples per patch)."""
    return patches.flatten(1)


def frames(pixels: Tensor, size: tuple[int, int, int]) -> Tensor:
    """(B, T, H, W, C) video from all its pixels, (B, T H W, C), frame by frame and row by row.

    Args:
        pixels: float.
        size: T, H and W.

    Raises:
        ValueError: the size does not fit the number of pixels.
    """
    num_frames, height, width = size
    if num_frames * height * width != pixels.shape[1]:
        raise ValueError(
            f"size {size} has {num_frames * height * width} pixels and {pixels.shape[1]} were decoded; "
            "give the size of the video asked for, and all of its pixels"
        )
    return pixels.unflatten(1, size)
