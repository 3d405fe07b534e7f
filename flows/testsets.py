"""Frozen test sets: what a paper's protocol generates, as a file that `talkforge generate` takes.

Each protocol's `paper` fields hold what the paper states of its own set; what it leaves open is null there.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import InputError, MediaError
from ..core.hashing import file_sha256
from ..core.progress import track
from ..core.records import safe_id
from ..core.registry import did_you_mean
from ..core.shards import write_text
from ..datasets.audio import read_audio
from ..datasets.containers import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from ..datasets.labels import emotion_name
from ..datasets.shards import ClipShards
from ..tasks.methods import TestItem, read_portrait

NEUTRAL = "neutral"
LABELS = ("identity", "emotion")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
DICE = "DICE-Talk (W. Tan et al., 2025), section 4.1"

_SEGMENT = re.compile(r"_\d{3}(_clip_\d{3})?$")  # what ends the name of an HDTF clip after that of its video


@dataclass(frozen=True)
class Source:
    """What a set is made from.

    Attributes:
        shards: a build's split of people whom no training on this build has seen; None without a build.
        limit: most clips of one kind, see the protocols; None takes all.
        count: how many videos, or portraits, are drawn; None takes all.
        seed: of what is drawn and crossed.
        portraits, sounds: folders.
        emotions: names; each portrait and sound gets a video for each.
    """

    shards: ClipShards | None = None
    limit: int | None = None
    count: int | None = None
    seed: int = 0
    portraits: Path | None = None
    sounds: Path | None = None
    emotions: tuple[str, ...] = ()


Made = tuple[list[TestItem], dict[str, Any]]


@dataclass(frozen=True)
class Protocol:
    """How sets of a kind are made.

    Attributes:
        make: the items, and what the file says of them.
        paper: facts that the paper states of its set; None for what it leaves open.
        takes: fields of `Source` that it looks at.
        needs: those that must be given.
    """

    make: Callable[[Source], Made]
    paper: dict[str, Any]
    takes: tuple[str, ...]
    needs: tuple[str, ...]


def make_testset(
    protocol: str, build: Path | None, out: Path, *, split: str = "test", limit: int | None = None, **more: Any
) -> int:
    """Writes the test set of a protocol, with the sha256 of each file in it.

    Args:
        protocol: one of `PROTOCOLS`.
        build: its crop videos are the set's portraits, sounds and clips; for `out-of-domain` the clips that show
            emotions.
        out: YAML file; paths in it are relative to it.
        split: of people whom no training on this build has seen.
        limit: see the protocols; None takes all.
        more: further fields of `Source`.

    Returns:
        Items.

    Raises:
        InputError: an unknown protocol, something that it needs or does not take, no such build, or no clip that fits.
    """
    if protocol not in PROTOCOLS:
        hint = did_you_mean(protocol, PROTOCOLS) or f"known: {', '.join(PROTOCOLS)}"
        raise InputError(f"unknown protocol '{protocol}'", hint=hint)
    if out.suffix.lower() not in {".yaml", ".yml"}:
        raise InputError(f"--out {out} is no .yaml file")
    chosen = PROTOCOLS[protocol]
    _check(protocol, chosen, {"shards": build, "limit": limit, **more})
    shards = ClipShards(build, split, columns=[]) if build else None
    source = Source(shards, limit, **more)
    items, about = chosen.make(source)
    settings = {name: getattr(source, name) for name in ("limit", "count", "seed") if name in chosen.takes}
    where = {"split": split, "build": shards.info.get("digest")} if shards else {"split": None, "build": None}
    name = f"{build.name} {split}" if build else str((source.portraits or out).name)
    head = {"id": protocol, **where, **settings, **about, "paper": chosen.paper}
    _write(out, f"{protocol} {name}", head, items)
    return len(items)


def _check(name: str, protocol: Protocol, given: dict[str, Any]) -> None:
    """Refuses what the protocol does not look at, and the want of what it needs."""
    there = {key for key, value in given.items() if value not in (None, ()) and (key, value) != ("seed", 0)}
    for key in protocol.needs:
        if key not in there:
            raise InputError(f"protocol {name} needs {_option(key)}")
    if unused := [field.name for field in fields(Source) if field.name in there - {*protocol.takes}]:
        raise InputError(f"protocol {name} takes no {_option(unused[0])}")


def _option(key: str) -> str:
    return "--data" if key == "shards" else f"--{key}"


def _write(out: Path, name: str, protocol: dict[str, Any], items: Sequence[TestItem]) -> None:
    """The file: paths relative to it, and the sha256 of every file that an item names."""
    files = sorted({value for item in items for value in asdict(item).values() if isinstance(value, Path)})
    out.parent.mkdir(parents=True, exist_ok=True)
    base = out.parent.resolve()
    relative = {path: Path(os.path.relpath(path.resolve(), base)).as_posix() for path in files}
    data = {
        "name": name,
        "protocol": protocol,
        "items": [_row(item, relative) for item in items],
        "sha256": {relative[path]: file_sha256(path) for path in track(files, "sha256")},
    }
    write_text(out, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def _row(item: TestItem, relative: dict[Path, str]) -> dict[str, Any]:
    return {
        name: relative[value] if isinstance(value, Path) else value
        for name, value in asdict(item).items()
        if value is not None
    }


def _drawn(names: Iterable[str], count: int | None, seed: int, what: str, where: str = "") -> list[str]:
    """So many of the names, by chance: the same ones for a seed and `where`, whatever their order and the machine."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{where}/{name}".encode()).digest())
    if count is not None and len(ordered) < count:
        raise InputError(f"there are {len(ordered)} {what}, not {count}", hint="leave --count out to take them all")
    return ordered[:count]


def mead_dice(source: Source) -> Made:
    """DICE-Talk's protocol on MEAD (paper, section 4.1): a neutral portrait, the same person's emotional clips.

    The portrait is the first picture of the person's first neutral clip of the same view, or of another view where that
    one has none; sound, emotion and reference come from the emotional clip. Who has no neutral clip is left out.
    `limit`: clips of each person and emotion.
    """
    assert source.shards is not None
    clips = _labelled(source.shards)
    calm: dict[tuple[str, str | None], Path] = {}
    for _, person, emotion, view, path in clips:
        if emotion == NEUTRAL:
            calm.setdefault((person, view), path)
            calm.setdefault((person, None), path)
    taken: dict[tuple[str, str], int] = defaultdict(int)
    items: list[TestItem] = []
    for clip_id, person, emotion, view, path in clips:
        portrait = calm.get((person, view), calm.get((person, None)))
        if emotion == NEUTRAL or portrait is None or taken[person, emotion] == source.limit:
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
    rows = [(*row, _video(shards, row[0])) for row in zip(*columns, strict=True)]
    return sorted(row for row in rows if row[1] is not None and row[2] is not None)


def _video(shards: ClipShards, clip_id: str) -> Path:
    return shards.folder / shards.info["paths"]["video"].format(clip_id=clip_id)


def hdtf(source: Source) -> Made:
    """DICE-Talk's protocol on HDTF (paper, section 4.1): each clip drives its own first picture and is its own emotion.

    `count`: source videos that are drawn; `limit`: clips of each, the first ones.
    """
    shards = source.shards
    assert shards is not None
    if shards.info["dataset"] != "hdtf":
        raise InputError(f"{shards.folder} is a build of {shards.info['dataset']}, not of hdtf")
    people = dict(zip(shards.clip_ids, shards.values("identity"), strict=True))
    videos: dict[str, list[str]] = defaultdict(list)
    for clip_id in sorted(people):
        videos[_SEGMENT.sub("", clip_id)].append(clip_id)
    if not videos:
        raise InputError("the split has no clip", hint="give another --split")
    drawn = sorted(_drawn(videos, source.count, source.seed, "videos in the split"))
    clips = [clip_id for name in drawn for clip_id in videos[name][: source.limit]]
    paths = {clip_id: _video(shards, clip_id) for clip_id in clips}
    items = [TestItem(clip_id, path, path, path, None, path) for clip_id, path in paths.items()]
    return items, {"identities": sorted({people[clip_id] for clip_id in clips}), "videos": drawn}


def out_of_domain(source: Source) -> Made:
    """Portraits and sounds from elsewhere, crossed: no real clip exists, so only metrics without reference apply.

    `count`: portraits that are drawn; `limit`: sounds of each, drawn anew for each portrait. For each of `emotions`,
    where there are any, an item; with a build its `emotion_video` is a clip of that emotion, drawn from the split.
    """
    assert source.portraits is not None and source.sounds is not None
    emotions = tuple(dict.fromkeys(map(emotion_name, source.emotions)))
    portraits = _files(source.portraits, (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES), "portrait")
    sounds = _files(source.sounds, (*AUDIO_SUFFIXES, *VIDEO_SUFFIXES), "sound")
    references = _references(source.shards, emotions)
    items: list[TestItem] = []
    for face in sorted(_drawn(portraits, source.count, source.seed, "portraits")):
        others = [name for name, path in sounds.items() if not path.samefile(portraits[face])]
        for sound in sorted(_drawn(others, None, source.seed, "sounds", face)[: source.limit]):
            for emotion in emotions or (None,):
                name = "/".join(part for part in (face, emotion, sound) if part)
                clip = next(iter(_drawn(references.get(emotion, ()), None, source.seed, "clips", name)), None)
                path = references[emotion][clip] if clip else None
                items.append(TestItem(name, portraits[face], sounds[sound], None, emotion, path))
    if not items:
        raise InputError("no portrait has a sound other than its own", hint="give other --sounds")
    faces, speech = {item.portrait for item in items}, {item.audio for item in items}
    _check_media(faces, speech)
    about = {"portraits": len(faces), "sounds": len(speech)}
    return items, about | {"emotions": list(emotions), "real_clips": False, "identities_in_training": None}


def _check_media(portraits: Iterable[Path], sounds: Iterable[Path]) -> None:
    """Reads each once, for what is frozen into a set has to be one. Raises InputError for what is not."""
    kinds = (("portrait", read_portrait, sorted(portraits)), ("sound", read_audio, sorted(sounds)))
    for what, read, paths in kinds:
        for path in paths:
            try:
                read(path)
            except MediaError as error:
                text = f"{path} is no {what} that can be read: {error.message}"
                raise InputError(text, hint="take it out of the folder") from error


def _files(folder: Path, suffixes: Sequence[str], what: str) -> dict[str, Path]:
    """Files by their path below the folder without suffix, made fit for ids; hidden ones are left out."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).with_suffix("").parts
        if not path.is_file() or path.suffix.lower() not in suffixes or any(part.startswith(".") for part in parts):
            continue
        name = "/".join(map(safe_id, parts))
        if name in found:
            raise InputError(f"{found[name].name} and {path.name} in {folder} would be one {what}, {name}")
        found[name] = path
    if not found:
        raise InputError(f"no {what} in {folder}", hint=f"looked for {' '.join(sorted(suffixes))}")
    return found


def _references(shards: ClipShards | None, emotions: Sequence[str]) -> dict[str | None, dict[str, Path]]:
    """For each emotion the split's clips that show it, by name; nothing without a build."""
    if shards is None:
        return {}
    if not emotions:
        raise InputError("--data gives the clips that show --emotions, and none are named")
    found: dict[str | None, dict[str, Path]] = defaultdict(dict)
    for clip_id, _, emotion, _, path in _labelled(shards):
        found[emotion][clip_id] = path
    if missing := [emotion for emotion in emotions if emotion not in found]:
        hint = f"it has {', '.join(sorted(filter(None, found)))}"
        raise InputError(f"no clip of the split shows '{missing[0]}'", hint=hint)
    return found


PROTOCOLS: dict[str, Protocol] = {
    "mead-dice": Protocol(
        mead_dice,
        {"source": DICE, "identities": 5, "of_identities": 46, "names": None, "clips": None, "seconds": None},
        takes=("shards", "limit"),
        needs=("shards",),
    ),
    "hdtf": Protocol(
        hdtf,
        {"source": DICE, "videos": 20, "chosen": "randomly", "names": None, "clips_of_a_video": None, "seconds": None},
        takes=("shards", "limit", "count", "seed"),
        needs=("shards",),
    ),
    "out-of-domain": Protocol(
        out_of_domain,
        {"source": DICE, "portraits": 10, "sounds": None, "crossed": None, "emotions": None, "seconds": None},
        takes=("shards", "limit", "count", "seed", "portraits", "sounds", "emotions"),
        needs=("portraits", "sounds"),
    ),
}
