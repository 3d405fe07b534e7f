"""Statistics of a built dataset's features, read a clip at a time.

Mean and standard deviation are over every entry that is not null, by Chan's parallel update in float64. Quantiles are
those of at most `CLIPS` evenly spaced clips and `ENTRIES` evenly spaced entries of each, so that memory stays flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
CLIPS = 4096
ENTRIES = 8
# A feature of more numbers gets its figures over all of them together.
WIDEST = 512


def feature_columns(schema: pa.Schema) -> list[str]:
    """Columns that hold series of numbers."""
    return [field.name for field in schema if _is_series(field.type)]


def _is_series(kind: pa.DataType) -> bool:
    # A list of fixed length holds one thing about the clip, such as a window.
    return pa.types.is_list(kind) and (
        pa.types.is_fixed_size_list(kind.value_type) or pa.types.is_floating(kind.value_type)
    )


def column_stats(shards: Sequence[Path], column: str, *, clips: int) -> dict[str, Any]:
    """Figures of one column, JSON-ready; lists with a number a dimension where it has at most `WIDEST`.

    Args:
        shards: Parquet files in order.
        clips: rows in all of them.
    """
    every = max(1, -(-clips // CLIPS))
    count, mean, m2 = 0, np.zeros(1), np.zeros(1)
    low, high = np.full(1, np.inf), np.full(1, -np.inf)
    sample: list[np.ndarray] = []
    missing = 0
    for number, (rows, null) in enumerate(_clips(shards, column)):
        missing += null
        if not len(rows):
            continue
        n, part = len(rows), rows.mean(axis=0)
        gap = part - mean
        m2 = m2 + ((rows - part) ** 2).sum(axis=0) + gap**2 * count * n / (count + n)
        mean = mean + gap * n / (count + n)
        count += n
        low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
        if number % every == 0:
            sample.append(rows[np.linspace(0, n - 1, min(n, ENTRIES)).astype(int)])
    if not count:
        return {"count": 0, "null": missing}
    spread = np.quantile(np.concatenate(sample), QUANTILES, axis=0)
    return {
        "count": count,
        "null": missing,
        "mean": _figures(mean),
        "std": _figures(np.sqrt(m2 / count)),
        "min": _figures(low),
        "max": _figures(high),
        "quantiles": {str(q): _figures(row) for q, row in zip(QUANTILES, spread, strict=True)},
    }


def _clips(shards: Sequence[Path], column: str) -> Iterator[tuple[np.ndarray, int]]:
    """Per clip: its entries that are not null, float64 (N, D), and how many are null."""
    for path in shards:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                for cell in file.read_row_group(group, columns=[column])[column]:
                    yield _entries(cell) if cell.is_valid else (np.empty((0, 1)), 0)


def _entries(cell: Any) -> tuple[np.ndarray, int]:
    values = cell.values
    kept = values.drop_null()
    if pa.types.is_fixed_size_list(values.type):
        numbers = kept.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        numbers = numbers.reshape(len(kept), values.type.list_size)
        if numbers.shape[1] > WIDEST:
            numbers = numbers.reshape(-1, 1)
    else:
        numbers = kept.to_numpy(zero_copy_only=False).astype(np.float64)[:, None]
    finite = np.isfinite(numbers).all(axis=1)
    return numbers[finite], len(values) - len(kept)


def _figures(values: np.ndarray) -> float | list[float]:
    """Six significant digits, so that the last bits of a sum do not show."""
    short = [float(f"{value:.6g}") for value in values]
    return short[0] if len(short) == 1 else short
