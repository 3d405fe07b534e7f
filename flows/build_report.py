"""The page of a finished build: reads its folder back, decodes a few clips, and writes report.html and report.md.

Everything comes from the folder alone, so the page can be made again at any time, on any machine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ..core.clock import add_stages
from ..core.counters import Counters
from ..core.errors import InputError
from ..core.records import Reject
from ..core.shards import write_text
from ..datasets.build_meta import REJECTS
from ..datasets.filters import UNITS
from ..datasets.splits import SPLITS
from ..reports.dataset import dataset_page
from ..reports.dataset_markdown import dataset_markdown
from ..reports.dataset_view import (
    Column,
    DatasetView,
    Distribution,
    FilterRow,
    SplitRow,
    Spread,
    SpreadGroup,
    Stage,
    Work,
)
from ..tasks.extract_arkit import BLENDSHAPE_NAMES
from ..tasks.features import to_numpy
from .build_samples import (
    ANGLES,
    LEVEL,
    ROTATION,
    SHAPES,
    SHOWN_SHAPES,
    TRANSFORM,
    UNIT_TITLES,
    BuiltClip,
    filter_names,
    pick,
    sample,
)

REPORT = "report.html"
UNLABELLED = "not labelled"
_LABELS = (
    *("clip_id", "split", "identity", "emotion", "intensity", "view", "video"),
    *("n_frames", "has_sound", "source_width", "source_height", "crop_size", "keep"),
)
_QUANTILES = ("0.01", "0.25", "0.5", "0.75", "0.99")


def write_report(out: Path, *, samples: int = 6, seed: int = 0) -> Path:
    """Writes `report.html` and `report.md` into a finished build.

    Args:
        out: the build's folder.
        samples: clips to show, drawn by `seed` over splits, emotions and speakers.

    Returns:
        Path of the HTML page.

    Raises:
        InputError: there is no finished build.
    """
    if not (out / "meta/info.json").is_file():
        raise InputError(f"{out} is no finished build", hint="make one with: talkforge build")
    view = build_view(out, samples=samples, seed=seed)
    write_text(out / "report.md", dataset_markdown(view))
    write_text(out / REPORT, dataset_page(view))
    return out / REPORT


def build_view(out: Path, *, samples: int, seed: int) -> DatasetView:
    """What the page takes in."""
    info, stats, splits = (_json(out / f"meta/{name}.json") for name in ("info", "stats", "splits"))
    clips = list(built_clips(out))
    return DatasetView(
        info=info,
        splits=splits,
        identities=_speakers(clips),
        seconds=sum(map(_seconds, clips)),
        rows=[_split(name, mine) for name in SPLITS if (mine := [c for c in clips if c.labels["split"] == name])],
        distributions=[_lengths(clips), _sizes(clips)],
        samples=[sample(out, clip) for clip in pick(clips, samples, seed)],
        rejects=[Reject(**row) for row in pq.read_table(out / REJECTS).to_pylist()],
        filters=_filters(clips),
        kept=sum(clip.labels["keep"] is not False for clip in clips) if clips and "keep" in clips[0].labels else None,
        spreads=[group for group in _spreads(stats) if group.rows],
        columns=[
            Column(name, kind, *(stats.get(name, {}).get(key) for key in ("count", "null")))
            for name, kind in info["columns"].items()
        ],
        work=_work(out, clips),
    )


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def built_clips(out: Path) -> Iterator[BuiltClip]:
    """All rows of the build with their labels and filter columns, in the order of the shards: a row is a row group."""
    for path in sorted(out.glob("data/*/part-*.parquet")):
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            names = [n for n in there if n in _LABELS or n.startswith("filter_")]
            table = file.read(columns=[*names, *({TRANSFORM} & set(there))])
        for group, labels in enumerate(table.select(names).to_pylist()):
            side = _crop_side(table[TRANSFORM][group], labels["crop_size"]) if TRANSFORM in there else None
            yield BuiltClip(path, group, labels, side)


def _crop_side(transforms: Any, size: int) -> float | None:
    """Median side of the crop in pixels of the source, from its (N, 6) transforms; None where there is none."""
    matrices = to_numpy(transforms) if transforms.is_valid else np.empty((0, 6))
    area = np.abs(matrices[:, 0] * matrices[:, 4] - matrices[:, 1] * matrices[:, 3])
    area = area[np.isfinite(area) & (area > 0)]
    return float(size / np.sqrt(np.median(area))) if len(area) else None


def _seconds(clip: BuiltClip) -> float:
    return clip.labels["n_frames"] / 25


def _speakers(clips: Iterable[BuiltClip]) -> int | None:
    return len({clip.labels["identity"] for clip in clips} - {None}) or None


def _split(name: str, clips: Sequence[BuiltClip]) -> SplitRow:
    emotions = Counter(clip.labels["emotion"] or UNLABELLED for clip in clips)
    return SplitRow(name, len(clips), _speakers(clips), sum(map(_seconds, clips)), dict(emotions))


def _lengths(clips: Sequence[BuiltClip]) -> Distribution:
    return Distribution("Length of a clip", "s", [_seconds(clip) for clip in clips], "there is no clip")


def _sizes(clips: Sequence[BuiltClip]) -> Distribution:
    """Side of the crop in the source, which is what a face is enlarged or reduced from: the median over its frames."""
    sizes = [clip.crop_side for clip in clips if clip.crop_side is not None]
    return Distribution("Side of the crop in the source", "px", sizes, f"this build has no column {TRANSFORM}")


def _filters(clips: Sequence[BuiltClip]) -> list[FilterRow]:
    names = filter_names(clips[0].labels) if clips else []
    dropping = [[n for n in names if clip.labels[f"filter_{n}_keep"] is False] for clip in clips]
    alone = Counter(found[0] for found in dropping if len(found) == 1)
    return [
        FilterRow(
            name,
            [clip.labels.get(f"filter_{name}") for clip in clips],
            [clip.labels[f"filter_{name}_keep"] for clip in clips],
            alone[name],
            UNITS.get(name, ""),
        )
        for name in names
    ]


def _spreads(stats: dict[str, Any]) -> list[SpreadGroup]:
    units = [_spread(title, stats[column], None) for column, title in UNIT_TITLES.items() if column in stats]
    shapes = [_spread(name, stats[SHAPES], BLENDSHAPE_NAMES.index(name)) for name in SHOWN_SHAPES if SHAPES in stats]
    head = [_spread(name, stats[ROTATION], k) for k, name in enumerate(ANGLES) if ROTATION in stats]
    level = [_spread("level", stats[LEVEL], None)] if LEVEL in stats else []
    return [
        SpreadGroup("Action units", "", units),
        SpreadGroup("Expression", "", shapes),
        SpreadGroup("Head rotation", "°", head),
        SpreadGroup("Loudness", "dB", level),
    ]


def _spread(name: str, figures: dict[str, Any], dimension: int | None) -> Spread:
    found = [figures["quantiles"][q] for q in _QUANTILES] if figures["count"] else None
    quantiles = None if found is None else tuple(v if dimension is None else v[dimension] for v in found)
    return Spread(name, figures["count"], figures["null"], quantiles)


def _work(out: Path, clips: Sequence[BuiltClip]) -> Work:
    """Times and counters of all shards, from their markers."""
    markers = {path.parent.name.removeprefix("build-") + "/" + path.stem: _json(path) for path in _markers(out)}
    timed = {name for name, marker in markers.items() if marker.get("stages")}
    counters = Counters()
    for marker in markers.values():
        counters.merge(Counters.from_dict(marker["counters"]))
    return Work(
        stages=[Stage(name, **time) for name, time in add_stages(markers[k]["stages"] for k in sorted(timed)).items()],
        video_s=sum(_seconds(c) for c in clips if f"{c.path.parent.name}/{c.path.stem}" in timed),
        timed=len(timed),
        shards=len(markers),
        total_s=sum(marker["seconds"] for marker in markers.values()),
        counters=counters.as_dict(),
    )


def _markers(out: Path) -> list[Path]:
    return sorted(out.glob("_done/build-*/part-*.json"))
