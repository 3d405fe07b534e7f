"""Extractor `syncnet-v2-direct`: SyncNet's vectors of the mouth and of the sound, from one decode and no file.

Frames at 25 fps as they are decoded; the crop is that of SyncNet's pipeline around MediaPipe's box of the subject (see
`crops`), cut in memory; the sound as it is decoded. A track is the subject under one identity within one scene, gaps of
less than a second bridged. Looks and sound of each track are scored for themselves, so the row says which look belongs
to which track.

The published chain writes the video, its frames, its crops and its sound to lossy files on the way. Its numbers are
those of `extract_syncnet_compat`; these here are of the same kind and not the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import MediaError, NoFace, SilentAudio, TooShort
from ..datasets.audio import is_silent
from .crops import CROPS_NAMED
from .extractor import Batch, Context, ExtractorSpec, series, vectors
from .faces import LANDMARKER, PATIENCE, Face
from .syncnet_tracks import LOST, NAME, NoTrack, Track, TrackLooks, TrackSquares, crops_of, pcm, row_of

FEATURES = 1024
LARGEST_SHIFT = 15  # frames, of the scores that are made of the vectors
# The shortest track in which every shift has a look and a sound of its own.
LEAST = LARGEST_SHIFT + 1 + LOST
BOXES = "mediapipe-478"

COLUMNS = {
    "video": vectors(FEATURES),
    "audio": vectors(FEATURES),
    "track": series(pa.int16()),
    "frame": series(pa.int32()),
    "boxes": pa.string(),
    "n_tracks": pa.int32(),
    "n_frames": pa.int32(),
    "n_missing": pa.int32(),
}


def declare(name: str, least: int) -> ExtractorSpec:
    """The declaration of a variant that takes tracks of at least `least` frames."""
    return ExtractorSpec(
        id=name,
        version=1,
        target="talkforge.tasks.extract_syncnet:DirectVectors",
        columns=COLUMNS,
        what=f"SyncNet v2: 1024 numbers a look and a sound, tracks of {least} frames or more, decoded once, no files",
        faces=True,
        audio=True,
        weights=(LANDMARKER, NAME),
        params={
            "min_track": least,
            "crop": next(crop.rule for crop in CROPS_NAMED if crop.name == "syncnet-square"),
            "patience": PATIENCE,
            "looks": "5 frames, the last of each track left out",
        },
        steps={"video": 0, "audio": 0, "track": 0, "frame": 0},
    )


DIRECT = declare("syncnet-v2-direct", LEAST)
EXTRACTORS = (DIRECT,)


def check_sound(audio: np.ndarray | MediaError | None) -> np.ndarray:
    """The clip's sound as int16 levels. Raises what is wrong with it, SilentAudio included."""
    if isinstance(audio, MediaError):
        raise audio
    assert audio is not None, "the pass reads the sound for extractors that declare audio=True"
    if is_silent(audio):
        raise SilentAudio("the sound track is silent: there is nothing to be in time with")
    return pcm(audio)


def has_sound(audio: np.ndarray | MediaError | None) -> bool:
    """Whether looking at the picture is worth while."""
    return isinstance(audio, np.ndarray) and not is_silent(audio)


class DirectVectors:
    """The vectors of one clip."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self._least = int(spec.params["min_track"])
        self._context = context
        self._heard = has_sound(context.audio)
        self._identity: int | None = None
        self._squares = TrackSquares()
        self._looks = TrackLooks(context, self._least)
        self._tracks: list[Track] = []
        self._longest = self._count = self._seen = 0

    def push(self, batch: Batch) -> None:
        """Takes the next frames."""
        for index, frame, face in zip(batch.index, batch.frames, batch.faces, strict=True):
            self._count += 1
            self._seen += face is not None
            if self._heard:
                self._take(int(index), frame, face)

    def _take(self, index: int, frame: np.ndarray, face: Face | None) -> None:
        if face is not None and (face.track != self._identity or self._squares.over):
            self._close()
            self._identity = face.track
        if self._identity is None:
            return
        if face is None:
            self._squares.miss(frame)
        else:
            for crop in crops_of(self._squares.see(index, frame, np.array(face.box))):
                self._looks.push(crop)

    def _close(self) -> None:
        """Ends the track; keeps it if it is long enough."""
        for crop in crops_of(self._squares.close()):
            self._looks.push(crop)
        self._longest = max(self._longest, self._looks.count)
        if self._looks.count >= self._least:
            self._tracks.append(Track(self._squares.start, self._looks))
        self._squares, self._looks = TrackSquares(), TrackLooks(self._context, self._least)

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace, NoTrack, TooShort, SilentAudio or the sound's own error."""
        if not self._seen:
            raise NoFace(f"no face in any of {self._count} frames")
        samples = check_sound(self._context.audio)
        self._close()
        if self._count < self._least:
            raise TooShort(f"{self._count} frames; {self._least} are needed for every shift to have a pair")
        if not self._tracks:
            raise NoTrack(f"the longest track has {self._longest} frames, {self._least} are needed")
        row = row_of(self._tracks, samples, self._least, self._context)
        if row is None:
            raise TooShort(f"the sound ends before {self._least} frames of any track")
        return row | {"boxes": BOXES, "n_frames": self._count, "n_missing": self._count - self._seen}
