"""Extractors `musiq-mouth`, `topiq-face`, `topiq-iaa`: how good a picture looks, by networks trained on people's marks.

THEval's three measures of picture quality (N. Quignon et al., CVPR 2026). Its published code takes them of the package
pyiqa, in every frame; so do these, at 25 fps:

`musiq-mouth` - MUSIQ trained on KonIQ-10k (about 0..100) of the box round the 40 lip points, 10 source pixels wider on
each side, within the picture; corners are cut off to whole pixels. The published code fills the crops of 64 frames up
with black, to the right and below, to the largest of them, which the score sees; here each crop is scored as it is.

`topiq-face` - TOPIQ trained on CGFIQA-40k (about 0..1) of the face turned and scaled onto FFHQ's template at 512x512 by
five points (eyes, tip of the nose, corners of the mouth), bilinear, grey outside. The published code has the points
from RetinaFace, and no value for a clip where one frame shows no face.

`topiq-iaa` - TOPIQ trained on AVA (1..10) of the whole frame, resized to 384x384 without keeping its shape.

A frame without a face is null in the first two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from ..core.errors import NoFace
from ..core.landmarks import MESH_LIPS, landmarks_68
from .extract_deep3d import five_points
from .extractor import Batch, Context, ExtractorSpec, series
from .faces import LANDMARKER, Face

LIP_MARGIN = 10  # source pixels
FACE_SIZE = 512
# FFHQ's alignment at 512x512 as facexlib has it: right eye, left eye, nose, right and left corner of the mouth.
FACE_TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
OUTSIDE = (132.0, 133.0, 135.0)  # RGB
LEAST_EYES = 5.0  # pixels between the eyes; smaller faces are none, as in the published code
MODULE = "talkforge.tasks.extract_quality_scores"


def _spec(name: str, target: str, what: str, weights: tuple[str, ...], **more: Any) -> ExtractorSpec:
    columns = {"score": series(), "n_frames": pa.int32(), "n_missing": pa.int32()}
    return ExtractorSpec(name, 1, f"{MODULE}:{target}", columns, what, weights=weights, **more)


MUSIQ_MOUTH = _spec(
    "musiq-mouth",
    "MusiqMouth",
    "MUSIQ (KonIQ-10k): quality of the mouth in each frame, about 0..100",
    (LANDMARKER, "musiq-koniq"),
    faces=True,
    params={"crop": f"box of 40 lip points, {LIP_MARGIN} px wider on each side, within the picture"},
)
TOPIQ_FACE = _spec(
    "topiq-face",
    "TopiqFace",
    "TOPIQ (CGFIQA-40k): quality of the aligned face in each frame, about 0..1",
    (LANDMARKER, "topiq-face-cgfiqa"),
    faces=True,
    params={"crop": f"5 points onto FFHQ's template, {FACE_SIZE}", "landmarks": "MediaPipe, 68 by place"},
)
TOPIQ_IAA = _spec(
    "topiq-iaa",
    "TopiqIaa",
    "TOPIQ (AVA): aesthetics of each frame, 1..10",
    ("topiq-iaa-ava",),
    frames=True,
    params={"crop": "the whole frame", "resize": "384x384, bilinear, antialiased"},
)
EXTRACTORS = (MUSIQ_MOUTH, TOPIQ_FACE, TOPIQ_IAA)


def cut_mouth(frame: np.ndarray, face: Face) -> np.ndarray | None:
    """The lips' box, 10 pixels wider on each side, out of a picture; None where nothing of it lies in the picture.

    Args:
        frame: uint8 (H, W, 3).
    """
    lips = face.points[MESH_LIPS, :2].astype(int)  # toward zero
    left, top = np.maximum(lips.min(axis=0) - LIP_MARGIN, 0)
    right, bottom = np.maximum(lips.max(axis=0) + LIP_MARGIN, 0)
    part = frame[top:bottom, left:right]
    return part if part.size else None


def align_face(frame: np.ndarray, points: np.ndarray) -> np.ndarray | None:
    """The face on FFHQ's template, float32 (512, 512, 3) in 0..255; None where it is too small.

    Args:
        frame: uint8 (H, W, 3) RGB.
        points: (5, 2) pixels, in the template's order.
    """
    if np.linalg.norm(points[0] - points[1]) < LEAST_EYES:
        return None
    matrix = cv2.estimateAffinePartial2D(points.astype(np.float64), FACE_TEMPLATE, method=cv2.LMEDS)[0]
    if matrix is None:
        return None
    # In floats: 8-bit warping rounds, which the network would see.
    return cv2.warpAffine(frame.astype(np.float32), matrix, (FACE_SIZE, FACE_SIZE), borderValue=OUTSIDE)


class QualityScore(ABC):
    """Scores of one clip. A subclass says what is cut out of a frame and which network sees it."""

    network: str
    at_once = 4  # pictures in one pass; more leave the processor's cache

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self.context, self.name = context, spec.id
        self._scores: list[float | None] = []
        self._waiting: list[tuple[int, np.ndarray]] = []

    @abstractmethod
    def cut(self, frame: np.ndarray, face: Face | None) -> np.ndarray | None:
        """The network's picture of a frame, None where there is none."""

    @abstractmethod
    def prepare(self, pictures: list[np.ndarray]) -> Any:
        """What the network takes for these pictures."""

    def push(self, batch: Batch) -> None:
        """Takes the next frames."""
        faces = batch.faces or [None] * len(batch.frames)
        for frame, face in zip(batch.frames, faces, strict=True):
            picture = self.cut(frame, face)
            if picture is not None:
                self._waiting.append((len(self._scores), picture))
            self._scores.append(None)
            if len(self._waiting) == self.at_once:
                self._drain()

    def _drain(self) -> None:
        import torch

        if not self._waiting:
            return
        frames, pictures = zip(*self._waiting, strict=True)
        with torch.inference_mode():
            given = self.prepare(list(pictures)).to(self.context.device)
            found = self.context.network(self.network)(given).float().cpu().tolist()
        for frame, score in zip(frames, found, strict=True):
            self._scores[frame] = score
        self.context.counters.forwards[self.name] += len(found)
        self._waiting = []

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame has a picture."""
        self._drain()
        missing = self._scores.count(None)
        if missing == len(self._scores):
            raise NoFace(f"no face in any of {missing} frames")
        return {"score": self._scores, "n_frames": len(self._scores), "n_missing": missing}


class MusiqMouth(QualityScore):
    """`musiq-mouth`."""

    network = "talkforge.models.musiq:load_musiq"

    def cut(self, frame: np.ndarray, face: Face | None) -> np.ndarray | None:
        """The lips' box."""
        return None if face is None else cut_mouth(frame, face)

    def prepare(self, pictures: list[np.ndarray]) -> Any:
        """Patches of three scales."""
        from ..models.musiq import prepare

        return prepare(pictures)


class TopiqFace(QualityScore):
    """`topiq-face`."""

    network = "talkforge.models.topiq:load_topiq_face"

    def cut(self, frame: np.ndarray, face: Face | None) -> np.ndarray | None:
        """The aligned face."""
        return None if face is None else align_face(frame, five_points(landmarks_68(face.points)[:, :2]))

    def prepare(self, pictures: list[np.ndarray]) -> Any:
        """To 0..1."""
        from ..models.topiq import prepare

        return prepare(np.stack(pictures), FACE_SIZE)


class TopiqIaa(QualityScore):
    """`topiq-iaa`."""

    network = "talkforge.models.topiq:load_topiq_iaa"

    def cut(self, frame: np.ndarray, face: Face | None) -> np.ndarray | None:
        """The frame as it is."""
        return frame

    def prepare(self, pictures: list[np.ndarray]) -> Any:
        """Resized, to 0..1."""
        import torch

        from ..models.topiq import SIZES, prepare

        return torch.cat([prepare(picture[None], SIZES["iaa"]) for picture in pictures])
