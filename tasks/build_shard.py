"""Building one shard of a dataset: a pure function from clips to a Parquet file, crop videos and a marker.

Nothing in a shard depends on when, where, or beside which other shards it was made: no time, no absolute path, no
worker. Work is kept a clip at a time in the feature cache, so a killed shard is assembled again from what is there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..core.config import digest
from ..core.counters import Counters
from ..core.errors import MediaError, NoFace, TalkForgeError
from ..core.records import Clip, Reject
from ..core.shards import ShardWriter, write_bytes
from ..core.weights import weights_store
from ..datasets.video import probe
from .crop import CROP_RULES
from .crop_video import CROP_VIDEO_ID, crop_video
from .crops import Window
from .extract import ClipFile, extract_clip, stored
from .extract_faces import FACES
from .extractor import ExtractorSpec, extractors
from .features import FeatureRow, FeatureStore

SCHEMA_VERSION = 2
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
_COUNTS = frozenset({"n_frames", "n_missing"})
_LABELS = {
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
    """

    dataset: str
    extractors: tuple[str, ...]
    size: int
    crf: int
    preset: str
    crop: str = "ffhq"

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
        columns = dict(_LABELS) | {"crop_transform": self.video().columns["transform"]}
        for spec in self.features():
            columns |= {column_name(spec, name): kind for name, kind in spec.columns.items() if name not in _COUNTS}
            columns[column_name(spec, "reason")] = pa.string()
        return pa.schema([pa.field(name, kind, nullable=name != "clip_id") for name, kind in columns.items()])

    def identity(self) -> dict[str, Any]:
        """Everything of the recipe that the rows depend on, JSON-ready."""
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.dataset,
            "pictures": CROP_RULES[PICTURES],
            "extractors": {spec.id: [spec.version, dict(spec.params)] for spec in self.specs()},
            "weights": self.weights(),
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


@dataclass(frozen=True)
class BuildClip:
    """A clip of the build: its record with `sha256` of its content, and its source as a path below the dataset."""

    clip: Clip
    source: str

    def identity(self) -> dict[str, Any]:
        """What its row depends on, without any place of this machine."""
        return self.clip.as_row() | {"video": self.source, "audio": self.clip.audio is not None}


@dataclass(frozen=True)
class BuildShard:
    """One shard to build."""

    split: str
    index: int
    total: int
    clips: tuple[BuildClip, ...]
    recipe: Recipe
    out: Path
    cache: Path | None
    device: str = "cpu"

    def writer(self) -> ShardWriter:
        """Where it goes. A row is a row group, so that a clip is read without its neighbours."""
        return ShardWriter(self.out, f"build-{self.split}", folder=f"data/{self.split}", total=self.total, group_rows=1)

    @cached_property
    def digest(self) -> str:
        """Digest of everything that its bytes depend on."""
        return digest({"recipe": self.recipe.digest, "clips": [item.identity() for item in self.clips]})


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard's clips."""

    path: Path
    rows: int
    rejects: tuple[Reject, ...]
    fresh: bool
    counters: Counters = field(default_factory=Counters)
    seconds: float = 0.0


def column_name(spec: ExtractorSpec, column: str) -> str:
    """Name of an extractor's column in the shards."""
    return f"{spec.id}_{column}".replace("-", "_")


def clip_file(clip: Clip) -> ClipFile:
    """What the pass reads of a clip. One without sound is read as it is, and says so itself."""
    return ClipFile(clip.video, clip.audio or clip.video, clip.start_s, clip.end_s)


def finished_shard(shard: BuildShard) -> ShardResult | None:
    """The result of a shard that is complete and made from the same clips and recipe, else None."""
    marker = shard.writer().done(shard.index, digest=shard.digest)
    if marker is None:
        return None
    rejects = tuple(Reject(**row) for row in marker["rejects"])
    lost = {reject.clip_id for reject in rejects}
    kept = (item.clip.clip_id for item in shard.clips if item.clip.clip_id not in lost)
    if not all((shard.out / VIDEO.format(clip_id=clip_id)).is_file() for clip_id in kept):
        return None
    return ShardResult(shard.writer().shard_path(shard.index), marker["rows"], rejects, fresh=False)


def build_shard(shard: BuildShard) -> ShardResult:
    """Builds a shard that is not finished: rows and crop videos, then the marker.

    Raises:
        WeightsError, MissingPackage: what an extractor needs is not here; nothing is said about the clip.
    """
    start, counters = time.monotonic(), Counters()
    # Videos are replaced before the shard is: until it is written again, nothing may say that the two fit.
    shard.writer().marker_path(shard.index).unlink(missing_ok=True)
    store = FeatureStore(shard.cache, PICTURES)
    rows: list[pa.Table] = []
    rejects: list[Reject] = []
    for item in shard.clips:
        counters.clips += 1
        made = _build_clip(shard, item, store, counters)
        if isinstance(made, Reject):
            rejects.append(made)
        else:
            rows.append(made)
    schema = shard.recipe.schema()
    table = pa.concat_tables(rows).combine_chunks() if rows else schema.empty_table()
    seconds = round(time.monotonic() - start, 3)
    facts = {
        "recipe": shard.recipe.digest,
        "clips": len(shard.clips),
        "rejects": [asdict(one) for one in rejects],
        "extractors": {spec.id: spec.version for spec in shard.recipe.specs()},
        "weights": shard.recipe.weights(),
        "counters": counters.as_dict(),
        "seconds": seconds,
    }
    path = shard.writer().write(shard.index, table, digest=shard.digest, **facts)
    return ShardResult(path, table.num_rows, tuple(rejects), True, counters, seconds)


def _build_clip(shard: BuildShard, item: BuildClip, store: FeatureStore, counters: Counters) -> pa.Table | Reject:
    """The clip's row, its crop video written, or why there is none."""
    clip, recipe = item.clip, shard.recipe
    content = clip.sha256 or ""
    specs = recipe.specs(clip.crop)
    try:
        extract_clip(clip_file(clip), content, specs, store, counters, device=shard.device)
    except OSError as error:  # the file was there when the clips were listed
        return Reject(clip.clip_id, "decode", "unreadable_file", f"{clip.video.name}: {error.strerror}")
    crop = store.find(recipe.video(clip.crop), content)
    if crop is None:
        raise TalkForgeError(f"the feature cache lost a row of {clip.clip_id}", hint="run the same command again")
    if crop.reason is not None:
        stage = "track" if crop.reason == NoFace.reason else "decode"
        return Reject(clip.clip_id, stage, crop.reason, crop.message)
    video = shard.out / VIDEO.format(clip_id=clip.clip_id)
    video.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(video, crop.value("mp4"))
    return _row(item, recipe, crop, stored(store, content, [spec.id for spec in recipe.features()]))


def _row(item: BuildClip, recipe: Recipe, crop: FeatureRow, rows: dict[str, FeatureRow]) -> pa.Table:
    """One row of the shard."""
    schema, n_frames = recipe.schema(), crop.value("n_frames")
    values = _labels(item, recipe, crop)
    columns = {name: pa.array([values[name]], type=kind) for name, kind in _LABELS.items()}
    columns["crop_transform"] = crop.column("transform")
    for spec in recipe.features():
        row = rows[spec.id]
        columns[column_name(spec, "reason")] = pa.array([row.reason], pa.string())
        for name in spec.columns.keys() - _COUNTS:
            columns[column_name(spec, name)] = _cut(row.column(name), n_frames * spec.steps.get(name, 1))
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _labels(item: BuildClip, recipe: Recipe, crop: FeatureRow) -> dict[str, Any]:
    clip = item.clip
    same = {name: getattr(clip, name) for name in _LABELS if hasattr(clip, name)}
    found = {name: crop.value(name) for name in _LABELS if name.startswith("source_")}
    return {
        **same,
        **found,
        "dataset": recipe.dataset,
        "source": item.source,
        "window": None if clip.crop is None else list(clip.crop),
        "video": VIDEO.format(clip_id=clip.clip_id),
        "n_frames": crop.value("n_frames"),
        "duration_s": crop.value("n_frames") / 25,
        "has_sound": crop.value("has_sound"),
        "crop_size": recipe.size,
    }


def _cut(column: pa.Array, entries: int) -> pa.Array:
    """A one-row list column with at most the first `entries` of its series; 0 leaves it whole, as a list of no time."""
    if not pa.types.is_list(column.type) or not entries or column.null_count:
        return column
    values = column[0].values
    kept = values.take(pa.array(range(min(entries, len(values))), pa.int64())) if len(values) > entries else values
    return pa.ListArray.from_arrays(pa.array([0, len(kept)], pa.int32()), kept, type=column.type)


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


def rejects_of(results: Sequence[ShardResult]) -> list[Reject]:
    """All rejects of some shards."""
    return [reject for result in results for reject in result.rejects]
