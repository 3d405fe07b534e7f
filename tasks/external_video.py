"""The video that another program left: found, checked, and written anew in the form that everything is scored in."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError, MediaError
from ..datasets.audio import has_audio
from ..datasets.encode import VideoWriter
from ..datasets.video import FPS, open_video, resample
from .adapters import Adapter, Output
from .external_errors import AmbiguousOutput, BadVideo, NoOutput, NoSound, WrongLength

VIDEOS = {".mp4", ".mov", ".avi", ".mkv", ".webm"}
WALKED = 20_000  # files that are looked at for a hint
SHOWN = 5
CLOCK_S = 5.0  # by which clocks of file systems may differ from ours
CRF = 18

State = tuple[int, int, int]  # of a file: when changed, size, inode


@dataclass(frozen=True)
class Before:
    """Which files were there before the program started: only what is new or has changed is its own.

    Attributes:
        files: videos that match, and any others, by their path.
        root: where the adapter's glob begins.
        since: when it was looked.
    """

    files: dict[Path, State]
    root: Path
    since: float = field(default_factory=time.time)

    @classmethod
    def look(cls, adapter: Adapter, room: Path, checkout: Path) -> Before:
        root = checkout if adapter.output.root == "checkout" else room
        files = {*root.glob(adapter.output.glob), *_videos(room), *_videos(checkout)}
        return cls({path: state for path in files if (state := _state(path))}, root)

    def fresh(self, path: Path) -> bool:
        return (state := _state(path)) is not None and self.files.get(path) != state


def find(output: Output, before: Before, room: Path, checkout: Path) -> Path:
    """The video that the program made.

    Raises:
        NoOutput: none; what it wrote elsewhere is named.
        AmbiguousOutput: several, of which the adapter takes none.
    """
    own = room if output.root == "scratch" else checkout
    matches = sorted(path for path in before.root.glob(output.glob) if before.fresh(path))
    # A link out of the item's folder leads where other items write, too.
    found = [path for path in matches if path.resolve().is_relative_to(own.resolve())]
    if not found:
        raise NoOutput(f"no video appeared as {output.glob}{_elsewhere(before, room, checkout)}")
    if len(found) > 1 and output.choose == "only":
        names = ", ".join(path.relative_to(before.root).as_posix() for path in found[:SHOWN])
        raise AmbiguousOutput(f"{len(found)} videos appeared as {output.glob}: {names}", hint="set output.choose")
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def _elsewhere(before: Before, room: Path, checkout: Path) -> str:
    """What new videos there are that the adapter does not speak of, as the rest of a message."""
    found = (path for folder in (room, checkout) for path in _videos(folder) if before.fresh(path))
    # Of a very large checkout not all files were looked at before.
    new = [path for path in found if path.stat().st_mtime >= before.since - CLOCK_S]
    if not new:
        return ", nor any other video in its folders"
    places = [_named(path, room, checkout) for path in dict.fromkeys(path.resolve() for path in new)]
    return f"; it wrote {', '.join(places[:SHOWN])}: set output.glob, or work.own, of the adapter"


def _named(path: Path, room: Path, checkout: Path) -> str:
    for name, folder in (("", room), ("{checkout}/", checkout)):
        with suppress(ValueError):
            return name + path.relative_to(folder.resolve()).as_posix()
    return str(path)


def _videos(folder: Path) -> Iterator[Path]:
    seen = 0
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".git"]
        for name in names:
            seen += 1
            if seen > WALKED:
                return
            if os.path.splitext(name)[1].lower() in VIDEOS:  # noqa: PTH122 (a path object for each is slow)
                yield Path(place, name)


def _state(path: Path) -> State | None:
    with suppress(OSError):
        status = path.stat()
        return (status.st_mtime_ns, status.st_size, status.st_ino) if path.is_file() else None
    return None


def normalise(found: Path, out: Path, output: Output, samples: np.ndarray, frames: int) -> dict[str, Any]:
    """Writes the program's video at 25 frames a second in H.264, with the item's sound as 16 kHz mono AAC.

    Frames are repeated or left out by their times, never blended, scaled or invented: a video that ends early within
    the tolerance stays so, and one that is longer is cut.

    Args:
        output: tolerances, and which part of the picture is the result.
        samples: float32 (S,), the item's sound.
        frames: that it is to have.

    Returns:
        Facts of both, JSON-ready.

    Raises:
        BadVideo, WrongLength, NoSound.
    """
    facts: dict[str, Any] = {}
    try:
        sound = has_audio(found)
        if output.sound == "required" and not sound:
            raise NoSound(f"{found.name} has no sound track")
        with open_video(found) as stream:
            left, top, width, height = output.crop or (0, 0, stream.info.width // 2 * 2, stream.info.height // 2 * 2)
            if left + width > stream.info.width or top + height > stream.info.height:
                raise BadVideo(
                    f"{found.name} has {stream.info.width}x{stream.info.height} pixels, too few for {output.crop}"
                )
            with VideoWriter(out, width, height, audio=samples, crf=CRF) as writer:
                for index, _, frame in resample(stream):
                    if index < frames:
                        writer.write(np.ascontiguousarray(frame[top : top + height, left : left + width]))
                seconds = float(stream.end)
                _check_length(found.name, seconds, frames / FPS, output)
            original = {
                "fps": None if stream.info.fps is None else round(float(stream.info.fps), 3),
                "width": stream.info.width,
                "height": stream.info.height,
                "frames": stream.frames_decoded,
                "seconds": round(seconds, 3),
                "sound": sound,
            }
            facts = {"frames": writer.frames_written, "original": original}
    except (MediaError, ConfigError) as error:  # the latter when the picture's size changes on the way
        raise BadVideo(f"{found.name}: {error.reason}: {error.message}") from error
    if output.fps and original["fps"] and abs(original["fps"] - output.fps) > 0.02 * output.fps:
        facts["note"] = f"{output.fps:g} frames a second were declared"
    return facts


def _check_length(name: str, seconds: float, wanted: float, output: Output) -> None:
    # Half a frame more on each side is rounding.
    if seconds < wanted - output.shorter_s - 0.5 / FPS or seconds > wanted + output.longer_s + 0.5 / FPS:
        allowed = f"allowed: {output.shorter_s:g} s less, {output.longer_s:g} s more"
        raise WrongLength(f"{name} is {seconds:.2f} s long, and the item {wanted:.2f} s ({allowed})")
