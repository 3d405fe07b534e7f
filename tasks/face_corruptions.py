"""Corruptions of the face: the mouth frozen, the expression damped, the identity swapped.

All are driven by the landmarks that the audit's metrics are fed with (the stored faces of the real clip), and all paste
with soft edges, so that the harm is in the face and not in a seam. A frame without a face is left as it is; a clip
without any is refused. Sources of the warp: thin-plate spline, Bookstein 1989; rigid fit, Umeyama 1991.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from ..core.counters import Counters
from ..core.errors import InputError, NoFace
from ..core.landmarks import LEFT_BROW, MEDIAPIPE_68, NOSE, RIGHT_BROW
from ..datasets.video import open_video, resample
from .corruptions import Corruption, Job, Source, rewrite
from .extract import ClipFile, extract_clip
from .extract_faces import FACES, replay
from .faces import Face
from .features import FeatureStore

GRID = 8  # pixels between points where a spline is evaluated
FEATHER = 0.035  # of the face's size
MOUTH_REACH = 1.45  # the frozen region over the lips' own outline
MOUTH_HOLE = 1.25  # what an exchanged face leaves of the clip's own mouth

# Points of the mesh that expression hardly moves: bridge and sides of the nose, temples, corners of the eyes.
RIGID = np.array([168, 6, 197, 195, 5, 4, 98, 327, 33, 133, 263, 362, 127, 356, 234, 454, 10, 54, 284])
BROWS = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
CHEEKS = (50, 280, 205, 425, 117, 346)
DAMPED = np.array([*BROWS, *CHEEKS])  # no lids: a warp cannot uncover an eye
LIPS = np.array([61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91])
LIDS = (159, 145, 386, 374)
HELD = np.array([*RIGID, *LIDS, *LIPS, 152, 172, 397, 136, 365, 93, 323])
OVAL = np.array(
    [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150]
    + [136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
)

# What a foreign face is fitted by. Lids and inner lips would fold the spline where one face has them shut.
ANCHORS = np.concatenate(
    [OVAL, LIPS, [33, 133, 263, 362], *(MEDIAPIPE_68[part] for part in (RIGHT_BROW, LEFT_BROW, NOSE))]
)


def faces_of(clip: Source, cache: Path | None) -> list[Face | None]:
    """The subject's face in every 25 fps frame, from the feature cache or found now and stored there.

    Raises:
        NoFace: in no frame. InputError: the clip cannot be read.
    """
    store, file = FeatureStore(cache, "none"), ClipFile(clip.video, clip.audio)
    content = file.content()
    extract_clip(file, content, [FACES], store, Counters())
    row = store.find(FACES, content)
    if row is None or row.reason == NoFace.reason:
        raise NoFace(f"no face in {clip.video.name}")
    if row.reason:
        raise InputError(f"{clip.video.name}: {row.message}")
    return replay(row)[0]


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation (D, D) and shift (D,) that bring `source` (N, D) nearest to `target` in least squares."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, spread, vt = np.linalg.svd(b.T @ a)
    signs = np.ones(len(spread))
    signs[-1] = np.sign(np.linalg.det(u @ vt))
    rotation = u @ np.diag(signs) @ vt
    scale = float((spread * signs).sum() / (a**2).sum())
    return scale, rotation, target.mean(axis=0) - scale * rotation @ source.mean(axis=0)


def moved(points: np.ndarray, fit: tuple[float, np.ndarray, np.ndarray]) -> np.ndarray:
    """(N, D) points under a similarity."""
    scale, rotation, shift = fit
    return scale * points @ rotation.T + shift


def warped(picture: np.ndarray, points: np.ndarray, to: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture with `points` (K, 2) brought to `to` (K, 2), smooth in between: uint8 (height, width, 3).

    Args:
        picture: uint8 (h, w, 3).
        size: (height, width) of the result.
    """
    spline = RBFInterpolator(to, points - to, kernel="thin_plate_spline", smoothing=1e-3)
    height, width = size
    x, y = np.arange(0, width + GRID, GRID), np.arange(0, height + GRID, GRID)
    coarse = spline(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)).reshape(len(y), len(x), 2)
    place = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    shift = cv2.remap(coarse.astype(np.float32), place[..., 0] / GRID, place[..., 1] / GRID, cv2.INTER_LINEAR)
    source = place + shift
    return cv2.remap(picture, source[..., 0], source[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def soft_mask(shape: tuple[int, ...], outline: np.ndarray, face: Face, grow: float = 1.0) -> np.ndarray:
    """float32 (H, W) in [0, 1]: the inside of an outline (K, 2), grown about its middle, with a soft edge."""
    middle = outline.mean(axis=0)
    mask = np.zeros(shape[:2], dtype=np.float32)
    hull = cv2.convexHull((middle + grow * (outline - middle)).round().astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 1.0)
    left, top, right, bottom = face.box
    return cv2.GaussianBlur(mask, (0, 0), max(1.0, FEATHER * max(right - left, bottom - top)))


def pasted(frame: np.ndarray, patch: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`patch` over `frame` where the mask is one."""
    share = mask[..., None]
    return (frame * (1 - share) + patch * share).round().astype(np.uint8)


def _first_face(clip: Source, faces: list[Face | None]) -> tuple[np.ndarray, Face]:
    """The first frame that shows the subject, and its face."""
    with open_video(clip.video) as stream:
        for index, _, frame in resample(stream):
            face = faces[index] if index < len(faces) else None
            if face is not None:
                return frame, face
    raise NoFace(f"no face in {clip.video.name}")


def mouth_frozen(job: Job, out: Path) -> None:
    """For the last `level` share of the clip the mouth is that of the first face, laid where the mouth is now."""
    faces = faces_of(job.clip, job.cache)
    donor, first = _first_face(job.clip, faces)
    start = len(faces) - round(job.level * len(faces))

    def edit(index: int, frame: np.ndarray) -> np.ndarray:
        face = faces[index] if start <= index < len(faces) else None
        if face is None:
            return frame
        scale, rotation, shift = similarity(first.points[RIGID, :2], face.points[RIGID, :2])
        matrix = np.concatenate([scale * rotation, shift[:, None]], axis=1)
        patch = cv2.warpAffine(
            donor, matrix, (frame.shape[1], frame.shape[0]), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        outline = moved(first.points[LIPS, :2], (scale, rotation, shift))
        both = np.concatenate([outline, face.points[LIPS, :2]])
        return pasted(frame, patch, soft_mask(frame.shape, both, face, MOUTH_REACH))

    rewrite(job.clip, out, edit)


def mean_shape(faces: list[Face | None]) -> np.ndarray:
    """Mean of the clip's meshes, (478, 3), each brought onto the first by its rigid points."""
    meshes = [face.points.astype(np.float64) for face in faces if face is not None]
    fits = [similarity(mesh[RIGID], meshes[0][RIGID]) for mesh in meshes]
    return np.mean([moved(mesh, fit) for mesh, fit in zip(meshes, fits, strict=True)], axis=0)


def expression_damped(job: Job, out: Path) -> None:
    """Brows and cheeks go `level` of the way to where they are on the clip's average; eyes, mouth and head stay."""
    faces = faces_of(job.clip, job.cache)
    neutral = mean_shape(faces)

    def edit(index: int, frame: np.ndarray) -> np.ndarray:
        face = faces[index] if index < len(faces) else None
        if face is None:
            return frame
        points = face.points.astype(np.float64)
        rest = moved(neutral, similarity(neutral[RIGID], points[RIGID]))
        source = np.concatenate([points[DAMPED, :2], points[HELD, :2], _border(frame)])
        target = source.copy()
        target[: len(DAMPED)] += job.level * (rest - points)[DAMPED, :2]
        return warped(frame, source, target, (frame.shape[0], frame.shape[1]))

    rewrite(job.clip, out, edit)


def _border(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    x, y = np.linspace(0, width - 1, 4), np.linspace(0, height - 1, 4)[1:-1]
    top, left = np.stack([x, 0 * x], axis=1), np.stack([0 * y, y], axis=1)
    return np.concatenate([top, top + [0, height - 1], left, left + [width - 1, 0]])


def identity_swapped(job: Job, out: Path) -> None:
    """Another clip's first face is bent onto this one and blended in by `level`.

    The clip's own mouth stays, so that its sync does; its blinks do not, since the first face's eyes are what they are.
    """
    if job.other is None:
        raise InputError("there is no second clip to take the face from")
    faces = faces_of(job.clip, job.cache)
    donor, theirs = _first_face(job.other, faces_of(job.other, job.cache))
    points = theirs.points[ANCHORS, :2].astype(np.float64)

    def edit(index: int, frame: np.ndarray) -> np.ndarray:
        face = faces[index] if index < len(faces) else None
        if face is None:
            return frame
        patch = warped(donor, points, face.points[ANCHORS, :2].astype(np.float64), (frame.shape[0], frame.shape[1]))
        mask = soft_mask(frame.shape, face.points[OVAL, :2], face, 0.95)
        mask = mask * (1 - soft_mask(frame.shape, face.points[LIPS, :2], face, MOUTH_HOLE))
        return pasted(frame, _toned(patch, frame, mask), job.level * mask)

    rewrite(job.clip, out, edit)


def _toned(patch: np.ndarray, frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The patch with the frame's mean colour under the mask: another person, not another light."""
    weight = mask / max(float(mask.sum()), 1e-6)
    shift = np.einsum("hwc,hw->c", frame.astype(np.float32) - patch.astype(np.float32), weight)
    return np.clip(patch + shift, 0, 255)


_HERE = "talkforge.tasks.face_corruptions:"
_SHARES = (0.25, 0.5, 0.75, 1.0)
CORRUPTIONS = (
    Corruption(
        "mouth-frozen",
        1,
        "the mouth stands still, the rest of the face goes on",
        "share of the clip",
        _SHARES,
        frozenset({"lips", "sync", "expression"}),
        _HERE + "mouth_frozen",
    ),
    Corruption(
        "expression-damped",
        1,
        "brows and cheeks stay near their average",
        "share of the movement taken away",
        _SHARES,
        frozenset({"brows", "expression"}),
        _HERE + "expression_damped",
    ),
    Corruption(
        "identity-swap",
        1,
        "another clip's face blended in",
        "blend",
        _SHARES,
        frozenset({"identity", "eyes"}),
        _HERE + "identity_swapped",
        needs_other=True,
    ),
)
