"""Progress goes to stderr and never gets between the caller and the items."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from talkforge.core import progress
from talkforge.core.progress import track

ON_A_TERMINAL = """
from talkforge.core.progress import track
print(list(track(range(3), "extract")))
"""


def test_work_that_is_over_at_once_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(track([3, 1, 2], "extract")) == [3, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_long_work_gives_lines_with_what_is_done(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", -1.0)
    assert list(track("abc", "extract")) == ["a", "b", "c"]
    out, err = capfd.readouterr()
    assert out == "" and err == "extract: 0 of 3\nextract: 1 of 3\nextract: 2 of 3\n"


def test_lines_are_few(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line at most every `LINE_SECONDS`, however many items there are; here the clock moves 1 s an item."""
    seconds = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    assert len(list(track(range(100), "extract"))) == 100
    monkeypatch.undo()
    assert capfd.readouterr().err == "".join(f"extract: {done} of 100\n" for done in (20, 41, 62, 83))


def test_a_terminal_sees_a_bar_and_stdout_stays_clean() -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", ON_A_TERMINAL], stdout=subprocess.PIPE, stderr=theirs, check=True)
    os.close(theirs)
    drawn = b""
    try:
        while piece := os.read(ours, 4096):
            drawn += piece
    except OSError:  # Linux tells the end of a terminal by an error
        pass
    finally:
        os.close(ours)
    assert done.stdout == b"[0, 1, 2]\n"
    assert b"extract" in drawn
