"""Decoding with PyAV: every picture, turned upright, as RGB; damage is an error and never a shorter video."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

import av.error
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from ..core.errors import CorruptMedia, MediaError, TruncatedMedia
from .containers import printable
from .demux import FILE_LENGTH, OpenMedia, declared_duration, describe, error_text, open_media, seconds, video_track
from .integrity import Integrity, integrity
from .mp4_boxes import Orientation
from .source import Source, TimedPicture

# One thread a decoder: pictures, errors and memory do not depend on the machine, and clips run side by side anyway.
DECODE_THREADS = 1
# A bare stream has no clock; what the library puts there for one is made up.
_NO_TIMES = frozenset({"mpegvideo"})
# Codecs in which each packet of an MP4 or Matroska file shows exactly one picture.
_ONE_PICTURE_A_PACKET = frozenset({"h264", "hevc"})
# Containers that mark key pictures and time every packet, and codecs in which a key picture starts anew. (In H.264,
# HEVC and MPEG-4 part 2 pictures behind it may be shown before it and need older ones; decoders leave those out.)
_SEEKABLE = frozenset({"mov", "matroska"})
_STARTS_ANEW = frozenset({"h264", "hevc", "mpeg4", "vp8", "vp9", "av1", "mjpeg", "ffv1"})
# These decoders go on after damage without marking the picture, unless they are told to stop.
_STRICT = {"hevc": "crccheck+explode", "ffv1": "crccheck+explode"}


def open_source(path: str | os.PathLike[str]) -> Source:
    """Opens `path` for decoding; errors as in `demux.open_media` and `demux.video_track`."""
    media = open_media(path)
    try:
        info = describe(media)
    except BaseException:
        media.close()
        raise
    decoder = _Decoder(media)
    return Source(info, decoder.pictures(), media.close, decoder.repairs, decoder.seek)


class _Decoder:
    """State of one pass over one file."""

    def __init__(self, media: OpenMedia) -> None:
        self.media = media
        self.repairs: Counter[str] = Counter()
        self._track = video_track(media)
        self._track.codec_context.thread_count = DECODE_THREADS
        codec = self._track.codec_context.name
        if codec in _STRICT:
            self._track.codec_context.options = {"err_detect": _STRICT[codec]}
        self._one_each = codec in _ONE_PICTURE_A_PACKET and media.kind in ("mov", "matroska")
        self._rgb = RgbConverter()
        self._name = printable(media.path)
        self._first_pts: int | None = None
        self._waiting: set[int] = set()
        self._packet_count = 0
        self._packets = media.container.demux()
        self._begin: int | None = None
        self._end = Fraction(0)
        self._step = Fraction(0)
        self._end_of_others = Fraction(0)
        self._last_tick: int | None = None
        self._rotation: int | None = None
        self._orientation = Orientation()
        self._size: tuple[int, int] | None = None
        self._moved = False  # a seek happened while a packet's pictures were handed out
        self._expected: int | None = None  # time of the picture that must come first after a seek
        self._from: int | None = None  # time of the key picture where decoding goes on; None for the file's start
        self._opens_with_key = False

    def pictures(self) -> Iterator[TimedPicture]:
        """Pictures in display order; raises `CorruptMedia` or `TruncatedMedia` where the damage shows."""
        for packet in self._own_packets():
            self._moved = False
            for frame in self._decode(packet):
                yield self._picture(frame)
                if self._moved:
                    break  # what else came out of the packet lies before the seek
        self._check_lost(None)
        self._check_end()

    def seek(self, time: Fraction) -> bool:
        """See `Source.seek`."""
        wanted = target = int(time / (self._track.time_base or Fraction(1)))
        if not self._can_seek() or self._first_pts is None or wanted <= self._first_pts:
            return False
        while target > self._first_pts:
            packet = self._land(target)
            if packet is None or not packet.is_keyframe or packet.pts is None:
                break
            if packet.pts <= wanted:
                self._from = self._expected = packet.pts
                return True
            # A seek goes by decoding times, and this picture is shown too late: the key picture before it.
            target = min(target, packet.pts if packet.dts is None else packet.dts) - 1
        self._rewind()
        return True

    def _can_seek(self) -> bool:
        known = self.media.kind in _SEEKABLE and self._track.codec_context.name in _STARTS_ANEW
        return known and self._opens_with_key

    def _rewind(self) -> None:
        """Goes back to the file's start, where the key picture that was found does not show what it should."""
        if self._from is None and self._expected is not None:
            raise self._damage("it does not begin twice with the same picture")
        self._land(-(1 << 40))
        self._expected = self._first_pts

    def _land(self, target: int) -> Packet | None:
        """Moves to the last key picture that is decoded at or before `target`, in ticks; gives its packet."""
        self._moved, self._from, self._last_tick, self._packet_count = True, None, None, 0
        self._waiting.clear()
        try:
            self.media.container.seek(target, stream=self._track)
            packets = self.media.container.demux()
            first = next((packet for packet in packets if packet.stream.index == self._track.index), None)
        except (av.error.FFmpegError, ValueError):
            return None
        self._packets = packets if first is None else chain((first,), packets)
        return first

    def _own_packets(self) -> Iterator[Packet]:
        """Packets of the picture track; of the other tracks only their end is kept."""
        while True:
            try:
                packet = next(self._packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, ValueError) as error:
                raise self._damage(error_text(error)) from error
            self._packet_count += packet.size > 0
            if packet.stream.index == self._track.index:
                self._note(packet)
                yield packet
            elif packet.pts is not None:
                end = seconds(packet.pts + (packet.duration or 0), packet.time_base)
                self._end_of_others = max(self._end_of_others, end)

    def _note(self, packet: Packet) -> None:
        if not packet.size or packet.pts is None:
            return
        self._opens_with_key |= self._begin is None and packet.is_keyframe
        # Shown before the key picture of a seek: it may need pictures that were not read, and decoders leave it out.
        is_before = self._from is not None and packet.pts < self._from
        if self._one_each and not packet.is_discard and not is_before:
            self._waiting.add(packet.pts)
        # Leading pictures that cannot be shown are part of the declared length; those before an edit list are not.
        if packet.pts >= 0:
            self._begin = packet.pts if self._begin is None else min(self._begin, packet.pts)

    def _decode(self, packet: Packet) -> Iterator[VideoFrame]:
        try:
            frames = self._track.decode(packet)
        except (av.error.FFmpegError, ValueError) as error:
            if self._expected is None:
                raise self._damage(error_text(error)) from error
            self._rewind()
            return
        for frame in frames:
            if self._expected not in (None, frame.pts):
                self._rewind()
                return
            self._expected = None
            self._check_lost(frame)
            if frame.is_corrupt:
                raise self._damage("the decoder had to guess parts of a picture")
            yield frame

    def _check_lost(self, frame: VideoFrame | None) -> None:
        """A packet before this picture (or before the end) that never came out as a picture was lost."""
        if frame is not None:
            if frame.pts is None or frame.interlaced_frame:
                self._waiting.clear()
                return
            self._first_pts = frame.pts if self._first_pts is None else self._first_pts
            self._waiting.discard(frame.pts)
        if self._first_pts is None:
            return
        # Pictures that lead the first one depend on data before the file's start: skipping them is what players do.
        until = frame.pts if frame is not None else None
        lost = {p for p in self._waiting if until is None or p < until}
        self._waiting -= lost
        leading = {p for p in lost if p < self._first_pts}
        if leading:
            self.repairs["leading_pictures_skipped"] += len(leading)
        if lost - leading:
            raise self._damage(f"{len(lost - leading)} pictures cannot be decoded")

    def _picture(self, frame: VideoFrame) -> TimedPicture:
        size = (frame.width, frame.height)
        self._size = self._size or size
        if size != self._size:
            raise CorruptMedia(f"{self._name}: the picture changes from {self._size} to {size} pixels midway")
        picture = self._rgb(frame)
        if frame.rotation != self._rotation:
            self._rotation, self._orientation = frame.rotation, frame_orientation(frame)
        if not self._orientation.is_identity:
            self.repairs["rotated"] += 1
            picture = self._orientation.apply(picture)
        pts = None
        if frame.pts is not None and self.media.kind not in _NO_TIMES:
            pts = seconds(frame.pts, frame.time_base)
        duration = seconds(frame.duration, frame.time_base) if self._known_duration(frame) else None
        if pts is not None:
            self._step = duration or Fraction(0)
            self._end = max(self._end, pts + self._step)
        return TimedPicture(pts, duration, picture)

    def _known_duration(self, frame: VideoFrame) -> bool:
        """Whether the frame's length is a fact: a single tick after a longer interval is only a filler of the muxer."""
        before, self._last_tick = self._last_tick, frame.pts
        interval = frame.pts - before if frame.pts is not None and before is not None else 0
        return frame.duration > 1 or (frame.duration == 1 and interval <= 2)

    def _check_end(self) -> None:
        """Raises where the header, or the container's own bookkeeping, promises more than came."""
        short = self._shortfall()
        state = integrity(self.media.handle, self.media.kind, self._packet_count if self._from is None else None)
        if state is Integrity.BROKEN:
            raise CorruptMedia(f"{self._name} is damaged: the chain of its parts breaks, so pictures may be missing")
        if state is Integrity.CUT and (short is None or short > self._step / 2):
            raise TruncatedMedia(f"{self._name} breaks off")
        if short is not None and short > max(Fraction(1, 10), 2 * self._step):
            raise TruncatedMedia(f"{self._name} ends {float(short):.2f} s before the length in its header")

    def _shortfall(self) -> Fraction | None:
        """Seconds that are missing of the declared length; None where the format declares none."""
        declared = declared_duration(self.media, self._track)
        if declared is None:
            return None
        if self.media.kind in FILE_LENGTH:
            return declared - max(self._end, self._end_of_others)
        if not self._track.frames:
            # In a fragmented MP4 the header's length may be that of the first fragment only; it counts no frames then.
            return None
        return declared - (self._end - seconds(self._begin or 0, self._track.time_base))

    def _damage(self, what: str) -> MediaError:
        """The error for damage found now: the file's end if that is where it is, else corruption."""
        if self._at_end():
            return TruncatedMedia(f"{self._name} breaks off: {what}")
        return CorruptMedia(f"{self._name} is damaged: {what}")

    def _at_end(self) -> bool:
        state = integrity(self.media.handle, self.media.kind)
        if state is not Integrity.UNKNOWN:
            return state is Integrity.CUT
        # Damage in the last packet of a format that does not know its own size is taken for a cut.
        try:
            return not any(p.size for p in self._packets if p.stream.index == self._track.index)
        except (av.error.FFmpegError, ValueError):
            return True


class RgbConverter:
    """YUV of any kind to RGB, one scaler kept between calls.

    The matrix and the range are those that the stream names; without a name BT.601 and limited range, as ffmpeg takes
    them. Limited range maps 16 to 0 and 235 to 255. The fast path of libswscale is used (chroma is repeated, not
    interpolated): it is what `ffmpeg -pix_fmt rgb24`, OpenCV and decord give, bit for bit, and it stays within 3 of 255
    of the exact matrix product.
    """

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """uint8 (H, W, 3), C-contiguous, its own memory."""
        rgb = self._scaler.reformat(frame, format="rgb24", interpolation=Interpolation.BICUBIC, threads=1)
        return np.ascontiguousarray(rgb.to_ndarray())


def frame_orientation(frame: VideoFrame) -> Orientation:
    """How the frame's display matrix turns it, mirrors included (`frame.rotation` knows none); upright without one.

    Not for every frame: the library ties a frame to its side data in a circle, so that it stays until the garbage
    collector comes by, which took 600 MB on a clip of 1080 x 1920.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return Orientation() if matrix is None else Orientation.from_matrix(bytes(matrix)[:36])
