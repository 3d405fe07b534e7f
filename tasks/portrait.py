"""A portrait as a trained model sees it: cut around its face and scaled as the training's pictures were, and a mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..core.counters import Counters
from ..core.errors import NoFace
from ..models.dice_talk.denoiser_config import DiceTalkConfig
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
    """

    picture: np.ndarray
    mask: np.ndarray
    faces: int


def shot_of(portrait: Path, crop: str, crop_size: int, config: DiceTalkConfig) -> Shot:
    """A portrait for a model.

    Args:
        portrait: image, or a clip whose first frame is taken.
        crop, crop_size: name and pixels of the crop that the training's pictures had.
        config: the model's.

    Raises:
        NoFace, NotMedia.
    """
    frame = read_portrait(portrait)
    face, faces = face_in(frame, portrait.name)
    cut = cut_of(frame, face, crop)
    boxes = boxes_in_crop(face.points.reshape(1, -1), cut.matrix(crop_size).reshape(1, 6))
    mask = face_mask(boxes, crop_size, crop_size, config.size, config.pose.box_scale)
    return Shot(resized(cut.picture(frame, crop_size), config.size), mask, faces)


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
