"""Whether the action units of generated videos go, frame by frame, with those that were asked for.

A video's units are read from its pictures by the extractor whose units the training read. Over a clip's frames, each
unit less its own mean, what was asked for and what is seen are correlated over all frames and units together; a video
that does not read its units has 0. AU25 and AU26 are left out, for they go with speech.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from talkforge.benchmarks.proof import talking
from talkforge.core.errors import NoFace
from talkforge.models.mf_etalk.config import SPEECH_AUS, au_column, au_columns
from talkforge.tasks.dice_priors import features_of
from talkforge.tasks.extract import ClipFile
from talkforge.tasks.extractor import extractors
from talkforge.tasks.talking_aus import feature_names, filled

QUIET = [place for place, unit in enumerate(au_columns()) if unit not in map(au_column, SPEECH_AUS)]
SMILE = [au_columns().index("AU12")]


def seen_units(video: Path, source: str) -> np.ndarray | None:
    """Intensities (T, 17) that the extractor reads from a video; None where it finds no face."""
    spec = extractors.get(source)
    try:
        row = features_of(ClipFile(video, video), [spec])[spec.id]
    except NoFace:
        return None
    return filled(np.stack([row.array(name) for name in feature_names(source)], 1))


def over_time(asked: np.ndarray, seen: np.ndarray, units: Sequence[int] = QUIET) -> float | None:
    """Pearson's correlation of two tracks (T, 17), each unit less its mean.

    0 where a change was asked for and none is seen; None where none was asked for.
    """
    one, other = (part[:, units] - part[:, units].mean(0) for part in (asked, seen))
    if not one.any():
        return None
    scale = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / scale) if scale > 0 else 0.0


def mean_over_clips(values: Sequence[float | None]) -> dict[str, Any]:
    """The mean correlation against 0, its interval over clips, and each one."""
    return talking.difference([(value, 0.0) for value in values if value is not None], reason="nothing was asked for")


def told(found: dict[str, dict[str, Any]]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| units over time | correlation [95 %] | p | clips |", "|---|---|---|---|"]
    return lines + [f"| {what} | {talking.told(value)} |" for what, value in found.items()]
