"""Extractor `strip`: thumbnails of the clip's second by second, for reports. Nothing is scored from it."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from ..core.errors import EmptyVideo
from .extractor import Batch, Context, ExtractorSpec

HEIGHT = 96  # pixels
COUNT = 10
QUALITY = 80
KEEP = 2 * COUNT

STRIP = ExtractorSpec(
    id="strip",
    version=1,
    target="talkforge.tasks.extract_strip:Strip",
    columns={"jpeg": pa.binary(), "seconds": pa.list_(pa.float32())},
    what="ten evenly spaced thumbnails side by side (JPEG), for reports",
    picture=True,
    params={"height": HEIGHT, "count": COUNT, "quality": QUALITY},
)
EXTRACTORS = (STRIP,)


class Strip:
    """Keeps evenly spaced thumbnails without knowing the clip's length: every 2^k-th frame, k grown as needed."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self._step = 1
        self._kept: dict[int, np.ndarray] = {}

    def push(self, batch: Batch) -> None:
        """Takes frames whose number the present step divides; a full store drops every second one."""
        for index, frame, picture in zip(batch.index, batch.frames, batch.subject, strict=True):
            if index % self._step == 0:
                self._kept[int(index)] = _thumbnail(frame if picture is None else picture)
            if len(self._kept) > KEEP:
                self._step *= 2
                self._kept = {k: image for k, image in self._kept.items() if k % self._step == 0}

    def finish(self) -> dict[str, Any]:
        """The row: `COUNT` of the kept thumbnails."""
        if not self._kept:
            raise EmptyVideo("no frames")
        numbers = sorted(self._kept)
        chosen = [numbers[k] for k in np.unique(np.linspace(0, len(numbers) - 1, COUNT).round().astype(int))]
        image = np.concatenate([_fit(self._kept[k], self._kept[chosen[0]].shape[1]) for k in chosen], axis=1)
        out = io.BytesIO()
        Image.fromarray(image).save(out, "JPEG", quality=QUALITY)
        return {"jpeg": out.getvalue(), "seconds": [k / 25 for k in chosen]}


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return cv2.resize(frame, (max(1, round(width * HEIGHT / height)), HEIGHT), interpolation=cv2.INTER_AREA)


def _fit(image: np.ndarray, width: int) -> np.ndarray:
    """The image in `width` columns: frames without a face keep the full frame's shape and are squeezed to fit."""
    return image if image.shape[1] == width else cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_AREA)
