"""Extractor `deep3d`: 257 coefficients of Deep3DFaceRecon for every frame with a face.

The alignment is the published one. Five points of the 68 landmarks (eye centres as means of two corners, nose tip,
mouth corners), with y up, are explained by a standard face in three dimensions through a weak-perspective camera: rows
[x y z 1] solved for u and for v by least squares, scale the mean length of the two rotation rows, translation the two
fourth terms. The picture is resized by 102 / scale (bicubic) and 224x224 are cut out about the translation, black
outside; sizes and corners are truncated to whole pixels.

The landmarks are MediaPipe's, by place, where the published chain takes a detector of its own; that is part of this
row's protocol. `alignment` holds width, height, 102 / scale and the translation, which some methods feed on. A frame
without a face is null in all columns, never the mean face.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ..core.landmarks import landmarks_68
from .extractor import ExtractorSpec, vectors
from .face_network import FaceNetwork
from .faces import LANDMARKER, Face

COEFFICIENTS, SIZE = 257, 224
FACE_SCALE = 102.0
FRAMES_PER_FORWARD = 4
SMALLEST = 2.0  # pixels a unit of the standard face; below it there is no face to see
NETWORK = "talkforge.models.deep3d:load_deep3d"

# Right eye, left eye, nose tip, right and left mouth corner of the standard face, decimetres, y up (Deng et al. 2019).
STANDARD_FACE = np.array(
    [
        [-0.31148657, 0.29036078, 0.13377953],
        [0.30979887, 0.28972036, 0.13179526],
        [0.00325350, -0.04617932, 0.55244243],
        [-0.25216928, -0.38133916, 0.22405732],
        [0.24846620, -0.38128236, 0.22235769],
    ]
)

DEEP3D = ExtractorSpec(
    id="deep3d",
    version=1,
    target="talkforge.tasks.extract_deep3d:Coefficients",
    columns={
        "coefficients": vectors(COEFFICIENTS),
        "alignment": vectors(5),
        "n_frames": pa.int32(),
        "n_missing": pa.int32(),
    },
    what="Deep3DFaceRecon: 257 coefficients (identity 80, expression 64, texture 80, angle 3, gamma 27, translation 3)",
    faces=True,
    weights=(LANDMARKER, "deep3d-epoch20"),
    params={"alignment": "5 points, weak perspective, 102 / scale, 224", "landmarks": "MediaPipe, 68 by place"},
)
EXTRACTORS = (DEEP3D,)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Right eye, left eye, nose tip, mouth corners out of (68, 2) landmarks, (5, 2)."""
    right, left = landmarks[[36, 39]].mean(axis=0), landmarks[[42, 45]].mean(axis=0)
    return np.stack([right, left, landmarks[30], landmarks[48], landmarks[54]])


def camera(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Translation (2,) and scale of the weak-perspective camera that sees the standard face at five points.

    Args:
        points: (5, 2) pixels, y up.
    """
    rows = np.column_stack([STANDARD_FACE, np.ones(5)])
    solved = np.linalg.lstsq(rows, points.astype(np.float64), rcond=None)[0]  # (4, 2)
    return solved[3], float(np.linalg.norm(solved[:3], axis=0).mean())


def align(frame: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The aligned picture and its alignment; None where the points are no face.

    Args:
        frame: uint8 (H, W, 3).
        landmarks: (68, 2) pixels, y down.

    Returns:
        uint8 (224, 224, 3), and float64 (5,): W, H, 102 / scale, translation x and y (y up).
    """
    height, width = frame.shape[:2]
    points = five_points(landmarks) * (1.0, -1.0) + (0.0, height - 1.0)
    shift, scale = camera(points)
    if scale < SMALLEST:
        return None
    factor = FACE_SCALE / scale
    size = int(width * factor), int(height * factor)
    left = int(size[0] / 2 - SIZE / 2 + (shift[0] - width / 2) * factor)
    top = int(size[1] / 2 - SIZE / 2 + (height / 2 - shift[1]) * factor)
    return resized_cut(frame, size, left, top), np.array([width, height, factor, *shift])


def resized_cut(frame: np.ndarray, size: tuple[int, int], left: int, top: int) -> np.ndarray:
    """What is at (left, top) of the picture resized to `size` (bicubic), 224x224, black outside the picture.

    Only the part that is needed is resized: a small face in a large picture would make a huge one.
    """
    height, width = frame.shape[:2]
    x0, x1 = max(left, 0), min(left + SIZE, size[0])
    y0, y1 = max(top, 0), min(top + SIZE, size[1])
    out = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    if x0 < x1 and y0 < y1:
        across, down = width / size[0], height / size[1]
        box = (x0 * across, y0 * down, min(x1 * across, width), min(y1 * down, height))
        part = Image.fromarray(frame).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, box=box)
        out[y0 - top : y1 - top, x0 - left : x1 - left] = np.asarray(part)
    return out


class Coefficients(FaceNetwork):
    """Coefficients of one clip."""

    width, place_width, name = COEFFICIENTS, 5, "deep3d"

    def cut_face(self, frame: np.ndarray, face: Face) -> tuple[np.ndarray, np.ndarray] | None:
        """The aligned face and its alignment."""
        return align(frame, landmarks_68(face.points)[:, :2])

    def forward(self, pictures: np.ndarray) -> np.ndarray:
        """The network's 257 numbers a picture."""
        import torch

        from ..models.deep3d import prepare

        network = self.context.network(NETWORK)
        with torch.inference_mode():
            parts = prepare(pictures).split(FRAMES_PER_FORWARD)
            return np.concatenate([network(part.to(self.context.device)).float().cpu().numpy() for part in parts])

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame shows a face."""
        rows, alignments, counts = self.collected()
        return {"coefficients": rows, "alignment": alignments, **counts}
