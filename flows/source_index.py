"""sha256 of source files, kept beside a build so that a second run does not read them all again.

A stored hash holds as long as size and time of change of the file are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..core.hashing import file_sha256
from ..core.shards import write_table

SCHEMA = pa.schema([("path", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64()), ("sha256", pa.string())])
_Stamp = tuple[int, int]


class SourceIndex:
    """Hashes by path.

    Args:
        path: the Parquet file; absent is empty.
        root: paths below it are stored relative to it.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root
        self._known: dict[str, tuple[_Stamp, str]] = {}
        self._changed = False
        if path.is_file():
            for row in pq.read_table(path, schema=SCHEMA).to_pylist():
                self._known[row["path"]] = ((row["size"], row["mtime_ns"]), row["sha256"])

    def name(self, path: Path) -> str:
        """The path below the root, else the file's name alone."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name

    def _key(self, path: Path) -> str:
        return self.name(path) if path.is_relative_to(self.root) else str(path.resolve())

    def sha256(self, path: Path) -> str:
        """The file's sha256, stored or made now. Raises OSError where it cannot be read."""
        found = path.stat()
        stamp, key = (found.st_size, found.st_mtime_ns), self._key(path)
        known = self._known.get(key)
        if known is None or known[0] != stamp:
            known = self._known[key] = (stamp, file_sha256(path))
            self._changed = True
        return known[1]

    def fill(self, paths: Iterable[Path], workers: int) -> None:
        """Hashes what is not known, on several threads; a file that cannot be read is left for its user to find."""
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(self._try, dict.fromkeys(paths)))

    def _try(self, path: Path) -> None:
        try:
            self.sha256(path)
        except OSError:
            return

    def save(self) -> None:
        """Writes the index where it changed."""
        if self._changed:
            rows = [
                {"path": key, "size": stamp[0], "mtime_ns": stamp[1], "sha256": sha}
                for key, (stamp, sha) in sorted(self._known.items())
            ]
            write_table(self.path, pa.Table.from_pylist(rows, schema=SCHEMA))
            self._changed = False
