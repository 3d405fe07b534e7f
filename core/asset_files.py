"""What every part of the asset store needs of the disk and the terminal: hashes, locks, disk errors, progress."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from .errors import TalkForgeError

OFFLINE_ENV = "TALKFORGE_OFFLINE"


class Progress(Protocol):
    """Called with a label, the bytes so far and the total (None when it is not known)."""

    def __call__(self, label: str, done: int, total: int | None) -> None: ...


class StorageFailed(TalkForgeError):
    """The disk refused: full, read-only, no permission."""

    reason = "storage"


def is_offline(offline: bool | None = None) -> bool:
    """Whether the network is off limits: the argument, else the environment variable TALKFORGE_OFFLINE."""
    if offline is not None:
        return offline
    return os.environ.get(OFFLINE_ENV, "").strip().lower() not in ("", "0", "false", "no")


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns disk errors inside the block into one StorageFailed line that names the place."""
    try:
        yield
    except OSError as error:
        place = error.filename or path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFailed(f"no space left for {place}", hint="free some space and run it again") from error
        hint = None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            hint = "choose another folder or change its rights"
        raise StorageFailed(f"cannot use {place}: {error.strerror or error}", hint=hint) from error


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds an exclusive lock on `path` (an empty file, left in place); the system frees it when the process dies.

    Args:
        on_wait: called once if another process holds the lock.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with storage_errors(path):
            _acquire(handle, on_wait)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, on_wait: Callable[[], None] | None) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if on_wait is not None:
            on_wait()
        fcntl.flock(handle, fcntl.LOCK_EX)


def silent(label: str, done: int, total: int | None) -> None:
    """A progress that says nothing."""


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """A progress for people on stderr: bars on a terminal, elsewhere one line for each finished transfer."""
    if not sys.stderr.isatty():
        yield _finished_lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(label: str, done: int, total: int | None) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total)
            bars.update(tasks[label], completed=done, total=total)

        yield show


def _finished_lines(label: str, done: int, total: int | None) -> None:
    if total is not None and done == total:
        print(f"{label}: {done / 1e6:.1f} MB", file=sys.stderr)
