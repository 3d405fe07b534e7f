"""Extractors that reduce the stored faces: 52 ARKit coefficients with the head's pose, and the ICT-FaceKit fit.

The 52 are MediaPipe's blendshapes in its order: "_neutral" first (no ARKit name; close to 0 on every frame), then
51 of ARKit's 52 in alphabetical order. "tongueOut" is the one that MediaPipe does not give.

The pose is MediaPipe's 4x4, its rigid map of the canonical face into camera space: angles as `head_pose` defines them,
translation in centimetres, x to the right of the picture, y up, z towards the camera (so a face lies at negative z). It
assumes MediaPipe's camera of 63 degrees vertical field of view; distances are in that camera's terms.

A frame without a face is null in every column, never a mean face.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.landmarks import landmarks_68
from ..models.ict_facekit import FaceBasis, load_landmark_basis
from .extractor import ExtractorSpec, series, vectors
from .faces import BLENDSHAPES, LANDMARKER
from .head_pose import angles_of, nearest_rotation
from .ict_fit import RIDGE, fit_clip
from .seen_faces import SeenFaces


def _sides(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{side}" for name in names for side in ("Left", "Right"))


# MediaPipe's order.
BLENDSHAPE_NAMES: tuple[str, ...] = (
    "_neutral",
    *_sides("browDown"),
    "browInnerUp",
    *_sides("browOuterUp"),
    "cheekPuff",
    *_sides("cheekSquint", "eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeSquint", "eyeWide"),
    *("jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose"),
    *_sides("mouthDimple", "mouthFrown"),
    *("mouthFunnel", "mouthLeft"),
    *_sides("mouthLowerDown", "mouthPress"),
    *("mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *_sides("mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer"),
)

ARKIT = ExtractorSpec(
    id="arkit52",
    version=1,
    target="talkforge.tasks.extract_arkit:Coefficients",
    columns={
        "blendshapes": vectors(BLENDSHAPES),
        "rotation": vectors(3),
        "translation": vectors(3),
        "n_frames": pa.int32(),
        "n_missing": pa.int32(),
    },
    what="52 ARKit coefficients (MediaPipe's order), head rotation (yaw, pitch, roll in degrees) and translation (cm)",
    faces=True,
    weights=(LANDMARKER,),
    params={"angles": "R = Rz(roll) Ry(yaw) Rx(pitch), degrees", "translation": "cm"},
)
ICT = ExtractorSpec(
    id="arkit52-ict",
    version=1,
    target="talkforge.tasks.extract_arkit:IctShape",
    columns={
        "identity": series(),
        "rotation": vectors(3),
        "scale": series(),
        "error": series(),
        "n_frames": pa.int32(),
        "n_missing": pa.int32(),
    },
    what="ICT-FaceKit fit: 100 identity coefficients of the clip; rotation, pixels a cm and landmark error per frame",
    faces=True,
    weights=(LANDMARKER, "ict-facekit-mesh", "ict-facekit-indices"),
    params={"ridge_cm2": RIDGE, "landmarks": 68, "camera": "weak perspective", "error": "rms / outer eye distance"},
    steps={"identity": 0},
)
EXTRACTORS = (ARKIT, ICT)


class Coefficients(SeenFaces):
    """Coefficients and pose of one clip."""

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame shows a face."""
        self.check()
        poses = np.stack([face.pose for face in self.faces]).astype(np.float64)
        return {
            "blendshapes": self.spread(np.stack([face.blendshapes for face in self.faces])),
            "rotation": self.spread(angles_of(nearest_rotation(poses[:, :3, :3]))),
            "translation": self.spread(poses[:, :3, 3]),
            "n_frames": self.count,
            "n_missing": self.missing,
        }


class IctShape(SeenFaces):
    """The face model's fit to one clip."""

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame shows a face."""
        self.check()
        basis = _basis()
        coefficients = np.stack([face.blendshapes for face in self.faces])
        seen = landmarks_68(np.stack([face.points for face in self.faces]))[..., :2].astype(np.float64)
        fit = fit_clip(basis, basis.from_blendshapes(coefficients, BLENDSHAPE_NAMES), seen * (1.0, -1.0))
        return {
            "identity": fit.identity.astype(np.float32),
            "rotation": self.spread(angles_of(fit.poses.rotation)),
            "scale": self.spread_series(fit.poses.scale),
            "error": self.spread_series(fit.error),
            "n_frames": self.count,
            "n_missing": self.missing,
        }


@cache
def _basis() -> FaceBasis:
    return load_landmark_basis()
