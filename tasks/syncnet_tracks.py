"""From frames and boxes to SyncNet's crops while the clip runs, and from crops and sound to vectors.

The published crop follows the face through a running median of 13 frames over boxes whose gaps are interpolated, so a
frame's crop is known once 6 more boxes of its track are. `TrackSquares` holds back exactly the frames that wait for
that; its squares are those that `crops.syncnet_squares` finds in the whole clip.

A track of n frames and as much sound gives n - 5 looks, one a frame: the published code leaves the last of the n - 4
out, and so does this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.errors import NoFace
from ..datasets.audio import SAMPLES_PER_FRAME
from .crops import SYNCNET_MEDIAN, syncnet_rectangle, syncnet_squares
from .extractor import Context
from .faces import PATIENCE

NETWORK = "talkforge.models.syncnet:load_syncnet"
NAME = "syncnet-v2"  # in the counters and in the weights store
SIZE, FRAMES = 224, 5  # of one look
LOST = FRAMES  # a track of n frames has n - 5 looks
AT_ONCE = 16  # looks a forward
STEPS, STEPS_PER_FRAME = 20, 4  # of 10 ms, in one window of the sound
SOUNDS_AT_ONCE = 64
HALF_MEDIAN = SYNCNET_MEDIAN // 2

Framed = tuple[np.ndarray, np.ndarray]  # a frame, and its square: centre x, centre y, half side


class NoTrack(NoFace):
    """There are faces and none of them makes a track that the method takes."""

    reason = "no_track"


@dataclass
class TrackSquares:
    """The squares of one track, settled while its frames arrive.

    Attributes:
        patience: frames without a box that are bridged; beyond, the track is over.
        start: number of the track's first frame.
        seen: boxes so far.
        extent: sums of width and height over the track's frames, bridged ones included.
    """

    patience: int = PATIENCE
    start: int = -1
    seen: int = 0
    extent: np.ndarray = field(default_factory=lambda: np.zeros(2))
    _frames: list[np.ndarray] = field(default_factory=list)  # those without a square yet, gap included
    _boxes: list[np.ndarray] = field(default_factory=list)  # of the last frames, as far back as the median reaches
    _count: int = 0  # frames with a box, bridged ones included
    _settled: int = 0  # frames given out
    _gap: int = 0

    @property
    def last(self) -> np.ndarray:
        """The newest box."""
        return self._boxes[-1]

    @property
    def over(self) -> bool:
        """Whether the face has been away for too long to come back as the same track."""
        return self._gap >= self.patience

    @property
    def mean_side(self) -> float:
        """The larger of mean width and mean height, pixels."""
        return float(self.extent.max()) / max(self._count, 1)

    def see(self, index: int, frame: np.ndarray, box: np.ndarray) -> list[Framed]:
        """Takes the next frame with its box (left, top, right, bottom); gives the frames whose squares are settled."""
        if not self.seen:
            self.start = index
        self._bridge(np.asarray(box, float))
        self.seen += 1
        self._frames.append(frame)
        return self._settle(self._count - HALF_MEDIAN) if self._count >= SYNCNET_MEDIAN else []

    def miss(self, frame: np.ndarray) -> None:
        """Takes the next frame, in which the face is not found."""
        if not self.over:
            self._frames.append(frame)
        self._gap += 1

    def close(self) -> list[Framed]:
        """Gives what is left up to the last box."""
        rest = self._settle(self._count)
        self._frames = []
        return rest

    def _bridge(self, box: np.ndarray) -> None:
        steps = self._gap + 1
        before = self._boxes[-1] if self._boxes else box
        for step in range(1, steps + 1):
            between = np.array([np.interp(step, (0, steps), ends) for ends in zip(before, box, strict=True)])
            self._boxes.append(between)
            self.extent += between[2:] - between[:2]
        self._count += steps
        self._gap = 0

    def _settle(self, until: int) -> list[Framed]:
        """Frames of the track from the first without a square to `until`."""
        many = until - self._settled
        if many <= 0:
            return []
        boxes = np.array(self._boxes)
        squares = syncnet_squares(boxes, np.zeros(len(boxes), int))
        first = len(boxes) - (self._count - self._settled)
        ready = list(zip(self._frames[:many], squares[first : first + many], strict=True))
        del self._frames[:many]
        self._settled = until
        # The median of the next frame reaches 6 back; a shorter rest than its width would be taken for a short track.
        reach = max(SYNCNET_MEDIAN, self._count - self._settled + HALF_MEDIAN)
        del self._boxes[:-reach]
        return ready


class TrackLooks:
    """The looks of one track on their way through the network, some at a time; 21 crops are held at most once it runs.

    Args:
        context: whose network is used, and whose counters.
        least: frames that the track must have; no look is forwarded before that.
    """

    def __init__(self, context: Context, least: int) -> None:
        self.count = 0
        self._context, self._least = context, least
        self._crops: list[np.ndarray] = []
        self._vectors: list[np.ndarray] = []

    def push(self, crop: np.ndarray) -> None:
        """Takes the next crop, uint8 (224, 224, 3) RGB."""
        self._crops.append(crop)
        self.count += 1
        if self.count >= self._least and len(self._crops) >= AT_ONCE + LOST:
            self._forward()

    def vectors(self) -> np.ndarray:
        """float32 (count - 5, 1024) of all crops."""
        self._forward()
        return np.concatenate(self._vectors)

    def _forward(self) -> None:
        """Sends the looks that a further crop follows; the others wait for theirs."""
        if len(self._crops) <= LOST:
            return
        import torch

        from ..models.syncnet import lip_windows

        network, device = self._context.network(NETWORK), self._context.device
        looks = lip_windows(np.stack(self._crops[:-1]))
        with torch.inference_mode():
            for part in looks.split(AT_ONCE):
                self._vectors.append(network.forward_lip(part.to(device)).float().cpu().numpy())
        self._context.counters.forwards[f"{NAME}-lip"] += len(looks)
        self._crops = self._crops[-LOST:]


def crops_of(framed: list[Framed]) -> Iterator[np.ndarray]:
    """SyncNet's crop of each frame, uint8 (224, 224, 3)."""
    return (syncnet_rectangle(square).picture(frame, SIZE) for frame, square in framed)


def pcm(samples: np.ndarray) -> np.ndarray:
    """float (S,) in [-1, 1] as int16 levels, as a WAV file holds them."""
    return np.clip(np.round(np.asarray(samples, np.float64) * 32768), -32768, 32767).astype(np.int16)


def sound_of(samples: np.ndarray, start: int, count: int) -> np.ndarray:
    """What is heard during `count` frames from frame `start`: int16, possibly shorter where the sound ends before."""
    return samples[start * SAMPLES_PER_FRAME : (start + count) * SAMPLES_PER_FRAME]


def looks_with_sound(count: int, sound: np.ndarray) -> int:
    """Number of looks of a track of `count` frames with this sound, by the published rule; 0 or less is none."""
    return min(count, len(sound) // SAMPLES_PER_FRAME) - LOST


def sound_vectors(context: Context, sound: np.ndarray, many: int) -> np.ndarray:
    """float32 (many, 1024), one for the 0.2 s from the beginning of each frame.

    Args:
        context: whose network is used, and whose counters.
        sound: int16 (S,) at 16 kHz from the track's first frame.
        many: at least 1, see `looks_with_sound`.
    """
    import torch

    from ..models.mfcc import mfcc_windows

    network = context.network(NETWORK)
    parts = []
    for first in range(0, many, SOUNDS_AT_ONCE):
        last = min(first + SOUNDS_AT_ONCE, many)
        windows = mfcc_windows(mfcc_rows(sound, first * STEPS_PER_FRAME, (last - 1) * STEPS_PER_FRAME + STEPS))
        with torch.inference_mode():
            found = network.forward_aud(torch.from_numpy(windows.astype(np.float32)).to(context.device))
        parts.append(found.float().cpu().numpy())
    context.counters.forwards[f"{NAME}-sound"] += many
    return np.concatenate(parts)


def mfcc_rows(sound: np.ndarray, first: int, last: int) -> np.ndarray:
    """Rows `first` to `last` - 1 of `mfcc(sound)` without the others, so that memory does not grow with the sound."""
    from ..models.mfcc import FRAME, HOP, mfcc

    before = min(first, 1)  # the first sample of what is given has none before it; only a row that is dropped sees it
    part = sound[(first - before) * HOP : (last - 1) * HOP + FRAME]
    return mfcc(part)[before : before + last - first]


@dataclass(frozen=True)
class Track:
    """A track that ran to its end.

    Attributes:
        start: number of its first frame.
        looks: its crops, see `TrackLooks`.
    """

    start: int
    looks: TrackLooks


def row_of(tracks: list[Track], samples: np.ndarray, least: int, context: Context) -> dict[str, Any] | None:
    """Columns `video`, `audio`, `track`, `frame` and `n_tracks` of a clip's tracks, None when no track has its sound.

    Args:
        tracks: of at least `least` frames each.
        samples: int16 (S,) of the clip at 16 kHz, sample 0 at frame 0.
        least: frames that picture and sound of a track must have in common.
        context: as for `sound_vectors`.
    """
    video, audio, numbers, frames = [], [], [], []
    for track in tracks:
        sound = sound_of(samples, track.start, track.looks.count)
        many = looks_with_sound(track.looks.count, sound)
        if many < least - LOST:
            continue
        video.append(track.looks.vectors()[:many])
        audio.append(sound_vectors(context, sound, many))
        frames.append(np.arange(track.start, track.start + many, dtype=np.int32))
        numbers.append(np.full(many, len(numbers), dtype=np.int16))
    if not video:
        return None
    columns = {"video": video, "audio": audio, "track": numbers, "frame": frames}
    return {name: np.concatenate(parts) for name, parts in columns.items()} | {"n_tracks": len(video)}
