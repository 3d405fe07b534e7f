"""Sample clips to try everything on: short pieces of two videos of a talking man, cut from pinned archive members.

Nothing is known of the clips' emotion, so none is stated.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ..core.config import digest
from ..core.hashing import file_sha256
from ..core.records import CLIP_SCHEMA, Clip
from ..core.shards import atomic_folder, write_json, write_table
from ..core.weights import samples_store
from .encode import reencode_clip

PIECE_S = 1.92  # 48 frames, three windows of 16
CRF = 16
SOURCES = {"jwp-intro": 3, "test-movie": 4}  # name in the samples store -> whole pieces in it
LAYOUT = 1


def cut_samples(out: Path) -> list[Clip]:
    """Cuts the sample clips into `out` (25 fps, 16 kHz) with a manifest `clips.parquet`; a finished folder is kept.

    Raises:
        WeightsMissing: a source is not in the samples store.
    """
    sources = {name: samples_store().path(name) for name in SOURCES}
    identity = digest({"layout": LAYOUT, "crf": CRF, "piece": PIECE_S, "files": [*map(file_sha256, sources.values())]})
    clips = [
        Clip(f"samples/psychopy/{name}-{k}", out / f"{name}-{k}.mp4", start_s=k * PIECE_S, end_s=(k + 1) * PIECE_S)
        for name, count in SOURCES.items()
        for k in range(count)
    ]
    marker = out / "done.json"
    if marker.is_file() and marker.read_text(encoding="utf-8").find(identity) >= 0:
        return clips
    with atomic_folder(out) as folder:
        for clip in clips:
            source = sources[clip.video.stem.rsplit("-", 1)[0]]
            reencode_clip(source, folder / clip.video.name, crf=CRF, start_s=clip.start_s, end_s=clip.end_s)
        rows = [clip.as_row() | {"video": clip.video.name} for clip in clips]
        write_table(folder / "clips.parquet", pa.Table.from_pylist(rows, schema=CLIP_SCHEMA))
        write_json(folder / marker.name, {"identity": identity})
    return clips
