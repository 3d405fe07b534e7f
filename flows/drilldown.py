"""Pages behind a leaderboard: a page a method with its clips to be played, and one that holds two methods together.

They are made from finished evaluations alone: numbers from their folders, videos from where their configuration says,
frames and curves from the feature cache. Whatever is no longer there is left out, and the page says so with the reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.config import digest
from ..core.errors import InputError
from ..core.hashing import file_sha256
from ..core.provenance import version
from ..core.shards import write_json, write_text
from ..reports.drilldown import Method
from ..reports.drilldown_page import COMPARE, render_compare, render_method
from .drilldown_clips import RunMedia
from .drilldown_files import Placer, Videos
from .drilldown_methods import page_folder, read_methods
from .finished import finished_results

MADE = "made.json"
MARK, HEAD = 'content="TalkForge"', 4000  # stands within so many characters


def write_drilldown(
    runs: Sequence[Path],
    out: Path,
    *,
    videos: Videos = "link",
    clips_limit: int | None = None,
    cache: Path | None = None,
    priors: Mapping[str, Path] | None = None,
    index: str | None = None,
) -> dict[str, str]:
    """Writes `out/method-*/index.html` for each run and, over two runs or more, `out/compare.html`.

    Args:
        runs: folders of finished evaluations, each of another method.
        out: folder of the pages.
        videos: "link": the pages point at the videos where they lie. "copy": into `out`, which can then be moved.
            "embed": everything inside each page, for small sets.
        clips_limit: so many clips a method get frames and curves, worst and best ones first; None: all.
        cache: the feature cache to look into; None: the one that each evaluation used.
        priors: for a method, an `.npz` of `talkforge priors --by clip`, to be shown as t-SNE.
        index: href of the leaderboard from `out`, which the pages lead back to.

    Returns:
        For each method the href of its page from `out`.

    Raises:
        InputError: no run, a folder that is none, two runs of one method, a page that is not ours, or more to embed
            than a page can hold.
    """
    read = {folder: finished_results(folder) for folder in runs}
    names = [results["method"] for results in read.values()]
    if not runs or len(set(names)) < len(names) or len(read) < len(runs):
        raise InputError("a page needs runs, each of another method", hint=f"given: {', '.join(names) or 'none'}")
    made = _Made(out, runs, {"videos": videos, "limit": clips_limit, "index": index, "cache": str(cache)}, priors or {})
    hrefs = {name: f"{page_folder(name)}/index.html" for name in names}
    pages = [*hrefs.values(), *([COMPARE] if len(runs) > 1 else [])]
    if made.current(pages):
        return hrefs
    _check([out / page for page in pages])
    methods = read_methods(read, out, cache, priors or {})
    _write(methods, Placer(out, videos, clips_limit), index)
    made.write(pages)
    return hrefs


def _write(methods: Sequence[tuple[Method, RunMedia]], placer: Placer, index: str | None) -> None:
    compare = f"../{COMPARE}" if len(methods) > 1 else None
    for method, media in methods:
        text = render_method(placer.page(method, media), index=index and f"../{index}", compare=compare)
        write_text(placer.out / method.folder / "index.html", text)
    if compare:
        write_text(placer.out / COMPARE, render_compare(placer.compared(methods), index=index))


@dataclass(frozen=True)
class _Made:
    """Says whether the pages in a folder are of these very runs and settings, so that they are not made again.

    Args:
        out: the folder of the pages.
        runs: whose numbers they show.
        settings: what else they depend on, JSON-ready.
        priors: by method.
    """

    out: Path
    runs: Sequence[Path]
    settings: Mapping[str, Any]
    priors: Mapping[str, Path]

    def current(self, pages: Sequence[str]) -> bool:
        """Whether all pages are there as they would be made now."""
        try:
            written = json.loads((self.out / MADE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return written == self._facts(pages) and all((self.out / page).is_file() for page in pages)

    def write(self, pages: Sequence[str]) -> None:
        """Says that they are."""
        write_json(self.out / MADE, self._facts(pages))

    def _facts(self, pages: Sequence[str]) -> dict[str, Any]:
        files = [run / name for run in self.runs for name in ("results.json", "config.yaml")] + [*self.priors.values()]
        places = [os.path.relpath(run, self.out) for run in self.runs]
        sources = {"files": [file_sha256(path) if path.is_file() else None for path in files], "runs": places}
        return {"digest": digest({**self.settings, **sources, "version": version()}), "pages": list(pages)}


def _check(pages: Sequence[Path]) -> None:
    """Refuses to write over a page that is not ours."""
    for page in pages:
        if page.exists() and MARK not in page.read_text(encoding="utf-8", errors="replace")[:HEAD]:
            raise InputError(f"{page} is not a page of ours", hint="give another folder")
