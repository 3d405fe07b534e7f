"""What a decoding backend hands to `VideoStream`: facts of the header, and pictures with exact times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class VideoInfo:
    """Header of a video file; nothing is decoded for it.

    Attributes:
        path: the file.
        container: demuxer name ("mov", "matroska", "mpeg"...), from the content and not from the name.
        codec: codec name ("h264", "mpeg1video"...).
        width, height: pixels of the frames as they are handed out, so after rotation.
        rotation: clockwise quarter turn that is applied, in degrees (0, 90, 180, 270).
        fps: average frames per second, None where the header does not tell.
        duration_s: seconds of the picture track (Matroska, FLV, ASF: of the file), None where the header tells none.
        start_s: time of the first picture on the container's clock, seconds (the sound may start elsewhere).
        declared_frames: frames that the header counts, None where it does not.
        has_audio: whether there is a sound track (it may be silent).
    """

    path: Path
    container: str
    codec: str
    width: int
    height: int
    rotation: int
    fps: float | None
    duration_s: float | None
    start_s: float
    declared_frames: int | None
    has_audio: bool


class TimedPicture(NamedTuple):
    """A picture (H, W, 3) uint8 RGB with its time and length on the container's clock, None where unknown."""

    pts: Fraction | None
    duration: Fraction | None
    picture: np.ndarray


@dataclass
class Source:
    """An open video.

    Attributes:
        info: header.
        pictures: in display order.
        close: releases the file.
        repairs: what was put right on the way, counted.
        seek: makes `pictures` go on with a key picture at or before a time of the container's clock, seconds, and with
            exactly those that follow it in a decode of the whole file. False where this file is decoded from its start;
            then nothing has changed. None for a backend that cannot.
    """

    info: VideoInfo
    pictures: Iterator[TimedPicture]
    close: Callable[[], None]
    repairs: Counter[str] = field(default_factory=Counter)
    seek: Callable[[Fraction], bool] | None = None
