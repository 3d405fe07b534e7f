"""Feature rows in a cache that is addressed by content.

The key of a row is the sha256 of: the clip's bytes (and those of a separate sound file), extractor id and version,
sha256 of its weights, its parameters, the crop's rule, and the key of the faces row where it depends on faces. So a row
is valid wherever its file lies and whatever it is called, and two runs that score the same clip share it. A failure is
a row as well, with its reason.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.config import digest
from ..core.shards import write_table
from ..core.weights import weights_store
from .crop import CROP_RULES
from .extractor import ExtractorSpec, extractors
from .faces import FACES_ID

ROW_LAYOUT = 1  # raised when the files' layout changes


def default_cache() -> Path:
    """`TALKFORGE_CACHE`, else the user's cache folder."""
    named = os.environ.get("TALKFORGE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(named).expanduser() if named else Path(base).expanduser() / "talkforge" / "features"


@dataclass(frozen=True)
class FeatureRow:
    """One extractor's row for one clip, read when asked for.

    Attributes:
        path: the Parquet file.
    """

    path: Path

    @cached_property
    def _failure(self) -> tuple[str | None, str]:
        reason, message = (self.value(name) for name in ("reason", "message"))
        return reason, message or ""

    @property
    def reason(self) -> str | None:
        """Why there is no row, or None when there is one."""
        return self._failure[0]

    @property
    def message(self) -> str:
        """What went wrong, for people."""
        return self._failure[1]

    def array(self, column: str) -> np.ndarray:
        """A list column as (N,) or (N, D); null entries of a float column are NaN. Not kept: each call reads it."""
        return to_numpy(self._read(column).chunk(0)[0])

    def column(self, column: str) -> pa.Array:
        """A column as a one-row Arrow array."""
        return self._read(column).combine_chunks()

    def value(self, column: str) -> Any:
        """A plain column as a Python value."""
        return self._read(column)[0].as_py()

    def _read(self, column: str) -> pa.ChunkedArray:
        # Features of thousands of clips do not fit into memory, so the row forgets what it has read.
        with pq.ParquetFile(self.path) as file:
            return file.read(columns=[column], use_threads=False)[column]


def to_numpy(cell: Any) -> np.ndarray:
    """An Arrow list cell as (N,), or (N, D) when its items are fixed-size lists; null becomes NaN."""
    values = cell.values
    if not pa.types.is_fixed_size_list(values.type):
        return values.to_numpy(zero_copy_only=False)
    width = values.type.list_size
    # `flatten` would drop null lists, so the child values are taken as they lie and masked.
    flat = values.values.slice(values.offset * width, len(values) * width).to_numpy(zero_copy_only=False)
    rows = flat.reshape(len(values), width)
    if values.null_count:
        rows = rows.copy()
        rows[~np.asarray(values.is_valid())] = np.nan
    return rows


def to_arrow(value: Any, kind: pa.DataType) -> pa.Array:
    """One cell as a one-row Arrow column; in a (N, D) array a row that is all NaN becomes null."""
    if isinstance(value, np.ndarray) and value.ndim == 2:
        if value.shape[1] != kind.value_type.list_size:
            raise ValueError(f"{value.shape[1]} numbers a row do not fit {kind}")
        missing = np.isnan(value).all(axis=1) if value.dtype.kind == "f" else np.zeros(len(value), dtype=bool)
        flat = pa.array(np.ascontiguousarray(value).ravel(), type=kind.value_type.value_type)
        rows = pa.FixedSizeListArray.from_arrays(flat, type=kind.value_type, mask=pa.array(missing))
        return pa.ListArray.from_arrays(pa.array([0, len(value)], pa.int32()), rows, type=kind)
    return pa.array([value], type=kind)


class FeatureStore:
    """Reads and writes feature rows below one folder.

    Args:
        root: the folder; `default_cache()` when None.
        crop: name of the run's crop, part of the key of extractors that want the picture.
    """

    def __init__(self, root: Path | None, crop: str) -> None:
        self.root = (root or default_cache()) / f"layout-{ROW_LAYOUT}"
        self.crop = crop

    def key(self, spec: ExtractorSpec, content: str) -> str:
        """Digest of everything that the row depends on; `content` is the digest of the clip's bytes."""
        identity: dict[str, Any] = {
            "content": content,
            "extractor": [spec.id, spec.version],
            "weights": {name: weights_store().sha256(name) for name in spec.weights},
            "params": dict(spec.params),
        }
        if spec.picture:
            identity["crop"] = CROP_RULES[self.crop]
        if spec.id != FACES_ID and (spec.faces or (spec.picture and self.crop == "face")):
            identity["faces"] = self.key(extractors.get(FACES_ID), content)
        return digest(identity)

    def path(self, spec: ExtractorSpec, content: str) -> Path:
        """Where the row of a clip lies."""
        key = self.key(spec, content)
        return self.root / spec.id / key[:2] / f"{key}.parquet"

    def find(self, spec: ExtractorSpec, content: str) -> FeatureRow | None:
        """The stored row, or None."""
        path = self.path(spec, content)
        return FeatureRow(path) if path.is_file() else None

    def save(self, spec: ExtractorSpec, content: str, values: Mapping[str, Any]) -> None:
        """Stores a row."""
        self._write(spec, content, None, None, values)

    def save_failure(self, spec: ExtractorSpec, content: str, reason: str, message: str) -> None:
        """Stores that there is no row, and why."""
        self._write(spec, content, reason, message, {})

    def _write(
        self, spec: ExtractorSpec, content: str, reason: str | None, message: str | None, values: Mapping[str, Any]
    ) -> None:
        unknown = set(values) - set(spec.columns)
        if unknown or (reason is None and set(values) != set(spec.columns)):
            raise ValueError(f"{spec.id} gave columns {sorted(values)}, declared {sorted(spec.columns)}")
        columns = {"reason": pa.array([reason], pa.string()), "message": pa.array([message], pa.string())}
        for name, kind in spec.columns.items():
            columns[name] = to_arrow(values.get(name), kind)
        write_table(self.path(spec, content), pa.table(columns))
