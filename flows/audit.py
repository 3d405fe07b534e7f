"""The audit flow: corrupts real clips in grades, scores every set like `eval` does, and asks which metric noticed.

The real clips' features are extracted once: every set is scored against the same content-addressed rows. A corruption
is judged over the clips of which all its levels could be made, level 0 included, so that no score moves because other
clips were scored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..core.config import digest
from ..core.errors import InputError
from ..core.hashing import file_sha256
from ..core.lock import owned
from ..core.provenance import environment, now, version
from ..core.shards import write_json, write_table, write_text
from ..metrics.audit import Finding, LevelScore, judge
from ..metrics.base import MetricSpec
from ..reports.audit import AuditView, Sample, render_audit_html, render_audit_markdown
from ..tasks.corruptions import Corruption, loudness
from ..tasks.extract import ClipFile
from ..tasks.extractor import extractors
from ..tasks.features import FeatureStore
from .audit_sets import COPY, SETS, Made, SetClip, choose, complete, describe, make, read_clips, set_folder, videos
from .engine import Engine, run
from .evaluate import EvalConfig, Plan, check_device, config_digest, evaluate, plan

RUNS = "runs"
OWN_FILES = {SETS, RUNS, "audit.json", "index.html", "audit.md"}
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class AuditConfig:
    """What to audit: an evaluation's settings (`generated` and `method` are set for each set), and the corruptions."""

    base: EvalConfig
    corruptions: Sequence[str] | None = None
    levels: int = 4
    limit: int | None = None


@dataclass(frozen=True)
class Audit:
    """What an audit left behind."""

    out: Path
    data: dict[str, Any]
    fresh: bool

    @property
    def rejected(self) -> int:
        """Clips that a corruption could not be made of."""
        return sum(len(one["rejected"]) for one in self.data["corruptions"])


@dataclass(frozen=True)
class _Set:
    """One set to score: a level of a corruption (0: the copies) over some clips."""

    name: str
    level: int
    stems: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Name of its evaluation; copies over fewer clips are another evaluation."""
        return f"{self.name}-{digest(list(self.stems))[:8]}/{self.level}"


def describe_audit(config: AuditConfig) -> str:
    """What a run would do, as text."""
    chosen, base = choose(config.corruptions, config.levels), config.base
    the_plan, clips = plan(base), read_clips(base.real, config.limit, base.manifest)
    lines = [describe(videos(chosen, clips, base.out, base.cache), chosen, base.workers)]
    lines += [f"metric {metric.spec.id}" for metric in the_plan.runnable]
    lines += [f"metric {name}: weights_missing, {way}" for name, way in the_plan.missing.items()]
    return "\n".join(lines)


def audit(config: AuditConfig) -> Audit:
    """Makes the sets, scores them, and writes `audit.json`, `index.html` and `audit.md`; finished work is kept.

    Raises:
        InputError: `real` holds no clip, `out` something else, or no clip could be copied.
        ConfigError: an unknown corruption or metric.
    """
    base = config.base
    _check_out(base.out, base.real)
    check_device(base.device)
    chosen, the_plan = choose(config.corruptions, config.levels), plan(base)
    clips = read_clips(base.real, config.limit, base.manifest)
    identity = _identity(base, the_plan, chosen, clips)
    with owned(base.out):
        done = _finished(base.out, identity)
        if done is not None:
            return Audit(base.out, done, fresh=False)
        body = partial(_body, config=base, the_plan=the_plan, chosen=chosen, clips=clips, identity=identity)
        data = run("audit", body, workers=base.workers, use_prefect=base.prefect)
    return Audit(base.out, data, fresh=True)


def _check_out(out: Path, real: Path) -> None:
    if out.resolve().is_relative_to(real.resolve()):
        raise InputError(f"--out {out} is inside --real {real}", hint="its videos would be taken for clips")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", hint="give --out a folder")
    foreign = {path.name for path in out.iterdir() if not path.name.startswith(".")} - OWN_FILES if out.is_dir() else ()
    if foreign:
        raise InputError(f"{out} holds files that are no audit, such as {min(foreign)}", hint="give --out a new folder")


def _identity(
    config: EvalConfig, the_plan: Plan, chosen: Sequence[Corruption], clips: Sequence[SetClip]
) -> dict[str, str]:
    rules = [[one.name, one.version, list(one.levels), sorted(one.harms)] for one in chosen]
    files = [
        [item.stem, file_sha256(item.clip.video), file_sha256(item.clip.audio), dict(item.labels)] for item in clips
    ]
    claims = {m.spec.id: [*sorted(m.spec.measures), m.spec.best_is_real] for m in the_plan.metrics}
    measured = config_digest(config.model_copy(update={"method": "audit"}), the_plan)
    return {"config_digest": digest([measured, rules, claims]), "inputs_digest": digest(files)}


def _finished(out: Path, identity: Mapping[str, str]) -> dict[str, Any] | None:
    """The audit in `out` when it was made from the same clips and settings, else None."""
    try:
        data = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = all((out / name).is_file() for name in ("index.html", "audit.md"))
    return data if whole and all(data.get(key) == value for key, value in identity.items()) else None


def _body(
    engine: Engine,
    *,
    config: EvalConfig,
    the_plan: Plan,
    chosen: Sequence[Corruption],
    clips: Sequence[SetClip],
    identity: dict[str, str],
) -> dict[str, Any]:
    made = engine.map("corrupt", make, videos(chosen, clips, config.out, config.cache))
    usable = {one.name: complete(made, one.name) for one in chosen}
    sets = _sets(chosen, {name: tuple(stems) for name, (stems, _) in usable.items()})
    if not sets:
        first = next(one for one in made if one.reason)
        raise InputError(f"no corruption could be made of any clip; {first.stem}: {first.reason}: {first.message}")
    results = _score(engine, config, sets, {item.stem: item.labels for item in clips})
    entries = [_entry(one, usable[one.name][0], usable[one.name][1]) for one in chosen]
    data = {
        "schema_version": SCHEMA_VERSION,
        "created": now(),
        "talkforge_version": version(),
        "environment": environment(),
        **identity,
        "clips": [item.stem for item in clips],
        "corruptions": entries,
        "metrics": [_metric(metric.spec, the_plan) for metric in the_plan.metrics],
        "cells": [
            _cell(metric.spec, one, usable[one.name][0], results)
            for metric in the_plan.metrics
            for one in chosen
            if usable[one.name][0]
        ],
    }
    stems = {name: tuple(kept) for name, (kept, _) in usable.items()}
    links = {one.name: _links(one, stems[one.name]) for one in chosen}
    write_audit(config.out, AuditView(data, tuple(_samples(config, chosen, stems)), links))
    return data


def _sets(chosen: Sequence[Corruption], stems: Mapping[str, tuple[str, ...]]) -> list[_Set]:
    """The evaluations, each once: level 0 is shared by corruptions over the same clips, and comes first."""
    names = [one for one in chosen if stems[one.name]]
    copies = dict.fromkeys(_Set(COPY, 0, stems[one.name]) for one in names)
    graded = [_Set(one.name, level, stems[one.name]) for one in names for level in range(1, len(one.levels) + 1)]
    return [*copies, *graded]


Labels = Mapping[str, Mapping[str, str]]


def _score(engine: Engine, config: EvalConfig, sets: Sequence[_Set], labels: Labels) -> dict[_Set, dict[str, Any]]:
    """Results by set. The first evaluation has all workers and leaves the real clips' features for the others."""
    first = evaluate_set(config, labels, sets[0], workers=config.workers)
    rest = engine.map("score set", partial(evaluate_set, config, labels, workers=1), sets[1:])
    return dict(zip(sets, [first, *rest], strict=True))


def evaluate_set(config: EvalConfig, labels: Labels, one: _Set, *, workers: int) -> dict[str, Any]:
    """One set's results by metric, the way `eval` makes them; a finished evaluation is read back."""
    out = config.out / RUNS / one.folder
    manifest = _manifest(out.parent, one.stems, labels)
    places = {"generated": set_folder(config.out, one.name, one.level), "out": out, "manifest": manifest}
    settings = {"method": f"{one.name} {one.level}", "workers": workers, "prefect": False}
    return evaluate(config.model_copy(update=places | settings)).results["results"]


def _manifest(folder: Path, stems: Sequence[str], labels: Labels) -> Path:
    """The list of the set's clips with their labels, under a name of its content."""
    names = sorted({name for stem in stems for name in labels[stem]})
    columns = {"clip": list(stems), **{name: [labels[stem].get(name) for stem in stems] for name in names}}
    path = folder / f"clips-{digest(columns)[:8]}.parquet"
    if not path.is_file():
        write_table(path, pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}))
    return path


def _entry(one: Corruption, stems: Sequence[str], failed: Mapping[str, Made]) -> dict[str, Any]:
    return {
        "name": one.name,
        "version": one.version,
        "what": one.what,
        "unit": one.unit,
        "levels": list(one.levels),
        "harms": sorted(one.harms),
        "clips": len(stems),
        "rejected": [
            {"clip": stem, "reason": made.reason, "message": made.message} for stem, made in sorted(failed.items())
        ],
    }


def _metric(spec: MetricSpec, the_plan: Plan) -> dict[str, Any]:
    return {
        "id": spec.id,
        "title": spec.title,
        "unit": spec.unit,
        "higher_is_better": spec.higher_is_better,
        "measures": sorted(spec.measures) or None,
        "hint": the_plan.missing.get(spec.id),
    }


def _cell(
    spec: MetricSpec, one: Corruption, stems: Sequence[str], results: Mapping[_Set, dict[str, Any]]
) -> dict[str, Any]:
    """One metric under one corruption: its scores by level, and the finding."""
    keys = [_Set(COPY, 0, tuple(stems)), *(_Set(one.name, k + 1, tuple(stems)) for k in range(len(one.levels)))]
    scores = [_level_score(k, results[key][spec.id]) for k, key in enumerate(keys)]
    expected = bool(one.harms & set(spec.measures)) if spec.measures else None
    finding: Finding = judge(
        scores, higher_is_better=spec.higher_is_better, expected=expected, best_is_real=spec.best_is_real
    )
    return {
        "metric": spec.id,
        "corruption": one.name,
        **asdict(finding),
        "scores": [{**asdict(score), "ci95": score.ci95 and list(score.ci95)} for score in scores],
    }


def _level_score(level: int, result: Mapping[str, Any]) -> LevelScore:
    ci = result["ci95"]
    return LevelScore(level, result["value"], ci and (ci[0], ci[1]), result["n_scored"], result["reason"])


def _samples(config: EvalConfig, chosen: Sequence[Corruption], stems: Mapping[str, Sequence[str]]) -> list[Sample]:
    """For each corruption its first clip at every level: thumbnails that the evaluations stored, and loudness."""
    store = FeatureStore(config.cache, config.crop)
    samples = []
    for one in chosen:
        for stem in stems[one.name][:1]:
            paths = [
                set_folder(config.out, COPY, 0),
                *(set_folder(config.out, one.name, k + 1) for k in range(len(one.levels))),
            ]
            files = [folder / f"{stem}.mp4" for folder in paths]
            sounds = [loudness(files[0]), loudness(files[-1])] if "sync" in one.harms else []
            samples.append(Sample(one.name, stem, tuple(_strip(store, file) for file in files), tuple(sounds)))
    return samples


def _strip(store: FeatureStore, video: Path) -> bytes | None:
    row = store.find(extractors.get("strip"), ClipFile(video, video).content())
    return None if row is None or row.reason else row.value("jpeg")


def _links(one: Corruption, stems: tuple[str, ...]) -> tuple[str, ...]:
    """Reports of the corruption's levels, relative to the page; none when no clip was scored."""
    sets = [_Set(one.name, level, stems) for level in range(1, len(one.levels) + 1) if stems]
    return tuple(f"{RUNS}/{each.folder}/report.html" for each in sets)


def write_audit(out: Path, view: AuditView) -> None:
    """Writes the page, its Markdown twin, and last the data, whose presence says that all is done."""
    write_text(out / "index.html", render_audit_html(view))
    write_text(out / "audit.md", render_audit_markdown(view))
    write_json(out / "audit.json", view.data)
