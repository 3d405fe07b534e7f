"""How often eyes blink, how much heads turn, and whether they turn with the voice.

*Blinks.* b is the mean of MediaPipe's two eyeBlink coefficients. An eye closes where b reaches 0.45 after it was open
and opens where b falls below 0.4, so that a lid which trembles about one threshold counts once. A closing that was seen
and lasts at most 15 frames (0.6 s) is a blink; longer ones are closed or lowered eyes. A frame without a face ends a
closing uncounted, and a clip that begins with closed eyes begins with none. The rate is over the time that the face is
seen. Two seconds of video hold 0 or 1 blink, so a rate needs many clips or long ones.

*Head.* Angles are yaw, pitch and roll of MediaPipe's pose in degrees. Diversity is the mean of their three standard
deviations over a clip.

*Beats.* Agreement of head movement and voice after R. Li et al., "AI Choreographer", ICCV 2021:

    BeatAlign = (1 / m) sum_i exp(-min_j (t_i - s_j)^2 / (2 sigma^2)), sigma = 0.05 s (3 frames at their 60 fps)

over kinematic beats t_i and sound beats s_j. Kinematic beats are local minima of the head's angular speed (the norm of
the angles' change a frame, smoothed by a Gaussian of 2 frames) within 4 frames on both sides: where the head turns back
or rests. Sound beats are onsets: frames where the level, cut 40 dB under the loudest frame, rises by 3 dB or more and
more than within 2 frames on both sides. Each frame is 40 ms, so sigma is little more than one. A head that does not
move has no beats: null, not 0.

Dance has a drum, speech has none. On nine real and generated clips of speech the score is 0.33 in the mean, and as many
beats put anywhere score 0.35: it is offered because papers report it, and it does not tell heads that move with the
voice from heads that move at random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.errors import TooShort, Undetermined
from ..core.mouth_sync import loudness
from .base import ClipMetric, Features, MetricSpec, Row
from .frame_pairs import seen

FACES, POSE, SPEECH = "faces-mediapipe", "arkit52", "speech-envelope"
FPS = 25
EYE_BLINK = (9, 10)  # eyeBlinkLeft, eyeBlinkRight in MediaPipe's order
CLOSES_AT, OPENS_BELOW = 0.45, 0.4
LONGEST_BLINK = 15  # frames
MIN_SEEN = 25  # frames that a rate or a spread needs

SIGMA = 0.05 * FPS  # frames
SMOOTHING = 2.0  # frames
BETWEEN_TURNS, BETWEEN_ONSETS = 4, 2  # frames on both sides
ONSET_DB = 3.0
STILL = 0.1  # degrees a frame: speeds that spread less are the landmarker's jitter


def closedness(faces: Row) -> np.ndarray:
    """b of the module's text, float64 (N,), NaN without a face."""
    return faces.array("blendshapes")[:, EYE_BLINK].astype(np.float64).mean(axis=1)


def count_blinks(closed: np.ndarray) -> int:
    """Number of blinks by the module's rule.

    Args:
        closed: (N,) as `closedness` gives it.
    """
    blinks, length = 0, None  # frames since the eyes closed; None while they are open or their closing was not seen
    was_open = False
    for value in closed:
        if np.isnan(value):
            was_open, length = False, None
        elif value < OPENS_BELOW:
            blinks += length is not None and length <= LONGEST_BLINK
            was_open, length = True, None
        elif length is not None:
            length += 1
        elif was_open and value >= CLOSES_AT:
            was_open, length = False, 1
    return blinks


def blink_rate(faces: Row) -> float:
    """Blinks a minute.

    Raises:
        TooShort: the face is seen for less than a second.
    """
    closed = closedness(faces)
    frames = int(seen(closed[:, None]).sum())
    if frames < MIN_SEEN:
        raise TooShort(f"{frames} frames show a face, {MIN_SEEN} are needed")
    return count_blinks(closed) * 60 * FPS / frames


def head_diversity(angles: np.ndarray) -> float:
    """Mean standard deviation of the three angles.

    Args:
        angles: (N, 3) degrees, NaN without a face.

    Raises:
        TooShort: fewer than 25 frames show a face.
    """
    angles = angles[seen(angles)].astype(np.float64)
    if len(angles) < MIN_SEEN:
        raise TooShort(f"{len(angles)} frames show a face, {MIN_SEEN} are needed")
    return float(angles.std(axis=0).mean())


def kinematic_beats(angles: np.ndarray) -> np.ndarray:
    """Frames at which the head's angular speed is smallest, float64 (m,); halves, since a speed lies between frames.

    Args:
        angles: (N, 3) degrees, NaN without a face. Beats next to a gap are not looked for.

    Raises:
        TooShort: fewer than 25 speeds are known.
        Undetermined: the head does not move.
    """
    speed = np.linalg.norm(np.diff(angles.astype(np.float64), axis=0), axis=1)
    known = int((~np.isnan(speed)).sum())
    if known < MIN_SEEN:
        raise TooShort(f"{known} speeds of the head are known, {MIN_SEEN} are needed")
    if np.nanstd(speed) < STILL:
        raise Undetermined(f"the head's speed spreads by {np.nanstd(speed):.3f} degrees a frame: it has no beats")
    return _peaks(-_smoothed(speed), BETWEEN_TURNS) + 0.5


def onsets(level_db: np.ndarray) -> np.ndarray:
    """Frames at which the voice sets in, float64 (n,).

    Args:
        level_db: (M,) level at 25 fps, M at least 1.
    """
    rise = np.diff(loudness(level_db), prepend=np.nan)
    rise[0] = 0.0
    peaks = _peaks(rise, BETWEEN_ONSETS)
    return peaks[rise[peaks.astype(int)] >= ONSET_DB]


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Gaussian of `SMOOTHING` frames; NaN wherever its window meets a NaN. The ends repeat the last value."""
    reach = int(4 * SMOOTHING)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SMOOTHING) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), kernel / kernel.sum(), mode="valid")


def _peaks(values: np.ndarray, reach: int) -> np.ndarray:
    """Places of the largest values within `reach` on both sides, which must be there, float64 (m,).

    Of two that are equally large the first one counts.
    """
    if len(values) <= 2 * reach:
        return np.empty(0)
    windows = np.lib.stride_tricks.sliding_window_view(values, 2 * reach + 1)
    before, middle, after = windows[:, :reach], windows[:, reach : reach + 1], windows[:, reach + 1 :]
    return np.flatnonzero((middle > before).all(axis=1) & (middle >= after).all(axis=1)).astype(np.float64) + reach


def beat_align(kinematic: np.ndarray, sound: np.ndarray) -> float:
    """BeatAlign of the module's text.

    Args:
        kinematic: (m,) frames.
        sound: (n,) frames.

    Raises:
        Undetermined: a side has no beat.
    """
    if not len(kinematic) or not len(sound):
        raise Undetermined(f"{len(kinematic)} beats of the head, {len(sound)} of the sound: nothing to align")
    nearest = np.abs(kinematic[:, None] - sound[None, :]).min(axis=1)
    return float(np.exp(-(nearest**2) / (2 * SIGMA**2)).mean())


def _aligned(features: Features) -> float:
    angles, level = features[POSE].array("rotation"), features[SPEECH].array("level_db")
    count = min(len(angles), len(level))
    return beat_align(kinematic_beats(angles[:count]), onsets(level[:count]))


def _alone(measure: Callable[[Features], float]) -> Callable[[Features, Features], float]:
    return lambda generated, real: measure(generated)


def _declare(name: str, **facts: Any) -> MetricSpec:
    own = {"real": (), "comparable_with_papers": False, "source": "ours; see the module's rule", "default": False}
    return MetricSpec(id=name, **own | facts)


BLINKS = {
    "closed": f"mean eyeBlink coefficient from {CLOSES_AT}, until it falls below {OPENS_BELOW}",
    "longest": f"{LONGEST_BLINK} frames",
    "time": "frames that show the face",
}
BLINK_RATE = _declare(
    "blink_rate:eyeblink-hysteresis",
    title="Blink rate",
    measures=("eyes",),
    best_is_real=True,
    unit="blinks a minute",
    higher_is_better=True,
    what="How often the eyes blink. Neither more nor fewer is better: best is what the real clips have.",
    formula="1500 x blinks / frames that show the face, mean over clips",
    generated=(FACES,),
    why="papers count blinks by eye aspect ratio, with other thresholds",
    protocol=BLINKS,
)
BLINK_GAP = _declare(
    "blink_rate_gap:eyeblink-hysteresis",
    title="Blink rate gap",
    measures=("eyes",),
    unit="blinks a minute",
    higher_is_better=False,
    what="How far a generated clip's blink rate is from that of its real clip; of short clips mostly chance.",
    formula="|blink rate of generated - of real|, mean over clips",
    generated=(FACES,),
    real=(FACES,),
    why="no paper reports it",
    protocol=BLINKS,
)
DIVERSITY = _declare(
    "head_diversity:arkit52-angle-std",
    title="Head diversity",
    measures=("head",),
    best_is_real=True,
    unit="degrees",
    higher_is_better=True,
    what="How much the head turns within a clip; the real clips' level says how much is natural.",
    formula="mean over yaw, pitch and roll of the standard deviation over time, mean over clips",
    generated=(POSE,),
    why="papers take the spread of a head pose network's features",
)
BEATS = _declare(
    "beat_align:arkit52-onset",
    title="Beat alignment",
    measures=("head",),
    unit="",
    higher_is_better=True,
    what="Whether the head's turns and rests fall on the voice's onsets, 0..1; read it beside the real clips' level.",
    formula="mean over kinematic beats i of exp(-min_j (t_i - s_j)^2 / (2 sigma^2)), sigma = 0.05 s",
    source="Li et al. 2021 for the formula; beats by the module's rule",
    generated=(POSE, SPEECH),
    why="papers take other pose networks, librosa's beats and sigma in frames of their own rate",
    protocol={
        "kinematic beats": f"minima of the angular speed within {BETWEEN_TURNS} frames, Gaussian of {SMOOTHING} frames",
        "sound beats": f"rises of the level by {ONSET_DB} dB or more, largest within {BETWEEN_ONSETS} frames",
        "sigma": "0.05 s",
    },
)
METRICS = (
    ClipMetric(BLINK_RATE, _alone(lambda features: blink_rate(features[FACES]))),
    ClipMetric(BLINK_GAP, lambda generated, real: abs(blink_rate(generated[FACES]) - blink_rate(real[FACES]))),
    ClipMetric(DIVERSITY, _alone(lambda features: head_diversity(features[POSE].array("rotation")))),
    ClipMetric(BEATS, _alone(_aligned)),
)
