"""One run an output folder: the second one is told who is at work, or waits, instead of mixing its files in."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import OutputBusy
from .provenance import now

POLL_SECONDS = 0.5
LINE_SECONDS = 30.0
COMMAND_CHARACTERS = 200


@contextmanager
def owned(out: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the folder for this process. The lock lies beside it and goes with the process, also after a kill.

    Args:
        out: the folder; it need not exist.
        wait: until another owner has gone, with a line on stderr now and then, instead of refusing.

    Raises:
        OutputBusy: another process holds it; the message has its id, machine, command and start.
    """
    folder = out.resolve()  # one lock for one folder, by whatever path it is reached
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f".{folder.name or 'root'}.lock"
    with path.open("a+", encoding="utf-8") as file:
        if not _taken(file):
            if not wait:
                raise OutputBusy(_busy(file, out), hint="wait for it, with --wait, or give another --out")
            _wait(file, out)
        file.truncate(0)
        file.write(json.dumps(_self()))
        file.flush()
        yield


def _taken(file: IO[str]) -> bool:
    """Whether this process has the lock now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(file: IO[str], out: Path) -> None:
    """Polls: a blocking lock could not say who is at work."""
    said = -float("inf")
    while not _taken(file):
        if time.monotonic() - said >= LINE_SECONDS:
            print(f"waiting: {_busy(file, out)}", file=sys.stderr, flush=True)
            said = time.monotonic()
        time.sleep(POLL_SECONDS)


def _self() -> dict[str, str | int]:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    host, pid = platform.node() or "unknown", os.getpid()
    return {"pid": pid, "host": host, "since": now(), "command": command[:COMMAND_CHARACTERS]}


def _busy(file: IO[str], out: Path) -> str:
    """Who holds the folder, as one line; an owner that has not written itself down yet stays unknown."""
    file.seek(0)
    try:
        owner = json.loads(file.read())
        details = f"on {owner['host']} since {owner['since']}: {owner['command']}"
        return f"process {owner['pid']} is writing {out} ({details})"
    except (ValueError, KeyError, TypeError):
        return f"process unknown is writing {out}"
