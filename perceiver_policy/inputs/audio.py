"""Sound as tokens: patches of the waveform, or of its log-mel spectrogram.

Perceiver, arXiv:2103.03206, reads AudioSet either way; Perceiver IO, arXiv:2107.14795, autoencodes patches
of the waveform: 16 samples, with 385 Fourier features 401.

Sounds of any length: the end is filled up with zeros to a whole patch, and the mask is one entry per sample,
so that sounds of unequal lengths make a batch. Absent samples count as zeros; a token is absent only where
all the samples it stands for are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from perceiver_policy.config import Config
from perceiver_policy.inputs.adapter import InputAdapter, require_mask, require_shape
from perceiver_policy.inputs.grid import (
    FourierPositionConfig,
    GridPositionConfig,
    build_grid_position,
    space_to_depth,
)
from perceiver_policy.tokens import Tokens

HIGHEST_SAMPLE_RATE = 2**24


@dataclass(frozen=True)
class AudioInputConfig(Config):
    """Waveforms."""

    kind: ClassVar[str] = "audio"

    num_samples_per_patch: int = 16
    # The published model's resolution is in samples, although positions are those of 1920 patches.
    position: GridPositionConfig = field(
        default_factory=lambda: FourierPositionConfig(max_resolution=(30720,), num_bands=192)
    )


class AudioInput(InputAdapter):
    """Waveforms to tokens, a patch of samples each.

    Args:
        config: patches and positions.

    Raises:
        ConfigError: positions of more than one axis.
    """

    def __init__(self, config: AudioInputConfig) -> None:
        super().__init__()
        self.config = config
        self.position = build_grid_position(config.position, num_axes=1)
        self.num_channels = config.num_samples_per_patch + self.position.num_channels

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tokens:
        """Make tokens.

        Args:
            inputs: (B, S) float, usually from -1 to 1.
            mask: (B, S) bool, True where a sample is present.

        Returns:
            ⌈S / num_samples_per_patch⌉ tokens.

        Raises:
            ValueError: another shape or type.
        """
        waveform, mask = _present(inputs, mask)
        patch = [self.config.num_samples_per_patch]
        content = space_to_depth(waveform.unsqueeze(-1), patch)
        if mask is not None:
            mask = space_to_depth(mask.unsqueeze(-1), patch).any(-1)
        return cast(Tokens, self.position(content, content.shape[1:-1], mask))


class MelScale(StrEnum):
    """How pitch, in mel, grows with frequency f, in hertz."""

    HTK = "htk"  # 2595 log10(1 + f / 700); filters peak at 1
    SLANEY = "slaney"  # f / (200 / 3) to 1 kHz, then 27 steps per factor of 6.4; filters have equal areas


@dataclass(frozen=True)
class MelInputConfig(Config):
    """Log-mel spectrograms of waveforms."""

    kind: ClassVar[str] = "mel"
    minimum: ClassVar[Mapping[str, float]] = {"lowest_frequency": 0.0, "floor": 1e-30}
    maximum: ClassVar[Mapping[str, int]] = {"sample_rate": HIGHEST_SAMPLE_RATE, "num_mels": 1024}

    sample_rate: int = 48000  # per second
    num_window_samples: int = 2048  # 43 ms
    num_hop_samples: int = 480  # from one window to the next: 10 ms
    num_mels: int = 128
    scale: MelScale = MelScale.HTK
    lowest_frequency: float = 0.0  # hertz
    highest_frequency: float | None = None  # hertz; half the sample rate if None
    floor: float = 1e-6  # energies below it count as it
    num_frames_per_patch: int = 1
    num_mels_per_patch: int = 128  # all of them: a token per frame; fewer: the grid has a second axis
    position: GridPositionConfig = field(
        default_factory=lambda: FourierPositionConfig(max_resolution=(128,), num_bands=192)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        fitting = [n for n in range(1, self.num_mels + 1) if self.num_mels % n == 0]
        rule = f"it must divide num_mels {self.num_mels}: one of {fitting}"
        self._require(self.num_mels_per_patch in fitting, "num_mels_per_patch", rule)
        rule = f"windows leave no sample out, so at most num_window_samples {self.num_window_samples}"
        self._require(self.num_hop_samples <= self.num_window_samples, "num_hop_samples", rule)
        limit, highest = self.sample_rate / 2, self.highest_frequency
        rule = f"it must be at most half the sample rate, {limit}"
        self._require(highest is None or highest <= limit, "highest_frequency", rule)
        rule = f"it must be below the highest frequency, {highest or limit}"
        self._require(self.lowest_frequency < (highest or limit), "lowest_frequency", rule)
        num_empty = int((mel_filters(self).amax(-1) == 0).sum())
        rule = (
            f"{num_empty} of the filters lie between two bins of the spectrum and see nothing; "
            "use fewer, a longer window or a higher lowest frequency"
        )
        self._require(num_empty == 0, "num_mels", rule)


class MelInput(InputAdapter):
    """Waveforms to tokens, a patch of the log-mel spectrogram each, over mels first, then time.

    Frame t covers the samples from t · hop to t · hop + window; there are ⌈S / hop⌉, zeros after the end.
    A frame stands for its first hop samples. Frames that do not fill a patch are filled up with the log of
    the floor, as silence would be.

    Args:
        config: spectrogram, patches and positions: one axis where a patch has all mels, else time and mels.

    Raises:
        ConfigError: positions of another number of axes.
    """

    def __init__(self, config: MelInputConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = (config.num_frames_per_patch, config.num_mels_per_patch)
        self.is_plane = config.num_mels_per_patch < config.num_mels
        self.position = build_grid_position(config.position, num_axes=2 if self.is_plane else 1)
        self.num_channels = math.prod(self.patch) + self.position.num_channels

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tokens:
        """Make tokens.

        Args:
            inputs: (B, S) float, usually from -1 to 1.
            mask: (B, S) bool, True where a sample is present.

        Raises:
            ValueError: another shape or type.
        """
        waveform, mask = _present(inputs, mask)
        spectrogram = log_mel_spectrogram(waveform, self.config)
        silence = -spectrogram.shape[1] % self.patch[0]
        spectrogram = F.pad(spectrogram, (0, 0, 0, silence), value=math.log(self.config.floor))
        patches = space_to_depth(spectrogram.unsqueeze(-1), self.patch)
        if mask is not None:
            num_samples_per_token = self.config.num_hop_samples * self.patch[0]
            mask = space_to_depth(mask.unsqueeze(-1), [num_samples_per_token]).any(-1)
            mask = mask.repeat_interleave(patches.shape[2], dim=1)
        shape = patches.shape[1:3] if self.is_plane else patches.shape[1:2]
        return cast(Tokens, self.position(patches.flatten(1, 2), shape, mask))


def log_mel_spectrogram(waveform: Tensor, config: MelInputConfig) -> Tensor:
    """The logarithm of a waveform's energy by time and pitch.

        X_tk = Σ_n w_n x_{t·hop + n} e^{-2πikn/N},   w_n = (1 - cos(2πn/N)) / 2,   N = window
        result_tm = ln max(Σ_k filter_mk |X_tk|², floor)

    Computed in float32 at least.

    Args:
        waveform: (B, S) float.
        config: rates and sizes; patches and positions play no part.

    Returns:
        (B, ⌈S / hop⌉, num_mels) of the waveform's type.
    """
    size, hop = config.num_window_samples, config.num_hop_samples
    dtype = torch.promote_types(waveform.dtype, torch.float32)
    num_frames = -(-waveform.shape[1] // hop)
    with torch.autocast(waveform.device.type, enabled=False):
        padded = F.pad(waveform.to(dtype), (0, (num_frames - 1) * hop + size - waveform.shape[1]))
        window = torch.hann_window(size, dtype=dtype, device=waveform.device)
        spectrum = torch.fft.rfft(padded.unfold(1, size, hop) * window)
        energy = spectrum.real.square() + spectrum.imag.square()
        filters = mel_filters(config).to(energy)
        return (energy @ filters.T).clamp_min(config.floor).log().to(waveform.dtype)


def mel_filters(config: MelInputConfig) -> Tensor:
    """Triangular filters, equally spaced and equally wide in mel.

    With f_0 … f_{M+1} equally spaced in mel from the lowest to the highest frequency, filter m rises from
    0 at f_{m-1} to 1 at f_m and falls to 0 at f_{m+1}. On Slaney's scale it is multiplied by
    2 / (f_{m+1} - f_{m-1}) hertz, which makes the areas equal (Auditory Toolbox, 1998).

    Returns:
        (num_mels, num_window_samples // 2 + 1) float64: the weight of each bin of the spectrum.
    """
    highest = config.highest_frequency or config.sample_rate / 2
    ends = torch.tensor([config.lowest_frequency, highest], dtype=torch.float64)
    low, high = hertz_to_mel(ends, config.scale)
    share = torch.linspace(0, 1, config.num_mels + 2, dtype=torch.float64)
    edges = mel_to_hertz(low + (high - low) * share, config.scale)
    bins = torch.arange(config.num_window_samples // 2 + 1, dtype=torch.float64)
    bins = bins * config.sample_rate / config.num_window_samples
    left, centre, right = (edges[i : i + config.num_mels].unsqueeze(-1) for i in range(3))
    filters = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp_min(0)
    return filters * (2 / (right - left)) if config.scale is MelScale.SLANEY else filters


# Slaney's scale: linear below 1000 Hz, which is 15 mel; logarithmic above.
LINEAR_STEP, BREAK, LOG_STEP = 200 / 3, 1000.0, math.log(6.4) / 27


def hertz_to_mel(frequency: Tensor, scale: MelScale) -> Tensor:
    """Frequencies, in hertz, on the scale; any shape."""
    if scale is MelScale.HTK:
        return 2595 * (1 + frequency / 700).log10()
    above = BREAK / LINEAR_STEP + (frequency.clamp_min(BREAK) / BREAK).log() / LOG_STEP
    return torch.where(frequency < BREAK, frequency / LINEAR_STEP, above)


def mel_to_hertz(mel: Tensor, scale: MelScale) -> Tensor:
    """The inverse of :func:`hertz_to_mel`."""
    if scale is MelScale.HTK:
        return 700 * (10 ** (mel / 2595) - 1)
    above = BREAK * ((mel - BREAK / LINEAR_STEP) * LOG_STEP).exp()
    return torch.where(mel < BREAK / LINEAR_STEP, mel * LINEAR_STEP, above)


def _present(waveform: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The waveform (B, S) with absent samples 0, and the mask, both checked."""
    require_shape("waveforms", waveform, "B", "S")
    require_mask(mask, *waveform.shape)
    return (waveform if mask is None else waveform.masked_fill(~mask, 0.0)), mask
