"""Extractor `mobilenet-v2`: 1280 pooled features of an ImageNet network for every frame with a picture.

They stand in for Inception features where those weights cannot be had. The distance made from them carries this
network's name, never "FID".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import NoFace
from .extractor import Batch, Context, ExtractorSpec, series, vectors

WIDTH = 1280
FRAMES_PER_FORWARD = 16
NETWORK = "talkforge.models.mobilenet_v2:load_mobilenet_v2"

MOBILENET = ExtractorSpec(
    id="mobilenet-v2",
    version=1,
    target="talkforge.tasks.extract_mobilenet:FrameFeatures",
    columns={"features": vectors(WIDTH), "frame": series(pa.int32()), "n_frames": pa.int32()},
    what="MobileNetV2 (ImageNet) pooled features of every frame",
    picture=True,
    weights=("mobilenet-v2-imagenet",),
    params={"frames": "all"},
)
EXTRACTORS = (MOBILENET,)


class FrameFeatures:
    """Features of one clip's frames."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self._context = context
        self._waiting: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._frames: list[int] = []
        self._n_frames = 0

    def push(self, batch: Batch) -> None:
        """Forwards the frames that have a picture, `FRAMES_PER_FORWARD` at a time."""
        from ..models.mobilenet_v2 import prepare_frames

        self._n_frames += len(batch.subject)
        for index, picture in zip(batch.index, batch.subject, strict=True):
            if picture is not None:
                self._waiting.append(prepare_frames(picture[None])[0].numpy())
                self._frames.append(int(index))
            if len(self._waiting) == FRAMES_PER_FORWARD:
                self._drain()

    def _drain(self) -> None:
        import torch

        if not self._waiting:
            return
        network = self._context.network(NETWORK)
        with torch.inference_mode():
            features = network.features_1280(torch.from_numpy(np.stack(self._waiting)).to(self._context.device))
        self._rows.extend(features.float().cpu().numpy())
        self._context.counters.forwards["mobilenet-v2"] += len(self._waiting)
        self._waiting = []

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame has a picture under the crop."""
        self._drain()
        if not self._rows:
            raise NoFace(f"none of {self._n_frames} frames shows a face to crop")
        return {
            "features": np.stack(self._rows).astype(np.float32),
            "frame": np.array(self._frames, dtype=np.int32),
            "n_frames": self._n_frames,
        }
