"""A made-up but realistic run for the report tests: twelve clip pairs, five metrics of which two lack their weights.

The pictures are drawn: a face whose mouth follows the clip's speech envelope, so that strips and curves agree.
"""

from __future__ import annotations

import hashlib
import io
import math
import random
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from PIL import Image, ImageDraw
from talkforge.reports.comparison import comparison_model, comparison_page
from talkforge.reports.comparison_markdown import markdown_page
from talkforge.reports.view import ClipView, Curve, MetricView, RunView

FPS = 25.0
TILE = 96
INJECTION = "<img src=x onerror=alert(1)>"
EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")


def sha(name: str) -> str:
    """A digest that looks like one of a weight file."""
    return hashlib.sha256(name.encode()).hexdigest()


def result(value: float | None, ci95: list[float] | None, **fields: Any) -> dict[str, Any]:
    """An entry of `results.json` with every key of the contract."""
    entry = {
        "value": value,
        "ci95": ci95,
        "higher_is_better": False,
        "unit": "",
        "n_attempted": 12,
        "n_scored": 9,
        "rejects": {},
        "weights": {},
        "comparable_with_papers": False,
        "protocol": {"crop": "face", "fps": 25},
        "real_vs_real": None,
        "reason": None,
    }
    return entry | fields


def results(method: str = "EDTalk", **metrics: dict[str, Any]) -> dict[str, Any]:
    """A `results.json` with the given metrics, ids written with `__` for `:` and `_` kept."""
    return {
        "schema_version": 1,
        "method": method,
        "created": "2025-06-14T09:31:07+00:00",
        "talkforge_version": "0.1.0",
        "environment": {
            "python": "3.11.2",
            "torch": "2.8.0+cpu",
            "av": "15.0.0",
            "platform": "Linux x86_64",
            "threads": 2,
        },
        "config_digest": sha("config"),
        "results": {key.replace("__", ":").replace("_d_", "-"): entry for key, entry in metrics.items()},
        "counters": {
            "clips": 12,
            "decodes": 24,
            "frames_decoded": 4212,
            "face_detections": 4212,
            "forwards": {"i3d": 18, "mobilenet-v2": 4110},
            "temp_bytes": 0,
            "cache_hits": 3,
        },
    }


I3D = {"i3d_torchscript.pt": sha("i3d")}
FVD_PROTOCOL = {"crop": "face", "fps": 25, "window": 16, "stride": 16, "size": 224, "frames": "non-overlapping windows"}
AV_PROTOCOL = {
    "crop": "face",
    "fps": 25,
    "max_lag_frames": 15,
    "envelope": "log RMS, 40 ms",
    "smoothing": {"frames": 3},
}


def demo_results(method: str = "EDTalk") -> dict[str, Any]:
    """Five metrics; the two that need absent weights are null."""
    data = results(method)
    data["results"] = {
        "fvd:i3d-k400-16f": result(
            412.37, [355.2, 486.1], n_scored=9, rejects={"no_face": 1, "truncated": 1, "too_short": 1}, weights=I3D,
            comparable_with_papers=True, protocol=FVD_PROTOCOL, real_vs_real=148.9,
        ),
        "fd:mobilenet-v2": result(
            38.112, [33.9, 44.8], n_scored=9, rejects={"no_face": 1, "truncated": 1, "too_short": 1},
            weights={"mobilenet_v2-7ebf99e0.pth": sha("mobilenet")}, real_vs_real=9.41,
            protocol={"crop": "face", "fps": 25, "size": 224, "frames": "every frame"},
        ),
        "av_sync:mouth-envelope": result(
            0.5841, [0.512, 0.651], higher_is_better=True, n_scored=8, protocol=AV_PROTOCOL, real_vs_real=0.7312,
            rejects={"no_face": 1, "truncated": 1, "too_short": 1, "silent_audio": 1},
        ),
        "lse_d:syncnet-v2-direct": result(
            None, None, n_scored=0, reason="weights_missing", hint="get them with: talkforge weights pull syncnet_v2",
            rejects={"weights_missing": 12}, protocol={"crop": "face", "fps": 25, "vshift": 15},
        ),
        "fvd:i3d-k400-full": result(
            None, None, n_scored=0, reason="weights_missing", hint="get them with: talkforge weights pull i3d",
            rejects={"weights_missing": 12}, protocol=FVD_PROTOCOL | {"window": None, "frames": "whole video"},
        ),
    }  # fmt: skip
    for metric_id, view in demo_metrics().items():
        data["results"][metric_id]["title"] = view.title
    return data


def demo_metrics() -> dict[str, MetricView]:
    """What the declarations of the five metrics would say."""
    frechet = "d² = |μx − μy|² + tr(Σx + Σy − 2(ΣxΣy)^½)"
    return {
        "fvd:i3d-k400-16f": MetricView(
            "FVD, 16 frames", frechet, "Unterthiner et al., 2018, arXiv:1812.01717", "", False,
            "Fréchet distance between I3D logits of 16-frame windows of real and generated videos.",
            "Window, network and weights are the published ones; 12 clips are far fewer than papers use.",
        ),
        "fd:mobilenet-v2": MetricView(
            "Fréchet distance, MobileNet", frechet, "own variant, no publication", "", False,
            "Fréchet distance between pooled MobileNetV2 features of frames. A substitute without Inception.",
            "A substitute network: not FID, and never to be printed as FID.", "gap of mean features",
        ),
        "av_sync:mouth-envelope": MetricView(
            "Mouth-speech correlation", "max over |lag| ≤ 15 of corr(mouth(t), envelope(t + lag))", "own metric", "",
            True, "Best correlation between the mouth's opening and the speech envelope, mean over clips.",
            "No paper reports this number.",
        ),
        "lse_d:syncnet-v2-direct": MetricView(
            "LSE-D, direct", "mean over frames of min over lags of |v − a|", "Prajwal et al., 2020, arXiv:2008.10010",
            "", False, "SyncNet's distance between mouth crops and sound.", "Crops come from our tracker, not S3FD.",
        ),
        "fvd:i3d-k400-full": MetricView(
            "FVD, whole videos", frechet, "Unterthiner et al., 2018, arXiv:1812.01717", "", False,
            "As FVD, one feature a video.", "Few papers say which frames they use.",
        ),
    }  # fmt: skip


def envelope(seed: int, frames: int) -> list[float]:
    """Something like the loudness of speech: syllables at 4 Hz under phrases, 0 to 1."""
    rng = random.Random(seed)
    phase, phrase = rng.uniform(0, 6), rng.uniform(0.5, 0.9)
    values = []
    for i in range(frames):
        t = i / FPS
        syllable = 0.5 + 0.5 * math.sin(2 * math.pi * (3.6 + 0.5 * math.sin(t)) * t + phase)
        gate = max(0.0, math.sin(2 * math.pi * t / (2 * phrase + 1.4) + phase)) ** 0.5
        values.append(max(0.0, syllable * gate + rng.gauss(0, 0.03)))
    return values


def strip(opening: list[float | None], tone: str, tiles: int = 10, seed: int = 0) -> bytes:
    """A JPEG strip of drawn faces whose mouths open as `opening` (0 to 1) says at evenly spaced frames."""
    rng = random.Random(seed)
    picture = Image.effect_noise((TILE * tiles, TILE), 14).convert("RGB")
    picture = Image.blend(picture, Image.new("RGB", picture.size, (96, 104, 112)), 0.8)
    draw = ImageDraw.Draw(picture)
    for k in range(tiles):
        x, y = k * TILE + TILE / 2 + rng.uniform(-2, 2), TILE / 2 + 2
        gap = 2 + 12 * (opening[k * len(opening) // tiles] or 0.0)
        draw.ellipse((x - 27, y - 38, x + 27, y + 38), fill=tone)
        for side in (-11, 11):
            draw.ellipse((x + side - 5, y - 13, x + side + 5, y - 8), fill="#fff")
            draw.ellipse((x + side - 2, y - 13, x + side + 2, y - 8), fill="#223")
        draw.line((x, y - 6, x - 3, y + 7, x + 2, y + 8), fill="#8a5b48", width=2)
        draw.ellipse((x - 11, y + 18 - gap / 2, x + 11, y + 18 + gap / 2), fill="#5b1f22", outline="#a8504e", width=2)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def curves(seed: int, frames: int) -> list[Curve]:
    """Mouth openings of both clips and the speech envelope; on some clips the tracker loses the mouth for a while."""
    rng = random.Random(seed + 1)
    loud = envelope(seed, frames)
    real = [0.03 + 0.28 * v + rng.gauss(0, 0.008) for v in loud]
    late = [loud[max(0, i - 3)] for i in range(frames)]
    generated: list[float | None] = [0.05 + 0.2 * v + rng.gauss(0, 0.012) for v in late]
    if seed % 3 == 1:
        generated[40:52] = [None] * 12
    return [
        Curve("mouth opening, real", "of face height", FPS, list(real), "line"),
        Curve("mouth opening, generated", "of face height", FPS, generated, "line"),
        Curve("speech envelope", "", FPS, list(loud), "area"),
    ]


def scored_clip(index: int, *, clip_id: str | None = None, frames: int = 150, pictures: bool = True) -> ClipView:
    """A clip pair with strips, curves and two per-clip numbers."""
    rng = random.Random(index)
    emotion = EMOTIONS[index % len(EMOTIONS)]
    name = clip_id or f"mead/M{3 + index * 2:03d}/front/{emotion}/level_3/{index + 1:03d}"
    signals = curves(index, frames)
    real, generated = ([None if v is None else v * 3 for v in signals[k].values] for k in (0, 1))
    sync = None if index == 5 else round(rng.gauss(0.58, 0.11), 4)
    return ClipView(
        clip_id=name,
        real_name=f"{name.rsplit('/', 1)[-1]}.mp4",
        generated_name=f"{name.rsplit('/', 1)[-1]}.mp4",
        status="scored",
        reasons=[("av_sync", "silent_audio", "the sound track is silent")] if index == 5 else [],
        values={"av_sync:mouth-envelope": sync, "fd:mobilenet-v2": round(rng.gauss(6.1, 1.4), 4)},
        value_reasons={"av_sync:mouth-envelope": "silent_audio: the sound track is silent"} if index == 5 else {},
        strip_real=strip(real, "#d9a78c", seed=index) if pictures else None,
        strip_generated=strip(generated, "#cf9c84", seed=index + 99) if pictures else None,
        curves=signals,
        notes=["Generated clip has 148 frames, real one 150: both are read up to frame 148."] if index == 2 else [],
    )


def rejected_clip(clip_id: str, stage: str, reason: str, message: str) -> ClipView:
    """A clip pair that was not scored."""
    return ClipView(clip_id, f"{clip_id}.mp4", None, "rejected", [(stage, reason, message)])


def demo_run(method: str = "EDTalk", *, hostile: bool = False) -> RunView:
    """Nine scored and three rejected clip pairs; `hostile` names one of them like markup."""
    clips = [scored_clip(i) for i in range(9)]
    if hostile:
        clips[3] = scored_clip(3, clip_id=INJECTION)
    clips += [
        rejected_clip(
            "mead/W011/front/sad/level_2/004", "decode", "truncated", "ends at 1.96 s of the promised 5.20 s"
        ),
        rejected_clip("mead/W015/front/happy/level_3/012", "track", "no_face", "no face in 131 of 131 frames"),
        rejected_clip("hdtf/WDA_AlexandriaOcasioCortez_000", "window", "too_short", "11 frames, 16 are needed"),
    ]
    data = demo_results(method)
    sync = [v for clip in clips if (v := clip.values.get("av_sync:mouth-envelope")) is not None]
    data["results"]["av_sync:mouth-envelope"] |= {
        "value": fmean(sync),
        "ci95": [fmean(sync) - 0.07, fmean(sync) + 0.06],
    }
    warnings = [
        "12 clips: a Fréchet distance over so few is biased upwards. Compare it with its real-vs-real figure only.",
        "2 generated files have no real partner and were not scored: 013.mp4, take (2).mp4",
    ]
    return RunView(data, clips, demo_metrics(), warnings)


def many_clips(count: int) -> RunView:
    """A run of `count` scored clips, for the size of the page."""
    return RunView(demo_results(), [scored_clip(i, clip_id=f"clip-{i:04d}") for i in range(count)], demo_metrics())


def demo_comparison(*, split: bool = False) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Four methods with links; `split` gives one of them another crop under FVD's id."""
    figures = {
        "EDTalk": (412.37, 38.112, 0.5841),
        "SadTalker": (516.8, 51.9, 0.447),
        "StyleTalk": (389.2, 44.7, 0.612),
        "Wav2Lip": (471.3, None, 0.702),
    }
    runs = []
    for place, (method, (fvd, frechet, sync)) in enumerate(figures.items()):
        data = demo_results(method)
        table = data["results"]
        table["fvd:i3d-k400-16f"] |= {"value": fvd, "ci95": [fvd - 58.0 - 7 * place, fvd + 71.0 + 5 * place]}
        table["fd:mobilenet-v2"] |= {"value": frechet, "ci95": frechet and [frechet - 4.1, frechet + 6.3]}
        table["av_sync:mouth-envelope"] |= {"value": sync, "ci95": [sync - 0.07, sync + 0.06 + place / 100]}
        runs.append(data)
    runs[3]["results"]["fd:mobilenet-v2"] |= {"reason": "too_few_samples", "n_scored": 0}
    del runs[1]["results"]["fvd:i3d-k400-full"]
    if split:
        runs[1]["results"]["fvd:i3d-k400-16f"]["protocol"] = FVD_PROTOCOL | {"crop": "none"}
    return runs, {method: f"{method.lower()} run/report.html" for method in list(figures)[:3]}


def html_of(runs: Sequence[Mapping[str, Any]], links: Mapping[str, str], facts: Any = None) -> str:
    """The page that compares runs."""
    return comparison_page(comparison_model(runs, links, facts))


def markdown_of(runs: Sequence[Mapping[str, Any]], links: Mapping[str, str], facts: Any = None) -> str:
    """Its Markdown twin."""
    return markdown_page(comparison_model(runs, links, facts))
