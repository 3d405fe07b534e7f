"""Extractors `landmarks68-mediapipe` and `landmarks68-fan`: the 68 landmarks of the face, from two sources.

Same columns in both. `points` are x and y of each landmark in pixels of the frame. MediaPipe's are picked out of its
478 by place (see `core.landmarks`). FAN's are those of the network 2DFAN-4 (A. Bulat, G. Tzimiropoulos, "How far are we
from solving the 2D & 3D face alignment problem?", ICCV 2017), which follow the jaw's visible contour on a turned head;
the box is that of the tracker's face, so nothing is detected twice.

`score` is the mean over the 68 of FAN's heatmap maxima, about 1 where it is certain. MediaPipe's landmarker gives no
score of its landmarks, so there it is null in every frame. A frame without a face is null in both columns.

FAN's numbers are made as the package face-alignment 1.5 makes them, without its flipped second look: crop and pixels
are whole numbers, rounded towards zero. That package reads the same network from a state dict; the file here is the
TorchScript one of its releases before 1.5.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from ..core.errors import NoFace
from ..core.landmarks import landmarks_68
from ..core.weights import weights_store
from .extractor import Batch, Context, ExtractorSpec, series, vectors
from .faces import LANDMARKER, Face
from .seen_faces import SeenFaces
from .torchscript import load_script

FAN = "fan-2d"
NETWORK = "talkforge.tasks.extract_landmarks68:load_fan"
SIZE, HEATMAP = 256, 64
REFERENCE = 195.0  # sum of a box's sides at scale 1; a scale of 1 is a crop of 200 pixels
SIDE = 200.0
RAISE = 0.12  # share of the box's height by which the crop's centre lies above the box's

COLUMNS = {"points": vectors(136), "score": series(), "n_frames": pa.int32(), "n_missing": pa.int32()}
MEDIAPIPE_SPEC = ExtractorSpec(
    id="landmarks68-mediapipe",
    version=1,
    target="talkforge.tasks.extract_landmarks68:FromMediaPipe",
    columns=COLUMNS,
    what="68 landmarks out of MediaPipe's 478, pixels; no score",
    faces=True,
    weights=(LANDMARKER,),
)
FAN_SPEC = ExtractorSpec(
    id="landmarks68-fan",
    version=1,
    target="talkforge.tasks.extract_landmarks68:FromFan",
    columns=COLUMNS,
    what="68 landmarks by FAN (2DFAN-4) in the tracker's box, whole pixels, and their score",
    faces=True,
    weights=(LANDMARKER, FAN),
    params={"box": "478 points", "reference": REFERENCE, "flip": False},
)
EXTRACTORS = (MEDIAPIPE_SPEC, FAN_SPEC)


class FromMediaPipe(SeenFaces):
    """The stored points, 68 of them."""

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame shows a face."""
        self.check()
        points = landmarks_68(np.stack([face.points for face in self.faces]))[..., :2]
        return {
            "points": self.spread(points.reshape(len(points), 136)),
            "score": [None] * self.count,
            "n_frames": self.count,
            "n_missing": self.missing,
        }


def load_fan() -> Any:
    """The network of the weights store, a TorchScript module: (B, 3, 256, 256) RGB in [0, 1] to (B, 68, 64, 64).

    Raises:
        WeightsMissing, WeightsCorrupt: see `AssetStore.path`.
    """
    return load_script(weights_store().path(FAN))


def placement(box: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (2,) and side in pixels of the square that FAN sees for a box.

    Args:
        box: (4,) left, top, right, bottom in pixels.
    """
    left, top, right, bottom = (float(edge) for edge in box)
    centre = np.array([(left + right) / 2, (top + bottom) / 2 - RAISE * (bottom - top)])
    return centre, SIDE * (right - left + bottom - top) / REFERENCE


def fan_crop(frame: np.ndarray, centre: np.ndarray, side: float) -> np.ndarray:
    """What FAN sees: uint8 (256, 256, 3), black outside the frame.

    Args:
        frame: uint8 (H, W, 3).
        centre, side: see `placement`.
    """
    # The corners are where the crop's pixels 1 and 256 come from.
    low = np.trunc(centre + (1 / SIZE - 0.5) * side).astype(int)
    high = np.trunc(centre + 0.5 * side).astype(int)
    width, height = np.maximum(high - low, 1)
    out = np.zeros((height, width, 3), dtype=np.uint8)
    inside = frame[max(low[1], 0) : max(high[1], 0), max(low[0], 0) : max(high[0], 0)]
    y, x = max(-low[1], 0), max(-low[0], 0)
    out[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return cv2.resize(out, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)


def peaks(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each heatmap is highest, a quarter of a cell towards its higher neighbours, and how high.

    Args:
        heatmaps: float32 (68, 64, 64).

    Returns:
        (68, 2) x and y in cells, with 0.5 at the centre of the first; (68,) heights.
    """
    flat = heatmaps.reshape(len(heatmaps), -1)
    top = flat.argmax(axis=1)
    y, x = np.divmod(top, HEATMAP)
    places = np.stack([x, y], axis=1) + 0.5
    edge = HEATMAP - 1
    for k in np.flatnonzero((x > 0) & (x < edge) & (y > 0) & (y < edge)):
        around = heatmaps[k, y[k] - 1 : y[k] + 2, x[k] - 1 : x[k] + 2]
        slope = np.array([around[1, 2] - around[1, 0], around[2, 1] - around[0, 1]])
        places[k] += 0.25 * np.sign(slope)
    return places, flat[np.arange(len(flat)), top]


def to_frame(places: np.ndarray, centre: np.ndarray, side: float) -> np.ndarray:
    """Heatmap places (68, 2) as whole pixels of the frame, float32."""
    return np.trunc(centre + (places / HEATMAP - 0.5) * side).astype(np.float32)


class FromFan:
    """The landmarks of one clip; each face goes through the network alone, as in the package."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self.context = context
        self._points: list[np.ndarray] = []
        self._scores: list[float | None] = []

    def push(self, batch: Batch) -> None:
        """Takes the next frames."""
        for frame, face in zip(batch.frames, batch.faces, strict=True):
            points, score = self._landmarks(frame, face) if face is not None else (np.full(136, np.nan), None)
            self._points.append(points)
            self._scores.append(score)

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame shows a face."""
        missing = self._scores.count(None)
        if missing == len(self._scores):
            raise NoFace(f"no face in any of {missing} frames")
        points = np.stack(self._points).astype(np.float32)
        return {"points": points, "score": self._scores, "n_frames": len(points), "n_missing": missing}

    def _landmarks(self, frame: np.ndarray, face: Face) -> tuple[np.ndarray, float]:
        centre, side = placement(np.array(face.box))
        places, heights = peaks(self._heatmaps(fan_crop(frame, centre, side)))
        self.context.counters.forwards["landmarks68-fan"] += 1
        return to_frame(places, centre, side).ravel(), float(heights.mean())

    def _heatmaps(self, picture: np.ndarray) -> np.ndarray:
        """(68, 64, 64) float32."""
        import torch

        network = self.context.network(NETWORK)
        batch = torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32) / 255)
        with torch.inference_mode():
            return network(batch.to(self.context.device)).float().cpu().numpy()[0]
