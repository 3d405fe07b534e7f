"""Comparison `lpips-alex`: LPIPS of each frame of which both sides have a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import NoFace
from ..core.lossless import Row, paired_pictures
from .extractor import Context, ExtractorSpec, series

PAIRS_PER_FORWARD = 8
NETWORK = "talkforge.models.lpips:load_lpips"

LPIPS = ExtractorSpec(
    id="lpips-alex",
    version=1,
    target="talkforge.tasks.compare_lpips:lpips_of_pair",
    columns={"distance": series(), "frame": series(pa.int32()), "n_generated": pa.int32(), "n_real": pa.int32()},
    what="LPIPS (AlexNet, v0.1) between both sides' pictures, frame by frame",
    compares="pictures-lossless",
    weights=("alexnet-imagenet", "lpips-alex"),
    params={"scale": "x / 127.5 - 1, not resized"},
)
EXTRACTORS = (LPIPS,)


def lpips_of_pair(context: Context, generated: Row, real: Row) -> dict[str, Any]:
    """The row.

    Raises:
        NoFace: no frame has a picture on both sides.
        SizeMismatch: they differ in size.
        InputError: pictures are too small for the network.
    """
    frames: list[int] = []
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    distances: list[np.ndarray] = []

    def drain() -> None:
        if waiting:
            x, y = (np.stack(side) for side in zip(*waiting, strict=True))
            distances.append(context.network(NETWORK).distances(x, y))
            context.counters.forwards["lpips-alex"] += 2 * len(waiting)
            waiting.clear()

    for frame, x, y in paired_pictures(generated, real):
        if len(waiting) == PAIRS_PER_FORWARD or (waiting and waiting[0][0].shape != x.shape):
            drain()
        frames.append(frame)
        waiting.append((x, y))
    drain()
    lengths = [int(row.value("n_frames")) for row in (generated, real)]
    if not frames:
        raise NoFace(f"none of {min(lengths)} paired frames shows a face on both sides")
    return {
        "distance": np.concatenate(distances),
        "frame": np.array(frames, dtype=np.int32),
        "n_generated": lengths[0],
        "n_real": lengths[1],
    }
