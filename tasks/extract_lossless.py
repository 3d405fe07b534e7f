"""Extractor `pictures-lossless`: the clip's pictures under the run's crop, to the last bit, for metrics of pixels.

Such metrics hold both sides' pictures against each other, and each clip is decoded once and by itself; so the pictures
are stored. They take room, about 45 KB a 224 x 224 picture or 11 MB for 10 s, and are made on request only.

Each picture is a lossless WebP file of its own. On crops of real clips the fastest setting came out smaller than
lossless H.264 in RGB at its "veryfast" (0.31 against 0.34 of the raw bytes, PNG 0.45), at half the time, and a reader
needs no video decoder and no picture but the one it wants.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import InputError, NoFace
from ..core.lossless import append_picture
from .extractor import Batch, Context, ExtractorSpec, series

MOST_SIDE = 16383  # pixels, of the format
MOST_BYTES = 2**30  # of one clip: the row is held in memory

LOSSLESS = ExtractorSpec(
    id="pictures-lossless",
    version=1,
    target="talkforge.tasks.extract_lossless:LosslessPictures",
    columns={
        "pictures": pa.large_binary(),
        "ends": series(pa.int64()),
        "frame": series(pa.int32()),
        "n_frames": pa.int32(),
    },
    what="Pictures under the run's crop as lossless WebP files one after the other, where each ends, and their frames",
    picture=True,
    params={"format": "webp-lossless"},
)
EXTRACTORS = (LOSSLESS,)


class LosslessPictures:
    """One clip's pictures."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self._pictures = io.BytesIO()
        self._ends: list[int] = []
        self._frames: list[int] = []
        self._n_frames = 0

    def push(self, batch: Batch) -> None:
        """Stores the frames that have a picture. Raises InputError for what the format or memory cannot hold."""
        self._n_frames += len(batch.subject)
        for index, picture in zip(batch.index, batch.subject, strict=True):
            if picture is not None:
                self._append(picture)
                self._frames.append(int(index))

    def _append(self, picture: np.ndarray) -> None:
        if max(picture.shape) > MOST_SIDE:
            raise InputError(f"pictures of {picture.shape[1]}x{picture.shape[0]}; a side may have {MOST_SIDE} pixels")
        self._ends.append(append_picture(self._pictures, picture))
        if self._ends[-1] > MOST_BYTES:
            raise InputError(
                f"{len(self._ends)} pictures take more than {MOST_BYTES >> 20} MiB without loss",
                hint="compare shorter clips, or use --crop face",
            )

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame has a picture under the crop."""
        if not self._ends:
            raise NoFace(f"none of {self._n_frames} frames shows a face to crop")
        return {
            "pictures": self._pictures.getvalue(),
            "ends": np.array(self._ends, dtype=np.int64),
            "frame": np.array(self._frames, dtype=np.int32),
            "n_frames": self._n_frames,
        }
