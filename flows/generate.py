"""The generation flow: a method over test items, each video whole or absent, finished ones kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..core.config import Config, digest, read_yaml, validate
from ..core.errors import InputError, TalkForgeError, WeightsError
from ..core.hashing import file_sha256
from ..core.lock import owned
from ..core.registry import resolve
from ..core.shards import write_json
from ..datasets.folder import scan_folder
from ..tasks.methods import Method, TestItem, methods
from .engine import Engine, run


class TestSet(Config):
    """A test set file; its paths are relative to the file."""

    __test__ = False

    name: str
    items: list[TestItem]

    @classmethod
    def read(cls, path: Path) -> list[TestItem]:
        """The items of a YAML file, paths resolved.

        Raises:
            ConfigError: not a test set. InputError: an id is not a plain file name, or stands twice.
        """
        loaded = validate(cls, read_yaml(path), where=str(path))
        items = [_resolved(item, path.parent) for item in loaded.items]
        ids = [item.id for item in items]
        for name in ids:
            if Path(name).name != name or name in {".", ".."}:
                raise InputError(f"{path}: id '{name}' is not a plain file name")
            if ids.count(name) > 1:
                raise InputError(f"{path}: id '{name}' stands twice")
        return items


def _resolved(item: TestItem, base: Path) -> TestItem:
    video = None if item.video is None else base / item.video
    return replace(item, portrait=base / item.portrait, audio=base / item.audio, video=video)


def items_from_clips(folder: Path) -> list[TestItem]:
    """Each real clip of a folder as a test item: its first frame is the portrait, its sound drives it."""
    found = scan_folder(folder).files
    return [TestItem(item.stem, item.path, item.audio_path or item.path, item.path) for item in found]


def items_of(testset: Path | None, real: Path | None) -> list[TestItem]:
    """The items of a test set file, or of a folder of real clips. Raises InputError for both or neither."""
    if (testset is None) == (real is None):
        raise InputError("say what to generate from", hint="one of --testset YAML, --real DIR, --portrait and --audio")
    return TestSet.read(testset) if testset else items_from_clips(real or Path())


def generate_one(method_id: str, out: Path, portrait: Path | None, audio: Path | None, emotion: str | None) -> None:
    """One video from a portrait and a sound. Raises InputError when one of them is not given or not there."""
    method = methods.get(method_id)
    if portrait is None:
        raise InputError("no --portrait was given", hint="an image, or a clip whose first frame is taken")
    sound = audio or portrait
    for path in (portrait, sound):
        if not path.is_file():
            raise InputError(f"there is no file {path}")
    if out.suffix.lower() != ".mp4":
        raise InputError(f"--out {out} is no .mp4 file", hint="a folder goes with --testset or --real")
    item = TestItem(out.stem, portrait, sound, portrait if method_id == "copy" else None, emotion)
    check_target(out, item)
    out.parent.mkdir(parents=True, exist_ok=True)
    resolve(method.target)(item, out)


def check_target(target: Path, item: TestItem) -> None:
    """Refuses to write a video over what it is made from."""
    for path in (item.portrait, item.audio, item.video):
        if path is not None and target.exists() and target.samefile(path):
            raise InputError(f"{target} would be written over its own input", hint="give --out another place")


@dataclass(frozen=True)
class Generated:
    """What became of one item."""

    id: str
    video: Path | None
    fresh: bool
    reason: str | None = None
    message: str = ""


def generate(
    method_id: str, items: Sequence[TestItem], out: Path, *, workers: int, use_prefect: bool
) -> list[Generated]:
    """Runs a method over items into `out/<id>.mp4`; an item whose inputs are unchanged is not made again.

    A failed item has its reason in the list and in `out/generation.json`, and no video.
    """
    method = methods.get(method_id)
    with owned(out):
        done = run(
            f"generate-{method_id}",
            partial(_all, method=method, items=items, out=out),
            workers=workers,
            use_prefect=use_prefect,
        )
        write_json(out / "generation.json", {"method": method.id, "version": method.version, "items": _rows(done)})
    return done


def _all(engine: Engine, *, method: Method, items: Sequence[TestItem], out: Path) -> list[Generated]:
    return engine.map(f"generate {method.id}", partial(generate_item, method, out), items)


def _rows(done: Sequence[Generated]) -> list[dict[str, Any]]:
    return [{"id": one.id, "reason": one.reason, "message": one.message or None} for one in done]


def generate_item(method: Method, out: Path, item: TestItem) -> Generated:
    """One item's video, made unless it is there already from the same inputs."""
    target, marker = _places(out, item)
    try:
        identity = _identity(method, item)
        if is_current(method, out, item):
            return Generated(item.id, target, fresh=False)
        check_target(target, item)
        if target.exists() and not marker.is_file():
            raise InputError(f"{target.name} is there already and was not made by this command")
        target.parent.mkdir(parents=True, exist_ok=True)
        resolve(method.target)(item, target)
        write_json(marker, {"identity": identity})
        return Generated(item.id, target, fresh=True)
    except WeightsError:  # no item can do without them, so the run ends here with the way to get them
        raise
    except TalkForgeError as error:
        return Generated(item.id, None, fresh=False, reason=error.reason, message=error.message)


def is_current(method: Method, out: Path, item: TestItem) -> bool:
    """Whether the item's video is there and was made by this version of the method from these inputs."""
    target, marker = _places(out, item)
    there = target.is_file() and marker.is_file()
    return there and _identity(method, item) in marker.read_text(encoding="utf-8")


def _places(out: Path, item: TestItem) -> tuple[Path, Path]:
    return out / f"{item.id}.mp4", out / "_done" / f"{item.id}.json"


def _identity(method: Method, item: TestItem) -> str:
    return digest({"method": [method.id, method.version], "item": _content(item)})


def _content(item: TestItem) -> dict[str, Any]:
    """The item with its files replaced by their digests."""
    facts = asdict(item)
    for name in ("portrait", "audio", "video"):
        path = facts[name]
        if path is not None and not path.is_file():
            raise InputError(f"{item.id}: there is no file {path}")
        facts[name] = path and file_sha256(path)
    return facts
