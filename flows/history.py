"""The history file of evaluations: entries put in under a lock, and its page."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.config import read_yaml
from ..core.errors import InputError
from ..core.lock import owned
from ..core.provenance import now
from ..core.shards import write_text
from ..reports.history import Entry, Recorded, before, change_text, entry_of, format_history, parse_history, recorded
from ..reports.history_page import history_model, render_history_html, render_history_plot
from .evaluate import Outcome

MARKS = ('content="TalkForge"', 'data-generator="TalkForge"')  # of a page, of a plot
DIRTY = ".dirty"


@dataclass(frozen=True)
class Commit:
    """A commit of the user's repository; `reason` says why there is none, `dirty` whether files differ from it."""

    sha: str | None
    reason: str | None = None
    dirty: bool | None = None


@dataclass(frozen=True)
class Kept:
    """A run in the history, and for each of its metrics the change since the entry before."""

    entry: Entry
    recorded: Recorded
    changes: Mapping[str, str]


def commit_of(folder: Path) -> Commit:
    """The commit that a run belongs to: the job's (`GITHUB_SHA`), else that of the checkout that `folder` is in."""
    if sha := os.environ.get("GITHUB_SHA"):
        return Commit(sha)
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", f"--dirty={DIRTY}", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Commit(None, f"git cannot be run: {error}")
    found = done.stdout.strip()
    if done.returncode or not found:
        return Commit(None, " ".join(done.stderr.split()).removeprefix("fatal: ") or "no commit yet")
    return Commit(found.removesuffix(DIRTY), None, found.endswith(DIRTY))


def read_history(path: Path) -> list[Entry]:
    """The entries of a history file; none where there is no file.

    Raises:
        InputError: it cannot be read. ConfigError: a line that is no entry.
    """
    try:
        return parse_history(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def record(path: Path, runs: Sequence[Outcome], commit: Commit) -> list[Kept]:
    """Puts finished runs into a history file, which is whole at any moment; see `reports.history.recorded`.

    Raises:
        What `read_history` raises; the file is then left as it is.
    """
    facts = {"commit": commit.sha, "commit_reason": commit.reason, "dirty": commit.dirty}
    new = [entry_of(run.results, _settings(run.out), now(), **facts) for run in runs]
    with owned(path, wait=True):
        entries = read_history(path)
        kept = []
        for entry in new:
            entries, place = recorded(entries, entry)
            kept.append((place, entry))
        if any(place.how != "there" for place, _ in kept):
            write_text(path, format_history(entries))
    return [Kept(entries[place.index], place, _changes(entries, place.index)) for place, _ in kept]


def _settings(run: Path) -> Mapping[str, Any]:
    return read_yaml(run / "config.yaml")


def _changes(entries: Sequence[Entry], index: int) -> dict[str, str]:
    old, entry = before(entries, index), entries[index]
    return {name: change_text(old, entry, name) for name in entry.metrics}


def write_history(path: Path, out: Path) -> list[Path]:
    """Writes the history's page and a plot for each metric of each method; gives the files.

    Raises:
        InputError: there is no such file, no entry in it, or `out` holds such files of another origin.
        What `read_history` raises.
    """
    if not path.is_file():
        raise InputError(f"there is no history {path}", hint="talkforge eval --history FILE writes one")
    entries = read_history(path)
    if not entries:
        raise InputError(f"{path} holds no entry", hint="talkforge eval --history FILE adds one")
    model = history_model(entries)
    files = {out / "index.html": render_history_html(model)}
    files |= {out / plot.file: render_history_plot(plot) for plot in model.plots}
    for file in files:
        _check(file)
    for file, text in files.items():
        write_text(file, text)
    return list(files)


def _check(file: Path) -> None:
    if file.exists() and not any(mark in file.read_text(encoding="utf-8", errors="replace") for mark in MARKS):
        raise InputError(f"{file} is there already and is not ours", hint="give --out another folder")
