"""Whether a container is whole, by its own bookkeeping: sizes that reach past the end, or a chain that breaks.

Some formats can lose pictures without a word: the demuxer skips to the next part that it understands. Only headers are
read, a few bytes for each part.

Layouts: ISO/IEC 14496-12 (MP4), RFC 8794 and RFC 9559 (EBML, Matroska), the RIFF form of AVI.
"""

from __future__ import annotations

import os
from enum import Enum
from typing import BinaryIO

from .mp4_boxes import missing_bytes

_SEGMENT = 0x18538067
_CLUSTER = 0x1F43B675
# Void and CRC-32 may stand anywhere.
_ANYWHERE = frozenset({0xEC, 0xBF})
# SeekHead, Info, Tracks, Cues, Attachments, Chapters, Tags.
_TOP = frozenset({_CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367})
# Timestamp, SilentTracks, Position, PrevSize, SimpleBlock, BlockGroup, EncryptedBlock.
_IN_CLUSTER = frozenset({0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF})
_BLOCKS = frozenset({0xA3, 0xA0})
_KNOWN = _TOP | _IN_CLUSTER | _ANYWHERE


class Integrity(Enum):
    """What the bookkeeping says."""

    WHOLE = "whole"
    CUT = "cut"
    BROKEN = "broken"
    UNKNOWN = "unknown"


def integrity(handle: BinaryIO, kind: str, packets: int | None = None) -> Integrity:
    """Checks an open file; UNKNOWN for formats without such bookkeeping. Moves the position.

    Args:
        handle: the file.
        kind: demuxer name, see `containers.sniff`.
        packets: how many packets of all tracks the demuxer delivered by the end. A Matroska block holds at least one,
            so fewer packets than blocks mean that some were skipped.
    """
    if kind == "mov":
        return Integrity.CUT if missing_bytes(handle) else Integrity.WHOLE
    if kind == "matroska":
        return _matroska(handle, packets)
    if kind == "avi":
        return _avi(handle)
    return Integrity.UNKNOWN


def missing_wave_bytes(handle: BinaryIO) -> int:
    """How many bytes of its `data` chunk a WAVE file lacks; 0 for a whole one, or where the size was never filled in.

    The demuxer takes the file's end for the end of the sound, so a cut goes unnoticed there.
    """
    end = os.fstat(handle.fileno()).st_size
    at = 12
    while at + 8 <= end:
        handle.seek(at)
        header = handle.read(8)
        size = int.from_bytes(header[4:], "little")
        at += 8 + size + size % 2
        if header[:4] == b"data":
            # Streaming writers leave the largest size there is, or half of it.
            return 0 if size >= 0x7FFFF000 else max(0, at - size % 2 - end)
    return 0


def _avi(handle: BinaryIO) -> Integrity:
    end = os.fstat(handle.fileno()).st_size
    at = 0
    while at + 12 <= end:
        handle.seek(at)
        header = handle.read(8)
        size = int.from_bytes(header[4:], "little")
        if header[:4] != b"RIFF" or size in (0, 0xFFFFFFFF):
            return Integrity.WHOLE
        at += 8 + size + size % 2
    # The pad byte of an odd size is often left out at the end.
    return Integrity.CUT if at > end + 1 else Integrity.WHOLE


def _matroska(handle: BinaryIO, packets: int | None) -> Integrity:
    end = os.fstat(handle.fileno()).st_size
    _, at, size = _element(handle, 0)
    name, at, size = _element(handle, at + (size or 0))
    if name != _SEGMENT:
        return Integrity.BROKEN
    stop = end if size is None else at + size
    blocks = 0
    while at < stop:
        if at >= end:
            return Integrity.CUT
        name, body, size = _element(handle, at)
        if name is None and end - at < 12:
            return Integrity.CUT
        # A cluster's blocks are walked as if they stood one level higher: its end needs no memory then, which is
        # also how a cluster of unknown size (a live recording) has to be read.
        if name not in _KNOWN or (size is None and name != _CLUSTER):
            return Integrity.BROKEN
        at = body if name == _CLUSTER else body + (size or 0)
        blocks += name in _BLOCKS
    if stop > end or at > end:
        return Integrity.CUT
    return Integrity.BROKEN if packets is not None and packets < blocks else Integrity.WHOLE


def _element(handle: BinaryIO, at: int) -> tuple[int | None, int, int | None]:
    """(identifier, offset of the body, size of the body) of the element at `at`.

    The identifier is None where none can begin; the size is None where it is unknown.
    """
    handle.seek(at)
    head = handle.read(12)
    id_length = 9 - head[0].bit_length() if head else 9
    if id_length > 4 or len(head) <= id_length:
        return None, at, None
    size_length = 9 - head[id_length].bit_length()
    if size_length > 8 or len(head) < id_length + size_length:
        return None, at, None
    mask = (1 << (7 * size_length)) - 1
    size = int.from_bytes(head[id_length : id_length + size_length], "big") & mask
    body = at + id_length + size_length
    return int.from_bytes(head[:id_length], "big"), body, None if size == mask else size
