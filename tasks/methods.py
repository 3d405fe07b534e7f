"""What a generation method is, and the three that are built in.

A method turns one test item (portrait, sound, where there is one the real clip) into one video. Built-in methods need
no weights beyond the face landmarker: `copy` bounds a score from above, `still` from below, `warp` stands between. A
method with options, say which training's weights it takes, names a `Config` of them and is opened with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

from ..core.counters import Counters
from ..core.errors import ConfigError, InputError, NotMedia
from ..core.registry import Registry, resolve
from ..datasets.audio import SAMPLES_PER_FRAME, read_audio
from ..datasets.encode import VideoWriter, reencode_clip
from ..datasets.video import FPS, open_video, probe

# The image library knows more, among them ones that start other programs or take a video's head for a picture.
PORTRAIT_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TestItem:
    """What one video is generated from; an entry of a test set file.

    Attributes:
        id: stem of the output file.
        portrait: image, or a clip whose first frame is taken.
        audio: sound file or a clip with sound.
        video: the real clip, where there is one.
        emotion: name, where the method takes one.
        emotion_video: clip whose emotion is taken, where the method takes one.
    """

    __test__ = False

    id: str
    portrait: Path
    audio: Path
    video: Path | None = None
    emotion: str | None = None
    emotion_video: Path | None = None


# Writes the item's video; a typed error is a failed item. May give facts about the video, JSON-ready.
Generate = Callable[[TestItem, Path], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Opened:
    """A method that is ready to work.

    Attributes:
        make: see `Generate`.
        identity: what its videos depend on beside the item, JSON-ready: digests of settings and weights, no paths.
        facts: what is said of it in `generation.json`.
        check: how many frames an item's video will have, without making it; None: those of `read_sound`.
    """

    make: Generate
    identity: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[TestItem], int] | None = None


@dataclass(frozen=True)
class Method:
    """Declaration of a generation method.

    Attributes:
        id: its name.
        version: raised whenever the same item would give another video.
        what: one line for listings.
        target: "module:function" of a `Generate`; with options, of a function (options) -> `Opened`.
        options: "module:Class" of the `Config` with its options; empty where it has none.
    """

    id: str
    version: int
    what: str
    target: str
    options: str = ""

    def open(self, overrides: Iterable[str] = (), **values: Any) -> Opened:
        """The method with its options: `key=value` texts, and values of which None means "not given".

        Raises:
            ConfigError: an option that the method does not have, or a value that does not fit.
            What opening raises.
        """
        given = [f"--{name}" for name, value in values.items() if value is not None] + [f"--set {o}" for o in overrides]
        if self.options:
            return resolve(self.target)(resolve(self.options).load(None, overrides, **values))
        if given:
            raise ConfigError(f"method {self.id} takes no {given[0]}", hint="it has no options")
        return Opened(resolve(self.target))


methods: Registry[Method] = Registry("method")
methods.discover("talkforge.tasks", "METHODS", key=lambda method: method.id)


def read_portrait(path: Path) -> np.ndarray:
    """The portrait as uint8 (H, W, 3) RGB with even sides: an image, or the first frame of a clip.

    Raises:
        NotMedia: neither an image nor a clip.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path, formats=PORTRAIT_FORMATS) as image:
            frame = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:
        with open_video(path) as frames:
            frame = next(iter(frames))[1]
    except (OSError, Image.DecompressionBombError) as error:
        raise NotMedia(f"cannot read the portrait {path.name}: {error}") from error
    height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
    if min(height, width) < 2:
        raise InputError(f"the portrait {path.name} is {frame.shape[1]}x{frame.shape[0]} pixels")
    return np.ascontiguousarray(frame[:height, :width])


def read_sound(item: TestItem) -> tuple[np.ndarray, int]:
    """The item's sound, float32 (S,) at 16 kHz, and how many frames its video has.

    The video is as long as the sound, and no longer than the real clip.
    """
    samples = read_audio(item.audio)
    frames = len(samples) // SAMPLES_PER_FRAME
    if item.video is not None:
        seconds = probe(item.video).duration_s
        frames = frames if seconds is None else min(frames, round(seconds * FPS))
    if frames == 0:
        raise InputError(f"the sound {item.audio.name} is shorter than one frame")
    return samples, frames


def copy(item: TestItem, out: Path) -> None:
    """The real clip re-encoded (H.264, crf 23): what a perfect method would give, up to compression."""
    if item.video is None:
        raise InputError(f"{item.id}: method copy needs the real clip", hint="give --portrait a video, or use --real")
    reencode_clip(item.video, out, crf=23, counters=Counters())


def still(item: TestItem, out: Path) -> None:
    """The portrait without any movement, with the sound: what a method that does nothing gives."""
    frame = read_portrait(item.portrait)
    samples, count = read_sound(item)
    with VideoWriter(out, frame.shape[1], frame.shape[0], audio=samples) as writer:
        for _ in range(count):
            writer.write(frame)


METHODS = (
    Method("copy", 1, "the real clip re-encoded: an upper bound", "talkforge.tasks.methods:copy"),
    Method("still", 1, "the portrait held still, with the sound: a lower bound", "talkforge.tasks.methods:still"),
)
