"""Extractor `tddfa-v2`: 62 coefficients of 3DDFA_V2 for every frame with a face.

The crop is 3DDFA_V2's rule for tracked faces, from the 68 landmarks: the square around their box with the longer side
as its side, grown by sqrt(2) about its centre (so that its side is the inner square's diagonal), corners rounded to
pixels, black outside the picture, resized to 120x120 (bilinear). The landmarks are MediaPipe's, by place; 3DDFA_V2
takes those of its own previous frame, and its detector's box in the first. So each frame stands for itself here.

Columns: `coefficients` in the model's units (12 pose, 40 shape, 10 expression; see `models.tddfa`), `rotation` in
degrees as `head_pose` defines it, from the pose's two first rows, and `box` (left, top, right, bottom, pixels), which
the shift in the pose refers to. A frame without a face is null, never a mean face.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from ..core.landmarks import landmarks_68
from .extractor import ExtractorSpec, vectors
from .face_network import FaceNetwork
from .faces import LANDMARKER, Face
from .head_pose import angles_of

PARAMETERS, SIZE = 62, 120
NETWORK = "talkforge.models.tddfa:load_tddfa"

TDDFA = ExtractorSpec(
    id="tddfa-v2",
    version=1,
    target="talkforge.tasks.extract_tddfa:Coefficients",
    columns={
        "coefficients": vectors(PARAMETERS),
        "rotation": vectors(3),
        "box": vectors(4),
        "n_frames": pa.int32(),
        "n_missing": pa.int32(),
    },
    what="3DDFA_V2: 62 coefficients (12 pose, 40 shape, 10 expression), rotation in degrees, crop box",
    faces=True,
    weights=(LANDMARKER, "tddfa-v2-mb05", "tddfa-v2-mean-std"),
    params={"crop": "square of the 68 landmarks x sqrt(2)", "size": SIZE},
)
EXTRACTORS = (TDDFA,)


def crop_box(points: np.ndarray) -> np.ndarray:
    """The crop of one face, int (4,): left, top, right, bottom; may reach outside the picture.

    Args:
        points: (68, 2) pixels.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    half = float((high - low).max()) / 2 * np.sqrt(2)
    centre = (low + high) / 2
    return np.rint([*(centre - half), *(centre + half)]).astype(int)


def cut(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The box out of a uint8 (H, W, 3) picture, black outside it, at 120x120."""
    left, top, right, bottom = (int(edge) for edge in box)
    height, width = frame.shape[:2]
    out = np.zeros((max(bottom - top, 1), max(right - left, 1), 3), dtype=np.uint8)
    inside = frame[max(top, 0) : max(min(bottom, height), 0), max(left, 0) : max(min(right, width), 0)]
    y, x = max(-top, 0), max(-left, 0)
    out[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return cv2.resize(out, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)


def rotation_of_pose(pose: np.ndarray) -> np.ndarray:
    """Rotations of 3x4 poses: the first two rows normalised, the third their cross product.

    Args:
        pose: (K, 12) coefficients.

    Returns:
        (K, 3, 3) float64. The first two rows are as orthogonal as the network made them.
    """
    rows = pose.reshape(-1, 3, 4)[:, :2, :3].astype(np.float64)
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    return np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], axis=1)


class Coefficients(FaceNetwork):
    """Coefficients of one clip; the frames of a batch go through the network together."""

    width, place_width, name = PARAMETERS, 4, "tddfa-v2"

    def cut_face(self, frame: np.ndarray, face: Face) -> tuple[np.ndarray, np.ndarray]:
        """The face in its box, and the box."""
        box = crop_box(landmarks_68(face.points)[:, :2])
        return cut(frame, box), box

    def forward(self, pictures: np.ndarray) -> np.ndarray:
        """The network's 62 numbers a picture."""
        import torch

        from ..models.tddfa import prepare

        network = self.context.network(NETWORK)
        with torch.inference_mode():
            return network(prepare(pictures).to(self.context.device)).float().cpu().numpy()

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame shows a face."""
        rows, boxes, counts = self.collected()
        rotation = angles_of(rotation_of_pose(rows[:, :12])).astype(np.float32)
        return {"coefficients": rows, "rotation": rotation, "box": boxes, **counts}
