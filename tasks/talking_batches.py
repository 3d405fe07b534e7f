"""Batches for systems that learn to animate a portrait: pictures of a window, a portrait, a face mask, and more.

Which window and which portrait is drawn with the sampler's plan, so that a training goes on exactly. A window has F
frames, each `stride`-th of the build's 25 a second (2: 12.5 a second), and where a system wants them some more before
these. What else a system reads of a clip (sound, priors, action units) a function adds that it gives along.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from ..core.emotions import MEAD_EMOTIONS
from ..core.errors import ConfigError, InputError
from ..datasets.batches import BalancedGroups, Cut
from ..datasets.shards import ClipShards
from .face_mask import boxes_in_crop, face_mask

STRIDE = 2  # frames of 25 a second from one picture to the next, where nothing else is said
UNKNOWN = -1  # class of a clip whose emotion is not known
POINTS, TRANSFORM = "faces_mediapipe_points", "crop_transform"
MAKERS = {POINTS: "faces-mediapipe", TRANSFORM: "crop-video"}
LABELS = ("identity", "emotion", "view")
CHUNK = 128  # frames that are decoded at once
COLUMN_CACHE = 128 << 20  # bytes of clips' columns that stay in memory

T = TypeVar("T")


class Shot(NamedTuple):
    """A window of clip number `clip` from frame `start` on, and where its portrait is."""

    clip: int
    start: int
    portrait_clip: int
    portrait_frame: int


@dataclass(frozen=True)
class TalkingClip:
    """What a row of the build says of a whole clip.

    Attributes:
        clip_id: its name.
        frames: of 25 a second.
        emotion: MEAD class, `UNKNOWN` where there is none.
        boxes: float64 (frames, 4), the face in the crop video; NaN where there is none.
        shown: bool (frames,), False where the crop video is black.
        columns: the other columns, as `ClipShards` gives them.
        parts: by name, boxes as `boxes` around some of the face's points.
    """

    clip_id: str
    frames: int
    emotion: int
    boxes: np.ndarray
    shown: np.ndarray
    columns: Mapping[str, Any]
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)


# (clip, frame of the first picture) -> what a system reads beside pictures, portrait, mask and emotion, in one shape
Extras = Callable[[TalkingClip, int], Mapping[str, np.ndarray]]


def span(frames: int, stride: int = STRIDE) -> int:
    """Frames at 25 a second from the first to the last picture of a window."""
    return stride * (frames - 1) + 1


class TalkingWindows(BalancedGroups):
    """Batches of `Shot`s, groups in equal shares.

    The portrait is a frame of one of the clip's partners; of the clip itself, outside the window where it is longer.

    Args:
        groups: each clip's group; None leaves it out.
        partners: clips that a clip's portrait may come from, itself or others.
        batch_size, seed, rank, world_size: see `BalancedGroups`.
        lengths: frames of each clip, at least `window` for those that have a group.
        window: see `span`.
        starts: where a clip's windows may begin, see `clear_starts`; None: anywhere.
        first_portraits: the first frame of the clip that gives the portrait instead of any.
        pinned: by name, sha256 of what the training must not be given another one of when it goes on.
    """

    def __init__(
        self,
        groups: Sequence[Hashable],
        partners: Sequence[Sequence[int]],
        batch_size: int,
        *,
        lengths: Sequence[int] | np.ndarray,
        window: int,
        starts: Sequence[np.ndarray] | None = None,
        first_portraits: bool = False,
        pinned: Mapping[str, str] | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(
            groups, batch_size, lengths=lengths, window=window, seed=seed, rank=rank, world_size=world_size
        )
        self.partners = [list(clips) for clips in partners]
        # Of clips that are clear throughout there is nothing to say.
        self._starts = {
            clip: own
            for clip, own in enumerate(starts or ())
            if self.groups[clip] is not None and len(own) <= self.lengths[clip] - window
        }
        self.first_portraits, self.pinned = first_portraits, dict(pinned or {})

    def state_dict(self, batches_done: int) -> dict[str, Any]:
        """See `BatchSampler`; with `pinned`."""
        return super().state_dict(batches_done) | ({"pinned": self.pinned} if self.pinned else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `BatchSampler`. Raises ConfigError also where something pinned is another one now."""
        check_pinned(state.get("pinned", {}), self.pinned)
        super().load_state_dict(state)

    def _settings(self) -> dict[str, Any]:
        limits = {str(clip): own.tolist() for clip, own in self._starts.items()}
        told = {"starts": limits} if limits else {}
        told |= {"first_portraits": True} if self.first_portraits else {}
        return super()._settings() | {"partners": self.partners} | told

    def _cut(self, batches: list[list[int]], window: int, rng: np.random.Generator) -> list[list[Any]]:
        return [[self._shot(part, window, rng) for part in batch] for batch in super()._cut(batches, window, rng)]

    def _shot(self, part: Cut, window: int, rng: np.random.Generator) -> Shot:
        start, own = part.start, self._starts.get(part.clip)
        if own is not None:
            start = int(own[np.abs(own - start).argmin()])  # the nearest, the earlier of two
        return Shot(part.clip, start, *self._portrait(part.clip, start, window, rng))

    def _portrait(self, clip: int, start: int, window: int, rng: np.random.Generator) -> tuple[int, int]:
        other = self.partners[clip][int(rng.integers(len(self.partners[clip])))]
        if self.first_portraits:
            return other, 0
        length = int(self.lengths[other])
        if other != clip or length <= window:
            return other, int(rng.integers(length))
        frame = int(rng.integers(length - window))  # of those that are not in the window
        return other, frame if frame < start else frame + window


class ByteCache(Generic[T]):
    """The arrays that were used last, up to so many bytes; what alone is larger is not kept. Empty when pickled."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._items: OrderedDict[int, tuple[T, int]] = OrderedDict()

    def get(self, key: int, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """The value of a key, made where it is not there."""
        if key not in self._items:
            value = make()
            self._put(key, value, size(value))
            return value
        self._items.move_to_end(key)
        return self._items[key][0]

    def _put(self, key: int, value: T, size: int) -> None:
        if size > self.limit:
            return
        self._items[key] = value, size
        self.held += size
        while self.held > self.limit:
            _, (_, gone) = self._items.popitem(last=False)
            self.held -= gone

    def __getstate__(self) -> dict[str, Any]:
        return {"limit": self.limit, "held": 0, "_items": OrderedDict()}


class TalkingClips:
    """`Shot`s of a build to items of a batch; a map-style dataset for `models.training.loader.Loader`.

    An item: `pictures` float32 (F, 3, size, size) and `portrait` (3, size, size), RGB in [-1, 1]; `mask` (1, 1, size,
    size), one box around the face in all of the window; `emotion`, `clip_id`, and what `extras` adds. With `before`
    also `motion` (before, 3, size, size), the window's first pictures, which then are not among `pictures`.

    Args:
        shards: with the columns `POINTS` and `TRANSFORM`, `emotion` if the build has it, and those of `extras`.
        frames: F.
        size: side of a picture.
        box_scale: see `face_mask`.
        extras: see `Extras`.
        picture_cache: bytes of resized pictures that stay in memory; 0 decodes the windows only.
        stride: frames of 25 a second from one picture to the next.
        before: pictures of `motion`.
        parts: by name, numbers of the points that `TalkingClip.parts` has boxes around.
    """

    def __init__(
        self,
        shards: ClipShards,
        *,
        frames: int,
        size: int,
        box_scale: float,
        extras: Extras,
        picture_cache: int,
        stride: int = STRIDE,
        before: int = 0,
        parts: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.shards, self.frames, self.size, self.box_scale, self.extras = shards, frames, size, box_scale, extras
        self.stride, self.before, self.parts = stride, before, dict(parts or {})
        self._columns: ByteCache[TalkingClip] = ByteCache(COLUMN_CACHE)
        self._pictures: ByteCache[np.ndarray] = ByteCache(picture_cache)

    def __getitem__(self, key: Shot) -> dict[str, Any]:
        clip = self.clip(key.clip)
        pictures = self.pictures(key.clip, key.start, self.window)[:: self.stride]
        portrait = self.pictures(key.portrait_clip, self._face_frame(key), 1)[0]
        motion = {"motion": _scaled(pictures[: self.before])} if self.before else {}
        return {
            "clip_id": clip.clip_id,
            "emotion": np.int64(clip.emotion),
            "pictures": _scaled(pictures[self.before :]),
            "portrait": _scaled(portrait),
            "mask": self.mask(clip, key.start),
            **motion,
            **self.extras(clip, key.start + self.before * self.stride),
        }

    @property
    def window(self) -> int:
        """Frames at 25 a second that a shot takes, those before its pictures among them."""
        return span(self.before + self.frames, self.stride)

    def clip(self, index: int) -> TalkingClip:
        """What the build says of a clip."""
        return self._columns.get(index, lambda: self._read(index), _bytes)

    def pictures(self, index: int, start: int, count: int) -> np.ndarray:
        """uint8 RGB (count, size, size, 3)."""
        if int(self.shards.lengths[index]) * self.size**2 * 3 > self._pictures.limit:  # it would not be kept
            return self._decode(index, start, count)
        whole = self._pictures.get(index, lambda: self._whole(index), lambda made: made.nbytes)
        return whole[start : start + count]

    def mask(self, clip: TalkingClip, start: int) -> np.ndarray:
        """(1, 1, size, size): around the face in the window; around that in the whole clip where it shows none."""
        side = int(clip.columns["crop_size"])
        corners = seen_boxes(clip.boxes, start, self.window).reshape(1, -1, 2)  # two of each box
        return face_mask(corners, side, side, self.size, self.box_scale)

    def _face_frame(self, shot: Shot) -> int:
        """The portrait's frame, or the nearest one that shows a face if that one is black."""
        seen = np.isfinite(self.clip(shot.portrait_clip).boxes).all(1)
        return int(min(np.flatnonzero(seen), key=lambda frame: abs(int(frame) - shot.portrait_frame)))

    def _read(self, index: int) -> TalkingClip:
        row = self.shards[index]
        points, transform = row.pop(POINTS), row.pop(TRANSFORM)
        emotion = row.get("emotion")
        label = MEAD_EMOTIONS.index(emotion) if emotion in MEAD_EMOTIONS else UNKNOWN
        boxes, shown = boxes_in_crop(points, transform), np.isfinite(transform).all(1)
        parts = {name: boxes_in_crop(_some(points, chosen), transform) for name, chosen in self.parts.items()}
        return TalkingClip(row["clip_id"], row["n_frames"], label, boxes, shown, row, parts)

    def _whole(self, index: int) -> np.ndarray:
        length = int(self.shards.lengths[index])
        starts = range(0, length, CHUNK)
        return np.concatenate([self._decode(index, start, min(CHUNK, length - start)) for start in starts])

    def _decode(self, index: int, start: int, count: int) -> np.ndarray:
        frames = self.shards.frames(index, start, count)
        size = (self.size, self.size)
        if frames.shape[1:3] == size:
            return frames
        return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.LANCZOS)) for f in frames])


def seen_boxes(boxes: np.ndarray, start: int, count: int) -> np.ndarray:
    """Boxes (n, 4) of the window's frames that show a face; of the whole clip's where the window has none."""
    seen: np.ndarray = np.logical_and.reduce(np.isfinite(boxes), axis=1)
    own = boxes[start : start + count][seen[start : start + count]]
    return own if len(own) else boxes[seen]


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Items of `TalkingClips` to a batch: arrays stacked, names as a list."""
    first = items[0]
    return {
        name: np.stack([item[name] for item in items])
        if isinstance(first[name], np.ndarray | np.generic)
        else [item[name] for item in items]
        for name in first
    }


def open_clips(folder: Any, split: str, columns: Sequence[str]) -> ClipShards:
    """A split with the columns of talking batches and `columns`.

    Raises:
        InputError: the build lacks one of those that no setting names.
    """
    whole = ClipShards(folder, split, columns=["clip_id"])
    there = whole.info["columns"]
    for column in (POINTS, TRANSFORM, "crop_size"):
        if column not in there:
            hint = f"build it with the extractor {MAKERS.get(column, MAKERS[TRANSFORM])}"
            raise InputError(f"the build has no column '{column}'", hint=hint)
    labels = [name for name in LABELS if name in there]
    return ClipShards(folder, split, columns=list(dict.fromkeys([POINTS, TRANSFORM, "crop_size", *labels, *columns])))


def check_pinned(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raises ConfigError where something is another one now; what was not pinned before may be any."""
    for name, sha256 in now.items():
        if before.get(name, sha256) != sha256:
            raise ConfigError(
                f"the training was begun with another {name}: sha256 {before[name][:12]}, and now it is {sha256[:12]}",
                hint=f"bring that {name} back to its place, or begin a new training",
            )


def _some(points: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Some of the points of (T, 3 N)."""
    return points.reshape(len(points), -1, 3)[:, list(chosen)].reshape(len(points), -1)


def _scaled(pictures: np.ndarray) -> np.ndarray:
    """uint8 (..., H, W, 3) to float32 (..., 3, H, W) in [-1, 1]."""
    return np.ascontiguousarray(np.moveaxis(pictures, -1, -3)).astype(np.float32) / 127.5 - 1


def _bytes(clip: TalkingClip) -> int:
    kept = (clip.boxes, *clip.parts.values(), *clip.columns.values())
    return sum(value.nbytes for value in kept if isinstance(value, np.ndarray))
