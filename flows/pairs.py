"""Which generated clip belongs to which real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.config import digest
from ..core.errors import InputError, MediaError, MediaNotFound
from ..core.hashing import file_sha256
from ..datasets.audio import has_audio
from ..datasets.folder import FolderScan, MediaFile, scan_folder
from ..datasets.labels import labels_of_name
from ..datasets.plain import read_labels
from ..tasks.extract import ClipFile

LABELS = ("emotion", "identity")


@dataclass(frozen=True)
class MatchedClip:
    """One attempted clip: the files of both sides, or why there is no pair; its labels where there are any."""

    clip_id: str
    real: MediaFile | None
    generated: MediaFile | None
    reason: str | None = None
    message: str = ""
    emotion: str | None = None
    identity: str | None = None

    @property
    def real_name(self) -> str | None:
        """File name of the real side."""
        return self.real.path.name if self.real else None

    @property
    def generated_name(self) -> str | None:
        """File name of the generated side."""
        return self.generated.path.name if self.generated else None


@dataclass(frozen=True)
class Match:
    """All attempted clips in the order of their ids."""

    clips: list[MatchedClip]

    def files(self) -> list[ClipFile]:
        """What to extract from: both sides of complete pairs, each file once."""
        pairs = [clip for clip in self.clips if clip.reason is None]
        return list(dict.fromkeys(clip_file(item) for clip in pairs for item in (clip.real, clip.generated) if item))

    def digest(self) -> str:
        """Digest of the names, labels and bytes of everything that is matched, and of the sounds beside it."""
        rows = []
        for clip in self.clips:
            items = [item for item in (clip.real, clip.generated) if item]
            files = [path for item in items for path in (item.path, item.audio_path) if path and path.is_file()]
            rows.append(
                [clip.clip_id, clip.reason, clip.emotion, clip.identity, *(file_sha256(path) for path in files)]
            )
        return digest(rows)

    def counts(self) -> dict[str, int]:
        """How many clips were attempted, matched, and without a partner on each side."""
        return {
            "attempted": len(self.clips),
            "matched": sum(clip.reason is None for clip in self.clips),
            "unmatched_real": sum(clip.reason == "unmatched_real" for clip in self.clips),
            "unmatched_generated": sum(clip.reason == "unmatched_generated" for clip in self.clips),
        }


def clip_file(item: MediaFile) -> ClipFile:
    """The clip with its own sound, or with the sound file beside it where the video has none."""
    if item.audio_path is None:
        return ClipFile(item.path, item.path)
    try:
        inside = has_audio(item.path)
    except MediaError:  # the pass meets the same error and stores it as the clip's reason
        inside = True
    return ClipFile(item.path, item.path if inside else item.audio_path)


def match_folders(real: Path, generated: Path, manifest: Path | None = None) -> Match:
    """Pairs the videos of two folders by file stem; a file without a partner is a clip with a reason.

    Args:
        real, generated: folders.
        manifest: Parquet or CSV with a column `clip` of stems: only these are attempted. Columns `emotion` and
            `identity` label them (see `labels_of`).

    Raises:
        InputError: a folder or the manifest cannot be used, or no stem is in both folders.
    """
    sides = scan_folder(real), scan_folder(generated)
    real_files, generated_files = ({item.stem: item for item in scan.files} for scan in sides)
    problems = _problems(*sides)
    listed = read_manifest(manifest) if manifest else {}
    stems = sorted(listed or {*real_files, *generated_files, *problems})
    both = {*real_files} & {*generated_files}
    if both and not both & {*stems}:
        raise InputError(
            f"{manifest} names no clip that is in both {real} and {generated}",
            hint=f"it names {', '.join(stems[:3])}; there are {', '.join(sorted(both)[:3])} (stems, without suffix)",
        )
    if not both:
        raise InputError(
            f"no file stem is in both {real} and {generated}",
            hint="first names: " + " | ".join(", ".join(sorted(names)[:3]) for names in (real_files, generated_files)),
        )
    clips = [_clip(stem, real_files, generated_files, problems) for stem in stems]
    labels = labels_of(stems, listed)
    return Match([replace(clip, **labels[clip.clip_id]) for clip in clips])


def labels_of(stems: Sequence[str], listed: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """What is known of each clip's emotion and identity.

    A label that the manifest gives to any clip is the manifest's alone: where it is silent about a clip, there is none.
    A label that it gives to no clip is read from the clips' paths (`labels_of_name`).

    Args:
        stems: all attempted clips.
        listed: labels by stem from the manifest, empty without one.
    """
    told = {name for name in LABELS if any(name in row for row in listed.values())}
    known = {stem: {n: v for n, v in labels_of_name(stem).items() if n not in told} for stem in stems}
    return {stem: own | {n: listed[stem][n] for n in told if n in listed[stem]} for stem, own in known.items()}


def _problems(real: FolderScan, generated: FolderScan) -> dict[str, tuple[str, str]]:
    sides = (("real", real), ("generated", generated))
    return {name: (reason, f"{side}: {text}") for side, scan in sides for name, reason, text in scan.problems}


def _clip(
    stem: str, real: dict[str, MediaFile], generated: dict[str, MediaFile], problems: dict[str, tuple[str, str]]
) -> MatchedClip:
    one, other = real.get(stem), generated.get(stem)
    if one and other:
        return MatchedClip(stem, one, other)
    if stem in problems:
        return MatchedClip(stem, one, other, *problems[stem])
    if one:
        return MatchedClip(stem, one, None, "unmatched_real", "no generated file of this stem")
    if other:
        return MatchedClip(stem, None, other, "unmatched_generated", "no real file of this stem")
    return MatchedClip(stem, None, None, MediaNotFound.reason, "named by the manifest, in neither folder")


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """The labels by stem of a Parquet or CSV file with a column `clip`.

    Raises:
        InputError: see `read_labels`; or no clip is named.
    """
    rows = read_labels(path)
    if not rows:
        raise InputError(f"the manifest {path} names no clip")
    return rows
