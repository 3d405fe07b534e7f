"""Extractors `syncnet-v2-compat` and `syncnet-v2-compat-min50`: SyncNet's vectors by the published chain in effect.

Reproduced, in this order and in memory:

1. the whole video as MPEG-4 at quantiser 2, its sound as MP3 at 128 kbit/s;
2. that AVI holds no delay of the sound's codec: the sound comes 1105 samples (69 ms) late, and the picture's first
   frame is repeated twice for it (80 ms), 11 ms net; cuts and the clip's end are counted without the two, so that a
   scene begins with the last two frames of the one before and the clip's last two are lost;
3. its frames as JPEG at quantiser 2;
4. S3FD on a quarter of the size, probability over 0.9;
5. cuts by PySceneDetect's content detector of the time (level 30, 15 frames apart, large pictures thinned out);
6. tracks of faces that overlap by more than 0.5 (IoU), 25 frames apart at most, none over a cut; more than `min_track`
   sights (100 upstream; 50 in LatentSync and syncnet-python) and a mean side of more than 100 pixels;
7. gaps interpolated, running median of 13 over centre and size, the crop with 0.4 and grey 110, bilinear to 224 x 224;
8. each track's crops as MPEG-4 the way OpenCV writes "XVID", and these as JPEG by the default of 200 kbit/s, whose
   quality falls within the first second;
9. vectors of the looks and of the sound, the last look of each track left out.

What differs: frames are made constant at 25 fps by our clock, not by FFmpeg's; the sound enters the MP3 step at 16 kHz
mono, where FFmpeg keeps the file's own rate (at 44.1 kHz the delay is 25 ms and one frame is repeated); codecs are
those of PyAV's FFmpeg, pictures are converted by its scaler.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ..core.errors import NoFace, TooShort
from .extract_syncnet import COLUMNS, check_sound, has_sound
from .extractor import Batch, Context, ExtractorSpec
from .syncnet_chain import (
    CUT_LEVEL,
    DETECTOR_NAME,
    DETECTOR_SCALE,
    DETECTOR_THRESHOLD,
    LEAD,
    LEAST_SIDE,
    LONGEST_GAP,
    QUANTISER,
    SAME_FACE_IOU,
    Cuts,
    Follower,
    LossyFrame,
    chain_sound,
    faces_in,
)
from .syncnet_tracks import LOST, NAME, NoTrack, row_of

BOXES = "s3fd-quarter"


def declare(name: str, min_track: int) -> ExtractorSpec:
    """The declaration of a variant whose tracks have more than `min_track` sights of their face."""
    return ExtractorSpec(
        id=name,
        version=1,
        target="talkforge.tasks.extract_syncnet_compat:CompatVectors",
        columns=COLUMNS,
        what=f"SyncNet v2 as published: S3FD, tracks over {min_track} frames, the chain's losses in memory",
        frames=True,  # the published chain finds its faces itself
        audio=True,
        weights=(NAME, DETECTOR_NAME),
        params={
            "min_track": min_track,
            "detector": f"S3FD, scale {DETECTOR_SCALE}, probability {DETECTOR_THRESHOLD}",
            "tracks": f"IoU {SAME_FACE_IOU}, gap {LONGEST_GAP}, side {LEAST_SIDE}, cuts {CUT_LEVEL}",
            "losses": f"mpeg4 q{QUANTISER}, jpeg q{QUANTISER}, mp3 128k, crop mpeg4 1 bit a pixel, crop jpeg 200k",
            "lead": LEAD,
        },
        steps={"video": 0, "audio": 0, "track": 0, "frame": 0},
    )


COMPAT = declare("syncnet-v2-compat", 100)
COMPAT_50 = declare("syncnet-v2-compat-min50", 50)
EXTRACTORS = (COMPAT, COMPAT_50)


class CompatVectors:
    """The vectors of one clip. `frame` counts the chain's frames, which are `LEAD` later than the clip's."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self._min_track = int(spec.params["min_track"])
        self._context = context
        self._heard = has_sound(context.audio)
        self._follower = Follower(context, self._min_track)
        self._cuts = Cuts()
        self._lossy: LossyFrame | None = None
        self._late: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=1 + LEAD)  # frames and their boxes
        self._count = self._seen = 0

    def push(self, batch: Batch) -> None:
        """Takes the next frames."""
        for frame in batch.frames:
            if self._heard:
                self._take(frame)
            self._count += 1

    def _take(self, frame: np.ndarray) -> None:
        if self._lossy is None:
            self._lossy = LossyFrame(*frame.shape[:2])
        video, picture = self._lossy(frame)
        if self._cuts.push(video):
            self._follower.cut()
        self._late.append((picture, faces_in(self._context, picture)))
        picture, boxes = self._late[0]
        self._follower.push(self._count, picture, boxes)
        self._seen += len(boxes) > 0

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace, NoTrack, TooShort, SilentAudio or the sound's own error."""
        check_sound(self._context.audio)
        if not self._seen:
            raise NoFace(f"S3FD finds no face in any of {self._count} frames")
        self._follower.cut()
        if self._count <= self._min_track:
            raise TooShort(f"{self._count} frames; the published chain scores tracks of over {self._min_track}")
        if not self._follower.tracks:
            raise NoTrack(self._why())
        assert isinstance(self._context.audio, np.ndarray)
        row = row_of(self._follower.tracks, chain_sound(self._context.audio), LOST + 1, self._context)
        if row is None:
            raise TooShort("the sound ends before any track begins")
        return row | {"boxes": BOXES, "n_frames": self._count, "n_missing": self._count - self._seen}

    def _why(self) -> str:
        if not self._follower.largest:
            return f"the longest track has {self._follower.longest} sights, more than {self._min_track} are needed"
        return f"the largest track has a side of {self._follower.largest:.0f} pixels, over {LEAST_SIDE} are needed"
