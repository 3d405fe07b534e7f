"""Filters of a dataset build: one number a clip each, out of stored feature rows, and the columns they make.

A filter never drops a clip from a build. Its value, the decision of the build's preset and, where there is no value,
the reason are columns; who reads the rows applies them, or another preset (`datasets.filters`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..core import mouth_sync, sync_scores
from ..core.errors import ConfigError, TalkForgeError, TooShort, Undetermined, WeightsMissing
from ..core.registry import did_you_mean
from ..core.weights import weights_store
from ..datasets.filters import DECISION, KEEP, REASON, UNITS, VALUE, FilterPreset
from ..datasets.video import FPS
from .extractor import extractors
from .faces import FACES_ID
from .features import FeatureRow

QUALITY_ID, POSE_ID, VAD_ID, LEVEL_ID = "face-quality", "arkit52", "vad-silero", "speech-envelope"
SYNCNET_ID = "syncnet-v2-direct"
NOT_EXTRACTED = "not_extracted"
ROTATION_PERCENTILE = 95.0

Rows = Mapping[str, FeatureRow]


class FilterValue(NamedTuple):
    """A clip's value, or why there is none.

    Attributes:
        value: in the filter's unit; None when it is unknown.
        reason: reason code where the value is None.
    """

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class FilterSpec:
    """Declaration of a filter.

    Attributes:
        name: as presets name it.
        what: one line for listings.
        needs: ids of the extractors whose rows it reads.
        measure: the value out of these rows, which all hold data; raises a typed error where there is none.
    """

    name: str
    what: str
    needs: tuple[str, ...]
    measure: Callable[[Rows], float]

    @property
    def unit(self) -> str:
        """The unit of the value and of its bounds."""
        return UNITS[self.name]


def one_face(rows: Rows) -> float:
    """Fraction of frames in which the subject is seen and nobody else."""
    return float((rows[FACES_ID].array("n_faces") == 1).mean())


def duration(rows: Rows) -> float:
    """Length of the picture."""
    return rows[FACES_ID].value("n_frames") / FPS


def face_size(rows: Rows) -> float:
    """Median over frames of the smaller side of the landmarks' box."""
    return float(np.nanmedian(rows[QUALITY_ID].array("side")))


def sharpness(rows: Rows) -> float:
    """Median over frames of the variance of the Laplacian."""
    return float(np.nanmedian(rows[QUALITY_ID].array("sharpness")))


def rotation(rows: Rows) -> float:
    """How far the head turns away: 95th percentile over frames of the larger of |yaw| and |pitch|.

    Roll stays out: a lean within the picture is undone by every aligned crop, and hides nothing of the face.
    """
    away = np.abs(rows[POSE_ID].array("rotation")[:, :2]).max(axis=1)
    return float(np.nanpercentile(away, ROTATION_PERCENTILE))


def speech(rows: Rows) -> float:
    """Fraction of the picture's time in which somebody speaks; where the sound has ended, nobody does."""
    seconds = duration(rows)
    starts, ends = (np.minimum(rows[VAD_ID].array(column), seconds) for column in ("start_s", "end_s"))
    return float((ends - starts).sum()) / seconds


def best_sync(rows: Rows) -> float:
    """Best correlation of mouth and loudness within 0.6 s."""
    return mouth_sync.best_correlation(mouth_sync.correlations(*_mouth_and_sound(rows)))


def mouth_lag(rows: Rows) -> float:
    """Frames between the sound and the mouth that fits it best, either way."""
    return float(abs(mouth_sync.offset(mouth_sync.moving_correlations(*_mouth_and_sound(rows)))))


def _mouth_and_sound(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    return rows[FACES_ID].array("points"), rows[LEVEL_ID].array("level_db")


def syncnet_confidence(rows: Rows) -> float:
    """LSE-C, larger is better."""
    return _syncnet(rows).confidence


def syncnet_offset(rows: Rows) -> float:
    """Frames by which the sound must be moved later to fit best."""
    return float(_syncnet(rows).offset)


def _syncnet(rows: Rows) -> sync_scores.SyncScores:
    video, audio = (rows[SYNCNET_ID].array(column).astype(np.float64) for column in ("video", "audio"))
    if not len(video) or not len(audio):
        raise TooShort(f"{len(video)} windows of pictures and {len(audio)} of sound: nothing to compare")
    longest = rows[SYNCNET_ID].array("track")
    longest = longest == np.bincount(longest).argmax()
    video, audio = video[longest], audio[longest]
    if not (np.isfinite(video).all() and np.isfinite(audio).all()):
        raise Undetermined("SyncNet's vectors have gaps")
    return sync_scores.scores(video, audio)


FILTERS = (
    FilterSpec("one_face", "frames with exactly one face", (FACES_ID,), one_face),
    FilterSpec("face_size", "side of the face in the source, median", (QUALITY_ID,), face_size),
    FilterSpec("duration", "length of the picture", (FACES_ID,), duration),
    FilterSpec("rotation", "yaw or pitch, 95th percentile", (POSE_ID,), rotation),
    FilterSpec("sharpness", "variance of the Laplacian of the aligned face, median", (QUALITY_ID,), sharpness),
    FilterSpec("speech", "time in which somebody speaks, by Silero VAD", (VAD_ID, FACES_ID), speech),
    FilterSpec("mouth_sync", "best correlation of mouth and loudness", (FACES_ID, LEVEL_ID), best_sync),
    FilterSpec("mouth_lag", "lag of that correlation, either way", (FACES_ID, LEVEL_ID), mouth_lag),
    FilterSpec("syncnet_confidence", "SyncNet's confidence (LSE-C)", (SYNCNET_ID,), syncnet_confidence),
    FilterSpec("syncnet_offset", "SyncNet's offset, signed", (SYNCNET_ID,), syncnet_offset),
)
FILTER_NAMES = tuple(spec.name for spec in FILTERS)
_BY_NAME = {spec.name: spec for spec in FILTERS}


def filter_spec(name: str) -> FilterSpec:
    """The filter of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in _BY_NAME:
        hint = did_you_mean(name, FILTER_NAMES) or f"known: {', '.join(FILTER_NAMES)}"
        raise ConfigError(f"unknown filter '{name}'", hint=hint)
    return _BY_NAME[name]


def needed_extractors(names: Sequence[str] = FILTER_NAMES) -> list[str]:
    """Ids of the extractors that the filters read, each once; without those that lack their weights here.

    Raises:
        ConfigError: no such filter.
    """
    wanted = dict.fromkeys(need for name in names for need in filter_spec(name).needs)
    return [extractor for extractor in wanted if extractor in extractors.names() and not _lacks_weights(extractor)]


def filter_values(rows: Mapping[str, FeatureRow], names: Sequence[str] = FILTER_NAMES) -> dict[str, FilterValue]:
    """The clip's value of each filter.

    Args:
        rows: stored rows by extractor id; filters whose rows are not here have the reason `not_extracted`, or
            `weights_missing` where the store lacks what the extractor needs.
        names: of the filters.

    Raises:
        ConfigError: no such filter.
    """
    return {name: _value(filter_spec(name), rows) for name in names}


def _value(spec: FilterSpec, rows: Rows) -> FilterValue:
    for need in spec.needs:
        reason = rows[need].reason if need in rows else _absence(need)
        if reason is not None:
            return FilterValue(None, reason)
    try:
        return FilterValue(spec.measure(rows))
    except TalkForgeError as error:
        return FilterValue(None, error.reason)


def absences(extracted: Sequence[str]) -> dict[str, str]:
    """Filters that have no value where only these extractors run, each with its reason."""
    lacking = {spec.name: [need for need in spec.needs if need not in extracted] for spec in FILTERS}
    return {name: _absence(needs[0]) for name, needs in lacking.items() if needs}


def _absence(extractor: str) -> str:
    """Why an extractor's row is not there."""
    lacking = extractor in extractors.names() and _lacks_weights(extractor)
    return WeightsMissing.reason if lacking else NOT_EXTRACTED


def _lacks_weights(extractor: str) -> bool:
    store = weights_store()
    return any(not store.status(name).ok for name in extractors.get(extractor).weights)


def filter_schema(names: Sequence[str] = FILTER_NAMES) -> dict[str, pa.DataType]:
    """Columns of the filters: value, decision and reason of each, and the decision of all together."""
    columns: dict[str, pa.DataType] = {}
    for name in names:
        columns[VALUE.format(name)] = pa.float64()
        columns[DECISION.format(name)] = pa.bool_()
        columns[REASON.format(name)] = pa.string()
    return {**columns, KEEP: pa.bool_()}


def filter_columns(
    rows: Mapping[str, FeatureRow], preset: FilterPreset, names: Sequence[str] = FILTER_NAMES
) -> dict[str, Any]:
    """The values of `filter_schema`'s columns for one clip, in its order.

    Args:
        rows: stored rows by extractor id, failed ones included.
        preset: bounds of the build.
        names: of the filters that have columns; values of other filters count as unknown.
    """
    found = filter_values(rows, names)
    values = {name: one.value for name, one in found.items()}
    decisions = preset.decide(values)
    columns: dict[str, Any] = {}
    for name, (value, reason) in found.items():
        columns[VALUE.format(name)] = value
        columns[DECISION.format(name)] = decisions[name]
        columns[REASON.format(name)] = reason
    return {**columns, KEEP: preset.keeps(values)}
