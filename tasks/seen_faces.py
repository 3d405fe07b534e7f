"""For extractors that reduce the stored faces: the frames in which there is one, and rows that are null elsewhere."""

from __future__ import annotations

import numpy as np

from ..core.errors import NoFace
from .extractor import Batch, Context, ExtractorSpec
from .faces import Face


class SeenFaces:
    """Collects the subject's face of every frame of a clip; a subclass makes the row of them in `finish`.

    Attributes:
        count: frames so far.
        frames: numbers of the frames with a face, ascending.
        faces: their faces.
    """

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self.count = 0
        self.frames: list[int] = []
        self.faces: list[Face] = []

    def push(self, batch: Batch) -> None:
        """Takes the next frames."""
        self.count += len(batch.faces)
        for index, face in zip(batch.index, batch.faces, strict=True):
            if face is not None:
                self.frames.append(int(index))
                self.faces.append(face)

    def check(self) -> None:
        """Raises NoFace when no frame shows a face."""
        if not self.faces:
            raise NoFace(f"no face in any of {self.count} frames")

    @property
    def missing(self) -> int:
        """Frames without a face."""
        return self.count - len(self.faces)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values of the frames with a face, (K, D), as float32 (N, D) with NaN (stored as null) elsewhere."""
        out = np.full((self.count, *values.shape[1:]), np.nan, dtype=np.float32)
        out[self.frames] = values
        return out

    def spread_series(self, values: np.ndarray) -> list[float | None]:
        """The same for one number a frame, (K,): N numbers, None elsewhere."""
        out: list[float | None] = [None] * self.count
        for frame, value in zip(self.frames, values, strict=True):
            out[frame] = float(value)
        return out
