"""Extractor `faces-mediapipe`: the subject's 478 points, 52 blendshapes and pose in every frame.

It is the tracker's own result. The pass feeds it, and when the row is stored already the pass replays faces from it
instead of detecting again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import NoFace
from .extractor import Batch, Context, ExtractorSpec, series, vectors
from .faces import (
    BLENDSHAPES,
    FACES_ID,
    LANDMARKER,
    MAX_FACES,
    PATIENCE,
    POINTS,
    SAME_FACE_IOU,
    SCENE_CUT_LEVEL,
    Face,
)
from .features import FeatureRow

FACES = ExtractorSpec(
    id=FACES_ID,
    version=1,
    target="talkforge.tasks.extract_faces:FaceRows",
    columns={
        "points": vectors(POINTS * 3),
        "blendshapes": vectors(BLENDSHAPES),
        "pose": vectors(16),
        "track": series(pa.int16()),
        "scene": series(pa.int16()),
        "n_faces": series(pa.int8()),
        "n_frames": pa.int32(),
        "n_missing": pa.int32(),
        "height": pa.int32(),
        "width": pa.int32(),
    },
    what="478 face landmarks (pixels), 52 blendshapes, 4x4 pose per frame; null where the subject is not seen",
    faces=True,
    weights=(LANDMARKER,),
    params={
        "max_faces": MAX_FACES,
        "patience": PATIENCE,
        "same_face_iou": SAME_FACE_IOU,
        "scene_cut_level": SCENE_CUT_LEVEL,
        "mode": "video",
    },
)
EXTRACTORS = (FACES,)


class FaceRows:
    """Collects the observations of one clip."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self._faces: list[Face | None] = []
        self._scenes: list[int] = []
        self._shape = (0, 0)

    def push(self, batch: Batch) -> None:
        """Takes the next frames' observations."""
        self._faces.extend(batch.faces)
        self._scenes.extend(batch.scenes)
        self._shape = batch.frames[-1].shape[:2]

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame shows a face."""
        missing = sum(face is None for face in self._faces)
        if missing == len(self._faces):
            raise NoFace(f"no face in any of {len(self._faces)} frames")
        return {
            "points": _stack([face and face.points for face in self._faces], POINTS * 3),
            "blendshapes": _stack([face and face.blendshapes for face in self._faces], BLENDSHAPES),
            "pose": _stack([face and face.pose for face in self._faces], 16),
            "track": np.array([-1 if face is None else face.track for face in self._faces], dtype=np.int16),
            "scene": np.array(self._scenes, dtype=np.int16),
            "n_faces": np.array([0 if face is None else face.n_faces for face in self._faces], dtype=np.int8),
            "n_frames": len(self._faces),
            "n_missing": missing,
            "height": self._shape[0],
            "width": self._shape[1],
        }


def _stack(rows: list[np.ndarray | None], width: int) -> np.ndarray:
    """(N, width) float32, NaN where a row is None."""
    out = np.full((len(rows), width), np.nan, dtype=np.float32)
    for k, row in enumerate(rows):
        if row is not None:
            out[k] = row.ravel()
    return out


def replay(row: FeatureRow) -> tuple[list[Face | None], list[int]]:
    """Faces and scene numbers of every frame, from a stored row."""
    points, blendshapes, pose = row.array("points"), row.array("blendshapes"), row.array("pose")
    tracks, scenes, counts = row.array("track"), row.array("scene"), row.array("n_faces")
    faces = [
        None
        if track < 0
        else Face(
            points[k].reshape(POINTS, 3),
            blendshapes[k],
            pose[k].reshape(4, 4),
            int(track),
            int(scenes[k]),
            int(counts[k]),
        )
        for k, track in enumerate(tracks)
    ]
    return faces, [int(scene) for scene in scenes]
