"""The page of a finished dataset build: counts, rejects, distributions, time, and a few clips looked at closely.

Self-contained like every page here (see `html`). Each sample's strip lies over the time axis of its curves: frame k of
K shows the middle of the k-th K-th of the clip, so that what is seen stands above what was measured.
"""

from __future__ import annotations

import base64
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..core.records import Reject
from .charts import BOX_HEIGHT, BOX_WIDTH, Scale, Series, TimeChart, scale_over, time_chart
from .dataset_view import DatasetView, Envelope, FilterRow, Panel, SampleClip, Spread, SpreadGroup, Stage, Work
from .formatting import MISSING, flat_items, format_value, is_number, with_unit
from .html import render_page
from .view import Curve

MOST_REJECTS = 200  # listed one by one; the table of reasons counts all
EXAMPLES = 3
MOST_BINS, FEWEST_BINS = 24, 6


def dataset_page(view: DatasetView) -> str:
    """The build's page: one HTML file that loads nothing and works without scripts."""
    return render_page(
        "dataset.html",
        view=view,
        summary=summary(view),
        notes=notes(view),
        emotions=emotions(view),
        histograms=[(one, histogram([one.values], one.unit)) for one in view.distributions],
        samples=[_sample(index, clip) for index, clip in enumerate(view.samples)],
        reasons=reasons(view),
        listed=view.rejects[:MOST_REJECTS],
        filters=[filter_model(row) for row in view.filters],
        spreads=[_spreads(group) for group in view.spreads],
        stages=stage_rows(view.work),
        counters=flat_items(view.work.counters),
        environment=flat_items(view.info["environment"]),
        snippets=snippets(view),
        duration=duration,
        clips=clips,
    )


def duration(seconds: float | None) -> str:
    """Seconds in a unit that suits them: "8.2 s", "12.4 min", "31.0 h"."""
    if not is_number(seconds):
        return MISSING
    unit, size = next(((u, s) for u, s in (("h", 3600.0), ("min", 60.0)) if seconds >= 1.5 * s), ("s", 1.0))
    return f"{seconds / size:.1f} {unit}"


def clips(count: int) -> str:
    """ "1 clip", "2 clips"."""
    return f"{count} clip{'' if count == 1 else 's'}"


def summary(view: DatasetView) -> list[tuple[str, str]]:
    """(what, figure) for the page's head."""
    counts = view.info["counts"]
    return [
        ("clips listed", str(counts["clips"])),
        ("rows", str(counts["rows"])),
        ("rejected", str(counts["rejects"])),
        ("of video", duration(view.seconds)),
        ("speakers", MISSING if view.identities is None else str(view.identities)),
        ("columns", str(len(view.columns))),
    ]


def notes(view: DatasetView) -> list[str]:
    """What to know before the data is used."""
    left_out = view.info["counts"].get("left_out_by_limit", 0)
    limited = [f"{clips(left_out)} left out by the limit of this build."] if left_out else []
    return [*limited, *view.info.get("notes", [])]


def emotions(view: DatasetView) -> list[str]:
    """All emotions that occur, the most frequent first."""
    counts: dict[str, int] = defaultdict(int)
    for row in view.rows:
        for name, clips in row.emotions.items():
            counts[name] += clips
    return sorted(counts, key=lambda name: (-counts[name], name))


@dataclass(frozen=True)
class Reason:
    """Rejects of one reason and stage, with the first few."""

    reason: str
    stage: str
    clips: int
    share: float  # percent of all clips listed
    examples: list[Reject]


def reasons(view: DatasetView) -> list[Reason]:
    """Rejects by reason, the most frequent first."""
    groups: dict[tuple[str, str], list[Reject]] = defaultdict(list)
    for reject in view.rejects:
        groups[reject.reason, reject.stage].append(reject)
    every = max(1, view.info["counts"]["clips"])
    order = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [Reason(*key, len(some), round(100 * len(some) / every, 2), some[:EXAMPLES]) for key, some in order]


@dataclass(frozen=True)
class StageRow:
    """A stage as text; `share` is its percent of the time of all stages (CPU where all are known, else wall)."""

    name: str
    wall: str
    cpu: str
    per_second: str
    share: float | None


def stage_rows(work: Work) -> list[StageRow]:
    """A row a stage, the longest first, and their sum last; empty without stage times."""
    if not work.stages:
        return []
    known = all(stage.cpu_s is not None for stage in work.stages)
    cost = {s.name: (s.cpu_s if known else s.wall_s) for s in work.stages}
    order = sorted(work.stages, key=lambda stage: -(cost[stage.name] or 0.0))
    total = Stage("all stages", _sum(s.wall_s for s in order), _sum(s.cpu_s for s in order))
    whole = sum(value or 0.0 for value in cost.values())
    rows = [_stage(stage, work.video_s, 100 * (cost[stage.name] or 0.0) / whole if whole else None) for stage in order]
    return [*rows, _stage(total, work.video_s, None)]


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum, None where a part is unknown."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _stage(stage: Stage, video_s: float, share: float | None) -> StageRow:
    time = stage.wall_s if stage.cpu_s is None else stage.cpu_s
    per_second = time / video_s if time is not None and video_s > 0 else None
    rate = MISSING if per_second is None else f"{per_second:.3f} s"
    return StageRow(stage.name, duration(stage.wall_s), duration(stage.cpu_s), rate, share)


@dataclass(frozen=True)
class Bar:
    """A bin: left and width in the box; (y, height) of each group, stacked; its words."""

    x: float
    width: float
    parts: list[tuple[float, float]]
    label: str


@dataclass(frozen=True)
class Histogram:
    """Bars in the charts' box with axis ticks (percent, label); `most` is the count at full height."""

    bars: list[Bar]
    ticks: list[tuple[float, str]]
    most: int
    words: str


def histogram(groups: Sequence[Sequence[float | None]], unit: str) -> Histogram | None:
    """Counts of all values in bins of round width, the more the more values, groups stacked; None without a value."""
    kept = [[value for value in group if is_number(value)] for group in groups]
    values = sorted(value for group in kept for value in group)
    if not values:
        return None
    step = _round_step(values[-1] - values[0], min(MOST_BINS, max(FEWEST_BINS, round(2 * math.sqrt(len(values))))))
    first = math.floor(values[0] / step + 1e-9)
    bins = math.floor(values[-1] / step + 1e-9) - first + 1
    counts = [[0] * bins for _ in kept]
    for mine, group in zip(counts, kept, strict=True):
        for value in group:
            mine[min(bins - 1, math.floor(value / step + 1e-9) - first)] += 1
    most = max(map(sum, zip(*counts, strict=True)))
    bars = [_bar(k, bins, [mine[k] for mine in counts], most, (first + k) * step, step, unit) for k in range(bins)]
    ticks = Scale(first * step, (first + bins) * step).ticks(5)
    middle = values[len(values) // 2] if len(values) % 2 else sum(values[len(values) // 2 - 1 :][:2]) / 2
    ends = f"{format_value(values[0], None)} to {format_value(values[-1], None, unit)}"
    return Histogram(bars, ticks, most, f"median {format_value(middle, None, unit)}, {ends}")


def _round_step(spread: float, bins: int) -> float:
    """A bin width of 1, 2 or 5 times a power of ten, for at most about `bins`; 1 where all values are one."""
    if spread <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(spread / bins))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= spread / bins * (1 - 1e-9))


def _bar(k: int, bins: int, counts: list[int], most: int, start: float, step: float, unit: str) -> Bar:
    width = BOX_WIDTH / bins
    parts, top = [], BOX_HEIGHT
    for count in counts:
        height = BOX_HEIGHT * count / most
        top -= height
        parts.append((round(top, 2), round(height, 2)))
    ends = f"{format_value(start, None)} to {format_value(start + step, None, unit)}"
    gap = min(2.0, width * 0.1)
    return Bar(round(k * width + gap, 2), round(width - 2 * gap, 2), parts, f"{ends}: {clips(sum(counts))}")


@dataclass(frozen=True)
class FilterModel:
    """A filter's counts, and its values with what was kept below what would be dropped."""

    name: str
    measured: int
    dropped: int
    undecided: int
    only: int
    share: float
    histogram: Histogram | None


def filter_model(row: FilterRow) -> FilterModel:
    """Counts of a filter over all clips."""
    pairs = list(zip(row.values, row.keeps, strict=True))
    groups = [[value for value, keep in pairs if (keep is False) is dropped] for dropped in (False, True)]
    dropped = sum(keep is False for keep in row.keeps)
    share = round(100 * dropped / max(1, len(pairs)), 1)
    measured = sum(is_number(value) for value in row.values)
    undecided = sum(keep is None for keep in row.keeps)
    return FilterModel(row.name, measured, dropped, undecided, row.only, share, histogram(groups, row.unit))


@dataclass(frozen=True)
class SpreadRow:
    """A feature's quantiles as places in percent of the axis; None where it has no value."""

    spread: Spread
    places: list[float] | None
    text: str


def _spreads(group: SpreadGroup) -> tuple[SpreadGroup, list[SpreadRow], list[tuple[float, str]]]:
    scale = scale_over(value for row in group.rows for value in row.quantiles or ())
    rows = []
    for row in group.rows:
        places = [scale.percent(value) for value in row.quantiles] if scale and row.quantiles else None
        rows.append(SpreadRow(row, places, spread_text(row, group)))
    return group, rows, scale.ticks(5) if scale else []


def spread_text(row: Spread, group: SpreadGroup) -> str:
    """The median with the 1 % and 99 % quantiles, in digits that suit the group's range."""
    if row.quantiles is None:
        return MISSING
    every = [value for one in group.rows for value in one.quantiles or ()]
    digits = (0.0, (max(every) - min(every)) / 3)
    low, middle, high = (format_value(row.quantiles[k], digits) for k in (0, 2, 4))
    return with_unit(f"{middle} ({low} to {high})", group.unit)


@dataclass(frozen=True)
class SampleModel:
    """A sample with its picture as base64 text and its charts; `shades` are (left, width) in percent."""

    index: int
    clip: SampleClip
    strip: str | None
    labels: list[tuple[float, str]]
    sound: TimeChart | None
    panels: list[tuple[Panel, TimeChart | None]]
    shades: list[tuple[float, float]]
    ticks: list[tuple[float, str]]


def _sample(index: int, clip: SampleClip) -> SampleModel:
    axis = Scale(0.0, max(clip.seconds, 0.04))
    strip = base64.b64encode(clip.strip).decode("ascii") if clip.strip else None
    places = [100 * (k + 0.5) / len(clip.tiles) for k in range(len(clip.tiles))]
    words = [f"{tile.seconds:.2f} s{f', {tile.note}' if tile.note else ''}" for tile in clip.tiles]
    panels = [(panel, _chart(panel.curves, axis)) for panel in clip.panels]
    shades = [(axis.percent(start), axis.percent(end - start)) for start, end in clip.faceless]
    ticks = [(place, f"{label} s") for place, label in axis.ticks(6)]
    labels = [(round(place, 2), text) for place, text in zip(places, words, strict=True)]
    return SampleModel(index, clip, strip, labels, _sound(clip, axis), panels, shades, ticks)


def _chart(curves: Sequence[Curve], axis: Scale) -> TimeChart | None:
    """The curves on the sample's axis. That frames are missing is told once for all of them, by the shades."""
    chart = time_chart([_over(curve, axis.high) for curve in curves])
    return chart and replace(chart, series=[replace(one, legend=one.legend.split(", ")[0]) for one in chart.series])


def _over(curve: Curve, seconds: float) -> Curve:
    """The curve over exactly the clip's length, so that all panels share one axis."""
    count = round(seconds * curve.fps)
    return replace(curve, values=[*curve.values[:count], *[None] * (count - len(curve.values))])


def _sound(clip: SampleClip, axis: Scale) -> TimeChart | None:
    """The waveform with the loudness over it."""
    loud = None if clip.level is None else _chart([clip.level], axis)
    series = [] if clip.sound is None else [_waveform(clip.sound, axis)]
    series += [] if loud is None else [replace(one, color=1) for one in loud.series]
    return TimeChart(axis.high, [], series, ", ".join(f"{s.name} {s.legend}" for s in series)) if series else None


def _waveform(sound: Envelope, axis: Scale) -> Series:
    """The outline of the peaks, scaled to the loudest one."""
    peak = max((abs(value) for value in (*sound.low, *sound.high)), default=0.0)
    scale = BOX_HEIGHT / 2 / (peak or 1.0)
    places = [min(BOX_WIDTH, BOX_WIDTH * (k + 0.5) * sound.step_s / axis.high) for k in range(len(sound.low))]
    upper = [f"{x:.1f} {BOX_HEIGHT / 2 - y * scale:.1f}" for x, y in zip(places, sound.high, strict=True)]
    lower = [f"{x:.1f} {BOX_HEIGHT / 2 - y * scale:.1f}" for x, y in zip(places, sound.low, strict=True)]
    path = f"M{'L'.join([*upper, *reversed(lower)])}Z" if places else ""
    return Series("waveform", "area", path, f"peak {peak:.2f} of full scale", 0)


def snippets(view: DatasetView) -> list[str]:
    """Python that reads the build from its own folder: with PyArrow, and as arrays of one clip."""
    names = {column.name for column in view.columns}
    split = max(view.rows, key=lambda row: row.clips).name if view.rows else "train"
    labels = [n for n in ("clip_id", "identity", "emotion", "video", "n_frames") if n in names]
    series = [n for n in ("arkit52_blendshapes", "speech_envelope_level_db") if n in names]
    rule = f'ds.field("split") == "{split}"'
    rule = f'({rule}) & ds.field("keep")' if "keep" in names else rule
    shown, arrays = (", ".join(f'"{name}"' for name in some) for some in (labels, series))
    return [
        'import pyarrow.dataset as ds\n\nclips = ds.dataset("data", format="parquet")\n'
        f"table = clips.to_table(\n    columns=[{shown}],\n    filter={rule},\n)\nprint(table.num_rows)",
        "from talkforge.datasets.shards import ClipShards\n\n"
        f'clips = ClipShards(".", split="{split}", columns=[{arrays}])\nprint(len(clips), clips[0]["clip_id"])',
    ]
