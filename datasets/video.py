"""Video as a stream of exactly timed RGB pictures, and its resampling to a constant frame rate.

    with open_video("clip.mp4") as stream:
        for index, seconds, frame in resample(stream):
            ...

A stream never ends early in silence: what cannot be decoded raises, at the place where it occurs. Times are exact
fractions inside, so an hour of 29.97 fps does not drift.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Self

import numpy as np

from ..core.counters import Counters
from ..core.errors import ConfigError, CorruptMedia, EmptyVideo
from .containers import printable
from .demux import describe, open_media
from .pyav_backend import open_source
from .source import Source, TimedPicture, VideoInfo

FPS = 25
BACKENDS = ("pyav", "decord")

__all__ = ["FPS", "VideoInfo", "VideoStream", "open_video", "probe", "resample"]

# Where only a float of the time is known, the fraction with the smallest denominator up to this one is meant.
_MAX_TIME_BASE = 1_000_000
# Intervals that differ by less are one frame rate, written with coarse time stamps (Matroska: 1 ms).
_JITTER = Fraction(2, 1000)
# Time stamps that go back by less are put right; by more, two recordings were joined and the time between is unknown.
_BACK_JUMP = Fraction(1, 2)
# Decoding begins this much before a wanted start: more than a slot's rounding, and than time stamps are put right by.
_LEAD = _BACK_JUMP


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Header facts of a video; decodes nothing. Errors as for `open_video`, decoding errors excepted."""
    with open_media(path) as media:
        return describe(media)


def open_video(
    path: str | os.PathLike[str],
    *,
    backend: str = "pyav",
    counters: Counters | None = None,
    start_s: float | Fraction = 0,
) -> VideoStream:
    """Opens a video; iterate it for (seconds, frame).

    Args:
        path: the file; its content and not its name says what it is, and no other file is opened.
        backend: "pyav"; or "decord" (needs the extra of that name), for trusted files only.
        counters: receives one decode when the first frame comes, and every frame.
        start_s: what is shown before is not needed. The stream begins at a key frame at least half a second earlier
            where the format allows an exact seek, else at the file's start; times and frames are those of the whole
            file in either case. Damage before the place where it begins goes unseen.

    Raises:
        MediaNotFound: no regular file there.
        NotMedia, PlaylistRefused: empty, text, a playlist, a still image, unknown content.
        NoVideoStream: sound only.
        TruncatedMedia, CorruptMedia: the header cannot be read.
        MissingPackage: the backend is not installed.
    While iterating: `CorruptMedia`, `TruncatedMedia`, `EmptyVideo`.
    """
    if backend == "pyav":
        return VideoStream(open_source(path), counters, Fraction(start_s))
    if backend == "decord":
        from .decord_backend import open_source as open_decord

        return VideoStream(open_decord(path), counters, Fraction(start_s))
    raise ConfigError(f"unknown video backend {backend!r}", hint=f"one of {', '.join(BACKENDS)}")


class VideoStream:
    """Iterator of (seconds since the first frame, uint8 RGB (H, W, 3) C-contiguous); closes itself at its end.

    Attributes:
        info: header facts. Corrected with the first frame where the header told another size.
        repairs: what was put right, counted: "missing_pts" (time inferred from the frame rate), "non_monotonic_pts"
            (moved behind the frame before it), "vfr" (intervals that differ from the first one), "rotated" (turned
            upright), "leading_pictures_skipped" (depend on data before the file's start).
        frames_decoded: frames handed out so far. The counters have one more where the stream began later in the file:
            its first picture tells when the film begins.
        pts: exact time of the last frame handed out, seconds since the first one.
        end: exact time at which that frame ends.
    """

    def __init__(self, source: Source, counters: Counters | None = None, start: Fraction = Fraction(0)) -> None:
        self.info = source.info
        self.frames_decoded = 0
        self.pts = Fraction(0)
        self.end = Fraction(0)
        self._source = source
        self._counters = counters
        self._start = start - _LEAD
        self._zero: Fraction | None = None
        self._interval: Fraction | None = None
        self._items = self._run()

    @property
    def repairs(self) -> Counter[str]:
        return self._source.repairs

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        return self

    def __next__(self) -> tuple[float, np.ndarray]:
        return next(self._items)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file; iterating ends. Harmless when repeated."""
        self._items.close()
        self._source.close()

    def _run(self) -> Generator[tuple[float, np.ndarray]]:
        try:
            for item in self._source.pictures:
                if self._leaves_out(item):
                    continue
                self._place(item)
                self._count(item.picture)
                yield float(self.pts), item.picture
            if not self.frames_decoded:
                raise EmptyVideo(f"{printable(self.info.path)} holds no picture")
        finally:
            self._source.close()

    def _leaves_out(self, item: TimedPicture) -> bool:
        """Whether this is the first picture, and the next one comes from shortly before the wanted start."""
        if self._zero is not None or self._start <= 0 or item.pts is None or self._source.seek is None:
            return False
        self._zero = item.pts
        if not self._source.seek(item.pts + self._start):
            return False
        if self._counters is not None:
            self._counters.frames_decoded += 1
        return True

    def _place(self, item: TimedPicture) -> None:
        """Sets `pts` and `end` for the next picture."""
        if item.pts is None:
            self.repairs["missing_pts"] += 1
            pts = self.end
        else:
            self._zero = item.pts if self._zero is None else self._zero
            pts = item.pts - self._zero
        interval = None
        if self.frames_decoded:
            pts = self._after_last(pts)
            interval = pts - self.pts
            self._note_interval(interval)
        self.pts, self.end = pts, pts + (item.duration or interval or self._nominal_step())

    def _after_last(self, pts: Fraction) -> Fraction:
        if pts > self.pts:
            return pts
        if self.pts - pts > _BACK_JUMP:
            raise CorruptMedia(f"{printable(self.info.path)}: the clock jumps back at frame {self.frames_decoded}")
        self.repairs["non_monotonic_pts"] += 1
        return self.pts + Fraction(1, _MAX_TIME_BASE)

    def _note_interval(self, interval: Fraction) -> None:
        self._interval = self._interval or interval
        if abs(interval - self._interval) > _JITTER:
            self.repairs["vfr"] += 1

    def _nominal_step(self) -> Fraction:
        return 1 / Fraction(self.info.fps).limit_denominator(_MAX_TIME_BASE) if self.info.fps else Fraction(1, FPS)

    def _count(self, picture: np.ndarray) -> None:
        if not self.frames_decoded:
            height, width = picture.shape[:2]
            if (width, height) != (self.info.width, self.info.height):
                self.info = replace(self.info, width=width, height=height)
            if self._counters is not None:
                self._counters.decodes += 1
        self.frames_decoded += 1
        if self._counters is not None:
            self._counters.frames_decoded += 1


def resample(
    frames: Iterable[tuple[float, np.ndarray]], fps: Fraction | int = FPS
) -> Iterator[tuple[int, float, np.ndarray]]:
    """Constant frame rate by presentation times, as ffmpeg's filter `fps=<fps>:round=near` does it.

    Slot k, at k / fps seconds, shows the last frame whose time in slots rounds (half up) to k or less. There are
    round(end x fps) slots, where end is the last frame's time plus its length. At the same constant rate it is the
    identity. Frames are repeated or left out, never blended; one frame is held at a time.

    Args:
        frames: a `VideoStream` (exact times), or any (seconds, frame) iterable in order, first at 0; there the last
            frame is taken to be as long as the interval before it.
        fps: slots per second.

    Yields:
        (slot index, slot time in seconds, frame); a frame that is shown twice is the same array twice.
    """
    slot, held, end = 0, None, Fraction(0)
    for pts, frame_end, frame in _exact(frames, 1 / Fraction(fps)):
        start = floor(pts * fps + Fraction(1, 2))
        while held is not None and slot < start:
            yield slot, float(slot / Fraction(fps)), held
            slot += 1
        held, end = frame, frame_end
    last = floor(end * fps + Fraction(1, 2))
    while held is not None and slot < last:
        yield slot, float(slot / Fraction(fps)), held
        slot += 1


def _exact(
    frames: Iterable[tuple[float, np.ndarray]], step: Fraction
) -> Iterator[tuple[Fraction, Fraction, np.ndarray]]:
    """(time, end, frame) in fractions."""
    previous: Fraction | None = None
    for seconds, frame in frames:
        if isinstance(frames, VideoStream):
            yield frames.pts, frames.end, frame
            continue
        pts = Fraction(seconds).limit_denominator(_MAX_TIME_BASE)
        step = pts - previous if previous is not None else step
        previous = pts
        yield pts, pts + step, frame
