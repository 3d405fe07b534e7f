"""Opening a media file so that nothing but this one file is read, with typed errors.

The file is opened once, checked to be a regular file, recognised by its content, and handed to the library as an open
handle together with the demuxer's name. So a name such as `concat:a.mp4`, `-i.mp4` or one with a newline is only ever a
name of the file system, and a demuxer that asks for a further file (playlist, external track) is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Self

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream as AvVideoStream

from ..core.errors import CorruptMedia, NotMedia, NoVideoStream, PlaylistRefused, TruncatedMedia
from . import mp4_boxes
from .containers import AUDIO_ONLY, STILL_IMAGES, open_regular, printable, sniff_handle
from .integrity import Integrity, integrity
from .source import VideoInfo

_BUFFER = 1 << 16
# For a demuxer which opens files without asking `io_open`: no protocol has this name.
_NO_PROTOCOL = {"protocol_whitelist": "none"}
# Formats whose header tells the length of each track, and those where it tells that of the file.
TRACK_LENGTH = frozenset({"mov", "avi"})
FILE_LENGTH = frozenset({"matroska", "flv", "asf"})


@dataclass
class OpenMedia:
    """An open container, its handle and the demuxer's name. Close it, or use it as a context manager."""

    path: Path
    kind: str
    handle: BinaryIO
    container: InputContainer

    def close(self) -> None:
        self.container.close()
        self.handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_media(path: str | os.PathLike[str]) -> OpenMedia:
    """Opens the container of `path`.

    Raises:
        MediaNotFound, NotMedia, PlaylistRefused: see `containers.sniff`.
        TruncatedMedia: an MP4 without its index, or a file that ends inside its header.
        CorruptMedia: the demuxer does not understand the header.
    """
    handle = open_regular(path)
    try:
        kind = sniff_handle(handle, path)
        if kind == "mov" and not mp4_boxes.has_index(handle):
            raise TruncatedMedia(f"{printable(path)} ends before its index (moov box) does")
        handle.seek(0)
        return OpenMedia(Path(path), kind, handle, _open_container(handle, kind, path))
    except BaseException:
        handle.close()
        raise


def video_track(media: OpenMedia) -> AvVideoStream:
    """The first picture track that is no cover art.

    Raises:
        NotMedia: the file is a still image.
        NoVideoStream: there is none.
        CorruptMedia: there is one without a decoder or a size.
    """
    if media.kind in STILL_IMAGES:
        raise NotMedia(f"{printable(media.path)} is a still image, not a video")
    tracks = [s for s in media.container.streams.video if not s.disposition & Disposition.attached_pic]
    if not tracks or media.kind in AUDIO_ONLY:
        raise NoVideoStream(f"{printable(media.path)} has no picture track")
    if tracks[0].codec_context is None or not tracks[0].width:
        raise CorruptMedia(f"{printable(media.path)}: no decoder for its picture track")
    return tracks[0]


def describe(media: OpenMedia) -> VideoInfo:
    """Header facts of the picture track; see `VideoInfo` for the meaning and `video_track` for the errors."""
    track = video_track(media)
    orientation = mp4_boxes.Orientation()
    if media.kind == "mov":
        # The library reads through the same handle, so its place is put back.
        place = media.handle.tell()
        orientation = mp4_boxes.track_orientation(media.handle, track.id)
        media.handle.seek(place)
    width, height = (track.height, track.width) if orientation.transpose else (track.width, track.height)
    duration = declared_duration(media, track)
    return VideoInfo(
        path=media.path,
        container=media.kind,
        codec=track.codec_context.name,
        width=width,
        height=height,
        rotation=orientation.degrees,
        fps=float(track.average_rate) if track.average_rate else None,
        duration_s=float(duration) if duration else None,
        start_s=float(seconds(track.start_time or 0, track.time_base)),
        declared_frames=(track.frames or None) if media.kind in TRACK_LENGTH else None,
        has_audio=bool(media.container.streams.audio),
    )


def declared_duration(media: OpenMedia, track: AvVideoStream) -> Fraction | None:
    """Seconds that the header gives the picture track, or the whole file where the format keeps no length per track.

    None without such a header: for MPEG and Ogg the library guesses from the last time stamp that it finds.
    """
    if media.kind in TRACK_LENGTH and track.duration:
        return seconds(track.duration, track.time_base)
    if media.kind in FILE_LENGTH and media.container.duration:
        return Fraction(media.container.duration, av.time_base)
    return None


def _open_container(handle: BinaryIO, kind: str, path: str | os.PathLike[str]) -> InputContainer:
    def refuse(url: str, *_: Any) -> NoReturn:
        raise PlaylistRefused(f"{printable(path)} asks for a further file, {url!r}")

    try:
        return av.open(
            handle,
            "r",
            format=kind,
            io_open=refuse,
            container_options=_NO_PROTOCOL,
            buffer_size=_BUFFER,
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, EOFError) or integrity(handle, kind) is Integrity.CUT:
            raise TruncatedMedia(f"{printable(path)} ends inside its header") from error
        raise CorruptMedia(f"{printable(path)} cannot be opened as {kind}: {error_text(error)}") from error


def seconds(ticks: int, base: Fraction | None) -> Fraction:
    """Exact time of a number of ticks. An open track always has a time base, though the library's types allow None."""
    return ticks * (base or Fraction(1))


def error_text(error: Exception) -> str:
    """The library's own words, without the handle's number that it takes for a file name."""
    return getattr(error, "strerror", None) or str(error)
