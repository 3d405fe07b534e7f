"""The generation flow: a method over test items, each video whole or absent, finished ones kept."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from ..core.config import Config, digest, read_yaml, validate
from ..core.errors import ConfigError, InputError, TalkForgeError, WeightsError
from ..core.hashing import file_sha256
from ..core.lock import owned
from ..core.shards import write_json
from ..datasets.folder import scan_folder
from ..datasets.video import FPS
from ..tasks.external import External, method_named
from ..tasks.methods import Method, Opened, TestItem, methods, read_sound
from .engine import Engine, RunnerName, run

Places = tuple[Path, Path]  # a video, and the file that says what it was made from
ELSEWHERE = "give --out another place"


def method_of(name: str) -> Method:
    """A method by its name, or by one's own adapter file (*.yaml). Raises ConfigError: there is none."""
    return method_named(name) or methods.get(name)


def takes_both(name: str) -> bool:
    """Whether a method may be told an emotion's name and shown a clip; built-in ones take one of the two."""
    return isinstance(method_of(name), External)


class TestSet(Config):
    """A test set file; its paths are relative to the file.

    Attributes:
        name: of the set.
        items: what is generated.
        protocol: how the set was made, where a command made it.
        sha256: of files of the items, by their paths as the items have them; a file that has another one is refused.
    """

    __test__ = False

    name: str
    items: list[TestItem]
    protocol: dict[str, Any] | None = None
    sha256: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> list[TestItem]:
        """The items of a YAML file, paths resolved.

        Raises:
            ConfigError: not a test set. InputError: an id is no path below a folder, or stands twice; a file is not
            the one that the set was made with.
        """
        loaded = validate(cls, read_yaml(path), where=str(path))
        items = [_resolved(item, path.parent) for item in loaded.items]
        seen: set[str] = set()
        for name in (item.id for item in items):
            parts = name.split("/")
            if PurePosixPath(name).is_absolute() or "\\" in name or {"", ".", ".."} & set(parts):
                raise InputError(f"{path}: id '{name}' is no file name, nor a path below a folder")
            if name in seen:
                raise InputError(f"{path}: id '{name}' stands twice")
            seen.add(name)
        for name, wanted in loaded.sha256.items():
            if not (path.parent / name).is_file():
                raise InputError(f"{path}: there is no file {name}")
            if file_sha256(path.parent / name) != wanted:
                raise InputError(f"{path}: {name} is not the file that the set was made with", hint="make the set anew")
        return items


def _resolved(item: TestItem, base: Path) -> TestItem:
    optional = {name: getattr(item, name) for name in ("video", "emotion_video")}
    there = {name: base / place for name, place in optional.items() if place is not None}
    return replace(item, portrait=base / item.portrait, audio=base / item.audio, **there)


def items_from_clips(folder: Path) -> list[TestItem]:
    """Each real clip of a folder as a test item: its first frame is the portrait, its sound drives it."""
    found = scan_folder(folder).files
    return [TestItem(item.stem, item.path, item.audio_path or item.path, item.path) for item in found]


def items_of(testset: Path | None, real: Path | None) -> list[TestItem]:
    """The items of a test set file, or of a folder of real clips. Raises InputError for both or neither."""
    if (testset is None) == (real is None):
        raise InputError("say what to generate from", hint="one of --testset YAML, --real DIR, --portrait and --audio")
    return TestSet.read(testset) if testset else items_from_clips(real or Path())


def item_of(
    method_id: str, out: Path, portrait: Path | None, audio: Path | None, emotion: str | None, clip: Path | None = None
) -> TestItem:
    """The item of one video from a portrait and a sound. Raises InputError when something is not given or not there."""
    method_of(method_id)
    if portrait is None:
        raise InputError("no --portrait was given", hint="an image, or a clip whose first frame is taken")
    sound = audio or portrait
    for path in (portrait, sound, clip):
        if path is not None and not path.is_file():
            raise InputError(f"there is no file {path}")
    if out.suffix.lower() != ".mp4":
        raise InputError(f"--out {out} is no .mp4 file", hint="a folder goes with --testset or --real")
    return TestItem(out.stem, portrait, sound, portrait if method_id == "copy" else None, emotion, clip)


def generate_one(
    method_id: str,
    out: Path,
    portrait: Path | None,
    audio: Path | None,
    emotion: str | None,
    emotion_video: Path | None = None,
    opened: Opened | None = None,
) -> Generated:
    """One video from a portrait and a sound, made unless it is there already from the same inputs.

    Raises:
        InputError: something is not given or not there; `out` is a file that no such call made.
        What the method raises.
    """
    item = item_of(method_id, out, portrait, audio, emotion, emotion_video)
    method = method_of(method_id)
    return _made(method, opened or method.open(), item, _beside(out))


def check_target(target: Path, item: TestItem) -> None:
    """Refuses to write a video over what it is made from."""
    for path in (item.portrait, item.audio, item.video, item.emotion_video):
        if path is not None and target.exists() and target.samefile(path):
            raise InputError(f"{target} would be written over its own input", hint=ELSEWHERE)


@dataclass(frozen=True)
class Generated:
    """What became of one item."""

    id: str
    video: Path | None
    fresh: bool
    reason: str | None = None
    message: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def generate(
    method_id: str,
    items: Sequence[TestItem],
    out: Path,
    *,
    workers: int,
    use_prefect: bool,
    opened: Opened | None = None,
    runner: RunnerName = "local",
    address: str | None = None,
) -> list[Generated]:
    """Runs a method over items into `out/<id>.mp4`; an item whose inputs are unchanged is not made again.

    A failed item has its reason in the list and in `out/generation.json`, and no video.

    Args:
        opened: the method with its options, see `Method.open`; None opens it without any.
        runner, address: where items are made, see `engine.run`; on a cluster for methods that hold no network.

    Raises:
        ConfigError: a method that cannot be sent to a cluster.
    """
    method = method_of(method_id)
    ready = opened or method.open()
    if runner != "local":
        _check_sendable(method, ready)
    with owned(out):
        done = run(
            f"generate-{method.id}",
            partial(_all, method=method, opened=ready, items=items, out=out),
            workers=workers,
            use_prefect=use_prefect,
            runner=runner,
            address=address,
        )
        head = {"method": method.id, "version": method.version, **({"made_with": ready.facts} if ready.facts else {})}
        write_json(out / "generation.json", {**head, "items": _rows(done)})
    return done


def _check_sendable(method: Method, opened: Opened) -> None:
    try:
        pickle.dumps(opened)
    except (TypeError, pickle.PicklingError, AttributeError) as error:
        hint = "leave --runner out: it holds its network in this process"
        raise ConfigError(f"method {method.id} cannot be sent to a cluster", hint=hint) from error


def plan(
    method_id: str, items: Sequence[TestItem], out: Path, opened: Opened | None = None, *, many: bool = True
) -> dict[str, Any]:
    """What `generate` would make, JSON-ready; sounds are read, and nothing is written.

    Args:
        many: `out` is a folder of many videos, not the one video.
    """
    method = method_of(method_id)
    ready = opened or method.open()
    rows = [_planned(method, ready, item, out, many=many) for item in items]
    return {"method": method.id, "version": method.version, "made_with": dict(ready.facts), "items": rows}


def _planned(method: Method, opened: Opened, item: TestItem, out: Path, *, many: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"id": item.id, "video": str(_places(out, item)[0] if many else out), "emotion": item.emotion}
    try:
        frames = opened.check(item) if opened.check else read_sound(item)[1]
        done = _is_there(method, item, opened, _places(out, item) if many else _beside(out))
        return row | {"seconds": frames / FPS, "state": "there" if done else "to be made"}
    except TalkForgeError as error:
        return row | {"seconds": None, "state": f"{error.reason}: {error.message}"}


def _all(engine: Engine, *, method: Method, opened: Opened, items: Sequence[TestItem], out: Path) -> list[Generated]:
    return engine.map(f"generate {method.id}", partial(generate_item, method, out, opened=opened), items)


def _rows(done: Sequence[Generated]) -> list[dict[str, Any]]:
    return [{"id": one.id, "reason": one.reason, "message": one.message or None, **one.facts} for one in done]


def generate_item(method: Method, out: Path, item: TestItem, opened: Opened | None = None) -> Generated:
    """One item's video, made unless it is there already from the same inputs."""
    ready = opened or method.open()
    try:
        return _made(method, ready, item, _places(out, item))
    except WeightsError:  # no item can do without them, so the run ends here with the way to get them
        raise
    except TalkForgeError as error:
        facts = getattr(error, "facts", {})  # of the run, where another program failed
        return Generated(item.id, None, fresh=False, reason=error.reason, message=error.message, facts=facts)


def _made(method: Method, opened: Opened, item: TestItem, places: Places) -> Generated:
    """The item's video in its place, made unless it is there already. Raises what is wrong with the item."""
    target, marker = places
    identity = _identity(method, item, opened)
    if _is_there(method, item, opened, places):
        facts = json.loads(marker.read_text(encoding="utf-8")).get("facts", {})
        return Generated(item.id, target, fresh=False, facts=facts)
    check_target(target, item)
    if target.exists() and not marker.is_file():
        raise InputError(f"{target.name} is there already and was not made by this command", hint=ELSEWHERE)
    target.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        facts = dict(opened.make(item, target) or {})
    except WeightsError:
        raise
    except TalkForgeError:
        if marker.is_file():  # a video from other inputs, or by another version, which would be scored as this one's
            target.unlink(missing_ok=True)
            marker.unlink()
        raise
    facts = {"took_s": round(time.monotonic() - started, 3)} | facts
    write_json(marker, {"identity": identity, "facts": facts})
    return Generated(item.id, target, fresh=True, facts=facts)


def is_current(method: Method, out: Path, item: TestItem, opened: Opened | None = None) -> bool:
    """Whether the item's video is there and was made by this version of the method from these inputs."""
    return _is_there(method, item, opened or method.open(), _places(out, item))


def _is_there(method: Method, item: TestItem, opened: Opened, places: Places) -> bool:
    target, marker = places
    there = target.is_file() and marker.is_file()
    return there and _identity(method, item, opened) in marker.read_text(encoding="utf-8")


def _places(out: Path, item: TestItem) -> Places:
    return out / f"{item.id}.mp4", out / "_done" / f"{item.id}.json"


def _beside(out: Path) -> Places:
    """Of one video by itself: as if its folder held many."""
    return out, out.parent / "_done" / f"{out.stem}.json"


def _identity(method: Method, item: TestItem, opened: Opened) -> str:
    options = {"options": opened.identity} if opened.identity else {}
    return digest({"method": [method.id, method.version], "item": _content(item), **options})


def _content(item: TestItem) -> dict[str, Any]:
    """The item with its files replaced by their digests."""
    facts = asdict(item)
    if item.emotion_video is None:
        del facts["emotion_video"]  # what was made before items had one is what it is
    for name in [name for name, value in facts.items() if isinstance(value, Path)]:
        if not facts[name].is_file():
            raise InputError(f"{item.id}: there is no file {facts[name]}")
        facts[name] = file_sha256(facts[name])
    return facts


def open_method(method_id: str, overrides: Iterable[str] = (), **values: Any) -> Opened:
    """A method with the options of a command line; see `Method.open`."""
    return method_of(method_id).open(overrides, **values)
