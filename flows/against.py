"""The run that an evaluation is held against: found, checked to be about the same real clips, and compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.config import digest, read_yaml
from ..core.errors import ConfigError, InputError, MediaError
from ..metrics.base import Metric, Pair, Score, Settings
from ..metrics.compare import Difference, compare
from ..reports.agreement import Measured
from .engine import Engine
from .pairs import Match, match_folders

AGAIN = "evaluate it again with: talkforge eval"
OTHER_DEFINITION = "other_definition"


@dataclass(frozen=True)
class OtherRun:
    """A finished evaluation whose clips lie where it found them.

    Attributes:
        folder: its --out.
        results: its `results.json`.
        match: its clips, each beside the real one.
    """

    folder: Path
    results: dict[str, Any]
    match: Match

    @property
    def name(self) -> str:
        """Its method."""
        return self.results["method"]

    def digest(self) -> str:
        """Changes when the run does."""
        return digest([self.name, self.results["config_digest"], self.results["inputs_digest"]])


def open_run(folder: Path, results: dict[str, Any] | None, *, real: Path, crop: str) -> OtherRun:
    """The run in `folder`, with its generated clips matched with the real ones of this evaluation.

    Args:
        folder: the other run's --out.
        results: what `results.json` there holds, None when there is none.
        real, crop: of this evaluation.

    Raises:
        InputError: no evaluation, another crop, other real clips, or generated clips that are gone or have changed.
    """
    if results is None:
        raise InputError(f"--against {folder} is no finished evaluation", hint="make one with: talkforge eval")
    settings = _settings(folder)
    if settings["crop"] != crop:
        raise InputError(
            f"{folder} was scored with --crop {settings['crop']}, this run has --crop {crop}",
            hint="give both the same --crop",
        )
    match = _matched(folder, settings, real)
    if match.digest() != results["inputs_digest"]:
        raise InputError(_what_changed(folder, settings, results), hint=AGAIN)
    return OtherRun(folder, results, match)


def _settings(folder: Path) -> dict[str, Any]:
    """`real`, `generated`, `crop` and `manifest` of the run."""
    try:
        found = read_yaml(folder / "config.yaml")
        return {name: found[name] for name in ("real", "generated", "crop", "manifest")}
    except (ConfigError, KeyError) as error:
        raise InputError(f"{folder}/config.yaml does not say what was scored", hint=AGAIN) from error


def _matched(folder: Path, settings: Mapping[str, Any], real: Path) -> Match:
    generated, manifest = Path(settings["generated"]), settings["manifest"]
    if not generated.is_dir():
        hint = f"put its clips back, start from the folder that the run was started in, or {AGAIN}"
        raise InputError(f"the clips that {folder} scored are not in {generated}", hint=hint)
    try:
        return match_folders(real, generated, Path(manifest) if manifest else None)
    except (InputError, MediaError) as error:
        raise InputError(f"the clips that {folder} scored: {error.message}", hint=error.hint or AGAIN) from error


def _what_changed(folder: Path, settings: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Which side is to blame: when the run's own folders are as they were, this evaluation's real clips are others."""
    own = Path(settings["real"])
    if own.is_dir() and _matched(folder, settings, own).digest() == results["inputs_digest"]:
        return f"{folder} was scored on other real clips, those of {own}"
    return f"clips have changed since {folder} scored them: {settings['generated']} or the real ones"


@dataclass(frozen=True)
class Measurement:
    """A metric with this run's score and entry of `results.json`."""

    metric: Metric
    score: Score
    entry: Mapping[str, Any]


def differences(
    measured: Sequence[Measurement],
    missing: Mapping[str, str],
    pairs: Sequence[Pair],
    other: OtherRun,
    others: Sequence[Pair],
    settings: Settings,
    engine: Engine,
) -> dict[str, Any]:
    """`results.json`'s key "against".

    Args:
        measured: the metrics that could run.
        missing: ids of those that could not, with the way out.
        pairs, others: this run's clips, and the other's.
        other: the run that is compared with.
        settings: of the draws.
        engine: runs the metrics side by side.
    """

    def one(item: Measurement) -> Difference:
        return _other_definition(item, other) or compare(item.metric, pairs, others, settings, item.score)

    found = {item.metric.spec.id: gap for item, gap in zip(measured, engine.map("compare", one, measured), strict=True)}
    absent = {name: Difference(None, reason="weights_missing", message=way) for name, way in missing.items()}
    return {
        "run": other.name,
        "folder": other.folder.name,
        "created": other.results["created"],
        "results": {name: _entry(gap) for name, gap in (found | absent).items()},
    }


def _other_definition(item: Measurement, other: OtherRun) -> Difference | None:
    """Refuses a number that the other run's report gives under the same id with another protocol or other weights."""
    theirs = other.results["results"].get(item.metric.spec.id)
    if theirs is None or theirs["value"] is None or Measured("", theirs).key == Measured("", item.entry).key:
        return None
    message = f"{other.name} was scored under another protocol or with other weights; {AGAIN}"
    return Difference(None, reason=OTHER_DEFINITION, message=message)


def _entry(gap: Difference) -> dict[str, Any]:
    return asdict(gap) | {"ci95": list(gap.ci95) if gap.ci95 else None}
