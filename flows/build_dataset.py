"""The build flow: list clips, split them, fan shards out, and describe what came of it. Order and fan-out only.

Shard markers are the truth about what is done. `meta/info.json` is written last: while it is absent, the build is not
complete.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from ..core.config import Config, digest
from ..core.counters import Counters
from ..core.errors import ConfigError, InputError, WeightsMissing
from ..core.lock import owned
from ..core.provenance import environment, now, version
from ..core.records import Clip, Reject, reject_table
from ..core.shards import write_json, write_table
from ..core.weights import weights_store
from ..datasets.build_meta import REJECTS, SHARD, column_rows, write_card
from ..datasets.build_stats import column_stats, feature_columns
from ..datasets.croissant import write_croissant
from ..datasets.filters import load_preset
from ..datasets.reader import Listing, read_dataset
from ..datasets.splits import SPLITS, plan_split
from ..tasks.build_shard import BuildClip, BuildShard, ShardResult, build_shard, clip_file, finished_shard, rejects_of
from ..tasks.crops import crops
from ..tasks.extractor import extractors
from ..tasks.filters import needed_extractors
from ..tasks.recipe import SCHEMA_VERSION, VIDEO, Recipe, estimate_bytes
from .adopt import adopt
from .artifacts import build_artifacts
from .build_report import REPORT, write_report
from .engine import Engine, RunnerName, check_runner, default_workers, run
from .evaluate import missing_weights
from .source_index import SourceIndex

BASE = ("faces-mediapipe", "arkit52", "au-blendshape-proxy", "speech-envelope", "face-quality", "vad-silero")
WITH_WEIGHTS = ("whisper-tiny-en", "syncnet-v2-direct")  # join the default set where their weights are here
SPLIT_BY_SPEAKER = "identity-ratio"
INFO = "meta/info.json"
CONFIG = "build.yaml"


class BuildConfig(Config):
    """What to build, and how. Places, workers and engine do not enter the shards' digest."""

    dataset: str
    root: Path
    out: Path
    annotations: Path | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    limit: int | None = Field(None, ge=1)
    split: str = "auto"
    seed: int = 0
    extractors: list[str] | None = None
    filters: str = "none"
    crop: str = "ffhq"
    size: int = Field(512, ge=64, multiple_of=2)
    crf: int = Field(18, ge=0, le=51)
    preset: str = "veryfast"
    shard_clips: int = Field(8, ge=1)
    workers: int = Field(default_factory=default_workers, ge=1)
    prefect: bool = True
    runner: RunnerName = "local"
    address: str | None = None
    wait: bool = False
    cache: Path | None = None
    device: str = "cpu"

    @field_validator("crop")
    @classmethod
    def _known(cls, name: str) -> str:
        return crops.get(name).name


@dataclass(frozen=True)
class BuildPlan:
    """What a build is going to do."""

    config: BuildConfig
    recipe: Recipe
    listing: Listing
    left_out: int
    splits: dict[str, Any]
    shards: list[BuildShard]
    missing: str | None  # weights that are not here, with the way to get them
    index: SourceIndex

    def digest(self) -> str:
        """Digest of everything that the finished folder depends on."""
        rejects = [[r.clip_id, r.stage, r.reason, r.message] for r in self.listing.rejects]
        return digest({"shards": [shard.digest for shard in self.shards], "rejects": rejects, "split": self.splits})

    def clips(self) -> int:
        """Clips that go into shards."""
        return sum(len(shard.clips) for shard in self.shards)


@dataclass(frozen=True)
class BuildOutcome:
    """What a build left behind."""

    out: Path
    info: dict[str, Any]
    fresh: int  # shards built now
    rejected: int
    counters: Counters
    done: bool  # there was nothing to do


def build(config: BuildConfig) -> BuildOutcome:
    """Builds a dataset folder, or what of it is missing or out of date.

    Raises:
        InputError: `root` is no folder of the dataset, or `out` holds something else.
        WeightsMissing: an extractor that was asked for has no weights here.
        OutputBusy: another process builds into `out`, and `wait` is not set.
        ConfigError, MissingPackage: the runner cannot be used so, or is not installed.
    """
    check_runner(config.runner, config.address, use_prefect=config.prefect)
    check_out(config.out)
    config = config if config.runner == "local" else _absolute(config)
    with owned(config.out, wait=config.wait):
        the_plan = plan(config)
        if the_plan.missing:
            raise WeightsMissing("weights of the chosen extractors are not here", hint=the_plan.missing)
        adopt(the_plan.shards, config.out / INFO)
        results = [finished_shard(shard) for shard in the_plan.shards]
        info = _complete(config.out, the_plan, results)
        if info is not None:
            the_plan.index.save()
            if not (config.out / REPORT).is_file():  # a kill came between the description and the page
                write_report(config.out)
            return BuildOutcome(config.out, info, 0, info["counts"]["rejects"], Counters(), done=True)
        return run(
            "build-dataset",
            lambda engine: _body(the_plan, results, engine),
            workers=config.workers,
            use_prefect=config.prefect,
            runner=config.runner,
            address=config.address,
        )


def _absolute(config: BuildConfig) -> BuildConfig:
    """The same places as every worker of a cluster sees them, wherever it was started."""
    places = {name: getattr(config, name) for name in ("root", "out", "annotations", "cache")}
    return config.model_copy(update={name: path.absolute() for name, path in places.items() if path is not None})


def check_out(out: Path) -> None:
    """Refuses a folder that holds something other than an earlier build."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", hint="give --out a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / CONFIG).is_file():
        raise InputError(f"{out} holds files that are no build", hint="give --out a new folder")


def plan(config: BuildConfig) -> BuildPlan:
    """Lists, splits and shards the clips. Sources are hashed where that was not done before; nothing is written."""
    if not config.root.is_dir():
        raise InputError(f"{config.root} is not a folder")
    listing = read_dataset(config.dataset, config.root, annotations=config.annotations, **config.options)
    recipe = plan_recipe(config)
    clips, splits = split_clips(config, listing.clips[: config.limit])
    index = SourceIndex(config.out / "_done" / "sources.parquet", config.root)
    sources, unread = _hashed(clips, index, config.workers)
    listing = replace(listing, rejects=[*listing.rejects, *unread])
    shards = _shards(config, recipe, sources)
    left_out = 0 if config.limit is None else max(0, len(listing.clips) - config.limit)
    missing = missing_weights([spec.id for spec in recipe.features()])
    return BuildPlan(config, recipe, listing, left_out, splits, shards, missing, index)


def plan_recipe(config: BuildConfig) -> Recipe:
    """The recipe: extractors that were asked for or the default set, and those that the filters' bounds need."""
    names = tuple(config.extractors) if config.extractors is not None else default_extractors()
    bounds = load_preset(config.filters)
    needed = needed_extractors(bounds.bounded())
    pairs = [name for name in names if extractors.get(name).compares]
    if pairs:
        raise ConfigError(f"{pairs[0]} compares two clips, and a build has one of each")
    return Recipe(
        config.dataset,
        tuple(dict.fromkeys((*names, *needed))),
        config.size,
        config.crf,
        config.preset,
        config.crop,
        bounds,
    )


def default_extractors() -> tuple[str, ...]:
    """The default set, with those that need more weights where these are here."""
    store = weights_store()
    here = [name for name in WITH_WEIGHTS if all(store.status(w).ok for w in extractors.get(name).weights)]
    return (*BASE, *here)


def split_clips(config: BuildConfig, clips: Sequence[Clip]) -> tuple[list[Clip], dict[str, Any]]:
    """Clips with their splits, and what `splits.json` says about them.

    "auto" keeps what the dataset says; else whole identities are drawn where there are enough of them; else all train.
    """
    rule = config.split
    speakers = {clip.identity for clip in clips}
    if rule == "auto" and not any(clip.split for clip in clips) and None not in speakers and len(speakers) >= 3:
        rule = SPLIT_BY_SPEAKER
    if rule not in ("auto", "none"):
        decided = plan_split(rule, clips, seed=config.seed)
        return decided.apply(clips), decided.as_dict(clips)
    keep = rule == "auto"
    clips = [replace(clip, split=(clip.split if keep else None) or "train") for clip in clips]
    members = {name: sorted({str(c.identity) for c in clips if c.split == name and c.identity}) for name in SPLITS}
    words = "as the dataset says, train where it says nothing" if keep else "none: all clips train"
    data = {"name": rule, "rule": words, "seed": None, "identities": members, "test_sentences": {}}
    counts = Counter(clip.split for clip in clips)
    return clips, data | {"clips": {name: counts[name] for name in SPLITS}, "notes": []}


def _hashed(clips: Sequence[Clip], index: SourceIndex, workers: int) -> tuple[list[BuildClip], list[Reject]]:
    """Clips with the digest of their content; a source that cannot be read becomes a reject."""
    index.fill([path for clip in clips for path in (clip.video, clip.audio) if path], workers)
    found: list[BuildClip] = []
    rejects: list[Reject] = []
    for clip in clips:
        try:
            content = clip_file(clip).content(index.sha256)
        except OSError as error:
            rejects.append(Reject(clip.clip_id, "read", "unreadable_file", f"{clip.video.name}: {error.strerror}"))
        else:
            found.append(BuildClip(replace(clip, sha256=content), index.name(clip.video)))
    return found, rejects


def _shards(config: BuildConfig, recipe: Recipe, clips: Sequence[BuildClip]) -> list[BuildShard]:
    """Shards of each split in the order of clip ids, whoever works on them."""
    shards: list[BuildShard] = []
    for split in SPLITS:
        mine = sorted((item for item in clips if item.clip.split == split), key=lambda item: item.clip.clip_id)
        parts = [tuple(mine[k : k + config.shard_clips]) for k in range(0, len(mine), config.shard_clips)]
        shards += [
            BuildShard(split, k, len(parts), part, recipe, config.out, config.cache, config.device)
            for k, part in enumerate(parts)
        ]
    return shards


def _complete(out: Path, the_plan: BuildPlan, results: Sequence[ShardResult | None]) -> dict[str, Any] | None:
    """The description of a build that is whole and up to date, else None."""
    path = out / INFO
    if any(result is None for result in results) or not path.is_file():
        return None
    info = json.loads(path.read_text(encoding="utf-8"))
    return info if info.get("digest") == the_plan.digest() else None


def _body(the_plan: BuildPlan, results: Sequence[ShardResult | None], engine: Engine) -> BuildOutcome:
    config = the_plan.config
    out = config.out
    out.mkdir(parents=True, exist_ok=True)
    config.write(out / CONFIG)
    the_plan.index.save()
    (out / INFO).unlink(missing_ok=True)
    write_json(out / "_done" / "plan.json", [_planned(shard) for shard in the_plan.shards])
    todo = [shard for shard, result in zip(the_plan.shards, results, strict=True) if result is None]
    made = iter(engine.map("build-shard", build_shard, todo))
    whole = [result or next(made) for result in results]
    _prune(out, the_plan)
    return _describe(the_plan, whole, engine)


def _planned(shard: BuildShard) -> dict[str, Any]:
    path = shard.writer().shard_path(shard.index).relative_to(shard.out)
    marker = shard.writer().marker_path(shard.index).relative_to(shard.out)
    return {"shard": path.as_posix(), "marker": marker.as_posix(), "split": shard.split, "clips": len(shard.clips)}


def _prune(out: Path, the_plan: BuildPlan) -> None:
    """Removes shards, markers and crop videos of an earlier plan that are in this one no more."""
    wanted = {out / VIDEO.format(clip_id=item.clip.clip_id) for shard in the_plan.shards for item in shard.clips}
    for shard in the_plan.shards:
        wanted |= {shard.writer().shard_path(shard.index), shard.writer().marker_path(shard.index)}
    for pattern in ("data/*/*.parquet", "_done/build-*/part-*.json", "videos/**/*.mp4"):
        for path in out.glob(pattern):
            if path not in wanted:
                path.unlink()


def _describe(the_plan: BuildPlan, results: Sequence[ShardResult], engine: Engine) -> BuildOutcome:
    """Rejects, statistics, splits, card, and last of all the description that says complete."""
    out = the_plan.config.out
    rejects = [*the_plan.listing.rejects, *rejects_of(results)]
    rows = sum(result.rows for result in results)
    counts = _accounted(the_plan, rows, rejects)
    write_table(out / REJECTS, reject_table(rejects))
    schema = the_plan.recipe.schema()
    columns = feature_columns(schema)
    paths = [result.path for result in results]
    figures = engine.map("stats", partial(column_stats, paths, clips=rows), columns)
    write_json(out / "meta" / "stats.json", dict(zip(columns, figures, strict=True)))
    write_json(out / "meta" / "splits.json", the_plan.splits)
    info = _info(the_plan, counts)
    write_card(out, info, the_plan.splits, Counter(reject.reason for reject in rejects))
    write_croissant(out, info, schema)
    write_json(out / INFO, info)
    write_report(out)
    engine.publish(lambda: build_artifacts(info, the_plan.shards, results, rejects))
    counters = Counters()
    for result in results:
        counters.merge(result.counters)
    fresh = sum(result.fresh for result in results)
    return BuildOutcome(out, info, fresh, len(rejects), counters, done=False)


def _accounted(the_plan: BuildPlan, rows: int, rejects: Sequence[Reject]) -> dict[str, int]:
    """How many clips went where. Raises AssertionError when one is neither a row nor a reject."""
    listed = the_plan.clips() + len(the_plan.listing.rejects)
    counts = {"clips": listed, "rows": rows, "rejects": len(rejects), "left_out_by_limit": the_plan.left_out}
    assert listed == rows + len(rejects), f"clips went missing: {counts}"
    return counts


def _info(the_plan: BuildPlan, counts: dict[str, int]) -> dict[str, Any]:
    recipe = the_plan.recipe
    schema = recipe.schema()
    return {
        "schema_version": SCHEMA_VERSION,
        "digest": the_plan.digest(),
        "created": now(),
        "talkforge_version": version(),
        "environment": environment(),
        "dataset": recipe.dataset,
        "counts": counts,
        "fps": 25,
        "sample_rate": 16000,
        "paths": {"data": SHARD, "video": VIDEO, "rejects": REJECTS},
        "shards": {split: sum(shard.split == split for shard in the_plan.shards) for split in SPLITS},
        "columns": column_rows(schema),
        "steps_per_frame": recipe.steps(),
        "crop": recipe.crop_facts(),
        "filters": recipe.bounds.model_dump(mode="json"),
        "extractors": [
            {"id": spec.id, "version": spec.version, "what": spec.what, "weights": list(spec.weights)}
            for spec in recipe.specs()
        ],
        "weights": recipe.weights(),
        "notes": [*the_plan.listing.notes, *the_plan.splits["notes"]],
    }


def describe_build(config: BuildConfig) -> str:
    """What a build would do, as text. Writes nothing."""
    the_plan = plan(config)
    clips = [item.clip for shard in the_plan.shards for item in shard.clips]
    done = sum(finished_shard(shard) is not None for shard in the_plan.shards)
    reasons = Counter(reject.reason for reject in the_plan.listing.rejects)
    lines = [
        f"clips: {the_plan.clips()}, rejected before reading: {len(the_plan.listing.rejects)}",
        *(f"  {reason}: {count}" for reason, count in sorted(reasons.items())),
        f"shards: {len(the_plan.shards)}, of them finished: {done}",
        f"splits ({the_plan.splits['name']}): "
        + ", ".join(f"{split} {count}" for split, count in the_plan.splits["clips"].items()),
        f"extractors: {', '.join(spec.id for spec in the_plan.recipe.specs())}",
        f"columns: {len(the_plan.recipe.schema())}",
        f"estimated size: {estimate_bytes(the_plan.recipe, clips) / 1e6:.0f} MB",
        *(f"note: {note}" for note in [*the_plan.listing.notes, *the_plan.splits["notes"]]),
    ]
    if the_plan.missing:
        lines.append(f"weights_missing: {the_plan.missing}")
    return "\n".join(lines)
