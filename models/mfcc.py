"""Mel-frequency cepstral coefficients as SyncNet was trained on, 13 at 100 Hz.

Definition: package python_speech_features, function `mfcc` with all its defaults, at 16 kHz. Every constant here is
one of those. Three of its habits matter: the samples are int16 levels, not numbers in [-1, 1]; frames have no window
function, and the last is filled up with zeros; the first coefficient is the log of the frame's energy.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..core.errors import InputError, TooShort

RATE = 16000
FRAME = 400  # 25 ms
HOP = 160  # 10 ms
FFT = 512
FILTERS = 26
CEPSTRA = 13
LIFTER = 22
PRE_EMPHASIS = 0.97
# Steps of sound a video frame at 25 fps, and in one look of SyncNet.
STEPS_PER_FRAME = 4
STEPS = 20


def mfcc(samples: np.ndarray) -> np.ndarray:
    """Coefficients of a mono signal, one row every 10 ms.

    Args:
        samples: int16 (S,) at 16 kHz, S at least 1.

    Returns:
        float64 (1 + ceil((S - 400) / 160), 13), one row where S is 400 or less.

    Raises:
        InputError: another type or shape.
        TooShort: no sample.
    """
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise InputError(f"sound is int16 (S,) at {RATE} Hz, not {samples.dtype} {samples.shape}")
    if len(samples) == 0:
        raise TooShort("there is no sound")
    power = np.abs(np.fft.rfft(_frames(samples.astype(np.float64)), FFT)) ** 2 / FFT
    cepstra = _log(power @ _mel_filters().T) @ _cosines().T
    cepstra[:, 0] = _log(power.sum(axis=1))
    return cepstra


def _log(energy: np.ndarray) -> np.ndarray:
    """Natural logarithm, with an exact zero taken as the machine's epsilon."""
    return np.log(np.where(energy == 0, np.finfo(np.float64).eps, energy))


def _frames(signal: np.ndarray) -> np.ndarray:
    """(N, 400) frames of the pre-emphasised signal, the last filled up with zeros."""
    emphasised = np.append(signal[:1], signal[1:] - PRE_EMPHASIS * signal[:-1])
    count = 1 + max(0, -(-(len(signal) - FRAME) // HOP))
    padded = np.pad(emphasised, (0, (count - 1) * HOP + FRAME - len(signal)))
    return np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]


@lru_cache(maxsize=1)
def _mel_filters() -> np.ndarray:
    """(26, 257) triangles, evenly spaced in mel from 0 to 8 kHz, their corners on whole bins."""
    highest = 2595 * np.log10(1 + RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, highest, FILTERS + 2) / 2595) - 1)
    corners = np.floor((FFT + 1) * hertz / RATE)
    left, middle, right = (corners[k : k + FILTERS, None] for k in range(3))
    bins = np.arange(FFT // 2 + 1)
    rising = np.where((bins >= left) & (bins < middle), (bins - left) / (middle - left), 0.0)
    return rising + np.where((bins >= middle) & (bins < right), (right - bins) / (right - middle), 0.0)


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """(13, 26): orthonormal DCT-II, each row weighted by the lifter."""
    order = np.arange(CEPSTRA)[:, None]
    basis = np.cos(np.pi * order * (2 * np.arange(FILTERS) + 1) / (2 * FILTERS)) * np.sqrt(2 / FILTERS)
    basis[0] /= np.sqrt(2)
    return basis * (1 + LIFTER / 2 * np.sin(np.pi * order / LIFTER))


def mfcc_windows(coefficients: np.ndarray) -> np.ndarray:
    """What SyncNet hears at each video frame: 0.2 s from the frame's beginning.

    Args:
        coefficients: (N, 13), see `mfcc`.

    Returns:
        (W, 1, 13, 20) of the same type, a read-only view; W is (N - 20) // 4 + 1.

    Raises:
        InputError: another shape.
        TooShort: fewer than 20 rows.
    """
    if coefficients.ndim != 2 or coefficients.shape[1] != CEPSTRA:
        raise InputError(f"coefficients are (N, {CEPSTRA}), not {coefficients.shape}")
    if len(coefficients) < STEPS:
        raise TooShort(f"SyncNet hears {STEPS} steps of 10 ms at once; there are {len(coefficients)}")
    return np.lib.stride_tricks.sliding_window_view(coefficients, STEPS, axis=0)[::STEPS_PER_FRAME, None]
