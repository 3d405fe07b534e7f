"""Folders for temporary files that do not outlive a killed process for long.

Each has its process in its name. Whoever makes one removes those of processes that are gone, of the same machine: of
another one that shares the place nothing is known.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from pathlib import Path


def scratch_folder(place: Path | None) -> Path:
    """A new empty folder below `place` (the system's place for temporary files when None); the caller removes it."""
    if place is None:
        return Path(tempfile.mkdtemp(prefix="talkforge-"))
    place.mkdir(parents=True, exist_ok=True)
    host = platform.node() or "unknown"
    for left in place.glob(f"{host}--*--*"):
        pid = left.name.split("--")[-2]
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{host}--{os.getpid()}--", dir=place))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True
