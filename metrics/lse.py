"""Lip-sync scores from SyncNet's vectors: offset, LSE-D (distance) and LSE-C (confidence).

With v_i the vector of the look at frame i and a_k that of the sound at frame k, every look is compared with the sound
up to s = `vshift` frames earlier and later:

    D[i, j] = |v_i - a_(i + j - s) + 1e-6|, j = 0 .. 2 s,     m_j = mean over i of D[i, j]
    LSE-D = min_j m_j,     LSE-C = median_j m_j - LSE-D,     offset = s - argmin_j m_j

(J. S. Chung and A. Zisserman, "Out of time: automated lip sync in the wild", 2016; named LSE by K. R. Prajwal et al.,
"A Lip Sync Expert Is All You Need for Speech to Lip Generation In the Wild", 2020; the arithmetic is that of the
published code, where 1e-6 comes from PyTorch's `pairwise_distance`.)

Sound beyond either end of the clip counts as the zero vector there. That adds terms |v_i| to m_j that have nothing to
do with the sound, the more the shorter the clip. `sync_scores` keeps it, because published numbers contain it;
`valid_sync_scores` averages real pairs only and is another quantity.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..core.errors import InputError, TooShort
from .frechet import as_rows

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


def sync_scores(video_feats: np.ndarray, audio_feats: np.ndarray, *, vshift: int = VSHIFT) -> SyncScores:
    """Scores as published, with zeros for the sound beyond the ends.

    Args:
        video_feats: (N, D) vectors of the looks, N at least 1; D is 1024 for SyncNet.
        audio_feats: (M, D) vectors of the sound, M at least 1. The published chain has M = N.
        vshift: largest shift tried, in frames.

    Returns:
        (offset, distance, confidence).

    Raises:
        InputError: other shapes, NaN or infinity, or a vshift below 1.
        TooShort: no look or no sound.
    """
    video, audio = _checked(video_feats, audio_feats, vshift)
    return _scores(np.array([_distances(video, audio, shift).mean() for shift in _shifts(vshift)]))


def valid_sync_scores(video_feats: np.ndarray, audio_feats: np.ndarray, *, vshift: int = VSHIFT) -> SyncScores:
    """Scores from pairs that exist: m_j is the mean over the looks that have sound at shift j.

    Arguments and result as for `sync_scores`.

    Raises:
        InputError: as `sync_scores`.
        TooShort: a side has no more than vshift vectors, so that some shift has no pair.
    """
    video, audio = _checked(video_feats, audio_feats, vshift)
    if (shortest := min(len(video), len(audio))) <= vshift:
        raise TooShort(f"shifts of up to {vshift} frames need more than {vshift} windows, not {shortest}")
    return _scores(np.array([_distances(video, audio, shift, valid=True).mean() for shift in _shifts(vshift)]))


def frame_distances(video_feats: np.ndarray, audio_feats: np.ndarray, offset: int = 0) -> np.ndarray:
    """D of every look at one offset, zeros for the sound beyond the ends: which frames fit and which do not.

    Args:
        video_feats, audio_feats: (N, D) and (M, D).
        offset: as `sync_scores` gives it.

    Returns:
        float64 (N,).

    Raises:
        InputError, TooShort: as `sync_scores`.
    """
    return _distances(*_checked(video_feats, audio_feats), -offset)


def at_edge(offset: int, *, vshift: int = VSHIFT) -> bool:
    """Whether an offset lies at the border of what was tried (14 and 15 of 15): the true one may lie beyond."""
    return abs(offset) >= vshift - 1


def _checked(video: np.ndarray, audio: np.ndarray, vshift: int = VSHIFT) -> tuple[np.ndarray, np.ndarray]:
    video, audio = as_rows(video, "video_feats"), as_rows(audio, "audio_feats")
    if video.shape[1] != audio.shape[1]:
        raise InputError(f"vectors of {video.shape[1]} and {audio.shape[1]} dimensions")
    if vshift < 1:
        raise InputError(f"vshift is at least 1 frame, not {vshift}")
    if not len(video) or not len(audio):
        raise TooShort(f"{len(video)} windows of pictures and {len(audio)} of sound: nothing to compare")
    return video, audio


def _shifts(vshift: int) -> range:
    return range(-vshift, vshift + 1)


def _distances(video: np.ndarray, audio: np.ndarray, shift: int, *, valid: bool = False) -> np.ndarray:
    """|v_i - a_(i + shift) + 1e-6|, (N,), or only where there is such a vector of sound."""
    at = np.arange(len(video)) + shift
    exists = (at >= 0) & (at < len(audio))
    if valid:
        return np.linalg.norm(video[exists] - audio[at[exists]] + EPSILON, axis=1)
    heard = np.zeros_like(video)
    heard[exists] = audio[at[exists]]
    return np.linalg.norm(video - heard + EPSILON, axis=1)


def _scores(means: np.ndarray) -> SyncScores:
    best = int(means.argmin())
    distance = float(means[best])
    return SyncScores(len(means) // 2 - best, distance, float(np.median(means)) - distance)
