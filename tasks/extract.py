"""The streaming pass: a clip is decoded once and its faces are found once, and every extractor is fed from that.

Memory does not grow with the clip: at most 25 full frames wait for the crop's anchor and one batch is on its way.
Rows that are stored already are not made again; stored faces are replayed instead of detected. Only an extractor that
wants all of a clip's faces before the first frame (a crop around the whole path of a face) costs a second decode, when
the faces are not stored yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..core.clock import StageClock
from ..core.config import digest
from ..core.counters import Counters
from ..core.errors import InputError, MediaError, NoFace, TalkForgeError, TooShort
from ..core.hashing import file_sha256
from ..core.memory import release_freed
from ..core.registry import resolve
from ..datasets.audio import SAMPLES_PER_FRAME, read_audio
from ..datasets.containers import printable
from ..datasets.video import FPS, VideoStream, open_video, resample
from .crop import FaceCropper, Item
from .extract_faces import FACES, replay
from .extractor import Batch, ClipExtractor, Context, ExtractorSpec, extractors
from .faces import Landmarker, Subject
from .features import FeatureStore

BATCH = 16  # frames handed to the extractors at a time
# What a clip is to blame for, so that it holds wherever the row is used. Missing weights or packages are this machine's
# state: stored under a clip's content, they would outlive their cure.
CLIP_FAULTS = (MediaError, NoFace, InputError)


@dataclass(frozen=True)
class ClipFile:
    """A clip's picture and where its sound is.

    Attributes:
        video: the file with the picture.
        audio: the file with the sound; the video itself when the sound is inside.
        start_s, end_s: part of both, seconds since the first picture, rounded to whole frames at 25 fps; None for
            their ends.
    """

    video: Path
    audio: Path
    start_s: float | None = None
    end_s: float | None = None

    def content(self, sha256: Callable[[Path], str] = file_sha256) -> str:
        """Digest of what a feature row depends on: the bytes, and which part of them."""
        parts: list[Any] = [sha256(self.video)]
        if self.audio != self.video:
            parts.append(sha256(self.audio))
        if self.start_s is not None or self.end_s is not None:
            parts.append({"frames": self.frames()})
        return parts[0] if len(parts) == 1 else digest(parts)

    def frames(self) -> tuple[int, int | None]:
        """First 25 fps frame of the part, and the one after its last (None: to the end)."""
        return round((self.start_s or 0) * FPS), None if self.end_s is None else round(self.end_s * FPS)


@dataclass(frozen=True)
class ExtractRequest:
    """What to extract from a shard of clips, and how."""

    clips: tuple[ClipFile, ...]
    extractors: tuple[str, ...]
    crop: str
    cache: Path | None
    device: str = "cpu"


@dataclass
class ExtractResult:
    """What a shard gave: content digest per video path, and the work done."""

    contents: dict[str, str] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)


def extract_shard(request: ExtractRequest) -> ExtractResult:
    """Makes the missing feature rows of each clip; a clip that cannot be read becomes rows with the reason.

    Raises:
        WeightsError, MissingPackage: what an extractor needs is not here; nothing is stored about the clip.
    """
    result = ExtractResult()
    specs = [extractors.get(name) for name in request.extractors]
    store = FeatureStore(request.cache, request.crop)
    for clip in request.clips:
        content = clip.content()
        result.contents[str(clip.video)] = content
        result.counters.clips += 1
        extract_clip(clip, content, specs, store, result.counters, device=request.device)
    return result


def extract_clip(
    clip: ClipFile,
    content: str,
    specs: Sequence[ExtractorSpec],
    store: FeatureStore,
    counters: Counters,
    *,
    device: str = "cpu",
    clock: StageClock | None = None,
) -> None:
    """Makes the clip's rows that are not stored yet, in one pass, or in two where faces have to be known beforehand.

    Args:
        clock: gets the time of each stage: sound, decode, detect, crop, each extractor by its id, store.
    """
    clock = clock or StageClock()
    missing = [spec for spec in specs if store.find(spec, content) is None]
    counters.cache_hits += len(specs) - len(missing)
    after = [spec for spec in missing if spec.track]
    if after and store.find(FACES, content) is None:
        before = [spec for spec in missing if not spec.track]
        before = before if FACES in before else [FACES, *before]
        _Pass(clip, content, before, store, counters, device, clock).run()
        missing = after
    faces = store.find(FACES, content) if after else None
    if faces is not None and faces.reason is not None:
        missing = [spec for spec in missing if not spec.track]
        for spec in after:
            store.save_failure(spec, content, faces.reason, faces.message)
    if missing:
        _Pass(clip, content, missing, store, counters, device, clock).run()


class _Pass:
    """One clip's pass."""

    def __init__(
        self,
        clip: ClipFile,
        content: str,
        missing: Sequence[ExtractorSpec],
        store: FeatureStore,
        counters: Counters,
        device: str,
        clock: StageClock,
    ) -> None:
        self.clip, self.content, self.store, self.counters, self.clock = clip, content, store, counters, clock
        self.context = Context(device, counters, scratch=store.root / "tmp", clock=clock)
        # Who wants faces, or a crop around them, needs their row: it comes along whether it was asked for or not.
        by_face = store.crop == "face" and any(spec.picture for spec in missing)
        by_face = by_face or any(spec.faces for spec in missing)
        stored = store.find(FACES, content) if by_face else None
        known = stored if stored is not None and stored.reason is None else None
        self.context.track, self.scenes = replay(known) if known is not None else ([], [])
        if by_face and stored is None and FACES not in missing:
            missing = [*missing, FACES]
        self.missing = missing
        self.detects = FACES in missing

    def run(self) -> None:
        """Extracts and stores; a failure of the file is stored for every row that depended on it."""
        if any(spec.audio for spec in self.missing):
            with self.clock.stage("sound"):
                self.context.audio = self._sound()
        running = {spec.id: self._make(spec) for spec in self.missing}
        watching = {name: one for name, one in running.items() if _looks(self._spec(name))}
        try:
            if watching:
                self._watch(watching)
        except CLIP_FAULTS as error:
            for name in watching:
                self._fail(self._spec(name), error)
                del running[name]
        for name, extractor in running.items():
            self._finish(self._spec(name), extractor)

    def _spec(self, name: str) -> ExtractorSpec:
        return next(spec for spec in self.missing if spec.id == name)

    def _make(self, spec: ExtractorSpec) -> ClipExtractor:
        return resolve(spec.target)(spec, self.context)

    def _sound(self) -> np.ndarray | MediaError:
        """The clip's sound, or the error that says why there is none, for the extractors to explain."""
        try:
            samples = read_audio(self.clip.audio)
        except MediaError as error:
            return error
        first, last = self.clip.frames()
        return samples[first * SAMPLES_PER_FRAME : None if last is None else last * SAMPLES_PER_FRAME]

    def _finish(self, spec: ExtractorSpec, extractor: ClipExtractor) -> None:
        try:
            with self.clock.stage(spec.id):
                values = extractor.finish()
        except CLIP_FAULTS as error:
            self._fail(spec, error)
        else:
            with self.clock.stage("store"):
                self.store.save(spec, self.content, values)

    def _fail(self, spec: ExtractorSpec, error: TalkForgeError) -> None:
        """Stores a failure. Rows are shared by content, so the message keeps no folder of this copy."""
        message = error.message
        for path in (self.clip.video, self.clip.audio):
            message = message.replace(printable(path), path.name)
        self.store.save_failure(spec, self.content, error.reason, message)

    def _watch(self, watching: dict[str, ClipExtractor]) -> None:
        """Decodes the clip and feeds batches to the extractors that look at it."""
        batch: list[Item] = []
        for item in self._cropped():
            batch.append(item)
            if len(batch) == BATCH:
                self._feed(batch, watching)
                batch = []
        if batch:
            self._feed(batch, watching)

    def _feed(self, items: list[Item], watching: dict[str, ClipExtractor]) -> None:
        batch = Batch(
            index=np.array([item.index for item in items]),
            frames=[item.frame for item in items],
            faces=[item.face for item in items],
            scenes=[item.scene for item in items],
            subject=[item.subject for item in items],
            squares=[item.square for item in items],
            boxes=[item.box for item in items],
        )
        for name, extractor in watching.items():
            with self.clock.stage(name):
                extractor.push(batch)
        with self.clock.stage("memory"):
            release_freed()

    def _cropped(self) -> Iterator[Item]:
        """Frames with their picture under the run's crop."""
        if self.store.crop == "none":
            for item in self._tracked():
                item.subject = item.frame
                yield item
            return
        cropper = FaceCropper()
        for item in self._tracked():
            yield from self.clock.each("crop", cropper.push(item))
        yield from self.clock.each("crop", cropper.flush())

    def _tracked(self) -> Iterator[Item]:
        """25 fps frames with the subject's face, detected now or replayed from the stored row."""
        with ExitStack() as stack:
            start = Fraction(self.clip.frames()[0], FPS)
            stream = stack.enter_context(open_video(self.clip.video, counters=self.counters, start_s=start))
            frames = self.clock.each("decode", self._part(stream))
            if self.detects:
                landmarker, subject = stack.enter_context(Landmarker(self.counters)), Subject()
                for index, frame in frames:
                    with self.clock.stage("detect"):
                        found = landmarker.detect(frame, index)
                    with self.clock.stage("track"):
                        face = subject.choose(frame, found, index)
                    yield Item(index, frame, face, subject.scene)
                return
            faces, scenes = self.context.track, self.scenes
            for index, frame in frames:
                known = index < len(faces)
                yield Item(index, frame, faces[index] if known else None, scenes[index] if known else 0)

    def _part(self, stream: VideoStream) -> Iterator[tuple[int, np.ndarray]]:
        """25 fps frames of the clip's part, numbered from 0."""
        first, last = self.clip.frames()
        end = first
        for slot, _, frame in resample(stream):
            self.context.info = stream.info
            if last is not None and slot >= last:
                break
            if slot >= first:
                end = slot + 1
                yield slot - first, frame
        if end == first:
            raise TooShort(f"{printable(self.clip.video)} has no picture after {self.clip.start_s} s")


def _looks(spec: ExtractorSpec) -> bool:
    return spec.picture or spec.frames or spec.faces


def stored(store: FeatureStore, content: str, names: Sequence[str]) -> dict[str, Any]:
    """The rows of a clip by extractor id (those that exist)."""
    found = {name: store.find(extractors.get(name), content) for name in names}
    return {name: row for name, row in found.items() if row is not None}
