"""Faces in a clip: MediaPipe's landmarker on every frame once, identities kept, one subject chosen.

The landmarker gives 478 points, 52 blendshapes and a 4x4 pose for each of up to `MAX_FACES` faces. Identity is kept by
overlap from frame to frame; a scene cut starts anew. The subject is the largest face at the start of a scene and stays
the subject while it is seen; when it has been away for `PATIENCE` frames, the largest face takes its place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Self

import numpy as np

from ..core.counters import Counters
from ..core.gate import Gate
from ..core.quiet import without_chatter
from ..core.weights import weights_store

FACES_ID = "faces-mediapipe"  # the extractor that stores them
LANDMARKER = "mediapipe-face-landmarker"
POINTS = 478
BLENDSHAPES = 52
MAX_FACES = 3
PATIENCE = 25  # frames, one second
SAME_FACE_IOU = 0.3
SCENE_CUT_LEVEL = 40.0  # mean absolute difference of 16x16 thumbnails, 0..255

# MediaPipe declares its C functions anew whenever a landmarker or an image is made, for all threads. A call under way
# in another thread then reads declarations that are gone (seen once, as "expected LP_c_char_p instance instead of
# pointer to MpFaceLandmarkerResultC"). So a landmarker is made while nobody detects, and images one at a time.
_LIBRARY = Gate()
_IMAGES = Lock()

# What MediaPipe and TensorFlow Lite log at every start.
_CHATTER = re.compile(rb"[WI]0000 |INFO: Created TensorFlow Lite|WARNING: Logging before InitGoogle")

# Indices into the 478 points (MediaPipe's canonical face mesh).
RIGHT_EYE_RING = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE_RING = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
MOUTH_CORNERS = (61, 291)
EYE_CORNERS = (33, 263)
INNER_LIP_PAIRS = ((82, 87), (13, 14), (312, 317))  # upper, lower


@dataclass(frozen=True)
class Face:
    """One face in one frame.

    Attributes:
        points: float32 (478, 3), x and y in pixels of the frame, z in the same scale.
        blendshapes: float32 (52,) in [0, 1], ARKit order of MediaPipe with "_neutral" first.
        pose: float32 (4, 4) rigid transform of the canonical face, centimetres.
        track: identity within the clip.
        scene: number of scene cuts before this frame.
        n_faces: faces seen in this frame.
    """

    points: np.ndarray
    blendshapes: np.ndarray
    pose: np.ndarray
    track: int = 0
    scene: int = 0
    n_faces: int = 1

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the points, pixels."""
        low, high = self.points[:, :2].min(axis=0), self.points[:, :2].max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(a) + _area(b) - shared)


def _area(box: tuple[float, ...]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


class Landmarker:
    """MediaPipe's face landmarker over the frames of one clip, in order. A context manager."""

    def __init__(self, counters: Counters) -> None:
        import mediapipe as mp
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(weights_store().path(LANDMARKER))),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=MAX_FACES,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        self._image = lambda frame: mp.Image(image_format=mp.ImageFormat.SRGB, data=frame)
        with _LIBRARY.alone(), without_chatter(_CHATTER):
            self._detector = vision.FaceLandmarker.create_from_options(options)
        self._counters = counters

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with _LIBRARY.shared():
            self._detector.close()

    def detect(self, frame: np.ndarray, index: int) -> list[Face]:
        """All faces of frame number `index` (25 fps), uint8 (H, W, 3) RGB, largest first."""
        self._counters.face_detections += 1
        with _LIBRARY.shared():
            with _IMAGES:
                # MediaPipe reads the buffer as if it had no row padding, so a strided view would be seen as garbage.
                image = self._image(np.ascontiguousarray(frame))
            found = self._detector.detect_for_video(image, index * 40)
            with _IMAGES:
                del image
        faces = [_face(found, k, frame.shape) for k in range(len(found.face_landmarks))]
        return sorted(faces, key=lambda face: _area(face.box), reverse=True)


def _face(found: Any, k: int, shape: tuple[int, ...]) -> Face:
    height, width = shape[:2]
    points = np.array([(p.x, p.y, p.z) for p in found.face_landmarks[k]], dtype=np.float32)
    return Face(
        points=points * np.array([width, height, width], dtype=np.float32),
        blendshapes=np.array([shape.score for shape in found.face_blendshapes[k]], dtype=np.float32),
        pose=np.asarray(found.facial_transformation_matrixes[k], dtype=np.float32),
        n_faces=len(found.face_landmarks),
    )


@dataclass
class Subject:
    """Chooses, frame by frame, which face is the subject and which identity it has."""

    scene: int = 0
    _tracks: dict[int, tuple[tuple[float, ...], int]] = field(default_factory=dict)  # id -> box, last frame
    _subject: int | None = None
    _next: int = 0
    _thumbnail: np.ndarray | None = None

    def choose(self, frame: np.ndarray, faces: list[Face], index: int) -> Face | None:
        """The subject's face in this frame, or None when it is not there.

        Args:
            frame: uint8 (H, W, 3), for the scene cut test.
            faces: largest first.
            index: frame number.
        """
        if self._is_cut(frame):
            self.scene += 1
            self._tracks.clear()
            self._subject = None
        tracks = self._match(faces, index)
        if self._subject is None or index - self._tracks[self._subject][1] > PATIENCE:
            self._subject = tracks[0] if tracks else None
        if self._subject not in tracks:
            return None
        face = faces[tracks.index(self._subject)]
        return Face(face.points, face.blendshapes, face.pose, self._subject, self.scene, len(faces))

    def _is_cut(self, frame: np.ndarray) -> bool:
        import cv2

        thumbnail = cv2.resize(frame, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._thumbnail = self._thumbnail, thumbnail
        return before is not None and float(np.abs(thumbnail - before).mean()) > SCENE_CUT_LEVEL

    def _match(self, faces: list[Face], index: int) -> list[int]:
        """Track id of each face: the free track that overlaps it most, or a new one."""
        free = {track: box for track, (box, last) in self._tracks.items() if index - last <= PATIENCE}
        ids = []
        for face in faces:
            best = max(free, key=lambda track: overlap(free[track], face.box), default=None)
            if best is None or overlap(free[best], face.box) < SAME_FACE_IOU:
                best, self._next = self._next, self._next + 1
            free.pop(best, None)
            self._tracks[best] = (face.box, index)
            ids.append(best)
        return ids
