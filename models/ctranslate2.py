"""Reading networks that are stored in CTranslate2's format (`model.bin`), without that library.

The file is little-endian: u32 version, spec name, u32 revision, u32 number of variables, then for each variable its
name, u8 rank, u32 per dimension, u8 type, u32 number of bytes, data. Names are u16 length (with the closing NUL) and
bytes. Version 6 ends in a list of aliases, which a reader of plain tensors does not need. Layout as CTranslate2's
`model_spec.py` (version 6 of the format) writes it.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import WeightsError

VERSIONS = (5, 6)  # earlier ones code the type as a size
FLOATS = {0: np.dtype("<f4"), 4: np.dtype("<f2")}
INTEGERS = {1: np.dtype("<i1"), 2: np.dtype("<i2"), 3: np.dtype("<i4")}
TYPES = FLOATS | INTEGERS
MOST_VARIABLES, MOST_DIMENSIONS = 100_000, 8


@dataclass
class _Cursor:
    """Reads forward through the file's bytes and refuses to leave them."""

    data: mmap.mmap
    at: int = 0

    def take(self, size: int) -> int:
        """Moves over `size` bytes and gives where they begin."""
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise WeightsError(f"the file ends inside a variable: {self.at - len(self.data)} bytes are missing")
        return start

    def number(self, code: str) -> int:
        start = self.take(struct.calcsize(code))
        return int(struct.unpack_from(f"<{code}", self.data, start)[0])

    def text(self) -> str:
        size = self.number("H")
        start = self.take(size)
        return self.data[start : start + size].rstrip(b"\0").decode("utf-8", "replace")


def read_ctranslate2(path: Path, prefix: str = "") -> tuple[str, dict[str, np.ndarray]]:
    """The variables of a `model.bin` whose names begin with `prefix`.

    Args:
        path: the file. It is mapped, so only what is asked for is read.
        prefix: for example "encoder/".

    Returns:
        Name of the model's specification ("WhisperSpec"), and arrays by their name without the prefix, with the
        file's own types.

    Raises:
        WeightsError: no such file format, an unknown type, or the file ends too early.
    """
    with path.open("rb") as file:
        if path.stat().st_size < 16:
            raise WeightsError(f"{path.name} is no CTranslate2 model")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            cursor = _Cursor(data)
            spec, count = _header(cursor, path.name)
            variables = (_variable(cursor, prefix) for _ in range(count))
            return spec, {name.removeprefix(prefix): array for name, array in variables if array is not None}


def _header(cursor: _Cursor, name: str) -> tuple[str, int]:
    version = cursor.number("I")
    if version not in VERSIONS:
        raise WeightsError(f"{name} is no CTranslate2 model of version 5 or 6 (its first number is {version})")
    spec = cursor.text()
    cursor.number("I")  # revision of the specification
    count = cursor.number("I")
    if count > MOST_VARIABLES:
        raise WeightsError(f"{name} claims to hold {count} variables")
    return spec, count


def _variable(cursor: _Cursor, prefix: str) -> tuple[str, np.ndarray | None]:
    """Name and content of the next variable; None for one that was not asked for."""
    name, rank = cursor.text(), cursor.number("B")
    if rank > MOST_DIMENSIONS:
        raise WeightsError(f"{name} has {rank} dimensions")
    shape = tuple(cursor.number("I") for _ in range(rank))
    kind, size = cursor.number("B"), cursor.number("I")
    start = cursor.take(size)
    if not name.startswith(prefix):
        return name, None
    if kind not in TYPES:
        raise WeightsError(f"{name} has the unknown type {kind}")
    if size != math.prod(shape) * TYPES[kind].itemsize:
        raise WeightsError(f"{name}: {size} bytes do not make {shape} of {TYPES[kind]}")
    return name, np.frombuffer(cursor.data[start : start + size], dtype=TYPES[kind]).reshape(shape)
