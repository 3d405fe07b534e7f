"""THEval's five measures that need landmarks and sound only: lips, brows, head, silence, sync.

N. Quignon et al., "THEval: Evaluation Framework for Talking Head Generation", CVPR 2026. It has eight measures and a
final score (`theval_score`). Mouth quality, face quality and global aesthetic are in `theval_quality`: they need image
quality networks, whose weights a person puts in place.

None of the five is better the higher or the lower it is: best is what the real clips have, which stands beside the
value as the real clips' level. The arrow is that of "more movement" and of "less error".

Normalised coordinates are x / width and y / height of the full picture, so the values depend on how the face is framed.
Variant `mp-tasks` says where it departs from the published code:

- landmarks are MediaPipe Tasks' on frames resampled to 25 fps, the published ones the older Solutions face mesh's;
- head angles are those of MediaPipe's pose and the face's centre that of the box round its points, published ones
  FaceXFormer's and RetinaFace's;
- a change counts between neighbouring frames that both show the face, the published code bridges gaps;
- loudness is the RMS of 40 ms at each frame, interpolated from the 40 ms' middles, not of 50 ms (on nine real clips the
  lip sync values differ by 0.003 on average and 0.006 at most);
- speech segments are as exact as the detector gives them, the published code rounds them to 0.1 s;
- a clip without a face is null, where the published code gives 0.

Lip sync scales each clip's opening to 0..1, so the trembling of a frozen mouth fills that range too, and its value is
no larger than that of a moving mouth (0.27 to 0.51 against 0.23 to 0.41 on seven clips). Lip dynamics tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import TooShort, Undetermined
from ..core.landmarks import MESH_LIPS
from ..core.mouth_sync import EYE_CORNERS, POINTS
from .base import ClipMetric, Features, MetricSpec, Row
from .frame_pairs import seen

FACES, POSE, SPEECH, VAD = "faces-mediapipe", "arkit52", "speech-envelope", "vad-silero"
FPS = 25
SIDE = 256.0
MIN_SILENCE = 0.3 * FPS  # frames
MIN_SPEECH_SHARE = 0.1
FLAT = 1e-6  # of the eye distance, or of full scale: what spreads less is constant

# MediaPipe's mesh.
UPPER_LIP, LOWER_LIP = [191, 80, 81, 82, 13, 312, 311, 310], [95, 88, 178, 87, 14, 317, 402, 318]
RIGHT_BROW, LEFT_BROW = (
    [46, 52, 53, 55, 63, 65, 66, 70, 105, 107],
    [276, 282, 283, 285, 293, 295, 296, 300, 334, 336],
)
RIGHT_EYE = [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246]
LEFT_EYE = [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466]
RIGHT_CORNERS, LEFT_CORNERS = [33, 133], [362, 263]


def pixels(faces: Row) -> np.ndarray:
    """2D points in pixels of the picture, float64 (N, 478, 2), NaN without a face."""
    return faces.array("points").reshape(-1, POINTS, 3)[..., :2].astype(np.float64)


def normalised(faces: Row) -> np.ndarray:
    """2D points of the picture resized to 256x256, float64 (N, 478, 2), NaN without a face."""
    return pixels(faces) * (SIDE / np.array([faces.value("width"), faces.value("height")], dtype=np.float64))


def _at_least(count: int, wanted: int, what: str) -> None:
    if count < wanted:
        raise TooShort(f"{count} {what}, {wanted} are needed")


def lip_dynamics(points: np.ndarray) -> float:
    """Mean over pairs of the 40 lip points of the standard deviation over time of their distance.

    Args:
        points: `normalised`.

    Raises:
        TooShort: fewer than 2 frames show a face.
    """
    lips = points[seen(points)][:, MESH_LIPS]
    _at_least(len(lips), 2, "frames show a face")
    first, second = np.triu_indices(len(MESH_LIPS), k=1)
    dx, dy = (lips[:, first, axis] - lips[:, second, axis] for axis in (0, 1))
    return float(np.sqrt(dx * dx + dy * dy).std(axis=0).mean())


def eyebrow_dynamics(points: np.ndarray) -> float:
    """Mean absolute change a frame of a brow's distance from its eye over the eyes' distance, both sides pooled.

    Args:
        points: `pixels`.

    Raises:
        TooShort: no two neighbouring frames show a face.
    """
    right, left = points[:, RIGHT_EYE].mean(axis=1), points[:, LEFT_EYE].mean(axis=1)
    brows = points[:, RIGHT_BROW].mean(axis=1) - right, points[:, LEFT_BROW].mean(axis=1) - left
    heights = np.linalg.norm(np.stack(brows, axis=1), axis=2) / np.linalg.norm(right - left, axis=1)[:, None]
    changes = np.abs(np.diff(heights, axis=0))
    changes = changes[seen(changes)]
    _at_least(len(changes), 1, "neighbouring frames show a face")
    return float(changes.mean())


def silent_lip_stability(points: np.ndarray, silent: np.ndarray) -> float:
    """Median distance of the mouth's opening from its mean, in silence.

    Args:
        points: `normalised`, (N, 478, 2).
        silent: bool (N,).

    Raises:
        Undetermined: fewer than 2 silent frames show a face.
    """
    gap = np.abs(points[:, UPPER_LIP, 1] - points[:, LOWER_LIP, 1]).mean(axis=1)
    opening = gap / np.linalg.norm(points[:, EYE_CORNERS[0]] - points[:, EYE_CORNERS[1]], axis=1)
    opening = opening[silent & ~np.isnan(opening)]
    if len(opening) < 2:
        raise Undetermined(f"{len(opening)} frames in silences of 300 ms show a face, 2 are needed")
    return float(np.median(np.abs(opening - opening.mean())))


def lip_sync(points: np.ndarray, loudness: np.ndarray, spoken: np.ndarray) -> float:
    """Mean difference of the mouth's opening and the loudness in speech, each scaled to 0..1 there.

    Args:
        points: `pixels`, (N, 478, 2); the opening's unit cancels.
        loudness: (N,) RMS at each frame.
        spoken: bool (N,).

    Raises:
        Undetermined: speech covers under 10% of the frames or 2 frames with a face, or a side is constant.
    """
    gap = np.abs(points[:, UPPER_LIP, 1].mean(axis=1) - points[:, LOWER_LIP, 1].mean(axis=1))
    eyes = points[:, LEFT_CORNERS, 0].mean(axis=1) - points[:, RIGHT_CORNERS, 0].mean(axis=1)
    opening = gap / np.abs(eyes)
    used = spoken & np.isfinite(opening)
    if spoken.mean() < MIN_SPEECH_SHARE or used.sum() < 2:
        raise Undetermined(f"speech covers {spoken.mean():.0%} of the frames: there is too little to compare")
    return float(np.abs(_scaled(opening[used], "opening") - _scaled(loudness[used], "loudness")).mean())


def _scaled(values: np.ndarray, what: str) -> np.ndarray:
    low, high = values.min(), values.max()
    if high - low < FLAT:
        raise Undetermined(f"the {what} is constant while there is speech: it has no scale")
    return (values - low) / (high - low)


def head_motion_dynamics(angles: np.ndarray, centres: np.ndarray) -> float:
    """sqrt(mean std of the angles x mean variance of their changes + mean variance of the centre).

    Args:
        angles: (N, 3) degrees, NaN without a face.
        centres: (N, 2) pixels.

    Raises:
        TooShort: no two neighbouring frames show a face.
    """
    changes = np.diff(angles, axis=0)
    changes = changes[seen(changes)]
    _at_least(len(changes), 1, "neighbouring frames show a face")
    angles, centres = angles[seen(angles)], centres[seen(centres)]
    turning = angles.std(axis=0).mean() * changes.var(axis=0).mean()
    return float(np.sqrt(turning + centres.var(axis=0).mean()))


def speech_frames(vad: Row, count: int) -> np.ndarray:
    """Which of `count` frames lie in a segment of speech, its first and last frame included, bool (count,)."""
    spoken = np.zeros(count, dtype=bool)
    for start, end in zip(vad.array("start_s"), vad.array("end_s"), strict=True):
        spoken[int(start * FPS) : int(end * FPS) + 1] = True
    return spoken


def silent_frames(vad: Row, count: int) -> np.ndarray:
    """Which of `count` frames lie in a run of at least 300 ms (8 frames) without speech, bool (count,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~speech_frames(vad, count), [False]]).astype(np.int8)))
    silent = np.zeros(count, dtype=bool)
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        silent[start:end] = end - start >= MIN_SILENCE
    return silent


def loudness_at_frames(speech: Row, count: int) -> np.ndarray:
    """RMS of the sound at the time of each frame's beginning, float64 (count,)."""
    rms = 10 ** (speech.array("level_db").astype(np.float64) / 20)
    return np.interp(np.arange(count), np.arange(len(rms)) + 0.5, rms)


def box_centres(points: np.ndarray) -> np.ndarray:
    """Centre of the box round each frame's points, (N, 478, 2) to (N, 2)."""
    return (points.min(axis=1) + points.max(axis=1)) / 2


@dataclass(frozen=True)
class Component:
    """One of the measures, of one clip.

    Attributes:
        name: its id before the colon.
        extractors: rows that it wants.
        measures: what it looks at, see `MetricSpec.measures`.
        measure: from these rows to the value. Raises typed errors.
        published: the paper's ground truth.
    """

    name: str
    extractors: tuple[str, ...]
    measures: str
    measure: Callable[[Features], float]
    published: float


def _silence(features: Features) -> float:
    points = normalised(features[FACES])
    return silent_lip_stability(points, silent_frames(features[VAD], len(points)))


def _sync(features: Features) -> float:
    points = pixels(features[FACES])
    loudness = loudness_at_frames(features[SPEECH], len(points))
    return lip_sync(points, loudness, speech_frames(features[VAD], len(points)))


def _head(features: Features) -> float:
    angles = features[POSE].array("rotation").astype(np.float64)
    return head_motion_dynamics(angles, box_centres(pixels(features[FACES])))


LIP = Component("lip_dynamics", (FACES,), "lips", lambda features: lip_dynamics(normalised(features[FACES])), 1.716603)
BROW = Component(
    "eyebrow_dynamics", (FACES,), "brows", lambda features: eyebrow_dynamics(pixels(features[FACES])), 0.006777
)
HEAD = Component("head_motion_dynamics", (FACES, POSE), "head", _head, 18.46757)
SILENCE = Component("silent_lip_stability", (FACES, VAD), "sync", _silence, 0.0263)
SYNC = Component("lip_sync", (FACES, SPEECH, VAD), "sync", _sync, 0.2528)
COMPONENTS = (LIP, BROW, HEAD, SILENCE, SYNC)
SOURCE = "Quignon et al. 2026 (THEval)"
WHY = "the paper's landmarker, head pose and clips are others; compare within one set of clips"


def _metric(component: Component, **facts: Any) -> ClipMetric:
    spec = MetricSpec(
        id=f"{component.name}:mp-tasks",
        source=SOURCE,
        generated=component.extractors,
        real=(),
        comparable_with_papers=False,
        best_is_real=True,
        measures=(component.measures,),
        why=WHY,
        protocol={"landmarks": "MediaPipe Tasks, 478 points", "ground truth of the paper": component.published}
        | facts.pop("protocol", {}),
        **facts,
    )
    return ClipMetric(spec, lambda generated, real: component.measure(generated))


METRICS = (
    _metric(
        LIP,
        title="Lip dynamics",
        unit="px at 256",
        higher_is_better=True,
        what="How much the lips' shape changes in a clip; best is what the real clips have.",
        formula="mean over pairs of 40 lip points of the standard deviation over time of their distance",
    ),
    _metric(
        BROW,
        title="Eyebrow dynamics",
        unit="eye distances a frame",
        higher_is_better=True,
        what="How much the eyebrows move from frame to frame; best is what the real clips have.",
        formula="mean |h(k+1) - h(k)| over both sides, h = |brow - eye| / |right eye - left eye| of their centroids",
        protocol={"gaps": "only neighbouring frames that both show the face"},
    ),
    _metric(
        HEAD,
        title="Head motion dynamics",
        unit="",
        higher_is_better=True,
        what="How much the head turns and moves; best is what the real clips have, at the same picture size.",
        formula="sqrt(mean std of angles (deg) x mean variance of their changes + mean variance of the centre (px))",
        protocol={"angles": "MediaPipe's pose", "centre": "of the box round the 478 points, pixels of the full frame"},
    ),
    _metric(
        SILENCE,
        title="Silent lip stability",
        unit="eye distances",
        higher_is_better=False,
        what="How restless the lips are while nobody speaks; best is what the real clips have.",
        formula="median |opening - mean opening| over frames in silences; opening = mean of 8 lip gaps / eye distance",
        protocol={"silence": "no speech by Silero VAD for 300 ms", "coordinates": "of the picture resized to 256x256"},
    ),
    _metric(
        SYNC,
        title="Lip sync (THEval)",
        unit="",
        higher_is_better=False,
        what="How far the mouth's opening is from the loudness while somebody speaks; best is what real clips have.",
        formula="mean |opening - loudness| over frames of speech, each scaled to 0..1 over them",
        protocol={
            "speech": "segments of Silero VAD, at least 10% of the frames",
            "loudness": "RMS of 40 ms, interpolated to frame times",
        },
    ),
)
