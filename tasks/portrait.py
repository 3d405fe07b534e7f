"""A portrait as a trained model sees it: cut around its face and scaled as the training's pictures were, and a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..core.counters import Counters
from ..core.errors import NoFace
from .crop import ffhq_square
from .crops import Cut, crops
from .extractor import Batch
from .face_mask import boxes_in_crop, face_mask
from .faces import Face, Landmarker
from .methods import read_portrait
from .warp import find_face


@dataclass(frozen=True)
class Shot:
    """A portrait as the model sees it.

    Attributes:
        picture: uint8 (size, size, 3) RGB.
        mask: float32 (1, 1, size, size).
        faces: seen in the portrait; the largest one is taken.
        points: (N, 3) the face's landmarks, pixels of the portrait.
        transform: (2, 3), portrait to the crop of `crop_size` pixels.
    """

    picture: np.ndarray
    mask: np.ndarray
    faces: int
    points: np.ndarray
    transform: np.ndarray

    def box(self, chosen: Sequence[int] | None = None) -> np.ndarray:
        """The box around all or some of the points, float64 (4,): left, top, right, bottom in pixels of the crop."""
        points = self.points if chosen is None else self.points[list(chosen)]
        return boxes_in_crop(points.reshape(1, -1), self.transform.reshape(1, 6))[0]


def shot_of(portrait: Path, crop: str, crop_size: int, size: int, box_scale: float) -> Shot:
    """A portrait for a model.

    Args:
        portrait: image, or a clip whose first frame is taken.
        crop, crop_size: name and pixels of the crop that the training's pictures had.
        size: side of the model's pictures.
        box_scale: see `face_mask`.

    Raises:
        NoFace, NotMedia.
    """
    frame = read_portrait(portrait)
    face, faces = face_in(frame, portrait.name)
    cut = cut_of(frame, face, crop)
    points, transform = face.points, cut.matrix(crop_size)
    boxes = boxes_in_crop(points.reshape(1, -1), transform.reshape(1, 6))
    mask = face_mask(boxes, crop_size, crop_size, size, box_scale)
    return Shot(resized(cut.picture(frame, crop_size), size), mask, faces, points, transform)


def face_in(frame: np.ndarray, name: str) -> tuple[Face, int]:
    """The largest face of a portrait, and how many there are. Raises NoFace."""
    with Landmarker(Counters()) as landmarker:
        seen = len(landmarker.detect(frame, 0))
    try:
        return find_face(frame, name), seen
    except NoFace as error:
        raise NoFace(error.message, hint="give a picture with one clear frontal face") from error


def cut_of(frame: np.ndarray, face: Face, crop: str) -> Cut:
    """What a named crop cuts out of a portrait, as if it were a clip of one frame."""
    batch = Batch(
        index=np.array([0]),
        frames=[frame],
        faces=[face],
        scenes=[0],
        subject=[None],
        squares=[ffhq_square(face)],
        boxes=[np.array(face.box)],
    )
    found = crops.get(crop).cutter([face], None)(batch)[0]
    assert found is not None, "every crop cuts a frame that shows its subject"
    return found


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """A square picture at the model's size, as `talking_batches` makes those of training."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))


def enlarged(frame: np.ndarray, factor: int) -> np.ndarray:
    """A picture `factor` times as large by Lanczos' method."""
    if factor == 1:
        return frame
    side = (frame.shape[1] * factor, frame.shape[0] * factor)
    return cv2.resize(frame, side, interpolation=cv2.INTER_LANCZOS4)
