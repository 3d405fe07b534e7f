"""Action units of a build's clips as MF-ETalk reads them: which columns, gaps, and each person's neutral face.

A person is an identity of the build; a clip without one is a person of its own. Neutral intensities are the mean over
the person's clips that are labelled neutral, and without any the median of all frames of the person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..core.errors import InputError
from ..datasets.shards import ClipShards, read_info
from ..models.mf_etalk.config import au_columns
from .extractor import extractors
from .recipe import column_name
from .talking_batches import LABELS

Source = Literal["au-blendshape-proxy", "pyfeat"]
SOURCES: tuple[Source, ...] = ("au-blendshape-proxy", "pyfeat")
# py-feat has no blink; its closed eyes are the same muscle's.
STAND_INS: dict[Source, dict[str, str]] = {"au-blendshape-proxy": {}, "pyfeat": {"AU45": "AU43"}}
NEUTRAL = "neutral"


@dataclass(frozen=True)
class Neutrals:
    """Neutral intensities of people.

    Attributes:
        of_clip: float32 (17,) by clip id, of its person; None for a clip without any intensity.
        faces: float32 (17,), one a person, in the build's order.
        labelled: people with clips that are labelled neutral.
        estimated: people without.
    """

    of_clip: Mapping[str, np.ndarray | None]
    faces: Sequence[np.ndarray]
    labelled: int
    estimated: int

    def average(self) -> np.ndarray:
        """The mean over people, float32 (17,): one of whom there are many clips counts as one."""
        return np.stack(self.faces).mean(0)


def unit_columns(source: Source) -> dict[str, str]:
    """Column of a build by unit, in the order of `au_columns`."""
    spec, other = extractors.get(source), STAND_INS[source]
    return {unit: column_name(spec, other.get(unit, unit)) for unit in au_columns()}


def feature_names(source: Source) -> list[str]:
    """The same as names within the extractor's own row."""
    return [STAND_INS[source].get(unit, unit) for unit in au_columns()]


def check_columns(data: Path, source: Source) -> None:
    """Raises InputError where the build lacks action units."""
    there = read_info(data)["columns"]
    missing = [column for column in unit_columns(source).values() if column not in there]
    if not missing:
        return
    others = [name for name in SOURCES if name != source and set(unit_columns(name).values()) <= set(there)]
    ways = [f"build it with the extractor {source}", *(f"give --set aus={name}" for name in others)]
    raise InputError(f"the build has no column '{missing[0]}' with action units", hint=", or ".join(ways))


def intensities(columns: Mapping[str, Any], source: Source) -> np.ndarray:
    """A clip's intensities, float32 (T, 17); NaN where there was no face."""
    return np.stack([columns[column] for column in unit_columns(source).values()], 1).astype(np.float32)


def filled(track: np.ndarray) -> np.ndarray:
    """Intensities without gaps: between frames that have a value on a line, before and after them held.

    Args:
        track: (T, 17), NaN where there is none; each unit has a value somewhere.
    """
    places = np.arange(len(track))
    known = np.isfinite(track)
    units = [np.interp(places, places[k], unit[k]) for unit, k in zip(track.T, known.T, strict=True)]
    return np.stack(units, 1).astype(np.float32)


def neutral_faces(data: Path, split: str, source: Source) -> Neutrals:
    """Neutral intensities of all people of a split.

    Raises:
        InputError: no clip has intensities.
    """
    from ..models.mf_etalk.au_guidance import identity_neutral

    labels = [name for name in LABELS if name in read_info(data)["columns"]]
    shards = ClipShards(data, split, columns=[*unit_columns(source).values(), *labels])
    found: dict[str, np.ndarray | None] = {}
    faces: list[np.ndarray] = []
    labelled = 0
    for clips in _people(shards):
        rows = [shards[clip] for clip in clips]
        tracks = [intensities(row, source) for row in rows]
        calm = np.concatenate([np.full(len(t), r.get("emotion") == NEUTRAL) for t, r in zip(tracks, rows, strict=True)])
        every = np.concatenate(tracks)
        face = identity_neutral(every, calm) if _complete(every) else None
        own = {r["clip_id"]: face if _complete(t) else None for t, r in zip(tracks, rows, strict=True)}
        found |= own
        if face is not None and any(value is not None for value in own.values()):
            faces.append(face)
            labelled += _complete(every[calm])
    if not faces:
        column = next(iter(unit_columns(source).values()))
        text = f"none of {len(shards)} clips of split {split} has action units: '{column}' has no value in any frame"
        raise InputError(text, hint=f"build it with the extractor {source} from clips that show a face")
    return Neutrals(found, faces, labelled, len(faces) - labelled)


def _people(shards: ClipShards) -> Sequence[list[int]]:
    """Clips of each person."""
    there = "identity" in shards.info["columns"]
    names: list[Any] = shards.values("identity") if there else [None] * len(shards)
    people: dict[Any, list[int]] = {}
    for k, name in enumerate(names):
        people.setdefault((k, None) if name is None else name, []).append(k)
    return list(people.values())


def _complete(track: np.ndarray) -> bool:
    """Whether each unit has a value in some frame."""
    return bool(np.isfinite(track).any(0).all())
