"""For extractors that send every frame's picture through a network, and keep rows for the frames that have one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ..core.errors import NoFace
from .extractor import Batch, Context, ExtractorSpec


class FrameNetwork(ABC):
    """Collects the pictures of one clip and forwards them in batches of one shape.

    A subclass names its batch size, its place among the counters, and says how pictures become features.
    """

    at_once: int
    counted_as: str

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self.context = context
        self._waiting: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._frames: list[int] = []
        self._n_frames = 0

    @abstractmethod
    def forward(self, pictures: np.ndarray) -> np.ndarray:
        """(B, D) features, as they are stored, of uint8 (B, H, W, 3)."""

    def push(self, batch: Batch) -> None:
        """Forwards the frames that have a picture, `at_once` at a time."""
        self._n_frames += len(batch.subject)
        for index, picture in zip(batch.index, batch.subject, strict=True):
            if picture is None:
                continue
            if self._waiting and self._waiting[0].shape != picture.shape:
                self._drain()
            self._waiting.append(picture)
            self._frames.append(int(index))
            if len(self._waiting) == self.at_once:
                self._drain()

    def _drain(self) -> None:
        if self._waiting:
            self._rows.append(self.forward(np.stack(self._waiting)))
            self.context.counters.forwards[self.counted_as] += len(self._waiting)
            self._waiting = []

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame has a picture under the crop."""
        self._drain()
        if not self._rows:
            raise NoFace(f"none of {self._n_frames} frames shows a face to crop")
        return {
            "features": np.concatenate(self._rows),
            "frame": np.array(self._frames, dtype=np.int32),
            "n_frames": self._n_frames,
        }
