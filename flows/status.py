"""How far a build is: shards done, rows and rejects, seconds, from its markers alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..core.errors import InputError
from ..datasets.build_meta import REJECTS
from .build_dataset import INFO


def build_status(out: Path) -> dict[str, Any]:
    """State of a build folder, JSON-ready. `failed` lists the rejects known so far.

    Raises:
        InputError: there is no build.
    """
    path = out / "_done" / "plan.json"
    if not path.is_file():
        raise InputError(f"{out} is no build", hint="make one with: talkforge build")
    shards = [_shard(out, planned) for planned in json.loads(path.read_text(encoding="utf-8"))]
    complete = (out / INFO).is_file()
    failed = [reject for shard in shards for reject in shard.pop("failed")]
    if complete:  # with those of the reader, which belong to no shard
        failed = pq.read_table(out / REJECTS).to_pylist()
    return {
        "complete": complete,
        "shards": len(shards),
        "shards_done": sum(shard["done"] for shard in shards),
        "clips": sum(shard["clips"] for shard in shards),
        "rows": sum(shard["rows"] or 0 for shard in shards),
        "rejects": dict(sorted(Counter(reject["reason"] for reject in failed).items())),
        "seconds": round(sum(shard["seconds"] or 0 for shard in shards), 1),
        "by_shard": shards,
        "failed": failed,
    }


def _shard(out: Path, planned: dict[str, Any]) -> dict[str, Any]:
    state = {"shard": planned["shard"], "clips": planned["clips"], "done": False}
    nothing = {"rows": None, "seconds": None, "failed": []}
    marker = out / planned["marker"]
    if not (marker.is_file() and (out / planned["shard"]).is_file()):
        return state | nothing
    data = json.loads(marker.read_text(encoding="utf-8"))
    return state | {"done": True, "rows": data["rows"], "seconds": data["seconds"], "failed": data["rejects"]}
