"""What SyncNet's published pipeline does to a clip before the network sees it, frame by frame and without a file.

Cuts, tracks and the lossy steps of `run_pipeline.py` and `run_syncnet.py` (github.com/joonson/syncnet_python). The
pipeline looks for tracks one after the other, each from the first face that is left; a face goes to the first track
that it fits. Offering each frame's faces to the tracks in the order of their beginning gives the same tracks and needs
no frame twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..datasets.audio import SAMPLE_RATE
from ..datasets.lossy import MP3_DELAY, LossyPicture, lossy_sound
from ..datasets.video import FPS
from .extractor import Context
from .faces import overlap
from .syncnet_tracks import SIZE, Framed, Track, TrackLooks, TrackSquares, crops_of, pcm

DETECTOR = "talkforge.models.s3fd:load_s3fd"
DETECTOR_NAME = "s3fd-syncnet"  # in the counters and in the weights store
DETECTOR_SCALE, DETECTOR_THRESHOLD = 0.25, 0.9
SAME_FACE_IOU = 0.5
LONGEST_GAP = 25  # frames from one sight to the next
LEAST_SIDE = 100  # pixels, on average; a track needs more
QUANTISER = 2  # of the whole video and of its frames
CUT_LEVEL, CUT_DISTANCE = 30.0, 15  # mean change of hue, saturation and value; frames between two cuts
CUT_STRIDES = ((3200, 12), (2100, 8), (1700, 6), (1200, 5), (900, 4), (600, 3))  # least width, pixels left out
# OpenCV's writer aims at one bit a pixel, with a key frame each 12, no quantiser below 3.
CROP_BIT_RATE, CROP_OPTIONS = SIZE * SIZE * FPS, {"g": "12", "qmin": "3"}
# The sound's delay in AVI makes the picture start late too, and the gap is filled with its first frame.
LEAD = round(MP3_DELAY / SAMPLE_RATE * FPS)


class Cuts:
    """Scene cuts as PySceneDetect 0.5's content detector finds them, with its thinning of large pictures."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._count, self._last = 0, -CUT_DISTANCE

    def push(self, frame: np.ndarray) -> bool:
        """Whether a scene begins with this frame, uint8 (H, W, 3) RGB."""
        stride = next((step for width, step in CUT_STRIDES if frame.shape[1] >= width), 1)
        thin = np.ascontiguousarray(frame[::stride, ::stride])
        hsv = cv2.cvtColor(thin, cv2.COLOR_RGB2HSV).astype(np.int16)
        before, self._before = self._before, hsv
        self._count += 1
        if before is None or np.abs(hsv - before).mean() < CUT_LEVEL or self._count - self._last < CUT_DISTANCE:
            return False
        self._last = self._count
        return True


class LossyCrop:
    """A track's crops through the AVI file and the JPEG files that the pipeline writes.

    Attributes:
        avi: the first of the two.
    """

    def __init__(self) -> None:
        self.avi = LossyPicture("mpeg4", SIZE, SIZE, bit_rate=CROP_BIT_RATE, options=CROP_OPTIONS)
        self._jpeg = LossyPicture("mjpeg", SIZE, SIZE)

    def __call__(self, crop: np.ndarray) -> np.ndarray:
        """The next crop, uint8 (224, 224, 3), as the network gets it."""
        return self._jpeg(self.avi(crop))


class LossyFrame:
    """The clip's frames through the AVI file and the JPEG files that the pipeline writes."""

    def __init__(self, height: int, width: int) -> None:
        self._avi = LossyPicture("mpeg4", height, width, quantiser=QUANTISER)
        self._jpeg = LossyPicture("mjpeg", height, width, quantiser=QUANTISER)

    def __call__(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The next frame as cuts are looked for in it, and as faces are."""
        video = self._avi(frame)
        return video, self._jpeg(video)


def faces_in(context: Context, frame: np.ndarray) -> np.ndarray:
    """Boxes of the faces in a frame, uint8 (H, W, 3) RGB: (N, 4) left, top, right, bottom in pixels, best first."""
    from ..models.s3fd import detect

    small = cv2.resize(frame, (0, 0), fx=DETECTOR_SCALE, fy=DETECTOR_SCALE, interpolation=cv2.INTER_LINEAR)
    found = detect(context.network(DETECTOR), small, DETECTOR_THRESHOLD)
    context.counters.forwards[DETECTOR_NAME] += 1
    height, width = frame.shape[:2]
    return found[:, :4] * [width, height, width, height]


def chain_sound(samples: np.ndarray) -> np.ndarray:
    """The clip's sound, float32 (S,) at 16 kHz, as the pipeline cuts it: int16, late by the codec's delay."""
    return pcm(lossy_sound(samples))


@dataclass
class LiveTrack:
    """A face that is being followed."""

    squares: TrackSquares
    looks: TrackLooks
    lossy: LossyCrop = field(default_factory=LossyCrop)

    def take(self, framed: list[Framed]) -> None:
        """Crops the settled frames and sends them on."""
        for crop in crops_of(framed):
            self.looks.push(self.lossy(crop))


class Follower:
    """Follows faces through the frames of a clip.

    Args:
        context: whose network is used, and whose counters.
        min_track: a track needs more sights of its face than this.

    Attributes:
        tracks: those that are over and were long and large enough.
        longest: most sights of a track so far.
        largest: mean side of the largest track that was long enough, pixels; 0 without one.
    """

    def __init__(self, context: Context, min_track: int) -> None:
        self.tracks: list[Track] = []
        self.longest, self.largest = 0, 0.0
        self._context, self._min_track = context, min_track
        self._live: list[LiveTrack] = []

    def push(self, index: int, frame: np.ndarray, boxes: Iterable[np.ndarray]) -> None:
        """Takes the next frame, uint8 (H, W, 3) RGB, and the boxes (4,) of its faces, best first."""
        left = [np.asarray(box, float) for box in boxes]
        for track in list(self._live):
            if track.squares.over:
                self._end(track)
                continue
            at = next(self._matches(track, left), None)
            if at is None:
                track.squares.miss(frame)
            else:
                track.take(track.squares.see(index, frame, left.pop(at)))
        for box in left:
            squares = TrackSquares(patience=LONGEST_GAP)
            track = LiveTrack(squares, TrackLooks(self._context, self._min_track + 1))
            track.take(squares.see(index, frame, box))
            self._live.append(track)

    def cut(self) -> None:
        """Ends all tracks: a scene has ended, or the clip."""
        for track in list(self._live):
            self._end(track)

    @staticmethod
    def _matches(track: LiveTrack, boxes: list[np.ndarray]) -> Iterator[int]:
        last = tuple(track.squares.last)
        return (at for at, box in enumerate(boxes) if overlap(last, tuple(box)) > SAME_FACE_IOU)

    def _end(self, track: LiveTrack) -> None:
        self._live.remove(track)
        self.longest = max(self.longest, track.squares.seen)
        if track.squares.seen <= self._min_track:
            return
        self.largest = max(self.largest, track.squares.mean_side)
        if track.squares.mean_side > LEAST_SIDE:
            track.take(track.squares.close())
            self.tracks.append(Track(track.squares.start, track.looks))
