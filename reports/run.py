"""Writes an evaluation's folder: results.json, details, report.html and its Markdown twin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..core.records import Reject, reject_table
from ..core.shards import write_json, write_table, write_text
from ..metrics.av_sync import FACES, FPS, SPEECH, loudness, mouth_opening
from ..metrics.base import ClipScore, Features, MetricSpec, Pair, Score
from .html import render_html
from .markdown import render_markdown
from .view import ClipView, Curve, MetricView, RunView

DETAIL_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("samples", pa.int32(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
    ]
)


@dataclass(frozen=True)
class EvaluatedClip:
    """A clip of the run with its file names and feature rows."""

    clip_id: str
    real_name: str | None
    generated_name: str | None
    pair: Pair


def write_run(
    folder: Path,
    results: dict[str, Any],
    clips: Sequence[EvaluatedClip],
    scores: Mapping[str, Score],
    specs: Mapping[str, MetricSpec],
) -> None:
    """Writes everything below `folder` (results.json last, since its presence says that the folder is whole).

    `details/<metric>.parquet` has a row a clip for each variant of the metric; `details/rejects.parquet` a row for
    each clip and metric without a value.
    """
    _write_details(folder / "details", scores)
    view = run_view(results, clips, scores, specs)
    write_text(folder / "report.html", render_html(view))
    write_text(folder / "report.md", render_markdown(view))
    write_json(folder / "results.json", results)


def _write_details(folder: Path, scores: Mapping[str, Score]) -> None:
    families: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for metric_id, score in scores.items():
        family, _, variant = metric_id.partition(":")
        families[family] += [_detail(clip, variant) for clip in score.clips]
    folder.mkdir()
    for family, rows in families.items():
        write_table(folder / f"{family}.parquet", pa.Table.from_pylist(rows, schema=DETAIL_SCHEMA))
    write_table(folder / "rejects.parquet", reject_table(rejects(scores)))


def _detail(clip: ClipScore, variant: str) -> dict[str, Any]:
    return {
        "clip_id": clip.clip_id,
        "variant": variant,
        "value": clip.value,
        "samples": clip.samples if clip.value is not None else 0,
        "reason": clip.reason,
        "message": clip.message or None,
    }


def rejects(scores: Mapping[str, Score]) -> list[Reject]:
    """A row for each clip and metric without a value; the stage is the metric's id."""
    return [
        Reject(clip.clip_id, metric_id, clip.reason, clip.message)
        for metric_id, score in scores.items()
        for clip in score.clips
        if clip.reason
    ]


def run_view(
    results: dict[str, Any],
    clips: Sequence[EvaluatedClip],
    scores: Mapping[str, Score],
    specs: Mapping[str, MetricSpec],
) -> RunView:
    """What the renderers take in."""
    by_clip: dict[str, dict[str, ClipScore]] = defaultdict(dict)
    for metric_id, score in scores.items():
        for clip in score.clips:
            by_clip[clip.clip_id][metric_id] = clip
    return RunView(
        results=results,
        clips=[_clip_view(clip, by_clip[clip.clip_id]) for clip in clips],
        metrics={name: _metric_view(spec) for name, spec in specs.items()},
        warnings=[f"{name}: {note}" for name, score in scores.items() for note in score.notes],
    )


def _metric_view(spec: MetricSpec) -> MetricView:
    return MetricView(
        title=spec.title,
        formula=spec.formula,
        source=spec.source,
        unit=spec.unit,
        higher_is_better=spec.higher_is_better,
        description=spec.what,
        comparability=spec.why,
        clip_title=f"{spec.title}, {spec.clip_title}" if spec.clip_title else "",
    )


def _clip_view(clip: EvaluatedClip, scores: Mapping[str, ClipScore]) -> ClipView:
    scored = any(score.value is not None for score in scores.values())
    return ClipView(
        clip_id=clip.clip_id,
        real_name=clip.real_name,
        generated_name=clip.generated_name,
        status="scored" if scored else "rejected",
        reasons=_reasons(scores),
        values={name: score.value for name, score in scores.items()},
        value_reasons={name: score.reason for name, score in scores.items() if score.reason},
        strip_real=_strip(clip.pair.real),
        strip_generated=_strip(clip.pair.generated),
        curves=[*_curves(clip.pair.real, "real"), *_curves(clip.pair.generated, "generated")],
    )


def _reasons(scores: Mapping[str, ClipScore]) -> list[tuple[str, str, str]]:
    """(metrics, reason, message), metrics that share a reason together."""
    grouped: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, score in scores.items():
        if score.reason:
            grouped[score.reason, score.message].append(name)
    return [(", ".join(names), reason, message) for (reason, message), names in grouped.items()]


def _strip(features: Features | None) -> bytes | None:
    row = (features or {}).get("strip")
    return row.value("jpeg") if row is not None and row.reason is None else None


def _curves(features: Features | None, side: str) -> list[Curve]:
    """Mouth opening as a line, and for the generated side the loudness behind it."""
    curves = []
    faces, speech = ((features or {}).get(name) for name in (FACES, SPEECH))
    if faces is not None and faces.reason is None:
        curves.append(Curve(f"mouth opening, {side}", "eye distances", FPS, _plain(mouth_opening(faces)), "line"))
    if side == "generated" and speech is not None and speech.reason is None:
        curves.append(Curve("loudness", "dB", FPS, _plain(loudness(speech)), "area"))
    return curves


def _plain(values: Any) -> list[float | None]:
    return [None if value != value else round(float(value), 4) for value in values]
