"""The corrupted sets of an audit: which videos there are, making one, and what a dry run says about all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.config import digest
from ..core.errors import ConfigError, InputError, MissingPackage, TalkForgeError, WeightsError
from ..core.hashing import file_sha256
from ..core.shards import write_json
from ..datasets.folder import MediaFile, scan_folder
from ..datasets.video import FPS, probe
from ..tasks.corruptions import CRF, Corruption, Job, Source, copy, corrupt, corruptions
from .pairs import clip_file, labels_of, read_manifest

SETS = "sets"
COPY = "copy"  # level 0 of every corruption
MOST_LEVELS = 4
# Measured: one core's time to make a frame of 640 x 480 (0.015 s) and score it with the default metrics (0.07 s).
SECONDS_PER_FRAME = 0.085


@dataclass(frozen=True)
class SetClip:
    """A real clip, the one that it borrows a sound or a face from, and what is known of its emotion and identity."""

    stem: str
    clip: Source
    other: Source | None
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Wanted:
    """One video to make; `level` counts from 1, and 0 with the corruption None is the copy."""

    corruption: Corruption | None
    level: int
    item: SetClip
    out: Path
    cache: Path | None

    @property
    def name(self) -> str:
        """The set's folder."""
        return self.corruption.name if self.corruption else COPY

    @property
    def video(self) -> Path:
        """Where the video goes."""
        return set_folder(self.out, self.name, self.level) / f"{self.item.stem}.mp4"

    @property
    def marker(self) -> Path:
        """Says from what the video was made."""
        return self.out / SETS / self.name / "_done" / str(self.level) / f"{self.item.stem}.json"

    def identity(self) -> str:
        """Digest of everything that the video depends on."""
        one, clip, other = self.corruption, self.item.clip, self.item.other
        borrowed = other if one and one.needs_other else None
        paths = [clip.video, clip.audio, *((borrowed.video, borrowed.audio) if borrowed else ())]
        rule = [one.name, one.version, one.levels[self.level - 1]] if one else [COPY, 1]
        return digest({"rule": rule, "crf": CRF, "files": [file_sha256(path) for path in paths]})

    def is_current(self) -> bool:
        """Whether the video is there and was made from these inputs by this version."""
        there = self.video.is_file() and self.marker.is_file()
        return there and self.identity() in self.marker.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Made:
    """What became of one video."""

    name: str
    level: int
    stem: str
    fresh: bool
    reason: str | None = None
    message: str = ""


def set_folder(out: Path, name: str, level: int) -> Path:
    """The folder of one set."""
    return out / SETS / name / str(level)


def choose(names: Sequence[str] | None, levels: int) -> list[Corruption]:
    """The corruptions asked for (all of them for None), with `levels` of their strengths, the greatest among them.

    Raises:
        ConfigError: an unknown name, an empty list, or a number of levels that there is not.
    """
    if not 1 <= levels <= MOST_LEVELS:
        raise ConfigError(f"{levels} levels", hint=f"1 to {MOST_LEVELS}")
    if names is not None and not names:
        raise ConfigError("no corruption is named", hint=f"known: {', '.join(corruptions.names())}")
    chosen = [corruptions.get(name) for name in dict.fromkeys(names)] if names else corruptions.all()
    return [_graded(one, levels) for one in chosen]


def _graded(corruption: Corruption, levels: int) -> Corruption:
    last = len(corruption.levels) - 1
    picked = sorted({last - round(k * last / max(1, levels - 1)) for k in range(levels)})
    return replace(corruption, levels=tuple(corruption.levels[k] for k in picked))


def read_clips(real: Path, limit: int | None, manifest: Path | None = None) -> list[SetClip]:
    """The real clips in the order of their stems; each one's partner lies half the list away.

    Args:
        limit: only the first ones.
        manifest: as `eval` takes it: only these clips, with these labels.

    Raises:
        InputError: `real` is no folder of videos, or none of them can be used.
    """
    listed = read_manifest(manifest) if manifest else {}
    files = [item for item in scan_folder(real).files if not listed or item.stem in listed][:limit]
    if not files:
        raise InputError(f"no clip in {real} can be used", hint="talkforge eval says why for each")
    sources = [_source(item) for item in files]
    labels = labels_of([item.stem for item in files], listed)
    step = len(files) // 2
    return [
        SetClip(item.stem, source, sources[(k + step) % len(files)] if step else None, labels[item.stem])
        for k, (item, source) in enumerate(zip(files, sources, strict=True))
    ]


def _source(item: MediaFile) -> Source:
    file = clip_file(item)
    return Source(file.video, file.audio)


def videos(chosen: Sequence[Corruption], clips: Sequence[SetClip], out: Path, cache: Path | None) -> list[Wanted]:
    """Every video of the audit, the copies first."""
    copies = [Wanted(None, 0, item, out, cache) for item in clips]
    graded = [(one, level) for one in chosen for level in range(1, len(one.levels) + 1)]
    return copies + [Wanted(one, level, item, out, cache) for one, level in graded for item in clips]


def make(wanted: Wanted) -> Made:
    """Makes one video unless it is there from the same inputs; a clip that it cannot be made of has its reason.

    Raises:
        WeightsError, MissingPackage: no clip can do without them.
    """
    name, level, stem = wanted.name, wanted.level, wanted.item.stem
    try:
        identity = wanted.identity()
        if wanted.is_current():
            return Made(name, level, stem, fresh=False)
        wanted.video.parent.mkdir(parents=True, exist_ok=True)
        if wanted.corruption is None:
            copy(wanted.item.clip, wanted.video)
        else:
            strength = wanted.corruption.levels[level - 1]
            corrupt(wanted.corruption, Job(wanted.item.clip, strength, wanted.item.other, wanted.cache), wanted.video)
        write_json(wanted.marker, {"identity": identity})
        return Made(name, level, stem, fresh=True)
    except (WeightsError, MissingPackage):
        raise
    except TalkForgeError as error:
        return Made(name, level, stem, fresh=False, reason=error.reason, message=error.message)


def complete(made: Sequence[Made], name: str) -> tuple[list[str], dict[str, Made]]:
    """The stems of which every level and the copy could be made, and for the others the first failure."""
    by_stem: dict[str, list[Made]] = defaultdict(list)
    for one in made:
        if one.name in (COPY, name):
            by_stem[one.stem].append(one)
    failed = {
        stem: next(one for one in rows if one.reason) for stem, rows in by_stem.items() if any(r.reason for r in rows)
    }
    return [stem for stem in by_stem if stem not in failed], failed


def describe(wanted: Sequence[Wanted], chosen: Sequence[Corruption], workers: int) -> str:
    """What a run would do, as text: videos, those already there, and a rough time."""
    clips = {one.item.stem: one.item.clip for one in wanted}
    seconds = sum((probe(clip.video).duration_s or 0) for clip in clips.values())
    sets = 1 + sum(len(one.levels) for one in chosen)
    there = sum(one.is_current() for one in wanted)
    left = len(wanted) - there
    minutes = seconds * FPS * sets * (left / len(wanted)) * SECONDS_PER_FRAME / workers / 60
    lines = [f"clips: {len(clips)}, {seconds:.1f} s"]
    lines += [f"{one.name}: {one.what}; {', '.join(f'{x:g}' for x in one.levels)} ({one.unit})" for one in chosen]
    lines.append(f"videos: {len(wanted)}, of which {there} are there")
    lines.append(f"time: about {minutes:.0f} minutes with {workers} workers (rough: default metrics, no GPU)")
    return "\n".join(lines)
