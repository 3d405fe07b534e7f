"""Mouth against loudness: the arithmetic of the lip-sync proxy, on plain arrays.

Opening o_k of frame k is the gap of the inner lips divided by the distance of the outer eye corners, both measured in
3D so that turning the head does not count. Activity is x_k = |o_(k+1) - o_(k-1)| / 2, smoothed twice over 3 frames:
a mouth moves while it speaks, whether it opens or closes, and on real clips the activity tells a clip's own sound from
another clip's better than the opening does (area under the curve 0.78 against 0.57 on 54 pieces of 3 s). Loudness e_k
is the sound's level in dB, cut at 40 dB under its loudest frame and smoothed over 3 frames. Then

    r(d) = sum_k x'_k e'_(k-d) / sqrt((sum x'^2 + n s^2) (sum e'^2))      x', e': mean removed over the overlap

for lags d of -15..15 frames; d > 0 says that the mouth comes after the sound. The floor s is the landmarker's jitter
on a still face: without it a frozen mouth would correlate by its noise, with it a mouth that does not move scores
about 0, which is the right value and not a missing one. The largest of 31 correlations is above 0 by chance, the more
the shorter the clip: unrelated noise of 48 frames gives about 0.4, of 250 frames 0.15. Compare clips of equal length.
"""

from __future__ import annotations

import math

import numpy as np

from .errors import TooShort, Undetermined

MAX_LAG = 15  # frames
MIN_OVERLAP = 25  # frames that a lag needs: of fewer, chance alone makes high correlations
MIN_FRAMES = MIN_OVERLAP + MAX_LAG
RANGE_DB = 40.0
JITTER = 0.003  # of the eye distance a frame
POINTS = 478
LIP_PAIRS = ((82, 87), (13, 14), (312, 317))  # inner lips, upper and lower, MediaPipe's mesh
EYE_CORNERS = (33, 263)


def mouth_opening(points: np.ndarray) -> np.ndarray:
    """Opening of the inner lips in units of the outer eye distance.

    Args:
        points: (N, 478 * 3) or (N, 478, 3) landmarks in any unit, NaN where no face was seen.

    Returns:
        float64 (N,), NaN where no face was seen.
    """
    points = points.reshape(-1, POINTS, 3).astype(np.float64)
    upper, lower = (points[:, [pair[side] for pair in LIP_PAIRS]] for side in (0, 1))
    gap = np.linalg.norm(upper - lower, axis=2).mean(axis=1)
    return gap / np.linalg.norm(points[:, EYE_CORNERS[0]] - points[:, EYE_CORNERS[1]], axis=1)


def activity(opening: np.ndarray) -> np.ndarray:
    """How fast the mouth opens or closes, eye distances a frame, float64 (N,), NaN beside frames without a face."""
    padded = np.pad(opening, 1, mode="edge")
    speed = np.abs(padded[2:] - padded[:-2])
    speed[1:-1] /= 2  # the ends are one-sided differences
    return smooth(smooth(speed))


def loudness(level_db: np.ndarray) -> np.ndarray:
    """Level of the sound in dB above the cut, float64 (N,); 0 at `RANGE_DB` or more under the loudest frame.

    Args:
        level_db: (N,) with N at least 1.
    """
    level = level_db.astype(np.float64)
    return np.maximum(level - (level.max() - RANGE_DB), 0.0)


def smooth(values: np.ndarray) -> np.ndarray:
    """Mean over 3 frames (1, 2, 3 at the ends as available), NaN stays out of the mean and a lone NaN is bridged."""
    padded = np.pad(values, 1, constant_values=np.nan)
    stack = np.stack([padded[:-2], padded[1:-1], padded[2:]])
    known = ~np.isnan(stack)
    count = known.sum(axis=0)
    total = np.where(known, stack, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def correlation_at(moving: np.ndarray, level: np.ndarray, lag: int) -> float:
    """r(lag) of the module's formula.

    Args:
        moving, level: (N,) of one length, NaN where unknown.
        lag: frames that the mouth is late; negative when it is early.

    Returns:
        -1..1; 0 when the level is constant; NaN when fewer than `MIN_OVERLAP` frames overlap.
    """
    count = len(moving)
    if abs(lag) >= count:
        return math.nan
    x = moving[max(lag, 0) : count + min(lag, 0)]
    e = level[max(-lag, 0) : count - max(lag, 0)]
    both = ~(np.isnan(x) | np.isnan(e))
    x, e = x[both], e[both]
    if len(x) < MIN_OVERLAP:
        return math.nan
    x, e = x - x.mean(), e - e.mean()
    scale = np.sqrt((x @ x + len(x) * JITTER**2) * (e @ e))
    return float(x @ e / scale) if scale > 0 else 0.0


def correlations(points: np.ndarray, level_db: np.ndarray) -> np.ndarray:
    """r(d) for d = -15..15, float64 (31,); NaN where gaps in the faces leave too few frames.

    Args:
        points: (N, 478 * 3) landmarks of the picture's frames, NaN where no face was seen.
        level_db: (M,) level of the sound at the same 25 frames a second; the longer of the two is cut.

    Raises:
        TooShort: fewer than 40 frames have both a face and sound.
    """
    opening, level = mouth_opening(points), loudness(level_db)
    count = min(len(opening), len(level))
    moving, level = activity(opening[:count]), smooth(level[:count])
    usable = int((~np.isnan(moving)).sum())
    if usable < MIN_FRAMES:
        raise TooShort(f"{usable} frames have both a face and sound, {MIN_FRAMES} are needed")
    return np.array([correlation_at(moving, level, lag) for lag in range(-MAX_LAG, MAX_LAG + 1)])


def moving_correlations(points: np.ndarray, level_db: np.ndarray) -> np.ndarray:
    """`correlations` of a mouth that moves: only then does the place of the largest one mean anything.

    Raises:
        TooShort: as for `correlations`.
        Undetermined: the mouth moves less than the landmarker's jitter, nothing correlates, or the largest r(d) is at
            the end of the search, so that the true one may lie beyond.
    """
    found = correlations(points, level_db)
    spread = float(np.nanstd(activity(mouth_opening(points))))
    if spread < JITTER or np.nanmax(found) <= 0:
        raise Undetermined(f"the mouth's activity spreads by {spread:.4f} eye distances a frame: it has no offset")
    if abs(offset(found)) == MAX_LAG:
        raise Undetermined(
            f"the correlation is largest at the search's end, {offset(found)} frames: no offset is known"
        )
    return found


def best_correlation(curve: np.ndarray) -> float:
    """The largest r(d) of a curve (31,)."""
    return float(np.nanmax(curve))


def offset(curve: np.ndarray) -> int:
    """The lag of the largest r(d) of a curve (31,), frames; positive when the mouth comes after the sound."""
    return int(np.nanargmax(curve)) - MAX_LAG
