"""Named crops of dataset builds: which part of each frame goes into the crop video, as a 2x3 matrix a frame.

A crop is declared in `CROPS_NAMED`; its rule is part of the cache key of the videos. Given batches of frames with their
faces it says for each frame what to cut out. Boxes are those of the 478 landmarks (chin to hairline, ear to ear), where
the published chains take a face detector's box.

Coordinates of matrices: whole numbers are the centres of pixels, (0, 0) that of the top left one. So
`cv2.warpAffine(frame, matrix, (size, size))` shows the crop, up to the method of interpolation. Landmarks count from
the picture's corner, half a pixel more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor
from typing import TypeAlias

import cv2
import numpy as np

from ..core.registry import Registry
from .crop import ALIGNED_TEMPLATE, ANCHOR_FRAMES, cut_rectangle, key_points, pixel_box, similarity
from .extractor import Batch
from .faces import Face

SYNCNET_SCALE = 0.4
SYNCNET_MEDIAN = 13  # frames
SYNCNET_LEVEL = 110  # of 255, around the frame
DICE_GROWTH = 0.5  # of the box's width and height, on each side
UNION_RATIO = 1.5
TEMPLATE_SIZE = 224  # pixels, canvas of `ALIGNED_TEMPLATE`

Window: TypeAlias = tuple[float, float, float, float]  # left, top, width, height as fractions of the frame
Track: TypeAlias = Sequence[Face | None]  # the subject in each frame of a clip


@dataclass(frozen=True)
class Rectangle:
    """Whole pixels to cut out and scale; they may lie outside the frame.

    Attributes:
        left, top, width, height: in source pixels.
        level: grey value outside the frame; None mirrors the frame there.
        method: interpolation of `cv2.resize`; None takes area averages, and bilinear where it enlarges.
    """

    left: int
    top: int
    width: int
    height: int
    level: int | None = None
    method: int | None = None

    def matrix(self, size: int) -> np.ndarray:
        """Source to crop, (2, 3) float64."""
        x, y = size / self.width, size / self.height
        return np.array([[x, 0, (0.5 - self.left) * x - 0.5], [0, y, (0.5 - self.top) * y - 0.5]])

    def picture(self, frame: np.ndarray, size: int) -> np.ndarray:
        """The crop of uint8 (H, W, 3), (size, size, 3)."""
        cut = cut_rectangle(frame, self.left, self.top, self.width, self.height, self.level)
        method = cv2.INTER_AREA if self.width >= size else cv2.INTER_LINEAR
        return cv2.resize(cut, (size, size), interpolation=method if self.method is None else self.method)


@dataclass(frozen=True)
class Turned:
    """A face turned and scaled onto the template: the least-squares similarity of eyes and mouth.

    Attributes:
        to_template: (2, 3), source to the template's canvas.
    """

    to_template: np.ndarray

    def matrix(self, size: int) -> np.ndarray:
        """Source to crop, (2, 3) float64."""
        scale = size / TEMPLATE_SIZE
        matrix = self.to_template * scale
        matrix[:, 2] += (scale - 1) / 2  # canvases are scaled about their corners, not about pixel centres
        return matrix

    def picture(self, frame: np.ndarray, size: int) -> np.ndarray:
        """The crop of uint8 (H, W, 3), (size, size, 3)."""
        border = cv2.BORDER_REFLECT_101
        return cv2.warpAffine(frame, self.matrix(size), (size, size), flags=cv2.INTER_LINEAR, borderMode=border)


Cut: TypeAlias = Rectangle | Turned
Cutter: TypeAlias = Callable[[Batch], list[Cut | None]]  # batches of one clip in order; what to cut out of each frame


@dataclass(frozen=True)
class CropSpec:
    """Declaration of a crop.

    Attributes:
        name: as in a build's configuration.
        what: one line for listings.
        rule: how it is made, constants included; part of the identity of every crop video.
        cutter: makes the clip's `Cutter` from its faces and its annotated window.
        track: needs the faces of the whole clip before the first frame; `cutter` gets an empty track otherwise.
        window: takes the clip's annotated window where there is one, and needs no faces then.
        interpolation, border: of the pictures.
    """

    name: str
    what: str
    rule: str
    cutter: Callable[[Track, Window | None], Cutter]
    track: bool = False
    window: bool = False
    interpolation: str = "area average, bilinear where it enlarges"
    border: str = "mirrored"


def square_of(square: np.ndarray) -> Rectangle:
    """The square (centre x, centre y, side) in whole pixels."""
    left, top, side = pixel_box(square)
    return Rectangle(left, top, side, side)


def dice_square(box: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Square around a face, inside the frame wherever the box is.

    The box grows by half its width and height on each side and is clamped to the frame; a square of the smaller side
    slides along the longer one toward the face's centre, by at most half the difference (DICE-Talk's preparation).

    Args:
        box: left, top, right, bottom in pixels.
        shape: of the frame, (height, width, ...).

    Returns:
        Centre x, centre y, side.
    """
    low, high = np.asarray(box[:2], float), np.asarray(box[2:], float)
    growth = DICE_GROWTH * (high - low)
    limit = np.array([shape[1], shape[0]], float)
    first, last = np.maximum(low - growth, 0), np.minimum(high + growth, limit)
    side = (last - first).min()
    slack = (last - first - side) / 2
    middle = (first + last) / 2
    return np.array([*(middle + np.clip((low + high) / 2 - middle, -slack, slack)), side])


def boxes_of(track: Track) -> tuple[np.ndarray, np.ndarray]:
    """Landmark boxes (N, 4), NaN where the subject is not seen, and its identities (N,), -1 there."""
    boxes = np.array([(np.nan,) * 4 if face is None else face.box for face in track]).reshape(-1, 4)
    return boxes, np.array([-1 if face is None else face.track for face in track], int)


def syncnet_squares(boxes: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """The squares of SyncNet's pipeline: gaps interpolated, then centre and half side smoothed by a running median.

    The median has zeros beyond the ends, as `scipy.signal.medfilt` has them. A track of fewer than 13 frames gets the
    longest odd window that fits, for otherwise the zeros would win.

    Args:
        boxes: (N, 4) left, top, right, bottom in pixels, NaN where there is none.
        tracks: (N,) identity of the box, -1 where there is none.

    Returns:
        (N, 3) centre x, centre y, half side s = max(width, height) / 2; NaN before, between and after tracks.
    """
    squares = np.full((len(boxes), 3), np.nan)
    seen = np.flatnonzero(tracks >= 0)
    for run in np.split(seen, np.flatnonzero(np.diff(tracks[seen])) + 1):
        if len(run):
            frames = np.arange(run[0], run[-1] + 1)
            whole = np.stack([np.interp(frames, run, boxes[run, k]) for k in range(4)], axis=1)
            centre, size = (whole[:, :2] + whole[:, 2:]) / 2, whole[:, 2:] - whole[:, :2]
            squares[frames] = _median(np.column_stack([centre, size.max(axis=1) / 2]))
    return squares


def _median(series: np.ndarray) -> np.ndarray:
    width = min(SYNCNET_MEDIAN, (len(series) - 1) // 2 * 2 + 1)
    padded = np.pad(series, ((width // 2, width // 2), (0, 0)))
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=0), axis=-1)


def syncnet_rectangle(square: np.ndarray) -> Rectangle:
    """Half a side above the centre, 1.8 below, 1.4 to the left and right; in whole pixels as upstream's slices are.

    Args:
        square: centre x, centre y, half side s.
    """
    x, y, s = (float(value) for value in square)
    pad = int(s * (1 + 2 * SYNCNET_SCALE))  # added and taken off again: it decides how halves are cut off
    top, bottom = floor(y + pad - s), floor(y + pad + s * (1 + 2 * SYNCNET_SCALE))
    left, right = floor(x + pad - s * (1 + SYNCNET_SCALE)), floor(x + pad + s * (1 + SYNCNET_SCALE))
    size = max(2, right - left), max(2, bottom - top)
    return Rectangle(left - pad, top - pad, *size, level=SYNCNET_LEVEL, method=cv2.INTER_LINEAR)


def union_square(boxes: np.ndarray) -> np.ndarray:
    """Centre x, centre y and side of the square around all boxes (N, 4) but NaN, grown by `UNION_RATIO`."""
    low, high = np.nanmin(boxes[:, :2], axis=0), np.nanmax(boxes[:, 2:], axis=0)
    return np.array([*((low + high) / 2), UNION_RATIO * (high - low).max()])


def window_square(window: Window, shape: tuple[int, ...]) -> np.ndarray:
    """The annotated window of a frame (height, width, ...) as centre x, centre y, side: its longer side, centred."""
    left, top, width, height = np.asarray(window) * [shape[1], shape[0], shape[1], shape[0]]
    return np.array([left + width / 2, top + height / 2, max(width, height)])


def _ffhq(track: Track, window: Window | None) -> Cutter:
    return lambda batch: [None if square is None else square_of(square) for square in batch.squares]


def _dice(track: Track, window: Window | None) -> Cutter:
    def cut(batch: Batch) -> list[Cut | None]:
        shape = batch.frames[0].shape
        return [None if box is None else square_of(dice_square(box, shape)) for box in batch.boxes]

    return cut


def _syncnet(track: Track, window: Window | None) -> Cutter:
    squares = syncnet_squares(*boxes_of(track))
    return lambda batch: [None if np.isnan(s).any() else syncnet_rectangle(s) for s in squares[batch.index]]


def _union(track: Track, window: Window | None) -> Cutter:
    one = square_of(union_square(boxes_of(track)[0]))
    return lambda batch: [one] * len(batch.frames)


def _annotated(track: Track, window: Window | None) -> Cutter:
    if window is None:
        return _union(track, window)
    return lambda batch: [square_of(window_square(window, batch.frames[0].shape))] * len(batch.frames)


def _aligned(track: Track, window: Window | None) -> Cutter:
    last: Turned | None = None
    scene = 0

    def cut(batch: Batch) -> list[Cut | None]:
        nonlocal last, scene
        cuts: list[Cut | None] = []
        for face, number in zip(batch.faces, batch.scenes, strict=True):
            last, scene = (None if number != scene else last), number
            last = last if face is None else Turned(similarity(key_points(face), ALIGNED_TEMPLATE))
            cuts.append(last)
        return cuts

    return cut


_UNION_RULE = f"one square a clip: the longer side of the union of all landmark boxes, times {UNION_RATIO}, centred"
CROPS_NAMED = (
    CropSpec(
        name="ffhq",
        what="one FFHQ-style square a scene, from its first faces",
        rule=f"square of side 2 max(2.0 |eye - eye|, 1.8 |eyes - mouth|) around eyes + 0.1 (mouth - eyes), median over "
        f"the faces of the first {ANCHOR_FRAMES} frames of a scene's subject, kept while it is away",
        cutter=_ffhq,
    ),
    CropSpec(
        name="dice-square",
        what="DICE-Talk's square inside the frame, one a scene",
        rule=f"landmark box, median over the faces of the first {ANCHOR_FRAMES} frames of a scene's subject, grown by "
        f"{DICE_GROWTH} of its width and height on each side, clamped to the frame; then a square of the smaller side, "
        "slid toward the face by at most half the difference; kept while the subject is away",
        cutter=_dice,
        border="mirrored, reached by rounding only",
    ),
    CropSpec(
        name="syncnet-square",
        what="SyncNet's smoothed square, which follows the face",
        rule=f"landmark box (not S3FD's), gaps of a track interpolated, s = max(w, h) / 2, running median of "
        f"{SYNCNET_MEDIAN} frames over centre and s; rows cy - s to cy + s (1 + 2 c), columns cx -+ s (1 + c), "
        f"c = {SYNCNET_SCALE}; nothing outside tracks",
        cutter=_syncnet,
        track=True,
        interpolation="bilinear",
        border=f"grey {SYNCNET_LEVEL}",
    ),
    CropSpec(
        name="hdtf-union",
        what="one square a clip around all places of the face",
        rule=_UNION_RULE,
        cutter=_union,
        track=True,
    ),
    CropSpec(
        name="annotated",
        what="the dataset's annotated window, else hdtf-union",
        rule=f"square of the annotated window's longer side around its centre; without a window: {_UNION_RULE}",
        cutter=_annotated,
        track=True,
        window=True,
    ),
    CropSpec(
        name="align-224",
        what="every face turned and scaled onto a template",
        rule="least-squares similarity of eye centres and mouth to (87, 59), (137, 59), (112, 120) of a 224 x 224 "
        "canvas, scaled to the crop's size; the last one of a scene is kept while the subject is away",
        cutter=_aligned,
        interpolation="bilinear",
    ),
)
crops: Registry[CropSpec] = Registry("crop")
crops.discover("talkforge.tasks", "CROPS_NAMED", key=lambda spec: spec.name)
