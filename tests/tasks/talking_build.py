"""A build with crop videos whose frames carry their numbers, and features that say where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from talkforge.core.shards import ShardWriter, write_json
from talkforge.datasets.build_meta import REJECTS, SHARD, column_rows
from talkforge.models.training.feed import to_device
from talkforge.models.training.system import TrainParts
from talkforge.tests.media_factory import numbered, write_clip

SIDE = 96  # of the crop video
STATES, WIDTH = 5, 384


def vectors(size: int, kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.list_(kind, size))


SCHEMA = pa.schema(
    {
        **dict.fromkeys(("clip_id", "split", "identity", "emotion"), pa.string()),
        "n_frames": pa.int32(),
        "crop_size": pa.int32(),
        "crop_transform": vectors(6, pa.float32()),
        "faces_mediapipe_points": vectors(6, pa.float32()),
        "faces_mediapipe_reason": pa.string(),
        "arkit52_blendshapes": vectors(52, pa.float32()),
        "whisper_tiny_states": vectors(STATES * WIDTH, pa.float16()),
        "whisper_tiny_reason": pa.string(),
    }
)


def box_of(frame: int) -> tuple[float, float, float, float]:
    """The face in the crop video: moves a pixel a frame to the right."""
    return 20.0 + frame, 30.0, 50.0 + frame, 70.0


def clip_row(number: int, frames: int, **values: Any) -> dict[str, Any]:
    """A clip; entry t of the sound is t everywhere. The crop shows the source at half its size, from (10, 20) on."""
    boxes = np.array([box_of(frame) for frame in range(frames)])
    corners = boxes.reshape(frames, 2, 2) * 2 + [10, 20]
    points = np.concatenate([corners, np.zeros((frames, 2, 1))], 2).reshape(frames, 6)
    # Centres of pixels: u + 0.5 = (x + 0.5 - 10) / 2.
    transform = [0.5, 0, (0.5 - 10) / 2 - 0.5, 0, 0.5, (0.5 - 20) / 2 - 0.5]
    faces = np.random.default_rng(number).random((frames, 52))
    sound = np.repeat(np.arange(2 * frames)[:, None], STATES * WIDTH, 1).astype(np.float16)
    return {
        "clip_id": f"toy/{number:03d}",
        "split": "train",
        "identity": "one",
        "emotion": None,
        "n_frames": frames,
        "crop_size": SIDE,
        "crop_transform": [transform] * frames,
        "faces_mediapipe_points": points.tolist(),
        "faces_mediapipe_reason": None,
        "arkit52_blendshapes": faces.tolist(),
        "whisper_tiny_states": list(sound),
        "whisper_tiny_reason": None,
    } | values


def losses_of(parts: TrainParts, steps: int) -> list[float]:
    """Losses of so many steps on the first batch, with four draws of noise in turn."""
    torch.manual_seed(0)
    batch = to_device(next(iter(parts.batches)), torch.device("cpu"))
    optimiser = torch.optim.Adam(parts.model.parameters(), 3e-3)
    losses = []
    for step in range(steps):
        torch.manual_seed(step % 4)
        optimiser.zero_grad()
        loss: Any = parts.loss_fn(parts.model, batch)
        loss.total.backward()
        optimiser.step()
        losses.append(float(loss.total.detach()))
    return losses


def write_talking_build(folder: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema = SCHEMA) -> Path:
    """Writes clips as a build with videos. Picture k of clip n is numbered 100 n + k."""
    splits = ("train", "val", "test")
    totals = {split: int(any(row["split"] == split for row in rows)) for split in splits}
    for split in (name for name in splits if totals[name]):
        writer = ShardWriter(folder, f"build-{split}", folder=f"data/{split}", total=1, group_rows=1)
        own = [dict(row) for row in rows if row["split"] == split]
        writer.write(0, pa.Table.from_pylist(own, schema=schema), digest="toy")
    for row in rows:
        path = folder / "videos" / f"{row['clip_id']}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        first = 100 * int(row["clip_id"][-3:])
        write_clip(path, [numbered(first + k, SIDE, SIDE) for k in range(row["n_frames"])])
    info = {
        "schema_version": 1,
        "digest": "0" * 64,
        "dataset": "folder",
        "counts": {"clips": len(rows), "rows": len(rows), "rejects": 0},
        "fps": 25,
        "paths": {"data": SHARD, "video": "videos/{clip_id}.mp4", "rejects": REJECTS},
        "shards": totals,
        "columns": column_rows(schema),
        "steps_per_frame": {"whisper_tiny_states": 2},
        "extractors": [],
    }
    write_json(folder / "meta" / "info.json", info)
    return folder
