"""Finished shards of an earlier plan get the names that they have in this one.

A shard's name says how many there are. One more clip changes that number, and without this all shards would be written
again, the unchanged ones too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.shards import fsync_folder, write_json
from ..tasks.build_shard import BuildShard


def adopt(shards: Sequence[BuildShard], info: Path) -> int:
    """Renames shards whose digest is wanted under another name, each with its marker; gives how many.

    Args:
        shards: of the present plan, of one build.
        info: the description of the earlier build; it goes first, as it names shards that are about to move.
    """
    wanted = [shard for shard in shards if _free(shard)]
    found = {folder: _finished(folder) for folder in {_markers(shard) for shard in wanted}}
    moves = [
        (found[_markers(shard)][shard.digest], shard) for shard in wanted if shard.digest in found[_markers(shard)]
    ]
    if moves:
        info.unlink(missing_ok=True)
    return sum(_move(marker, shard) for marker, shard in moves)


def _free(shard: BuildShard) -> bool:
    """Whether nothing bears the shard's names. What bears them is its own, or is written over by its turn."""
    writer = shard.writer()
    return not (writer.shard_path(shard.index).exists() or writer.marker_path(shard.index).exists())


def _markers(shard: BuildShard) -> Path:
    return shard.writer().marker_path(shard.index).parent


def _finished(folder: Path) -> dict[str, Path]:
    """Markers by the digest that they tell."""
    return {_read(path).get("digest", ""): path for path in sorted(folder.glob("part-*.json"))}


def _read(marker: Path) -> dict[str, Any]:
    return json.loads(marker.read_text(encoding="utf-8"))


def _move(marker: Path, shard: BuildShard) -> bool:
    """The marker goes first and comes last, so no moment shows a wrong "done"; a kill leaves a shard to be made."""
    writer = shard.writer()
    path = writer.shard_path(shard.index)
    old = path.with_name(f"{marker.stem}.parquet")
    if not old.is_file():
        return False
    facts = _read(marker)
    marker.unlink()
    fsync_folder(marker.parent)
    old.replace(path)
    fsync_folder(path.parent)
    write_json(writer.marker_path(shard.index), facts)
    return True
