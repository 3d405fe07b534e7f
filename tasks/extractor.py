"""What an extractor is: a declaration, and a class that turns one clip's frames or sound into one feature row.

Adding one touches this room's new file (which declares a tuple `EXTRACTORS`) and its test; listings, cache keys, views
and counters follow from the declaration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ..core.clock import StageClock
from ..core.counters import Counters
from ..core.errors import MediaError
from ..core.registry import Registry, resolve
from ..datasets.source import VideoInfo
from .crop import aligned_224
from .faces import Face


@dataclass(frozen=True)
class ExtractorSpec:
    """Declaration of an extractor.

    Attributes:
        id: name in plans, caches and metrics, e.g. "i3d-k400-16f".
        version: raised whenever the same input would give another row.
        target: "module:Class" of the `ClipExtractor`, imported when needed.
        columns: names and Arrow types of the feature row.
        what: one line for listings.
        picture: wants `Batch.subject`, the picture that the run's crop defines.
        frames: wants the full frames and nothing found in them; no face is searched for it.
        faces: wants face observations.
        audio: wants the clip's sound.
        track: wants the faces of the whole clip before its first frame, see `Context.track`; a clip whose faces are not
            stored yet is decoded twice then.
        compares: id of the extractor whose rows of both sides of a pair it takes, instead of a clip; see `compare`.
        weights: names in the weights store.
        params: constants that define the row; part of its identity.
        steps: list column -> entries for each 25 fps frame, where it is not 1; 0 for a list that is no series.
    """

    id: str
    version: int
    target: str
    columns: Mapping[str, pa.DataType]
    what: str
    picture: bool = False
    frames: bool = False
    faces: bool = False
    audio: bool = False
    track: bool = False
    compares: str = ""
    weights: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Consecutive 25 fps frames of one clip.

    Attributes:
        index: (B,) frame numbers, ascending, no gaps.
        frames: B full frames, uint8 (H, W, 3) RGB.
        faces: B observations of the subject's face, None where it was not found.
        scenes: B numbers of scene cuts before each frame.
        subject: B pictures under the run's crop, uint8 RGB, None where there is no face to crop.
        squares: B settled squares (centre x, centre y, side) of the crop "face", float64 (3,) pixels, None before a
            scene's first face; the crop of a frame where the subject is not seen is the one it had before.
        boxes: B boxes of the landmarks (left, top, right, bottom), settled and kept as the squares are.
    """

    index: np.ndarray
    frames: list[np.ndarray]
    faces: list[Face | None]
    scenes: list[int]
    subject: list[np.ndarray | None]
    squares: list[np.ndarray | None] = field(default_factory=list)
    boxes: list[np.ndarray | None] = field(default_factory=list)

    @cached_property
    def aligned(self) -> list[np.ndarray | None]:
        """B faces turned and scaled onto the 224x224 template, uint8 (224, 224, 3), None without a face.

        Made when the first extractor asks (one with `faces=True`), and shared by those that follow.
        """
        pairs = zip(self.frames, self.faces, strict=True)
        return [None if face is None else aligned_224(frame, face) for frame, face in pairs]


@dataclass
class Context:
    """What an extractor may use for one clip.

    Attributes:
        device: torch device name.
        counters: work done; extractors add their forwards.
        audio: float32 (S,) at 16 kHz, time zero at the first frame; the error when there is none; None when not asked.
        info: header of the video, once it is open.
        track: the subject's face in every frame of the clip, for extractors with `track=True`.
        scratch: folder for temporary files, see `scratch.scratch_folder`.
        clock: for stages inside an extractor; its own time is booked to its id.
    """

    device: str
    counters: Counters
    audio: np.ndarray | MediaError | None = None
    info: VideoInfo | None = None
    track: Sequence[Face | None] = ()
    scratch: Path | None = None
    clock: StageClock = field(default_factory=StageClock)

    def network(self, target: str) -> Any:
        """The network that "module:loader" names, loaded once per process and device, shared between clips."""
        return _network(target, self.device)


_LOADING = Lock()


def _network(target: str, device: str) -> Any:
    with _LOADING:  # two clips that want the same network at once load it once
        return _loaded(target, device)


@cache
def _loaded(target: str, device: str) -> Any:
    import torch

    # Clips run side by side, one thread each. It also keeps sums in one order, so that a row does not depend on how
    # many cores made it.
    torch.set_num_threads(1)
    return resolve(target)().to(device).eval()


class ClipExtractor(Protocol):
    """One clip's extraction: made, fed with batches in order, finished."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None: ...

    def push(self, batch: Batch) -> None:
        """Takes the next frames (never called for extractors that want neither picture nor frames nor faces)."""
        ...

    def finish(self) -> dict[str, Any]:
        """The row's columns. Raises a typed error where there is no row; its reason is stored instead."""
        ...


extractors: Registry[ExtractorSpec] = Registry("extractor")
extractors.discover("talkforge.tasks", "EXTRACTORS", key=lambda spec: spec.id)


def vectors(width: int, dtype: pa.DataType | None = None) -> pa.DataType:
    """Arrow type of a (N, width) array: one fixed-size list a row, null where the row is missing."""
    return pa.list_(pa.list_(dtype or pa.float32(), width))


def series(dtype: pa.DataType | None = None) -> pa.DataType:
    """Arrow type of a (N,) array."""
    return pa.list_(dtype or pa.float32())
