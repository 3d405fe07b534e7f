"""How the drill-down pages reach their files: linked where they lie, copied beside the pages, or inside them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ..core.errors import InputError
from ..core.shards import atomic_path, write_bytes
from ..reports.drilldown import Clip, File, Method, Strip, looked_at_first
from ..reports.drilldown_links import data_uri, file_name, relative_href
from .drilldown_clips import ClipMedia, Frames, RunMedia, curve_groups, curve_notes

Videos = Literal["link", "copy", "embed"]
MEDIA, FRAMES = "media", "frames"
MOST_EMBEDDED = 96 * 2**20  # bytes of files in one page: a browser holds all of it in memory, as text and decoded


@dataclass
class Placer:
    """Gives each file an address for the page that is being made.

    Args:
        out: folder of the pages.
        videos: see `drilldown.write_drilldown`.
        limit: so many clips a method get frames and curves; None: all.
    """

    out: Path
    videos: Videos
    limit: int | None = None
    _page: Path = field(default_factory=Path)
    _embedded: int = 0

    def page(self, method: Method, media: RunMedia) -> Method:
        """The method as its own page shows it: with videos, frames and curves."""
        self._begin(self.out / method.folder)
        first = looked_at_first(method.clips, method.metrics)
        shown = {clip.number for clip in first[: self.limit]}
        return replace(method, clips=[self._shown(clip, media, clip.number in shown) for clip in method.clips])

    def compared(self, methods: Sequence[tuple[Method, RunMedia]]) -> list[Method]:
        """The methods as the page of two shows them: with videos alone."""
        self._begin(self.out)
        return [replace(method, clips=[self._clip(c, media) for c in method.clips]) for method, media in methods]

    def _begin(self, page: Path) -> None:
        self._page, self._embedded = page, 0

    def _clip(self, clip: Clip, media: RunMedia) -> Clip:
        found = media.clips.get(clip.name, ClipMedia(None, None))
        return replace(
            clip, real=self._video(clip.real, found.real), generated=self._video(clip.generated, found.generated)
        )

    def _shown(self, clip: Clip, media: RunMedia, whole: bool) -> Clip:
        clip = self._clip(clip, media)
        if not whole:
            left = f"left out: {self.limit} of {len(media.clips)} clips have them"
            empty = Strip(File(reason=left))
            return replace(clip, strip_real=empty, strip_generated=empty, notes=[f"Frames and curves are {left}."])
        real, generated = media.both(clip.name)
        return replace(
            clip,
            strip_real=self._strip(real.frames, clip.real.name),
            strip_generated=self._strip(generated.frames, clip.generated.name),
            curves=curve_groups(real, generated),
            notes=curve_notes(real, generated),
        )

    def _video(self, file: File, path: Path | None) -> File:
        if path is None:
            return file
        if self.videos == "embed":
            return replace(file, href=self._embed(path.read_bytes(), path.suffix))
        if self.videos == "copy":
            path = _copied(path, self.out / MEDIA)
        return replace(file, href=relative_href(path, self._page))

    def _strip(self, frames: Frames, name: str) -> Strip:
        if frames.jpeg is None:
            return Strip(File(reason=frames.reason, name=name))
        if self.videos == "embed":
            href = self._embed(frames.jpeg, ".jpg")
        else:
            # Named by what it holds: the real clip's frames are there once, whichever method they stand beside.
            path = self.out / FRAMES / f"{hashlib.sha256(frames.jpeg).hexdigest()[:20]}.jpg"
            if not path.exists():
                write_bytes(path, frames.jpeg)
            href = relative_href(path, self._page)
        return Strip(File(href, name=name), frames.seconds)

    def _embed(self, data: bytes, suffix: str) -> str:
        self._embedded += len(data)
        if self._embedded > MOST_EMBEDDED:
            text = f"more than {MOST_EMBEDDED // 2**20} MiB of videos would stand in {self._page.name}"
            raise InputError(text, hint='link or copy them: videos "link" or "copy"')
        return data_uri(data, suffix)


def _copied(path: Path, folder: Path) -> Path:
    """The file's copy in `folder`, made where it is not there as it is now."""
    copy, now = folder / file_name(path), path.stat()
    if not copy.is_file() or (copy.stat().st_size, copy.stat().st_mtime_ns) != (now.st_size, now.st_mtime_ns):
        with atomic_path(copy) as temporary:
            shutil.copy2(path, temporary)
    return copy
