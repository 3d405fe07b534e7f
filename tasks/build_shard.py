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

from ..core.clock import StageClock
from ..core.config import digest
from ..core.counters import Counters
from ..core.errors import NoFace, TalkForgeError
from ..core.records import Clip, Reject
from ..core.shards import ShardWriter, write_bytes
from .extract import ClipFile, extract_clip, stored
from .features import FeatureRow, FeatureStore
from .filters import filter_columns
from .recipe import COUNTS, LABELS, PICTURES, VIDEO, Recipe, column_name


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
    digest: str
    counters: Counters = field(default_factory=Counters)
    seconds: float = 0.0


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
    return ShardResult(shard.writer().shard_path(shard.index), marker["rows"], rejects, False, shard.digest)


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
    with StageClock() as clock:
        for item in shard.clips:
            counters.clips += 1
            made = _build_clip(shard, item, store, counters, clock)
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
        "stages": clock.as_dict(),
    }
    path = shard.writer().write(shard.index, table, digest=shard.digest, **facts)
    return ShardResult(path, table.num_rows, tuple(rejects), True, shard.digest, counters, seconds)


def _build_clip(
    shard: BuildShard, item: BuildClip, store: FeatureStore, counters: Counters, clock: StageClock
) -> pa.Table | Reject:
    """The clip's row, its crop video written, or why there is none."""
    clip, recipe = item.clip, shard.recipe
    content = clip.sha256 or ""
    specs = recipe.specs(clip.crop)
    try:
        extract_clip(clip_file(clip), content, specs, store, counters, device=shard.device, clock=clock)
    except OSError as error:  # the file was there when the clips were listed
        return Reject(clip.clip_id, "decode", "unreadable_file", f"{clip.video.name}: {error.strerror}")
    crop = store.find(recipe.video(clip.crop), content)
    if crop is None:
        raise TalkForgeError(f"the feature cache lost a row of {clip.clip_id}", hint="run the same command again")
    if crop.reason is not None:
        stage = "track" if crop.reason == NoFace.reason else "decode"
        return Reject(clip.clip_id, stage, crop.reason, crop.message)
    with clock.stage("shard"):
        video = shard.out / VIDEO.format(clip_id=clip.clip_id)
        video.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(video, crop.value("mp4"))
        return _row(item, recipe, crop, stored(store, content, [spec.id for spec in recipe.features()]))


def _row(item: BuildClip, recipe: Recipe, crop: FeatureRow, rows: dict[str, FeatureRow]) -> pa.Table:
    """One row of the shard."""
    schema, n_frames = recipe.schema(), crop.value("n_frames")
    values = _labels(item, recipe, crop)
    columns = {name: pa.array([values[name]], type=kind) for name, kind in LABELS.items()}
    columns["crop_transform"] = crop.column("transform")
    for spec in recipe.features():
        row = rows[spec.id]
        columns[column_name(spec, "reason")] = pa.array([row.reason], pa.string())
        for name in spec.columns.keys() - COUNTS:
            columns[column_name(spec, name)] = _cut(row.column(name), n_frames * spec.steps.get(name, 1))
    for name, value in filter_columns(rows, recipe.bounds).items():
        columns[name] = pa.array([value], schema.field(name).type)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _labels(item: BuildClip, recipe: Recipe, crop: FeatureRow) -> dict[str, Any]:
    clip = item.clip
    same = {name: getattr(clip, name) for name in LABELS if hasattr(clip, name)}
    found = {name: crop.value(name) for name in LABELS if name.startswith("source_")}
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


def rejects_of(results: Sequence[ShardResult]) -> list[Reject]:
    """All rejects of some shards."""
    return [reject for result in results for reject in result.rejects]
