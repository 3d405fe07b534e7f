"""A build's folder with columns whose values say where they come from, written as builds are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from talkforge.core.shards import ShardWriter, write_json
from talkforge.datasets.build_meta import REJECTS, SHARD, column_rows

WIDE = 512


def vectors(size: int, kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.list_(kind, size))


SCHEMA = pa.schema(
    {
        "clip_id": pa.string(),
        "split": pa.string(),
        "emotion": pa.string(),
        "intensity": pa.int8(),
        "window": pa.list_(pa.float64(), 4),
        "n_frames": pa.int32(),
        "has_sound": pa.bool_(),
        "face_points": vectors(3, pa.float16()),
        "face_reason": pa.string(),
        "wide_states": vectors(WIDE, pa.float32()),
        "speech_states": vectors(2, pa.float32()),
        "speech_level": pa.list_(pa.float32()),
        "face_track": pa.list_(pa.int16()),
        "shape_identity": pa.list_(pa.float32()),
        "filter_sharpness": pa.float64(),
    }
)
STEPS = {"speech_states": 2, "shape_identity": 0}


def clip_row(number: int, n_frames: int, split: str = "train", **values: Any) -> dict[str, Any]:
    """A clip; `face_points` of frame k is (number, k, 0), null in frame 1; sound has two entries a frame."""
    noise = np.random.default_rng(number).random((n_frames, WIDE), np.float32)
    return {
        "clip_id": f"toy/{number:03d}",
        "split": split,
        "emotion": ("happy", "neutral", None)[number % 3],
        "intensity": None if number % 2 else 1,
        "window": None,
        "n_frames": n_frames,
        "has_sound": True,
        "face_points": [None if k == 1 else [np.float16(v) for v in (number, k, 0)] for k in range(n_frames)],
        "face_reason": None,
        "wide_states": noise.tolist(),
        "speech_states": [[float(k), number] for k in range(2 * n_frames)],
        "speech_level": [float(k) for k in range(n_frames - 1)] + [None],
        "face_track": [None] + [7] * (n_frames - 1),
        "shape_identity": [0.5, 1.5, 2.5],
        "filter_sharpness": number / 10 if number else None,
    } | values


def write_build(folder: Path, shards: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> Path:
    """Writes shards of splits in the order given, and last the description."""
    totals = {name: sum(split == name for split, _ in shards) for name in ("train", "val", "test")}
    done = dict.fromkeys(totals, 0)
    for split, rows in shards:
        writer = ShardWriter(folder, f"build-{split}", folder=f"data/{split}", total=totals[split], group_rows=1)
        writer.write(done[split], pa.Table.from_pylist(list(rows), schema=SCHEMA), digest="toy")
        done[split] += 1
    info = {
        "schema_version": 1,
        "digest": "0" * 64,
        "created": "2026-01-02T03:04:05+00:00",
        "talkforge_version": "0.1.0",
        "dataset": "folder",
        "counts": {"clips": sum(len(rows) for _, rows in shards), "rows": sum(len(rows) for _, rows in shards)},
        "fps": 25,
        "paths": {"data": SHARD, "video": "videos/{clip_id}.mp4", "rejects": REJECTS},
        "shards": totals,
        "columns": column_rows(SCHEMA),
        "steps_per_frame": STEPS,
        "extractors": [{"id": "speech", "what": "what is heard"}],
    }
    write_json(folder / "meta/info.json", info)
    return folder
