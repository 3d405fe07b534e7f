"""Feature rows of many clips, of which only a few are in memory at a time.

Whatever compares two sets of clips reads their rows from here, clip by clip and as often as it needs them. Rows that
are few altogether are kept from the first reading on; the others lie where they were stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import InputError

# Rows are kept in memory when those of a side take no more bytes than this, as they are stored.
KEPT_BYTES = 2 * 2**20


@dataclass(frozen=True)
class ClipRows(Sequence[np.ndarray]):
    """A sequence of (N_i, D) arrays, one a clip; an item is read when asked for.

    Attributes:
        read: from a clip's number to its rows.
        sizes: (K,) rows of each clip.
        dim: D; 0 without clips.
    """

    read: Callable[[int], np.ndarray]
    sizes: np.ndarray
    dim: int

    @classmethod
    def of(cls, groups: Sequence[np.ndarray]) -> ClipRows:
        """Arrays as they are; `ClipRows` come back unchanged.

        Raises:
            InputError: an array that is not two-dimensional, or dimensions that differ.
        """
        if isinstance(groups, ClipRows):
            return groups
        shapes = [np.shape(rows) for rows in groups]
        return cls(groups.__getitem__, *_sizes_and_dim(shapes))

    @property
    def total(self) -> int:
        """Rows of all clips."""
        return int(self.sizes.sum())

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self.select(range(len(self))[key])
        return self.read(range(len(self))[key])

    def select(self, numbers: Iterable[int]) -> ClipRows:
        """The clips of these numbers, in this order; one may be there twice."""
        chosen = np.fromiter(numbers, dtype=np.intp)
        return ClipRows(lambda k: self.read(int(chosen[k])), self.sizes[chosen], self.dim)

    def every(self, step: int) -> ClipRows:
        """Every `step`-th row of each clip, from its first on."""
        return ClipRows(lambda k: self.read(k)[::step], -(-self.sizes // step), self.dim)

    def pieces(self, most: int, counts: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rows in order, as float64 (at most `most`, D), each with its clip's number, (at most `most`,).

        Args:
            most: rows of a piece. Arrays are overwritten by the next piece.
            counts: (K,); clips where it is 0 are left out.
        """
        block, clip, filled = np.empty((most, self.dim)), np.empty(most, dtype=np.intp), 0
        for k in range(len(self)) if counts is None else np.flatnonzero(counts).tolist():
            rows = self.read(k)
            while len(rows):
                part, rows = rows[: most - filled], rows[most - filled :]
                block[filled : filled + len(part)], clip[filled : filled + len(part)] = part, k
                filled += len(part)
                if filled == most:
                    yield block, clip
                    filled = 0
        if filled:
            yield block[:filled], clip[:filled]


def _sizes_and_dim(shapes: Sequence[tuple[int, ...]]) -> tuple[np.ndarray, int]:
    if bad := [shape for shape in shapes if len(shape) != 2]:
        raise InputError(f"a clip's features must be (N, D), not of shape {bad[0]}")
    if len(widths := {width for _, width in shapes}) > 1:
        raise InputError(f"features of different dimensions: {sorted(widths)}")
    return np.array([count for count, _ in shapes], dtype=np.int64), next(iter(widths), 0)


class FirstReading:
    """Reads clips one after the other from the first to the last, and so learns what `ClipRows` have to know.

    Args:
        read: from a clip's number to its rows.
    """

    def __init__(self, read: Callable[[int], np.ndarray]) -> None:
        self._read, self._shapes, self._kept, self._bytes = read, [], [], 0

    def next(self) -> np.ndarray:
        """The rows of the next clip."""
        rows = self._read(len(self._shapes))
        self._shapes.append(rows.shape)
        self._bytes += rows.nbytes
        if self._bytes <= KEPT_BYTES:
            self._kept.append(rows)
        else:
            self._kept.clear()
        return rows

    def clips(self) -> ClipRows:
        """The clips seen so far.

        Raises:
            InputError: an array that is not two-dimensional, or dimensions that differ.
        """
        kept = self._kept if self._bytes <= KEPT_BYTES else None
        return ClipRows(kept.__getitem__ if kept else self._read, *_sizes_and_dim(self._shapes))
