"""One run an output folder."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
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
        assert f"on {platform.node()} since {datetime.now(UTC):%Y-%m-%d}T" in busy.value.message
        assert f"-c {out}" in busy.value.message, "its command"
        assert len(busy.value.message.splitlines()) == 1
        assert busy.value.exit_code == 2 and busy.value.hint


def test_a_waiting_run_says_for_whom_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with owner(out) as process:
        ender = threading.Timer(1.2, process.kill)
        ender.start()
        with owned(out, wait=True):
            assert process.wait() < 0, "it was not let in beside the owner"
            with pytest.raises(OutputBusy, match=f"process {os.getpid()} "):
                take(out)
    said = capsys.readouterr().err.splitlines()
    assert [f"waiting: process {process.pid} is writing {out}" in line for line in said] == [True]


def test_waiting_for_nobody_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with owned(tmp_path / "out", wait=True):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["", "4711", "[1]", '{"pid": 3}', "\x00"])
def test_an_owner_that_has_not_written_itself_down_is_unknown(tmp_path: Path, text: str) -> None:
    """As between its lock and its words, or of an earlier release."""
    with owned(tmp_path / "out"):
        (tmp_path / ".out.lock").write_text(text)
        with pytest.raises(OutputBusy, match="process unknown is writing"):
            take(tmp_path / "out")


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
