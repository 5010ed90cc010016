"""Sound as tokens: patches against Hugging Face, spectrograms against sums by hand and transformers."""

from __future__ import annotations

import cmath
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PerceiverConfig
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function
from transformers.models.perceiver.modeling_perceiver import PerceiverAudioPreprocessor

from perceiver_policy.config import ConfigError
from perceiver_policy.inputs.audio import (
    AudioInput,
    AudioInputConfig,
    MelInput,
    MelInputConfig,
    MelScale,
    hertz_to_mel,
    log_mel_spectrogram,
    mel_filters,
    mel_to_hertz,
)
from perceiver_policy.inputs.grid import FourierPositionConfig


def audio(num_samples_per_patch: int = 4) -> AudioInput:
    return AudioInput(AudioInputConfig(num_samples_per_patch, FourierPositionConfig((30,), 5)))


def mel_config(resolution: tuple[int, ...] = (10,), **options: Any) -> MelInputConfig:
    sizes = {"sample_rate": 8000, "num_window_samples": 64, "num_hop_samples": 20, "num_mels": 6}
    patch = {"num_mels_per_patch": 6, "position": FourierPositionConfig(resolution, 3)}
    return MelInputConfig(**(sizes | patch | options))


@pytest.mark.parametrize("num_samples", [24, 60])
def test_patches_equal_hugging_faces(num_samples: int) -> None:
    fourier = {"num_bands": 5, "max_resolution": (30,), "concat_pos": True, "sine_only": False}
    theirs = PerceiverAudioPreprocessor(
        PerceiverConfig(), samples_per_patch=4, fourier_position_encoding_kwargs=fourier
    )
    ours, waveform = audio(), torch.randn(2, num_samples)
    torch.testing.assert_close(ours(waveform).dense(), theirs(waveform)[0], rtol=0, atol=1e-6)
    assert ours.num_channels == theirs.num_channels


def test_the_end_is_filled_up_and_only_wholly_absent_patches_are_masked() -> None:
    waveform = torch.randn(3, 10)
    mask = torch.arange(10) < torch.tensor([10, 5, 4]).unsqueeze(-1)
    tokens = audio()(waveform, mask)
    assert tokens.mask is not None
    assert tokens.mask.tolist() == [[True, True, True], [True, True, False], [True, False, False]]
    expected = (waveform * mask).tolist()
    assert tokens.content.flatten(1).tolist() == [[*row, 0.0, 0.0] for row in expected]
    assert audio()(waveform).mask is None


def test_published_widths() -> None:
    assert AudioInput(AudioInputConfig()).num_channels == 16 + 385


@pytest.mark.parametrize("waveform", [torch.zeros(2, 8, 1), torch.zeros(8), torch.zeros(2, 0)])
@pytest.mark.parametrize("build", [audio, lambda: MelInput(mel_config())])
def test_waveforms_of_another_shape_are_refused(build: Any, waveform: Tensor) -> None:
    with pytest.raises(ValueError, match=r"waveforms have shape \(.*\); expected \(B, S\)"):
        build()(waveform)


@pytest.mark.parametrize(
    ("scale", "frequency", "mel"),
    [
        # By hand: 2595 log10(2), and 2595 log10(1 + 10) at eleven times 700.
        (MelScale.HTK, 700.0, 781.1728387),
        (MelScale.HTK, 7000.0, 2702.4140180),
        # Three mel per 200 Hz up to 15 at 1 kHz, then 27 more at 6.4 kHz and 54 more at 40.96 kHz.
        (MelScale.SLANEY, 500.0, 7.5),
        (MelScale.SLANEY, 1000.0, 15.0),
        (MelScale.SLANEY, 6400.0, 42.0),
        (MelScale.SLANEY, 40960.0, 69.0),
    ],
)
def test_scales(scale: MelScale, frequency: float, mel: float) -> None:
    f, m = (torch.tensor(x, dtype=torch.float64) for x in (frequency, mel))
    torch.testing.assert_close(hertz_to_mel(f, scale), m, rtol=0, atol=1e-6)
    torch.testing.assert_close(mel_to_hertz(m, scale), f, rtol=0, atol=1e-4)


def test_filters_by_hand() -> None:
    # Slaney's scale below 1 kHz is linear: edges at 0, 200, 400, 600 Hz, bins every 100 Hz.
    config = mel_config(
        sample_rate=1600,
        num_window_samples=16,
        num_hop_samples=8,
        num_mels=2,
        num_mels_per_patch=2,
        highest_frequency=600.0,
        scale=MelScale.SLANEY,
    )
    triangles = [[0, 0.5, 1, 0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0.5, 1, 0.5, 0, 0, 0]]
    expected = torch.tensor(triangles, dtype=torch.float64) * 2 / 400
    torch.testing.assert_close(mel_filters(config), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("scale", list(MelScale))
def test_filters_equal_transformers(scale: MelScale) -> None:
    config = MelInputConfig(
        scale=scale, num_mels=80, num_mels_per_patch=80, lowest_frequency=60.0, highest_frequency=20000.0
    )
    norm = "slaney" if scale is MelScale.SLANEY else None
    theirs = mel_filter_bank(1025, 80, 60.0, 20000.0, 48000, norm=norm, mel_scale=scale.value)
    np.testing.assert_allclose(mel_filters(config).numpy(), theirs.T, rtol=0, atol=1e-12)


def test_spectrogram_by_the_formula() -> None:
    config = mel_config(num_window_samples=16, num_hop_samples=6, num_mels=2, num_mels_per_patch=2)
    waveform = torch.randn(1, 20, dtype=torch.float64)
    result = log_mel_spectrogram(waveform, config)
    assert result.shape == (1, 4, 2)
    filters = mel_filters(config).tolist()
    samples = waveform[0].tolist() + [0.0] * 16
    for t in range(4):
        windowed = [samples[6 * t + n] * 0.5 * (1 - math.cos(math.tau * n / 16)) for n in range(16)]
        energy = [
            abs(sum(x * cmath.exp(-1j * math.tau * k * n / 16) for n, x in enumerate(windowed))) ** 2
            for k in range(9)
        ]
        expected = [math.log(max(sum(w * e for w, e in zip(f, energy, strict=True)), 1e-6)) for f in filters]
        assert result[0, t].tolist() == pytest.approx(expected, abs=1e-9)


def test_spectrogram_equals_transformers() -> None:
    config = MelInputConfig(sample_rate=16000, num_window_samples=400, num_hop_samples=160, num_mels=40,
                            num_mels_per_patch=40, scale=MelScale.SLANEY)  # fmt: skip
    waveform = torch.randn(1, 400 + 9 * 160)
    theirs = spectrogram(
        waveform[0].double().numpy(),
        window_function(400, "hann"),
        frame_length=400,
        hop_length=160,
        center=False,
        power=2.0,
        mel_filters=mel_filter_bank(201, 40, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney"),
        mel_floor=1e-6,
        log_mel="log",
    )
    ours = log_mel_spectrogram(waveform, config)[0, :10]  # those after reach beyond the end
    np.testing.assert_allclose(ours.numpy(), theirs.T, rtol=0, atol=1e-4)


def test_silence_is_the_floor() -> None:
    assert log_mel_spectrogram(torch.zeros(1, 5), mel_config()).unique().tolist() == pytest.approx(
        [math.log(1e-6)]
    )


@pytest.mark.parametrize(
    ("patch", "resolution", "grid"), [((1, 6), (10,), (5,)), ((2, 6), (10,), (3,)), ((2, 3), (10, 4), (3, 2))]
)
def test_spectrogram_patches(
    patch: tuple[int, int], resolution: tuple[int, ...], grid: tuple[int, ...]
) -> None:
    config = mel_config(resolution, num_frames_per_patch=patch[0], num_mels_per_patch=patch[1])
    adapter, waveform = MelInput(config), torch.randn(2, 93)  # five frames of 20 samples
    mask = torch.arange(93) < torch.tensor([93, 40]).unsqueeze(-1)
    tokens = adapter(waveform, mask)
    assert tokens.grid is not None
    assert tuple(len(table) for table in tokens.grid.tables) == grid
    frames = torch.full((2, 6, 6), math.log(1e-6))
    frames[:, :5] = log_mel_spectrogram(waveform * mask, config)
    rows, mels = patch
    content = [
        frames[:, t : t + rows, m : m + mels].flatten(1) for t in range(0, 5, rows) for m in range(0, 6, mels)
    ]
    assert torch.equal(tokens.content, torch.stack(content, 1))
    assert tokens.mask is not None
    present = 40 / (20 * rows) * 6 / mels  # tokens of the second sound's 40 samples
    assert tokens.mask.sum(-1).tolist() == [len(content), present]
    assert tokens.mask[1, : int(present)].all()


def test_spectrogram_keeps_its_precision_in_a_model_of_low_precision() -> None:
    waveform = torch.randn(1, 200).bfloat16()
    adapter = MelInput(mel_config())
    expected = adapter(waveform.float()).content.bfloat16()
    assert torch.equal(adapter.bfloat16()(waveform).content, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_mels_per_patch": 4}, r"num_mels_per_patch is 4; it must divide num_mels 6"),
        ({"num_hop_samples": 65}, r"num_hop_samples is 65; .* at most num_window_samples 64"),
        ({"highest_frequency": 4001.0}, r"highest_frequency is 4001\.0; .* half the sample rate, 4000\.0"),
        ({"lowest_frequency": 4000.0}, r"lowest_frequency is 4000\.0; it must be below"),
        ({"num_mels": 60, "num_mels_per_patch": 60}, r"num_mels is 60; \d+ of the filters"),
    ],
)
def test_spectrograms_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mel_config(**options)


def test_positions_of_a_plane_need_patches_of_some_mels() -> None:
    with pytest.raises(ConfigError, match=r"is \(10, 4\); this input has 1 axes"):
        MelInput(mel_config((10, 4)))
