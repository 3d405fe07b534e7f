"""VoxCeleb2: a million face tracks of 6112 people, sound and track files in trees of their own.

Source of the layout: the dataset's public archives, `dev/mp4/id00012/21Uxsk56VDQ/00001.mp4` with
`dev/aac/id00012/21Uxsk56VDQ/00001.m4a` and `dev/txt/.../00001.txt`, or the same below `test`. The videos are cropped to
the face. The boxes of the track files refer to the public video from which a track was cut, not to these files.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ..core.errors import InputError, MediaError
from ..core.records import Clip, Reject
from .containers import AUDIO_SUFFIXES, printable
from .reader import (
    MISSING_AUDIO,
    Listing,
    Option,
    ReaderSpec,
    VideoFile,
    finish,
    media_reject,
    sound_of,
    unexpected,
    walk_videos,
)

DATASET = "voxceleb2"
LAYOUT = "dev/mp4/<id>/<video key>/<nnnnn>.mp4"
TRACK_FPS = 25
VOXCELEB2 = ReaderSpec(
    id=DATASET,
    version=1,
    what="VoxCeleb2: face tracks of interviews, no emotion labels",
    target="talkforge.datasets.voxceleb2:read",
    layout=LAYOUT,
    signs=(r"(^|/)id\d{5}/[\w-]{11}/\d{5}\.(mp4|m4a|aac|wav|txt)$",),
    options={
        "missing_audio": MISSING_AUDIO,
        "limit": Option(None, "stop after this many clips, in the order of the tree; none: all"),
    },
)
READERS = (VOXCELEB2,)

_IDENTITY = re.compile(r"id\d{5}")
_KEY = re.compile(r"[\w-]{11}", re.ASCII)
_NUMBER = re.compile(r"\d{5}")
_PART = re.compile(r"(?:vox(?:celeb)?2_)?(dev|test)(?:_mp4)?")
_SPLITS = {"dev": "train", "test": "test"}
_SOUND_TREES = ("aac", "m4a", "wav", "audio")
_HEADER_LINES = 6


def read(
    root: Path, *, annotations: Path | None = None, missing_audio: str = "reject", limit: int | None = None
) -> Listing:
    """Lists a VoxCeleb2 tree. The dev part is the split "train", the test part "test".

    Args:
        annotations: folder or file of `vox2_meta.csv`, which tells the part where no folder does; by default looked for
            in `root`.
        limit: clips after which the walk ends.

    Raises:
        InputError: no folder, nothing of VoxCeleb2 in it, or a broken meta file.
    """
    root = Path(root)
    parts = read_meta(path) if (path := _meta_file(root, annotations)) else {}
    rejects: list[Reject] = []
    found = clips_below(root, rejects, missing_audio=missing_audio, parts=parts)
    clips = list(islice(found, limit))
    notes = [] if limit is None or len(clips) < limit else [f"stopped after {limit} clips on request"]
    silent = sum(clip.audio is None for clip in clips)
    notes += [f"{silent} clips have no sound and are kept without"] if silent else []
    other = sorted({str(c.identity) for c in clips if _SPLITS.get(parts.get(str(c.identity), ""), c.split) != c.split})
    notes += [f"in another part than the meta file says: {', '.join(other)}"] if other else []
    return finish(VOXCELEB2, root, clips, rejects, notes)


def clips_below(
    root: Path, rejects: list[Reject], *, missing_audio: str = "reject", parts: dict[str, str] | None = None
) -> Iterator[Clip]:
    """Clips one at a time in the order of the tree; what is none goes to `rejects`. One folder is held at a time."""
    folder: Path | None = None
    sounds: dict[str, Path] = {}
    # The sound and track trees hold no video, and as many files as the video tree: they are not walked.
    for file in walk_videos(root, DATASET, rejects, skip=lambda name: name in (*_SOUND_TREES, "txt")):
        base = _base(root, file)
        if base is None:
            rejects.append(unexpected(DATASET, file, LAYOUT))
            continue
        if file.path.parent != folder:
            folder, sounds = file.path.parent, _sounds(base, *file.folders[-2:])
        try:
            yield _clip(file, base, sounds.get(file.stem), missing_audio, parts or {})
        except MediaError as error:
            rejects.append(media_reject(_clip_id(file), file.path, error))


def _base(root: Path, file: VideoFile) -> Path | None:
    """The folder above the tree `mp4` (or above the identities, where there is none), None for another path."""
    if len(file.folders) < 2:
        return None
    *above, identity, key = file.folders
    if not (_IDENTITY.fullmatch(identity) and _KEY.fullmatch(key) and _NUMBER.fullmatch(file.stem)):
        return None
    folder = root.joinpath(*above).resolve()
    return folder.parent if folder.name == "mp4" else folder


def _clip_id(file: VideoFile) -> str:
    # Video keys may begin with a dash or an underscore; they are ASCII as they are.
    return "/".join((DATASET, *file.folders[-2:], file.stem))


def _clip(file: VideoFile, base: Path, beside: Path | None, missing_audio: str, parts: dict[str, str]) -> Clip:
    identity = file.folders[-2]
    part = match[1] if (match := _PART.fullmatch(base.name)) else parts.get(identity, "")
    sound = sound_of(file.path, beside, missing_audio)
    return Clip(_clip_id(file), file.path, sound, identity, split=_SPLITS.get(part))


def _sounds(base: Path, identity: str, key: str) -> dict[str, Path]:
    """Stem -> sound file for one public video."""
    for tree in _SOUND_TREES:
        folder = base / tree / identity / key
        if folder.is_dir():
            return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in AUDIO_SUFFIXES}
    return {}


def _meta_file(root: Path, given: Path | None) -> Path | None:
    if given is not None and Path(given).is_file():
        return Path(given)
    files = sorted(Path(given or root).glob("vox2_meta*.csv"))
    return files[0] if files else None


def read_meta(path: Path) -> dict[str, str]:
    """Identity -> "dev" or "test" of `vox2_meta.csv`, whose names and values have blanks around them.

    Raises:
        InputError: not that table.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    names = [name.lower() for name in rows[0]] if rows else []
    if "set" not in names or not names or "id" not in names[0]:
        raise InputError(f"{printable(path)} is no table of VoxCeleb2's identities: no columns id and Set")
    column = names.index("set")
    return {row[0]: row[column].lower() for row in rows[1:] if len(row) > column}


@dataclass(frozen=True)
class Track:
    """One track file: where in which public video the clip was cut.

    Attributes:
        identity: "id00012".
        reference: key of the public video.
        offset: of the sound against the picture, frames at 25 fps.
        face_confidence, speaker_confidence: of the face's verification and of the active speaker's detection.
        frames: int (T,), numbers of the public video's frames at 25 fps.
        boxes: float (T, 4), left, top, width, height in fractions of the public video's picture.
    """

    identity: str
    reference: str
    offset: int
    face_confidence: float
    speaker_confidence: float
    frames: np.ndarray
    boxes: np.ndarray

    @property
    def range_s(self) -> tuple[float, float]:
        """Start and end in the public video, seconds."""
        return float(self.frames[0]) / TRACK_FPS, float(self.frames[-1] + 1) / TRACK_FPS


def read_track(path: Path) -> Track:
    """Reads a track file: five named values, an empty line, names of columns, a row a frame, tabs and blanks between.

    Raises:
        InputError: the file is not of this form.
    """
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    head = {name.strip(): rest.strip() for name, _, rest in (line.partition(":") for line in lines[:_HEADER_LINES])}
    body = [line.split() for line in lines[_HEADER_LINES:] if line.strip()]
    try:
        if body[0] != ["FRAME", "X", "Y", "W", "H"]:
            raise ValueError(f"columns {body[0]}")
        rows = np.array([[float(word) for word in row] for row in body[1:]]).reshape(-1, 5)
        if not len(rows):
            raise ValueError("no frame")
        return Track(
            head["Identity"],
            head["Reference"],
            int(head["Offset"]),
            float(head["FV Conf"].split()[0]),
            float(head["ASD Conf"]),
            rows[:, 0].astype(int),
            rows[:, 1:],
        )
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(f"{printable(path)} is no track file of VoxCeleb2: {error}") from error
