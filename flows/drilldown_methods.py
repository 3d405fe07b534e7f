"""What finished evaluations say of their methods and clips, laid out for the drill-down pages."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow.parquet as pq

from ..core.errors import TalkForgeError
from ..datasets.labels import labels_of_name
from ..metrics.base import MetricSpec, metrics
from ..metrics.projection import t_sne
from ..models.dice_talk.priors import read_priors
from ..reports.drilldown import Clip, ClipMetric, Confusion, File, Method, confusion
from ..reports.drilldown_links import relative_href, safe_name
from ..reports.embedding import Scatter, scatter
from ..reports.formatting import is_number
from ..reports.view import MetricView
from .drilldown_clips import ClipMedia, Key, RunMedia, Side

SEEN = re.compile(r"labelled (.+), on the whole taken for (.+)")  # what `metrics.emo_score` says of a clip
EMO_FAMILIES = ("emo_score", "emo_neutral", "emo_nonneutral")
Found = tuple[float | None, str | None, str]  # value, reason, message
Details = dict[str, dict[str, Found]]  # clip -> metric id -> what was found


def page_folder(method: str) -> str:
    """The folder of a method's page."""
    return f"method-{safe_name(method)}"


def read_methods(
    runs: Mapping[Path, dict[str, Any]], out: Path, cache: Path | None, priors: Mapping[str, Path]
) -> list[tuple[Method, RunMedia]]:
    """Each run's method with its clips, which have one number for all methods, and the run's videos.

    Args:
        runs: `results.json` by the run's folder.
        out, cache, priors: as in `drilldown.write_drilldown`.
    """
    known: dict[Key, Side] = {}
    media = {folder: RunMedia.open(folder, cache, known) for folder in runs}
    details = {folder: _details(folder) for folder in runs}
    names = sorted({name for folder in runs for name in (*media[folder].clips, *details[folder])})
    numbers = {name: k for k, name in enumerate(names)}
    found = []
    for folder, results in runs.items():
        method = _method(results, details[folder], media[folder], numbers)
        method = _with_priors(method, priors.get(method.name))
        found.append((replace(method, report=_report(folder, out / method.folder)), media[folder]))
    return found


def _report(folder: Path, page: Path) -> str | None:
    report = folder / "report.html"
    return relative_href(report, page) if report.is_file() else None


def _details(folder: Path) -> Details:
    """What the run's tables say of each clip."""
    found: Details = defaultdict(dict)
    for path in sorted((folder / "details").glob("*.parquet")):
        if path.stem != "rejects":
            for row in pq.read_table(path).to_pylist():
                entry = row["value"], row["reason"], row["message"] or ""
                found[row["clip_id"]][f"{path.stem}:{row['variant']}"] = entry
    return found


def _method(results: dict[str, Any], details: Details, media: RunMedia, numbers: Mapping[str, int]) -> Method:
    specs = {name: _spec(name) for name in results["results"]}
    views = {name: _view(specs[name], name, result) for name, result in results["results"].items()}
    chosen = [
        ClipMetric.of(name, result, views[name], spec.clip_title if (spec := specs[name]) else "")
        for name, result in results["results"].items()
        if any(is_number(own[name][0]) for own in details.values() if name in own)
    ]
    clips = [_clip(name, numbers[name], details.get(name, {}), media) for name in sorted({*details, *media.clips})]
    confusions, absent = _confusions(details, specs), list(media.absent)
    if not confusions:
        absent.append(("Emotions seen", "no metric of this run compares labelled emotions with what a network sees"))
    name = results["method"]
    return Method(name, page_folder(name), results, views, chosen, clips, confusions, absent=absent)


def _with_priors(method: Method, path: Path | None) -> Method:
    """The method with the picture of its clips' priors, or with the reason why there is none."""
    why = "no priors of clips were given"
    if path is not None:
        try:
            return replace(method, scatter=_picture(path, {clip.name: clip.emotion for clip in method.clips}))
        except TalkForgeError as error:
            why = error.message
    return replace(method, absent=[*method.absent, ("t-SNE of priors", why)])


def _spec(metric_id: str) -> MetricSpec | None:
    """The declaration, None of a metric that this version does not have."""
    return metrics.get(metric_id).spec if metric_id in metrics.names() else None


def _view(spec: MetricSpec | None, metric_id: str, result: Mapping[str, Any]) -> MetricView:
    title = result.get("title") or metric_id
    if spec is None:
        return MetricView(title, "", "", result["unit"], result["higher_is_better"], "")
    return MetricView(title, spec.formula, spec.source, result["unit"], result["higher_is_better"], spec.what, spec.why)


def _clip(name: str, number: int, own: Mapping[str, Found], media: RunMedia) -> Clip:
    files = media.clips.get(name, ClipMedia(None, None))
    sides = {
        side: File(name=path.name) if path else File(reason=media.why(name, side))
        for side, path in (("real", files.real), ("generated", files.generated))
    }
    return Clip(
        number,
        name,
        sides["real"],
        sides["generated"],
        emotion=files.emotion or labels_of_name(name).get("emotion"),
        values={key: value for key, (value, _, _) in own.items()},
        reasons={key: f"{reason}: {text}" if text else reason for key, (_, reason, text) in own.items() if reason},
    )


def _confusions(details: Details, specs: Mapping[str, MetricSpec | None]) -> list[Confusion]:
    """A table for each network that judged emotions; a clip counts once, whichever rule it was scored by."""
    pairs: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for clip, own in details.items():
        for metric_id, (value, _, message) in own.items():
            said = SEEN.fullmatch(message)
            if said and value is not None and metric_id.partition(":")[0] in EMO_FAMILIES:
                spec = specs.get(metric_id)
                network = spec.generated[0].removeprefix("emotion-") if spec else metric_id.partition(":")[2]
                pairs[network][clip] = said[1], said[2]
    return [confusion(f"Seen by {name}, {len(own)} clips", [*own.values()]) for name, own in sorted(pairs.items())]


def _width(path: Path) -> int:
    """Numbers of a prior, 0 where the file tells none, which reading it then says."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive[archive.files[0]].shape[-1]
    except (OSError, ValueError, EOFError, AttributeError, IndexError, BadZipFile):
        return 0


def _picture(path: Path, emotions: Mapping[str, str | None]) -> Scatter:
    """t-SNE of the clips' priors, coloured by emotion."""
    found = read_priors(path, width=_width(path))
    labels = [emotions.get(name) or labels_of_name(name).get("emotion") or "unlabelled" for name in found]
    rows = np.concatenate([mu.reshape(1, -1) for mu in found.values()])
    return scatter(t_sne(rows), labels, title=f"t-SNE of the priors of {len(found)} clips")
