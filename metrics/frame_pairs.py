"""Metrics that hold each generated frame against the real frame of the same number.

The mean over a clip's frames is the clip's value, the mean over clips the metric's. Frames are paired by their number
at 25 fps from the clip's first frame, so a method that starts late or runs slower is measured as it is. Where the two
clips differ in length, frames beyond the shorter one's end have no partner. They, and frames of which one side shows
no face, are left out and counted in the notes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import NoFace, TalkForgeError
from .base import ClipScore, Features, MetricSpec, Pair, Row, Score, Settings, main_reason, usable
from .intervals import bootstrap_mean

Sides = tuple[np.ndarray, np.ndarray]
PROTOCOL: Mapping[str, Any] = {
    "frames": "paired by number at 25 fps, to the end of the shorter clip",
    "no face": "frames without a face on either side are left out and counted",
}


@dataclass(frozen=True)
class Compared:
    """What became of one clip's frames.

    Attributes:
        value: mean distance over the compared frames.
        frames: how many were compared.
        faceless: paired frames of which a side shows no face.
        beyond: frames of the longer side without a partner.
    """

    value: float
    frames: int
    faceless: int
    beyond: int


def compare(sides: Sides, distance: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Compared:
    """Mean distance over the frames that both sides have.

    Args:
        sides: (N, ...) of the generated and (M, ...) of the real clip, NaN where no face was seen.
        distance: from two (K, ...) arrays to (K,).

    Raises:
        NoFace: no frame shows a face on both sides.
    """
    generated, real = sides
    count = min(len(generated), len(real))
    a, b = generated[:count].astype(np.float64), real[:count].astype(np.float64)
    both = seen(a) & seen(b)
    if not both.any():
        raise NoFace(f"none of {count} paired frames shows a face on both sides")
    value = float(distance(a[both], b[both]).mean())
    kept = int(both.sum())
    return Compared(value, kept, count - kept, max(len(generated), len(real)) - count)


def seen(rows: np.ndarray) -> np.ndarray:
    """Which frames of an (N, ...) array have all their numbers, bool (N,)."""
    return np.isfinite(rows.sum(axis=tuple(range(1, rows.ndim))))


@dataclass(frozen=True)
class FramePairMetric:
    """Mean over clips of the mean over paired frames of a distance.

    Attributes:
        spec: the declaration; wants the same extractors on both sides.
        sides: from (generated, real) rows to what is compared, NaN where no face was seen. May raise typed errors.
        distance: see `compare`.
    """

    spec: MetricSpec
    sides: Callable[[Features, Features], Sides]
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """Mean over clips, percentile bootstrap over clips; a clip's samples are its compared frames."""
        clips, found = [], []
        for pair in pairs:
            outcome = self._compare(pair)
            if isinstance(outcome, Compared):
                found.append(outcome)
                outcome = ClipScore(pair.clip_id, outcome.value, samples=outcome.frames)
            clips.append(outcome)
        if not found:
            return Score(None, None, None, clips, reason=main_reason(clips))
        values = np.array([one.value for one in found])
        interval = bootstrap_mean(values, n=settings.bootstrap, seed=settings.seed)
        return Score(float(values.mean()), interval, None, clips, notes=tuple(left_out(found)))

    def _compare(self, pair: Pair) -> Compared | ClipScore:
        rejected = usable(pair, self.spec)
        if rejected:
            return rejected
        try:
            return compare(self.sides(pair.generated or {}, pair.real or {}), self.distance)
        except TalkForgeError as error:
            return ClipScore(pair.clip_id, None, error.reason, error.message)


def left_out(found: Sequence[Compared]) -> list[str]:
    """Notes on frames that count nowhere, in words."""
    faceless, beyond = sum(one.faceless for one in found), sum(one.beyond for one in found)
    notes = []
    if faceless:
        paired = sum(one.frames for one in found) + faceless
        notes.append(f"left out: {faceless} of {paired} paired frames, of which a side shows no face")
    if beyond:
        clips = sum(one.beyond > 0 for one in found)
        notes.append(f"left out: {beyond} frames without a partner, in {clips} pairs of unequal length")
    return notes


def column_sides(extractor: str, read: Callable[[Row], np.ndarray]) -> Callable[[Features, Features], Sides]:
    """`FramePairMetric.sides` for what is read from each side's row by itself."""
    return lambda generated, real: (read(generated[extractor]), read(real[extractor]))


def mean_absolute(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean of |a - b| over all numbers of a frame, (K, ...) to (K,)."""
    return np.abs(a - b).reshape(len(a), -1).mean(axis=1)
