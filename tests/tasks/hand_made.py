"""Faces with known geometry, and clips cut to pieces, for the tests of this room."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from talkforge.tasks.extractor import Batch, Context, ExtractorSpec, series
from talkforge.tasks.faces import BLENDSHAPES, LEFT_EYE_RING, MOUTH_CORNERS, POINTS, RIGHT_EYE_RING, Face


def face_box(x: float, y: float, size: float, *, track: int = 0, scene: int = 0) -> Face:
    """A face whose points fill the square with centre (x, y) and the given side, eyes and mouth at natural places."""
    face = face_of((x - size / 5, y - size / 8), (x + size / 5, y - size / 8), (x, y + size / 4), spread=size / 20)
    face.points[0, :2] = x - size / 2, y - size / 2
    face.points[1, :2] = x + size / 2, y + size / 2
    return replace(face, track=track, scene=scene)


def face_of(
    right_eye: tuple[float, float], left_eye: tuple[float, float], mouth: tuple[float, float], *, spread: float = 3.0
) -> Face:
    """A face whose eye rings and mouth corners have exactly these centres; all other points lie between them."""
    points = np.zeros((POINTS, 3), dtype=np.float32)
    points[:, :2] = np.mean([right_eye, left_eye, mouth], axis=0)
    for ring, centre in ((RIGHT_EYE_RING, right_eye), (LEFT_EYE_RING, left_eye), (MOUTH_CORNERS, mouth)):
        turn = 2 * np.pi * np.arange(len(ring)) / len(ring)
        points[list(ring), :2] = np.asarray(centre) + spread * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return Face(points, np.zeros(BLENDSHAPES, np.float32), np.eye(4, dtype=np.float32))


def cut_off(source: Path, target: Path, share: float = 0.6) -> Path:
    """The first part of a file's bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


class SeenFaces:
    """An extractor that only says in which frames it was given a face."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self._seen: list[int] = []

    def push(self, batch: Batch) -> None:
        self._seen += [int(face is not None) for face in batch.faces]

    def finish(self) -> dict[str, Any]:
        return {"seen": np.array(self._seen, np.int8)}


SEEN_FACES = ExtractorSpec(
    "seen-faces",
    1,
    "talkforge.tests.tasks.hand_made:SeenFaces",
    {"seen": series(pa.int8())},
    "for tests",
    faces=True,
)


def faces_row(faces: list[Face | None], height: int, width: int) -> dict[str, Any]:
    """What the extractor of faces would store for these observations of one scene."""
    known = [face for face in faces if face is not None]

    def stack(values: list[np.ndarray | None], size: int) -> np.ndarray:
        return np.stack([np.full(size, np.nan, np.float32) if v is None else v.ravel() for v in values])

    return {
        "points": stack([face and face.points for face in faces], POINTS * 3),
        "blendshapes": stack([face and face.blendshapes for face in faces], BLENDSHAPES),
        "pose": stack([face and face.pose for face in faces], 16),
        "track": np.array([-1 if face is None else face.track for face in faces], np.int16),
        "scene": np.zeros(len(faces), np.int16),
        "n_faces": np.array([int(face is not None) for face in faces], np.int8),
        "n_frames": len(faces),
        "n_missing": len(faces) - len(known),
        "height": height,
        "width": width,
    }
