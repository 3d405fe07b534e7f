"""Where a number comes from, without telling whose machine it was."""

from __future__ import annotations

import getpass
import json
import platform
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy
import talkforge
from talkforge.core import provenance


def test_the_environment_names_versions_and_nobody() -> None:
    facts = provenance.environment()
    assert facts["packages"]["numpy"] == numpy.__version__
    assert facts["python"] == platform.python_version()
    values = json.dumps([*facts.values()])
    for private in (platform.node(), getpass.getuser(), str(Path.home()), str(Path(talkforge.__file__).parent)):
        assert private not in values


def test_a_package_that_is_not_there_has_no_version() -> None:
    assert provenance.package_version("no-such-package-anywhere") is None


def test_the_version_names_the_commit_of_a_checkout(monkeypatch, tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    monkeypatch.setattr(provenance, "PACKAGE_ROOT", tmp_path)
    assert provenance.version() == talkforge.__version__, "no checkout, no commit"
    git("init", "--quiet")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "--quiet", "-m", "first")
    commit = git("rev-parse", "--short", "HEAD")
    assert provenance.version() == f"{talkforge.__version__}+{commit}"
    git("tag", "v9")
    (tmp_path / "file").write_text("b")
    assert provenance.version() == f"{talkforge.__version__}+{commit}.dirty"


def test_times_are_utc_and_whole_seconds() -> None:
    now = datetime.fromisoformat(provenance.now())
    assert now.utcoffset() == timedelta(0) and now.microsecond == 0
    assert abs(datetime.now(UTC) - now) < timedelta(minutes=5)
