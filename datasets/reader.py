"""What a dataset reader is: a declaration, and a function that lists a folder's clips without decoding one.

Adding a dataset touches this room's new file (which declares a tuple `READERS`) and its test; the listing of known
datasets, the checks of options and the hint "this looks like ..." follow from the declaration.

A reader accounts for every video below its root: as one clip, as several, or as a reject with its reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, InputError, MediaError, NoAudioTrack
from ..core.records import Clip, Reject, safe_id
from ..core.registry import Registry, did_you_mean, resolve
from .audio import has_audio
from .containers import VIDEO_SUFFIXES, printable
from .mp4_boxes import track_kinds

STAGE = "read"
# A folder in which nothing but these occurred is another dataset, not a broken one.
FOREIGN_REASONS = frozenset({"unexpected_path", "not_annotated", "undecodable_name"})
# Files looked at to tell which dataset a folder holds.
_SAMPLE = 2000


@dataclass(frozen=True)
class Listing:
    """What a reader found: clips and rejects in the order of their ids, and remarks for people about the whole."""

    clips: list[Clip]
    rejects: list[Reject]
    notes: list[str]


@dataclass(frozen=True)
class Option:
    """One option of a reader: its default, one line about it, and the values it can take (empty: any)."""

    default: Any
    what: str
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class ReaderSpec:
    """Declaration of a reader.

    Attributes:
        id: name on the command line, and first part of every clip_id.
        version: raised whenever the same folder would give other clips.
        what: one line for listings.
        target: "module:function" with signature (root, *, annotations, **options) -> Listing.
        layout: the paths it expects, for messages.
        signs: patterns of relative paths by which a folder of this dataset is known.
        options: what the function takes besides root and annotations.
    """

    id: str
    version: int
    what: str
    target: str
    layout: str
    signs: tuple[str, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict)


MISSING_AUDIO = Option("reject", "a clip without any sound: reject it, or keep it without", ("reject", "keep"))

readers: Registry[ReaderSpec] = Registry("dataset")
readers.discover("talkforge.datasets", "READERS", key=lambda spec: spec.id)


def read_dataset(reader_id: str, root: Path, *, annotations: Path | None = None, **options: Any) -> Listing:
    """Lists the clips of a dataset folder with the reader of that id.

    Args:
        root: the dataset's folder.
        annotations: folder (or file) of its annotations, where they do not lie below `root`.
        options: of the reader's declaration.

    Raises:
        ConfigError: no such reader, option or value.
        InputError: no folder, or the folder of another dataset.
    """
    spec = readers.get(reader_id)
    return resolve(spec.target)(root, annotations=annotations, **_checked(spec, options))


def _checked(spec: ReaderSpec, options: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        option = spec.options.get(name)
        if option is None:
            hint = did_you_mean(name, spec.options) or f"known: {', '.join(spec.options) or 'none'}"
            raise ConfigError(f"the reader '{spec.id}' has no option '{name}'", hint=hint)
        if option.choices and value not in option.choices:
            known = ", ".join(map(str, option.choices))
            raise ConfigError(f"option '{name}' of the reader '{spec.id}': {value!r}", hint=f"one of: {known}")
    return {name: options.get(name, option.default) for name, option in spec.options.items()}


def reject(clip_id: str, reason: str, message: str) -> Reject:
    """A reject of this stage."""
    return Reject(clip_id, STAGE, reason, message)


def media_reject(clip_id: str, path: Path, error: MediaError) -> Reject:
    """A reject for a file that cannot be used; the message names the file without its folders."""
    return reject(clip_id, error.reason, str(error).replace(printable(path), path.name))


def parted(items: Iterable[Clip | Reject]) -> tuple[list[Clip], list[Reject]]:
    """Clips and rejects of a mixed list."""
    items = list(items)
    return [item for item in items if isinstance(item, Clip)], [item for item in items if isinstance(item, Reject)]


def finish(
    spec: ReaderSpec, root: Path, clips: Iterable[Clip], rejects: Iterable[Reject], notes: Iterable[str]
) -> Listing:
    """The listing in order; of clips with one id the first stays and the others are rejected.

    Raises:
        InputError: there is no clip, and the paths are not the dataset's.
    """
    rejects, kept = list(rejects), dict[str, Clip]()
    for clip in clips:
        if clip.clip_id in kept:
            first = kept[clip.clip_id].video.name
            rejects.append(reject(clip.clip_id, "duplicate_clip", f"{clip.video.name}: {first} is this clip already"))
        else:
            kept[clip.clip_id] = clip
    if not kept and all(item.reason in FOREIGN_REASONS for item in rejects):
        raise foreign(spec, root, videos=len(rejects))
    order = sorted(rejects, key=lambda item: (item.clip_id, item.reason, item.message))
    return Listing([kept[key] for key in sorted(kept)], order, list(notes))


def foreign(spec: ReaderSpec, root: Path, *, videos: int) -> InputError:
    """The error for a folder that is not of this dataset; its hint names the reader that fits, where one does."""
    found = f"{videos} other videos" if videos else "no video"
    other = looks_like(root)
    hint = f"this looks like {other}" if other and other != spec.id else None
    return InputError(f"{printable(root)} holds {found}, nothing of {spec.id}: expected {spec.layout}", hint=hint)


def looks_like(root: Path) -> str | None:
    """Id of the reader whose paths the folder's first files have, "folder" for other videos, None for neither."""
    paths = list(islice((path for folder in walk(root) for path in folder.paths()), _SAMPLE))
    scores = {spec.id: sum(_has_sign(spec, path) for path in paths) for spec in readers.all()}
    best = max(sorted(scores), key=lambda name: scores[name], default=None)
    if best is not None and scores[best]:
        return best
    return "folder" if any(Path(path).suffix.lower() in VIDEO_SUFFIXES for path in paths) else None


def _has_sign(spec: ReaderSpec, path: str) -> bool:
    return any(re.search(sign, path) for sign in spec.signs)


@dataclass(frozen=True)
class Folder:
    """One folder of a walk: its path, its parts below the root, and the names of its files in order."""

    path: Path
    parts: tuple[str, ...]
    files: list[str]

    def paths(self) -> list[str]:
        """Files below the root, with forward slashes."""
        return ["/".join((*self.parts, name)) for name in self.files]


@dataclass(frozen=True)
class VideoFile:
    """One video of a walk: its path, the folders between it and the root, its name without suffix."""

    path: Path
    folders: tuple[str, ...]
    stem: str

    @property
    def where(self) -> str:
        """Path below the root."""
        return "/".join((*self.folders, self.path.name))


def walk(
    root: Path, *, skip: Callable[[str], bool] | None = None, problems: list[tuple[str, str]] | None = None
) -> Iterator[Folder]:
    """Folders below and including `root`, one at a time and each in the order of names, hidden ones left out.

    Links to folders are followed, but never into a folder above.

    Args:
        skip: names of folders that are not entered.
        problems: receives (path below the root, reason) of folders that cannot be read.

    Raises:
        InputError: `root` is no readable folder.
    """
    if not root.is_dir():
        raise InputError(f"{printable(root)} is not a folder")
    pending: list[tuple[tuple[str, ...], frozenset[tuple[int, int]]]] = [((), frozenset())]
    while pending:
        parts, above = pending.pop()
        path = root.joinpath(*parts)
        try:
            files, folders, key = _listing(path)
        except OSError as error:
            if not parts:
                raise InputError(f"cannot read {printable(root)}: {error.strerror}") from error
            if problems is not None:
                problems.append(("/".join(parts), error.strerror or str(error)))
            continue
        if key in above:
            continue
        yield Folder(path, parts, files)
        entered = (name for name in reversed(folders) if skip is None or not skip(name))
        pending += [((*parts, name), above | {key}) for name in entered]


def _listing(path: Path) -> tuple[list[str], list[str], tuple[int, int]]:
    """(names of files, names of folders, what makes the folder itself)."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if entry.is_dir() else files).append(entry.name)
    itself = path.stat()
    return sorted(files), sorted(folders), (itself.st_dev, itself.st_ino)


def walk_videos(
    root: Path, dataset: str, rejects: list[Reject], *, skip: Callable[[str], bool] | None = None
) -> Iterator[VideoFile]:
    """Videos below `root` in a stable order; what cannot be entered or named goes to `rejects`."""
    problems: list[tuple[str, str]] = []
    for folder in walk(root, skip=skip, problems=problems):
        for name in folder.files:
            if Path(name).suffix.lower() not in VIDEO_SUFFIXES:
                continue
            file = VideoFile(folder.path / name, folder.parts, Path(name).stem)
            if any(0xD800 <= ord(c) < 0xE000 for c in file.where):
                message = f"the name {file.where!a} is not valid UTF-8"
                rejects.append(reject(path_id(dataset, file.where), "undecodable_name", message))
            else:
                yield file
    rejects += [reject(path_id(dataset, where), "unreadable_folder", why) for where, why in problems]


def path_id(dataset: str, where: str) -> str:
    """Id for a file that is no clip of the dataset, from its path below the root, suffix included."""
    return f"{dataset}/{safe_id(where)}"


def unexpected(dataset: str, file: VideoFile, layout: str) -> Reject:
    """The reject of a video whose path is not the dataset's."""
    return reject(path_id(dataset, file.where), "unexpected_path", f"{file.where!a} is not of the form {layout}")


def _says_sound(video: Path) -> bool:
    """Whether an MP4's index names a sound track: some 20 times faster than opening the file with its demuxer."""
    try:
        with video.open("rb") as handle:
            return b"soun" in track_kinds(handle)
    except OSError:
        return False  # the demuxer says what is wrong with it


def sound_of(video: Path, beside: Path | None, missing_audio: str) -> Path | None:
    """Where a video's sound is: the file given for it, else in the video itself (its header is read for that).

    Returns:
        None where there is none and `missing_audio` is "keep".

    Raises:
        NoAudioTrack: there is none and `missing_audio` is "reject".
        MediaError: the video's header cannot be read.
    """
    if beside is not None:
        return beside
    if _says_sound(video) or has_audio(video):
        return video
    if missing_audio == "reject":
        raise NoAudioTrack(f"{video.name} has no sound track, and there is no sound file for it")
    return None
