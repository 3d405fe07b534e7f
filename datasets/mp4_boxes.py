"""The few facts of an MP4 / QuickTime file that the demuxer does not tell: turned pictures, and missing bytes.

Layout from ISO/IEC 14496-12: a box is a 32-bit size, a 4-letter name and a body; size 1 means that a 64-bit size
follows, size 0 that the box runs to the end of the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Self

import numpy as np

_MAX_HEADER = 112


@dataclass(frozen=True)
class Box:
    """Name of a box and the file offsets of its body; `end` may lie beyond the end of the file."""

    name: bytes
    start: int
    end: int


@dataclass(frozen=True)
class Orientation:
    """How the stored picture is turned for display: first transposed, then mirrored.

    The display matrix maps a stored pixel (x, y) to (a x + c y, b x + d y), y downwards. Only quarter turns and mirrors
    exist in practice; another matrix is reduced to the nearest of these eight.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def from_matrix(cls, matrix: bytes) -> Self:
        """From the nine 32-bit integers a b u c d v x y w in machine order (as the decoder hands them out)."""
        a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
        if abs(b) > abs(a):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    @property
    def degrees(self) -> int:
        """Clockwise turn for display: 0, 90, 180 or 270 (mirrored: the turn before the left-right mirror)."""
        if self.transpose:
            return 270 if self.flip_y else 90
        return 180 if self.flip_y else 0

    @property
    def is_identity(self) -> bool:
        return not (self.transpose or self.flip_x or self.flip_y)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Turned copy of (H, W, 3), C-contiguous."""
        out = picture.transpose(1, 0, 2) if self.transpose else picture
        out = out[:, ::-1] if self.flip_x else out
        out = out[::-1] if self.flip_y else out
        return np.ascontiguousarray(out)


def boxes(handle: BinaryIO, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes between two offsets, one level."""
    size = os.fstat(handle.fileno()).st_size
    end = size if end is None else min(end, size)
    while start + 8 <= end:
        handle.seek(start)
        header = handle.read(16)
        length, body = int.from_bytes(header[:4], "big"), start + 8
        if length == 1:
            length, body = int.from_bytes(header[8:16], "big"), start + 16
        elif length == 0:
            length = end - start
        if start + length < body:
            return
        yield Box(header[4:8], body, start + length)
        start += length


def missing_bytes(handle: BinaryIO) -> int:
    """By how many bytes the last top-level box reaches past the end of the file; 0 for a whole file."""
    size = os.fstat(handle.fileno()).st_size
    return max((box.end - size for box in boxes(handle)), default=0) if size else 0


def has_index(handle: BinaryIO) -> bool:
    """Whether the `moov` box, without which no sample can be found, is there, and whole."""
    size = os.fstat(handle.fileno()).st_size
    return any(box.name == b"moov" and box.end <= size for box in boxes(handle))


def track_kinds(handle: BinaryIO) -> set[bytes]:
    """Handler names of the tracks, such as b"vide" and b"soun"; empty where the file is no MP4 or has no index."""
    whole = Box(b"", 0, 1 << 62)
    handlers = [
        _read(handle, hdlr)
        for moov in _children(handle, whole, b"moov")
        for trak in _children(handle, moov, b"trak")
        for mdia in _children(handle, trak, b"mdia")
        for hdlr in _children(handle, mdia, b"hdlr")
    ]
    return {header[8:12] for header in handlers}


def track_orientation(handle: BinaryIO, track_id: int) -> Orientation:
    """Orientation from the header of one track; upright where the track or its matrix is not found."""
    for moov in _children(handle, Box(b"", 0, 1 << 62), b"moov"):
        for trak in _children(handle, moov, b"trak"):
            for tkhd in _children(handle, trak, b"tkhd"):
                header = _read(handle, tkhd)
                # Version 1 has three 64-bit times before and after the id where version 0 has 32-bit ones.
                id_at, matrix_at = (20, 52) if header[:1] == b"\x01" else (12, 40)
                if header[id_at : id_at + 4] == track_id.to_bytes(4, "big") and len(header) >= matrix_at + 36:
                    return Orientation.from_matrix(_native(header[matrix_at : matrix_at + 36]))
    return Orientation()


def _children(handle: BinaryIO, parent: Box, name: bytes) -> list[Box]:
    return [box for box in boxes(handle, parent.start, parent.end) if box.name == name]


def _read(handle: BinaryIO, box: Box) -> bytes:
    handle.seek(box.start)
    return handle.read(min(box.end - box.start, _MAX_HEADER))


def _native(big_endian: bytes) -> bytes:
    return struct.pack("=9i", *struct.unpack(">9i", big_endian))
