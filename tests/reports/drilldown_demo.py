"""Invented methods for the drill-down pages."""

from __future__ import annotations

import random
from typing import Any

from talkforge.reports.drilldown import Aim, Clip, ClipMetric, CurveGroup, File, Method, Strip, confusion
from talkforge.reports.view import Curve, MetricView
from talkforge.tests.reports.demo import EMOTIONS, FPS, envelope, result, results

SYNC = "av_sync:mouth-envelope"
SILENT = "silent_audio: the sound track is silent"


def view(title: str, *, higher: bool = True) -> MetricView:
    """A declaration with a title."""
    return MetricView(title, "formula", "source", "", higher, "what")


def metric(aim: Aim | None, metric_id: str = SYNC, title: str = "Mouth sync") -> ClipMetric:
    """A metric of clips."""
    return ClipMetric(metric_id, title, "", aim, view(title))


def metric_ids(count: int) -> list[str]:
    """SYNC and others."""
    return [SYNC, *(f"metric{k}:variant" for k in range(1, count))]


def demo_method(
    name: str = "EDTalk", *, count: int = 6, metrics: int = 2, curves: bool = True, hostile: str | None = None
) -> Method:
    """A method of `count` clips; the third one's sound is silent. `hostile`: a text wherever words stand."""
    ids = metric_ids(metrics)
    data = results(name)
    data["results"] = {key: result(0.5, [0.4, 0.6], higher_is_better=True, real_vs_real=0.7) for key in ids}
    if hostile:
        data |= {"created": hostile, "talkforge_version": hostile}
        data["results"][ids[-1]] |= {"value": None, "reason": hostile, "hint": hostile}
    titles = {key: hostile or f"Metric {key}" for key in ids}
    return Method(
        name,
        "method-demo",
        data,
        {key: view(title) for key, title in titles.items()},
        [metric(Aim("high"), key, title) for key, title in titles.items()],
        [demo_clip(k, ids, name, curves=curves, hostile=hostile) for k in range(count)],
        [confusion(hostile or "Seen by a network", [("happy", "happy"), ("sad", hostile or "fear")])],
        absent=[(hostile or "t-SNE of priors", hostile or "no priors of clips were given")],
    )


def demo_clip(k: int, ids: list[str], name: str, *, curves: bool, hostile: str | None) -> Clip:
    """One clip with files that are not there."""
    rng = random.Random(f"{name} {k}")
    title = f"{hostile} {k}" if hostile else f"mead/M{3 + k:03d}/front/level_3/{k:03d}"
    values: dict[str, float | None] = {key: round(rng.gauss(0.5, 0.1), 4) for key in ids}
    if k == 2:
        values[SYNC] = None
    why = hostile or "not in the feature cache"
    strips: Any = [Strip(File(f"strips/{k}-{side}.jpg", name=hostile or ""), (0.0, 1.0)) for side in "rg"]
    return Clip(
        k,
        title,
        File(f"videos/real/{k}.mp4", name=hostile or f"{k}.mp4"),
        File(f"videos/generated/{k}.mp4", name=hostile or f"{k}.mp4"),
        EMOTIONS[k % len(EMOTIONS)],
        values,
        {SYNC: hostile or SILENT} if k == 2 else {},
        strips[0] if not hostile else Strip(File(reason=why, name=hostile)),
        strips[1],
        demo_curves(k, hostile) if curves else (),
        [hostile] if hostile else (),
    )


def demo_curves(seed: int, hostile: str | None = None, frames: int = 250) -> list[CurveGroup]:
    """Mouths over loudness, and 17 action units."""
    loud = envelope(seed, frames)
    mouth = [0.03 + 0.28 * v for v in loud]
    sync = [
        Curve(hostile or "mouth, real", "eye distances", FPS, list(mouth)),
        Curve("mouth, generated", "eye distances", FPS, list(mouth[::-1])),
        Curve("loudness", "dB", FPS, list(loud), "area"),
    ]
    units = [
        CurveGroup(f"AU{k:02d}", "unit", [Curve(side, "", FPS, list(mouth)) for side in ("real", "generated")])
        for k in range(1, 18)
    ]
    return [CurveGroup(hostile or "Mouth opening and loudness", "sync", sync), *units]
