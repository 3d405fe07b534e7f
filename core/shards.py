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

from .errors import InputError

TEMP_PREFIX = ".tmp-"


def fsync_folder(folder: Path) -> None:
    """Makes renames inside the folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temporary(path: Path, kind: str = "") -> Path:
    """A free hidden name beside `path` that still tells whose it is."""
    return path.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex[:8]}-{kind}{path.name[-80:]}")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder (same suffix) and moves it to `path` when the block ends well.

    On any exception the temporary file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
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


def write_table(path: Path, table: pa.Table, *, group_rows: int | None = None) -> None:
    """Writes a Parquet file atomically (zstd, fixed layout, so equal tables give equal bytes).

    Args:
        group_rows: rows that are read together at least; the library's default when None.
    """
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", store_schema=True, row_group_size=group_rows)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `path` and swaps it in when the block ends well; the old folder is removed.

    A swap is two renames. A kill between them leaves nothing under the name, and old and new whole beside it.

    Raises:
        InputError: `path` is the present folder or one above it.
    """
    path = path.resolve()
    if Path.cwd().is_relative_to(path):
        raise InputError(f"{path} is the present folder or above it, and would be replaced", hint="name another one")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _temporary(path), _temporary(path, "old-")
    temporary.mkdir()
    try:
        yield temporary
        _swap(temporary, path, old)
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _swap(new: Path, path: Path, old: Path) -> None:
    if path.exists():
        path.replace(old)
    try:
        new.replace(path)
    except BaseException:
        if old.exists():
            old.replace(path)
        raise


class ShardWriter:
    """Writes the shards of one stage, each with a marker that is written last.

    Args:
        root: the build's folder; shards go to `root/<folder>/part-iiiii-of-nnnnn.parquet`.
        stage: name of the stage; markers go to `root/_done/<stage>/part-....json`.
        folder: where the shards of this stage live, relative to `root`.
        total: number of shards.
        group_rows: rows of a shard that are read together at least, see `write_table`.
    """

    def __init__(self, root: Path, stage: str, *, folder: str, total: int, group_rows: int | None = None) -> None:
        self.root, self.stage, self.folder, self.total = root, stage, folder, total
        self.group_rows = group_rows

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
        marker = self.marker_path(index)
        if marker.exists():
            marker.unlink()
            fsync_folder(marker.parent)  # or a power cut could bring the old marker back beside the new shard
        path = self.shard_path(index)
        write_table(path, table, group_rows=self.group_rows)
        write_json(marker, {"digest": digest, "rows": table.num_rows, **facts})
        return path
