"""Files that are either whole or absent: temporary name, fsync, rename, and only then the marker that says done.

A Parquet file written under its final name is unreadable and visible after a kill; the rename is atomic, so a reader
sees the old state or the new one, never a half.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TEMP_PREFIX = ".tmp-"


def fsync_folder(folder: Path) -> None:
    """Makes renames inside the folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder (same suffix) and moves it to `path` when the block ends well.

    On any exception the temporary file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex[:8]}-{path.name[-80:]}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a whole file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a whole UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: Any) -> None:
    """Writes indented JSON atomically; NaN and infinities are refused, because missing is null here."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file atomically (zstd, fixed layout, so equal tables give equal bytes)."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", store_schema=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `path` and swaps it in when the block ends well; the old folder is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex[:8]}-{path.name[-80:]}")
    old = path.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex[:8]}-old")
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


class ShardWriter:
    """Writes the shards of one stage, each with a marker that is written last.

    Args:
        root: the build's folder; shards go to `root/<folder>/part-iiiii-of-nnnnn.parquet`.
        stage: name of the stage; markers go to `root/_done/<stage>/part-....json`.
        folder: where the shards of this stage live, relative to `root`.
        total: number of shards.
    """

    def __init__(self, root: Path, stage: str, *, folder: str, total: int) -> None:
        self.root, self.stage, self.folder, self.total = root, stage, folder, total

    def shard_path(self, index: int) -> Path:
        """Where shard `index` lives."""
        return self.root / self.folder / f"part-{index:05d}-of-{self.total:05d}.parquet"

    def marker_path(self, index: int) -> Path:
        """Where the marker of shard `index` lives."""
        return self.root / "_done" / self.stage / f"{self.shard_path(index).stem}.json"

    def done(self, index: int, *, digest: str) -> Mapping[str, Any] | None:
        """The marker if the shard is complete and was made from the same inputs and configuration, else None."""
        marker = self.marker_path(index)
        if not (marker.is_file() and self.shard_path(index).is_file()):
            return None
        data = json.loads(marker.read_text(encoding="utf-8"))
        return data if data.get("digest") == digest else None

    def write(self, index: int, table: pa.Table, *, digest: str, **facts: Any) -> Path:
        """Writes the shard, then its marker; a stale marker goes first, so no moment shows a wrong "done"."""
        self.marker_path(index).unlink(missing_ok=True)
        path = self.shard_path(index)
        write_table(path, table)
        write_json(self.marker_path(index), {"digest": digest, "rows": table.num_rows, **facts})
        return path
