"""The evaluation flow: match clips, extract what the metrics want, reduce, report. Order and fan-out only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ..core.config import Config, digest
from ..core.counters import Counters
from ..core.errors import ConfigError, InputError
from ..core.lock import owned
from ..core.provenance import environment, now, version
from ..core.shards import atomic_folder
from ..core.weights import weights_store
from ..metrics.av_sync import FACES
from ..metrics.base import Metric, Pair, Score, Settings, select
from ..reports.run import EvaluatedClip, write_run
from ..tasks.compare import CompareRequest, compare_shard, compared
from ..tasks.crop import CROP_RULES
from ..tasks.extract import ExtractRequest, extract_shard, stored
from ..tasks.extractor import extractors
from ..tasks.features import FeatureStore
from .against import Measurement, OtherRun, differences, open_run
from .engine import Engine, default_workers, run
from .finished import read_results
from .pairs import Match, MatchedClip, match_folders
from .reference import without_reference

SHARD_CLIPS = 4  # at most
OWN_FILES = {"config.yaml", "details", "report.html", "report.md", "results.json"}
REPORT_EXTRACTORS = ("strip",)
ALONE = {"pairing": "none: there are no real clips"}


class EvalConfig(Config):
    """What to evaluate, and how. Paths do not enter the digest; what defines the numbers does.

    Attributes:
        reference: whether there are real clips; without any, `real` is not looked at and may be left out.
    """

    real: Path
    generated: Path
    out: Path
    method: str | None = None
    metrics: list[str] | None = None
    crop: Literal["face", "none"] = "face"
    manifest: Path | None = None
    against: Path | None = None
    reference: bool = True
    bootstrap: int = Field(1000, ge=100)
    frechet_bootstrap: int = Field(200, ge=50)
    seed: int = Field(0, ge=0)
    workers: int = Field(default_factory=default_workers, ge=1)
    device: str = "cpu"
    cache: Path | None = None
    prefect: bool = True

    @model_validator(mode="before")
    @classmethod
    def _without_real(cls, data: Any) -> Any:
        alone = isinstance(data, Mapping) and data.get("reference") is False and "generated" in data
        return {"real": data["generated"], **data} if alone else data  # what is no mapping is refused by its field


@dataclass(frozen=True)
class Plan:
    """Metrics that can run, those that cannot and why, and the extractors wanted."""

    metrics: list[Metric]
    missing: dict[str, str]  # metric id -> message with the way out
    extractors: tuple[str, ...]
    comparisons: tuple[str, ...] = ()  # extractors of pairs

    @property
    def runnable(self) -> list[Metric]:
        """Metrics whose weights are here."""
        return [metric for metric in self.metrics if metric.spec.id not in self.missing]


@dataclass(frozen=True)
class Outcome:
    """What an evaluation left behind."""

    out: Path
    results: dict[str, Any]
    fresh: bool
    rejected: int


def plan(config: EvalConfig) -> Plan:
    """Chooses metrics and extractors; a metric whose weights are absent stays in the plan with the way to get them."""
    if config.metrics is not None and not config.metrics:
        raise ConfigError("an empty list of metrics", hint="leave --metrics out for the default set")
    chosen = select(config.metrics)
    if not config.reference:
        chosen = without_reference(chosen, named=config.metrics is not None)
    missing = {
        metric.spec.id: message
        for metric in chosen
        if (message := missing_weights(metric.spec.extractors, config.crop))
    }
    specs = [metric.spec for metric in chosen if metric.spec.id not in missing]
    wanted = [name for spec in specs for name in (*spec.generated, *spec.real)]
    comparisons = [name for spec in specs for name in spec.compared]
    names = [*wanted, *(REPORT_EXTRACTORS if wanted else ())]
    return Plan(chosen, missing, tuple(dict.fromkeys(names)), tuple(dict.fromkeys(comparisons)))


def missing_weights(names: Sequence[str], crop: str = "face") -> str | None:
    """Which weights of these extractors are not in the store and how to get them, or None.

    A crop around the face wants the landmarker's as well.
    """
    specs = [extractors.get(name) for name in names]
    if crop == "face" and any(spec.picture for spec in specs):
        specs.append(extractors.get(FACES))
    wanted = dict.fromkeys(weight for spec in specs for weight in spec.weights)
    store = weights_store()
    absent = [weight for weight in wanted if not store.status(weight).ok]
    pulled = [weight for weight in absent if store.spec(weight).remote]
    placed = [weight for weight in absent if weight not in pulled]
    ways = [f"get them with: talkforge weights pull {' '.join(pulled)}"] if pulled else []
    ways += [f"place by hand: {' '.join(placed)} (talkforge weights list --json says where)"] if placed else []
    return "; ".join(ways) or None


def describe_plan(config: EvalConfig) -> str:
    """What a run would do, as text: pairs, extractors, rows already stored, metrics that cannot run."""
    _check_out_of(config)
    match, the_plan = match_folders(config.real, config.generated, config.manifest), plan(config)
    store = FeatureStore(config.cache, config.crop)
    contents = [item.content() for item in match.files()]
    stored_rows = sum(len(stored(store, content, the_plan.extractors)) for content in contents)
    lines = [f"{name}: {count}" for name, count in match.counts().items()]
    lines += [f"{clip.clip_id}: {clip.reason}" for clip in match.clips if clip.reason]
    lines.append(f"rows: {stored_rows} stored of {len(contents) * len(the_plan.extractors)}")
    lines += [f"metric {metric.spec.id}" for metric in the_plan.runnable]
    lines += [f"metric {name}: weights_missing, {way}" for name, way in the_plan.missing.items()]
    lines += [f"against {other.name}, {other.folder}"] if (other := _other(config)) else []
    return "\n".join(lines)


def evaluate(config: EvalConfig) -> Outcome:
    """Evaluates a folder of generated clips against real ones and writes the report folder.

    Raises:
        InputError: a folder is missing or empty, nothing matches, `out` holds something else, or the run to compare
            with is about other clips (see `against.open_run`).
    """
    _check_out_of(config)
    check_device(config.device)
    config = config.model_copy(update={"method": config.method or config.generated.resolve().name})
    match = match_folders(config.real, config.generated, config.manifest)
    the_plan, other = plan(config), _other(config)
    with owned(config.out):
        identity = _identity(config, the_plan, match, other)
        done = finished(config.out, identity)
        if done is not None:
            return Outcome(config.out, done, fresh=False, rejected=_rejected(done))
        results = run(
            "evaluate",
            lambda engine: _body(config, the_plan, match, other, identity, engine),
            workers=config.workers,
            use_prefect=config.prefect,
        )
    return Outcome(config.out, results, fresh=True, rejected=_rejected(results))


def current(config: EvalConfig) -> dict[str, Any] | None:
    """The results in `config.out` when a run would find nothing to do, else None."""
    match = match_folders(config.real, config.generated, config.manifest)
    return finished(config.out, _identity(config, plan(config), match, _other(config)))


def _other(config: EvalConfig) -> OtherRun | None:
    """The run that this one is held against, when there is one."""
    if config.against is None:
        return None
    if not config.reference:
        raise ConfigError("--against pairs the clips of two runs by their real clips", hint="give --real DIR")
    return open_run(config.against, read_results(config.against), real=config.real, crop=config.crop)


def _identity(config: EvalConfig, the_plan: Plan, match: Match, other: OtherRun | None) -> dict[str, str | None]:
    return {
        "config_digest": config_digest(config, the_plan),
        "inputs_digest": match.digest(),
        "against_digest": other.digest() if other else None,
    }


def _rejected(results: dict[str, Any]) -> int:
    return max((r["n_attempted"] - r["n_scored"] for r in results["results"].values()), default=0)


def check_device(device: str) -> None:
    """Refuses a device that this machine lacks, before any work."""
    if device != "cpu":
        import torch

        if not (device.startswith("cuda") and torch.cuda.is_available()):
            raise ConfigError(f"there is no device '{device}' here", hint="device: cpu, or cuda where torch sees one")


def _check_out_of(config: EvalConfig) -> None:
    check_out(config.out, config.real, config.generated, Path.cwd(), *([config.against] if config.against else []))


def check_out(out: Path, *inputs: Path) -> None:
    """Refuses a folder that holds something other than an earlier run, because a run replaces its folder whole."""
    for folder in inputs:
        if folder.resolve().is_relative_to(out.resolve()):
            raise InputError(
                f"{folder} is inside --out {out}, which is replaced", hint="give --out a folder of its own"
            )
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", hint="give --out a folder")
    foreign = {path.name for path in out.iterdir()} - OWN_FILES if out.is_dir() else set()
    if foreign or (out.is_dir() and any(out.iterdir()) and read_results(out) is None):
        first = f", such as {min(foreign)}" if foreign else ""
        raise InputError(f"{out} holds files that are no evaluation{first}", hint="give --out a new folder")


def finished(out: Path, identity: dict[str, str | None]) -> dict[str, Any] | None:
    """The results in `out` when they were made from the same inputs and settings, else None."""
    results = read_results(out)
    if results is None or not all((out / name).exists() for name in OWN_FILES):
        return None
    return results if all(results.get(key) == value for key, value in identity.items()) else None


def config_digest(config: EvalConfig, the_plan: Plan) -> str:
    """Digest of everything that defines the numbers: settings, metric and extractor declarations, weights."""
    settings = config.model_dump(mode="json", include={"method", "crop", "bootstrap", "frechet_bootstrap", "seed"})
    return digest(
        {
            "settings": settings
            | {"crop_rule": CROP_RULES[config.crop], "device": config.device}
            | ({} if config.reference else {"reference": False}),
            "metrics": {m.spec.id: protocol(m, config.crop) for m in the_plan.metrics},
            "missing": sorted(the_plan.missing),
            "weights": {m.spec.id: weights_of(m) for m in the_plan.runnable},
        }
    )


def weights_of(metric: Metric) -> dict[str, str]:
    """sha256 of each weight file behind a metric."""
    names = {weight for name in metric.spec.extractors for weight in extractors.get(name).weights}
    return {name: weights_store().sha256(name) for name in sorted(names)}


def protocol(metric: Metric, crop: str) -> dict[str, Any]:
    """All facts that define the metric's number, JSON-ready."""
    specs = [extractors.get(name) for name in metric.spec.extractors]
    pictures = any(spec.picture for spec in specs)
    return {
        "crop": CROP_RULES[crop] if pictures else "not cropped: landmarks of the full frame",
        "fps": 25,
        "pairing": "same file stem; a pair counts when both sides are scored",
        "extractors": {spec.id: {"version": spec.version, **spec.params} for spec in specs},
        **metric.spec.protocol,
    }


def _body(
    config: EvalConfig,
    the_plan: Plan,
    match: Match,
    other: OtherRun | None,
    identity: dict[str, str | None],
    engine: Engine,
) -> dict[str, Any]:
    pairs, counters = _extracted(config, the_plan, match, engine)
    settings = Settings(config.bootstrap, config.frechet_bootstrap, config.seed)
    scores = engine.map("score", lambda metric: metric.score(pairs, settings), the_plan.runnable)
    by_id = {metric.spec.id: score for metric, score in zip(the_plan.runnable, scores, strict=True)}
    results = {
        "schema_version": 1,
        "method": config.method,
        "created": now(),
        "talkforge_version": version(),
        "environment": environment(),
        **{key: value for key, value in identity.items() if value is not None},
        "results": {
            m.spec.id: _result(m, by_id.get(m.spec.id), the_plan, config, len(pairs)) for m in the_plan.metrics
        },
        "counters": counters.as_dict(),
        "clips": match.counts(),
    }
    if other is not None:
        others, work = _extracted(config, the_plan, other.match, engine)
        measured = [Measurement(m, by_id[m.spec.id], results["results"][m.spec.id]) for m in the_plan.runnable]
        results["against"] = differences(measured, the_plan.missing, pairs, other, others, settings, engine)
        results["counters"] = counters.merge(work).as_dict()
    with atomic_folder(config.out) as folder:
        config.write(folder / "config.yaml")
        clips = [
            EvaluatedClip(c.clip_id, c.real_name if config.reference else None, c.generated_name, p)
            for c, p in zip(match.clips, pairs, strict=True)
        ]
        write_run(folder, results, clips, by_id, {m.spec.id: m.spec for m in the_plan.metrics})
    return results


def _extracted(config: EvalConfig, the_plan: Plan, match: Match, engine: Engine) -> tuple[list[Pair], Counters]:
    """The clips with their rows, made where they are not stored, and the work done."""
    contents, counters = extract(config, the_plan, match, engine)
    counters.merge(compare(config, the_plan, match, contents, engine))
    store = FeatureStore(config.cache, config.crop)
    pairs = [_pair(store, contents, clip, the_plan) for clip in match.clips]
    return [pair if config.reference else replace(pair, real=None) for pair in pairs], counters


def extract(config: EvalConfig, the_plan: Plan, match: Match, engine: Engine) -> tuple[dict[str, str], Counters]:
    """Fills the feature cache for both sides; gives the content digest per video and the work done."""
    files = match.files()
    size = max(1, min(SHARD_CLIPS, len(files) // (2 * config.workers)))  # every worker gets some, also of few clips
    shards = [tuple(files[k : k + size]) for k in range(0, len(files), size)]
    requests = [
        ExtractRequest(shard, the_plan.extractors, config.crop, config.cache, config.device) for shard in shards
    ]
    contents: dict[str, str] = {}
    counters = Counters()
    for result in engine.map("extract", extract_shard, requests):
        contents.update(result.contents)
        counters.merge(result.counters)
    return contents, counters


def compare(config: EvalConfig, the_plan: Plan, match: Match, contents: dict[str, str], engine: Engine) -> Counters:
    """Fills the feature cache with what is made from both sides of a pair; gives the work done."""
    counters = Counters()
    if the_plan.comparisons:
        pairs = [pair for clip in match.clips if (pair := _contents(contents, clip))]
        requests = [
            CompareRequest((pair,), the_plan.comparisons, config.crop, config.cache, config.device) for pair in pairs
        ]
        for done in engine.map("compare", compare_shard, requests):
            counters.merge(done)
    return counters


def _contents(contents: dict[str, str], clip: MatchedClip) -> tuple[str, str] | None:
    """Digests of a complete pair's generated and real side."""
    if clip.reason is not None or clip.generated is None or clip.real is None:
        return None
    return contents[str(clip.generated.path)], contents[str(clip.real.path)]


def _pair(store: FeatureStore, contents: dict[str, str], clip: MatchedClip, the_plan: Plan) -> Pair:
    facts = (clip.reason, clip.message, clip.emotion, clip.identity)
    pair = _contents(contents, clip)
    if pair is None:
        return Pair(clip.clip_id, None, None, *facts)
    generated, real = (stored(store, content, the_plan.extractors) for content in pair)
    return Pair(clip.clip_id, generated, real, *facts, compared(store, pair, the_plan.comparisons))


def _result(metric: Metric, score: Score | None, the_plan: Plan, config: EvalConfig, attempted: int) -> dict[str, Any]:
    """One entry of `results`: the contract's fields, plus what a reader needs beside them."""
    spec = metric.spec
    missing = the_plan.missing.get(spec.id)
    return {
        "value": score.value if score else None,
        "ci95": list(score.ci95) if score and score.ci95 else None,
        "higher_is_better": spec.higher_is_better,
        "best_is_real": spec.best_is_real,
        "unit": spec.unit,
        "n_attempted": attempted,
        "n_scored": score.n_scored if score else 0,
        "rejects": score.rejects if score else {"weights_missing": attempted},
        "weights": {} if missing else weights_of(metric),
        "comparable_with_papers": spec.comparable_with_papers,
        "protocol": protocol(metric, config.crop) | ({} if config.reference else ALONE),
        "real_vs_real": score.real_vs_real if score else None,
        "reason": "weights_missing" if missing else score.reason if score else None,
        "hint": missing,
        "title": spec.title,
        "notes": list(score.notes) if score else [],
    }
