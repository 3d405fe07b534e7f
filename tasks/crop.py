"""Named crops. A crop rule is part of a number's protocol, so each has a name and fixed constants.

`face`: one axis-aligned FFHQ-style square a scene. Centre c = eyes + 0.1 (mouth - eyes), half side
h = max(2.0 |eye - eye|, 1.8 |eyes - mouth|) (Karras et al. 2019, appendix; SadTalker takes the hull from frame 1 only).
Ours is the median over the frames with a face among the first 25 since the face appeared, so that one bad frame does
not set the box, a stream needs no second decode, and no jitter of the detector enters the video.

`none`: the frame as it is.

These two are what metrics and extractors look at. The crops that a dataset build can write as videos are in `crops`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from .faces import LEFT_EYE_RING, MOUTH_CORNERS, RIGHT_EYE_RING, Face

ANCHOR_FRAMES = 25
BRIDGED_FRAMES = 5
FACE_SIZE = 224  # pixels
CROPS = ("face", "none")
CROP_RULES = {
    "face": f"ffhq-square-anchor{ANCHOR_FRAMES}, {FACE_SIZE}px, mirrored border, gaps to {BRIDGED_FRAMES} bridged",
    "none": "full frame",
}

# 224x224 template of the similarity crop: eye centres and mouth centre.
ALIGNED_TEMPLATE = np.array([[87.0, 59.0], [137.0, 59.0], [112.0, 120.0]])


def key_points(face: Face) -> np.ndarray:
    """Centres of right eye, left eye and mouth (the person's right first), float64 (3, 2) pixels."""
    groups = (RIGHT_EYE_RING, LEFT_EYE_RING, MOUTH_CORNERS)
    return np.stack([face.points[list(group), :2].astype(np.float64).mean(axis=0) for group in groups])


def ffhq_square(face: Face) -> np.ndarray:
    """Centre x, centre y and side of the FFHQ-style square, float64 (3,) pixels."""
    right, left, mouth = key_points(face)
    eyes = (right + left) / 2
    half = max(2.0 * float(np.linalg.norm(left - right)), 1.8 * float(np.linalg.norm(mouth - eyes)))
    return np.array([*(eyes + 0.1 * (mouth - eyes)), 2 * half])


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares 2D similarity (rotation, scale, shift) from source to target points.

    Args:
        source, target: (K, 2), K >= 2.

    Returns:
        (2, 3) matrix M with target ~ M [x, y, 1]. Closed form over a = s cos, b = s sin.
    """
    centre_s, centre_t = source.mean(axis=0), target.mean(axis=0)
    s, t = source - centre_s, target - centre_t
    norm = float((s**2).sum())
    a = float((s * t).sum()) / norm
    b = float((s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum()) / norm
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, centre_t - linear @ centre_s])


def aligned_224(frame: np.ndarray, face: Face) -> np.ndarray:
    """The face rotated and scaled onto the 224x224 template, uint8 (224, 224, 3)."""
    matrix = similarity(key_points(face), ALIGNED_TEMPLATE)
    return cv2.warpAffine(frame, matrix, (224, 224), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def pixel_box(square: np.ndarray) -> tuple[int, int, int]:
    """Left, top and side in whole pixels of the square (centre x, centre y, side); it may reach outside the frame."""
    side = max(2, round(float(square[2])))
    return round(float(square[0] - square[2] / 2)), round(float(square[1] - square[2] / 2)), side


def crop_square(frame: np.ndarray, square: np.ndarray, size: int = FACE_SIZE) -> np.ndarray:
    """Cuts the square (centre x, centre y, side) and scales it to (size, size, 3); outside the frame it mirrors."""
    left, top, side = pixel_box(square)
    cut = cut_rectangle(frame, left, top, side, side)
    method = cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR
    return cv2.resize(cut, (size, size), interpolation=method)


def cut_rectangle(
    frame: np.ndarray, left: int, top: int, width: int, height: int, level: int | None = None
) -> np.ndarray:
    """(height, width, 3) of the frame; outside it is mirrored, or grey where a level is given."""
    rows, columns = frame.shape[:2]
    pad = max(0, -left, -top, left + width - columns, top + height - rows)
    if pad:
        border = cv2.BORDER_REFLECT_101 if level is None else cv2.BORDER_CONSTANT
        frame = cv2.copyMakeBorder(frame, pad, pad, pad, pad, border, value=(level or 0,) * 3)
    return frame[top + pad : top + pad + height, left + pad : left + pad + width]


@dataclass
class Item:
    """A frame on its way through the pass."""

    index: int
    frame: np.ndarray
    face: Face | None
    scene: int = 0
    subject: np.ndarray | None = None
    square: np.ndarray | None = None  # the scene's settled square, held over gaps of any length
    box: np.ndarray | None = None  # and the box of the landmarks that belongs to it


@dataclass
class FaceCropper:
    """Crops a stream of frames with one anchored square a scene and track; holds back at most `ANCHOR_FRAMES`.

    A gap of up to `BRIDGED_FRAMES` frames without a face inside a scene is cropped with the same square: the picture
    there is part of the clip, and leaving out just the frames in which a generator broke the face would flatter it.
    """

    squares: list[tuple[int, list[float]]] = field(default_factory=list)  # first frame, (centre x, centre y, side)
    bridged: int = 0
    _waiting: list[Item] = field(default_factory=list)
    _key: tuple[int, int | None] = (0, None)
    _square: np.ndarray | None = None
    _box: np.ndarray | None = None
    _last_seen: int | None = None

    def push(self, item: Item) -> Iterator[Item]:
        """Takes the next frame; gives frames whose crop is settled, in order."""
        key = self._key_of(item)
        if key != self._key:
            yield from self.flush()
            self._key, self._square, self._box, self._last_seen = key, None, None, None
        if self._square is None and key[1] is not None:
            self._waiting.append(item)
            if len(self._waiting) == ANCHOR_FRAMES:
                yield from self.flush()
        else:
            yield self._crop(item)

    def _key_of(self, item: Item) -> tuple[int, int | None]:
        if item.face is not None:
            return item.scene, item.face.track
        return self._key if item.scene == self._key[0] else (item.scene, None)

    def flush(self) -> Iterator[Item]:
        """Settles the square from what was seen and gives all frames held back."""
        waiting, self._waiting = self._waiting, []
        seen = [ffhq_square(item.face) for item in waiting if item.face]
        if seen:
            self._square = np.median(seen, axis=0)
            self._box = np.median([item.face.box for item in waiting if item.face], axis=0)
            self.squares.append((waiting[0].index, [round(float(v), 2) for v in self._square]))
        for item in waiting:
            yield self._crop(item)

    def _crop(self, item: Item) -> Item:
        if item.face is not None:
            self._last_seen = item.index
        item.square, item.box = self._square, self._box
        if self._square is not None and self._last_seen is not None:
            gap = item.index - self._last_seen
            if gap <= BRIDGED_FRAMES:
                item.subject = crop_square(item.frame, self._square)
                self.bridged += gap > 0
        return item
