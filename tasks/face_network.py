"""For extractors that send the face of each frame through a network: rows that are null where there is none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ..core.errors import NoFace
from .extractor import Batch, Context
from .faces import Face


class FaceNetwork(ABC):
    """Cuts the face out of each frame, forwards what there is, and keeps the answer and where it was cut.

    A subclass names its sizes and says how a face is cut and how pictures become coefficients.
    """

    width: int  # coefficients a frame
    place_width: int  # numbers that say where the picture was cut
    name: str  # in the counters

    def __init__(self, spec: Any, context: Context) -> None:
        self.context = context
        self._rows: list[np.ndarray] = []
        self._places: list[np.ndarray] = []
        self._count = 0

    @abstractmethod
    def cut_face(self, frame: np.ndarray, face: Face) -> tuple[np.ndarray, np.ndarray] | None:
        """The network's picture of one face and (place_width,) where it was cut; None where it is no usable face."""

    @abstractmethod
    def forward(self, pictures: np.ndarray) -> np.ndarray:
        """(K, width) coefficients of K pictures."""

    def push(self, batch: Batch) -> None:
        """Takes the next frames."""
        rows = np.full((len(batch.faces), self.width), np.nan, dtype=np.float32)
        places = np.full((len(batch.faces), self.place_width), np.nan, dtype=np.float32)
        pictures: dict[int, np.ndarray] = {}
        for k, (frame, face) in enumerate(zip(batch.frames, batch.faces, strict=True)):
            found = None if face is None else self.cut_face(frame, face)
            if found is not None:
                pictures[k], places[k] = found
        if pictures:
            rows[list(pictures)] = self.forward(np.stack(list(pictures.values())))
            self.context.counters.forwards[self.name] += len(pictures)
        self._rows.append(rows)
        self._places.append(places)
        self._count += len(pictures)

    def collected(self) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
        """Coefficients (N, width), places (N, place_width) and the counts of all frames. Raises NoFace without any."""
        rows = np.concatenate(self._rows)
        if not self._count:
            raise NoFace(f"no face in any of {len(rows)} frames")
        return rows, np.concatenate(self._places), {"n_frames": len(rows), "n_missing": len(rows) - self._count}
