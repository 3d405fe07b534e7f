"""A few clips of a build looked at closely: frames with landmarks, peaks of the sound, curves of features.

The crop video is decoded once, up to the last frame that is shown.
"""

from __future__ import annotations

import io
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from ..core.errors import MediaError
from ..core.landmarks import JAW, LEFT_BROW, LEFT_EYE, MOUTH, NOSE, RIGHT_BROW, RIGHT_EYE, landmarks_68
from ..datasets.audio import SAMPLE_RATE, SAMPLES_PER_FRAME, read_audio
from ..datasets.filters import UNITS
from ..datasets.video import FPS, open_video, resample
from ..reports.dataset_view import Envelope, FilterValue, Panel, SampleClip, Tile
from ..reports.view import Curve
from ..tasks.action_units import ACTION_UNITS
from ..tasks.extract_arkit import BLENDSHAPE_NAMES
from ..tasks.features import to_numpy

TILES = 6
TILE = 240  # pixels
DETAIL = 3  # landmarks are drawn at this scale and reduced, which smooths their edges
QUALITY = 85
BINS = 500
POINTS = "faces_mediapipe_points"
TRANSFORM = "crop_transform"
SHAPES = "arkit52_blendshapes"
ROTATION = "arkit52_rotation"
LEVEL = "speech_envelope_level_db"
SHOWN_UNITS = (1, 4, 12, 25)
SHOWN_SHAPES = ("jawOpen", "mouthSmileLeft", "browInnerUp", "eyeBlinkLeft")
ANGLES = ("yaw", "pitch", "roll")
UNIT = "au_blendshape_proxy_{}"
UNIT_TITLES = {UNIT.format(unit.column): f"{unit.column} {unit.name}" for unit in ACTION_UNITS}
_UNITS = tuple(UNIT.format(unit.column) for unit in ACTION_UNITS if unit.number in SHOWN_UNITS)
_SERIES = (POINTS, TRANSFORM, SHAPES, ROTATION, LEVEL, *_UNITS)
_REASONS = tuple(f"{name}_reason" for name in ("arkit52", "au_blendshape_proxy", "speech_envelope", "faces_mediapipe"))
# Lines through the 68 landmarks; True closes them. The inner lips begin at 60.
_LINES = (
    (JAW, False),
    (RIGHT_BROW, False),
    (LEFT_BROW, False),
    (slice(NOSE.start, 31), False),
    (slice(31, NOSE.stop), False),
    (RIGHT_EYE, True),
    (LEFT_EYE, True),
    (slice(MOUTH.start, 60), True),
    (slice(60, MOUTH.stop), True),
)
_INK = (64, 224, 208)
_DOT = (255, 255, 255)


@dataclass(frozen=True)
class BuiltClip:
    """A row of the build: its labels and filter columns, and the shard and row group of its series.

    `crop_side` is the median side of its crop in pixels of the source, None without a crop.
    """

    path: Path
    group: int
    labels: dict[str, Any]
    crop_side: float | None = None

    @property
    def clip_id(self) -> str:
        return self.labels["clip_id"]


def pick(clips: Sequence[BuiltClip], count: int, seed: int) -> list[BuiltClip]:
    """At most `count` clips, drawn so that splits, then emotions, then speakers repeat as little as possible."""
    rest = list(clips)
    random.Random(seed).shuffle(rest)
    seen: Counter[tuple[str, Any]] = Counter()
    chosen: list[BuiltClip] = []
    while rest and len(chosen) < count:
        best = min(rest, key=lambda clip: [seen[key] for key in _keys(clip)])
        rest.remove(best)
        chosen.append(best)
        seen.update(_keys(best))
    return sorted(chosen, key=lambda clip: clip.clip_id)


def _keys(clip: BuiltClip) -> list[tuple[str, Any]]:
    return [(name, clip.labels.get(name)) for name in ("split", "emotion", "identity")]


def sample(out: Path, clip: BuiltClip) -> SampleClip:
    """What the page shows of a clip. What cannot be read is left out and named, never a reason to fail."""
    series, reasons = _series(clip)
    frames = clip.labels["n_frames"]
    video = out / clip.labels["video"]
    strip, tiles, notes = _strip(video, clip, series)
    sound, sound_reason = _envelope(video, clip.labels.get("has_sound"), frames)
    level = series.get(LEVEL)
    return SampleClip(
        clip_id=clip.clip_id,
        facts=[*_facts(clip.labels), *_seen(series.get(POINTS))],
        seconds=frames / FPS,
        strip=strip,
        tiles=tiles,
        notes=notes,
        sound=sound,
        sound_reason=sound_reason,
        level=None if level is None else _curve("level", "dB", level),
        panels=_panels(series, reasons),
        faceless=_spans(series.get(POINTS)),
        filters=_filters(clip.labels),
    )


def _series(clip: BuiltClip) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Series of the clip that are there, (N,) or (N, D) with NaN for null; reasons of features that are not."""
    with pq.ParquetFile(clip.path) as file:
        there = set(file.schema_arrow.names)
        row = file.read_row_group(clip.group, columns=[n for n in (*_SERIES, *_REASONS) if n in there])
    cells = {name: row[name][0] for name in row.column_names}
    series = {name: to_numpy(cell) for name, cell in cells.items() if name in _SERIES and cell.is_valid}
    return series, {name: str(cells[name]) for name in _REASONS if name in cells and cells[name].is_valid}


def _facts(labels: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = {"split": "split", "identity": "speaker", "emotion": "emotion", "intensity": "intensity", "view": "view"}
    facts = [(title, str(labels[name])) for name, title in names.items() if labels.get(name) is not None]
    facts.append(("length", f"{labels['n_frames'] / FPS:.2f} s"))
    if labels.get("source_width"):
        facts.append(("source", f"{labels['source_width']} × {labels['source_height']}"))
    return facts


def _seen(points: np.ndarray | None) -> list[tuple[str, str]]:
    """On how many frames there is a face, where the build says so."""
    if points is None:
        return []
    return [("frames with a face", f"{int((~np.isnan(points).all(axis=1)).sum())} of {len(points)}")]


def _filters(labels: Mapping[str, Any]) -> list[FilterValue]:
    return [
        FilterValue(
            name,
            labels.get(f"filter_{name}"),
            labels[f"filter_{name}_keep"],
            UNITS.get(name, ""),
            labels.get(f"filter_{name}_reason") or "",
        )
        for name in filter_names(labels)
    ]


def filter_names(columns: Iterable[str]) -> list[str]:
    """Filters whose decision is among the columns."""
    found = (re.fullmatch("filter_(.+)_keep", name) for name in columns)
    return [match[1] for match in found if match]


def _curve(name: str, unit: str, values: np.ndarray) -> Curve:
    return Curve(name, unit, float(FPS), [round(float(v), 4) if np.isfinite(v) else None for v in values])


def _panels(series: Mapping[str, np.ndarray], reasons: Mapping[str, str]) -> list[Panel]:
    units = [_curve(UNIT_TITLES[name], "", series[name]) for name in _UNITS if name in series]
    shapes, angles = series.get(SHAPES), series.get(ROTATION)
    expression = [] if shapes is None else [_curve(n, "", shapes[:, BLENDSHAPE_NAMES.index(n)]) for n in SHOWN_SHAPES]
    head = [] if angles is None else [_curve(name, "°", angles[:, k]) for k, name in enumerate(ANGLES)]
    return [
        Panel("Action units", units, _why(reasons, "au_blendshape_proxy")),
        Panel("Expression", expression, _why(reasons, "arkit52")),
        Panel("Head rotation", head, _why(reasons, "arkit52")),
    ]


def _why(reasons: Mapping[str, str], feature: str) -> str:
    return reasons.get(f"{feature}_reason", f"this build has no columns {feature}_…")


def _spans(points: np.ndarray | None) -> list[tuple[float, float]]:
    """Seconds of the runs of frames without a face."""
    if points is None:
        return []
    spans, start = [], 0
    for missing, run in groupby(bool(np.isnan(row).all()) for row in points):
        end = start + len(list(run))
        if missing:
            spans.append((start / FPS, end / FPS))
        start = end
    return spans


def _envelope(video: Path, has_sound: bool | None, frames: int) -> tuple[Envelope | None, str]:
    """Peaks of the crop video's sound, or why there are none."""
    if has_sound is False:
        return None, "the clip has no sound"
    try:
        samples = read_audio(video)[: frames * SAMPLES_PER_FRAME]
    except MediaError as error:
        return None, error.reason
    step = max(1, -(-frames * SAMPLES_PER_FRAME // BINS))
    starts = np.arange(0, len(samples), step)
    low, high = np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)
    return Envelope([round(float(v), 4) for v in low], [round(float(v), 4) for v in high], step / SAMPLE_RATE), ""


def _strip(
    video: Path, clip: BuiltClip, series: Mapping[str, np.ndarray]
) -> tuple[bytes | None, list[Tile], list[str]]:
    """The strip as JPEG, its tiles, and what is missing."""
    frames = clip.labels["n_frames"]
    wanted = [min(frames - 1, int((k + 0.5) * frames / TILES)) for k in range(TILES)]
    try:
        pictures = _frames(video, set(wanted))
    except MediaError as error:
        return None, [], [f"The crop video cannot be shown: {error.reason}."]
    lost = [name for name in (POINTS, TRANSFORM) if name not in series]
    notes = [f"No landmarks are drawn: this clip has no {' and no '.join(lost)}."] if lost else []
    strip = Image.new("RGB", (TILES * TILE, TILE))
    tiles = []
    for k, index in enumerate(wanted):
        landmarks = None if lost else _in_crop(series[POINTS][index], series[TRANSFORM][index])
        if index in pictures:
            strip.paste(_tile(pictures[index], landmarks), (k * TILE, 0))
        note = "no face" if POINTS in series and np.isnan(series[POINTS][index]).all() else ""
        tiles.append(Tile(index / FPS, note if index in pictures else "no frame"))
    data = io.BytesIO()
    strip.save(data, "JPEG", quality=QUALITY)
    return data.getvalue(), tiles, notes


def _frames(video: Path, wanted: set[int]) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    with open_video(video) as stream:
        for index, _, frame in resample(stream):
            if index in wanted:
                found[index] = frame
            if index >= max(wanted):
                break
    return found


def _in_crop(points: np.ndarray, transform: np.ndarray) -> np.ndarray | None:
    """The 68 landmarks of one frame in pixels of the crop, (68, 2), from its corner; None without a face or a crop.

    Args:
        points: (1434,) source pixels from the picture's corner: x, y, z of 478 points.
        transform: (6,) source to crop, 2 x 3 row by row, both counted from the centre of the first pixel.
    """
    if np.isnan(points).any() or np.isnan(transform).any():
        return None
    matrix = transform.reshape(2, 3).astype(np.float64)
    centred = landmarks_68(points.reshape(-1, 3))[:, :2].astype(np.float64) - 0.5
    return centred @ matrix[:, :2].T + matrix[:, 2] + 0.5


def _tile(picture: np.ndarray, landmarks: np.ndarray | None) -> Image.Image:
    """The crop with its landmarks, `TILE` pixels wide and high."""
    size = TILE * DETAIL
    tile = Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS)
    if landmarks is not None:
        draw = ImageDraw.Draw(tile)
        scaled = landmarks * (size / picture.shape[1])
        for part, closed in _LINES:
            line = [(float(x), float(y)) for x, y in scaled[part]]
            draw.line([*line, line[0]] if closed else line, fill=_INK, width=DETAIL + 1, joint="curve")
        for x, y in scaled:
            draw.ellipse((x - DETAIL, y - DETAIL, x + DETAIL, y + DETAIL), fill=_DOT)
    return tile.resize((TILE, TILE), Image.Resampling.LANCZOS)
