"""MEAD: 60 actors, eight emotions by name, three levels, seven cameras; sound in a tree of its own.

Source of the layout: the dataset's public folder of each actor, `<ID>/video/<view>/<emotion>/level_<k>/<nnn>.mp4` with
`<ID>/audio/<emotion>/level_<k>/<nnn>.m4a`. One sound serves all views. Parts of it are missing in public downloads
(views, whole emotions, sounds), and archives unpack below an extra folder such as `video-001`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from ..core.errors import ConfigError, MediaError
from ..core.records import Clip, Reject
from ..core.registry import did_you_mean
from .containers import AUDIO_SUFFIXES
from .labels import MEAD_EMOTIONS, emotion_hint
from .reader import (
    MISSING_AUDIO,
    Listing,
    Option,
    ReaderSpec,
    VideoFile,
    finish,
    media_reject,
    parted,
    path_id,
    reject,
    sound_of,
    unexpected,
    walk,
    walk_videos,
)

DATASET = "mead"
VIEWS = ("down", "front", "left_30", "left_60", "right_30", "right_60", "top")
LAYOUT = "<ID>/video/<view>/<emotion>/level_<k>/<nnn>.mp4"

_IDENTITY = re.compile(r"[MW]\d{3}")
_WRAPPER = {tree: re.compile(rf"{tree}([-_ ].*)?", re.IGNORECASE) for tree in ("video", "audio")}
_LEVEL = re.compile(r"level_([1-3])")
_NUMBER = re.compile(r"\d{1,3}")
_SoundKey = tuple[str, str, str, int]  # identity, emotion, level folder, number
_M003 = (
    "M003: a recording is lost, so its numbers do not stand for the same sentences as those of other actors; they are "
    "kept as they are named"
)

MEAD = ReaderSpec(
    id=DATASET,
    version=1,
    what="MEAD: acted emotions by name, three levels, seven views",
    target="talkforge.datasets.mead:read",
    layout=LAYOUT,
    signs=(r"(^|/)video[^/]*/[^/]+/[^/]+/level_\d/\d+\.\w+$", r"(^|/)audio[^/]*/[^/]+/level_\d/\d+\.\w+$"),
    options={
        "missing_audio": MISSING_AUDIO,
        "views": Option("all", "cameras to read: all, or names with commas between them"),
    },
)
READERS = (MEAD,)


def read(root: Path, *, annotations: Path | None = None, missing_audio: str = "reject", views: str = "all") -> Listing:
    """Lists a MEAD tree, or one actor's folder.

    Emotion and level come from the folders' names, never from an integer. `annotations` is not needed: MEAD's public
    lists name extracted pictures, not clips.

    Raises:
        ConfigError: a name in `views` that is no view.
        InputError: no folder, or nothing of MEAD in it.
    """
    root, wanted = Path(root), _wanted(views)
    unread: list[Reject] = []
    items: list[Clip | Reject] = []
    left_out: Counter[str] = Counter()
    sounds = _sounds(root)
    for file in walk_videos(root, DATASET, unread):
        item = _named(root, file)
        if isinstance(item, Clip) and item.view not in wanted:
            left_out[str(item.view)] += 1
        else:
            items.append(_with_sound(item, sounds, missing_audio) if isinstance(item, Clip) else item)
    clips, rejects = parted(items)
    return finish(MEAD, root, clips, rejects + unread, _notes(clips, left_out))


def _wanted(views: str) -> tuple[str, ...]:
    names = VIEWS if views == "all" else tuple(name.strip() for name in views.split(","))
    for name in names:
        if name not in VIEWS:
            raise ConfigError(f"MEAD has no view '{name}'", hint=did_you_mean(name, VIEWS) or f"known: {VIEWS}")
    return names


def _split(root: Path, folders: tuple[str, ...], tree: str, depth: int) -> tuple[str, tuple[str, ...]] | None:
    """(identity, the last `depth` folders) of a path through a tree "video" or "audio", or None for another path.

    Between actor and tree there may be wrappers such as `video-001`; the root may be the actor's folder itself.
    """
    if len(folders) <= depth:
        return None
    front, rest = list(folders[:-depth]), folders[-depth:]
    before = len(front)
    while front and _WRAPPER[tree].fullmatch(front[-1]):
        front.pop()
    identity = front[-1] if front else root.resolve().name
    return (identity, rest) if len(front) < before and _IDENTITY.fullmatch(identity) else None


def _named(root: Path, file: VideoFile) -> Clip | Reject:
    """The clip without its sound, or which part of the path is not MEAD's."""
    place, where = _split(root, file.folders, "video", 3), path_id(DATASET, file.where)
    if place is None:
        return unexpected(DATASET, file, LAYOUT)
    identity, (view, emotion, folder) = place[0], (name.lower() for name in place[1])
    level = _LEVEL.fullmatch(folder)
    if view not in VIEWS:
        hint = did_you_mean(view, VIEWS) or f"known: {', '.join(VIEWS)}"
        return reject(where, "unknown_view", f"'{view}' is no view of MEAD ({hint})")
    if emotion not in MEAD_EMOTIONS:
        return reject(where, "unknown_emotion", f"'{emotion}' is no emotion of MEAD ({emotion_hint(emotion)})")
    if level is None:
        return reject(where, "unknown_level", f"'{folder}' is no level of MEAD (level_1, level_2 or level_3)")
    if emotion == "neutral" and folder != "level_1":
        return reject(where, "unknown_level", f"neutral has level_1 only, not {folder}")
    if not _NUMBER.fullmatch(file.stem):
        return reject(where, "unexpected_name", f"{file.path.name!a} is not of the form <nnn>.mp4")
    clip_id = f"{DATASET}/{identity}/{view}/{emotion}/{folder}/{int(file.stem):03d}"
    return Clip(clip_id, file.path, None, identity, emotion, int(level[1]), view)


def _sounds(root: Path) -> dict[_SoundKey, Path]:
    """Sound files of all actors; of several formats of one sound the first of `AUDIO_SUFFIXES`."""
    found: dict[_SoundKey, Path] = {}
    for folder in walk(root):
        place = _split(root, folder.parts, "audio", 2)
        for path in (folder.path / name for name in folder.files):
            if place and path.suffix.lower() in AUDIO_SUFFIXES and _NUMBER.fullmatch(path.stem):
                identity, (emotion, level) = place
                key = (identity, emotion.lower(), level.lower(), int(path.stem))
                found[key] = min(found.get(key, path), path, key=_rank)
    return found


def _rank(path: Path) -> int:
    return AUDIO_SUFFIXES.index(path.suffix.lower())


def _with_sound(clip: Clip, sounds: dict[_SoundKey, Path], missing_audio: str) -> Clip | Reject:
    key = (str(clip.identity), str(clip.emotion), f"level_{clip.intensity}", int(clip.video.stem))
    try:
        return replace(clip, audio=sound_of(clip.video, sounds.get(key), missing_audio))
    except MediaError as error:
        return media_reject(clip.clip_id, clip.video, error)


def _notes(clips: list[Clip], left_out: Counter[str]) -> list[str]:
    """What to know about this download: missing views and emotions, and M003's numbers."""
    notes = [f"{n} videos of the view {view} left out on request" for view, n in sorted(left_out.items())]
    emotions: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        emotions[str(clip.identity)].add(str(clip.emotion))
    for identity, present in sorted(emotions.items()):
        if absent := sorted(set(MEAD_EMOTIONS) - present):
            notes.append(f"{identity} has no clip of {', '.join(absent)}")
    own = sum(clip.audio == clip.video for clip in clips)
    silent = sum(clip.audio is None for clip in clips)
    notes += [f"{own} clips have no file in the audio tree; their sound is the video's own"] if own else []
    notes += [f"{silent} clips have no sound and are kept without"] if silent else []
    return notes + ([_M003] if "M003" in emotions else [])
