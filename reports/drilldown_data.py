"""The numbers behind the drill-down pages as compact JSON, which their scripts read from inside the page.

A curve is a text of one letter a sample: its place between `lo` and `hi` in `LEVELS` steps, finer than a screen's
pixels in a chart of that height, a blank where there is no measurement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .agreement import Measured, partition
from .charts import MAX_SAMPLES, scale_over
from .drilldown import Clip, ClipMetric, CurveGroup, File, Method, Strip
from .formatting import MISSING, format_value, is_number, printable, with_unit
from .view import Curve

FPS = 25  # of the frames that are stepped through, and of all features
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%()*+,-./:;=?@[]^_`{|}~"
LEVELS = len(ALPHABET) - 1
GAP = " "
_CODES = np.frombuffer((ALPHABET + GAP).encode("ascii"), dtype=np.uint8)
AU_FLOOR = 0.2  # least height of an action unit's scale: below it lies the landmarker's unrest


def island(data: Any) -> str:
    """JSON that stands inside a `<script>` element: no text of it can end the element or open a comment."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def method_data(method: Method) -> dict[str, Any]:
    """All that the panel of a method's page shows."""
    spreads = {m.metric_id: spread([clip.values.get(m.metric_id) for clip in method.clips]) for m in method.metrics}
    return _common() | {
        "screens": ["real", "generated"],
        "metrics": [_metric(metric) for metric in method.metrics],
        "clips": [_clip(clip, method.metrics, spreads) for clip in method.clips],
    }


def compare_data(methods: Sequence[Method]) -> dict[str, Any]:
    """All that the page of two methods shows: clips by their number, metrics that two methods or more have by clip."""
    metrics = {metric.metric_id: metric for method in methods for metric in method.metrics}
    clips = {clip.number: clip for method in methods for clip in sorted(method.clips, key=_has_real)}
    return _common() | {
        "screens": ["real", "A", "B"],
        "metrics": [_metric(metrics[key]) | {"groups": groups(methods, key)} for key in metrics],
        "clips": [[number, printable(clip.name), _file(clip.real)] for number, clip in sorted(clips.items())],
        "methods": [_method(method, list(metrics), [clips[number] for number in sorted(clips)]) for method in methods],
    }


def groups(methods: Sequence[Method], metric_id: str) -> list[int]:
    """For each method a number that is equal where the metric's numbers may be compared, -1 where it has none."""
    has = {m.name for m in methods if any(metric.metric_id == metric_id for metric in m.metrics)}
    entries = [Measured(m.name, m.results["results"][metric_id]) for m in methods if m.name in has]
    found = {entry.method: k for k, group in enumerate(partition(entries)) for entry in group}
    return [found.get(method.name, -1) for method in methods]


def spread(values: Sequence[float | None]) -> tuple[float, float]:
    """An interval a fifth as wide as the values', so that all of them get the same, telling decimals."""
    finite = [value for value in values if is_number(value)]
    return (0.0, (max(finite) - min(finite)) / 5) if finite else (0.0, 0.0)


def value_text(value: float | None, wide: tuple[float, float], unit: str = "") -> str:
    """A clip's number, or an em dash."""
    return with_unit(format_value(value, wide), unit) if is_number(value) else MISSING


def _common() -> dict[str, Any]:
    return {"fps": FPS, "alphabet": ALPHABET}


def _has_real(clip: Clip) -> bool:
    """Clips whose real file is known come last, so that they are the ones that are kept."""
    return clip.real.href is not None


def _metric(metric: ClipMetric) -> dict[str, Any]:
    aim = metric.aim
    facts = {"id": metric.metric_id, "title": metric.title, "unit": metric.unit}
    texts = {key: printable(text) for key, text in facts.items()}
    goal = {"aim": aim.kind, "target": aim.target, "arrow": aim.arrow, "words": aim.words} if aim else {"aim": None}
    return texts | goal


def _clip(clip: Clip, metrics: Sequence[ClipMetric], spreads: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    return {
        "k": clip.number,
        "n": printable(clip.name),
        "e": clip.emotion,
        "files": [_file(clip.real), _file(clip.generated)],
        "strips": [_strip(clip.strip_real), _strip(clip.strip_generated)],
        "values": [_value(clip, metric, spreads[metric.metric_id]) for metric in metrics],
        "curves": [_group(group) for group in clip.curves],
        "notes": [printable(note) for note in clip.notes],
    }


def _value(clip: Clip, metric: ClipMetric, wide: tuple[float, float]) -> list[str]:
    """[text], or [dash, reason]."""
    value = clip.values.get(metric.metric_id)
    text = value_text(value, wide, printable(metric.unit))
    return [text] if is_number(value) else [text, printable(clip.reason(metric.metric_id))]


def _file(file: File) -> list[str | None]:
    return [file.href, printable(file.reason or ""), printable(file.name)]


def _strip(strip: Strip) -> dict[str, Any]:
    return {"file": _file(strip.file), "at": [round(second, 3) for second in strip.seconds]}


def _group(group: CurveGroup) -> dict[str, Any]:
    """A chart's curves, those without any measurement left out."""
    arrays = [(curve, _array(curve)) for curve in group.curves]
    drawn = [(curve, values) for curve, values in arrays if np.isfinite(values).any()]
    lines = [_line(curve, values, _peers(curve, drawn), group.kind) for curve, values in drawn]
    return {"title": printable(group.title), "kind": group.kind, "lines": lines}


def _array(curve: Curve) -> np.ndarray:
    """The samples, NaN where there is no measurement."""
    values = np.array([np.nan if value is None else value for value in curve.values], dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _peers(curve: Curve, drawn: Sequence[tuple[Curve, np.ndarray]]) -> tuple[float, float]:
    """Least and greatest number of all curves that share the curve's scale: lines of one unit; an area is alone."""
    shared = [v for c, v in drawn if c is curve or (c.kind == curve.kind == "line" and c.unit == curve.unit)]
    return float(min(map(np.nanmin, shared))), float(max(map(np.nanmax, shared)))


def _range(ends: tuple[float, float], curve: Curve, kind: str) -> tuple[float, float]:
    """The vertical scale: areas and action units stand on zero."""
    if kind == "unit":
        return 0.0, max(AU_FLOOR, ends[1])
    if curve.kind == "area":
        return min(0.0, ends[0]), max(1e-9, ends[1])
    scale = scale_over(ends, margin=0.04)
    assert scale is not None
    return scale.low, scale.high


def _line(curve: Curve, values: np.ndarray, ends: tuple[float, float], kind: str) -> dict[str, Any]:
    low, high = _range(ends, curve, kind)
    thin, fps = _thinned(values, curve.fps)
    own = float(np.nanmin(values)), float(np.nanmax(values))
    said = " to ".join(format_value(end, spread(ends)) for end in own)
    return {
        "name": printable(curve.name),
        "kind": curve.kind,
        "fps": fps,
        "range": with_unit(said, printable(curve.unit)),
        "data": _letters((thin - low) / (high - low)),
    }


def _letters(places: np.ndarray) -> str:
    """A letter for each place between 0 and 1, a blank for NaN."""
    steps = np.clip(np.round(np.nan_to_num(places) * LEVELS), 0, LEVELS).astype(int)
    return _CODES[np.where(np.isnan(places), LEVELS + 1, steps)].tobytes().decode("ascii")


def _thinned(values: np.ndarray, fps: float) -> tuple[np.ndarray, float]:
    """Means of so many samples that no curve is longer than a screen shows, and their rate."""
    step = -(-len(values) // MAX_SAMPLES)
    if step <= 1:
        return values, fps
    bins = np.pad(values, (0, -len(values) % step), constant_values=np.nan).reshape(-1, step)
    counts = np.isfinite(bins).sum(axis=1)
    return np.where(counts, np.nansum(bins, axis=1) / np.maximum(counts, 1), np.nan), fps / step


def _method(method: Method, metric_ids: Sequence[str], shown: Sequence[Clip]) -> dict[str, Any]:
    own = {clip.number: clip for clip in method.clips}
    clips = [own.get(clip.number) for clip in shown]
    reasons = sorted({clip.reason(key) for clip in method.clips for key in metric_ids if not _known(clip, key)})
    places = {reason: k for k, reason in enumerate(reasons)}
    return {
        "name": printable(method.name),
        "href": f"{method.folder}/index.html",
        "other": [k for k, (clip, one) in enumerate(zip(clips, shown, strict=True)) if clip and _other(clip, one)],
        "files": [_file(clip.generated) if clip else [None, "not a clip of this method", ""] for clip in clips],
        "values": [[_short(clip.values.get(key) if clip else None) for clip in clips] for key in metric_ids],
        "why": [printable(reason) for reason in reasons],
        "missing": [
            {str(k): places[c.reason(key)] for k, c in enumerate(clips) if c and not _known(c, key)}
            for key in metric_ids
        ],
    }


def _other(clip: Clip, shown: Clip) -> bool:
    """Whether the clip was measured beside another real file than the one that is shown."""
    return clip.real.href is not None and clip.real.href != shown.real.href


def _known(clip: Clip, metric_id: str) -> bool:
    return is_number(clip.values.get(metric_id))


def _short(value: float | None) -> float | None:
    """Five significant digits: enough to order and draw by."""
    return float(f"{value:.5g}") if is_number(value) else None
