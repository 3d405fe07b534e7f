"""Mouth movement against loudness: does the mouth move when the voice does, and how late?

A proxy for lip sync that needs no weights beyond the face landmarker. It hears loudness, not phonemes: it tells a
still or unrelated mouth from a speaking one, and shifted sound from sound in place. It is not LSE.

The arithmetic, its formula and what chance alone scores: `core.mouth_sync`, which this module feeds with rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core import mouth_sync
from ..core.errors import TalkForgeError
from ..core.mouth_sync import JITTER, MAX_LAG, best_correlation, offset
from .base import ClipMetric, ClipScore, Features, MetricSpec, Pair, Row, Score, Settings, main_reason, usable
from .intervals import bootstrap_statistic

FPS = 25
FACES, SPEECH = "faces-mediapipe", "speech-envelope"


def mouth_opening(faces: Row) -> np.ndarray:
    """Opening of the inner lips in units of the outer eye distance, float64 (N,), NaN where no face was seen."""
    return mouth_sync.mouth_opening(faces.array("points"))


def loudness(speech: Row) -> np.ndarray:
    """Level of the sound in dB above the cut, float64 (N,); 0 at 40 dB or more under the loudest frame."""
    return mouth_sync.loudness(speech.array("level_db"))


def correlations(faces: Row, speech: Row) -> np.ndarray:
    """r(d) for d = -15..15, float64 (31,); NaN where gaps in the faces leave too few frames.

    Raises:
        TooShort: fewer than 40 frames have both a face and sound.
    """
    return mouth_sync.correlations(faces.array("points"), speech.array("level_db"))


def moving_correlations(faces: Row, speech: Row) -> np.ndarray:
    """`correlations` of a mouth that moves: only then does the place of the largest one mean anything.

    Raises:
        TooShort, Undetermined: see `core.mouth_sync.moving_correlations`.
    """
    return mouth_sync.moving_correlations(faces.array("points"), speech.array("level_db"))


def _best(generated: Features, real: Features) -> float:
    return best_correlation(correlations(generated[FACES], generated[SPEECH]))


@dataclass(frozen=True)
class OffsetMetric:
    """Distance from zero of the offset of the mean curve r(d) over clips.

    A clip of two seconds has a ragged curve whose peak is mostly chance; the peaks of the mean curve are what the
    clips share. Each clip's own signed offset is its value in the details.
    """

    spec: MetricSpec

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """|argmax of the mean curve|, bootstrap over clips, and the same of the real clips."""
        curves, clips = self._curves(pairs, "generated")
        if not curves:
            return Score(None, None, None, clips, reason=main_reason(clips))
        interval = bootstrap_statistic(curves, self._of, n=settings.bootstrap, seed=settings.seed)
        real, _ = self._curves(pairs, "real")
        return Score(self._of(curves), interval, self._of(real) if real else None, clips)

    @staticmethod
    def _of(curves: list[np.ndarray]) -> float:
        return float(abs(offset(np.nanmean(curves, axis=0))))

    def _curves(self, pairs: Sequence[Pair], side: str) -> tuple[list[np.ndarray], list[ClipScore]]:
        curves: list[np.ndarray] = []
        clips: list[ClipScore] = []
        for pair in pairs:
            features = getattr(pair, side)
            rejected = usable(replace(pair, generated=features), self.spec)
            if rejected is None:
                try:
                    curves.append(moving_correlations(features[FACES], features[SPEECH]))
                except TalkForgeError as error:
                    rejected = ClipScore(pair.clip_id, None, error.reason, error.message)
            clips.append(rejected or ClipScore(pair.clip_id, float(offset(curves[-1]))))
        return curves, clips


def _declare(name: str, **facts: Any) -> MetricSpec:
    """The declaration of a measure of r(d); all share what they look at and how."""
    return MetricSpec(
        id=f"{name}:mouth-envelope",
        source="ours; a proxy, see the module's formula",
        generated=(FACES, SPEECH),
        real=(),
        comparable_with_papers=False,
        measures=("sync",),
        why="no paper reports it",
        protocol={"lags": f"-{MAX_LAG}..{MAX_LAG} frames", "mouth": "activity of the inner lips", "jitter": JITTER},
        **facts,
    )


AV_SYNC = _declare(
    "av_sync",
    title="Mouth sync (proxy)",
    unit="r",
    higher_is_better=True,
    what="Best correlation between mouth movement and loudness within 0.6 s; a frozen mouth scores about 0.",
    formula="max over lags d of sum x'_k e'_(k-d) / sqrt((sum x'^2 + n s^2)(sum e'^2)), mean over clips",
)
AV_OFFSET = _declare(
    "av_offset",
    title="Mouth offset (proxy)",
    unit="frames",
    higher_is_better=False,
    what="How many 25 fps frames the mouths lie beside the sound, over all clips together; still mouths have none.",
    formula="|argmax over lags d of the mean over clips of r(d)|, clips whose activity's standard deviation is >= s",
    clip_title="own signed offset",
)
METRICS = (ClipMetric(AV_SYNC, _best), OffsetMetric(AV_OFFSET))
