"""Addresses and names of files, as pages in other folders need them."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path
from urllib.parse import quote_from_bytes

_MOST = 60  # characters of a name
TYPES = {
    ".jpg": "image/jpeg",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo",
}


def relative_href(path: Path, folder: Path) -> str:
    """The address of `path` from a page in `folder`: every byte but letters, digits and `-._~/` percent-encoded.

    A name may hold blanks, quotes, `#`, `%`, `?` and bytes that are no UTF-8; a colon in its first part is no scheme.
    """
    relative = os.path.relpath(path.absolute(), folder.absolute())
    return quote_from_bytes(os.fsencode(Path(relative).as_posix()), safe="/")


def data_uri(data: bytes, suffix: str) -> str:
    """The bytes as an address of their own."""
    kind = TYPES.get(suffix.lower(), "application/octet-stream")
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def safe_name(text: str) -> str:
    """A name that every file system takes: letters, digits, `._-`; a digest of `text` ends it if that changes it."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.")[:_MOST].rstrip("-.")
    return plain if plain and plain == text else f"{plain or 'x'}-{_digest(text)}"


def file_name(path: Path) -> str:
    """A name for a copy of a file, the same for the same place: a digest of it, its stem and suffix."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.")[:_MOST] or "clip"
    suffix = path.suffix.lower() if re.fullmatch(r"\.[a-z0-9]{1,8}", path.suffix.lower()) else ""
    return f"{_digest(os.fspath(path.resolve()))}-{stem}{suffix}"


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]
