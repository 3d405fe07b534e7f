"""The asset store: declared files under one root, each used only when its sha256 is the declared one.

A file is in the store when it lies under its declared name. A stamp beside it (size, modification time, sha256) saves
hashing it at every use. Files arrive by `pull`, which tries the declared sources in order, or by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .asset_files import Progress, StorageFailed, is_offline, locked, silent, storage_errors
from .assets import AssetSpec, AssetStatus, Catalogue, check_preset
from .errors import InputError, TalkForgeError, WeightsCorrupt, WeightsError, WeightsMissing
from .hashing import file_sha256
from .registry import did_you_mean
from .shards import atomic_path, write_json
from .unpickle import convert_flat_pickle

if TYPE_CHECKING:
    from .asset_fetch import Fetcher


@lru_cache(maxsize=8)
def _catalogue(path: Path, mtime_ns: int) -> Catalogue:
    """A catalogue, parsed once per version of its file."""
    return Catalogue.read(path)


@dataclass(frozen=True)
class Pulled:
    """What `pull_many` did about one entry: "pulled", "present" (it already was) or "failed" with the error."""

    name: str
    outcome: str
    path: Path | None
    error: TalkForgeError | None = None


class AssetStore:
    """Files by name.

    Args:
        root: folder of the store; created by the first pull.
        catalogue: what is declared.
        command: how a person gets an entry, with {name} in it; for hints.
    """

    def __init__(self, root: Path, catalogue: Catalogue, *, command: str = "talkforge weights pull {name}") -> None:
        self.root = root
        self.command = command
        self._specs = {spec.name: spec for spec in catalogue.assets}

    @classmethod
    def open(cls, root: Path, catalogue_file: Path) -> AssetStore:
        """The store at `root` of what a YAML file declares.

        Raises:
            ConfigError: the file cannot be read or does not fit.
        """
        mtime = catalogue_file.stat().st_mtime_ns if catalogue_file.is_file() else 0
        return cls(root, _catalogue(catalogue_file, mtime))

    def names(self, preset: str | None = None) -> list[str]:
        """Declared names in the catalogue's order; of one preset ("ci", "eval", "train"), or all.

        Raises:
            ConfigError: unknown preset.
        """
        if preset is None:
            return list(self._specs)
        check_preset(preset)
        return [name for name, spec in self._specs.items() if preset == "all" or preset in spec.presets]

    def spec(self, name: str) -> AssetSpec:
        """The declaration of `name`.

        Raises:
            InputError: nothing of that name is declared; the hint names the closest.
        """
        if name not in self._specs:
            hint = did_you_mean(name, self._specs) or "see: talkforge weights list"
            raise InputError(f"unknown weight or sample '{name}'", hint=hint)
        return self._specs[name]

    def where(self, name: str) -> Path:
        """Where the file of `name` lies or would lie, whether it is there or not."""
        return self.root / self.spec(name).file

    def path(self, name: str) -> Path:
        """The file of `name`, known to have the declared sha256.

        Raises:
            InputError: unknown name.
            WeightsMissing: it is not in the store; the hint says how to get it.
            WeightsCorrupt: another content lies there.
        """
        status = self.status(name)
        if status.state == "missing":
            raise WeightsMissing(f"{name} is not in the store ({status.path})", hint=self._way(self.spec(name)))
        if status.state == "wrong_hash":
            raise WeightsCorrupt(
                f"{status.path} has sha256 {status.sha256}, not the declared {self.spec(name).sha256}",
                hint=f"replace it: {self._way(self.spec(name))}",
            )
        return status.path

    def sha256(self, name: str) -> str:
        """sha256 of `name`: the declared one, or for an unpinned entry that of the file in the store.

        Raises:
            WeightsMissing: unpinned and not in the store.
        """
        declared = self.spec(name).sha256
        if declared:
            return declared
        found = self.status(name).sha256
        if found is None:
            raise WeightsMissing(f"{name} is not in the store", hint=self._way(self.spec(name)))
        return found

    def status(self, name: str, *, rehash: bool = False) -> AssetStatus:
        """What the store holds of `name`.

        Args:
            rehash: read the whole file even if its stamp still fits.
        """
        spec, path = self.spec(name), self.where(name)
        if not path.is_file():
            return AssetStatus(name, "missing", None, None, path, spec.pinned, self._way(spec))
        found = self._hash(path, rehash=rehash)
        if spec.sha256 is not None and found != spec.sha256:
            note = f"expected sha256 {spec.sha256}"
            return AssetStatus(name, "wrong_hash", path.stat().st_size, found, path, True, note)
        note = None if spec.pinned else "unpinned: placed by hand, its content cannot be checked"
        return AssetStatus(name, "present", path.stat().st_size, found, path, spec.pinned, note)

    def verify(self, names: Iterable[str]) -> list[AssetStatus]:
        """Status of each name with every byte read again."""
        return [self.status(name, rehash=True) for name in names]

    def pull(self, name: str, progress: Progress = silent, *, offline: bool | None = None) -> Path:
        """Gets one file into the store, unless it is there already, and returns its path.

        Args:
            progress: called with label, bytes so far and total.
            offline: True keeps to local folders and file:// indexes; None asks TALKFORGE_OFFLINE.

        Raises:
            InputError: unknown name.
            WeightsMissing: no source has it, or it can only be placed by hand.
            WeightsCorrupt: all that was found has another content.
            StorageFailed: the disk refused.
        """
        (result,) = self.pull_many([name], progress, offline=offline)
        if result.error is not None:
            raise result.error
        return self.path(name)

    def pull_many(
        self, names: Sequence[str], progress: Progress = silent, *, offline: bool | None = None
    ) -> list[Pulled]:
        """Gets several files; an archive that holds more than one of them is downloaded once.

        One failure does not stop the others. Archives are removed afterwards; unfinished downloads stay, to be resumed.

        Raises:
            InputError: one of the names is unknown (nothing is done then).
        """
        from .asset_fetch import Fetcher

        specs = [self.spec(name) for name in dict.fromkeys(names)]
        with Fetcher(self.root, offline=is_offline(offline), progress=progress) as fetcher:
            return [self._pull_one(spec, fetcher) for spec in specs]

    def _pull_one(self, spec: AssetSpec, fetcher: Fetcher) -> Pulled:
        try:
            if self.status(spec.name).ok:
                return Pulled(spec.name, "present", self.where(spec.name))
            if not spec.pinned:
                raise WeightsMissing(f"{spec.name} cannot be pulled: its sha256 is not known", hint=self._way(spec))
            with locked(self._lock(spec), lambda: fetcher.progress(f"{spec.name}: another process gets it", 0, None)):
                # Another process may have got it while this one waited for the lock.
                if not self.status(spec.name).ok:
                    fetcher.fetch(spec, self.where(spec.name))
                    self._stamp(self.where(spec.name), spec.sha256)
            return Pulled(spec.name, "pulled", self.where(spec.name))
        except (WeightsError, StorageFailed) as error:
            return Pulled(spec.name, "failed", None, error)

    def converted(self, name: str) -> Path:
        """The safetensors form of a pickled file, made at the first call and named after the source's sha256.

        Raises:
            InputError: the entry declares no conversion.
            WeightsMissing, WeightsCorrupt: see `path`.
            UnsafePickle, BadPickle: the pickle is not what it should be.
        """
        spec = self.spec(name)
        if spec.convert == "none":
            raise InputError(f"{name} declares no conversion", hint="load the file itself")
        source, sha256 = self.path(name), self.sha256(name)
        target = source.with_name(f"{source.stem}-{sha256[:16]}.safetensors")
        if target.is_file():
            return target
        with locked(self._lock(spec)), storage_errors(target):
            if not target.is_file():
                with atomic_path(target) as temporary:
                    convert_flat_pickle(source, temporary, {"source": spec.file, "source_sha256": sha256})
        return target

    def _way(self, spec: AssetSpec) -> str:
        """How a person gets the file, for hints."""
        if spec.remote:
            return f"get it with: {self.command.format(name=spec.name)}"
        way = f"put the file at {self.root / spec.file}"
        if spec.pinned:
            way += f", or its folder into TALKFORGE_WEIGHTS_LOCAL and: {self.command.format(name=spec.name)}"
        return ". ".join(part for part in (way, spec.note, f"home: {spec.home}" if spec.home else None) if part)

    def _lock(self, spec: AssetSpec) -> Path:
        return self.root / ".locks" / f"{spec.name}.lock"

    def _hash(self, path: Path, *, rehash: bool) -> str:
        """sha256 of the file, from its stamp while size and modification time still fit."""
        stamp = _read_stamp(_stamp_path(path))
        if not rehash and stamp is not None and stamp[:2] == _fingerprint(path):
            return stamp[2]
        return self._stamp(path)

    def _stamp(self, path: Path, sha256: str | None = None) -> str:
        """Notes the file's sha256 beside it and returns it; computes it where it is not given."""
        with storage_errors(path):
            size, mtime_ns = _fingerprint(path)
            found = sha256 or file_sha256(path)
        # A store that several users share may be read-only: then the file is hashed at each use.
        with suppress(OSError):
            write_json(_stamp_path(path), {"size": size, "mtime_ns": mtime_ns, "sha256": found})
        return found


def _stamp_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.stamp.json")


def _fingerprint(path: Path) -> tuple[int, int]:
    """Size and modification time in nanoseconds."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _read_stamp(path: Path) -> tuple[int, int, str] | None:
    """Size, modification time and sha256 of a stamp; None when it is absent or not readable."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        size, mtime_ns, sha256 = data["size"], data["mtime_ns"], data["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (size, mtime_ns, sha256) if re.fullmatch(r"[0-9a-f]{64}", str(sha256)) else None


def list_rows(store: AssetStore, preset: str | None = None) -> list[dict[str, Any]]:
    """One plain row an entry, for listings: declaration and state.

    Returns:
        dicts with name, file, what, licence, bytes (declared; None if unknown), sha256, presets, used_by, gated,
        sources (kinds in order), home, state ("present", "missing", "wrong_hash"), pinned, note.
    """
    return [_row(store.spec(name), store.status(name)) for name in store.names(preset)]


def _row(spec: AssetSpec, status: AssetStatus) -> dict[str, Any]:
    return {
        "name": spec.name,
        "file": spec.file,
        "what": spec.what,
        "licence": spec.licence,
        "bytes": spec.bytes,
        "sha256": spec.sha256,
        "presets": list(spec.presets),
        "used_by": list(spec.used_by),
        "gated": spec.gated,
        "sources": [source.kind for source in spec.sources],
        "home": spec.home,
        "state": status.state,
        "pinned": spec.pinned,
        "note": status.note or spec.note,
    }


def pull_rows(store: AssetStore, names: Sequence[str], progress: Progress = silent) -> list[dict[str, Any]]:
    """Pulls and gives one plain row a name: name, outcome ("pulled", "present", "failed"), path, reason, message."""
    return [
        {
            "name": result.name,
            "outcome": result.outcome,
            "path": str(result.path) if result.path else None,
            "reason": result.error.reason if result.error else None,
            "message": str(result.error) if result.error else None,
        }
        for result in store.pull_many(names, progress)
    ]


def verify_rows(store: AssetStore, names: Iterable[str]) -> list[dict[str, Any]]:
    """Rehashes and gives one plain row a name, in the form of `list_rows`."""
    return [_row(store.spec(status.name), status) for status in store.verify(names)]
