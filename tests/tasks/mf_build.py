"""A build as `talking_build` writes it, with a face of 478 points and action units that say where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from talkforge.models.mf_etalk.config import au_columns
from talkforge.tasks.train_mf_etalk import LIPS
from talkforge.tests.tasks.talking_build import SCHEMA, box_of, clip_row, vectors, write_talking_build

POINTS = 478
UNITS = au_columns()
PROXY = [f"au_blendshape_proxy_{unit}" for unit in UNITS]
AU_SCHEMA = pa.schema(
    {item.name: item.type for item in SCHEMA}
    | {"faces_mediapipe_points": vectors(3 * POINTS, pa.float32())}
    | dict.fromkeys(PROXY, pa.list_(pa.float32()))
    | {"au_blendshape_proxy_reason": pa.string()}
)


def lips_of(frame: int) -> tuple[float, float, float, float]:
    """The lips in the crop video, in the lower half of `box_of`."""
    left, top, right, bottom = box_of(frame)
    return left + 8, (top + bottom) / 2 + 4, right - 8, bottom - 6


def points_of(frame: int) -> np.ndarray:
    """(1434,): points at the corners of the face, those of the lips at the corners of the lips."""
    corners = np.array(box_of(frame)).reshape(2, 2)[np.arange(POINTS) % 2]
    corners[list(LIPS)] = np.array(lips_of(frame)).reshape(2, 2)[np.arange(len(LIPS)) % 2]
    return np.concatenate([corners * 2 + [10, 20], np.zeros((POINTS, 1))], 1).ravel()  # as `clip_row` has it


def track_of(number: int, frames: int) -> np.ndarray:
    """Intensities (frames, 17) in 0..1: unit u of frame t is u / 100 + t / 1000, and more by the clip's number."""
    return np.arange(len(UNITS)) / 100 + np.arange(frames)[:, None] / 1000 + number / 10


def mf_row(number: int, frames: int, **values: Any) -> dict[str, Any]:
    """A clip."""
    track = track_of(number, frames)
    own: dict[str, Any] = {name: track[:, k].tolist() for k, name in enumerate(PROXY)}
    own["faces_mediapipe_points"] = [points_of(frame).tolist() for frame in range(frames)]
    return clip_row(number, frames, **own | {"au_blendshape_proxy_reason": None} | values)


def write_mf_build(folder: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema = AU_SCHEMA) -> Path:
    """See `write_talking_build`."""
    return write_talking_build(folder, rows, schema)
