"""Where a finished evaluation's videos are, and what the feature cache holds of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError, InputError, TalkForgeError
from ..datasets.folder import MediaFile
from ..metrics.av_sync import FACES, FPS, SPEECH, loudness, mouth_opening
from ..reports.drilldown import CurveGroup
from ..reports.view import Curve
from ..tasks.action_units import ACTION_UNITS, action_units
from ..tasks.extract import stored
from ..tasks.extract_arkit import BLENDSHAPE_NAMES
from ..tasks.features import FeatureRow, FeatureStore
from .evaluate import EvalConfig
from .pairs import MatchedClip, clip_file, match_folders

STRIP = "strip"
SHOWN = (FACES, SPEECH, STRIP)
ALONE = "it was evaluated without real clips"
Key = tuple[Path, str, Path]  # cache, crop, video
NOT_CACHED = "not in the feature cache; TALKFORGE_CACHE names the one that the evaluation filled"


@dataclass(frozen=True)
class ClipMedia:
    """A clip's videos, its label, and what the evaluation's folders say of it."""

    real: Path | None
    generated: Path | None
    emotion: str | None = None
    match: MatchedClip | None = None

    @classmethod
    def of(cls, clip: MatchedClip) -> ClipMedia:
        """Of a clip as the evaluation's folders have it."""
        real, generated = (item.path if item else None for item in (clip.real, clip.generated))
        return cls(real, generated, clip.emotion, clip)


@dataclass(frozen=True)
class Frames:
    """A strip of frames: JPEG and the second that each shows, or why there is none."""

    jpeg: bytes | None = None
    seconds: tuple[float, ...] = ()
    reason: str = NOT_CACHED


@dataclass(frozen=True)
class Side:
    """What is shown of one video, read from the cache."""

    frames: Frames = field(default_factory=Frames)
    mouth: list[float | None] | None = None
    sound: list[float | None] | None = None
    units: Mapping[str, list[float | None]] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)  # what is missing -> reason


@dataclass
class RunMedia:
    """Videos of a run by clip, and the cache that its features lie in; `absent`: (what, why) of the run as a whole."""

    clips: dict[str, ClipMedia]
    store: FeatureStore | None
    absent: list[tuple[str, str]]
    known: dict[Key, Side] = field(default_factory=dict)
    reference: bool = True

    @classmethod
    def open(cls, folder: Path, cache: Path | None = None, known: dict[Key, Side] | None = None) -> RunMedia:
        """From the run's `config.yaml`; a run whose folders are gone has no clips and says so.

        `known`: real videos that were read for another run, and where this one's are to be kept.
        """
        try:
            config = EvalConfig.load(folder / "config.yaml")
            base = base_of(folder, config.out)
            real, generated = base / config.real, base / config.generated
            manifest = base / config.manifest if config.manifest else None
            match = match_folders(real, generated, manifest)
        except (ConfigError, InputError) as error:
            return cls({}, None, [("Videos", error.message)])
        # Without real clips the generated ones stand in their place.
        matched = match.clips if config.reference else [replace(clip, real=None) for clip in match.clips]
        clips = {clip.clip_id: ClipMedia.of(clip) for clip in matched}
        store = FeatureStore(cache or config.cache, config.crop)
        return cls(clips, store, [], {} if known is None else known, config.reference)

    def why(self, name: str, side: str) -> str:
        """Why a clip has no video of a side."""
        if name not in self.clips:
            return self.absent[0][1] if self.absent else "its file is no longer there"
        return ALONE if side == "real" and not self.reference else f"no {side} file of this name"

    def both(self, name: str) -> tuple[Side, Side]:
        """What is shown of the real and of the generated video."""
        media = self.clips.get(name)
        match = media.match if media else None
        if match is None:
            return Side(), Side()
        return self._real(match.real), self._side(match.generated, "generated")

    def _real(self, item: MediaFile | None) -> Side:
        """The real side, read once for all methods; keeping the generated ones as well would fill the memory."""
        if item is None or self.store is None:
            return Side(Frames(reason="no real file" if self.reference else ALONE))
        key = self.store.root, self.store.crop, item.path.absolute()
        if key not in self.known:
            self.known[key] = self._side(item, "real")
        return self.known[key]

    def _side(self, item: MediaFile | None, side: str) -> Side:
        if item is None or self.store is None:
            return Side(Frames(reason=f"no {side} file"))
        try:
            return read_side(stored(self.store, clip_file(item).content(), SHOWN))
        except (TalkForgeError, OSError) as error:
            return Side(Frames(reason=str(error)))


def base_of(folder: Path, out: Path) -> Path:
    """The folder that a run's relative paths began in: what is left of where it lies without its own `out`."""
    place = folder.resolve()
    parts = out.parts
    if not out.is_absolute() and ".." not in parts and place.parts[-len(parts) :] == parts:
        return Path(*place.parts[: -len(parts)])
    return Path.cwd()


def read_side(rows: Mapping[str, FeatureRow]) -> Side:
    """Frames and curves from stored rows; of each that is missing, the reason."""
    why: dict[str, str] = {}
    good = {}
    for name in SHOWN:
        row = rows.get(name)
        if row is not None and row.reason is None:
            good[name] = row
        else:
            why[name] = NOT_CACHED if row is None else f"{row.reason}: {row.message}"
    frames = Frames(reason=why.get(STRIP, NOT_CACHED))
    if STRIP in good:
        frames = Frames(good[STRIP].value("jpeg"), tuple(map(float, good[STRIP].array("seconds"))))
    mouth = plain(mouth_opening(good[FACES])) if FACES in good else None
    sound = plain(loudness(good[SPEECH])) if SPEECH in good else None
    return Side(frames, mouth, sound, units_of(good[FACES]) if FACES in good else {}, why)


def units_of(faces: FeatureRow) -> dict[str, list[float | None]]:
    """The 17 action units (a proxy, see `tasks.action_units`) over the frames, None where there is no face."""
    shapes = faces.array("blendshapes").astype(np.float64)
    return {name: plain(values) for name, values in action_units(shapes, BLENDSHAPE_NAMES).items()}


def plain(values: Any) -> list[float | None]:
    """As JSON has it."""
    return [None if value != value else round(float(value), 4) for value in values]


def curve_groups(real: Side, generated: Side) -> list[CurveGroup]:
    """Mouths over loudness, and each action unit of both videos."""
    lines = [
        Curve(name, "eye distances", FPS, values)
        for name, values in (("mouth, real", real.mouth), ("mouth, generated", generated.mouth))
        if values
    ]
    if generated.sound and lines:
        lines.append(Curve("loudness, generated", "dB", FPS, generated.sound, "area"))
    groups = [CurveGroup("Mouth opening and loudness", "sync", lines)] if lines else []
    for unit in ACTION_UNITS:
        pair = [
            Curve(name, "", FPS, side.units[unit.column])
            for name, side in (("real", real), ("generated", generated))
            if unit.column in side.units
        ]
        if pair:
            groups.append(CurveGroup(f"{unit.column} {unit.name}", "unit", pair))
    return groups


def curve_notes(real: Side, generated: Side) -> list[str]:
    """What is missing among the curves, and why."""
    names = {FACES: "mouth opening and action units", SPEECH: "loudness"}
    sides = (("real", real, (FACES,)), ("generated", generated, (FACES, SPEECH)))
    return [
        f"No {names[name]} of the {side} video: {have.why[name]}"
        for side, have, wanted in sides
        for name in wanted
        if name in have.why
    ]
