"""One run an output folder: the second one is told who is at work instead of mixing its files in."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputBusy


@contextmanager
def owned(out: Path) -> Iterator[None]:
    """Holds the folder for this process. The lock lies beside it and goes with the process, also after a kill.

    Raises:
        OutputBusy: another process holds it; the message has its id.
    """
    folder = out.resolve()  # one lock for one folder, by whatever path it is reached
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f".{folder.name or 'root'}.lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise OutputBusy(f"process {owner} is writing {out}", hint="wait for it or give another --out") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
