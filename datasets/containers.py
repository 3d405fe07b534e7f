"""What a file is, by its content: the name of the one demuxer that may read it.

A file name promises nothing. A text named `.mp4` can be a playlist, and a library that guesses the format follows
it to other files of the machine. So the type is read from the first bytes, playlists and text are refused, and every
reader of this package hands the demuxer's name to the library instead of letting it guess.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from ..core.errors import MediaNotFound, NotMedia, PlaylistRefused

HEAD_BYTES = 4096

VIDEO_SUFFIXES = frozenset(
    {
        ".mp4",
        ".m4v",
        ".mov",
        ".avi",
        ".mkv",
        ".webm",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mts",
        ".m2ts",
        ".flv",
        ".wmv",
        ".ogv",
        ".3gp",
    }
)
AUDIO_SUFFIXES = (".wav", ".flac", ".m4a", ".aac", ".mp3", ".ogg", ".opus")

STILL_IMAGES = frozenset({"png_pipe", "jpeg_pipe", "bmp_pipe", "webp_pipe", "tiff_pipe"})
AUDIO_ONLY = frozenset({"wav", "flac", "mp3", "aac", "aiff"})

# The first box of a QuickTime / MP4 file, whose name stands at byte 4.
_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx", b"moof", b"uuid")

_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"FLV\x01", "flv"),
    (b"OggS", "ogg"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
    (b"fLaC", "flac"),
    (b"ID3", "mp3"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"\x89PNG\r\n\x1a\n", "png_pipe"),
    (b"\xff\xd8\xff", "jpeg_pipe"),
    (b"BM", "bmp_pipe"),
    (b"II*\x00", "tiff_pipe"),
    (b"MM\x00*", "tiff_pipe"),
)
_RIFF = {b"AVI ": "avi", b"WAVE": "wav", b"WEBP": "webp_pipe"}
_PLAYLIST_STARTS = (
    "#extm3u",
    "ffconcat",
    "v=0",
    "[playlist]",
    "[reference]",
    "[internetshortcut]",
    "rtsptext",
    "asf ",
    "file '",
)
_PLAYLIST_TAGS = ("<mpd", "<smil", "<asx", "<playlist", "<smoothstreamingmedia", "<manifest")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file for reading; the handle stays the same file, whatever happens to the name later.

    Raises:
        MediaNotFound: nothing there, not readable, or a folder, pipe, socket or device.
    """
    try:
        # A named pipe without a writer would block here for ever; O_NONBLOCK changes nothing for regular files.
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaNotFound(f"cannot open {printable(path)}: {reason}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise MediaNotFound(f"{printable(path)} is not a regular file")
    return os.fdopen(fd, "rb", buffering=0)


def sniff(path: str | os.PathLike[str]) -> str:
    """Name of the demuxer for the content of `path` ("mov", "matroska", "avi", "mpeg", "wav", "png_pipe"...).

    Raises:
        MediaNotFound: no regular file there.
        PlaylistRefused: a playlist (HLS, ffconcat, DASH, SDP...), which would open other files.
        NotMedia: empty, text, or an unknown content.
    """
    with open_regular(path) as handle:
        return sniff_handle(handle, path)


def sniff_handle(handle: BinaryIO, path: str | os.PathLike[str]) -> str:
    """`sniff` of an open file; `path` only names it in errors. The position is back at 0 afterwards."""
    handle.seek(0)
    head = handle.read(HEAD_BYTES) or b""
    handle.seek(0)
    if not head:
        raise NotMedia(f"{printable(path)} is empty")
    kind = _kind(head)
    if kind is None:
        raise _refusal(head, path)
    return kind


def printable(path: str | os.PathLike[str]) -> str:
    """The path for a one-line message: quoted where it holds blanks, control or undecodable characters."""
    text = os.fspath(path)
    return text if text.isprintable() and " " not in text else repr(text)


def _kind(head: bytes) -> str | None:
    if head[4:8] in _MOV_BOXES:
        return "mov"
    if head[:4] in (b"RIFF", b"RF64"):
        return _RIFF.get(head[8:12])
    for magic, name in _PREFIXES:
        if head.startswith(magic):
            return name
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if _is_transport_stream(head):
        return "mpegts"
    return _mpeg_audio(head)


def _is_transport_stream(head: bytes) -> bool:
    """Sync bytes 188 apart, or 192 with the 4-byte stamp of .m2ts; at least three of them."""
    for start, step in ((0, 188), (4, 192)):
        marks = head[start : start + 4 * step : step]
        if len(marks) >= 3 and set(marks) == {0x47}:
            return True
    return False


def _mpeg_audio(head: bytes) -> str | None:
    """A bare MP3 or ADTS stream: 11 or 12 sync bits, then fields which must not hold their reserved values."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    layer = head[1] >> 1 & 3
    if layer == 0:
        return "aac" if head[1] & 0xF0 == 0xF0 and (head[2] >> 2 & 15) < 13 else None
    valid = layer != 3 and head[1] >> 3 & 3 != 1 and head[2] >> 4 not in (0, 15) and head[2] >> 2 & 3 != 3
    return "mp3" if valid else None


def _refusal(head: bytes, path: str | os.PathLike[str]) -> NotMedia:
    text = _as_text(head)
    if text is None:
        return NotMedia(f"{printable(path)} holds no known video or audio format")
    start = text.lstrip("\ufeff \t\r\n").lower()
    if start.startswith(_PLAYLIST_STARTS) or (start.startswith("<") and any(tag in start for tag in _PLAYLIST_TAGS)):
        return PlaylistRefused(
            f"{printable(path)} is a playlist, not a video", hint="playlists open other files; give the video itself"
        )
    return NotMedia(f"{printable(path)} is a text, not a video")


def _as_text(head: bytes) -> str | None:
    """The head as text, or None where it holds control bytes that no text has."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    text = head.decode(encoding, errors="replace" if encoding == "utf-16" else "ignore")
    if any(ord(c) < 32 and c not in "\t\n\v\f\r\x1b" for c in text) or "\x7f" in text:
        return None
    return text if 4 * len(text) >= len(head) else None
