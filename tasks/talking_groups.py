"""Which clips of a build a talking head is learned from, in which groups, and whose portraits they get."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

import numpy as np

from ..core.errors import InputError
from ..datasets.shards import ClipShards
from .talking_batches import LABELS, POINTS, STRIDE, TRANSFORM, span

EMOTIONAL, ORDINARY = "emotional", "ordinary"


def narrowed(shards: ClipShards, *columns: str) -> ClipShards:
    """The same clips with these columns only."""
    found = copy(shards)
    found.columns = columns
    return found


def clear_starts(shards: ClipShards, window: int) -> list[np.ndarray]:
    """Frames (n,) of each clip from which on `window` frames of its crop video are there, none of them black."""
    read = narrowed(shards, TRANSFORM)
    found = []
    for k in range(len(read)):
        black = np.concatenate([[0], np.cumsum(~np.isfinite(read[k][TRANSFORM]).all(1))])
        found.append(np.flatnonzero(black[window:] == black[:-window]))
    return found


class Usable(NamedTuple):
    """Each clip's group, None where it cannot be used; and where its windows may begin, see `clear_starts`."""

    groups: list[str | None]
    starts: list[np.ndarray]


def usable_groups(shards: ClipShards, frames: int, columns: Sequence[str], stride: int = STRIDE) -> Usable:
    """Groups `EMOTIONAL`, of clips whose emotion is stated, and `ORDINARY`.

    A clip is left out that is shorter than a window, has no window without black frames, or has one of `columns` null
    as a whole.

    Raises:
        InputError: no clip is left.
    """
    if not len(shards):
        raise InputError("the split has no clips")
    window = span(frames, stride)
    known = shards.info["columns"]
    reasons = [shards.values(name) for name in map(reason_column, (POINTS, *columns)) if name in known]
    emotions = shards.values("emotion") if "emotion" in known else [None] * len(shards)
    failed = np.array([[value is not None for value in values] for values in reasons], bool).any(0)
    starts = clear_starts(shards, window)
    short = shards.lengths < window
    black = ~short & [not len(own) for own in starts]
    bad = failed | short | black
    if bad.all():
        text = f"{short.sum()} have fewer than {window} frames, {failed.sum()} lack a feature"
        text += f", {black.sum()} have no {window} frames together that show a face"
        raise InputError(f"none of {len(shards)} clips can be used: {text}", hint="give fewer frames, or other clips")
    groups = [None if out else EMOTIONAL if emotion else ORDINARY for out, emotion in zip(bad, emotions, strict=True)]
    return Usable(groups, starts)


def partners_of(shards: ClipShards, groups: Sequence[str | None]) -> list[list[int]]:
    """Clips that a clip's portrait may come from.

    For a clip with identity and emotion others of the same identity, and filmed from the same view: neutral ones if
    there are any, as in the paper's test protocol. Else the clip itself: one person's other videos are of other places.
    """
    known = {name: shards.values(name) for name in LABELS if name in shards.info["columns"]}
    identities, emotions, views = (known.get(name, [None] * len(shards)) for name in LABELS)
    people: dict[tuple[str, str | None], list[int]] = {}
    for k, (who, emotion, view, group) in enumerate(zip(identities, emotions, views, groups, strict=True)):
        if group is not None and who is not None and emotion is not None:
            people.setdefault((who, view), []).append(k)
    found: list[list[int]] = [[k] for k in range(len(shards))]
    for clips in people.values():
        for k in clips:
            others = [clip for clip in clips if clip != k]
            calm = [clip for clip in others if emotions[clip] == "neutral"]
            found[k] = calm or others or [k]
    return found


def reason_column(column: str) -> str:
    """Where a build says why an extractor's columns are null for a clip."""
    return column.rpartition("_")[0] + "_reason"
