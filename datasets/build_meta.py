"""What a built dataset says about itself: meta files and the card in README.md; see `croissant` for the third."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..core.shards import write_text
from .croissant import write_croissant

__all__ = ["REJECTS", "SHARD", "column_rows", "write_card", "write_croissant"]

SHARD = "data/{split}/part-{index:05d}-of-{total:05d}.parquet"
REJECTS = "rejects/part-00000-of-00001.parquet"


def column_rows(schema: pa.Schema) -> dict[str, str]:
    """Column -> Arrow type as text."""
    return {field.name: str(field.type) for field in schema}


def write_card(out: Path, info: Mapping[str, Any], splits: Mapping[str, Any], reasons: Counter[str]) -> None:
    """Writes the dataset card with the header that dataset hubs read."""
    counts = info["counts"]
    parts = [split for split, shards in info["shards"].items() if shards]
    header = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *(f'  - split: {split}\n    path: "data/{split}/*.parquet"' for split in parts),
        "---",
    ]
    body = [
        f"# {info['dataset']}: talking faces, one row a clip",
        f"{counts['clips']} clips listed: {counts['rows']} rows, {counts['rejects']} rejects. "
        "25 frames a second, sound 16 kHz mono, `n_frames` the same for picture, sound and features.",
        _table(("split", "clips"), sorted(splits["clips"].items())),
        f"Split `{splits['name']}`: {splits['rule']}.",
        "## Rejects",
        _table(("reason", "clips"), sorted(reasons.items())) if reasons else "None.",
        "Each is a row of `rejects/` with its stage, reason and message.",
        "## Columns",
        _table(("column", "type"), info["columns"].items()),
        "A null in a series is a frame without a face. Where a whole feature is null, `<extractor>_reason` says why. "
        "`crop_transform` has a 2x3 matrix for each frame, row by row: the source pixel with centre (x, y) lies at "
        "M (x, y, 1) of the crop, whole numbers being centres of pixels, (0, 0) the top left one; null where the crop "
        "video is black. Landmarks count from the picture's corner: take 0.5 off before, add 0.5 after.",
        f"Crop `{info['crop']['name']}`: {info['crop']['rule']}. Interpolation: {info['crop']['interpolation']}; "
        f"border: {info['crop']['border']}.",
        "## Extractors",
        _table(("id", "version", "what"), [(e["id"], e["version"], e["what"]) for e in info["extractors"]]),
        "## Reading",
        "From this folder; each prints the same clips.",
        *(f"```python\n{example}\n```" for example in _reading(parts)),
    ]
    write_text(out / "README.md", "\n".join(header) + "\n\n" + "\n\n".join(body) + "\n")


def _reading(parts: Sequence[str]) -> list[str]:
    """Examples for the libraries that read it, one after the other."""
    files = ", ".join(f'"{split}": "data/{split}/*.parquet"' for split in parts)
    return [
        "import pyarrow.dataset as ds\n"
        'table = ds.dataset("data", format="parquet").to_table(columns=["clip_id", "emotion", "n_frames"])\n'
        "print(table.to_pylist())",
        "import polars as pl\n"
        'frame = pl.scan_parquet("data/*/*.parquet").select("clip_id", "emotion", "n_frames").collect()\n'
        "print(frame.to_dicts())",
        "import duckdb\n"
        "rows = duckdb.sql(\"select clip_id, emotion, n_frames from 'data/*/*.parquet'\")\n"
        "print(rows.fetchall())",
        "from datasets import load_dataset\n"
        f'clips = load_dataset("parquet", data_files={{{files}}}, columns=["clip_id", "emotion", "n_frames"])\n'
        "print([row for split in clips.values() for row in split])",
        "from talkforge.datasets.shards import ClipShards\n"
        f'clips = ClipShards(".", split="{parts[0] if parts else "train"}")\n'
        'print([(clip_id, clips[k]["n_frames"]) for k, clip_id in enumerate(clips.clip_ids)])',
    ]


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
