"""Distance between the 68 landmarks of generated and real faces: LMD of mouth and face, and AKD.

The 68 are MediaPipe's mesh points by place (`core.landmarks`), in two dimensions. Both sides need one frame of
reference, and pictures may differ in size and crop. Two are offered:

- *Picture frame* (`lmd:*-mp68`, `akd:mp68`): x 256 / width and y 256 / height on each side, so the unit is a pixel of
  the picture resized to 256x256, as papers resize. It means something only where both sides show the same crop of the
  scene; pictures of different shape (more than 1%) cannot, and are rejected. A crop that differs at equal shape does
  not show here: score such methods by the scaled variants.
- *Face frame* (`lmd:*-mp68-scaled`): each side's coordinates over its own clip's median distance of the outer eye
  corners, measured in three dimensions so that turning the head does not count. Size and crop cancel.

LMD centres each frame's 68 points at their mean on both sides, so it does not see where the head is; it does see how it
is turned. AKD does not centre: position counts in full.

    LMD = mean over frames and over the 20 mouth points (48..67) or all 68 of |p - q|, p and q centred
    AKD = mean over frames, points and both coordinates of |p - q|

LMD: L. Chen et al., "Lip Movements Generation at a Glance", ECCV 2018, and works since, with 68 points. AKD: A.
Siarohin et al., "First Order Motion Model for Image Animation", NeurIPS 2019, as their published code averages.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.errors import Undetermined
from ..core.landmarks import MOUTH, landmarks_68
from ..core.mouth_sync import EYE_CORNERS, POINTS
from .base import Features, MetricSpec, Row
from .frame_pairs import PROTOCOL, FramePairMetric, Sides, column_sides, mean_absolute

FACES = "faces-mediapipe"
SIDE = 256.0  # pixels of the common picture
SAME_SHAPE = 0.01
ALL = slice(0, 68)


def in_picture(faces: Row) -> np.ndarray:
    """The 68 landmarks in pixels of the picture resized to 256x256, float64 (N, 68, 2), NaN without a face."""
    size = np.array([faces.value("width"), faces.value("height")], dtype=np.float64)
    return landmarks_68(_points(faces))[..., :2] * (SIDE / size)


def in_face(faces: Row) -> np.ndarray:
    """The 68 landmarks in hundredths of the clip's median outer eye distance, float64 (N, 68, 2)."""
    points = _points(faces)
    eyes = np.linalg.norm(points[:, EYE_CORNERS[0]] - points[:, EYE_CORNERS[1]], axis=1)
    unit = float(np.nanmedian(eyes))
    if unit <= 0:
        raise Undetermined("both outer eye corners lie in one place: the face has no size")
    return landmarks_68(points)[..., :2] * (100.0 / unit)


def _points(faces: Row) -> np.ndarray:
    return faces.array("points").reshape(-1, POINTS, 3).astype(np.float64)


def picture_sides(generated: Features, real: Features) -> Sides:
    """`in_picture` of both sides.

    Raises:
        Undetermined: the pictures' shapes differ by more than 1%.
    """
    a, b = generated[FACES], real[FACES]
    shapes = [row.value("width") / row.value("height") for row in (a, b)]
    if abs(shapes[0] / shapes[1] - 1) > SAME_SHAPE:
        sizes = " and ".join(f"{row.value('width')}x{row.value('height')}" for row in (a, b))
        raise Undetermined(f"pictures of {sizes} show different crops: they have no pixels in common")
    return in_picture(a), in_picture(b)


def centred_distance(generated: np.ndarray, real: np.ndarray, part: slice = ALL) -> np.ndarray:
    """Mean over `part` of the distance of points that are centred at the mean of all 68.

    Args:
        generated, real: (K, 68, 2).

    Returns:
        (K,) in the points' unit.
    """
    a, b = (points - points.mean(axis=1, keepdims=True) for points in (generated, real))
    return np.linalg.norm(a - b, axis=2)[:, part].mean(axis=1)


def _mouth_distance(generated: np.ndarray, real: np.ndarray) -> np.ndarray:
    return centred_distance(generated, real, MOUTH)


IN_PICTURE = "pixels of the picture resized to 256x256 on each side; shapes equal to 1%, crops taken to be equal"
IN_FACE = "each side over its clip's median 3D distance of the outer eye corners; size and crop cancel"


def _declare(name: str, frame: str, **facts: Any) -> MetricSpec:
    return MetricSpec(
        id=name,
        unit="px at 256" if frame is IN_PICTURE else "% of eye distance",
        higher_is_better=False,
        generated=(FACES,),
        real=(FACES,),
        comparable_with_papers=False,
        protocol={"landmarks": "68 of MediaPipe's mesh by place, 2D", "common frame": frame, **PROTOCOL},
        default=False,
        **facts,
    )


def _lmd(part: str, points: str, frame: str) -> MetricSpec:
    scaled = frame is IN_FACE
    return _declare(
        f"lmd:{part}-mp68{'-scaled' if scaled else ''}",
        frame,
        title=f"LMD {part}{' (scaled)' if scaled else ''}",
        measures=("lips",) if part == "mouth" else ("lips", "expression"),
        what=f"How far the generated {part}'s landmarks are from the real ones, the head's place left out.",
        formula=f"mean over frames and {points} of |p - q|, each frame's 68 points centred at their mean",
        source="Chen et al. 2018 for the distance; 68 landmarks as used since",
        why="papers take dlib's or FAN's 68 landmarks, and each another crop",
    )


AKD = _declare(
    "akd:mp68",
    IN_PICTURE,
    title="AKD",
    measures=("lips", "head", "expression"),
    what="How far the generated face's landmarks are from the real ones in the picture, the head's place included.",
    formula="mean over frames, 68 points and 2 coordinates of |p - q|",
    source="Siarohin et al. 2019",
    why="papers take FAN's 68 landmarks",
)
_face_sides = column_sides(FACES, in_face)
METRICS = (
    FramePairMetric(_lmd("mouth", "20 mouth points", IN_PICTURE), picture_sides, _mouth_distance),
    FramePairMetric(_lmd("face", "68 points", IN_PICTURE), picture_sides, centred_distance),
    FramePairMetric(_lmd("mouth", "20 mouth points", IN_FACE), _face_sides, _mouth_distance),
    FramePairMetric(_lmd("face", "68 points", IN_FACE), _face_sides, centred_distance),
    FramePairMetric(AKD, picture_sides, mean_absolute),
)
