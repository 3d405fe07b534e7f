"""One run an output folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from talkforge.core.errors import OutputBusy
from talkforge.core.lock import owned

# Says "here" once it holds the folder, and stays until its input ends or it is killed.
OWNER = """
import sys
from pathlib import Path
from talkforge.core.lock import owned
with owned(Path(sys.argv[1])):
    print("here", flush=True)
    sys.stdin.read()
"""


@contextmanager
def owner(out: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder."""
    command = [sys.executable, "-c", OWNER, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        try:
            yield process
        finally:
            process.kill()


def take(out: Path) -> None:
    with owned(out):
        pass


def test_a_second_run_is_told_who_is_at_work(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with owner(out) as process:
        with pytest.raises(OutputBusy) as busy:
            take(out)
        assert f"process {process.pid} is writing {out}" in busy.value.message
        assert busy.value.exit_code == 2 and busy.value.hint


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with owner(out) as process:
        process.kill()
        process.wait()
        take(out)


def test_a_finished_run_holds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with owner(out) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=30) == 0
        take(out)


def test_a_failed_run_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), owned(tmp_path / "out"):
        raise ValueError("stop")
    take(tmp_path / "out")


def test_the_owner_is_the_present_one(tmp_path: Path) -> None:
    """The file keeps its last owner's number; the next one replaces it."""
    out = tmp_path / "out"
    with owner(out) as process:
        other = process.pid
    with owned(out), pytest.raises(OutputBusy) as busy:
        take(out)
    assert f"process {os.getpid()} " in busy.value.message and str(other) not in busy.value.message.split()


def test_folders_are_owned_one_by_one(tmp_path: Path) -> None:
    with owned(tmp_path / "a"):
        take(tmp_path / "b")


def test_one_folder_has_one_lock_whatever_its_path_looks_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "link").symlink_to("out")
    monkeypatch.chdir(out)
    for name in (Path(), tmp_path / "link", Path("../out"), Path("sub/..")):
        with owned(out), pytest.raises(OutputBusy):
            take(name)
    assert [*out.iterdir()] == [], "the lock lies beside the folder, which the run replaces"
