"""What a built dataset says about itself: meta files, the card in README.md, and the Croissant description."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..core.shards import write_json, write_text

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
        "`crop_box` has left, top and side of the crop's square in source pixels: a source pixel (x, y) lies at "
        "((x - left) s, (y - top) s) of the crop, s = crop_size / side.",
        "## Extractors",
        _table(("id", "version", "what"), [(e["id"], e["version"], e["what"]) for e in info["extractors"]]),
        "## Reading",
        "```python",
        "import pyarrow.dataset as ds",
        'table = ds.dataset("data", format="parquet").to_table(columns=["clip_id", "emotion", "n_frames"])',
        "```",
    ]
    write_text(out / "README.md", "\n".join(header) + "\n\n" + "\n\n".join(body) + "\n")


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_croissant(out: Path, info: Mapping[str, Any], schema: pa.Schema) -> None:
    """Writes `croissant.json` (Croissant 1.0): the shards as one file set, the columns of one kind of record."""
    parts = {"@type": "cr:FileSet", "@id": "shards", "encodingFormat": "application/x-parquet"}
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"clips/{field.name}",
            "name": field.name,
            "dataType": _croissant_type(field.type),
            "source": {"fileSet": {"@id": "shards"}, "extract": {"column": field.name}},
        }
        | ({"repeated": True} if pa.types.is_nested(field.type) else {})
        for field in schema
    ]
    context = {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "sc": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "conformsTo": "http://purl.org/dc/terms/conformsTo",
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "extract": "cr:extract",
        "column": "cr:column",
        "field": "cr:field",
        "fileSet": "cr:fileSet",
        "includes": "cr:includes",
        "recordSet": "cr:recordSet",
        "repeated": "cr:repeated",
        "source": "cr:source",
    }
    data = {
        "@context": context,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": info["dataset"],
        "description": f"{info['counts']['rows']} clips of talking faces with features per frame",
        "distribution": [parts | {"includes": "data/*/*.parquet"}],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "clips", "name": "clips", "field": fields}],
    }
    write_json(out / "croissant.json", data)


def _croissant_type(kind: pa.DataType) -> str:
    while pa.types.is_nested(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:Boolean" if pa.types.is_boolean(kind) else "sc:Text"
