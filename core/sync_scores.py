"""The arithmetic of SyncNet's offset, distance and confidence, on arrays that the caller has checked.

With v_i the vector of the look at frame i and a_k that of the sound at frame k, every look is compared with the sound
up to s = `vshift` frames earlier and later:

    D[i, j] = |v_i - a_(i + j - s) + 1e-6|, j = 0 .. 2 s,     m_j = mean over i of D[i, j]
    distance = min_j m_j,     confidence = median_j m_j - distance,     offset = s - argmin_j m_j

Sources and variants: `metrics.lse`, where the scores are metrics.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

VSHIFT = 15
# What PyTorch's pairwise_distance adds to each difference.
EPSILON = 1e-6


class SyncScores(NamedTuple):
    """Scores of one track.

    Attributes:
        offset: frames by which the sound must be moved later to fit best; 0 in sync.
        distance: LSE-D, smaller is better.
        confidence: LSE-C, larger is better.
    """

    offset: int
    distance: float
    confidence: float


def distances(video: np.ndarray, audio: np.ndarray, shift: int, *, valid: bool = False) -> np.ndarray:
    """|v_i - a_(i + shift) + 1e-6|.

    Args:
        video, audio: float64 (N, D) and (M, D), finite.
        shift: frames by which the sound is later than the look.
        valid: leave out looks without a vector of sound at that shift; else it counts as zeros.

    Returns:
        float64 (N,), or fewer when `valid`.
    """
    at = np.arange(len(video)) + shift
    exists = (at >= 0) & (at < len(audio))
    if valid:
        return np.linalg.norm(video[exists] - audio[at[exists]] + EPSILON, axis=1)
    heard = np.zeros_like(video)
    heard[exists] = audio[at[exists]]
    return np.linalg.norm(video - heard + EPSILON, axis=1)


def scores(video: np.ndarray, audio: np.ndarray, vshift: int = VSHIFT, *, valid: bool = False) -> SyncScores:
    """Offset, distance and confidence.

    Args:
        video, audio: float64 (N, D) and (M, D), finite, at least one vector each; more than `vshift` when `valid`.
        vshift: largest shift tried, frames, at least 1.
        valid: see `distances`.
    """
    means = np.array([distances(video, audio, shift, valid=valid).mean() for shift in range(-vshift, vshift + 1)])
    best = int(means.argmin())
    distance = float(means[best])
    return SyncScores(vshift - best, distance, float(np.median(means)) - distance)
