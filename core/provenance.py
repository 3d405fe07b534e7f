"""What made a number: versions, commit, machine kind. No user name, host name or path of the machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
TRACKED = ("av", "mediapipe", "numpy", "prefect", "pyarrow", "scipy", "torch")


def version() -> str:
    """TalkForge's version, `+<commit>` appended when it runs from a git checkout, `.dirty` when files differ."""
    from .. import __version__

    commit = git_commit()
    return f"{__version__}+{commit}" if commit else __version__


def git_commit() -> str | None:
    """Short commit of the checkout the package runs from, or None outside one."""
    if not (PACKAGE_ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(PACKAGE_ROOT), "describe", "--always", "--dirty=.dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def package_version(name: str) -> str | None:
    """Installed version of a distribution, None when it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """Versions and kind of machine, JSON-ready."""
    return {
        "python": sys.version.split()[0],
        "platform": f"{platform.system()}-{platform.machine()}",
        "packages": {name: package_version(name) for name in TRACKED},
    }


def now() -> str:
    """UTC time, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
