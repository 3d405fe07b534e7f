"""What defines the rows of a dataset build, whatever the clips: extractors, crop video, filters, and so the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from ..core.config import digest
from ..core.errors import MediaError
from ..core.records import Clip
from ..core.weights import weights_store
from ..datasets.filters import KEEP, FilterPreset, load_preset
from ..datasets.video import probe
from .crop import CROP_RULES
from .crop_video import CROP_VIDEO_ID, crop_video
from .crops import Window
from .extract_faces import FACES
from .extractor import ExtractorSpec, extractors
from .filters import absences, filter_schema

SCHEMA_VERSION = 3
# For estimates: clips whose header is read, and bytes of a second of crop video for each of its pixels.
PROBED = 200
VIDEO_BYTES_PER_PIXEL = 0.6
# Extractors that look at pictures get the evaluation's, whatever is written as video, so that both share rows.
PICTURES = "face"
TRANSFORM = (
    "(u, v) = M (x, y, 1) takes a source pixel to the crop; M is 2x3, row by row; whole numbers are centres of pixels, "
    "(0, 0) the top left one; landmarks count from the picture's corner, so take 0.5 off them first"
)
VIDEO = "videos/{clip_id}.mp4"
# Counts of one extractor's frames: the row has its own `n_frames`, and what is missing is null in the series.
COUNTS = frozenset({"n_frames", "n_missing"})
_ALWAYS = frozenset({"clip_id", KEEP})
LABELS = {
    "clip_id": pa.string(),
    "dataset": pa.string(),
    "split": pa.string(),
    "identity": pa.string(),
    "emotion": pa.string(),
    "intensity": pa.int8(),
    "view": pa.string(),
    "source": pa.string(),
    "start_s": pa.float64(),
    "end_s": pa.float64(),
    "window": pa.list_(pa.float64(), 4),
    "sha256": pa.string(),
    "video": pa.string(),
    "n_frames": pa.int32(),
    "duration_s": pa.float64(),
    "has_sound": pa.bool_(),
    "source_fps": pa.float64(),
    "source_duration_s": pa.float64(),
    "source_width": pa.int32(),
    "source_height": pa.int32(),
    "crop_size": pa.int32(),
}


@dataclass(frozen=True)
class Recipe:
    """What defines the rows of a build, whatever the clips.

    Attributes:
        dataset: the reader's id.
        extractors: their ids; faces and the crop video are made in any case.
        size, crf, preset: of the crop video.
        crop: its name, see `crops`.
        bounds: what the filters' decisions are made with; their values are stored in any case.
    """

    dataset: str
    extractors: tuple[str, ...]
    size: int
    crf: int
    preset: str
    crop: str = "ffhq"
    bounds: FilterPreset = field(default_factory=lambda: load_preset("none"))

    def video(self, window: Window | None = None) -> ExtractorSpec:
        """The extractor of the crop video, for a clip with this annotated window."""
        return crop_video(self.size, self.crf, self.preset, self.crop, window)

    def specs(self, window: Window | None = None) -> list[ExtractorSpec]:
        """All extractors of the pass, faces and crop video first."""
        others = [extractors.get(name) for name in self.extractors if name != FACES.id]
        return [FACES, self.video(window), *others]

    def features(self) -> list[ExtractorSpec]:
        """Extractors whose columns are in the shards under their own names."""
        return [spec for spec in self.specs() if spec.id != CROP_VIDEO_ID]

    def schema(self) -> pa.Schema:
        """Columns of a shard."""
        columns = dict(LABELS) | {"crop_transform": self.video().columns["transform"]}
        for spec in self.features():
            columns |= {column_name(spec, name): kind for name, kind in spec.columns.items() if name not in COUNTS}
            columns[column_name(spec, "reason")] = pa.string()
        columns |= filter_schema()
        return pa.schema([pa.field(name, kind, nullable=name not in _ALWAYS) for name, kind in columns.items()])

    def identity(self) -> dict[str, Any]:
        """Everything of the recipe that the rows depend on, JSON-ready."""
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.dataset,
            "pictures": CROP_RULES[PICTURES],
            "extractors": {spec.id: [spec.version, dict(spec.params)] for spec in self.specs()},
            "weights": self.weights(),
            "filters": [self.bounds.digest(), absences([spec.id for spec in self.specs()])],
        }

    @cached_property
    def digest(self) -> str:
        """sha256 of the identity."""
        return digest(self.identity())

    def crop_facts(self) -> dict[str, Any]:
        """How the crop video is made, and which pictures the extractors look at."""
        return {**self.video().params, "transform": TRANSFORM, "pictures_of_extractors": CROP_RULES[PICTURES]}

    def steps(self) -> dict[str, int]:
        """Columns that do not hold one entry a frame -> entries a frame; 0 for a list that is no series."""
        return {column_name(spec, name): steps for spec in self.features() for name, steps in spec.steps.items()}

    def weights(self) -> dict[str, str]:
        """sha256 of each weight file behind the columns."""
        names = sorted({name for spec in self.specs() for name in spec.weights})
        return {name: weights_store().sha256(name) for name in names}


def column_name(spec: ExtractorSpec, column: str) -> str:
    """Name of an extractor's column in the shards."""
    return f"{spec.id}_{column}".replace("-", "_")


def estimate_bytes(recipe: Recipe, clips: Sequence[Clip]) -> float:
    """Rough size of the output, from the headers of at most `PROBED` evenly spaced clips; unreadable ones count 0."""
    probed = clips[:: max(1, -(-len(clips) // PROBED))]
    if not probed:
        return 0.0
    seconds = sum(_seconds(clip) for clip in probed) / len(probed) * len(clips)
    numbers = sum(_entry_bytes(spec, name) for spec in recipe.features() for name in spec.columns)
    return seconds * (VIDEO_BYTES_PER_PIXEL * recipe.size**2 + 25 * numbers)


def _seconds(clip: Clip) -> float:
    if clip.end_s is not None:
        return clip.end_s - (clip.start_s or 0.0)
    try:
        return max(0.0, (probe(clip.video).duration_s or 0.0) - (clip.start_s or 0.0))
    except (MediaError, OSError):
        return 0.0


def _entry_bytes(spec: ExtractorSpec, column: str) -> float:
    """Bytes a frame before compression."""
    kind = spec.columns[column]
    if not pa.types.is_list(kind):
        return 0.0
    entry = kind.value_type
    width = entry.list_size * entry.value_type.bit_width if pa.types.is_fixed_size_list(entry) else entry.bit_width
    return width / 8 * spec.steps.get(column, 1)
