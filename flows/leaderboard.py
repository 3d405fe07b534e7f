"""What finished evaluations tell a leaderboard beside their results: their real clips, their clips' values, their cost.

Nothing is extracted anew here. What lies in the runs' folders, beside their videos and in the cache is read; what is
gone is said to be.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.config import digest
from ..core.errors import ConfigError, InputError, MediaError, MediaNotFound
from ..core.hashing import file_sha256
from ..datasets.video import FPS, probe
from ..metrics.base import FrechetMetric, Metric, Pair, Settings, metrics, usable
from ..metrics.companions import SetMetric
from ..metrics.compare import QUICK, Difference
from ..metrics.compare import compare as held_against
from ..metrics.ranking import FEWEST_CLIPS, joint_frechet
from ..reports.comparison_facts import Cost, Evidence, Reference, RunFacts, recorded
from ..tasks.compare import compared
from ..tasks.extract import stored
from ..tasks.features import FeatureStore
from .against import AGAIN, OTHER_DEFINITION, open_run
from .evaluate import EvalConfig, Outcome, protocol, weights_of
from .pairs import Match, MatchedClip, clip_file

WITHOUT_REAL = ("unmatched_generated", MediaNotFound.reason)
GONE = "its videos are not where they were scored"
NO_RECORD = "no generation.json was found beside its videos"
NO_TIME = "its generation.json records no time"
REJECTS = "rejects"


@dataclass(frozen=True)
class ScoredRun:
    """A finished evaluation, and what of its inputs is still there."""

    outcome: Outcome

    @property
    def results(self) -> dict[str, Any]:
        """Its `results.json`."""
        return self.outcome.results

    @cached_property
    def config(self) -> EvalConfig | None:
        """Its settings; None where its folder does not say them."""
        try:
            return EvalConfig.load(self.outcome.out / "config.yaml", [])
        except ConfigError:
            return None

    @cached_property
    def match(self) -> Match | None:
        """Its clips, where they lie as they were scored; else None."""
        if self.config is None or "inputs_digest" not in self.results:
            return None
        try:
            return open_run(self.outcome.out, self.results, real=self.config.real, crop=self.config.crop).match
        except InputError:
            return None

    @cached_property
    def details(self) -> list[dict[str, Any]]:
        """A row for each metric and clip: `metric`, `clip_id`, `value`, `reason`."""
        paths = sorted((self.outcome.out / "details").glob("*.parquet"))
        return [row for path in paths if path.stem != REJECTS for row in _rows(path)]

    def facts(self) -> RunFacts:
        """What a comparison takes in."""
        clips: dict[str, dict[str, float]] = defaultdict(dict)
        for row in self.details:
            if row["value"] is not None:
                clips[row["metric"]][row["clip_id"]] = row["value"]
        return RunFacts(self.reference(), clips, self.cost())

    def reference(self) -> Reference:
        """The real clips that it was scored on: by their bytes where they can be read again, else by their names."""
        if self.config is not None and not self.config.reference:
            return Reference(frozenset(row["clip_id"] for row in self.details), real=False)
        if self.match is not None:
            ids = frozenset(clip.clip_id for clip in self.match.clips if clip.real)
            return Reference(ids, reference_digest(self.match))
        if not self.details:
            return Reference()
        return Reference(frozenset(row["clip_id"] for row in self.details if row["reason"] not in WITHOUT_REAL))

    def cost(self) -> Cost:
        """Seconds of work per second of video, over the videos whose time was recorded."""
        folder = self.config.generated if self.config else None
        if folder is None or not folder.is_dir():
            return Cost(None, GONE)
        try:
            items = json.loads((folder / "generation.json").read_text(encoding="utf-8"))["items"]
            made = [item for item in items if item.get("took_s") and not item.get("reason")]
            timed = [(item["took_s"], _seconds(folder, item)) for item in made]
        except OSError:
            return Cost(None, NO_RECORD)
        except (ValueError, KeyError, TypeError, AttributeError, MediaError) as error:
            return Cost(None, f"its generation.json or videos cannot be read: {type(error).__name__}")
        video = sum(length for _, length in timed)
        return Cost(sum(work for work, _ in timed) / video, None, len(timed)) if video else Cost(None, NO_TIME)

    @cached_property
    def contents(self) -> dict[str, tuple[str, str]]:
        """Digests of both sides of complete pairs by clip, which their rows are stored under."""
        clips = self.match.clips if self.match else []
        return {
            clip.clip_id: (clip_file(clip.generated).content(), clip_file(clip.real).content())
            for clip in clips
            if clip.reason is None and clip.generated and clip.real
        }

    def pairs(self, metric: Metric) -> list[Pair]:
        """Its clips with the stored rows that a metric wants; a clip whose rows are gone has none."""
        if self.match is None or self.config is None:
            return []
        store = FeatureStore(self.config.cache, self.config.crop)
        return [_pair(store, clip, self.contents.get(clip.clip_id), metric) for clip in self.match.clips]


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(path, columns=["clip_id", "variant", "value", "reason"])
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} cannot be read", hint=AGAIN) from error
    return [row | {"metric": f"{path.stem}:{row['variant']}".removesuffix(":")} for row in table.to_pylist()]


def _seconds(folder: Path, item: Mapping[str, Any]) -> float:
    """Length of an item's video: by the frames that are recorded, else as the file says."""
    if "frames" in item:
        return item["frames"] / FPS
    return probe(folder / f"{item['id']}.mp4").duration_s or 0.0


def reference_digest(match: Match) -> str:
    """Digest of the real side of a match: ids, labels, and bytes of clips and of the sounds beside them."""
    rows = []
    for clip in match.clips:
        if clip.real is not None:
            files = [path for path in (clip.real.path, clip.real.audio_path) if path and path.is_file()]
            rows.append([clip.clip_id, clip.emotion, clip.identity, *map(file_sha256, files)])
    return digest(rows)


def _pair(store: FeatureStore, clip: MatchedClip, contents: tuple[str, str] | None, metric: Metric) -> Pair:
    facts = (clip.reason, clip.message, clip.emotion, clip.identity)
    if contents is None:
        return Pair(clip.clip_id, None, None, *facts)
    names = [*metric.spec.generated, *metric.spec.real]
    generated, real = (stored(store, content, names) for content in contents)
    return Pair(clip.clip_id, generated, real, *facts, compared(store, contents, metric.spec.compared))


def scored_runs(outcomes: Sequence[Outcome]) -> dict[str, ScoredRun]:
    """Runs by method; of two with one name, which a comparison refuses, the last."""
    return {one.results["method"]: ScoredRun(one) for one in outcomes}


def pairing(runs: Mapping[str, ScoredRun]) -> Evidence:
    """What runs carry, and beside it what comes of drawing their clips' stored features again, the same for all."""
    known = recorded({method: run.results for method, run in runs.items()})

    def compare(metric_id: str, method: str, other: str) -> Difference | None:
        return known.compare(metric_id, method, other) or _held(metric_id, runs[method], runs[other])

    def draw(metric_id: str, methods: Sequence[str]) -> tuple[np.ndarray, int] | None:
        return _drawn(metric_id, [runs[method] for method in methods])

    return Evidence(compare, draw)


def _held(metric_id: str, run: ScoredRun, other: ScoredRun) -> Difference | None:
    if metric_id not in metrics.names() or run.config is None or run.match is None or other.match is None:
        return None
    metric = metrics.get(metric_id)
    if not _as_now(metric, run):
        return Difference(None, reason=OTHER_DEFINITION, message=f"this version measures otherwise; {AGAIN}")
    sides = run.pairs(metric), other.pairs(metric)
    return held_against(metric, *sides, _settings(run.config), metric.score(sides[0], QUICK))


def _drawn(metric_id: str, runs: Sequence[ScoredRun]) -> tuple[np.ndarray, int] | None:
    """Joint draws of a Fréchet distance over the clips whose features all runs have."""
    metric = metrics.get(metric_id) if metric_id in metrics.names() else None
    # What other reductions make of a clip that is drawn twice is another number, or takes long.
    if (
        not isinstance(metric, FrechetMetric)
        or isinstance(metric, SetMetric)
        or not all(_as_now(metric, r) for r in runs)
    ):
        return None
    sides = [{pair.clip_id: pair for pair in run.pairs(metric) if not usable(pair, metric.spec)} for run in runs]
    common = sorted(set.intersection(*map(set, sides)))
    config = runs[0].config
    if len(common) < FEWEST_CLIPS or config is None:
        return None
    groups = [metric.groups([side[clip] for clip in common]) for side in sides]
    settings = _settings(config)
    generated, real = [rows for rows, _ in groups], groups[0][1]
    return joint_frechet(real, generated, n=settings.frechet_bootstrap, seed=settings.seed), len(common)


def _settings(config: EvalConfig) -> Settings:
    return Settings(config.bootstrap, config.frechet_bootstrap, config.seed)


def _as_now(metric: Metric, run: ScoredRun) -> bool:
    """Whether this version measures as the run did, so that its stored features are the ones that were scored."""
    if run.config is None:
        return False
    entry, now = run.results["results"][metric.spec.id], protocol(metric, run.config.crop)
    return (entry["protocol"], entry["weights"]) == (json.loads(json.dumps(now)), weights_of(metric))
