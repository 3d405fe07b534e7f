"""Optional backend: decord, behind the same stream. For trusted files only.

decord guesses the format itself, opens by name, hangs on some damaged files, and decodes without telling of damage. So
a file is first recognised and its header read by this package; what that refuses, decord never sees. It gives no gain
in speed; it is here for comparison with work that was done with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from ..core.errors import CorruptMedia, MissingPackage, TruncatedMedia, extra_hint
from .containers import printable
from .demux import describe, open_media
from .source import Source, TimedPicture

_TIME_BASE = 1_000_000


def open_source(path: str | os.PathLike[str]) -> Source:
    """Opens `path` with decord.

    Raises:
        MissingPackage: decord is not installed.
        CorruptMedia: decord cannot read it, or its pictures are turned (decord does not tell by how much).
        All that `video.open_video` raises for files which are no video.
    """
    with open_media(path) as media:
        info = describe(media)
    try:
        import decord
    except ImportError as error:
        raise MissingPackage("the video backend decord is not installed", hint=extra_hint("decord")) from error
    if info.rotation:
        raise CorruptMedia(f"{printable(path)} has turned pictures, which the decord backend does not read")
    # An absolute path begins with a slash, so no name can be taken for a protocol.
    try:
        reader = decord.VideoReader(str(info.path.absolute()), num_threads=1)
    except (decord.DECORDError, RuntimeError) as error:
        raise CorruptMedia(f"decord cannot open {printable(path)}") from error
    return Source(info, _pictures(reader, decord.DECORDError, printable(path)), lambda: None)


def _pictures(reader: Any, error_type: type[Exception], name: str) -> Iterator[TimedPicture]:
    for index in range(len(reader)):
        try:
            picture = reader.next().asnumpy()
        except StopIteration:
            raise TruncatedMedia(f"{name} ends after {index} of {len(reader)} frames") from None
        except error_type as error:
            raise CorruptMedia(f"{name}: decord fails at frame {index}") from error
        start, end = (Fraction(float(t)).limit_denominator(_TIME_BASE) for t in reader.get_frame_timestamp(index))
        yield TimedPicture(start, end - start, np.ascontiguousarray(picture))
