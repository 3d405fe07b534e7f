"""Frozen test sets from a build: what a paper's protocol generates, as a file that `talkforge generate` takes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import InputError
from ..core.hashing import file_sha256
from ..core.progress import track
from ..core.registry import did_you_mean
from ..core.shards import write_text
from ..datasets.shards import ClipShards
from ..tasks.methods import TestItem

NEUTRAL = "neutral"
LABELS = ("identity", "emotion")


def make_testset(protocol: str, build: Path, out: Path, *, split: str = "test", limit: int | None = None) -> int:
    """Writes the test set of a protocol over a build's split, with the sha256 of each file in it.

    Args:
        protocol: one of `PROTOCOLS`.
        build: its crop videos are the set's portraits, sounds and clips.
        out: YAML file; paths in it are relative to it.
        split: of people whom no training on this build has seen.
        limit: clips of each person and emotion; None takes all.

    Returns:
        Items.

    Raises:
        InputError: an unknown protocol, no such build, or no clip that fits.
    """
    if protocol not in PROTOCOLS:
        hint = did_you_mean(protocol, PROTOCOLS) or f"known: {', '.join(PROTOCOLS)}"
        raise InputError(f"unknown protocol '{protocol}'", hint=hint)
    if out.suffix.lower() not in {".yaml", ".yml"}:
        raise InputError(f"--out {out} is no .yaml file")
    shards = ClipShards(build, split, columns=[])
    items, about = PROTOCOLS[protocol](shards, limit)
    files = sorted({path for item in items for path in (item.portrait, item.audio)})
    out.parent.mkdir(parents=True, exist_ok=True)
    base = out.parent.resolve()
    relative = {path: Path(os.path.relpath(path.resolve(), base)).as_posix() for path in files}
    data = {
        "name": f"{protocol} {build.name} {split}",
        "protocol": {"id": protocol, "split": split, "limit": limit, "build": shards.info.get("digest"), **about},
        "items": [_row(item, relative) for item in items],
        "sha256": {relative[path]: file_sha256(path) for path in track(files, "sha256")},
    }
    write_text(out, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
    return len(items)


def _row(item: TestItem, relative: dict[Path, str]) -> dict[str, Any]:
    return {
        name: relative[value] if isinstance(value, Path) else value
        for name, value in asdict(item).items()
        if value is not None
    }


def mead_dice(shards: ClipShards, limit: int | None) -> tuple[list[TestItem], dict[str, Any]]:
    """DICE-Talk's protocol on MEAD (paper, section 4.1): a neutral portrait, the same person's emotional clips.

    The portrait is the first picture of the person's first neutral clip of the same view, or of another view where that
    one has none; sound, emotion and reference come from the emotional clip. Who has no neutral clip is left out.
    """
    clips = _labelled(shards)
    calm: dict[tuple[str, str | None], Path] = {}
    for _, person, emotion, view, path in clips:
        if emotion == NEUTRAL:
            calm.setdefault((person, view), path)
            calm.setdefault((person, None), path)
    taken: dict[tuple[str, str], int] = defaultdict(int)
    items: list[TestItem] = []
    for clip_id, person, emotion, view, path in clips:
        portrait = calm.get((person, view), calm.get((person, None)))
        if emotion == NEUTRAL or portrait is None or taken[person, emotion] == limit:
            continue
        taken[person, emotion] += 1
        items.append(TestItem(clip_id, portrait, path, path, emotion, path))
    if not items:
        raise InputError("no person of the split has both neutral and emotional clips", hint="give another --split")
    people = sorted({person for person, _ in taken})
    return items, {"identities": people, "left_out": sorted({clip[1] for clip in clips} - set(people))}


def _labelled(shards: ClipShards) -> Sequence[tuple[str, str, str, str | None, Path]]:
    """(clip, identity, emotion, view, video) of clips with labels, by name; those that lack one are passed over."""
    there = shards.info["columns"]
    for name in LABELS:
        if name not in there:
            raise InputError(f"{shards.folder} has no column '{name}', so the protocol cannot tell its clips apart")
    views = shards.values("view") if "view" in there else [None] * len(shards)
    columns = (shards.clip_ids, shards.values("identity"), shards.values("emotion"), views)
    place = shards.info["paths"]["video"]
    rows = [(*row, shards.folder / place.format(clip_id=row[0])) for row in zip(*columns, strict=True)]
    return sorted(row for row in rows if row[1] is not None and row[2] is not None)


Protocol = Callable[[ClipShards, int | None], tuple[list[TestItem], dict[str, Any]]]
PROTOCOLS: dict[str, Protocol] = {"mead-dice": mead_dice}
