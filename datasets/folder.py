"""A plain folder of videos: which files there are, under which names they are matched, and which sound is theirs."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..core.errors import InputError
from .containers import AUDIO_SUFFIXES, VIDEO_SUFFIXES, printable


@dataclass(frozen=True)
class MediaFile:
    """A video of a folder.

    Attributes:
        stem: path below the folder without suffix, with forward slashes and composed Unicode, the same on each machine.
        path: the file.
        audio_path: the sound file of the same name beside it, or None. The video may hold sound of its own.
    """

    stem: str
    path: Path
    audio_path: Path | None


@dataclass(frozen=True)
class FolderScan:
    """Videos in the order of their stems, and (name, reason code, message) of what cannot be used."""

    files: list[MediaFile]
    problems: list[tuple[str, str, str]]


def scan_folder(root: str | os.PathLike[str], *, recursive: bool = True) -> FolderScan:
    """Lists the videos of a folder, broken ones included (they fail with their own reason when they are read).

    Hidden files and folders are left out. Links to folders are followed, but never into a folder above. Two videos of
    one stem (`a.mp4`, `a.mov`) are both left out and reported, since a pair could not be told.

    Raises:
        InputError: `root` is no readable folder, or holds no video.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{printable(root)} is not a folder")
    problems: list[tuple[str, str, str]] = []
    by_stem: dict[str, list[MediaFile]] = defaultdict(list)
    for folder, names in _walk(root, recursive, problems):
        for item in _videos(root, folder, names, problems):
            by_stem[item.stem].append(item)
    if not by_stem and not problems:
        raise InputError(f"no video in {printable(root)}", hint=f"looked for {' '.join(sorted(VIDEO_SUFFIXES))}")
    problems += [_duplicate(stem, items) for stem, items in by_stem.items() if len(items) > 1]
    files = [items[0] for _, items in sorted(by_stem.items()) if len(items) == 1]
    return FolderScan(files, sorted(problems))


def _walk(root: Path, recursive: bool, problems: list[tuple[str, str, str]]) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names of its files), with the folders above each one remembered: a link cannot lead in circles."""
    pending: list[tuple[Path, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while pending:
        folder, above = pending.pop()
        try:
            identity = folder.stat()
            with os.scandir(folder) as entries:
                visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            if folder == root:
                raise InputError(f"cannot read {printable(root)}: {error.strerror}") from error
            problems.append((printable(folder.relative_to(root)), "unreadable_folder", error.strerror or str(error)))
            continue
        key = (identity.st_dev, identity.st_ino)
        if key in above:
            continue
        folders = [e for e in visible if _is_folder(e)]
        yield folder, [e.name for e in visible if e not in folders]
        if recursive:
            pending += [(folder / e.name, above | {key}) for e in reversed(folders)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return stat.S_ISDIR(entry.stat().st_mode)
    except OSError:
        return False


def _videos(root: Path, folder: Path, names: list[str], problems: list[tuple[str, str, str]]) -> Iterator[MediaFile]:
    sounds = {(Path(name).stem, Path(name).suffix.lower()): folder / name for name in names}
    for name in names:
        if Path(name).suffix.lower() not in VIDEO_SUFFIXES:
            continue
        path = folder / name
        stem = unicodedata.normalize("NFC", str(PurePosixPath(path.relative_to(root)).with_suffix("")))
        if not stem.isprintable() and any(0xD800 <= ord(c) < 0xE000 for c in stem):
            problems.append((repr(stem), "undecodable_name", "the file name is not valid UTF-8"))
            continue
        audio = next((sounds[key] for suffix in AUDIO_SUFFIXES if (key := (path.stem, suffix)) in sounds), None)
        yield MediaFile(stem, path, audio)


def _duplicate(stem: str, items: list[MediaFile]) -> tuple[str, str, str]:
    names = " and ".join(sorted(item.path.name for item in items))
    return stem, "duplicate_stem", f"{names} have one stem, so neither can be matched"
