"""What a graded corruption is, and those of sound, picture and time.

A corruption makes a worse video of a real clip, in a few strengths. What it harms is declared, so that an audit can
hold each metric against it: who measures what was harmed must notice. Level 0 of every corruption is the clip
re-encoded with the same settings, so that the codec alone moves nothing. One frame is held at a time; noise comes from
the frame's number, so the same clip gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..core.counters import Counters
from ..core.errors import InputError, NoAudioTrack, TooShort
from ..core.registry import Registry, resolve
from ..datasets.audio import SAMPLES_PER_FRAME, read_audio
from ..datasets.encode import VideoWriter, reencode_clip
from ..datasets.video import open_video, resample
from .extract_speech import frame_levels

CRF = 16
CROSSFADE = 400  # samples, 25 ms: a hard cut would be heard as a click
REFERENCE_HEIGHT = 256  # pixels; blur is stated for a picture of this height
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

# Everything that a corruption can harm and a metric can measure.
HARMS = ("sync", "picture", "flow", "lips", "head", "eyes", "brows", "expression", "identity")


@dataclass(frozen=True)
class Corruption:
    """Declaration of a corruption.

    Attributes:
        name: its id, also a folder's name.
        version: raised whenever the same clip would give another video.
        what: one line.
        unit: of the levels.
        levels: four strengths, the mildest first.
        harms: which of `HARMS` suffer, and should be noticed.
        target: "module:function" of a `Corrupt`.
        needs_other: whether a second clip is needed.
    """

    name: str
    version: int
    what: str
    unit: str
    levels: tuple[float, ...]
    harms: frozenset[str]
    target: str
    needs_other: bool = False


corruptions: Registry[Corruption] = Registry("corruption")
corruptions.discover("talkforge.tasks", "CORRUPTIONS", key=lambda corruption: corruption.name)


@dataclass(frozen=True)
class Source:
    """A clip: where its picture and its sound are."""

    video: Path
    audio: Path

    def sound(self) -> np.ndarray | None:
        """float32 (S,) at 16 kHz, or None when there is none."""
        try:
            return read_audio(self.audio)
        except NoAudioTrack:
            return None

    def must_sound(self) -> np.ndarray:
        """The sound. Raises NoAudioTrack."""
        return read_audio(self.audio)

    def frames(self) -> int:
        """Number of 25 fps frames; costs a decode."""
        with open_video(self.video) as stream:
            return sum(1 for _ in resample(stream))


@dataclass(frozen=True)
class Job:
    """One video to make.

    Attributes:
        clip: the real clip.
        level: one of the corruption's.
        other: a second clip, where the corruption takes something from it.
        cache: where feature rows are kept (faces are looked up there); None for the default.
    """

    clip: Source
    level: float
    other: Source | None = None
    cache: Path | None = None


Corrupt = Callable[[Job, Path], None]
Edit = Callable[[int, np.ndarray], np.ndarray]


def corrupt(corruption: Corruption, job: Job, out: Path) -> None:
    """Writes the job's video.

    Raises:
        InputError: a second clip is needed and there is none. NoFace, NoAudioTrack, and what reading the clips raises.
    """
    if corruption.needs_other and job.other is None:
        raise InputError(f"{corruption.name} takes something from a second clip, and there is none")
    resolve(corruption.target)(job, out)


def copy(clip: Source, out: Path) -> None:
    """Level 0: the clip re-encoded, with the settings of every other level."""
    reencode_clip(clip.video, out, crf=CRF, counters=Counters())


def rewrite(clip: Source, out: Path, edit: Edit, sound: np.ndarray | None = None) -> None:
    """Writes the clip with each frame edited.

    Args:
        edit: (number, uint8 (H, W, 3)) to a frame of the same shape; called in order.
        sound: float32 (S,) at 16 kHz in place of the clip's own.
    """
    audio = clip.sound() if sound is None else sound
    with open_video(clip.video) as stream:
        width, height = stream.info.width // 2 * 2, stream.info.height // 2 * 2
        with VideoWriter(out, width, height, audio=audio, crf=CRF) as writer:
            for index, _, frame in resample(stream):
                writer.write(edit(index, frame[:height, :width]))


def keep(index: int, frame: np.ndarray) -> np.ndarray:
    """The edit that changes nothing."""
    return frame


def sound_shifted(job: Job, out: Path) -> None:
    """The sound comes `level` frames late; what falls off its end fills the beginning, so nothing of it is lost."""
    late = round(job.level) * SAMPLES_PER_FRAME
    rewrite(job.clip, out, keep, np.roll(_fitted(job.clip.must_sound(), job.clip.frames()), late))


def sound_swapped(job: Job, out: Path) -> None:
    """The last `level` share of the sound is another clip's."""
    if job.other is None:
        raise InputError("there is no second clip to take the sound from")
    frames = job.clip.frames()
    own, foreign = (_fitted(sound, frames) for sound in (job.clip.must_sound(), job.other.must_sound()))
    cut = len(own) - round(job.level * len(own))
    share = np.clip((np.arange(len(own)) - cut) / CROSSFADE + 1, 0, 1).astype(np.float32)
    rewrite(job.clip, out, keep, own * (1 - share) + foreign * share)


def _fitted(samples: np.ndarray, frames: int) -> np.ndarray:
    """Sound of exactly `frames` frames, repeated where it is too short."""
    if not len(samples):
        raise TooShort("the sound holds no sample")
    return np.resize(samples, frames * SAMPLES_PER_FRAME)


def blurred(job: Job, out: Path) -> None:
    """Gaussian blur with a standard deviation of `level` pixels at 256 lines."""

    def edit(index: int, frame: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(frame, (0, 0), job.level * frame.shape[0] / REFERENCE_HEIGHT)

    rewrite(job.clip, out, edit)


def noisy(job: Job, out: Path) -> None:
    """White noise with a standard deviation of `level` grey levels, independent in each channel."""

    def edit(index: int, frame: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(index).standard_normal(frame.shape, dtype=np.float32)
        return _to_uint8(frame + job.level * noise)

    rewrite(job.clip, out, edit)


def jpeg(job: Job, out: Path) -> None:
    """Each frame through JPEG of quality `level`."""

    def edit(index: int, frame: np.ndarray) -> np.ndarray:
        data = io.BytesIO()
        Image.fromarray(frame).save(data, "JPEG", quality=round(job.level))
        return np.asarray(Image.open(data))

    rewrite(job.clip, out, edit)


def colour_cast(job: Job, out: Path) -> None:
    """Red gains `level`, blue loses it, brightness stays."""
    gain = np.array([1 + job.level, 1.0, 1 - job.level], dtype=np.float32)

    def edit(index: int, frame: np.ndarray) -> np.ndarray:
        tinted = frame * gain
        return _to_uint8(tinted + ((frame - tinted) @ LUMA)[..., None])

    rewrite(job.clip, out, edit)


def _to_uint8(frame: np.ndarray) -> np.ndarray:
    return np.clip(frame.round(), 0, 255).astype(np.uint8)


def _holding(shown: Callable[[int], bool]) -> Edit:
    """Shows a new frame where `shown` says so, else the one shown last."""
    held: list[np.ndarray] = []

    def edit(index: int, frame: np.ndarray) -> np.ndarray:
        if shown(index) or not held:
            held[:] = [frame]
        return held[0]

    return edit


def frozen(job: Job, out: Path) -> None:
    """The picture stands still for the last `level` share of the clip; the sound goes on."""
    frames = job.clip.frames()
    last = max(0, frames - 1 - round(job.level * frames))
    rewrite(job.clip, out, _holding(lambda index: index <= last))


def dropped(job: Job, out: Path) -> None:
    """Only every `level`-th frame is shown, and held until the next."""
    rewrite(job.clip, out, _holding(lambda index: index % round(job.level) == 0))


def loudness(path: Path) -> list[float]:
    """Level of each frame's sound, dB of full scale, for charts; empty without sound."""
    try:
        return [float(level) for level in frame_levels(read_audio(path))]
    except NoAudioTrack:
        return []


_HERE = "talkforge.tasks.corruptions:"
_STILL = frozenset({"flow", "lips", "head", "eyes", "brows", "expression", "sync"})
CORRUPTIONS = (
    Corruption(
        "sound-shift", 1, "sound comes late", "frames", (2, 4, 7, 12), frozenset({"sync"}), _HERE + "sound_shifted"
    ),
    Corruption(
        "sound-swap",
        1,
        "the end of the sound is another clip's",
        "share of the clip",
        (0.25, 0.5, 0.75, 1.0),
        frozenset({"sync"}),
        _HERE + "sound_swapped",
        needs_other=True,
    ),
    Corruption(
        "blur",
        1,
        "Gaussian blur",
        "pixels at 256 lines",
        (0.5, 1.0, 2.0, 4.0),
        frozenset({"picture"}),
        _HERE + "blurred",
    ),
    Corruption("noise", 1, "white noise", "grey levels", (4, 8, 16, 32), frozenset({"picture"}), _HERE + "noisy"),
    Corruption("jpeg", 1, "JPEG blocks", "quality", (60, 30, 15, 5), frozenset({"picture"}), _HERE + "jpeg"),
    Corruption(
        "colour-cast",
        1,
        "red gains, blue loses",
        "share of the channel",
        (0.05, 0.1, 0.2, 0.4),
        frozenset({"picture"}),
        _HERE + "colour_cast",
    ),
    Corruption(
        "freeze", 1, "the end stands still", "share of the clip", (0.25, 0.5, 0.75, 1.0), _STILL, _HERE + "frozen"
    ),
    Corruption(
        "frame-drop", 1, "one frame of n is shown, and held", "n", (2, 3, 5, 8), frozenset({"flow"}), _HERE + "dropped"
    ),
)
