"""Extractor `face-quality`: how sharp, large and bright the subject's face is in every frame, no network.

`sharpness` is the variance of the Laplacian (4-neighbour kernel) of the luminance on the scale 0..255, in the face of
the 224x224 template, where the eyes are 50 pixels apart; only the inner face is looked at (112x96 pixels, brows to
chin), so that a sharp background or the mirrored border does not make a face sharp. At that fixed scale a face that is
small in the source is an enlarged one, and as soft as it looks; noise and blocks of a codec count as detail. J. L.
Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000.

`side` is the smaller of width and height of the 478 landmarks' box, in pixels of the source. `luminance` and
`contrast` are mean and standard deviation of the luminance (Rec. 601) of the same inner face, 0..255.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from ..core.errors import NoFace
from .extractor import Batch, Context, ExtractorSpec, series
from .faces import LANDMARKER

INNER = (slice(40, 152), slice(64, 160))  # rows, columns of the template
COLUMNS = ("sharpness", "side", "luminance", "contrast")

QUALITY = ExtractorSpec(
    id="face-quality",
    version=1,
    target="talkforge.tasks.extract_quality:FaceQuality",
    columns={**{name: series() for name in COLUMNS}, "n_frames": pa.int32(), "n_missing": pa.int32()},
    what="sharpness (variance of the Laplacian), side in source pixels, mean and spread of luminance of the face",
    faces=True,
    weights=(LANDMARKER,),
    params={"aligned": 224, "inner": "rows 40..151, columns 64..159", "luminance": "Rec. 601, 0..255"},
)
EXTRACTORS = (QUALITY,)


def picture_quality(aligned: np.ndarray) -> tuple[float, float, float]:
    """Sharpness, mean and standard deviation of the luminance of the inner face.

    Args:
        aligned: uint8 (224, 224, 3) RGB, the face on the template.
    """
    luminance = cv2.cvtColor(aligned.astype(np.float32), cv2.COLOR_RGB2GRAY)
    # Over the whole picture first: the inner face's own edge then needs no border rule.
    detail = cv2.Laplacian(luminance, cv2.CV_32F, ksize=1)[INNER].astype(np.float64)
    face = luminance[INNER].astype(np.float64)
    return float(detail.var()), float(face.mean()), float(face.std())


class FaceQuality:
    """Quality of one clip's faces."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self._rows: list[tuple[float, ...] | None] = []

    def push(self, batch: Batch) -> None:
        """Takes the next frames."""
        for face, picture in zip(batch.faces, batch.aligned, strict=True):
            if face is None or picture is None:
                self._rows.append(None)
                continue
            left, top, right, bottom = face.box
            sharpness, luminance, contrast = picture_quality(picture)
            self._rows.append((sharpness, min(right - left, bottom - top), luminance, contrast))

    def finish(self) -> dict[str, Any]:
        """The row, null where there is no face. Raises NoFace when no frame shows one."""
        missing = self._rows.count(None)
        if missing == len(self._rows):
            raise NoFace(f"no face in any of {missing} frames")
        series_of = {name: [row and row[k] for row in self._rows] for k, name in enumerate(COLUMNS)}
        return {**series_of, "n_frames": len(self._rows), "n_missing": missing}
