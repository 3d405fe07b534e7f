"""HDTF's annotation files: which parts of which video show the speaker, and where in the picture.

Five files for each of the groups RD, WDA and WRA. What a reader has to know about them: one begins with a byte-order
mark; "annotion" is the spelling; names come with and without ".mp4"; the groups' line counts differ, since a video has
an address but no times; 15 segments of 436 have no window; the order of a window's numbers is left, width, top, height;
and two videos may be one recording under two names. `*_crop_ratio.txt` is the zoom with which the windows were made:
it names the same segments and is not needed again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from ..core.errors import InputError
from .containers import printable

GROUPS = ("RD", "WDA", "WRA")
FOLDERS = (".", "HDTF_dataset", "annotations")

_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{2})")


@dataclass(frozen=True)
class Window:
    """A face window in pixels of a picture of the annotators' height."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Segment:
    """One annotated part of a video.

    Attributes:
        number: counted from 0 in the order of the annotation, as in the names of cut clips.
        start_s, end_s: seconds.
        window: the face window, None where none is annotated.
    """

    number: int
    start_s: float
    end_s: float
    window: Window | None


@dataclass(frozen=True)
class AnnotatedVideo:
    """What is known of one video.

    Attributes:
        group: RD, WDA or WRA.
        name: without suffix.
        identity: of the speaker, see `identities`.
        resolution: picture height in pixels to which the windows refer; None where it is unknown (written as 0).
        segments: none where the video has an address only.
    """

    group: str
    name: str
    identity: str
    resolution: int | None
    segments: tuple[Segment, ...]


def find_annotations(root: Path, given: Path | None = None) -> Path | None:
    """The folder with the time files: `given`, else one of the usual places in `root`; None where there is none.

    Raises:
        InputError: `given` holds no time file.
    """
    if given is not None and not _times_files(given):
        raise InputError(f"{printable(given)} holds no annotation of HDTF: expected WDA_annotion_time.txt and others")
    return given or next((root / name for name in FOLDERS if _times_files(root / name)), None)


def _times_files(folder: Path) -> dict[str, Path]:
    spellings = ("annotion_time", "annotation_time")
    files = {group: [folder / f"{group}_{word}.txt" for word in spellings] for group in GROUPS}
    return {group: path for group, paths in files.items() for path in paths if path.is_file()}


def read_annotations(folder: Path) -> dict[str, AnnotatedVideo]:
    """All annotated videos of a folder of annotation files, by "<group>_<name>".

    Raises:
        InputError: a line that cannot be read, with its place.
    """
    addresses = {group: _rows(folder / f"{group}_video_url.txt") for group in GROUPS}
    times = {group: _rows(path) for group, path in _times_files(folder).items()}
    names = {name for group in GROUPS for name in (*addresses[group], *times.get(group, {}))}
    identity = identities(names, ((n, v[0]) for rows in addresses.values() for n, v in rows.items() if v))
    found: dict[str, AnnotatedVideo] = {}
    for group in GROUPS:
        segments = times.get(group, {})
        windows, heights = _rows(folder / f"{group}_crop_wh.txt"), _rows(folder / f"{group}_resolution.txt")
        for name in {**addresses[group], **segments}:
            height = int((heights.get(name) or ["0"])[0])
            parts = tuple(
                _segment(group, name, number, text, windows) for number, text in enumerate(segments.get(name, []))
            )
            found[f"{group}_{name}"] = AnnotatedVideo(group, name, identity[name], height or None, parts)
    return found


def _rows(path: Path) -> dict[str, list[str]]:
    """Name without suffix -> the other words of its line; nothing where the file is missing."""
    if not path.is_file():
        return {}
    lines = (line.split() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return {words[0].removesuffix(".mp4"): words[1:] for words in lines if words}


def _segment(group: str, name: str, number: int, text: str, windows: dict[str, list[str]]) -> Segment:
    start, end = (_seconds(part) for part in (text.split("-") if text.count("-") == 1 else ("", "")))
    words = windows.get(f"{name}_{number}")
    if start is None or end is None or end <= start:
        raise InputError(f"{group}_annotion_time.txt: {name}: '{text}' is no time range mm:ss-mm:ss")
    if words is None:
        return Segment(number, start, end, None)
    if len(words) != 4 or not all(word.isdigit() for word in words):
        raise InputError(f"{group}_crop_wh.txt: {name}_{number}: expected left, width, top, height, not {words}")
    left, width, top, height = map(int, words)
    return Segment(number, start, end, Window(left, top, width, height))


def _seconds(text: str) -> float | None:
    match = _CLOCK.fullmatch(text)
    return float(int(match[1] or 0) * 3600 + int(match[2]) * 60 + int(match[3])) if match else None


def speaker(name: str) -> str:
    """The speaker by the letters of a video's name: VeronicaEscobar0 and VeronicaEscobar1 are one.

    The videos of the group RD are numbered instead (Radio1, Radio2...). Who speaks in which is not annotated and some
    speakers recur, so all of them are one: whatever they share, no split takes them apart.
    """
    return re.sub(r"\d", "", name)


def identities(names: Iterable[str], addresses: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """The speaker of each name; names that lead to one recording (by `addresses`) are one speaker too."""
    names = sorted(names)
    leader = {speaker(name): speaker(name) for name in names}
    owner: dict[str, str] = {}
    for name, address in sorted(addresses):
        first = owner.setdefault(_recording(address), _lead(leader, speaker(name)))
        one, two = sorted((_lead(leader, first), _lead(leader, speaker(name))))
        leader[two] = one
    return {name: _lead(leader, speaker(name)) for name in names}


def _lead(leader: dict[str, str], key: str) -> str:
    while leader[key] != key:
        key = leader[key]
    return key


def _recording(address: str) -> str:
    """The video's key in its address, without start time and other parameters."""
    return parse_qs(urlsplit(address).query).get("v", [address])[0]
